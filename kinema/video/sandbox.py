"""Sandbox for untrusted files: if its worker process crashes, hangs or runs out of memory, the file is unreadable.

Each reading thread has a worker process, `kinema.video.sandbox_worker` by default, from its first file until the thread
ends. Requests are lines of JSON. Answers are JSON followed by the bytes of frames; nothing is unpickled.
"""

import json
import os
import selectors
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal, cast

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from kinema.config import to_json
from kinema.errors import UnreadableVideo
from kinema.modality import ReadAs
from kinema.video.container import Gray, Timeline
from kinema.video.pixels import PixelAspect
from kinema.video.read_options import ReadOptions
from kinema.video.remarks import Remark
from kinema.video.unreadable import unreadable
from kinema.video.video_file import check_indices

MAX_ANSWER = 2**24
"""Largest number of bytes in an answer without its frames."""

START_S = 60.0
"""Seconds that a worker process may take to start."""

READY = b"ready\n"
"""First output of a worker process."""

WORKER = "kinema.video.sandbox_worker"
"""Default module of the worker process."""

CHUNK = 32
"""Number of frames per request while iterating."""

_threads = threading.local()


class SandboxedFile:
    """Local file, folder of images or array that a worker process reads."""

    def __init__(self, path: str, options: ReadOptions, read_as: ReadAs | None = None) -> None:
        self.path = path
        self.options = options
        self.read_as = read_as
        self._pixel_aspect: PixelAspect | None = None

    def close(self) -> None:
        """Do nothing: the worker closes the file after each request."""

    @property
    def num_frames(self) -> int:
        """Number of frames that decode."""
        return int(self._ask("num_frames")[0])

    @property
    def timeline(self) -> Timeline | None:
        """Time stamps of the frames; None for folders and arrays."""
        timeline, _ = self._ask("timeline")
        if timeline is None:
            return None
        numbers = {name: tuple(map(int, timeline[name])) for name in ("stamps", "keyframes", "pace")}
        times = {name: float(timeline[name]) for name in ("second", "start", "epoch")}
        return Timeline(**numbers, **times)  # type: ignore[arg-type]  # mypy joins the values of both

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames as displayed."""
        (width, height), _ = self._ask("size")
        return int(width), int(height)

    @property
    def pixel_aspect(self) -> PixelAspect:
        """Displayed shape of the pixels of upright frames."""
        if self._pixel_aspect is None:
            self._pixel_aspect = PixelAspect(*self._ask("pixel_aspect")[0])
        return self._pixel_aspect

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """Remarks on the frames."""
        return tuple(Remark(*remark) for remark in self._ask("remarks")[0])

    def read_rgb(self, indices: Sequence[int]) -> UInt8[ndarray, "frames height width 3"]:
        """Return the frames with these numbers, non-decreasing, as RGB."""
        return self._read("read_rgb", indices)

    def read_gray(self, indices: Sequence[int]) -> Gray:
        """Return one channel of the frames: uint16 if more than 8 bits are stored, else uint8."""
        return self._read("read_gray", indices)

    def iter_frames(self, numbers: range, color: Literal["rgb", "gray"]) -> Iterator[ndarray]:
        """Yield the frames of a range one by one."""
        for first in range(0, len(numbers), CHUNK):
            yield from self._read(f"read_{color}", numbers[first : first + CHUNK])

    def frame_range(self, start_s: float, stop_s: float) -> tuple[int, int]:
        """Return the frames displayed in [start_s, stop_s) as a half-open range."""
        (start, stop), _ = self._ask("frame_range", start_s=start_s, stop_s=stop_s)
        return int(start), int(stop)

    def _read(self, operation: str, indices: Sequence[int]) -> ndarray:
        check_indices(indices)
        numbers = sorted({int(i) for i in indices})  # repeated frames are sent once
        aspect, frames = self._ask(operation, indices=numbers)
        self._pixel_aspect = PixelAspect(*aspect)
        return cast(ndarray, frames)[[numbers.index(i) for i in indices]]

    def _ask(self, operation: str, **arguments: Any) -> tuple[Any, ndarray | None]:
        worker: SandboxWorker | None = getattr(_threads, "worker", None)
        # A forked process inherits the worker of its parent, whose pipes are not its own.
        if worker is None or worker.options != self.options or worker.owner != os.getpid():
            worker = _threads.worker = SandboxWorker(self.options)
        return worker.ask(operation, self.path, read_as=self.read_as, **arguments)


class SandboxWorker:
    """Process that reads files for one thread, started by the first request.

    Args:
        options: Timeout, and limits that the process enforces.
        module: Module to run; it has to call `kinema.video.sandbox_worker.serve`.
    """

    def __init__(self, options: ReadOptions, module: str = WORKER) -> None:
        self.options = options
        self.module = module
        self.owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._stop: weakref.finalize[..., Any] | None = None

    def ask(self, operation: str, path: str, **arguments: Any) -> tuple[Any, ndarray | None]:
        """Return the answer of the process: a JSON value, and frames if the operation reads any.

        Raises:
            UnreadableVideo: The file cannot be read, or the process crashed, hung or ran out of memory.
            RuntimeError: The process does not start, or has a bug.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        deadline = time.monotonic() + self.options.timeout_s
        process = cast("subprocess.Popen[bytes]", self._process)
        stdin, stdout = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        absolute = os.path.abspath(path)  # the process may have started in another folder
        request = json.dumps({"operation": operation, "path": absolute, "arguments": arguments}).encode() + b"\n"
        try:
            _write(stdin, request)
            (length,) = struct.unpack("<Q", _read_exactly(stdout, 8, deadline))
            if length > MAX_ANSWER:
                raise _Broken("sent more than the limits allow")
            answer = json.loads(_read_exactly(stdout, length, deadline))
            frames = None
            if "frames" in answer:
                kind, shape = np.dtype(answer["frames"]["kind"]), answer["frames"]["shape"]
                size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
                if kind.kind != "u" or not 0 < size <= self.options.limits.clip_bytes:
                    raise _Broken("sent more than the limits allow")
                frames = np.frombuffer(_read_exactly(stdout, size, deadline), kind).reshape(shape)
        except _Broken as broken:
            self.close()
            reason = broken.args[0] or _describe_exit(process)
            raise unreadable(path, f"the reader process {reason}") from None
        if "unreadable" in answer:
            raise UnreadableVideo(answer["unreadable"].replace(absolute, path), path=path, field=answer["field"])
        if "fault" in answer:
            raise RuntimeError(f"{path}: {answer['fault']}")
        return answer["value"], frames

    def close(self) -> None:
        """Stop the process."""
        if self._stop is not None:
            self._stop()
        self._process = self._stop = None

    def _start(self) -> None:
        self.close()
        # The process must find the same modules, whatever put them on the path.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, json.dumps(to_json(self.options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
        )
        self._stop = weakref.finalize(self, _stop, self._process, os.getpid())
        try:
            ready = bytes(_read_exactly(cast(IO[bytes], self._process.stdout), len(READY), time.monotonic() + START_S))
        except _Broken as broken:
            ready = str(broken.args[0] or _describe_exit(self._process)).encode()
        if ready != READY:
            self.close()
            raise RuntimeError(f"{self.module}: the sandbox worker does not start; the process {ready.decode()}")


class _Broken(Exception):
    """Raised when the process does not answer; an empty reason stands for its exit status."""


def _write(pipe: IO[bytes], request: bytes) -> None:
    try:
        while request:
            request = request[pipe.write(request) :]
    except OSError:
        raise _Broken("") from None


def _read_exactly(pipe: IO[bytes], size: int, deadline: float) -> bytearray:
    content, filled = bytearray(size), 0
    with selectors.PollSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while filled < size:
            if not selector.select(max(deadline - time.monotonic(), 0)):
                raise _Broken("was stopped: it took too long")
            part = os.read(pipe.fileno(), size - filled)
            if not part:
                raise _Broken("")
            content[filled : filled + len(part)] = part
            filled += len(part)
    return content


def _describe_exit(process: "subprocess.Popen[bytes]") -> str:
    code = process.wait(10)
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"


def _stop(process: "subprocess.Popen[bytes]", owner: int) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if os.getpid() == owner:  # a forked process may close the pipes, but not end its parent's worker
        process.kill()
        process.wait()

"""Process between untrusted files and this program: if it crashes, hangs or runs out of memory, the file is unreadable.

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
from jaxtyping import UInt8, UInt16
from numpy import ndarray

from kinema.config import to_json
from kinema.errors import UnreadableVideo
from kinema.video.container import Timeline
from kinema.video.read_options import ReadOptions

MAX_ANSWER = 2**24
"""Bytes of an answer without its frames."""

START_S = 60.0
"""Seconds for a worker process to start."""

READY = b"ready\n"
"""First output of a worker process."""

WORKER = "kinema.video.sandbox_worker"
"""Module that workers run."""

CHUNK = 32
"""Frames per request while iterating."""

_threads = threading.local()


class SandboxedFile:
    """File, folder of images or array that a worker process reads.

    Args:
        path: local path.
        options: timeout, and the limits that the worker enforces.
    """

    def __init__(self, path: str, options: ReadOptions) -> None:
        self.path = path
        self.options = options

    def close(self) -> None:
        """Do nothing: the worker closes the file after each request."""

    @property
    def num_frames(self) -> int:
        """Number of frames that decode."""
        return int(self._ask("num_frames")[0])

    @property
    def timeline(self) -> Timeline | None:
        """Time stamps of the frames; None for folders and arrays."""
        found, _ = self._ask("timeline")
        if found is None:
            return None
        stamps, keyframes = (tuple(map(int, found[name])) for name in ("stamps", "keyframes"))
        return Timeline(stamps=stamps, keyframes=keyframes, second=float(found["second"]))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames as displayed."""
        (width, height), _ = self._ask("size")
        return int(width), int(height)

    def read_rgb(self, indices: Sequence[int]) -> UInt8[ndarray, "frames height width 3"]:
        """Return the frames with these numbers, non-decreasing, as RGB."""
        return self._read("read_rgb", indices)

    def read_gray(
        self, indices: Sequence[int]
    ) -> UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"]:
        """Return one channel of the frames: uint16 where more than 8 bits are stored, else uint8."""
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
        if not indices or min(indices) < 0 or list(indices) != sorted(indices):
            raise ValueError(f"frame numbers must be non-decreasing and at least 0, got {list(indices)}")
        wanted = sorted({int(i) for i in indices})  # repeated frames are sent once
        _, frames = self._ask(operation, indices=wanted)
        return cast(ndarray, frames)[[wanted.index(i) for i in indices]]

    def _ask(self, operation: str, **arguments: Any) -> tuple[Any, ndarray | None]:
        worker: SandboxWorker | None = getattr(_threads, "worker", None)
        # A forked process inherits the worker of its parent, whose pipes are not its own.
        if worker is None or worker.options != self.options or worker.owner != os.getpid():
            worker = _threads.worker = SandboxWorker(self.options)
        return worker.ask(operation, self.path, **arguments)


class SandboxWorker:
    """Process that reads files for one thread; it starts with the first request.

    Args:
        options: timeout, and the limits that the process enforces.
        module: module that the process runs; it has to call `kinema.video.sandbox_worker.serve`.
    """

    def __init__(self, options: ReadOptions, module: str = WORKER) -> None:
        self.options = options
        self.module = module
        self.owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._stop: weakref.finalize[..., Any] | None = None

    def ask(self, operation: str, path: str, **arguments: Any) -> tuple[Any, ndarray | None]:
        """Return the answer of the process: a JSON value, and frames where the operation reads some.

        Raises:
            UnreadableVideo: the file cannot be read, or the process crashed, hung or ran out of memory.
            RuntimeError: the process does not start, or has a bug.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        deadline = time.monotonic() + self.options.timeout_s
        process = cast("subprocess.Popen[bytes]", self._process)
        request = json.dumps({"operation": operation, "path": path, "arguments": arguments}).encode() + b"\n"
        try:
            _write(cast(IO[bytes], process.stdin), request)
            (length,) = struct.unpack("<Q", _read_exactly(cast(IO[bytes], process.stdout), 8, deadline))
            if length > MAX_ANSWER:
                raise _Broken("answers with more than the limits allow")
            answer = json.loads(_read_exactly(cast(IO[bytes], process.stdout), length, deadline))
            frames = None
            if "frames" in answer:
                kind, shape = np.dtype(answer["frames"]["kind"]), answer["frames"]["shape"]
                size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
                if kind.kind != "u" or not 0 < size <= self.options.limits.clip_bytes:
                    raise _Broken("answers with more than the limits allow")
                content = _read_exactly(cast(IO[bytes], process.stdout), size, deadline)
                frames = np.frombuffer(content, kind).reshape(shape)
        except _Broken as broken:
            self.close()
            how = broken.args[0] or _exit_of(process)
            raise UnreadableVideo(f"{path}: its reader process {how}", path=path) from None
        if "unreadable" in answer:
            raise UnreadableVideo(answer["unreadable"], path=path)
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
        # The same modules must be found there as here, whatever put them on the path.
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
            ready = str(broken.args[0] or _exit_of(self._process)).encode()
        if ready != READY:
            self.close()
            raise RuntimeError(f"the sandbox worker {self.module} does not start: it {ready.decode()}")


class _Broken(Exception):
    """Raised when the process does not answer; the reason is empty where its exit status gives it."""


def _write(pipe: IO[bytes], request: bytes) -> None:
    try:
        while request:
            request = request[pipe.write(request) :]
    except OSError:
        raise _Broken("") from None


def _read_exactly(pipe: IO[bytes], size: int, deadline: float) -> bytearray:
    content, filled = bytearray(size), 0
    while filled < size:
        part = _read_some(pipe, size - filled, deadline)
        content[filled : filled + len(part)] = part
        filled += len(part)
    return content


def _read_some(pipe: IO[bytes], most: int, deadline: float) -> bytes:
    with selectors.PollSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        if not selector.select(max(deadline - time.monotonic(), 0)):
            raise _Broken("was stopped: it took too long")
    part = os.read(pipe.fileno(), most)
    if not part:
        raise _Broken("")
    return part


def _exit_of(process: "subprocess.Popen[bytes]") -> str:
    code = process.wait(10)
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"


def _stop(process: "subprocess.Popen[bytes]", owner: int) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if os.getpid() == owner:  # a forked worker may let go of it, but it is not the worker's to end
        process.kill()
        process.wait()

"""A process between a file and this program: it may crash, hang or eat memory, and the file is called unreadable.

The process is one of our own, `kinema.curation.reader_process`, one for each thread that reads; it is started
at the first file and goes on until the thread ends. Requests are lines of JSON; answers are JSON and, where there are
pictures, their bytes: nothing that comes back is unpickled.
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
from dataclasses import asdict
from typing import IO, Any, cast

import numpy as np
from numpy import ndarray

from kinema.errors import UnreadableVideo
from kinema.video.read_options import ReadOptions

LONGEST_ANSWER = 2**24
"""Bytes of an answer without its pictures; what a reader says of a file is far below."""

START_S = 60.0
"""Seconds for a reader process to start."""

READY = b"ready\n"
"""What a reader process says when it has started."""

_readers = threading.local()


class IsolatedReader:
    """A process that reads for this thread.

    Args:
        reading: how; its limits hold in the process, too.
    """

    def __init__(self, reading: ReadOptions) -> None:
        self.reading = reading
        self.owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._stop: weakref.finalize[..., Any] | None = None

    def ask(self, operation: str, path: str, **given: Any) -> tuple[dict[str, Any], ndarray | None]:
        """What the process answers: plain values, and pictures where the operation has some.

        Raises:
            UnreadableVideo: the file cannot be read, or the process crashed, hung or ran out of memory over it.
            RuntimeError: the process does not start, or has a fault of its own.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        deadline = time.monotonic() + self.reading.timeout_s
        process = cast("subprocess.Popen[bytes]", self._process)
        request = json.dumps({"operation": operation, "path": path, "given": given}).encode() + b"\n"
        try:
            _written(cast(IO[bytes], process.stdin), request)
            (length,) = struct.unpack("<Q", _exactly(cast(IO[bytes], process.stdout), 8, deadline))
            if length > LONGEST_ANSWER:
                raise _Broken("answers with more than the limits allow")
            answer = json.loads(_exactly(cast(IO[bytes], process.stdout), length, deadline))
            pictures = None
            if "pictures" in answer:
                kind, shape = np.dtype(answer["pictures"]["kind"]), answer["pictures"]["shape"]
                size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
                if kind.kind != "u" or not 0 < size <= self.reading.limits.clip_bytes:
                    raise _Broken("answers with more than the limits allow")
                content = _exactly(cast(IO[bytes], process.stdout), size, deadline)
                pictures = np.frombuffer(content, kind).reshape(shape)
        except _Broken as broken:
            self.close()
            how = broken.args[0] or _end(process)
            raise UnreadableVideo(f"{path}: its reader process {how}") from None
        if "unreadable" in answer:
            raise UnreadableVideo(answer["unreadable"])
        if "fault" in answer:
            raise RuntimeError(f"{path}: {answer['fault']}")
        return answer["value"], pictures

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
            [sys.executable, "-m", "kinema.curation.reader_process", json.dumps(asdict(self.reading), default=str)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
        )
        self._stop = weakref.finalize(self, _stop, self._process, os.getpid())
        try:
            ready = bytes(_exactly(cast(IO[bytes], self._process.stdout), len(READY), time.monotonic() + START_S))
        except _Broken as broken:
            ready = str(broken.args[0] or _end(self._process)).encode()
        if ready != READY:
            self.close()
            raise RuntimeError(f"the process that reads for this one does not start: it {ready.decode()}")


def ask(reading: ReadOptions, operation: str, path: str, **given: Any) -> tuple[dict[str, Any], ndarray | None]:
    """Ask this thread's own reader process; it is kept for the next file."""
    reader: IsolatedReader | None = getattr(_readers, "reader", None)
    # A forked worker inherits the reader of its parent, whose pipes are not its own.
    if reader is None or reader.reading != reading or reader.owner != os.getpid():
        reader = _readers.reader = IsolatedReader(reading)
    return reader.ask(operation, path, **given)


class _Broken(Exception):
    """The process does not answer; the reason, or an empty one where its end tells it."""


def _written(pipe: IO[bytes], request: bytes) -> None:
    try:
        while request:
            request = request[pipe.write(request) :]
    except OSError:
        raise _Broken("") from None


def _exactly(pipe: IO[bytes], size: int, deadline: float) -> bytearray:
    content, filled = bytearray(size), 0
    while filled < size:
        part = _some(pipe, size - filled, deadline)
        content[filled : filled + len(part)] = part
        filled += len(part)
    return content


def _some(pipe: IO[bytes], most: int, deadline: float) -> bytes:
    with selectors.PollSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        if not selector.select(max(deadline - time.monotonic(), 0)):
            raise _Broken("was stopped: it took too long")
    part = os.read(pipe.fileno(), most)
    if not part:
        raise _Broken("")
    return part


def _end(process: "subprocess.Popen[bytes]") -> str:
    code = process.wait(10)
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"


def _stop(process: "subprocess.Popen[bytes]", owner: int) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if os.getpid() == owner:  # a forked worker may let go of it, but it is not the worker's to end
        process.kill()
        process.wait()

"""The other side of `kinema.video.sandbox`: reads what it is told on standard input, answers on standard output.

    python -m kinema.curation.reader_process SETTINGS

It leaves when its input ends, and can take no more memory than its limits allow.
"""

import json
import os
import signal
import struct
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cattrs
import numpy as np
from numpy import ndarray

from kinema.curation.inspect import inspect
from kinema.errors import UnreadableVideo
from kinema.video import sources
from kinema.video.read_options import ReadOptions
from kinema.video.sandbox import READY

OWN_MEMORY = 4 * 2**30
"""Bytes of address space for the interpreter, its libraries and the decoders' own frames, beside the clip."""


def answer(request: dict[str, Any], reading: ReadOptions) -> tuple[dict[str, Any], ndarray | None]:
    """Do one operation: `rgb`, `grey`, `count`, `range` or `inspect`."""
    path, given = request["path"], request["given"]
    match request["operation"]:
        case "rgb":
            return {}, sources.read_rgb(path, given["indices"], reading)
        case "grey":
            return {}, sources.read_grey(path, given["indices"], reading)
        case "count":
            return {"frames": sources.count_frames(path, reading)}, None
        case "range":
            start, stop = sources.frame_range(path, given["start_s"], given["stop_s"], reading)
            return {"start": start, "stop": stop}, None
        case "inspect":
            return asdict(inspect(path, given["kind"], reading)), None
    raise ValueError(f"unknown operation {request['operation']!r}")


def main() -> None:
    converter = cattrs.Converter()
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    reading = replace(converter.structure(json.loads(sys.argv[1]), ReadOptions), isolation="none")
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)  # they are for the program that this one reads for
    _limit_memory(OWN_MEMORY + 3 * reading.limits.clip_bytes)
    # What a library prints must not get between the answers.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        out.write(READY)
        out.flush()
        for line in sys.stdin.buffer:
            content, pictures = _answered(json.loads(line), reading)
            out.write(struct.pack("<Q", len(content)) + content)
            if pictures is not None:
                out.write(np.ascontiguousarray(pictures).tobytes())
            out.flush()


def _answered(request: dict[str, Any], reading: ReadOptions) -> tuple[bytes, ndarray | None]:
    """The answer as JSON, and the pictures that follow it."""
    try:
        value, pictures = answer(request, reading)
    except UnreadableVideo as error:
        return json.dumps({"unreadable": str(error)}).encode(), None
    except MemoryError:
        return json.dumps({"unreadable": f"{request['path']}: needs more memory than its limits allow"}).encode(), None
    except Exception as error:  # the program on the other side is to know of it
        return json.dumps({"fault": f"{type(error).__name__}: {error}"}).encode(), None
    said: dict[str, Any] = {"value": value}
    if pictures is not None:
        said["pictures"] = {"kind": pictures.dtype.str, "shape": list(pictures.shape)}
    return json.dumps(said).encode(), pictures


def _limit_memory(most: int) -> None:
    """Where the system can (not on Windows; macOS takes the number and ignores it)."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


if __name__ == "__main__":
    main()

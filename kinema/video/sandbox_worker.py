"""Worker process of `kinema.video.sandbox`: reads requests from standard input and answers on standard output.

    python -m kinema.video.sandbox_worker OPTIONS

The process exits when its input ends, and cannot allocate more memory than its limits allow. The module that it runs
fixes its operations: no request names code.
"""

import json
import os
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy import ndarray

from kinema.config import from_json
from kinema.errors import UnreadableVideo
from kinema.video import source as sources
from kinema.video.read_options import ReadOptions
from kinema.video.sandbox import READY

OWN_MEMORY = 4 * 2**30
"""Bytes of address space for the interpreter, libraries and the decoders' own frames, beside the clip."""

Operation = Callable[[str, Mapping[str, Any], ReadOptions], tuple[Any, ndarray | None]]
"""Function from a local path, arguments and options to a JSON value and, if it reads any, frames."""


def read(operation: str, path: str, arguments: Mapping[str, Any], options: ReadOptions) -> tuple[Any, ndarray | None]:
    """Run an operation of a `FrameSource` and return its JSON value and frames.

    Raises:
        UnreadableVideo: The file is at fault.
    """
    with sources.open_source(path, options, arguments.get("read_as")) as source:
        match operation:
            case "read_rgb":
                frames = source.read_rgb(arguments["indices"])
                return source.pixel_aspect, frames  # sent along, since the next request opens the file again
            case "read_gray":
                frames = source.read_gray(arguments["indices"])
                return source.pixel_aspect, frames
            case "num_frames":
                return source.num_frames, None
            case "timeline":
                return None if source.timeline is None else asdict(source.timeline), None
            case "size":
                return source.size, None
            case "pixel_aspect":
                return source.pixel_aspect, None
            case "remarks":
                return source.remarks, None
            case "frame_range":
                return source.frame_range(arguments["start_s"], arguments["stop_s"]), None
    raise ValueError(f"unknown operation {operation!r}")


def serve(operations: Mapping[str, Operation] | None = None) -> None:
    """Answer requests until the input ends.

    Args:
        operations: Operations by name, beside those of a `FrameSource`.
    """
    options = replace(from_json(ReadOptions, json.loads(sys.argv[1])), isolation="none")
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)  # meant for the parent process
    _limit_memory(OWN_MEMORY + 3 * options.limits.clip_bytes)
    # Output of libraries must not mix with the answers.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        out.write(READY)
        out.flush()
        for line in sys.stdin.buffer:
            content, frames = _answer(json.loads(line), options, operations or {})
            out.write(struct.pack("<Q", len(content)) + content)
            if frames is not None:
                out.write(np.ascontiguousarray(frames).tobytes())
            out.flush()


def _answer(
    request: Mapping[str, Any], options: ReadOptions, operations: Mapping[str, Operation]
) -> tuple[bytes, ndarray | None]:
    """Return the answer as JSON, and the frames to send after it."""
    name, path, arguments = request["operation"], request["path"], request["arguments"]
    try:
        if name in operations:
            value, frames = operations[name](path, arguments, options)
        else:
            value, frames = read(name, path, arguments, options)
    except UnreadableVideo as error:
        return json.dumps({"unreadable": str(error), "field": error.field}).encode(), None
    except MemoryError:
        message = f"{path}: reading it takes more memory than the limits allow"
        return json.dumps({"unreadable": message, "field": None}).encode(), None
    except Exception as error:  # a bug, which the parent process reports
        return json.dumps({"fault": f"{type(error).__name__}: {error}"}).encode(), None
    answer: dict[str, Any] = {"value": value}
    if frames is not None:
        answer["frames"] = {"kind": frames.dtype.str, "shape": list(frames.shape)}
    return json.dumps(answer).encode(), frames


def _limit_memory(most: int) -> None:
    """Limit the address space. Windows has no such limit, and macOS ignores it."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


if __name__ == "__main__":
    serve()

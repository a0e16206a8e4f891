"""One signature for all that frames can come from: video files, folders of pictures, npz and mat arrays, URLs of them.

What is read is the same to the pixel whichever backend reads it, in this process or in one of its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from jaxtyping import UInt8
from numpy import ndarray

from kinema.errors import UnreadableVideo
from kinema.modality import Modality
from kinema.video import container, decode, decode_torchcodec
from kinema.video import image_files as frames
from kinema.video.container import Timeline
from kinema.video.image_files import ARRAY_SUFFIXES, Grey
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.remote_cache import local_path
from kinema.video.sandbox import ask

TOGETHER = 32
"""Pictures of a folder that are in memory at once where all are wanted one after the other."""


def read_rgb(
    path: str, indices: Sequence[int], reading: ReadOptions = READ_OPTIONS
) -> UInt8[ndarray, "frames height width 3"]:
    """The frames with these numbers, in non-decreasing order, as RGB.

    Args:
        path: a file, a folder of pictures, or any fsspec URL.
        indices: frame numbers from 0; a number may stand several times.
        reading: by what, where, and within which limits.

    Raises:
        UnreadableVideo: the source is missing, cannot be read, ends too early, or holds no colour.
        BackendError: the backend that is chosen is not there.
    """
    with _local(path, reading) as file:
        if reading.isolation == "process":
            return _asked(reading, "rgb", file, indices)
        if _is_folder(file):
            return frames.read_folder(file, indices, reading)
        if _is_array(file):
            return frames.read_rgb_array(file, indices, reading)
        if reading.backend == "torchcodec":
            return decode_torchcodec.read_frames(file, indices, reading)
        return decode.read_frames(file, indices, reading)


def read_grey(path: str, indices: Sequence[int], reading: ReadOptions = READ_OPTIONS) -> Grey:
    """As `read_rgb`, for one channel: uint16 where more than 8 bits are stored, else uint8."""
    with _local(path, reading) as file:
        if reading.isolation == "process":
            return _asked(reading, "grey", file, indices)
        if _is_folder(file):
            return frames.read_grey_folder(file, indices, reading)
        if _is_array(file):
            return frames.read_grey_array(file, indices, reading)
        return decode.read_grey_frames(file, indices, reading)


def count_frames(path: str, reading: ReadOptions = READ_OPTIONS) -> int:
    """How many frames the source has; those of a video are counted by packets and decoding, never by its header."""
    with _local(path, reading) as file:
        if reading.isolation == "process":
            return int(ask(reading, "count", file)[0]["frames"])
        if _is_folder(file) or _is_array(file):
            return frames.count_pictures(file, reading)
        return decode.count_frames(file, reading)


def frame_range(path: str, start_s: float, stop_s: float, reading: ReadOptions = READ_OPTIONS) -> tuple[int, int]:
    """The frames shown in [start_s, stop_s), for sources that have time stamps.

    Raises:
        UnreadableVideo: it has none: folders and arrays have only frame numbers.
    """
    with _local(path, reading) as file:
        if _is_folder(file) or _is_array(file):
            raise UnreadableVideo(f"{file}: has no time stamps; give start_frame and stop_frame instead of seconds")
        if reading.isolation == "process":
            found, _ = ask(reading, "range", file, start_s=start_s, stop_s=stop_s)
            return int(found["start"]), int(found["stop"])
        return container.frame_range(file, start_s, stop_s, reading)


def timeline_of(file: str, reading: ReadOptions = READ_OPTIONS) -> Timeline | None:
    """Time stamps of a local file's frames; None for folders and arrays, which have only frame numbers."""
    return None if _is_folder(file) or _is_array(file) else container.read_timeline(file, reading)


def each_picture(
    file: str, kind: Modality, numbers: range, timeline: Timeline | None, reading: ReadOptions = READ_OPTIONS
) -> Iterator[ndarray]:
    """The frames of a range one after the other, as `read_rgb` or `read_grey` gives them; of videos, grey ones alone.

    Args:
        file: a local path; PyAV reads it here, in one thread. RGB videos are read by `decode.each_frame`.
        timeline: what `timeline_of` says of it.

    Raises:
        UnreadableVideo: as `read_rgb`, at the frame that is at fault.
    """
    if timeline is not None:
        assert kind == "depth"
        yield from decode.each_grey_frame(file, numbers, timeline, reading)
    elif _is_array(file):
        yield from (frames.read_rgb_array if kind == "rgb" else frames.read_grey_array)(file, numbers, reading)
    else:
        read = frames.read_folder if kind == "rgb" else frames.read_grey_folder
        for first in range(numbers.start, numbers.stop, TOGETHER):
            yield from read(file, range(first, min(first + TOGETHER, numbers.stop)), reading)


def _asked(reading: ReadOptions, operation: str, path: str, indices: Sequence[int]) -> ndarray:
    """Frames from a process of its own; those that stand several times come once."""
    decode.check_numbers(indices)
    wanted = sorted({int(i) for i in indices})
    _, pictures = ask(reading, operation, path, indices=wanted)
    return cast(ndarray, pictures)[[wanted.index(i) for i in indices]]


@contextmanager
def _local(path: str, reading: ReadOptions) -> Iterator[str]:
    """A path that can be opened; what goes wrong with it is said of the path that the user gave."""
    file = local_path(path, reading)
    try:
        yield file
    except UnreadableVideo as error:
        if file == path:
            raise
        raise UnreadableVideo(str(error).replace(file, path)) from error


def _is_folder(path: str) -> bool:
    return Path(path).is_dir()


def _is_array(path: str) -> bool:
    return Path(path).suffix.lower() in ARRAY_SUFFIXES

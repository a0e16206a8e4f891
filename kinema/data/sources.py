"""One signature for all that frames can come from: video files and URLs, folders of pictures, npz and mat arrays."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from kinema.data import decode
from kinema.data.decode import UnreadableVideo
from kinema.data.frames import ARRAY_SUFFIXES, Grey, count_pictures, read_array, read_folder, read_grey_folder
from kinema.data.reading import READING, Reading


def read_rgb(path: str, indices: Sequence[int], reading: Reading = READING) -> UInt8[ndarray, "frames height width 3"]:
    """The frames with these numbers, in non-decreasing order, as RGB.

    Raises:
        UnreadableVideo: the source is missing, cannot be read, ends too early, or holds no colour.
    """
    if _is_folder(path):
        return read_folder(path, indices)
    if _is_array(path):
        frames = read_array(path, indices)
        if frames.ndim != 4 or frames.dtype != np.uint8:
            raise UnreadableVideo(f"{path}: holds {frames.dtype} of shape {frames.shape}, no RGB of 8 bits")
        return frames
    return decode.read_frames(path, indices)


def read_grey(path: str, indices: Sequence[int], reading: Reading = READING) -> Grey:
    """As `read_rgb`, for one channel: uint16 where more than 8 bits are stored, else uint8."""
    if _is_folder(path):
        return read_grey_folder(path, indices)
    if _is_array(path):
        frames = read_array(path, indices)
        if frames.ndim != 3:
            raise UnreadableVideo(f"{path}: has shape {frames.shape}, no single channel")
        return frames
    return decode.read_grey_frames(path, indices)


def count_frames(path: str, reading: Reading = READING) -> int:
    """How many frames the source has; those of a video are counted by packets and decoding, never by its header."""
    return count_pictures(path) if _is_folder(path) or _is_array(path) else decode.count_frames(path)


def frame_range(path: str, start_s: float, stop_s: float, reading: Reading = READING) -> tuple[int, int]:
    """The frames shown in [start_s, stop_s), for sources that have time stamps.

    Raises:
        UnreadableVideo: it has none: folders and arrays have only frame numbers.
    """
    if _is_folder(path) or _is_array(path):
        raise UnreadableVideo(f"{path}: has no time stamps; give start_frame and stop_frame instead of seconds")
    return decode.frame_range(path, start_s, stop_s)


def _is_folder(path: str) -> bool:
    return "://" not in path and Path(path).is_dir()


def _is_array(path: str) -> bool:
    return Path(path).suffix.lower() in ARRAY_SUFFIXES

"""Arrays in npz and mat files as frame sources."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal
from zipfile import BadZipFile, ZipExtFile, ZipFile

import numpy as np
from jaxtyping import UInt8, UInt16
from numpy import ndarray
from scipy.io import loadmat, whosmat

from kinema.errors import UnreadableVideo
from kinema.video.image_folder import check_reach, describe, no_time_stamps
from kinema.video.read_options import READ_OPTIONS, Limits, ReadOptions

ARRAY_SUFFIXES = frozenset({".npz", ".mat"})

MAT_BYTES = {
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "single": 4,
    "int64": 8,
    "uint64": 8,
    "double": 8,
    "logical": 1,
}
"""Bytes of a number, by scipy's names of what a mat file holds."""

FRAME_NAME = "depth_{:06d}"
"""Of the arrays of an npz file that holds one for each frame, so that some are read without the others."""


class ArrayFile:
    """Array of frames in an npz or mat file.

    An npz file holds one array, or one called `depth` or `rgb` among others; depth may also be one array per frame,
    called `depth_000000` and so on, of which only the requested ones are decompressed. A mat file holds one array with
    time last, as MATLAB stores videos. Neither can execute code: object arrays are refused.

    Args:
        path: local path.
        options: limits to enforce.
    """

    form: Literal["array"] = "array"
    timeline = None

    def __init__(self, path: str, options: ReadOptions = READ_OPTIONS) -> None:
        self.path = path
        self.limits = options.limits

    def close(self) -> None:
        """Let go of the array."""
        self.__dict__.pop("_array", None)

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self._parts) or len(self._array)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        height, width = self.read_gray([0]).shape[1:] if self._parts else self._array.shape[1:3]
        return width, height

    def read_rgb(self, indices: Sequence[int]) -> UInt8[ndarray, "frames height width 3"]:
        """Return frames of an array of uint8, (frames, height, width, 3).

        Raises:
            UnreadableVideo: there is no such array, it exceeds the limits, or it is too short.
        """
        if self._array.ndim != 4 or self._array.dtype != np.uint8:
            raise UnreadableVideo(
                f"{self.path}: holds {self._array.dtype} of shape {self._array.shape}, not RGB of 8 bits",
                path=self.path,
            )
        return self._take(indices)

    def read_gray(
        self, indices: Sequence[int]
    ) -> UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"]:
        """Return frames of an array of integers from 0 to 65535, (frames, height, width)."""
        if self._parts:
            check_reach(self.path, indices, len(self._parts))
            return _read_parts(self.path, self._parts, indices, self.limits)
        if self._array.ndim != 3:
            raise UnreadableVideo(f"{self.path}: has shape {self._array.shape}, not a single channel", path=self.path)
        return self._take(indices)

    def iter_frames(self, numbers: range, color: Literal["rgb", "gray"]) -> Iterator[ndarray]:
        """Yield the frames of a range one by one."""
        yield from self.read_rgb(numbers) if color == "rgb" else self.read_gray(numbers)

    def frame_range(self, _start_s: float, _stop_s: float) -> tuple[int, int]:
        """Raise UnreadableVideo: arrays have no time stamps."""
        raise no_time_stamps(self.path)

    @cached_property
    def _parts(self) -> list[str]:
        return _frame_parts(self.path)

    @cached_property
    def _array(self) -> ndarray:
        return _read_array(self.path, self.limits)

    def _take(self, indices: Sequence[int]) -> ndarray:
        check_reach(self.path, indices, len(self._array))
        return np.ascontiguousarray(self._array[list(indices)])


def _read_array(path: str, limits: Limits) -> ndarray:
    try:
        if Path(path).stat().st_size > limits.file_bytes:
            raise UnreadableVideo(f"{path}: has more bytes than the limit of {limits.file_bytes:,}", path=path)
        frames = _mat(path, limits) if path.lower().endswith(".mat") else _npz(path, limits)
    except FileNotFoundError as error:
        raise UnreadableVideo(f"{path}: no such file", path=path) from error
    except UnreadableVideo:
        raise
    except Exception as error:  # numpy and scipy raise whatever a broken header makes them stumble over
        raise UnreadableVideo(
            f"{path}: is not an array that can be read ({' '.join(str(error).split())})", path=path
        ) from error
    if frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[-1] != 3) or 0 in frames.shape:
        raise UnreadableVideo(
            f"{path}: has shape {frames.shape}; frames are (frames, height, width) or (frames, height, width, 3)",
            path=path,
        )
    if frames.dtype in (np.uint8, np.uint16):
        return frames
    if not np.array_equal(frames, np.clip(np.rint(frames), 0, 65535)):
        raise UnreadableVideo(f"{path}: holds {frames.dtype} values that are not integers from 0 to 65535", path=path)
    return frames.astype(np.uint16)


def _npz(path: str, limits: Limits) -> ndarray:
    with ZipFile(path) as parts:
        name = _chosen([part.removesuffix(".npy") for part in parts.namelist()])
        with parts.open(f"{name}.npy") as part:
            shape, kind = _announced(part)
    _check_size(shape, kind.itemsize, limits)
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[name])


def _frame_parts(path: str) -> list[str]:
    """Return the arrays of an npz with one per frame; none of any other, nor of what `_read_array` will refuse."""
    if path.lower().endswith(".mat"):
        return []
    try:
        with ZipFile(path) as parts:
            names = parts.namelist()
    except (OSError, BadZipFile):
        return []
    return names if names == [f"{FRAME_NAME.format(number)}.npy" for number in range(len(names))] else []


def _read_parts(path: str, parts: Sequence[str], indices: Sequence[int], limits: Limits) -> ndarray:
    read: dict[int, ndarray] = {}
    try:
        if Path(path).stat().st_size > limits.file_bytes or len(parts) > limits.frames:
            raise UnreadableVideo(f"{path}: has more bytes or frames than the limits allow", path=path)
        with ZipFile(path) as file:
            for number in sorted(set(indices)):
                with file.open(parts[number]) as part:
                    shape, kind = _announced(part)
                if len(shape) != 2 or kind not in (np.uint8, np.uint16):
                    raise ValueError(f"{parts[number]} is {kind} of shape {shape}, not an image of one channel")
                _check_size((len(indices), *shape), kind.itemsize, limits)
                with file.open(parts[number]) as part:
                    read[number] = np.lib.format.read_array(part, allow_pickle=False)
                first = next(iter(read.values()))
                if (shape, kind) != (first.shape, first.dtype):
                    raise ValueError(f"{parts[number]} is {describe(read[number])}, but others {describe(first)}")
    except UnreadableVideo:
        raise
    except Exception as error:  # as in `_read_array`
        raise UnreadableVideo(
            f"{path}: is not an array that can be read ({' '.join(str(error).split())})", path=path
        ) from error
    return np.stack([read[number] for number in indices])


def _announced(part: IO[bytes] | ZipExtFile) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(part)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = header(part)
    return shape, kind


def _mat(path: str, limits: Limits) -> ndarray:
    there = {name: (shape, kind) for name, shape, kind in whosmat(path)}
    name = _chosen(list(there))
    shape, kind = there[name]
    if kind not in MAT_BYTES:
        raise ValueError(f"{name} is of class {kind}, not an array of numbers")
    _check_size(shape, MAT_BYTES[kind], limits)
    stored: Any = loadmat(path, variable_names=[name])[name]
    return np.moveaxis(np.asarray(stored), -1, 0)


def _check_size(shape: Sequence[int], itemsize: int, limits: Limits) -> None:
    """Check what a header announces, before memory is allocated for it."""
    size = math.prod(shape) * itemsize
    if size > limits.clip_bytes:
        raise ValueError(f"announces {size:,} bytes, more than the limit of {limits.clip_bytes:,}")
    if shape and max(shape) > limits.frames:
        raise ValueError(f"announces shape {tuple(shape)}, more than the limit of {limits.frames:,} frames")


def _chosen(names: list[str]) -> str:
    for wanted in ("depth", "rgb"):
        if wanted in names:
            return wanted
    if len(names) != 1:
        raise ValueError(f"holds arrays {', '.join(names) or '(none)'}; rename the right one to depth or rgb")
    return names[0]

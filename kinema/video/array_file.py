"""Arrays in npz and mat files as frame sources."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal
from zipfile import ZipFile

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from scipy.io import loadmat, whosmat

from kinema.modality import ReadAs
from kinema.video.container import Gray, Timeline, check_file, displayed_range, reading
from kinema.video.gray import gray_of_colors
from kinema.video.pixels import SQUARE
from kinema.video.read_options import READ_OPTIONS, Limits, ReadOptions
from kinema.video.remarks import Remark
from kinema.video.unreadable import check_range, describe, no_time_stamps, over_limit, unreadable

ARRAY_SUFFIXES = frozenset({".npz", ".mat"})

MAT_BYTES = {
    **{f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)},
    **{"single": 4, "double": 8, "logical": 1},
}
"""Bytes per number, by scipy's names of the classes in a mat file."""

FRAME_NAME = "depth_{:06d}"
"""Names of the arrays in an npz file with one array per frame."""

TIMES_NAME = "times_s"
"""Name of an optional array with the time of each frame [s], on the clock of the files recorded together."""

MEMBER_BYTES = 128
"""Bytes by which a zip archive lists a member, about."""

MAX_HEADER = 10_000
"""Largest number of bytes of an array's header, as in numpy."""

TICKS_PER_S = 1_000_000
"""Resolution of these times [1/s]."""


class ArrayFile:
    """Array of frames in a local npz or mat file, within the limits of `options`.

    An npz file holds one array, or one named `depth` or `rgb` among others. Depth may also be one array per frame,
    named `depth_000000` and so on, of which only the requested ones are decompressed. A mat file holds one array with
    time last, as MATLAB stores videos. An array `times_s` beside them has the times of the frames. Neither file can
    execute code: object arrays are refused.
    """

    form: Literal["array"] = "array"
    pixel_aspect = SQUARE

    def __init__(self, path: str, options: ReadOptions = READ_OPTIONS, read_as: ReadAs | None = None) -> None:
        self.path = path
        self.limits = options.limits
        self.read_as = read_as

    def close(self) -> None:
        """Release the array."""
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

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """No remarks; raises UnreadableVideo if the file is opened as depth and has another form."""
        if self.read_as == "depth":
            self.read_gray([0])
        return ()

    def read_rgb(self, indices: Sequence[int]) -> UInt8[ndarray, "frames height width 3"]:
        """Return frames of a uint8 array, (frames, height, width, 3).

        Raises:
            UnreadableVideo: The array is missing, of another form, too short, or exceeds the limits.
        """
        if self._array.ndim != 4 or self._array.dtype != np.uint8:
            got = f"{self._array.dtype} of shape {self._array.shape}"
            raise unreadable(self.path, f"expected uint8 RGB of shape (frames, height, width, 3), got {got}")
        return self._take(indices)

    def read_gray(self, indices: Sequence[int]) -> Gray:
        """Return frames of an array of integers from 0 to 65535, (frames, height, width)."""
        if self._parts:
            check_range(self.path, indices, len(self._parts))
            return self._read_parts(indices)
        if self._array.ndim == 4 and self._array.dtype == np.uint8 and self.read_as in ("gray8", "jet"):
            return np.stack([gray_of_colors(self.path, image, self.read_as) for image in self._take(indices)])
        if self._array.ndim != 3:
            raise unreadable(
                self.path, f"expected one channel of shape (frames, height, width), got {self._array.shape}"
            )
        return self._take(indices)

    def iter_frames(self, numbers: range, color: Literal["rgb", "gray"]) -> Iterator[ndarray]:
        """Yield the frames of a range one by one."""
        yield from self.read_rgb(numbers) if color == "rgb" else self.read_gray(numbers)

    def frame_range(self, start_s: float, stop_s: float) -> tuple[int, int]:
        """Return the frames displayed in [start_s, stop_s) as a half-open range.

        Raises:
            UnreadableVideo: The array has no times, or ends before the segment does.
        """
        if self.timeline is None:
            raise no_time_stamps(self.path)
        return displayed_range(self.path, self.timeline, start_s, stop_s)

    @cached_property
    def timeline(self) -> Timeline | None:
        """Time stamps of the frames; None without an array `times_s`.

        Raises:
            UnreadableVideo: The times are not one increasing number per frame.
        """
        if TIMES_NAME not in self._names:
            return None
        with self._wrap_errors():
            read = _read_mat if self._is_mat else _read_npz
            times = np.asarray(read(self.path, self.limits, TIMES_NAME)).ravel()
        if times.dtype.kind not in "iuf" or len(times) != self.num_frames or not (np.abs(times) < 1e12).all():
            raise unreadable(self.path, f"{TIMES_NAME}: expected a time [s] for each of {self.num_frames} frames")
        stamps = np.rint(times * TICKS_PER_S).astype(np.int64)
        if (np.diff(stamps) <= 0).any():
            raise unreadable(self.path, f"{TIMES_NAME}: expected increasing times of the frames")
        return Timeline(stamps=tuple(stamps.tolist()), keyframes=(), second=TICKS_PER_S)

    @property
    def _is_mat(self) -> bool:
        return self.path.lower().endswith(".mat")

    @cached_property
    def _names(self) -> list[str]:
        """Names of the arrays."""
        with self._wrap_errors():
            if self._is_mat:
                return [name for name, _, _ in whosmat(self.path)]
            with _open_zip(self.path, self.limits) as file:
                return [name.removesuffix(".npy") for name in file.namelist()]

    @cached_property
    def _parts(self) -> list[str]:
        """Names of the arrays of an npz with one array per frame; empty for any other file."""
        names = [f"{name}.npy" for name in self._names if name != TIMES_NAME]
        is_split = not self._is_mat and names == [f"{FRAME_NAME.format(number)}.npy" for number in range(len(names))]
        return names if is_split else []

    @cached_property
    def _array(self) -> ndarray:
        with self._wrap_errors():
            read = _read_mat if self._is_mat else _read_npz
            return self._check(read(self.path, self.limits))

    def _check(self, frames: ndarray) -> ndarray:
        """Return frames as uint8 or uint16."""
        if frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[-1] != 3) or 0 in frames.shape:
            expected = "(frames, height, width) or (frames, height, width, 3)"
            raise unreadable(self.path, f"expected shape {expected}, got {frames.shape}")
        if frames.dtype in (np.uint8, np.uint16):
            return frames
        if frames.dtype.kind not in "biuf":
            raise unreadable(self.path, f"expected integers from 0 to 65535, got values of type {frames.dtype}")
        kept = np.empty(frames.shape, np.uint16)
        is_small = np.can_cast(frames.dtype, np.float16)  # which has no 65535
        for stored, frame in zip(frames, kept, strict=True):  # one by one, since each step is a copy
            stored = stored.astype(np.float32) if is_small else stored
            if not np.array_equal(stored, np.clip(np.rint(stored), 0, 65535)):
                raise unreadable(self.path, f"expected integers from 0 to 65535, got {frames.dtype} values beyond them")
            frame[...] = stored
        return kept

    def _take(self, indices: Sequence[int]) -> ndarray:
        check_range(self.path, indices, len(self._array))
        return np.ascontiguousarray(self._array[list(indices)])

    def _read_parts(self, indices: Sequence[int]) -> ndarray:
        if len(self._parts) > self.limits.frames:
            raise over_limit(self.path, f"has {len(self._parts):,} frames", self.limits, "frames")
        read: dict[int, ndarray] = {}
        with self._wrap_errors(), _open_zip(self.path, self.limits) as file:
            for number in sorted(set(indices)):
                name = self._parts[number]
                shape, kind = _read_header(file, name)
                if len(shape) != 2 or 0 in shape or kind not in (np.uint8, np.uint16):
                    raise ValueError(f"{name}: expected a uint8 or uint16 image of one channel, got {kind} {shape}")
                _check_size(self.path, (len(indices), *shape), kind.itemsize, self.limits)
                read[number] = _read_member(file, name, math.prod(shape) * kind.itemsize)
                first = next(iter(read.values()))
                if (shape, kind) != (first.shape, first.dtype):
                    raise ValueError(f"{name}: expected {describe(first)}, got {describe(read[number])}")
        return np.stack([read[number] for number in indices])

    @contextmanager
    def _wrap_errors(self) -> Iterator[None]:
        with reading(self.path, "not a readable array"):
            check_file(self.path, self.path, self.limits)
            yield


class _BoundedFile(io.BufferedReader):
    """File that refuses to read more at once than a zip archive of the limits' number of frames lists.

    The directory of an archive is read at once, and each of its members takes memory before any is opened. Set
    `is_listed` when it has been read.
    """

    def __init__(self, path: str, limits: Limits) -> None:
        super().__init__(io.FileIO(path))
        self._path = path
        self._limits = limits
        self.is_listed = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes, or all."""
        largest = max(MEMBER_BYTES * self._limits.frames, io.DEFAULT_BUFFER_SIZE)
        if not self.is_listed and size is not None and size > largest:
            raise over_limit(self._path, f"lists its arrays in {size:,} bytes", self._limits, "frames")
        return super().read(size)


@contextmanager
def _open_zip(path: str, limits: Limits) -> Iterator[ZipFile]:
    with _BoundedFile(path, limits) as file, ZipFile(file) as archive:
        file.is_listed = True
        yield archive


def _read_npz(path: str, limits: Limits, name: str = "") -> ndarray:
    with _open_zip(path, limits) as file:
        name = name or _choose_array(path, [name.removesuffix(".npy") for name in file.namelist()])
        shape, kind = _read_header(file, f"{name}.npy")
        _check_size(path, (math.prod(shape),) if name == TIMES_NAME else shape, kind.itemsize, limits)
        return _read_member(file, f"{name}.npy", math.prod(shape) * kind.itemsize)


def _read_header(file: ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of an array."""
    with file.open(name) as part:
        version = np.lib.format.read_magic(part)
        length = part.read(2 if version == (1, 0) else 4)
        if int.from_bytes(length, "little") > MAX_HEADER:
            raise ValueError(f"{name}: a header of more than {MAX_HEADER:,} bytes")
        header = io.BytesIO(length + part.read(int.from_bytes(length, "little")))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(header)
    return shape, kind


def _read_member(file: ZipFile, name: str, size: int) -> ndarray:
    """Return an array whose header declares this number of bytes."""
    if size > file.getinfo(name).file_size:
        raise ValueError(f"{name}: declares {size:,} bytes, which it does not have")
    with file.open(name) as part:
        return np.asarray(np.lib.format.read_array(part, allow_pickle=False))


def _read_mat(path: str, limits: Limits, name: str = "") -> ndarray:
    headers = {name: (shape, kind) for name, shape, kind in whosmat(path)}
    name = name or _choose_array(path, list(headers))
    shape, kind = headers[name]
    if kind not in MAT_BYTES:
        raise ValueError(f"{name}: expected an array of numbers, got class {kind}")
    frames_first = (math.prod(shape),) if name == TIMES_NAME else (*shape[-1:], *shape[:-1])
    _check_size(path, frames_first, MAT_BYTES[kind], limits)
    stored: Any = loadmat(path, variable_names=[name])[name]
    return np.moveaxis(np.asarray(stored), -1, 0)


def _check_size(path: str, shape: Sequence[int], itemsize: int, limits: Limits) -> None:
    """Check the size in a header, frames first, before memory is allocated for it."""
    size = math.prod(shape) * itemsize
    if size > limits.clip_bytes:
        raise over_limit(path, f"declares {size:,} bytes", limits, "clip_bytes")
    if shape and shape[0] > limits.frames:
        raise over_limit(path, f"declares {shape[0]:,} frames", limits, "frames")


def _choose_array(path: str, names: list[str]) -> str:
    for name in ("depth", "rgb"):
        if name in names:
            return name
    names = [name for name in names if name != TIMES_NAME]
    if len(names) != 1:
        found = ", ".join(names) or "(none)"
        raise unreadable(path, f"expected one array, or one named depth or rgb; got {found}. Rename the one to read.")
    return names[0]

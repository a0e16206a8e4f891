"""Frames that are not in a video file: folders of pictures, and arrays in npz and mat files."""

import math
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipExtFile, ZipFile

import numpy as np
from jaxtyping import UInt8, UInt16
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy.io import loadmat, whosmat

from kinema.errors import UnreadableVideo
from kinema.video.read_options import READ_OPTIONS, Limits, ReadOptions

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
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

NUMBERS = re.compile(r"(\d+)")
FRAME_NAME = "depth_{:06d}"
"""Of the arrays of an npz file that holds one for each frame, so that some are read without the others."""

Grey = UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"]


def frame_files(folder: str) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names, so that 10 follows 9.

    Raises:
        UnreadableVideo: there is no picture in it, or those of two rows; or one of a row is missing or there twice, so
            that those behind it would come under the numbers of others.
    """
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if Path(e.name).suffix.lower() in PICTURE_SUFFIXES and e.is_file()]
    parts = {name: NUMBERS.split(Path(name).stem) for name in names if not name.startswith(".")}
    if not parts:
        raise UnreadableVideo(f"{folder}: holds no picture; looked for {', '.join(sorted(PICTURE_SUFFIXES))}")
    # Words and numbers take turns in the parts of a name.
    order = sorted(parts, key=lambda name: ([int(p) if p.isdigit() else p for p in parts[name]], name))
    _check_row(folder, order, parts)
    return [Path(folder) / name for name in order]


def _check_row(folder: str, order: Sequence[str], parts: dict[str, list[str]]) -> None:
    rows: dict[tuple[str, ...], list[str]] = {}
    for name in order:
        rows.setdefault(tuple(parts[name][::2]), []).append(name)
    if len(rows) > 1 and len(rows) < len(order):
        first, second = (row[0] for row in list(rows.values())[:2])
        raise UnreadableVideo(f"{folder}: holds pictures of more than one row, such as {first} and {second}; part them")
    twice = next((pair for pair in pairwise(order) if parts[pair[0]] == parts[pair[1]]), None)
    if twice is not None:
        raise UnreadableVideo(f"{folder}: {twice[0]} and {twice[1]} are the same frame; keep one of them")
    numbers = list(zip(*(parts[name][1::2] for name in order), strict=True)) if len(rows) == 1 else []
    varying = [[int(number) for number in place] for place in numbers if len(set(place)) > 1]
    if len(varying) != 1:
        return
    steps = np.diff(varying[0])
    even = steps.min()
    if (steps == even).mean() > 0.5 and not (steps % even).any() and steps.max() > even:
        gap = int(steps.argmax())
        raise UnreadableVideo(f"{folder}: between {order[gap]} and {order[gap + 1]} a picture is missing")


def read_folder(
    folder: str, indices: Sequence[int], reading: ReadOptions = READ_OPTIONS
) -> UInt8[ndarray, "frames height width 3"]:
    """Pictures of a folder as RGB; orientation marks of cameras are applied.

    Raises:
        UnreadableVideo: a picture is missing, broken, too large, or of another size than the others.
    """
    return _stacked(folder, indices, "RGB", reading.limits)


def read_grey_folder(folder: str, indices: Sequence[int], reading: ReadOptions = READ_OPTIONS) -> Grey:
    """Pictures of a folder as one channel: uint16 where they store 16 bits, else uint8."""
    return _stacked(folder, indices, "grey", reading.limits)


def read_rgb_array(
    path: str, indices: Sequence[int], reading: ReadOptions = READ_OPTIONS
) -> UInt8[ndarray, "frames height width 3"]:
    """Frames of an array of RGB: (frames, height, width, 3) of uint8.

    An npz holds one array, or one called `depth` or `rgb` among others; of depth it may hold one for each frame, called
    `depth_000000` and so on, of which only those that are wanted are decompressed. A mat file holds one array with time
    last, as MATLAB stores videos. Nothing in either can execute code: object arrays are refused.

    Raises:
        UnreadableVideo: there is no such array, it is larger than the limits allow, or too short.
    """
    frames = _array(path, reading.limits)
    if frames.ndim != 4 or frames.dtype != np.uint8:
        raise UnreadableVideo(f"{path}: holds {frames.dtype} of shape {frames.shape}, no RGB of 8 bits")
    return _taken(path, frames, indices)


def read_grey_array(path: str, indices: Sequence[int], reading: ReadOptions = READ_OPTIONS) -> Grey:
    """As `read_rgb_array`, for one channel: (frames, height, width) of whole numbers from 0 to 65535."""
    parts = _frame_parts(path)
    if parts:
        _check_reach(path, indices, len(parts))
        return _part_frames(path, parts, indices, reading.limits)
    frames = _array(path, reading.limits)
    if frames.ndim != 3:
        raise UnreadableVideo(f"{path}: has shape {frames.shape}, no single channel")
    return _taken(path, frames, indices)


def count_pictures(path: str, reading: ReadOptions = READ_OPTIONS) -> int:
    """Frames of a folder of pictures or of an array."""
    if Path(path).is_dir():
        return len(frame_files(path))
    return len(_frame_parts(path)) or len(_array(path, reading.limits))


def _taken(path: str, frames: ndarray, indices: Sequence[int]) -> ndarray:
    _check_reach(path, indices, len(frames))
    return np.ascontiguousarray(frames[list(indices)])


def _stacked(folder: str, indices: Sequence[int], mode: str, limits: Limits) -> ndarray:
    files = frame_files(folder)
    _check_reach(folder, indices, len(files))
    pictures: dict[int, ndarray] = {}
    left = limits.clip_bytes
    for number in sorted(set(indices)):
        picture = pictures[number] = read_picture(files[number], mode, limits)
        first = next(iter(pictures.values()))
        if picture.shape != first.shape or picture.dtype != first.dtype:
            raise UnreadableVideo(
                f"{files[number]}: is {_described(picture)}, but {files[min(indices)].name} is {_described(first)}"
            )
        left -= picture.nbytes
        if left < 0:
            raise UnreadableVideo(f"{folder}: its pictures take more than the limit of {limits.clip_bytes:,} bytes")
    return np.stack([pictures[number] for number in indices])


def read_picture(path: Path, mode: str, limits: Limits) -> ndarray:
    """One picture: `RGB`, or `grey` of 16 bits where it stores 16, else of 8.

    Raises:
        UnreadableVideo: it is broken, or larger than the limits allow.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > limits.pixels:
                raise UnreadableVideo(f"{path}: has {image.width} x {image.height} pixels, more than {limits.pixels:,}")
            upright = ImageOps.exif_transpose(image)
            deep = upright.mode.startswith("I")
            if mode == "RGB" and deep:
                raise UnreadableVideo(f"{path}: stores 16 bits in one channel, no RGB of 8 bits; is it depth?")
            if mode == "RGB":
                return np.asarray(upright.convert("RGB"))
            return np.asarray(upright).astype(np.uint16) if deep else np.asarray(upright.convert("L"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableVideo(f"{path}: is not a picture that can be read ({error})") from error


def _array(path: str, limits: Limits) -> ndarray:
    try:
        if Path(path).stat().st_size > limits.file_bytes:
            raise UnreadableVideo(f"{path}: has more bytes than the limit of {limits.file_bytes:,}")
        frames = _mat(path, limits) if path.lower().endswith(".mat") else _npz(path, limits)
    except FileNotFoundError as error:
        raise UnreadableVideo(f"{path}: no such file") from error
    except UnreadableVideo:
        raise
    except Exception as error:  # numpy and scipy raise whatever a broken header makes them stumble over
        raise UnreadableVideo(f"{path}: is not an array that can be read ({' '.join(str(error).split())})") from error
    if frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[-1] != 3) or 0 in frames.shape:
        raise UnreadableVideo(
            f"{path}: has shape {frames.shape}; frames are (frames, height, width) or (frames, height, width, 3)"
        )
    if frames.dtype in (np.uint8, np.uint16):
        return frames
    if not np.array_equal(frames, np.clip(np.rint(frames), 0, 65535)):
        raise UnreadableVideo(f"{path}: holds {frames.dtype} numbers that are no whole ones from 0 to 65535")
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
    """The arrays of an npz that holds one for each frame; none of any other, nor of what `_array` will refuse."""
    if path.lower().endswith(".mat"):
        return []
    try:
        with ZipFile(path) as parts:
            names = parts.namelist()
    except (OSError, BadZipFile):
        return []
    return names if names == [f"{FRAME_NAME.format(number)}.npy" for number in range(len(names))] else []


def _part_frames(path: str, parts: Sequence[str], indices: Sequence[int], limits: Limits) -> Grey:
    read: dict[int, ndarray] = {}
    try:
        if Path(path).stat().st_size > limits.file_bytes or len(parts) > limits.frames:
            raise UnreadableVideo(f"{path}: has more bytes or frames than the limits allow")
        with ZipFile(path) as file:
            for number in sorted(set(indices)):
                with file.open(parts[number]) as part:
                    shape, kind = _announced(part)
                if len(shape) != 2 or kind not in (np.uint8, np.uint16):
                    raise ValueError(f"{parts[number]} is {kind} of shape {shape}, no picture of one channel")
                _check_size((len(indices), *shape), kind.itemsize, limits)
                with file.open(parts[number]) as part:
                    read[number] = np.lib.format.read_array(part, allow_pickle=False)
                first = next(iter(read.values()))
                if (shape, kind) != (first.shape, first.dtype):
                    raise ValueError(f"{parts[number]} is {_described(read[number])}, but others {_described(first)}")
    except UnreadableVideo:
        raise
    except Exception as error:  # as in `_array`
        raise UnreadableVideo(f"{path}: is not an array that can be read ({' '.join(str(error).split())})") from error
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
        raise ValueError(f"{name} is of class {kind}, no array of numbers")
    _check_size(shape, MAT_BYTES[kind], limits)
    stored: Any = loadmat(path, variable_names=[name])[name]
    return np.moveaxis(np.asarray(stored), -1, 0)


def _check_size(shape: Sequence[int], itemsize: int, limits: Limits) -> None:
    """What a header announces, before memory is taken for it."""
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
        raise ValueError(f"holds arrays {', '.join(names) or '(none)'}; call the one that is meant depth or rgb")
    return names[0]


def _check_reach(path: str, indices: Sequence[int], there: int) -> None:
    if not indices or min(indices) < 0:
        raise ValueError(f"frame numbers must be at least 0, got {list(indices)}")
    if max(indices) >= there:
        raise UnreadableVideo(f"{path}: frame {max(indices)} is wanted, but it has {there} frames")


def _described(picture: ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]} pixels of {8 * picture.dtype.itemsize} bits"

"""Frames that are not in a video file: folders of pictures, and arrays in npz and mat files."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import UInt8, UInt16
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError

from kinema.data.decode import UnreadableVideo

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
ARRAY_SUFFIXES = frozenset({".npz", ".mat"})
LARGEST_PICTURE = 64_000_000
"""Pixels of a picture above which it is refused before memory is taken for it."""

Grey = UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"]


def frame_files(folder: str) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names, so that 10 follows 9.

    Raises:
        UnreadableVideo: there is no picture in it.
    """
    found = [p for p in Path(folder).iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")]
    if not found:
        raise UnreadableVideo(f"{folder}: holds no picture; looked for {', '.join(sorted(PICTURE_SUFFIXES))}")
    return sorted(found, key=lambda p: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", p.name)])


def read_folder(folder: str, indices: Sequence[int]) -> UInt8[ndarray, "frames height width 3"]:
    """Pictures of a folder as RGB; orientation marks of cameras are applied.

    Raises:
        UnreadableVideo: a picture is missing, broken, too large, or of another size than the others.
    """
    return _stacked(folder, indices, "RGB")


def read_grey_folder(folder: str, indices: Sequence[int]) -> Grey:
    """Pictures of a folder as one channel: uint16 where they store 16 bits, else uint8."""
    return _stacked(folder, indices, "grey")


def read_array(path: str, indices: Sequence[int]) -> ndarray:
    """Frames of an array: (frames, height, width) of depth or (frames, height, width, 3) of RGB.

    An npz holds one array, or one called `depth` or `rgb` among others. A mat file holds one array with time last, as
    MATLAB stores videos. Nothing in either can execute code: object arrays are refused.

    Raises:
        UnreadableVideo: there is no such array, its numbers are no whole ones from 0 to 65535, or it is too short.
    """
    frames = _array(path)
    _check_reach(path, indices, len(frames))
    return np.ascontiguousarray(frames[list(indices)])


def count_pictures(path: str) -> int:
    """Frames of a folder of pictures or of an array, without reading pixels where the format allows it."""
    if Path(path).is_dir():
        return len(frame_files(path))
    return len(_array(path))


def _stacked(folder: str, indices: Sequence[int], mode: str) -> ndarray:
    files = frame_files(folder)
    _check_reach(folder, indices, len(files))
    pictures = {number: _picture(files[number], mode) for number in sorted(set(indices))}
    first = pictures[indices[0]]
    for number, picture in pictures.items():
        if picture.shape != first.shape or picture.dtype != first.dtype:
            raise UnreadableVideo(
                f"{files[number]}: is {_described(picture)}, but {files[indices[0]].name} is {_described(first)}"
            )
    return np.stack([pictures[number] for number in indices])


def _picture(path: Path, mode: str) -> ndarray:
    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST_PICTURE:
                raise UnreadableVideo(f"{path}: has {image.width} x {image.height} pixels, too many to be a frame")
            upright = ImageOps.exif_transpose(image)
            if mode == "RGB":
                return np.asarray(upright.convert("RGB"))
            deep = upright.mode.startswith("I")
            return np.asarray(upright).astype(np.uint16) if deep else np.asarray(upright.convert("L"))
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableVideo(f"{path}: is not a picture that can be read ({error})") from error


def _array(path: str) -> ndarray:
    try:
        frames = _mat(path) if path.lower().endswith(".mat") else _npz(path)
    except FileNotFoundError as error:
        raise UnreadableVideo(f"{path}: no such file") from error
    except (OSError, ValueError, BadZipFile, MatReadError, NotImplementedError, TypeError, KeyError) as error:
        # NotImplementedError is what scipy says of MATLAB 7.3 files, which are HDF5.
        raise UnreadableVideo(f"{path}: is not an array that can be read ({error})") from error
    if frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[-1] != 3) or 0 in frames.shape:
        raise UnreadableVideo(
            f"{path}: has shape {frames.shape}; frames are (frames, height, width) or (frames, height, width, 3)"
        )
    if frames.dtype in (np.uint8, np.uint16):
        return frames
    if not np.array_equal(frames, np.clip(np.rint(frames), 0, 65535)):
        raise UnreadableVideo(f"{path}: holds {frames.dtype} numbers that are no whole ones from 0 to 65535")
    return frames.astype(np.uint16)


def _npz(path: str) -> ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[_chosen(list(arrays.keys()))])


def _mat(path: str) -> ndarray:
    name = _chosen([name for name, _, _ in whosmat(path)])
    stored: Any = loadmat(path, variable_names=[name])[name]
    return np.moveaxis(np.asarray(stored), -1, 0)


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

"""Folders of images as frame sources."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8, UInt16
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError

from kinema.errors import UnreadableVideo
from kinema.video.read_options import READ_OPTIONS, Limits, ReadOptions

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})

NUMBERS = re.compile(r"(\d+)")


class ImageFolder:
    """Folder of images, ordered by the numbers in their names; orientation tags of cameras are applied.

    Args:
        path: local path.
        options: limits to enforce.
    """

    form: Literal["folder"] = "folder"
    timeline = None

    def __init__(self, path: str, options: ReadOptions = READ_OPTIONS) -> None:
        self.path = path
        self.limits = options.limits

    def close(self) -> None:
        """Do nothing: each image is closed when it has been read."""

    @cached_property
    def files(self) -> list[Path]:
        """Images in the order of their numbers.

        Raises:
            UnreadableVideo: the folder holds no image, or those of several sequences; or one of a sequence is missing
                or there twice, which would shift the numbers of those behind it.
        """
        return list_images(self.path)

    @property
    def num_frames(self) -> int:
        """Number of images."""
        return len(self.files)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first image."""
        image = read_image(self.files[0], "gray", self.limits)
        return image.shape[1], image.shape[0]

    def read_rgb(self, indices: Sequence[int]) -> UInt8[ndarray, "frames height width 3"]:
        """Return the images with these numbers, which may be repeated.

        Raises:
            UnreadableVideo: an image is missing, broken, too large, or of another size than the others.
        """
        return self._read(indices, "rgb")

    def read_gray(
        self, indices: Sequence[int]
    ) -> UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"]:
        """Return one channel of the images: uint16 where they store 16 bits, else uint8."""
        return self._read(indices, "gray")

    def iter_frames(self, numbers: range, color: Literal["rgb", "gray"]) -> Iterator[ndarray]:
        """Yield the images of a range one by one; all are of one size."""
        check_reach(self.path, numbers, len(self.files))
        first: ndarray | None = None
        for number in numbers:
            image = read_image(self.files[number], color, self.limits)
            first = image if first is None else first
            if image.shape != first.shape or image.dtype != first.dtype:
                raise UnreadableVideo(
                    f"{self.files[number]}: is {describe(image)}, but {self.files[numbers[0]].name} is "
                    f"{describe(first)}",
                    path=self.files[number],
                )
            yield image

    def frame_range(self, _start_s: float, _stop_s: float) -> tuple[int, int]:
        """Raise UnreadableVideo: images have no time stamps."""
        raise no_time_stamps(self.path)

    def _read(self, indices: Sequence[int], color: Literal["rgb", "gray"]) -> ndarray:
        check_reach(self.path, indices, len(self.files))
        wanted = sorted(set(indices))
        images: dict[int, ndarray] = {}
        left = self.limits.clip_bytes
        for number in wanted:
            image = images[number] = read_image(self.files[number], color, self.limits)
            first = images[wanted[0]]
            if image.shape != first.shape or image.dtype != first.dtype:
                raise UnreadableVideo(
                    f"{self.files[number]}: is {describe(image)}, but {self.files[wanted[0]].name} is "
                    f"{describe(first)}",
                    path=self.files[number],
                )
            left -= image.nbytes
            if left < 0:
                raise UnreadableVideo(
                    f"{self.path}: its images take more than the limit of {self.limits.clip_bytes:,} bytes",
                    path=self.path,
                )
        return np.stack([images[number] for number in indices])


def list_images(folder: str) -> list[Path]:
    """Return the images of a folder in the order of the numbers in their names, so that 10 follows 9."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if Path(e.name).suffix.lower() in IMAGE_SUFFIXES and e.is_file()]
    parts = {name: NUMBERS.split(Path(name).stem) for name in names if not name.startswith(".")}
    if not parts:
        raise UnreadableVideo(f"{folder}: holds no image; looked for {', '.join(sorted(IMAGE_SUFFIXES))}", path=folder)
    # Words and numbers alternate in the parts of a name.
    order = sorted(parts, key=lambda name: ([int(p) if p.isdigit() else p for p in parts[name]], name))
    _check_sequence(folder, order, parts)
    return [Path(folder) / name for name in order]


def _check_sequence(folder: str, order: Sequence[str], parts: dict[str, list[str]]) -> None:
    rows: dict[tuple[str, ...], list[str]] = {}
    for name in order:
        rows.setdefault(tuple(parts[name][::2]), []).append(name)
    if len(rows) > 1 and len(rows) < len(order):
        first, second = (row[0] for row in list(rows.values())[:2])
        raise UnreadableVideo(
            f"{folder}: holds images of several sequences, such as {first} and {second}; separate them", path=folder
        )
    twice = next((pair for pair in pairwise(order) if parts[pair[0]] == parts[pair[1]]), None)
    if twice is not None:
        raise UnreadableVideo(f"{folder}: {twice[0]} and {twice[1]} are the same frame; keep one of them", path=folder)
    numbers = list(zip(*(parts[name][1::2] for name in order), strict=True)) if len(rows) == 1 else []
    varying = [[int(number) for number in place] for place in numbers if len(set(place)) > 1]
    if len(varying) != 1:
        return
    steps = np.diff(varying[0])
    even = steps.min()
    if (steps == even).mean() > 0.5 and not (steps % even).any() and steps.max() > even:
        gap = int(steps.argmax())
        raise UnreadableVideo(f"{folder}: an image is missing between {order[gap]} and {order[gap + 1]}", path=folder)


def read_image(path: Path, color: Literal["rgb", "gray"], limits: Limits) -> ndarray:
    """Return an image as RGB, or as gray of 16 bits where it stores 16, else of 8.

    Raises:
        UnreadableVideo: it is broken, or larger than the limits allow.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > limits.pixels:
                raise UnreadableVideo(
                    f"{path}: has {image.width} x {image.height} pixels, more than {limits.pixels:,}", path=path
                )
            upright = ImageOps.exif_transpose(image)
            deep = upright.mode.startswith("I")
            if color == "rgb" and deep:
                raise UnreadableVideo(
                    f"{path}: stores one channel of 16 bits, not RGB of 8 bits; is it depth?", path=path
                )
            if color == "rgb":
                return np.asarray(upright.convert("RGB"))
            return np.asarray(upright).astype(np.uint16) if deep else np.asarray(upright.convert("L"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableVideo(f"{path}: is not an image that can be read ({error})", path=path) from error


def check_reach(path: str, indices: Sequence[int], num_frames: int) -> None:
    """Raise where a frame number is negative, or beyond the end of the file."""
    if not indices or min(indices) < 0:
        raise ValueError(f"frame numbers must be at least 0, got {list(indices)}")
    if max(indices) >= num_frames:
        raise UnreadableVideo(f"{path}: frame {max(indices)} is requested, but it has {num_frames} frames", path=path)


def describe(image: ndarray) -> str:
    """Return the size and depth of an image for a message."""
    return f"{image.shape[1]} x {image.shape[0]} pixels of {8 * image.dtype.itemsize} bits"


def no_time_stamps(path: str) -> UnreadableVideo:
    """Return the error for seconds of a file that has only frame numbers."""
    return UnreadableVideo(f"{path}: has no time stamps; give start_frame and stop_frame instead of seconds", path=path)

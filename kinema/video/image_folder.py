"""Folders of images as frame sources."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageOps

from kinema.errors import UnreadableVideo
from kinema.modality import ReadAs
from kinema.video.container import Gray, check_file, reading
from kinema.video.gray import gray_of_colors
from kinema.video.pixels import OPAQUE, SQUARE, over_black
from kinema.video.read_options import READ_OPTIONS, Limits, ReadOptions
from kinema.video.remarks import Remark
from kinema.video.unreadable import check_range, describe, no_time_stamps, over_limit, unreadable

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
"""Formats that are decoded, whatever the suffix; Pillow hands some others to programs, such as Ghostscript."""

NUMBERS = re.compile(r"(\d+)")


class ImageFolder:
    """Local folder of images, ordered by the numbers in their names and rotated by their orientation tags."""

    form: Literal["folder"] = "folder"
    timeline = None
    pixel_aspect = SQUARE

    def __init__(self, path: str, options: ReadOptions = READ_OPTIONS, read_as: ReadAs | None = None) -> None:
        self.path = path
        self.limits = options.limits
        self.read_as = read_as

    def close(self) -> None:
        """Do nothing: each image is closed after it is read."""

    @cached_property
    def files(self) -> list[Path]:
        """Images in the order of their numbers.

        Raises:
            UnreadableVideo: The folder has no image or several sequences, or an image of the sequence is missing or
                duplicate, which would shift the numbers of those after it.
        """
        with reading(self.path):
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

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """Remarks on the first image.

        Raises:
            UnreadableVideo: The folder is opened as depth, and the image is in color.
        """
        if self.read_as == "depth":
            self.read_gray([0])
        return self.remarks_on(range(1))

    def remarks_on(self, numbers: range) -> tuple[Remark, ...]:
        """Return the remarks on the images with these numbers."""
        count = sum(is_transparent(self.files[number]) for number in numbers)
        sentence = f"{count} of {len(numbers)} frames are transparent in part and put on black"
        return (Remark("transparency", sentence),) if count else ()

    def read_rgb(self, indices: Sequence[int]) -> UInt8[ndarray, "frames height width 3"]:
        """Return the images with these numbers, which may be repeated.

        Raises:
            UnreadableVideo: An image is missing, broken, too large, or of another size than the others.
        """
        return self._read(indices, "rgb")

    def read_gray(self, indices: Sequence[int]) -> Gray:
        """Return one channel of the images: uint16 if they store 16 bits, else uint8."""
        return self._read(indices, "gray")

    def iter_frames(self, numbers: Sequence[int], color: Literal["rgb", "gray"]) -> Iterator[ndarray]:
        """Yield images one by one; all have the same size."""
        check_range(self.path, numbers, len(self.files))
        first: ndarray | None = None
        for number in numbers:
            file = self.files[number]
            image = read_image(file, color, self.limits, self.read_as or "depth")
            first = image if first is None else first
            if image.shape != first.shape or image.dtype != first.dtype:
                name = self.files[numbers[0]].name
                raise unreadable(file, f"expected {describe(first)} as in {name}, got {describe(image)}")
            yield image

    def frame_range(self, _start_s: float, _stop_s: float) -> tuple[int, int]:
        """Raise UnreadableVideo: images have no time stamps."""
        raise no_time_stamps(self.path)

    def _read(self, indices: Sequence[int], color: Literal["rgb", "gray"]) -> ndarray:
        check_range(self.path, indices, len(self.files))
        numbers = sorted(set(indices))
        images: dict[int, ndarray] = {}
        free = self.limits.clip_bytes
        for number, image in zip(numbers, self.iter_frames(numbers, color), strict=True):
            images[number] = image
            free -= image.nbytes
            if free < 0:
                raise over_limit(self.path, "the images take too many bytes", self.limits, "clip_bytes")
        return np.stack([images[number] for number in indices])


def list_images(folder: str) -> list[Path]:
    """Return the images of a folder in the order of the numbers in their names, so that 10 follows 9."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if Path(e.name).suffix.lower() in IMAGE_SUFFIXES and not e.is_dir()]
    parts = {name: NUMBERS.split(Path(name).stem) for name in names if not name.startswith(".")}
    if not parts:
        raise unreadable(folder, f"no images; expected files with suffix {', '.join(sorted(IMAGE_SUFFIXES))}")
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
        raise unreadable(folder, f"has images of several sequences, such as {first} and {second}. Separate them.")
    duplicate = next((pair for pair in pairwise(order) if parts[pair[0]] == parts[pair[1]]), None)
    if duplicate is not None:
        raise unreadable(folder, f"{duplicate[0]} and {duplicate[1]} are the same frame. Keep one of them.")
    numbers = list(zip(*(parts[name][1::2] for name in order), strict=True)) if len(rows) == 1 else []
    varying = [[int(number) for number in place] for place in numbers if len(set(place)) > 1]
    if len(varying) != 1:
        return
    steps = np.diff(varying[0])
    even = steps.min()
    if (steps == even).mean() > 0.5 and not (steps % even).any() and steps.max() > even:
        gap = int(steps.argmax())
        raise unreadable(folder, f"an image is missing between {order[gap]} and {order[gap + 1]}")


def read_image(path: Path, color: Literal["rgb", "gray"], limits: Limits, read_as: ReadAs = "gray8") -> ndarray:
    """Return an image as RGB, or as gray of 16 bits if it stores 16, else of 8.

    Gray of an image in color is depth by the encoding `read_as`; `gray8` for brightness.

    Raises:
        UnreadableVideo: The image is broken or exceeds the limits.
    """
    with ExitStack() as files:
        files.enter_context(reading(path, "not a readable image"))
        check_file(str(path), str(path), limits)
        image = files.enter_context(Image.open(path, formats=IMAGE_FORMATS))
        if image.width * image.height > limits.pixels:
            raise over_limit(path, f"has {image.width} x {image.height} pixels", limits, "pixels")
        is_cut = len(image.getbands()) > 1 and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        if is_cut and color == "gray" and read_as == "depth":  # Pillow reads the upper 8 bits of several channels
            raise unreadable(path, "expected one channel of 16 bits, got several. Save the depth as 16-bit grayscale.")
        upright = ImageOps.exif_transpose(image)
        is_deep = upright.mode.startswith("I")
        if color == "rgb" and (is_deep or (is_cut and upright.mode == "LA")):
            raise unreadable(path, "expected RGB of 8 bits, got one channel of 16 bits. Read it as depth.")
        if color == "rgb" and upright.has_transparency_data:
            rgba = np.asarray(upright.convert("RGBA"))
            return over_black(rgba[..., :3], rgba[..., 3:])
        if color == "rgb":
            return np.asarray(upright.convert("RGB"))
        if is_deep:
            return np.asarray(upright).astype(np.uint16)
        if upright.mode in ("1", "L", "LA") or read_as == "gray8":
            return np.asarray(upright.convert("L"))
        return gray_of_colors(str(path), np.asarray(upright.convert("RGB")), read_as)


def is_transparent(path: Path) -> bool:
    """Return whether an image has pixels that are not opaque; False if it cannot be read."""
    try:
        with reading(path), Image.open(path, formats=IMAGE_FORMATS) as image:
            return image.has_transparency_data and int(np.asarray(image.convert("RGBA"))[..., 3].min()) < OPAQUE
    except UnreadableVideo:
        return False

"""Places in a picture as shares of it, so that they mean the same at any size: boxes and affine maps."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

GRAY = 128
"""What an RGB picture shows where a warp reaches beyond the frame: the middle of the bytes."""


class Box(NamedTuple):
    """A part of a picture, in shares of its height and width."""

    top: float = 0.0
    left: float = 0.0
    bottom: float = 1.0
    right: float = 1.0

    def pixels(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns, edges rounded to the nearest; at least one of each."""
        return _span(self.top, self.bottom, height), _span(self.left, self.right, width)

    def height(self, of: int) -> float:
        """In pixels of a picture that has so many rows."""
        return (self.bottom - self.top) * of

    def width(self, of: int) -> float:
        """In pixels of a picture that has so many columns."""
        return (self.right - self.left) * of


FULL_FRAME = Box()
"""The whole picture."""


def _span(start: float, stop: float, extent: int) -> slice:
    first = min(math.floor(start * extent + 0.5), extent - 1)
    return slice(first, max(math.floor(stop * extent + 0.5), first + 1))


class Warp(NamedTuple):
    """An affine map of a square about its middle: for each place of the result, where it is taken from.

    A place is (x, y) in shares of the square's side, (0, 0) in the middle, y downwards:
    (x, y) -> (xx * x + xy * y + x0, yx * x + yy * y + y0).
    """

    xx: float = 1.0
    xy: float = 0.0
    x0: float = 0.0
    yx: float = 0.0
    yy: float = 1.0
    y0: float = 0.0

    def then(self, other: "Warp") -> "Warp":
        """First this one, then the other on its result."""
        own, last = (np.array([[w.xx, w.xy, w.x0], [w.yx, w.yy, w.y0], [0, 0, 1]]) for w in (self, other))
        return Warp(*(own @ last)[:2].ravel().tolist())


IDENTITY = Warp()
"""The map that changes nothing."""


def rotation(degrees: float) -> Warp:
    """What is seen turns against the clock."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return Warp(xx=cosine, xy=-sine, yx=sine, yy=cosine)


def warp(
    frames: UInt8[Tensor, "time channels height width"], warp: Warp, *, top: int, left: int, size: int
) -> UInt8[Tensor, "time channels size size"]:
    """Take a square out of frames and warp it about its middle, in one resampling.

    Corners show what the frame has there. Beyond it RGB is gray, and depth is 0, no reading. RGB is interpolated;
    depth takes the nearest pixel, since a mean of two depths is a place where nothing is.

    Args:
        frames: RGB, or depth of one channel.
        top, left, size: the square in pixels, before the warp.
    """
    middle_x, middle_y = left + size / 2, top + size / 2
    affine = (
        warp.xx,
        warp.xy,
        middle_x + size * warp.x0 - (warp.xx + warp.xy) * size / 2,
        warp.yx,
        warp.yy,
        middle_y + size * warp.y0 - (warp.yx + warp.yy) * size / 2,
    )
    depth = frames.shape[1] == 1
    pictures = frames[:, 0] if depth else frames.permute(0, 2, 3, 1)
    result = np.empty((len(frames), size, size, *pictures.shape[3:]), np.uint8)
    for number, picture in enumerate(pictures.numpy()):
        result[number] = Image.fromarray(np.ascontiguousarray(picture)).transform(
            (size, size),
            Image.Transform.AFFINE,
            affine,
            resample=Image.Resampling.NEAREST if depth else Image.Resampling.BILINEAR,
            fillcolor=0 if depth else (GRAY, GRAY, GRAY),
        )
    result_frames = torch.from_numpy(result)
    return result_frames.unsqueeze(1) if depth else result_frames.permute(0, 3, 1, 2)

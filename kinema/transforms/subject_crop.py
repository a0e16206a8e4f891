"""The person's part of the picture, found in masked depth."""

from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16
from numpy import ndarray
from pydantic import Field

from kinema.config import config
from kinema.transforms.geometry import FULL_FRAME, Box

SPECK = 0.01
"""A row or column with readings in a smaller share of its pixels, or in one pixel, is taken for noise."""


@config
class SubjectCrop:
    """Cut all modalities to the person before anything else (habit of work on NTU RGB+D; thesis 2.4.2).

    The box is in shares of the picture, which is right where RGB and depth show the same: RGB of a sample that says a
    box of its own, `rgb_box`, is cut to that instead.

    Args:
        margin: by which the person's box is enlarged on each side, as a share of its height and width.
    """

    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1


class Extent(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right` of a depth picture, half open."""

    top: int
    bottom: int
    left: int
    right: int


def subject_extent(
    depth: UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"],
) -> Extent | None:
    """What holds the readings of all frames, but for specks; None where no frame has any."""
    height, width = depth.shape[1:]
    seen = depth != 0
    rows, columns = seen.sum(2).max(0), seen.sum(1).max(0)
    held_rows = np.flatnonzero(rows >= max(SPECK * width, 2))
    held_columns = np.flatnonzero(columns >= max(SPECK * height, 2))
    if not len(held_rows) or not len(held_columns):
        return None
    return Extent(int(held_rows[0]), int(held_rows[-1]) + 1, int(held_columns[0]), int(held_columns[-1]) + 1)


def subject_box(
    depth: UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"], crop: SubjectCrop
) -> Box:
    """One box for a clip: it holds the readings of all its frames and the margin, and lies inside the frame.

    Its shorter side is then made as long as the other, as far as the frame allows, since a model sees a square: of a
    standing person's narrow box the square would show the waist. Frames without readings change nothing; where no frame
    has any, the box is the whole picture.
    """
    extent = subject_extent(depth)
    if extent is None:
        return FULL_FRAME
    height, width = depth.shape[1:]
    top, bottom = _enlarged(extent.top, extent.bottom, crop.margin)
    left, right = _enlarged(extent.left, extent.right, crop.margin)
    side = max(bottom - top, right - left)
    top, bottom = inside(top, bottom, side, height)
    left, right = inside(left, right, side, width)
    return Box(top / height, left / width, bottom / height, right / width)


def _enlarged(start: int, stop: int, margin: float) -> tuple[int, int]:
    more = round(margin * (stop - start))
    return start - more, stop + more


def inside(start: int, stop: int, side: int, extent: int) -> tuple[int, int]:
    """A range of that length about the same middle, moved into [0, extent); all of it where it is longer."""
    length = min(side, extent)
    first = min(max((start + stop - length) // 2, 0), extent - length)
    return first, first + length

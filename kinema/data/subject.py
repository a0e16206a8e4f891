"""The person's part of the picture, found in masked depth."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8, UInt16
from numpy import ndarray

from kinema.data.geometry import WHOLE, Box

SPECK = 0.01
"""A row or column with readings in a smaller share of its pixels, or in one pixel, is taken for noise."""


@dataclass(frozen=True, kw_only=True)
class SubjectCrop:
    """Cut all modalities to the person before anything else (habit of work on NTU RGB+D; thesis 2.4.2).

    Args:
        margin: by which the person's box is enlarged on each side, as a share of its height and width.
    """

    margin: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"subject: margin={self.margin} must be finite and not negative")


def subject_box(
    depth: UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"], crop: SubjectCrop
) -> Box:
    """One box for a clip: it holds the readings of all its frames and the margin, and lies inside the frame.

    Its shorter side is then made as long as the other, as far as the frame allows, since a model sees a square: of a
    standing person's narrow box the square would show the waist. Frames without readings change nothing; where no frame
    has any, the box is the whole picture.
    """
    height, width = depth.shape[1:]
    seen = depth != 0
    rows, columns = seen.sum(2).max(0), seen.sum(1).max(0)
    held_rows = np.flatnonzero(rows >= max(SPECK * width, 2))
    held_columns = np.flatnonzero(columns >= max(SPECK * height, 2))
    if not len(held_rows) or not len(held_columns):
        return WHOLE
    top, bottom = _enlarged(int(held_rows[0]), int(held_rows[-1]) + 1, crop.margin)
    left, right = _enlarged(int(held_columns[0]), int(held_columns[-1]) + 1, crop.margin)
    side = max(bottom - top, right - left)
    top, bottom = _inside(top, bottom, side, height)
    left, right = _inside(left, right, side, width)
    return Box(top / height, left / width, bottom / height, right / width)


def _enlarged(start: int, stop: int, margin: float) -> tuple[int, int]:
    more = round(margin * (stop - start))
    return start - more, stop + more


def _inside(start: int, stop: int, side: int, extent: int) -> tuple[int, int]:
    """A range of that length about the same middle, moved into [0, extent); all of it where it is longer."""
    length = min(side, extent)
    first = min(max((start + stop - length) // 2, 0), extent - length)
    return first, first + length

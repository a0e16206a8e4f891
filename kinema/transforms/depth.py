"""Depth in its stored forms, brought to the 8-bit clip that the rest of the data path carries, and its colours."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import UInt8, UInt16
from numpy import ndarray
from torch import Tensor

from kinema.errors import UnreadableVideo
from kinema.modality import DepthFacts
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.sources import read_grey


def read_depth(
    path: str, indices: Sequence[int], facts: DepthFacts | None, reading: ReadOptions = READ_OPTIONS
) -> UInt8[ndarray, "frames height width"]:
    """Depth frames as 8 bits: 0 no reading, 1 the near end of the range, 255 the far end.

    Args:
        path: a video (FFV1 gray16, or 8-bit grey), a folder of 16-bit or 8-bit PNG, an npz or a mat file.
        indices: as for `read_frames`.
        facts: the range of 16-bit values; an 8-bit video is taken as it is where None.

    Raises:
        UnreadableVideo: as `read_frames`, and for a 16-bit video without facts.
    """
    stored = read_grey(path, indices, reading)
    if facts is None:
        if stored.dtype != np.uint8:
            raise UnreadableVideo(f"{path}: holds 16-bit depth, but the manifest's JSON says no depth_range")
        return stored
    return depth_to_uint8(stored, facts)


def depth_to_uint8(
    stored: UInt16[ndarray, "*shape"] | UInt8[ndarray, "*shape"], facts: DepthFacts
) -> UInt8[ndarray, "*shape"]:
    """Map the range [near, far] linearly to 1..255; values outside are clipped to it, 0 stays no reading."""
    share = (stored.astype(np.float32) - facts.near) / (facts.far - facts.near)
    level = 1 + np.rint(np.clip(share, 0, 1) * 254)
    return np.where(stored > 0, level, 0).astype(np.uint8)


@cache
def jet_colours() -> UInt8[ndarray, "256 3"]:
    """Red, green and blue of each level in the JET map of MATLAB and OpenCV; read-only.

    With x = level / 255 the three are clip(1.5 - |4 x - k|, 0, 1) for k = 3, 2 and 1: from dark blue (0, 0, 128) over
    cyan, yellow and red to dark red (128, 0, 0). Here all is multiplied by 255, so that halves are exact; they round to
    even. OpenCV 5.0.0 has the same table but for the blue of level 159: 1 there, 2 here.
    """
    levels = 4 * np.arange(256)[:, None]
    exact = np.clip(382.5 - np.abs(levels - 255 * np.array([3, 2, 1])), 0, 255)
    colours: UInt8[ndarray, "256 3"] = np.rint(exact).astype(np.uint8)
    colours.flags.writeable = False
    return colours


def jet(levels: UInt8[Tensor, "*views 1 time height width"]) -> UInt8[Tensor, "*views 3 time height width"]:
    """Depth's levels as RGB colours of the JET map: the near end is dark blue, the far end dark red.

    No reading, level 0, is coloured like the lowest level, dark blue (0, 0, 128), as in the legacy form: next to the
    near end, (0, 0, 132), it can hardly be told. A colour between two colours belongs to another depth or to none, so
    this comes last, after all that moves, resizes or erases pixels.
    """
    places = levels.squeeze(-4).numpy()
    return torch.from_numpy(np.stack([np.take(channel, places) for channel in jet_colours().T], axis=-4))

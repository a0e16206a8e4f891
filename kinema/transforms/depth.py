"""Depth in its stored forms, brought to the 8-bit clip that the rest of the data path carries, and its colors."""

from functools import cache

import numpy as np
import torch
from jaxtyping import UInt8, UInt16
from numpy import ndarray
from torch import Tensor

from kinema.errors import UnreadableVideo
from kinema.modality import DepthFacts
from kinema.video.video_file import Gray


def depth_levels(stored: Gray, facts: DepthFacts | None, path: str) -> UInt8[ndarray, "frames height width"]:
    """Return depth frames as 8 bits: 0 for no reading, 1 for the near end of the range, 255 for the far end.

    Args:
        stored: frames as `read_gray` returns them.
        facts: the range of the stored values; None for 8-bit depth, which is returned as it is.
        path: file of the frames, for the message.

    Raises:
        UnreadableVideo: depth of 16 bits has no facts.
    """
    if facts is not None:
        return depth_to_uint8(stored, facts)
    if stored.dtype != np.uint8:
        raise UnreadableVideo(
            f"{path}: holds 16-bit depth, but the manifest's JSON has no depth_range", path=path, field="depth_range"
        )
    return stored


def depth_to_uint8(
    stored: UInt16[ndarray, "*shape"] | UInt8[ndarray, "*shape"], facts: DepthFacts
) -> UInt8[ndarray, "*shape"]:
    """Map the range [near, far] linearly to 1..255; values outside are clipped to it, 0 stays no reading."""
    share = (stored.astype(np.float32) - facts.near) / (facts.far - facts.near)
    level = 1 + np.rint(np.clip(share, 0, 1) * 254)
    return np.where(stored > 0, level, 0).astype(np.uint8)


@cache
def jet_colors() -> UInt8[ndarray, "256 3"]:
    """Red, green and blue of each level in the JET map of MATLAB and OpenCV; read-only.

    With x = level / 255 the three are clip(1.5 - |4 x - k|, 0, 1) for k = 3, 2 and 1: from dark blue (0, 0, 128) over
    cyan, yellow and red to dark red (128, 0, 0). Here all is multiplied by 255, so that halves are exact; they round to
    even. OpenCV 5.0.0 has the same table but for the blue of level 159: 1 there, 2 here.
    """
    levels = 4 * np.arange(256)[:, None]
    exact = np.clip(382.5 - np.abs(levels - 255 * np.array([3, 2, 1])), 0, 255)
    colors: UInt8[ndarray, "256 3"] = np.rint(exact).astype(np.uint8)
    colors.flags.writeable = False
    return colors


def jet(levels: UInt8[Tensor, "*views 1 time height width"]) -> UInt8[Tensor, "*views 3 time height width"]:
    """Depth's levels as RGB colors of the JET map: the near end is dark blue, the far end dark red.

    No reading, level 0, is colored like the lowest level, dark blue (0, 0, 128), as in the legacy form: next to the
    near end, (0, 0, 132), it can hardly be told. A color between two colors belongs to another depth or to none, so
    this comes last, after all that moves, resizes or erases pixels.
    """
    places = levels.squeeze(-4).numpy()
    return torch.from_numpy(np.stack([np.take(channel, places) for channel in jet_colors().T], axis=-4))

"""Depth in its stored forms, brought to the 8-bit clip that the rest of the data path carries."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8, UInt16
from numpy import ndarray

from kinema.data.manifest import DepthFacts
from kinema.data.reading import READING, Reading, UnreadableVideo
from kinema.data.sources import read_grey


def read_depth(
    path: str, indices: Sequence[int], facts: DepthFacts | None, reading: Reading = READING
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

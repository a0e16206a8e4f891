"""Tone mapping: colors of HDR video (PQ and HLG) to those of ordinary video (BT.709), by FFmpeg's swscale."""

import functools

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageFilter

TRANSFERS = {ColorTrc.SMPTE2084.value: "PQ", ColorTrc.ARIB_STD_B67.value: "HLG"}
"""Names of the transfer characteristics of HDR."""

GAMUTS = {
    ColorPrimaries.BT2020.value: "BT.2020",
    ColorPrimaries.SMPTE431.value: "DCI-P3",
    ColorPrimaries.SMPTE432.value: "Display P3",
}
"""Names of the primaries that are wider than BT.709."""

GRID = 65
"""Number of levels per channel in a table of colors, the most that Pillow takes. Colors between them are interpolated,
which differs from swscale's own by 1 level in the mean."""


def tone_map(rgb: UInt8[ndarray, "height width 3"], transfer: int, primaries: int) -> UInt8[ndarray, "height width 3"]:
    """Return a picture with the colors that ordinary video of the scene would have.

    Colors up to the white of a page (203 cd/m2) are reproduced, and brighter ones are clipped.

    Args:
        rgb: Picture with HDR levels.
        transfer: Transfer characteristic, a key of `TRANSFERS`.
        primaries: Primaries by FFmpeg's number; those of BT.2020 if unspecified.
    """
    primaries = ColorPrimaries.BT2020.value if primaries == ColorPrimaries.UNSPECIFIED.value else primaries
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).filter(_table(transfer, primaries)))


@functools.cache
def _table(transfer: int, primaries: int) -> ImageFilter.Color3DLUT:
    """Return the table of colors.

    swscale computes its own for seconds, and again for every picture of another size. Made once per process, from a
    picture of all colors, this one serves all files.
    """
    levels = np.rint(np.linspace(0, 65535, GRID)).astype(np.uint16)
    blue, green, red = np.meshgrid(levels, levels, levels, indexing="ij")
    frame = av.VideoFrame.from_ndarray(np.stack([red, green, blue], -1).reshape(-1, GRID, 3), format="rgb48le")
    frame.color_trc, frame.color_primaries, frame.color_range = transfer, primaries, ColorRange.JPEG.value
    mapped = VideoReformatter().reformat(
        frame,
        format="rgb48le",
        src_colorspace=Colorspace.DEFAULT,
        dst_color_trc=ColorTrc.BT709,
        dst_color_primaries=ColorPrimaries.BT709,
        threads=1,
    )
    return ImageFilter.Color3DLUT(GRID, mapped.to_ndarray().ravel() / 65535)

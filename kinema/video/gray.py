"""One channel of frames as stored: depth in gray formats, and in color formats whose encoding is named.

Values of more than 8 bits are never rescaled. Depth in color formats is a gray picture, whose brightness is the depth
(`gray8`), or colors of the JET map (`jet`). Other colors are refused: their brightness is no depth.
"""

import re
from functools import cache

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8, UInt16
from numpy import ndarray
from PIL import Image
from scipy.spatial import cKDTree

from kinema.errors import UnreadableVideo
from kinema.modality import ReadAs
from kinema.video.streams import is_gray_format
from kinema.video.unreadable import unreadable

IN_PLANES = re.compile(r"(gray|ya|yuva?4\d\dp|gbra?p)(9|10|12|14|16)(msb)?[lb]e|p[024]1[026][lb]e|nv20[lb]e")
"""Formats of more than 8 bits whose first plane has the brightness, or green, in two bytes per pixel."""

UPPER_BITS = re.compile(r".*(10|12)msb|p[024](10|12)[lb]e")
"""Formats that store a value of fewer than 16 bits in the upper ones."""

INTERLEAVED = {
    **dict.fromkeys(("rgb48le", "rgb48be", "bgr48le", "bgr48be", "rgba64le", "rgba64be"), "gbrp16le"),
    **dict.fromkeys(("bgra64le", "bgra64be"), "gbrp16le"),
    **{"x2rgb10le": "gbrp10le", "x2bgr10le": "gbrp10le", "y210le": "yuv422p10le", "y212le": "yuv422p12le"},
    **{"y216le": "yuv422p16le", "xv30le": "yuv444p10le", "v30xle": "yuv444p10le", "xv36le": "yuv444p12le"},
    **{"xv48le": "yuv444p16le", "ayuv64le": "yuv444p16le"},
}
"""Formats of more than 8 bits that interleave their channels, and the ones with the same values in planes."""

NEUTRAL = 8
"""Largest difference between channels, of 255, that counts as gray: compression colors gray by up to 2."""

NEUTRAL_SHARE = 0.001
"""Share of pixels in color from which a frame is no gray picture."""

JET_DISTANCE, JET_SHARE = 48.0, 0.25
"""Distance in RGB from the JET map beyond which a color is foreign, and the share of such pixels that is refused."""

DARK = 64
"""Brightest channel of pixels that are black in a JET picture: no reading."""


def is_deep(stored: av.VideoFormat | None) -> bool:
    """Return whether a pixel format stores more than 8 bits per channel."""
    return stored is not None and stored.components[0].bits > 8


def gray_picture(
    path: str, frame: av.VideoFrame, read_as: ReadAs | None, converter: VideoReformatter, threads: int
) -> ndarray:
    """Return one channel of a frame, not yet upright: uint8 or, with more than 8 bits, the stored values as uint16.

    Args:
        path: Path of the file, for messages.
        frame: Decoded frame.
        read_as: `gray8` and `jet` name the encoding of a color format.
        converter: Converter of all frames of the file.
        threads: Number of threads that convert.

    Raises:
        UnreadableVideo: The frame is in color and no encoding is named, or its values are no integers.
    """
    stored = frame.format
    if not is_gray_format(stored):
        if read_as == "jet":
            colors = converter.reformat(frame, format="rgb24", threads=threads).to_ndarray()
            return jet_levels(path, colors)
        if read_as != "gray8":
            _check_neutral(path, frame, converter, threads)
    if not is_deep(stored):
        return converter.reformat(frame, format="gray", threads=threads).to_ndarray()
    planar = INTERLEAVED.get(stored.name)
    if planar is None and not IN_PLANES.fullmatch(stored.name):
        raise unreadable(path, f"stores depth as {stored.name}; expected integers. Encode it again, as in gray16le.")
    return _stored_values(converter.reformat(frame, format=planar) if planar else frame)


def is_neutral(colors: UInt8[ndarray, "*pixels 3"]) -> bool:
    """Return whether a picture in color is gray, apart from traces of compression."""
    pixels = colors.reshape(-1, 3)
    spread = pixels.max(1) - pixels.min(1)
    return bool((spread > NEUTRAL).mean() <= NEUTRAL_SHARE)


def gray_of_colors(
    path: str, colors: UInt8[ndarray, "height width 3"], read_as: ReadAs
) -> UInt8[ndarray, "height width"]:
    """Return one channel of a picture in RGB, as `gray_picture` does; brightness is that of ITU-R 601."""
    if read_as == "jet":
        return jet_levels(path, colors)
    if read_as != "gray8" and not is_neutral(colors):
        raise color_as_depth(path, "pictures")
    return np.asarray(Image.fromarray(np.ascontiguousarray(colors)).convert("L"))


def color_as_depth(path: str, what: str) -> UnreadableVideo:
    """Return the error of depth in color without a named encoding."""
    return unreadable(
        path,
        f"expected depth, got {what} in color. If they show depth, prepare the dataset again with --depth-encoding "
        "gray8 (brightness) or jet (colors of the JET map). If the file has a depth stream, name it: rec.mkv#depth.",
    )


@cache
def jet_colors() -> UInt8[ndarray, "256 3"]:
    """Return red, green and blue of each level in the JET map of MATLAB and OpenCV; read-only.

    With x = level / 255 the three are clip(1.5 - |4 x - k|, 0, 1) for k = 3, 2 and 1: from dark blue (0, 0, 128) over
    cyan, yellow and red to dark red (128, 0, 0). All is multiplied by 255 here, so that halves are exact; they round to
    even. The table of OpenCV 5.0.0 differs only in the blue of level 159: 1 there, 2 here.
    """
    levels = 4 * np.arange(256)[:, None]
    exact = np.clip(382.5 - np.abs(levels - 255 * np.array([3, 2, 1])), 0, 255)
    colors: UInt8[ndarray, "256 3"] = np.rint(exact).astype(np.uint8)
    colors.flags.writeable = False
    return colors


def jet_levels(path: str, colors: UInt8[ndarray, "*shape 3"]) -> UInt8[ndarray, "*shape"]:
    """Return the level whose color in the JET map is nearest to each pixel; black is no reading, level 0.

    Raises:
        UnreadableVideo: Many colors are far from the map.
    """
    packed = colors.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    unique, places = np.unique(packed, return_inverse=True)
    pixels = np.stack([unique >> 16, (unique >> 8) & 255, unique & 255], axis=1)
    distances, levels = _jet_tree().query(pixels)
    is_dark = pixels.max(1) < DARK
    places = places.reshape(packed.shape)
    if ((distances > JET_DISTANCE) & ~is_dark)[places].mean() > JET_SHARE:
        raise unreadable(path, "its colors are not those of the JET map, which --depth-encoding jet names")
    return np.where(is_dark, 0, levels).astype(np.uint8)[places]


@cache
def _jet_tree() -> cKDTree:
    return cKDTree(jet_colors().astype(np.float64))


def _check_neutral(path: str, frame: av.VideoFrame, converter: VideoReformatter, threads: int) -> None:
    """Raise UnreadableVideo if a frame in a color format shows colors."""
    parts = frame.format.components
    is_planar = [(part.plane, part.bits) for part in parts] == [(0, 8), (1, 8), (2, 8)]
    if is_planar and not frame.format.is_rgb:
        planes = [np.frombuffer(memoryview(p), np.uint8).reshape(-1, p.line_size)[:, : p.width] for p in frame.planes]
        deviations = [np.maximum(plane, 128) - np.minimum(plane, 128) for plane in planes[1:]]
        is_gray = all((deviation > NEUTRAL).mean() <= NEUTRAL_SHARE for deviation in deviations)
    else:
        is_gray = is_neutral(converter.reformat(frame, format="rgb24", threads=threads).to_ndarray())
    if not is_gray:
        raise color_as_depth(path, f"frames of format {frame.format.name}")


def _stored_values(frame: av.VideoFrame) -> UInt16[ndarray, "height width"]:
    """Return the first plane of a frame in a format of `IN_PLANES`: its brightness, or the green of `gbrp`."""
    stored, plane = frame.format, frame.planes[0]
    numbers = np.frombuffer(memoryview(plane), ">u2" if stored.is_big_endian else "<u2")
    step = 2 if stored.name.startswith("ya") else 1  # brightness and transparency alternate
    values = numbers.reshape(-1, plane.line_size // 2)[: frame.height, : step * frame.width : step].astype(np.uint16)
    shifted: UInt16[ndarray, "height width"] = values >> (16 - stored.components[0].bits)
    return shifted if UPPER_BITS.match(stored.name) else values

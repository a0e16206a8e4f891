"""Encoding of videos that read fast: RGB as H.264 with frequent keyframes, depth without loss, frame by frame.

`fitted_frames`, `fitted_pictures` and `fitted_depth` say how frames are changed before they are written.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from typing import IO, Annotated, Literal
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from jaxtyping import Float64, UInt8, UInt16
from numpy import ndarray
from PIL import Image
from pydantic import Field

from kinema.config import config
from kinema.errors import UnreadableVideo
from kinema.video.array_file import FRAME_NAME, TIMES_NAME
from kinema.video.pixels import SQUARE, FrameConverter, PixelAspect, upright_aspect
from kinema.video.read_options import Deinterlace
from kinema.video.unreadable import describe

MIN_SIDE = 16
"""Smallest side in pixels; with fewer, H.264 output is not recognizable."""

DARKENED_FORMATS = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p"})
"""Formats that swscale, by which videos are read, converts to RGB about a level too dark.

Their stored values are kept, since a detour by RGB would darken them twice. Other formats would be darkened for the
first time, and are brightened beforehand."""


@config
class Encoding:
    """Encoding settings.

    Attributes:
        short_side: Shorter side of RGB in pixels, even; RGB is never enlarged.
        keyframe_every: Number of frames from keyframe to keyframe.
        crf: Quality of x264, 1 to 51; lower is better and larger.
        preset: Preset of x264; slower is smaller. It does not affect the speed of reading.
        depth_short_side: Shorter side of depth in pixels, by nearest neighbor; None keeps its size.
        deinterlace: Treatment of RGB frames that are marked as interlaced, as in `ReadOptions`.
    """

    short_side: Annotated[int, Field(ge=MIN_SIDE, le=2**14, multiple_of=2)]
    keyframe_every: Annotated[int, Field(ge=1, le=10_000)] = 8
    crf: Annotated[int, Field(ge=1, le=51)] = 18
    preset: Literal["ultrafast", "veryfast", "fast", "medium", "slow"] = "veryfast"
    depth_short_side: Annotated[int, Field(ge=MIN_SIDE, le=2**14)] | None = None
    deinterlace: Deinterlace = "none"

    @property
    def x264(self) -> dict[str, str]:
        """Options of x264.

        `fastdecode` is about twice as fast to read, and some tenths larger. B-frames gain nothing between such close
        keyframes. Without the macroblock tree, which reads uninitialized memory, and with one thread, the same pictures
        give the same bytes.
        """
        return {
            "crf": str(self.crf),
            "preset": self.preset,
            "tune": "fastdecode",
            "g": str(self.keyframe_every),
            "keyint_min": str(self.keyframe_every),
            "sc_threshold": "0",  # keyframes at fixed distances, not at scene changes
            "bf": "0",
            "x264-params": "mbtree=0",
            "flags": "+bitexact",
        }


def fitted_size(height: int, width: int, encoding: Encoding, pixel_aspect: PixelAspect = SQUARE) -> tuple[int, int]:
    """Return the height and width of encoded RGB, whose pixels are square.

    Both are even, since H.264 halves the resolution of colors: a reduced longer side is rounded to an even number, and
    at full size an odd last row or column is left out.
    """
    rows, columns = pixel_aspect.displayed(height, width)
    if min(rows, columns) <= encoding.short_side:
        return 2 * int(rows / 2), 2 * int(columns / 2)
    scale = encoding.short_side / min(rows, columns)
    return 2 * round(rows * scale / 2), 2 * round(columns * scale / 2)


def fitted_frames(
    frames: Iterable[av.VideoFrame], encoding: Encoding, converter: FrameConverter, pixel_aspect: PixelAspect = SQUARE
) -> Iterator[av.VideoFrame]:
    """Yield the frames of a video as they are encoded: upright, resized, cropped to even sides, in 4:2:0.

    Color matrix and range stay those of the stored values. Other formats, such as 4:4:4, 10 bits and RGB, transparent
    and HDR frames are converted by way of RGB.

    Args:
        frames: Frames as stored.
        encoding: Encoding settings.
        converter: Converter of the frames.
        pixel_aspect: Displayed shape of the pixels of upright frames.
    """
    for frame in map(converter.deinterlaced, frames):
        orientation = converter.orientation_of(frame)
        if frame.format.name not in DARKENED_FORMATS or not converter.is_plain(frame):
            yield from fitted_pictures([orientation.apply(converter.rgb(frame))], encoding, pixel_aspect)
            continue
        height, width = fitted_size(frame.height, frame.width, encoding, upright_aspect(pixel_aspect, orientation))
        is_resized = pixel_aspect != SQUARE or min(frame.height, frame.width) > encoding.short_side
        is_full_range = frame.color_range == ColorRange.JPEG.value or frame.format.name.startswith("yuvj")
        colors = ColorRange.JPEG if is_full_range else ColorRange(frame.color_range)
        stored = converter.reformatter.reformat(
            frame,
            width=width if is_resized else None,
            height=height if is_resized else None,
            format="yuv420p",
            interpolation=Interpolation.BILINEAR,  # the triangle by which clips are resized
            src_color_range=colors,
            dst_color_range=colors,
            threads=1,
        )
        fitted = _from_planes([orientation.apply(plane) for plane in _planes(stored, height, width)])
        fitted.colorspace, fitted.color_range = frame.colorspace, colors.value
        yield fitted


def fitted_pictures(
    pictures: Iterable[UInt8[ndarray, "height width 3"]], encoding: Encoding, pixel_aspect: PixelAspect = SQUARE
) -> Iterator[av.VideoFrame]:
    """Yield RGB pictures as they are encoded, as `fitted_frames` does."""
    converter = VideoReformatter()
    for picture in pictures:
        height, width = fitted_size(picture.shape[0], picture.shape[1], encoding, pixel_aspect)
        if pixel_aspect != SQUARE or min(picture.shape[:2]) > encoding.short_side:
            resized = Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.BILINEAR)
            picture = np.asarray(resized)
        picture = np.ascontiguousarray(picture[:height, :width])
        colors = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.MPEG}
        frame = converter.reformat(av.VideoFrame.from_ndarray(picture, format="rgb24"), format="yuv420p", **colors)
        # Add to the brightness what swscale will lose on the way back to RGB.
        read = converter.reformat(frame, format="rgb24").to_ndarray()
        lost = (picture.astype(np.float32) - read).mean(2) * (219 / 255)
        luma, *chroma = _planes(frame, height, width)
        fitted = _from_planes([np.clip(np.rint(luma + lost), 0, 255).astype(np.uint8), *chroma])
        fitted.colorspace, fitted.color_range = Colorspace.ITU601.value, ColorRange.MPEG.value
        yield fitted


def _planes(frame: av.VideoFrame, height: int, width: int) -> list[UInt8[ndarray, "_ _"]]:
    """Return brightness and two planes of color of the upper left part of a 4:2:0 frame, of even size."""
    sizes = [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    return [
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:rows, :columns]
        for plane, (rows, columns) in zip(frame.planes, sizes, strict=True)
    ]


def _from_planes(planes: Sequence[UInt8[ndarray, "_ _"]]) -> av.VideoFrame:
    height, width = planes[0].shape
    joined = np.concatenate([plane.ravel() for plane in planes]).reshape(height * 3 // 2, width)
    return av.VideoFrame.from_ndarray(joined, format="yuv420p")


def fitted_depth(
    picture: UInt16[ndarray, "height width"] | UInt8[ndarray, "height width"],
    encoding: Encoding,
    pixel_aspect: PixelAspect = SQUARE,
) -> UInt16[ndarray, "fitted_height fitted_width"] | UInt8[ndarray, "fitted_height fitted_width"]:
    """Return depth with square pixels, unchanged or of the nearest pixels.

    The mean of two depths is a place where nothing is, and the mean with 0, no reading, is no depth at all.
    """
    height, width = picture.shape
    short_side = encoding.depth_short_side
    displayed = pixel_aspect.displayed(height, width)
    scale = 1.0 if short_side is None else min(short_side / min(displayed), 1.0)
    if scale == 1 and pixel_aspect == SQUARE:
        return np.ascontiguousarray(picture)
    rows, columns = (
        ((np.arange(round(side * scale)) + 0.5) * stored / round(side * scale)).astype(int)
        for side, stored in zip(displayed, (height, width), strict=True)
    )
    reduced: UInt16[ndarray, "fitted_height fitted_width"] | UInt8[ndarray, "fitted_height fitted_width"]
    reduced = picture[rows][:, columns]
    return reduced


def write_rgb(
    file: IO[bytes], frames: Iterable[av.VideoFrame], encoding: Encoding, *, ticks: Iterable[int], second: Fraction
) -> int:
    """Write fitted frames as an MP4 and return their number.

    Args:
        file: Seekable file to write; its own errors are raised unchanged.
        frames: Fitted frames.
        encoding: Encoding settings.
        ticks: Time of each frame, in units of 1 / `second`; strictly increasing.
        second: Number of units per second.

    Raises:
        UnreadableVideo: No frames, or frames of different sizes.
    """
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise UnreadableVideo("no frames to encode")
    count = 0
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=25, options=encoding.x264)
        stream.height, stream.width, stream.pix_fmt = first.height, first.width, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.time_base = stream.time_base = 1 / second
        context.colorspace, context.color_range = first.colorspace, first.color_range
        for tick, frame in zip(ticks, chain([first], remaining), strict=False):
            if (frame.height, frame.width) != (first.height, first.width):
                expected, got = f"{first.width} x {first.height}", f"{frame.width} x {frame.height}"
                raise UnreadableVideo(f"frame {count}: expected {expected} pixels as in the first frame, got {got}")
            frame.pts, frame.time_base = tick, 1 / second
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode())
    return count


def write_depth(
    file: IO[bytes],
    pictures: Iterable[ndarray],
    encoding: Encoding,
    times_s: Float64[ndarray, " frames"] | None = None,
    pixel_aspect: PixelAspect = SQUARE,
) -> int:
    """Write depth as an npz with one array per frame, which keeps every bit, and return the number of frames.

    Some frames can be read without the others, unlike in one array for all. FFV1 is about a third smaller and a tenth
    to a fifth slower to read (`results/pack_speed.json`).

    Raises:
        UnreadableVideo: No frames, or frames of different sizes or bits.
    """
    count = 0
    first: ndarray | None = None
    with ZipFile(file, "w", ZIP_DEFLATED) as parts:
        for picture in pictures:
            first = picture if first is None else first
            if (picture.shape, picture.dtype) != (first.shape, first.dtype):
                expected = describe(first)
                raise UnreadableVideo(
                    f"frame {count}: expected {expected} as in the first frame, got {describe(picture)}"
                )
            _write_array(parts, FRAME_NAME.format(count), fitted_depth(picture, encoding, pixel_aspect))
            count += 1
        if times_s is not None:
            _write_array(parts, TIMES_NAME, times_s)
    if count == 0:
        raise UnreadableVideo("no frames to encode")
    return count


def _write_array(parts: ZipFile, name: str, array: ndarray) -> None:
    info = ZipInfo(f"{name}.npy")  # without a date: the same depth gives the same bytes
    info.compress_type = ZIP_DEFLATED
    with parts.open(info, "w") as part:
        np.lib.format.write_array(part, array, allow_pickle=False)

"""Pictures written as files that read fast: RGB as H.264 with close keyframes, depth without loss, frame by frame.

How RGB is changed before it is written stands in `fitted_frames` and `fitted_pictures`, depth in `fitted_depth`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import IO, Literal
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from jaxtyping import UInt8, UInt16
from numpy import ndarray
from PIL import Image

from kinema.errors import UnreadableVideo
from kinema.video.array_file import FRAME_NAME
from kinema.video.container import Orientation, orientation_of

LEAST_SIDE = 16
"""Pixels; of less, H.264 makes nothing that can be recognized."""

LARGEST_CRF = 51

ROUNDED_DOWN = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p"})
"""Formats of which swscale, by which videos are read, makes RGB that is about a level too dark. By way of RGB they
would lose that twice, so that their stored values are kept. What is not among them would lose it newly, and gets it
beforehand."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How pictures are written.

    Args:
        short_side: pixels of the shorter side of RGB, which is never enlarged; even.
        keyframe_every: frames from keyframe to keyframe.
        crf: of x264, 1 to 51; the lower, the better and the larger.
        preset: of x264; the slower, the smaller. It changes nothing about the speed of reading.
        depth_short_side: pixels of the shorter side of depth, taken pixel by pixel; None keeps its size.
    """

    short_side: int
    keyframe_every: int = 8
    crf: int = 18
    preset: Literal["ultrafast", "veryfast", "fast", "medium", "slow"] = "veryfast"
    depth_short_side: int | None = None

    def __post_init__(self) -> None:
        if self.short_side < LEAST_SIDE or self.short_side % 2:
            raise ValueError(f"short_side={self.short_side} must be even and at least {LEAST_SIDE}")
        if self.keyframe_every < 1:
            raise ValueError(f"keyframe_every={self.keyframe_every} must be at least 1")
        if not 1 <= self.crf <= LARGEST_CRF:
            raise ValueError(f"crf={self.crf} must be from 1 to {LARGEST_CRF}")
        if self.depth_short_side is not None and self.depth_short_side < LEAST_SIDE:
            raise ValueError(f"depth_short_side={self.depth_short_side} must be at least {LEAST_SIDE}")

    @property
    def x264(self) -> dict[str, str]:
        """`fastdecode` is about twice as fast to read, and some tenths larger. B-frames bring nothing between keyframes
        this close. Without the macroblock tree, which reads memory that nobody has written, and with one thread the
        same pictures give the same bytes.
        """
        return {
            "crf": str(self.crf),
            "preset": self.preset,
            "tune": "fastdecode",
            "g": str(self.keyframe_every),
            "keyint_min": str(self.keyframe_every),
            "sc_threshold": "0",  # keyframes stand where reading expects them, not where a scene changes
            "bf": "0",
            "x264-params": "mbtree=0",
            "flags": "+bitexact",
        }


def fitted_size(height: int, width: int, encoding: Encoding) -> tuple[int, int]:
    """Height and width in which RGB is encoded.

    H.264 halves the resolution of colors, so that both are even: where it is made smaller, the longer side is rounded
    to an even number; where it is not, an odd last row or column is left out.
    """
    if min(height, width) <= encoding.short_side:
        return height - height % 2, width - width % 2
    scale = encoding.short_side / min(height, width)
    return 2 * round(height * scale / 2), 2 * round(width * scale / 2)


def fitted_frames(frames: Iterable[av.VideoFrame], encoding: Encoding) -> Iterator[av.VideoFrame]:
    """Frames of a video as they are encoded: upright, of their size, in 4:2:0; whatever is to be cut away is cut here.

    The matrix and range of colors stay where the stored values do; other formats, such as 4:4:4, 10 bits and RGB, go
    by way of RGB.
    """
    converter = VideoReformatter()
    orientation: Orientation | None = None
    for frame in frames:
        orientation = orientation_of(frame) if orientation is None else orientation
        if frame.format.name not in ROUNDED_DOWN:
            picture = orientation.apply(converter.reformat(frame, format="rgb24", threads=1).to_ndarray())
            yield from fitted_pictures([picture], encoding)
            continue
        height, width = fitted_size(frame.height, frame.width, encoding)
        smaller = min(frame.height, frame.width) > encoding.short_side
        full = frame.color_range == ColorRange.JPEG.value or frame.format.name.startswith("yuvj")
        colors = ColorRange.JPEG if full else ColorRange(frame.color_range)
        stored = converter.reformat(
            frame,
            width=width if smaller else None,
            height=height if smaller else None,
            format="yuv420p",
            interpolation=Interpolation.BILINEAR,  # the triangle by which clips are resized
            src_color_range=colors,
            dst_color_range=colors,
            threads=1,
        )
        fitted = _of_planes([orientation.apply(plane) for plane in _planes(stored, height, width)])
        fitted.colorspace, fitted.color_range = frame.colorspace, colors.value
        yield fitted


def fitted_pictures(
    pictures: Iterable[UInt8[ndarray, "height width 3"]], encoding: Encoding
) -> Iterator[av.VideoFrame]:
    """As `fitted_frames`, of pictures in RGB."""
    converter = VideoReformatter()
    for picture in pictures:
        height, width = fitted_size(picture.shape[0], picture.shape[1], encoding)
        if min(picture.shape[:2]) > encoding.short_side:
            resized = Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.BILINEAR)
            picture = np.asarray(resized)
        picture = np.ascontiguousarray(picture[:height, :width])
        colors = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.MPEG}
        frame = converter.reformat(av.VideoFrame.from_ndarray(picture, format="rgb24"), format="yuv420p", **colors)
        # What swscale will take off as it makes RGB of it again is added beforehand, to the brightness.
        read = converter.reformat(frame, format="rgb24").to_ndarray()
        lost = (picture.astype(np.float32) - read).mean(2) * (219 / 255)
        luma, *chroma = _planes(frame, height, width)
        fitted = _of_planes([np.clip(np.rint(luma + lost), 0, 255).astype(np.uint8), *chroma])
        fitted.colorspace, fitted.color_range = Colorspace.ITU601.value, ColorRange.MPEG.value
        yield fitted


def _planes(frame: av.VideoFrame, height: int, width: int) -> list[UInt8[ndarray, "_ _"]]:
    """The upper left part of a 4:2:0 frame, of even size: brightness and two planes of color."""
    sizes = [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    return [
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:rows, :columns]
        for plane, (rows, columns) in zip(frame.planes, sizes, strict=True)
    ]


def _of_planes(planes: Sequence[UInt8[ndarray, "_ _"]]) -> av.VideoFrame:
    height, width = planes[0].shape
    whole = np.concatenate([plane.ravel() for plane in planes]).reshape(height * 3 // 2, width)
    return av.VideoFrame.from_ndarray(whole, format="yuv420p")


def fitted_depth(
    picture: UInt16[ndarray, "height width"] | UInt8[ndarray, "height width"], encoding: Encoding
) -> UInt16[ndarray, "fitted_height fitted_width"] | UInt8[ndarray, "fitted_height fitted_width"]:
    """As it is, or of each place in a smaller picture the nearest pixel: a mean of two depths is a place where nothing
    is, and one with 0, no reading, is none at all.
    """
    height, width = picture.shape
    short_side = encoding.depth_short_side
    if short_side is None or min(height, width) <= short_side:
        return np.ascontiguousarray(picture)
    scale = short_side / min(height, width)
    rows, columns = (
        ((np.arange(round(extent * scale)) + 0.5) * extent / round(extent * scale)).astype(int)
        for extent in (height, width)
    )
    smaller: UInt16[ndarray, "fitted_height fitted_width"] | UInt8[ndarray, "fitted_height fitted_width"]
    smaller = picture[rows][:, columns]
    return smaller


def write_rgb(
    file: IO[bytes], frames: Iterable[av.VideoFrame], encoding: Encoding, *, ticks: Iterable[int], second: Fraction
) -> int:
    """An MP4 of these frames, which are fitted; returns how many there are.

    Args:
        file: that can be written and sought in; whatever goes wrong with it is raised as it is.
        ticks: the time of each frame, in units of 1 / `second`; strictly increasing.
        second: units in one second.

    Raises:
        UnreadableVideo: there is no frame, or it has no pixel.
    """
    every = iter(frames)
    first = next(every, None)
    if first is None:
        raise UnreadableVideo("holds no picture")
    count = 0
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=25, options=encoding.x264)
        stream.height, stream.width, stream.pix_fmt = first.height, first.width, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.time_base = stream.time_base = 1 / second
        context.colorspace, context.color_range = first.colorspace, first.color_range
        for tick, frame in zip(ticks, chain([first], every), strict=False):
            if (frame.height, frame.width) != (first.height, first.width):
                raise UnreadableVideo(
                    f"its frame {count} is {frame.width} x {frame.height} where the first one is "
                    f"{first.width} x {first.height}"
                )
            frame.pts, frame.time_base = tick, 1 / second
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode())
    return count


def write_depth(file: IO[bytes], pictures: Iterable[ndarray], encoding: Encoding) -> int:
    """An npz with an array for each picture, which keeps every bit; returns how many there are.

    Some frames of it are read without the others, which one array for all does not allow; FFV1 is about a third smaller
    and a tenth to a fifth slower to read (`results/pack_speed.json`).

    Raises:
        UnreadableVideo: pictures differ in size or bits, or there is none.
    """
    count = 0
    with ZipFile(file, "w", ZIP_DEFLATED) as parts:
        for picture in _alike(pictures):
            info = ZipInfo(f"{FRAME_NAME.format(count)}.npy")  # without a date: the same depth gives the same bytes
            info.compress_type = ZIP_DEFLATED
            with parts.open(info, "w") as part:
                np.lib.format.write_array(part, fitted_depth(picture, encoding), allow_pickle=False)
            count += 1
    if count == 0:
        raise UnreadableVideo("holds no picture")
    return count


def _alike(pictures: Iterable[ndarray]) -> Iterator[ndarray]:
    """Readers see to it for a clip; here the pictures of a whole file are held against the first."""
    first: tuple[tuple[int, ...], np.dtype] | None = None
    for number, picture in enumerate(pictures):
        described = (picture.shape, picture.dtype)
        first = described if first is None else first
        if described != first:
            raise UnreadableVideo(f"its picture {number} is {_said(*described)}, but the first one is {_said(*first)}")
        yield picture


def _said(shape: tuple[int, ...], kind: np.dtype) -> str:
    return f"{shape[1]} x {shape[0]} pixels of {8 * kind.itemsize} bits"

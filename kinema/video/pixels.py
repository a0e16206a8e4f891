"""Pixels of decoded frames: upright arrays over black, deinterlaced and tone-mapped, and the shape of their pixels."""

from contextlib import suppress
from typing import Literal, NamedTuple, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import Colorspace, VideoReformatter
from jaxtyping import UInt8
from numpy import ndarray

from kinema.video.container import UPRIGHT, Orientation, orientation_of
from kinema.video.filters import GAMUTS, TRANSFERS, Deinterlacer, tone_map
from kinema.video.read_options import Deinterlace, Limits
from kinema.video.remarks import Remark

MAX_ASPECT = 4.0
"""Largest ratio of a pixel's sides that is believed."""

NEARLY_SQUARE = 0.005
"""Deviation from square pixels that is ignored: less than rounding a resized frame to whole pixels changes."""

UNSPECIFIED_MATRIX = 2
"""FFmpeg's number of an unspecified color matrix."""

OPAQUE = 255
"""Level of transparency at which a pixel is opaque."""

ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders of codecs whose transparency FFmpeg's own decoder ignores; colors are the same to the bit."""

ALPHA_DATA, ALPHA_HEADER = "matroska_block_additional", 8
"""Side data of a packet with its transparency, and the number of bytes before it."""

PixelFormat = Literal["rgb24", "gray", "gray16le"]


class PixelAspect(NamedTuple):
    """Width and height of a displayed pixel, as multiples of those of a stored one."""

    width: float = 1.0
    height: float = 1.0

    def displayed(self, height: float, width: float) -> tuple[float, float]:
        """Return the displayed height and width of stored pixels."""
        return height * self.height, width * self.width


SQUARE = PixelAspect()


def aspect_of(stream: av.VideoStream) -> PixelAspect:
    """Return the pixel aspect of the stored frames: the container's, or else the codec's, as in FFmpeg's player.

    Unknown and absurd values are square.
    """
    ratio = float(stream.sample_aspect_ratio or 1)
    if abs(ratio - 1) < NEARLY_SQUARE or not 1 / MAX_ASPECT <= ratio <= MAX_ASPECT:
        return SQUARE
    return PixelAspect(width=ratio)


def upright_aspect(stored: PixelAspect, orientation: Orientation) -> PixelAspect:
    """Return the pixel aspect of frames that are turned upright."""
    return PixelAspect(stored.height, stored.width) if orientation.transposed else stored


class AlphaDecoder:
    """Decoder of color and transparency of VP8 and VP9.

    libvpx allocates whatever size a frame announces. FFmpeg's own decoders refuse sizes past the limit, and see each
    packet first, one its color and one its transparency.
    """

    def __init__(self, codec: str, limits: Limits) -> None:
        names = (ALPHA_DECODERS[codec], codec, codec)
        self._decoder, *self._checks = (cast(VideoCodecContext, VideoCodecContext.create(name, "r")) for name in names)
        for decoder in (self._decoder, *self._checks):
            decoder.options = {"max_pixels": str(limits.pixels)}
            decoder.thread_count = 1

    def decode(self, packet: "av.Packet[av.VideoStream]") -> list[av.VideoFrame]:
        """Return the frames of a packet.

        Raises:
            FFmpegError: The packet is damaged, or has a frame past the limit.
        """
        alpha = [data for data in packet.iter_sidedata() if data.data_type == ALPHA_DATA]
        contents = (bytes(packet), *(bytes(data)[ALPHA_HEADER:] for data in alpha))
        for check, content in zip(self._checks, contents, strict=False):
            if content:
                with suppress(av.InvalidDataError):  # left to the decoder
                    check.decode(av.Packet(content))
        return self._decoder.decode(packet)


def alpha_decoder(stream: av.VideoStream, limits: Limits) -> AlphaDecoder | VideoCodecContext:
    """Return a decoder of color and transparency; the stream's own if that decodes both."""
    codec = stream.codec_context.name
    return AlphaDecoder(codec, limits) if codec in ALPHA_DECODERS else stream.codec_context


def is_bitmap(container: InputContainer, stream: av.VideoStream) -> bool:
    """Return whether the frames are bitmaps, whose fourth channel may be unused: then it is 0 throughout."""
    return container.format.name == "avi" and stream.codec_context.name == "rawvideo"


def has_alpha(frame: av.VideoFrame) -> bool:
    """Return whether the format of a frame has transparency, which may be unused."""
    return frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)


def alpha_of(
    frame: av.VideoFrame, reformatter: VideoReformatter, *, threads: int, is_bitmap: bool
) -> UInt8[ndarray, "height width 1"] | None:
    """Return the transparency of a stored frame; None if all of it is opaque."""
    if not has_alpha(frame):
        return None
    alpha: UInt8[ndarray, "height width 1"]
    alpha = reformatter.reformat(frame, format="rgba", threads=threads).to_ndarray()[..., 3:]
    return None if alpha.min() == OPAQUE or (is_bitmap and not alpha.any()) else alpha


def over_black(
    rgb: UInt8[ndarray, "height width 3"], alpha: UInt8[ndarray, "height width 1"]
) -> UInt8[ndarray, "height width 3"]:
    """Return a picture composited on black."""
    composited: UInt8[ndarray, "height width 3"] = ((rgb.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)
    return composited


class FrameConverter:
    """Conversion of the decoded frames of a file to RGB.

    One converter serves all frames: creating one costs more than decoding a small frame.

    Args:
        threads: Number of threads per frame.
        deinterlace: Treatment of frames that are marked as interlaced.
        is_bitmap: Whether transparency of 0 throughout is none.
        orientation: Orientation of the file; that of the first frame if None.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        deinterlace: Deinterlace = "none",
        is_bitmap: bool = False,
        orientation: Orientation | None = None,
    ) -> None:
        self.threads = threads
        self.is_bitmap = is_bitmap
        self.orientation = orientation
        self.reformatter = VideoReformatter()
        self._deinterlacer = None if deinterlace == "none" else Deinterlacer()

    def orientation_of(self, frame: av.VideoFrame) -> Orientation:
        """Return the orientation of the file, read from its first frame alone: each reading leaks some memory."""
        if self.orientation is None:
            self.orientation = orientation_of(frame)
        return self.orientation

    def is_plain(self, frame: av.VideoFrame) -> bool:
        """Return whether the RGB of a frame is that of its stored values alone."""
        return frame.color_trc not in TRANSFERS and self._alpha(frame) is None

    def deinterlaced(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return a frame, deinterlaced if it is marked as interlaced and the options ask for it."""
        return frame if self._deinterlacer is None else self._deinterlacer(frame)

    def rgb(self, frame: av.VideoFrame) -> UInt8[ndarray, "height width 3"]:
        """Return a stored frame, not yet upright, as RGB: deinterlaced, on black, and tone-mapped if it is HDR."""
        frame = self.deinterlaced(frame)
        is_hdr = frame.color_trc in TRANSFERS
        matrix = Colorspace.BT2020 if is_hdr and frame.colorspace == UNSPECIFIED_MATRIX else None
        converted = self.reformatter.reformat(frame, format="rgb24", src_colorspace=matrix, threads=self.threads)
        rgb = converted.to_ndarray()
        if is_hdr:
            rgb = tone_map(rgb, frame.color_trc, frame.color_primaries)
        alpha = self._alpha(frame)
        return rgb if alpha is None else over_black(rgb, alpha)

    def _alpha(self, frame: av.VideoFrame) -> UInt8[ndarray, "height width 1"] | None:
        return alpha_of(frame, self.reformatter, threads=self.threads, is_bitmap=self.is_bitmap)


class FrameFacts:
    """Facts about the decoded frames of a file, and the remarks that follow from them."""

    def __init__(self, container: InputContainer, stream: av.VideoStream) -> None:
        self.aspect = aspect_of(stream)
        self.is_bitmap = is_bitmap(container, stream)
        self.frames = self.interlaced = self.transparent = 0
        self.has_alpha = False
        self.size = (0, 0)
        self.orientation = UPRIGHT
        self.transfer = self.gamut = ""
        self._reformatter = VideoReformatter()

    def add(self, frame: av.VideoFrame) -> None:
        """Add a decoded frame."""
        if self.frames == 0:
            self.size, self.orientation = (frame.width, frame.height), orientation_of(frame)
        self.frames += 1
        self.transfer = self.transfer or TRANSFERS.get(frame.color_trc, "")
        self.gamut = self.gamut or GAMUTS.get(frame.color_primaries, "")
        self.interlaced += bool(frame.interlaced_frame)
        self.has_alpha = self.has_alpha or has_alpha(frame)
        alpha = alpha_of(frame, self._reformatter, threads=1, is_bitmap=self.is_bitmap)
        self.transparent += alpha is not None

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Width and height of the frames as displayed: with square pixels, upright."""
        rows, columns = self.aspect.displayed(self.size[1], self.size[0])
        size = round(columns), round(rows)
        return size[::-1] if self.orientation.transposed else size

    @property
    def is_plain(self) -> bool:
        """True if the frames are upright, opaque by their format, and not HDR."""
        return self.orientation == UPRIGHT and not self.has_alpha and not self.transfer

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """Remarks on the frames that were added."""
        (width, height), (columns, rows) = self.size, self.displayed_size
        share = f"of {self.frames} frames are"
        found: list[Remark] = []
        if self.aspect != SQUARE:
            sentence = f"stored {width} x {height}, displayed as {columns} x {rows}"
            found.append(Remark("non-square pixels", sentence))
        if self.transparent:
            found.append(Remark("transparency", f"{self.transparent} {share} transparent in part and put on black"))
        if self.transfer:
            found.append(Remark("HDR", f"{self.transfer}, {self.gamut or 'BT.2020'}; tone-mapped to BT.709"))
        elif self.gamut:
            found.append(Remark("wide gamut", f"{self.gamut}; colors are read as BT.709 and look paler"))
        if self.interlaced:
            found.append(Remark("interlaced", f"{self.interlaced} {share} interlaced; moving edges are combed"))
        return tuple(found)

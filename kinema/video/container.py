"""Containers of untrusted videos: opening within limits, packets, time stamps and orientation, without decoding.

Headers are not trusted; sizes in them are checked before memory is allocated.
"""

import functools
import os
import re
import stat
import struct
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from jaxtyping import Float64, UInt8, UInt16
from numpy import ndarray

from kinema.errors import KinemaError, one_line
from kinema.modality import Modality
from kinema.video.read_options import READ_OPTIONS, Limits
from kinema.video.streams import choose_stream, is_still, split_stream
from kinema.video.unreadable import no_time_stamps, over_limit, unreadable

SEEKABLE = frozenset({"mov", "matroska", "avi"})
"""Containers, by FFmpeg's names, that find a keyframe exactly; a stream such as MPEG-TS may land after it."""

UNSAFE_FORMATS = frozenset(
    {
        *("hls", "concat", "dash", "imf", "webm_dash_manifest", "image2", "image2pipe", "vobsub", "tedcaptions"),
        *("tty", "bin", "xbin", "adf", "idf"),  # text, rendered as a terminal would
        *("sdp", "rtp", "rtsp", "sap", "lavfi", "alsa", "fbdev", "kmsgrab", "oss", "x11grab", "video4linux2,v4l2"),
    }
)
"""FFmpeg's names of formats that open other files, addresses or devices than the named one, or are not video."""

ARBITRARY_START = frozenset({"mpegts", "mpeg"})
"""Containers whose stamps begin at an arbitrary number; others count from the start of the recording."""

REORDERING = 64
"""Packets after which no frame that is displayed earlier can follow: codecs delay a frame by at most 16 others."""

TAG_OPTIONS: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Ignore tags in a wrong encoding, which are common and do not affect the picture. PyAV 19 always does."""

Gray = UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"]

Packets: TypeAlias = "Generator[av.Packet[av.VideoStream], None, None]"

IsSecondField = Callable[["av.Packet[av.VideoStream]"], bool]
"""Function from each packet of a stream, in order, to whether it holds only the second field of a frame."""

H264_SEQUENCE = re.compile(rb"\x00\x00\x01[\x07\x27\x47\x67]")
"""Start code of the parameters of an H.264 sequence."""

H264_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""Profiles whose sequence parameters have more fields."""

END_SLACK_S = 0.1
"""Seconds by which a segment may end after the last frame's end, since annotators round."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Time stamps of a stream's frames in display order, from the packets alone.

    Attributes:
        stamps: Presentation time stamps in units of the stream, from the first keyframe on; empty if the container has
            no usable ones.
        keyframes: Stamps at which decoding can start; empty if the container cannot find them exactly.
        second: Number of units per second.
        start: Time 0 of a player, in units of the stream: the earliest start of any stream in the container. The first
            frame may be displayed later, for example where sound begins before the picture.
        pace: Decoding stamps where `stamps` is empty, in order; they give the frame rate, not the time of a frame.
        epoch: Stamp of time 0 on the clock that files recorded together share.
    """

    stamps: tuple[int, ...]
    keyframes: tuple[int, ...]
    second: float
    start: float = 0.0
    pace: tuple[int, ...] = ()
    epoch: float = 0.0

    @property
    def seconds(self) -> list[float]:
        """Time of each frame on a player's clock [s], in display order."""
        return [(stamp - self.start) / self.second for stamp in self.stamps]

    @property
    def common_s(self) -> Float64[ndarray, " frames"]:
        """Time of each frame on the clock that files recorded together share [s]."""
        return (np.array(self.stamps, np.int64) - self.epoch) / self.second


class Orientation(NamedTuple):
    """Turn of a stored frame before it is displayed: transposed first, then columns and rows reversed."""

    transposed: bool = False
    columns_reversed: bool = False
    rows_reversed: bool = False

    def apply(self, picture: ndarray) -> ndarray:
        """Return a stored frame, or one plane of it, as displayed."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        if self.rows_reversed:
            picture = picture[::-1]
        return picture[:, ::-1] if self.columns_reversed else picture


UPRIGHT = Orientation()

QUARTER_TURNS = (UPRIGHT, *map(Orientation._make, ((True, False, True), (False, True, True), (True, True, False))))
"""Orientations by the number of quarter turns counterclockwise from the stored to the displayed frame."""


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Return the quarter turn or mirroring nearest to the display matrix of the file.

    Call it once per file: PyAV never frees its view of a frame's side data (some 250 bytes).
    """
    try:
        matrix = frame.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]  # its stub knows only names
    except ValueError:  # side data of a kind that PyAV does not know, such as EXIF
        return QUARTER_TURNS[round(frame.rotation / 90) % 4]
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack_from("=5i", bytes(matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def displayed_range(path: str, timeline: Timeline, start_s: float, stop_s: float) -> tuple[int, int]:
    """Return the frames displayed in [start_s, stop_s), seconds on a player's clock, as a half-open range.

    Raises:
        UnreadableVideo: The file has no time stamps, or ends before the segment does.
    """
    if not timeline.stamps:
        raise no_time_stamps(path)
    seconds = timeline.seconds
    slack = 1e-6  # a stamp that is a whole number of time units must not be lost to rounding
    start, stop = bisect_left(seconds, start_s - slack), bisect_left(seconds, stop_s - slack)
    if start == stop:
        raise unreadable(
            path, f"no frame is displayed between {start_s} s and {stop_s} s; the last frame is at {seconds[-1]:.3f} s"
        )
    # The last frame is displayed for about as long as the others.
    end = seconds[-1] + ((seconds[-1] - seconds[0]) / (len(seconds) - 1) if len(seconds) > 1 else 0)
    if stop_s > end + END_SLACK_S:
        raise unreadable(path, f"ends at {end:.3f} s, before the segment's end at {stop_s} s. Correct stop_s.")
    return start, stop


def scan_timeline(
    path: str,
    container: InputContainer,
    stream: av.VideoStream,
    limits: Limits,
    last: int | None = None,
    is_second_field: IsSecondField | None = None,
) -> Timeline:
    """Return the time stamps of an open video's packets: all, or as many as determine those up to frame `last`.

    Packets that hold only the second field of a frame, by `is_second_field`, are left out.
    """
    stamps: list[int] = []
    keyframes: list[int] = []
    pace: set[int] = set()
    packets = 0
    is_avi = container.format.name == "avi"
    # AVI stores no presentation times: where frames are reordered, FFmpeg's guess is in the wrong order.
    usable = not (is_avi and stream.codec_context.has_b_frames)
    second = 1 / float(stream.time_base) if stream.time_base else 1.0
    index = stream.index_entries if is_avi else ()
    num_indexed = len(index)  # entries are added while packets are read
    read_all = last is None or (is_avi and num_indexed < stream.frames)  # a loss shows only at the end
    shift = None
    has_preroll = False  # a keyframe before the cut of an edit list is decoded, and not displayed
    # The first packet may be no keyframe because its mark is what was damaged.
    starts_with_keyframe = None
    stop = None
    try:
        for packet in packets_within(path, container, stream, limits):
            if packet.size == 0 or packet.is_discard:
                has_preroll = has_preroll or (packet.is_discard and packet.is_keyframe)
                continue
            if packets < num_indexed and packet.pos is not None:
                entry = index[packets]
                shift = packet.pos - entry.pos if shift is None else shift
                # AVI numbers frames by counting chunks: a lost one would shift all after it.
                if (packet.pos, packet.size) != (entry.pos + shift, entry.size):
                    raise unreadable(path, f"is damaged: frame {packets} is not at the place in its index")
            packets += 1
            if is_second_field is not None and is_second_field(packet):
                continue
            if packet.dts is not None:
                pace.add(packet.dts)
            if packet.pts is None:
                usable = False
                continue
            stamps.append(packet.pts)
            starts_with_keyframe = packet.is_keyframe if starts_with_keyframe is None else starts_with_keyframe
            if packet.is_keyframe:
                keyframes.append(packet.pts)
            if last is not None and not read_all and stop is None and keyframes:
                stop = packets + (last + REORDERING) * (1 if is_second_field is None else 2)
            if stop is not None and packets >= stop:
                break
        else:
            # Without a complete index, nothing tells which frames were lost.
            if is_avi and num_indexed != packets and stream.frames > packets:
                raise unreadable(
                    path,
                    f"is damaged or truncated: its header declares {stream.frames} frames, got {packets}; avi numbers "
                    "frames by counting them",
                )
    except (av.FFmpegError, OSError) as error:
        raise unreadable(path, f"is truncated after {packets} packets ({reason_of(error)})") from error
    if not usable or not (keyframes or (has_preroll and stamps)) or len(set(stamps)) != len(stamps):
        return Timeline(stamps=(), keyframes=(), second=second, pace=tuple(sorted(pace)) if is_avi else ())
    # Frames before the first keyframe were cut off from their own one, and do not decode.
    first = min(stamps if has_preroll else keyframes)
    starts_with_keyframe = starts_with_keyframe and first in keyframes
    start = _player_start(container, stream, first)
    return Timeline(
        stamps=tuple(sorted(stamp for stamp in stamps if stamp >= first)),
        keyframes=tuple(sorted(keyframes)) if starts_with_keyframe and seekable(container, stream) else (),
        second=second,
        start=start,
        epoch=_epoch(container, start, first, min(pace, default=None)),
    )


def _epoch(container: InputContainer, start: float, first: int, first_decoded: int | None) -> float:
    """Return the stamp of time 0 on the clock that files recorded together share."""
    if container.format.name in ARBITRARY_START:
        return start
    # Without an edit list, frames that are reordered are decoded from 0 on, and displayed later by that delay alone.
    return first if first_decoded == 0 else 0.0


def _player_start(container: InputContainer, stream: av.VideoStream, first: int) -> float:
    """Return time 0 of a player, in units of a stream whose first frame has the stamp `first`."""
    starts = [Fraction(first)]
    for other in (*container.streams.audio, *container.streams.video):
        unit, start = other.time_base, other.start_time
        # The stream's own packets before the first keyframe are never displayed.
        if other.index != stream.index and not is_still(other) and unit and stream.time_base and start is not None:
            starts.append(start * unit / stream.time_base)
    return float(min(starts))


@contextmanager
def reading(path: str | Path, problem: str = "cannot be read") -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into UnreadableVideo."""
    try:
        yield
    except (KinemaError, AssertionError):
        raise
    except Exception as error:
        raise unreadable(path, f"{problem} ({reason_of(error)})") from error


def check_file(path: str, file: str, limits: Limits) -> None:
    """Raise UnreadableVideo if a file is missing, too large, or a pipe or device, which may never end."""
    try:
        status = os.stat(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise unreadable(path, "no such file") from error
    if not stat.S_ISREG(status.st_mode):
        raise unreadable(path, "not a regular file, but a folder, a pipe or a device")
    if status.st_size > limits.file_bytes:
        raise over_limit(path, f"has {status.st_size:,} bytes", limits, "file_bytes")


@contextmanager
def open_video(
    path: str, limits: Limits = READ_OPTIONS.limits, kind: Modality = "rgb"
) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a container and the video stream that the path names, or the one to read as `kind`; check the limits.

    Raises:
        UnreadableVideo: The file is missing or no video, refers to others, lacks the stream, or exceeds the limits.
    """
    file, name = split_stream(path) if "#" in path else (path, None)
    open_file = functools.partial(
        av.open,
        f"file:{file}",  # a colon in the name must not be parsed as a protocol
        **TAG_OPTIONS,
        container_options={"format_whitelist": _safe_formats(), "protocol_whitelist": "file"},
        options={"max_pixels": str(limits.pixels)},
    )
    with reading(path, "not a readable video"):
        check_file(path, file, limits)
        container = open_file()
    with container:
        if container.format.name.endswith("_pipe"):
            raise unreadable(path, f"expected a video, got an image ({container.format.name.removesuffix('_pipe')})")
        videos = container.streams.video
        is_alone = len(videos) == 1 and name is None and not videos[0].disposition & Disposition.attached_pic
        stream = videos[0] if is_alone else choose_stream(path, container, name, kind)
        if stream.codec_context is None:
            raise unreadable(path, "its codec is unknown to this FFmpeg")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > limits.pixels:
            raise over_limit(path, f"has frames of {width} x {height} pixels", limits, "pixels")
        declared_s = 0.0 if container.duration is None else container.duration / av.time_base
        if stream.frames > limits.frames or declared_s > limits.seconds:
            # A header may be wrong. In another container: a palette comes with the first packet alone.
            with reading(path, "is truncated"), open_file() as other:
                again = next(s for s in other.streams.video if s.index == stream.index)
                deque(packets_within(path, other, again, limits), 0)
        # In damaged files, threads within frames decode to other pixels.
        stream.codec_context.thread_count = 1
        yield container, stream


def packets_of(container: InputContainer, stream: av.VideoStream | None) -> Packets:
    """Yield the packets of a stream, or of all. PyAV's own iterator, dropped half-way, never frees its last packet."""
    with closing(cast(Packets, container.demux() if stream is None else container.demux(stream))) as packets:
        yield from packets


def packets_within(path: str, container: InputContainer, stream: av.VideoStream, limits: Limits) -> Packets:
    """Yield the packets of a stream as `packets_of` does; raise UnreadableVideo where they exceed the limits."""
    longest = limits.seconds / float(stream.time_base or 1)
    first, lasted, number = None, 0, 0
    for packet in packets_of(container, stream):
        number += packet.size > 0
        if number > limits.frames:
            raise over_limit(path, "has too many frames", limits, "frames")
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None or packet.size == 0:
            lasted += packet.duration or 0
        else:
            first = stamp if first is None else min(first, stamp)
            lasted = stamp - first
        if lasted > longest:
            raise over_limit(path, "lasts too long", limits, "seconds")
        yield packet


class H264Sequence(NamedTuple):
    """Parameters of an H.264 sequence by which slices of fields are told from those of frames.

    Attributes:
        number: Number of the set.
        is_progressive: Whether all pictures are frames without fields.
        frame_bits: Number of bits of a frame's number.
        has_planes: Whether each slice names its color plane.
    """

    number: int
    is_progressive: bool
    frame_bits: int
    has_planes: bool


def may_have_fields(stream: av.VideoStream) -> bool:
    """Return whether packets of a stream may be single fields, by its codec and its header."""
    context = stream.codec_context
    header = bytes(context.extradata or b"") if context.name == "h264" else b""
    if not header:
        return context.name in ("h264", "mpeg2video")
    start = H264_SEQUENCE.search(header)
    units = header[9:] if header[0] == 1 else header[start.end() :] if start else b""
    try:
        return not h264_sequence(units).is_progressive
    except (ValueError, IndexError):
        return True


def h264_sequence(payload: bytes) -> H264Sequence:
    """Return the sequence parameters in a unit, without the byte of its kind.

    Raises:
        ValueError: The unit is too short.
    """
    # A leading one keeps the zeros after it.
    text = bin(int.from_bytes(b"\1" + payload[:256].replace(b"\0\0\3", b"\0\0")))[3:]
    place = 24

    def golomb() -> int:
        nonlocal place
        one = text.index("1", place)
        place = 2 * one - place + 1
        return int(text[one:place], 2) - 1

    number, chroma, has_planes = golomb(), 1, False
    if int(text[:8], 2) in H264_HIGH_PROFILES:
        chroma = golomb()
        has_planes = chroma == 3 and text[place] == "1"
        place += chroma == 3
        golomb(), golomb()
        has_lists, place = text[place + 1] == "1", place + 2
        for index in range((12 if chroma == 3 else 8) if has_lists else 0):
            is_given, place = text[place] == "1", place + 1
            last, following = 8, 8
            for _ in range((16 if index < 6 else 64) if is_given else 0):
                if following:
                    code = golomb()
                    following = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
                last = following or last
    frame_bits, order = golomb() + 4, golomb()
    if order == 0:
        golomb()
    elif order == 1:
        place += 1
        golomb(), golomb()
        for _ in range(golomb()):
            golomb()
    golomb()
    place += 1
    golomb(), golomb()
    return H264Sequence(number, text[place : place + 1] == "1", frame_bits, has_planes)


def seekable(container: InputContainer, stream: av.VideoStream | None = None) -> bool:
    """Return whether the container finds a keyframe exactly, and a stream decodes from there.

    Pictures with a palette do not: FFmpeg passes it with the first packet alone, and they would be black.
    """
    form = None if stream is None or stream.codec_context is None else stream.codec_context.format
    has_palette = form is not None and form.name == "pal8"
    return not has_palette and not SEEKABLE.isdisjoint(container.format.name.split(","))


@functools.cache
def _safe_formats() -> str:
    return ",".join(sorted(set(av.formats_available) - UNSAFE_FORMATS))


def reason_of(error: BaseException) -> str:
    """Return FFmpeg's message in one line."""
    message = " ".join(str(error).split())
    if "not on whitelist" in message:
        return "it is a playlist, a script or a text"
    return getattr(error, "strerror", None) or one_line(error)

"""Containers of untrusted videos: opening within limits, packets, time stamps, orientation; nothing decodes.

Headers are not trusted; what they announce is checked before memory is allocated.
"""

import functools
import struct
from bisect import bisect_left
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from numpy import ndarray

from kinema.errors import UnreadableVideo
from kinema.video.read_options import READ_OPTIONS, Limits

SEEKABLE = frozenset({"mov", "matroska", "avi"})
"""Containers, by FFmpeg's names, that find a keyframe exactly; a stream such as MPEG-TS may land behind it."""

REFERRING = frozenset(
    {
        *("hls", "concat", "dash", "imf", "webm_dash_manifest", "image2", "image2pipe", "vobsub", "tedcaptions"),
        *("tty", "bin", "xbin", "adf", "idf"),  # text, painted as a terminal would
        *("sdp", "rtp", "rtsp", "sap", "lavfi", "alsa", "fbdev", "kmsgrab", "oss", "x11grab", "video4linux2,v4l2"),
    }
)
"""FFmpeg's names of formats that open other files, addresses or devices than the one that is named, or are no video."""

REORDERING = 64
"""Packets after which no frame that is shown earlier can follow: codecs put off a frame by 16 others at most."""

TAG_OPTIONS: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Ignore tags in a wrong encoding, which are common and do not affect the picture. PyAV 19 always does."""

END_SLACK_S = 0.1
"""Seconds by which a segment may end behind the last frame's end: annotators round."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Time stamps of a stream's frames, in the order in which they are shown, from the packets alone.

    Args:
        stamps: presentation time stamps in units of the stream, from the first keyframe on; empty where the container
            has none that can be used.
        keyframes: those at which decoding can start; empty where the container cannot find them exactly.
        second: units of the stream in one second.
    """

    stamps: tuple[int, ...]
    keyframes: tuple[int, ...]
    second: float


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
"""The orientation of frames that are stored as they are displayed."""


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Return the quarter turn or mirroring nearest to the display matrix of the file.

    Ask once per file: PyAV never frees its view of a frame's side data (some 250 bytes).
    """
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]  # its stub knows only names
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack_from("=5i", bytes(matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def range_shown(path: str, timeline: Timeline, start_s: float, stop_s: float) -> tuple[int, int]:
    """Return the frames displayed in [start_s, stop_s), seconds from the first frame, as a half-open range.

    Raises:
        UnreadableVideo: the file has no time stamps, or ends before the segment does.
    """
    if not timeline.stamps:
        raise UnreadableVideo(
            f"{path}: has no time stamps, so seconds say nothing; give start_frame and stop_frame", path=path
        )
    seconds = [(stamp - timeline.stamps[0]) / timeline.second for stamp in timeline.stamps]
    slack = 1e-6  # a stamp that is a whole number of time units must not fall out by rounding
    start, stop = bisect_left(seconds, start_s - slack), bisect_left(seconds, stop_s - slack)
    if start == stop:
        raise UnreadableVideo(
            f"{path}: no frame is shown between {start_s} s and {stop_s} s; the last one is at {seconds[-1]:.3f} s",
            path=path,
        )
    # The last frame is shown for about as long as the others.
    end = seconds[-1] + (seconds[-1] / (len(seconds) - 1) if len(seconds) > 1 else 0)
    if stop_s > end + END_SLACK_S:
        raise UnreadableVideo(
            f"{path}: ends at {end:.3f} s, but the segment ends at {stop_s} s; correct stop_s", path=path
        )
    return start, stop


def scan_timeline(
    path: str,
    container: InputContainer,
    stream: av.VideoStream,
    limits: Limits,
    last: int | None = None,
) -> Timeline:
    """Return the time stamps of an open video's packets: all, or as many as determine those up to frame `last`."""
    stamps: list[int] = []
    keyframes: list[int] = []
    packets = 0
    is_avi = container.format.name == "avi"
    # AVI stores no presentation times: where frames are reordered, FFmpeg's guess is in the wrong order.
    usable = not (is_avi and stream.codec_context.has_b_frames)
    second = 1 / float(stream.time_base) if stream.time_base else 1.0
    index = stream.index_entries if is_avi else ()
    indexed = len(index)  # some are added while packets are read
    torn = is_avi and indexed < stream.frames  # the end must be seen, to know what was lost
    shift = None
    begins = None  # whether the first packet is a keyframe; where it is not, its mark may be what was damaged
    enough = None
    try:
        for packet in packets_of(container, stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if packets < indexed and packet.pos is not None:
                entry = index[packets]
                shift = packet.pos - entry.pos if shift is None else shift
                # AVI numbers its frames by counting chunks: where one is lost, all behind it would be another's.
                if (packet.pos, packet.size) != (entry.pos + shift, entry.size):
                    raise UnreadableVideo(f"{path}: is damaged: frame {packets} is not where its index says", path=path)
            packets += 1
            if packets > limits.frames:
                raise UnreadableVideo(f"{path}: has more frames than the limit of {limits.frames:,}", path=path)
            if packet.pts is None:
                usable = False
                continue
            stamps.append(packet.pts)
            begins = packet.is_keyframe if begins is None else begins
            if packet.is_keyframe:
                keyframes.append(packet.pts)
            if last is not None and not torn and enough is None and keyframes:
                enough = packets + last + REORDERING
            if enough is not None and packets >= enough:
                break
        else:
            # Without an index that is whole, nothing else tells which of the frames were lost.
            if is_avi and indexed != packets and stream.frames > packets:
                raise UnreadableVideo(
                    f"{path}: is damaged or breaks off: it announces {stream.frames} frames and holds {packets}, and "
                    "avi numbers frames by counting them",
                    path=path,
                )
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"{path}: breaks off after {packets} packets ({reason_of(error)})", path=path) from error
    if not usable or not keyframes or len(set(stamps)) != len(stamps):
        return Timeline(stamps=(), keyframes=(), second=second)
    first = min(keyframes)  # what stands before it was cut off from its own keyframe, and does not decode
    return Timeline(
        stamps=tuple(sorted(stamp for stamp in stamps if stamp >= first)),
        keyframes=tuple(sorted(keyframes)) if begins and seekable(container) else (),
        second=second,
    )


@contextmanager
def open_video(path: str, limits: Limits = READ_OPTIONS.limits) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """An open container and its first video stream that is not a cover picture, checked against the limits.

    Raises:
        UnreadableVideo: the file is missing, is no video, refers to other files, or asks for more than it may.
    """
    try:
        size = Path(path).stat().st_size if Path(path).is_file() else None
    except (OSError, ValueError):  # a name that no file can have
        size = None
    if size is None:
        raise UnreadableVideo(f"{path}: no such file", path=path)
    if size > limits.file_bytes:
        raise UnreadableVideo(f"{path}: has {size:,} bytes, more than the limit of {limits.file_bytes:,}", path=path)
    try:
        container = av.open(
            f"file:{path}",  # whatever stands before a colon in its name is no protocol
            **TAG_OPTIONS,
            container_options={"format_whitelist": _formats(), "protocol_whitelist": "file"},
            options={"max_pixels": str(limits.pixels)},
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideo(f"{path}: is not a video that can be read ({reason_of(error)})", path=path) from error
    with container:
        if container.format.name.endswith("_pipe"):
            raise UnreadableVideo(
                f"{path}: is a picture ({container.format.name.removesuffix('_pipe')}), no video", path=path
            )
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise UnreadableVideo(f"{path}: has no video stream", path=path)
        if streams[0].codec_context is None:
            raise UnreadableVideo(f"{path}: is encoded in a way that this FFmpeg does not know", path=path)
        width, height = streams[0].codec_context.width, streams[0].codec_context.height
        if width * height > limits.pixels:
            raise UnreadableVideo(
                f"{path}: has frames of {width} x {height} pixels, more than {limits.pixels:,}", path=path
            )
        announced_s = 0.0 if container.duration is None else container.duration / av.time_base
        if streams[0].frames > limits.frames or announced_s > limits.seconds:
            _check_contents(path, container, streams[0], limits)  # a header may lie
        # One unless told otherwise: of damaged files, threads within frames give other pixels too.
        streams[0].codec_context.thread_count = 1
        yield container, streams[0]


def packets_of(container: InputContainer, stream: av.VideoStream | None) -> Iterator["av.Packet[av.VideoStream]"]:
    """The packets of a stream, or of all. PyAV's own iterator, dropped on the way, never frees the last one."""
    some = container.demux() if stream is None else container.demux(stream)
    with closing(cast("Generator[av.Packet[av.VideoStream], None, None]", some)) as packets:
        yield from packets


def _check_contents(path: str, container: InputContainer, stream: av.VideoStream, limits: Limits) -> None:
    """Whether what is there is more than the limits allow; the container stands at its start again, then."""
    begin = None
    number = 0
    try:
        for packet in packets_of(container, stream):
            if packet.size == 0:
                continue
            number += 1
            if number > limits.frames:
                raise UnreadableVideo(f"{path}: has more frames than the limit of {limits.frames:,}", path=path)
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is not None and stream.time_base is not None:
                begin = stamp if begin is None else min(begin, stamp)
                if float((stamp - begin) * stream.time_base) > limits.seconds:
                    raise UnreadableVideo(f"{path}: lasts more than the limit of {limits.seconds:,.0f} s", path=path)
        container.seek(0, backward=True)
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"{path}: breaks off after {number} packets ({reason_of(error)})", path=path) from error


def seekable(container: InputContainer) -> bool:
    """Whether the container finds a keyframe exactly."""
    return not SEEKABLE.isdisjoint(container.format.name.split(","))


@functools.cache
def _formats() -> str:
    """FFmpeg's formats that read nothing but the file that is named."""
    return ",".join(sorted(set(av.formats_available) - REFERRING))


def reason_of(error: BaseException) -> str:
    """What FFmpeg said, in a line."""
    said = " ".join(str(error).split())
    if "not on whitelist" in said:
        return "it is a playlist, a script or a text"
    return getattr(error, "strerror", None) or said or type(error).__name__

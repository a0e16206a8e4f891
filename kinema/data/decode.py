"""Video files: how many frames they have, and the frames that are asked for, decoding only what is needed.

Frames are numbered from 0 in the order in which they are shown. What a header announces is not trusted: frames are
counted by their packets and, near the end, by decoding. What it asks for is checked before memory is taken for it.
"""

import functools
import struct
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.codec.context import ThreadType
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8, UInt16
from numpy import ndarray

from kinema.data.reading import READING, Limits, Reading
from kinema.data.reading import UnreadableVideo as UnreadableVideo

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

LEAVING_OUT = frozenset({"h264"})
"""Codecs whose decoder can leave out frames that no other refers to, and gives all others bit by bit the same. HEVC is
not among them: what it marks so may be referred to from a higher temporal layer."""

REORDERING = 64
"""Packets after which no frame that is shown earlier can follow: codecs put off a frame by 16 others at most."""

THREADED_PIXELS = 500_000
"""Of a frame, from which threads bring more than starting them costs."""

MOST_THREADS = 4
"""That decode frames beside each other: each holds frames of its own in memory."""

BYTES = {"rgb24": 3, "gray": 1, "gray16le": 2}
"""Bytes of a pixel in the formats that frames are converted to."""

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


def read_frames(
    path: str, indices: Sequence[int], reading: Reading = READING
) -> UInt8[ndarray, "frames height width 3"]:
    """The frames with these numbers, as RGB; one decoding pass, keyframes looked for only across wide gaps.

    Args:
        path: a file.
        indices: frame numbers in non-decreasing order; a number may stand several times.
        reading: its limits are held.

    Raises:
        UnreadableVideo: the file is missing, is no video, ends before the last wanted frame, changes its size on the
            way, or asks for more than the limits allow.
    """
    return _read(path, indices, "rgb24", reading.limits)


def read_grey_frames(
    path: str, indices: Sequence[int], reading: Reading = READING
) -> UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"]:
    """As `read_frames`, for one channel: uint16 where the video stores more than 8 bits, else uint8."""
    with open_video(path, reading.limits) as (_, stream):
        deep = stream.codec_context.format is not None and stream.codec_context.format.components[0].bits > 8
    return _read(path, indices, "gray16le" if deep else "gray", reading.limits)


def count_frames(path: str, reading: Reading = READING) -> int:
    """How many frames decode: packets, corrected by decoding from the last keyframe on.

    Raises:
        UnreadableVideo: as `read_frames`, and where not one frame decodes.
    """
    timeline = read_timeline(path, reading)
    with open_video(path, reading.limits) as (container, stream):
        frames = decoded(path, container, stream, reading.limits)
        if timeline.keyframes:
            if timeline.keyframes[-1] > timeline.stamps[0]:
                container.seek(timeline.keyframes[-1], stream=stream, backward=True)
            last = max((frame.pts for frame in frames if frame.pts is not None and not frame.is_corrupt), default=None)
            count = 0 if last is None else bisect_right(timeline.stamps, last)
        else:
            count = sum(1 for frame in frames if _whole(path, frame))
    if count == 0:
        raise UnreadableVideo(f"{path}: not one frame can be decoded")
    return count


def frame_range(path: str, start_s: float, stop_s: float, reading: Reading = READING) -> tuple[int, int]:
    """The frames shown in [start_s, stop_s), counted from the first frame's time, as a half-open range of numbers.

    Raises:
        UnreadableVideo: as `read_frames`; the file has no time stamps, or the segment ends behind its end.
    """
    timeline = read_timeline(path, reading)
    if not timeline.stamps:
        raise UnreadableVideo(f"{path}: has no time stamps, so seconds say nothing; give start_frame and stop_frame")
    seconds = [(stamp - timeline.stamps[0]) / timeline.second for stamp in timeline.stamps]
    slack = 1e-6  # a stamp that is a whole number of time units must not fall out by rounding
    start, stop = bisect_left(seconds, start_s - slack), bisect_left(seconds, stop_s - slack)
    if start == stop:
        raise UnreadableVideo(
            f"{path}: no frame is shown between {start_s} s and {stop_s} s; the last one is at {seconds[-1]:.3f} s"
        )
    # The last frame is shown for about as long as the others.
    end = seconds[-1] + (seconds[-1] / (len(seconds) - 1) if len(seconds) > 1 else 0)
    if stop_s > end + END_SLACK_S:
        raise UnreadableVideo(f"{path}: ends at {end:.3f} s, but the segment ends at {stop_s} s; correct stop_s")
    return start, stop


def read_timeline(path: str, reading: Reading = READING) -> Timeline:
    """Time stamps from the packets, without decoding."""
    with open_video(path, reading.limits) as (container, stream):
        return _timeline(path, container, stream, reading.limits)


def _timeline(
    path: str,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    limits: Limits,
    last: int | None = None,
) -> Timeline:
    """Time stamps of an open video's packets: of all, or of as many as tell the stamps up to frame `last`."""
    stamps: list[int] = []
    keyframes: list[int] = []
    packets = 0
    # AVI stores no presentation times: where frames are reordered, FFmpeg's guess is in the wrong order.
    usable = not (container.format.name == "avi" and stream.codec_context.has_b_frames)
    second = 1 / float(stream.time_base) if stream.time_base else 1.0
    index = stream.index_entries if container.format.name == "avi" else ()
    indexed = len(index)  # some are added while packets are read
    shift = None
    begins = None  # whether the first packet is a keyframe; where it is not, its mark may be what was damaged
    enough = None
    try:
        for packet in _packets(container, stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if packets < indexed and packet.pos is not None:
                entry = index[packets]
                shift = packet.pos - entry.pos if shift is None else shift
                # AVI numbers its frames by counting chunks: where one is lost, all behind it would be another's.
                if (packet.pos, packet.size) != (entry.pos + shift, entry.size):
                    raise UnreadableVideo(f"{path}: is damaged: frame {packets} is not where its index says")
            packets += 1
            if packets > limits.frames:
                raise UnreadableVideo(f"{path}: has more frames than the limit of {limits.frames:,}")
            if packet.pts is None:
                usable = False
                continue
            stamps.append(packet.pts)
            begins = packet.is_keyframe if begins is None else begins
            if packet.is_keyframe:
                keyframes.append(packet.pts)
            if last is not None and enough is None and keyframes:
                enough = packets + last + REORDERING
            if enough is not None and packets >= enough:
                break
        else:
            if container.format.name == "avi" and not usable and indexed != packets and stream.frames > packets + 1:
                raise UnreadableVideo(
                    f"{path}: breaks off: it announces {stream.frames} frames and holds {packets}, and has no time "
                    "stamps by which the last ones could be put in order"
                )
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"{path}: breaks off after {packets} packets ({_reason(error)})") from error
    if not usable or not keyframes or len(set(stamps)) != len(stamps):
        return Timeline(stamps=(), keyframes=(), second=second)
    first = min(keyframes)  # what stands before it was cut off from its own keyframe, and does not decode
    return Timeline(
        stamps=tuple(sorted(stamp for stamp in stamps if stamp >= first)),
        keyframes=tuple(sorted(keyframes)) if begins and _seekable(container) else (),
        second=second,
    )


@contextmanager
def open_video(
    path: str, limits: Limits = READING.limits
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """An open container and its first video stream that is not a cover picture, checked against the limits.

    Raises:
        UnreadableVideo: the file is missing, is no video, refers to other files, or asks for more than it may.
    """
    try:
        size = Path(path).stat().st_size if Path(path).is_file() else None
    except (OSError, ValueError):  # a name that no file can have
        size = None
    if size is None:
        raise UnreadableVideo(f"{path}: no such file")
    if size > limits.file_bytes:
        raise UnreadableVideo(f"{path}: has {size:,} bytes, more than the limit of {limits.file_bytes:,}")
    try:
        container = av.open(
            f"file:{path}",  # whatever stands before a colon in its name is no protocol
            metadata_errors="ignore",  # tags in a wrong encoding are common and say nothing about the picture
            container_options={"format_whitelist": _formats(), "protocol_whitelist": "file"},
            options={"max_pixels": str(limits.pixels)},
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideo(f"{path}: is not a video that can be read ({_reason(error)})") from error
    with container:
        if container.format.name.endswith("_pipe"):
            raise UnreadableVideo(f"{path}: is a picture ({container.format.name.removesuffix('_pipe')}), no video")
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise UnreadableVideo(f"{path}: has no video stream")
        if streams[0].codec_context is None:
            raise UnreadableVideo(f"{path}: is encoded in a way that this FFmpeg does not know")
        _check_announced(path, container, streams[0], limits)
        # One unless told otherwise: of damaged files, threads within frames give other pixels too.
        streams[0].codec_context.thread_count = 1
        yield container, streams[0]


def decoded(
    path: str,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    limits: Limits = READING.limits,
    stamps: frozenset[int] | None = None,
) -> Iterator[av.VideoFrame]:
    """The frames of an open video from where it stands; all of one size.

    Args:
        stamps: of the frames that are wanted; of the others those that no frame refers to may be left out. None for
            all.

    Raises:
        UnreadableVideo: decoding fails, the size of the frames changes, or there are more than the limits allow.
    """
    stream.codec_context.options = {"max_pixels": str(limits.pixels)}
    number = 0
    size = None
    try:
        for frame in _frames(container, stream, stamps):
            if size is None:
                size = (frame.width, frame.height)
            if size != (frame.width, frame.height):
                raise UnreadableVideo(
                    f"{path}: its frames change size from {size[0]} x {size[1]} to {frame.width} x {frame.height} "
                    f"after {number} frames; encode it anew in one size"
                )
            if number >= limits.frames:
                raise UnreadableVideo(f"{path}: has more frames than the limit of {limits.frames:,}")
            _check_overlapped(path, stream, frame)
            yield frame
            number += 1
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"{path}: decoding fails after {number} frames ({_reason(error)})") from error


def _frames(
    container: av.container.InputContainer, stream: av.VideoStream, stamps: frozenset[int] | None
) -> Iterator[av.VideoFrame]:
    context = stream.codec_context
    if stamps is None or context.name not in LEAVING_OUT:
        stamps = None
    for packet in _packets(container, stream):
        if stamps is not None:
            context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in stamps else "NONREF"
        yield from packet.decode()


def _packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator["av.Packet[av.VideoStream]"]:
    """The packets of a stream; PyAV never frees the last one where its own iterator is dropped on the way."""
    with closing(cast("Generator[av.Packet[av.VideoStream], None, None]", container.demux(stream))) as packets:
        yield from packets


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How a stored picture is turned before it is shown: rows and columns exchanged, then columns and rows reversed.

    From the display matrix of the file; of one that is no turn by quarters or mirroring, the nearest turn. PyAV's view
    of a frame's side data is never freed (some 250 bytes), so that this is asked once a file.
    """
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]  # its stub knows only names
    if matrix is None:
        return False, False, False
    a, b, _, c, d, *_ = struct.unpack_from("=5i", bytes(matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def check_numbers(indices: Sequence[int]) -> None:
    """Frame numbers are a programmer's, so that wrong ones are no fault of a file."""
    if not indices or min(indices) < 0 or list(indices) != sorted(indices):
        raise ValueError(f"frame numbers must be non-decreasing and at least 0, got {list(indices)}")


def _read(path: str, indices: Sequence[int], pixel_format: str, limits: Limits) -> ndarray:
    check_numbers(indices)
    # As many as this process computes with: one in a worker. Where nothing has loaded torch, nothing waits for it.
    torch = sys.modules.get("torch")
    threads = 1 if torch is None else min(torch.get_num_threads(), MOST_THREADS)
    if threads > 1:
        # Of a damaged file, threads across frames give other pixels, and not always the same: then, and whenever
        # something is wrong, what one thread says counts.
        try:
            return _read_with(path, indices, pixel_format, limits, threads)
        except UnreadableVideo:
            pass
    return _read_with(path, indices, pixel_format, limits, 1)


def _read_with(path: str, indices: Sequence[int], pixel_format: str, limits: Limits, threads: int) -> ndarray:
    with _open(path, limits, threads) as (container, stream):
        check_clip(path, len(indices), stream, pixel_format, limits)
        if _seekable(container):
            timeline = _timeline(path, container, stream, limits, indices[-1])
            if timeline.keyframes:
                return _fill(_by_stamp(path, container, stream, indices, timeline, limits), indices, pixel_format)
    with _open(path, limits, threads) as (container, stream):
        return _fill(_in_order(path, container, stream, indices, limits), indices, pixel_format)


@contextmanager
def _open(path: str, limits: Limits, threads: int) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """As `open_video`; large frames are decoded beside each other by so many threads."""
    with open_video(path, limits) as (container, stream):
        context = stream.codec_context
        if threads > 1 and context.width * context.height >= THREADED_PIXELS:
            context.thread_type, context.thread_count = "FRAME", threads
        yield container, stream


def _overlapped(stream: av.VideoStream) -> bool:
    return stream.codec_context.thread_type == ThreadType.FRAME


def _settle(path: str, stream: av.VideoStream) -> None:
    """Where frames are decoded beside each other, see that none that is still on its way was damaged.

    It may be shown later than one that was handed out, and yet be what that one was made from.
    """
    if _overlapped(stream):
        try:
            for frame in stream.codec_context.decode(None):
                _check_overlapped(path, stream, frame)
        except EOFError:  # all have come already
            pass
        except av.FFmpegError as error:
            raise UnreadableVideo(f"{path}: decoding fails ({_reason(error)})") from error


def _check_overlapped(path: str, stream: av.VideoStream, frame: av.VideoFrame) -> None:
    if frame.is_corrupt and _overlapped(stream):
        raise UnreadableVideo(f"{path}: is damaged")


def _seekable(container: av.container.InputContainer) -> bool:
    return not SEEKABLE.isdisjoint(container.format.name.split(","))


def _whole(path: str, frame: av.VideoFrame) -> bool:
    """Whether nothing of a frame was lost. Where frames are numbered by counting them, one that was may hide more."""
    if frame.is_corrupt:
        raise UnreadableVideo(
            f"{path}: is damaged, and has no time stamps by which the frames behind could be numbered"
        )
    return True


def _fill(frames: Iterator[tuple[int, av.VideoFrame]], indices: Sequence[int], pixel_format: str) -> ndarray:
    """One array of the frames that are handed in with their numbers, each converted straight into its place."""
    pictures: ndarray | None = None
    # One converter for all frames of a file: making a new one costs more than decoding a small picture.
    converter = VideoReformatter()
    turn = (False, False, False)
    for number, frame in frames:
        if pictures is None:
            turn = orientation(frame)  # asked once: each question costs some memory that is never given back
        picture = _picture(frame, pixel_format, converter, turn)
        if pictures is None:
            pictures = np.empty((len(indices), *picture.shape), picture.dtype)
        pictures[bisect_left(indices, number) : bisect_right(indices, number)] = picture
    assert pictures is not None  # whoever hands in frames raises where one is missing
    return pictures


def _in_order(
    path: str,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    indices: Sequence[int],
    limits: Limits,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The wanted frames with their numbers: decode from the first on, stop after the last."""
    needed = set(indices)
    number = 0
    for frame in decoded(path, container, stream, limits):
        if _whole(path, frame) and number in needed:
            yield number, frame
            if number == indices[-1]:
                _settle(path, stream)
                return
        number += 1
    raise UnreadableVideo(f"{path}: frame {indices[-1]} is wanted, but only {number} frames decode")


def _by_stamp(
    path: str,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    indices: Sequence[int],
    timeline: Timeline,
    limits: Limits,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """As `_in_order`, but known by their stamps, with jumps to the keyframe before one where that skips frames."""
    if indices[-1] >= len(timeline.stamps):
        raise UnreadableVideo(f"{path}: frame {indices[-1]} is wanted, but it has {len(timeline.stamps)} frames")
    wanted = sorted(set(indices))
    stamps = frozenset(timeline.stamps[number] for number in wanted)
    position = -1  # the last frame that was decoded; -1 before the first
    # One iterator from seek to seek: a packet may give several frames, and one begun anew would lose the rest.
    frames: Iterator[tuple[av.VideoFrame, bool]] = iter(())
    for number in wanted:
        stamp = timeline.stamps[number]
        place = max(bisect_right(timeline.keyframes, stamp) - 1, 0)
        frame: av.VideoFrame | None = None
        damaged = False
        if position >= 0 and bisect_left(timeline.stamps, timeline.keyframes[place]) <= position + 1:
            frame, damaged = _first_from(frames, stamp)
        else:
            # Where pictures are refreshed piece by piece, frames after a keyframe are whole only some way behind it.
            for start in dict.fromkeys((place, max(place - 1, 0), 0)):
                if position >= 0:
                    _settle(path, stream)
                container.seek(timeline.keyframes[start], stream=stream, backward=True)
                frames = _judged(decoded(path, container, stream, limits, stamps))
                frame, damaged = _first_from(frames, stamp)
                if frame is not None and frame.pts == stamp:
                    break
        if frame is None or frame.pts != stamp:
            raise UnreadableVideo(f"{path}: frame {number} is wanted, but does not decode")
        if damaged:
            raise UnreadableVideo(f"{path}: frame {number} is wanted, but is damaged, or made from one that is")
        yield number, frame
        position = number
    _settle(path, stream)


def _threads(picture: av.VideoFrame) -> int:
    """1 for small pictures; 0, which is as many as there are cores, for large ones."""
    return 1 if picture.width * picture.height < THREADED_PIXELS else 0


def _judged(frames: Iterator[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, bool]]:
    """Each frame, and whether it or any since the last keyframe is marked as damaged: those behind are made from it."""
    damaged = False
    for frame in frames:
        damaged = frame.is_corrupt or (damaged and not frame.key_frame)
        yield frame, damaged


def _first_from(frames: Iterator[tuple[av.VideoFrame, bool]], stamp: int) -> tuple[av.VideoFrame | None, bool]:
    return next(((f, damaged) for f, damaged in frames if f.pts is not None and f.pts >= stamp), (None, False))


@functools.cache
def _formats() -> str:
    """FFmpeg's formats that read nothing but the file that is named."""
    return ",".join(sorted(set(av.formats_available) - REFERRING))


def _check_announced(path: str, container: av.container.InputContainer, stream: av.VideoStream, limits: Limits) -> None:
    """What the header asks for; that it tells the truth is checked again while decoding."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > limits.pixels:
        raise UnreadableVideo(f"{path}: has frames of {width} x {height} pixels, more than {limits.pixels:,}")
    if stream.frames > limits.frames:
        raise UnreadableVideo(f"{path}: announces {stream.frames:,} frames, more than the limit of {limits.frames:,}")
    seconds = 0.0 if container.duration is None else container.duration / av.time_base
    if seconds > limits.seconds:
        raise UnreadableVideo(f"{path}: lasts {seconds:,.0f} s, more than the limit of {limits.seconds:,.0f} s")


def check_clip(path: str, frames: int, stream: av.VideoStream, pixel_format: str, limits: Limits) -> None:
    """Refuse to take more memory for a clip than the limits allow."""
    size = frames * stream.codec_context.width * stream.codec_context.height * BYTES[pixel_format]
    if size > limits.clip_bytes:
        raise UnreadableVideo(
            f"{path}: {frames} frames of {stream.codec_context.width} x {stream.codec_context.height} pixels take "
            f"{size:,} bytes, more than the limit of {limits.clip_bytes:,}; ask for fewer at once"
        )


def _picture(
    frame: av.VideoFrame, pixel_format: str, converter: VideoReformatter, turn: tuple[bool, bool, bool]
) -> ndarray:
    """Pixels as they are meant to be shown: PyAV hands out the stored picture and the matrix to turn it by."""
    picture = converter.reformat(frame, format=pixel_format, threads=_threads(frame)).to_ndarray()
    exchanged, columns_reversed, rows_reversed = turn
    if exchanged:
        picture = picture.swapaxes(0, 1)
    if rows_reversed:
        picture = picture[::-1]
    if columns_reversed:
        picture = picture[:, ::-1]
    return picture


def _reason(error: BaseException) -> str:
    said = " ".join(str(error).split())
    if "not on whitelist" in said:
        return "it is a playlist, a script or a text"
    return getattr(error, "strerror", None) or said or type(error).__name__

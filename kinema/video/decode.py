"""Video files: how many frames they have, and the frames that are asked for, decoding only what is needed.

Frames are numbered from 0 in the order in which they are shown, and counted by their packets and, near the end, by
decoding. Where there are time stamps, frames are known by them, so that a lost one shifts no other.
"""

import multiprocessing
import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import av
import numpy as np
from av.codec.context import ThreadType
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8, UInt16
from numpy import ndarray

from kinema.errors import UnreadableVideo
from kinema.video.container import Timeline, open_video, packets_of, read_timeline, reason_of, seekable, timeline_of
from kinema.video.read_options import READ_OPTIONS, Limits, ReadOptions

LEAVING_OUT = frozenset({"h264"})
"""Codecs whose decoder can leave out frames that no other refers to, and gives all others bit by bit the same. HEVC is
not among them: what it marks so may be referred to from a higher temporal layer."""

THREADED_PIXELS = 500_000
"""Of a frame, from which threads bring more than starting them costs."""

MOST_THREADS = 4
"""That decode frames beside each other: each holds frames of its own in memory."""

BYTES = {"rgb24": 3, "gray": 1, "gray16le": 2}
"""Bytes of a pixel in the formats that frames are converted to."""


def read_frames(
    path: str, indices: Sequence[int], reading: ReadOptions = READ_OPTIONS
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
    path: str, indices: Sequence[int], reading: ReadOptions = READ_OPTIONS
) -> UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"]:
    """As `read_frames`, for one channel: uint16 where the video stores more than 8 bits, else uint8."""
    with open_video(path, reading.limits) as (_, stream):
        pixel_format = _grey_format(stream)
    return _read(path, indices, pixel_format, reading.limits)


def each_frame(
    path: str, numbers: range, timeline: Timeline, reading: ReadOptions = READ_OPTIONS
) -> Iterator[av.VideoFrame]:
    """The frames of a range one after the other, as they are stored, by one thread.

    For who takes all of a long file: only one frame is in memory.

    Args:
        timeline: of the file; reading it costs a pass over all packets, which many ranges of one file can share.

    Raises:
        UnreadableVideo: as `read_frames`, at the frame that is at fault.
    """
    check_numbers(numbers)
    with open_video(path, reading.limits) as (container, stream):
        if timeline.keyframes:
            frames = _by_stamp(path, container, stream, numbers, timeline, reading.limits)
        else:
            frames = _in_order(path, container, stream, numbers, reading.limits)
        for _, frame in frames:
            yield frame


def each_grey_frame(
    path: str, numbers: range, timeline: Timeline, reading: ReadOptions = READ_OPTIONS
) -> Iterator[UInt16[ndarray, "height width"] | UInt8[ndarray, "height width"]]:
    """As `each_frame`, as `read_grey_frames` gives them."""
    converter = VideoReformatter()
    turn: tuple[bool, bool, bool] | None = None
    with open_video(path, reading.limits) as (_, stream):
        pixel_format = _grey_format(stream)
    for frame in each_frame(path, numbers, timeline, reading):
        turn = orientation(frame) if turn is None else turn
        yield _picture(frame, pixel_format, converter, turn)


def count_frames(path: str, reading: ReadOptions = READ_OPTIONS) -> int:
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


def decoded(
    path: str,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    limits: Limits = READ_OPTIONS.limits,
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
        raise UnreadableVideo(f"{path}: decoding fails after {number} frames ({reason_of(error)})") from error


def _frames(
    container: av.container.InputContainer, stream: av.VideoStream, stamps: frozenset[int] | None
) -> Iterator[av.VideoFrame]:
    context = stream.codec_context
    wanted = stamps if context.name in LEAVING_OUT else None
    for packet in packets_of(container, stream):
        if wanted is not None:
            context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in wanted else "NONREF"
        yield from packet.decode()


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
    threads = threads_here()
    if threads > 1:
        # Of a damaged file, threads across frames give other pixels, and not always the same: then, and whenever
        # something is wrong, what one thread says counts.
        try:
            return _read_with(path, indices, pixel_format, limits, threads)
        except UnreadableVideo:
            pass
    return _read_with(path, indices, pixel_format, limits, 1)


def threads_here() -> int:
    """Threads for large frames: the cores that this process may use; in a worker, beside which others work, one."""
    if multiprocessing.parent_process() is not None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_THREADS)


def _read_with(path: str, indices: Sequence[int], pixel_format: str, limits: Limits, threads: int) -> ndarray:
    with _open(path, limits, threads) as (container, stream):
        check_clip(path, len(indices), stream, pixel_format, limits)
        if seekable(container):
            timeline = timeline_of(path, container, stream, limits, indices[-1])
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
            raise UnreadableVideo(f"{path}: decoding fails ({reason_of(error)})") from error


def _check_overlapped(path: str, stream: av.VideoStream, frame: av.VideoFrame) -> None:
    if frame.is_corrupt and _overlapped(stream):
        raise UnreadableVideo(f"{path}: is damaged")


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


def _judged(frames: Iterator[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, bool]]:
    """Each frame, and whether it or any since the last keyframe is marked as damaged: those behind are made from it."""
    damaged = False
    for frame in frames:
        damaged = frame.is_corrupt or (damaged and not frame.key_frame)
        yield frame, damaged


def _first_from(frames: Iterator[tuple[av.VideoFrame, bool]], stamp: int) -> tuple[av.VideoFrame | None, bool]:
    return next(((f, damaged) for f, damaged in frames if f.pts is not None and f.pts >= stamp), (None, False))


def check_clip(path: str, frames: int, stream: av.VideoStream, pixel_format: str, limits: Limits) -> None:
    """Refuse to take more memory for a clip than the limits allow."""
    size = frames * stream.codec_context.width * stream.codec_context.height * BYTES[pixel_format]
    if size > limits.clip_bytes:
        raise UnreadableVideo(
            f"{path}: {frames} frames of {stream.codec_context.width} x {stream.codec_context.height} pixels take "
            f"{size:,} bytes, more than the limit of {limits.clip_bytes:,}; ask for fewer at once"
        )


def _grey_format(stream: av.VideoStream) -> Literal["gray", "gray16le"]:
    stored = stream.codec_context.format
    return "gray16le" if stored is not None and stored.components[0].bits > 8 else "gray"


def _picture(
    frame: av.VideoFrame, pixel_format: str, converter: VideoReformatter, turn: tuple[bool, bool, bool]
) -> ndarray:
    """Pixels as they are meant to be shown: PyAV hands out the stored picture and the matrix to turn it by."""
    return turned(converter.reformat(frame, format=pixel_format, threads=_converting(frame)).to_ndarray(), turn)


def turned(picture: ndarray, turn: tuple[bool, bool, bool]) -> ndarray:
    """A stored picture, or one plane of it, as `orientation` says that it is shown."""
    exchanged, columns_reversed, rows_reversed = turn
    if exchanged:
        picture = picture.swapaxes(0, 1)
    if rows_reversed:
        picture = picture[::-1]
    if columns_reversed:
        picture = picture[:, ::-1]
    return picture


def _converting(frame: av.VideoFrame) -> int:
    """Threads that turn a frame into RGB; starting them for a small one costs more than they bring."""
    return threads_here() if frame.width * frame.height >= THREADED_PIXELS else 1

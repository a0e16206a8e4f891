"""Video files: number of frames, time stamps, and the requested frames, decoding no more than needed.

Frames are numbered from 0 in display order. They are counted by packets and, near the end, by decoding. Where the
container has time stamps, frames are identified by them, so that a lost frame does not shift the others.
"""

import multiprocessing
import os
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Literal, cast

import av
import numpy as np
from av.codec.context import ThreadType
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8, UInt16
from numpy import ndarray

from kinema.errors import UnreadableVideo
from kinema.video.container import (
    Orientation,
    Timeline,
    open_video,
    orientation_of,
    range_shown,
    reason_of,
    scan_timeline,
    seekable,
)
from kinema.video.read_options import READ_OPTIONS, Limits, ReadOptions

SKIPPABLE = frozenset({"h264"})
"""Codecs whose decoder can skip frames that no other frame refers to without changing the others by a bit. HEVC is not
among them: frames that it marks so may be referred to from a higher temporal layer."""

THREADED_PIXELS = 500_000
"""Pixels per frame from which threads gain more than starting them costs."""

MAX_THREADS = 4
"""Threads that decode frames in parallel; each holds frames of its own in memory."""

BYTES = {"rgb24": 3, "gray": 1, "gray16le": 2}
"""Bytes per pixel of the formats that frames are converted to."""

PixelFormat = Literal["rgb24", "gray", "gray16le"]
Gray = UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"]


class VideoFile:
    """Video file, decoded by PyAV.

    The container stays open between calls; it is opened again only where it cannot be rewound exactly, or where frames
    decoded in parallel turn out to be damaged. Finish one call, or one iteration, before the next.

    Args:
        path: local path.
        options: limits to enforce.
    """

    form: Literal["video"] = "video"

    def __init__(self, path: str, options: ReadOptions = READ_OPTIONS) -> None:
        self.path = path
        self.limits = options.limits
        self._files = ExitStack()
        self._opened: tuple[InputContainer, av.VideoStream] | None = None
        self._at_start = False
        self._timeline: Timeline | None = None
        self._num_frames: int | None = None

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self._files.close()
        self._opened = None

    @property
    def num_frames(self) -> int:
        """Number of frames that decode: packets, corrected by decoding from the last keyframe on.

        Raises:
            UnreadableVideo: as `read_rgb`, and where no frame decodes.
        """
        if self._num_frames is None:
            self._num_frames = self._count()
        return self._num_frames

    @property
    def timeline(self) -> Timeline:
        """Time stamps of all frames, from the packets alone."""
        if self._timeline is None:
            container, stream = self._rewind()
            self._at_start = False
            self._timeline = scan_timeline(self.path, container, stream, self.limits)
        return self._timeline

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames as displayed."""
        container, stream = self._rewind()
        self._at_start = False
        for frame in decode_frames(self.path, container, stream, self.limits):
            return (frame.height, frame.width) if orientation_of(frame).transposed else (frame.width, frame.height)
        raise UnreadableVideo(f"{self.path}: not one frame can be decoded", path=self.path)

    def read_rgb(self, indices: Sequence[int]) -> UInt8[ndarray, "frames height width 3"]:
        """Return the frames with these numbers, in one decoding pass that seeks only across wide gaps.

        Args:
            indices: non-decreasing frame numbers; a number may be repeated.

        Raises:
            UnreadableVideo: the file is missing, is not a video, ends before the last requested frame, changes its
                frame size, or exceeds the limits.
        """
        return self._read(indices, "rgb", threads_here())

    def read_gray(self, indices: Sequence[int]) -> Gray:
        """Return one channel of the frames: uint16 where more than 8 bits are stored, else uint8."""
        return self._read(indices, "gray", threads_here())

    def iter_frames(self, numbers: range, color: Literal["rgb", "gray"]) -> Iterator[ndarray]:
        """Yield the frames of a range one by one, as `read_rgb` or `read_gray` returns them, holding one in memory."""
        converter = VideoReformatter()
        orientation: Orientation | None = None
        for frame in self.iter_stored(numbers):
            orientation = orientation_of(frame) if orientation is None else orientation
            pixel_format = _pixel_format(color, self._open()[1])
            yield _convert(frame, pixel_format, converter, orientation)

    def iter_stored(self, numbers: range) -> Iterator[av.VideoFrame]:
        """Yield the frames of a range one by one as they are stored, not yet upright, decoded by one thread."""
        check_indices(numbers)
        if self.timeline.keyframes:
            container, stream = self._open()
            frames = _by_stamp(self.path, container, stream, numbers, self.timeline, self.limits)
        else:
            container, stream = self._rewind()
            frames = _in_order(self.path, container, stream, numbers, self.limits)
        self._at_start = False
        for _, frame in frames:
            yield frame

    def frame_range(self, start_s: float, stop_s: float) -> tuple[int, int]:
        """Return the frames displayed in [start_s, stop_s), seconds from the first frame, as a half-open range.

        Raises:
            UnreadableVideo: the file has no time stamps, or ends before the segment does.
        """
        return range_shown(self.path, self.timeline, start_s, stop_s)

    def _open(self, threads: int = 1) -> tuple[InputContainer, av.VideoStream]:
        """Return the open container, wherever it stands; open it where it is closed or decodes with other threads.

        Large frames are decoded in parallel by `threads`.
        """
        if self._opened is None:
            self._opened = self._files.enter_context(open_video(self.path, self.limits))
            self._at_start = True
        context = self._opened[1].codec_context
        threaded = threads > 1 and context.width * context.height >= THREADED_PIXELS
        if threaded == (context.thread_type == ThreadType.FRAME):
            return self._opened
        if threaded and not context.is_open:
            context.thread_type, context.thread_count = "FRAME", threads
            return self._opened
        self.close()
        return self._open(threads)

    def _rewind(self, threads: int = 1) -> tuple[InputContainer, av.VideoStream]:
        """Return the container at its start, opened again if anything was read from it: few containers seek there."""
        if self._opened is not None and not self._at_start:
            self.close()
        return self._open(threads)

    def _read(self, indices: Sequence[int], color: Literal["rgb", "gray"], threads: int) -> ndarray:
        check_indices(indices)
        try:
            container, stream = self._open(threads)
            pixel_format = _pixel_format(color, stream)
            check_clip(self.path, len(indices), stream, pixel_format, self.limits)
            timeline = self._timeline
            if timeline is None or not timeline.keyframes:
                if not self._at_start:
                    container, stream = self._rewind(threads)
                if seekable(container):
                    self._at_start = False
                    timeline = scan_timeline(self.path, container, stream, self.limits, indices[-1])
            if timeline is None or not timeline.keyframes:
                container, stream = self._rewind(threads)
                frames = _in_order(self.path, container, stream, indices, self.limits)
            else:
                frames = _by_stamp(self.path, container, stream, indices, timeline, self.limits)
            self._at_start = False
            clip: ndarray | None = None
            # One converter for all frames: creating one costs more than decoding a small frame.
            converter = VideoReformatter()
            for number, frame in frames:
                if clip is None:
                    orientation = orientation_of(frame)  # asked once: each time leaks some memory
                picture = _convert(frame, pixel_format, converter, orientation)
                if clip is None:
                    clip = np.empty((len(indices), *picture.shape), picture.dtype)
                clip[bisect_left(indices, number) : bisect_right(indices, number)] = picture
            assert clip is not None  # `frames` raises where one is missing
            return clip
        except UnreadableVideo:
            # Threads decode damaged files to other pixels, and not always the same: then one thread decides.
            if threads == 1 or self._opened is None or not _is_threaded(self._opened[1]):
                raise
        self.close()
        return self._read(indices, color, 1)

    def _count(self) -> int:
        timeline = self.timeline
        if timeline.keyframes:
            container, stream = self._open()
            container.seek(timeline.keyframes[-1], stream=stream, backward=True)
            frames = decode_frames(self.path, container, stream, self.limits)
            last = max((frame.pts for frame in frames if frame.pts is not None and not frame.is_corrupt), default=None)
            count = 0 if last is None else bisect_right(timeline.stamps, last)
        else:
            container, stream = self._rewind()
            self._at_start = False
            frames = decode_frames(self.path, container, stream, self.limits)
            count = sum(1 for frame in frames if _is_whole(self.path, frame))
        if count == 0:
            raise UnreadableVideo(f"{self.path}: not one frame can be decoded", path=self.path)
        return count


def decode_frames(
    path: str,
    container: InputContainer,
    stream: av.VideoStream,
    limits: Limits = READ_OPTIONS.limits,
    stamps: frozenset[int] | None = None,
) -> Iterator[av.VideoFrame]:
    """Yield the frames of an open video from its current position, all of one size.

    Args:
        stamps: time stamps of the requested frames; other frames may be skipped where no frame refers to them. None
            for all frames.

    Raises:
        UnreadableVideo: decoding fails, the frame size changes, or there are more frames than the limits allow.
    """
    context = stream.codec_context
    context.options = {"max_pixels": str(limits.pixels)}
    context.skip_frame = "DEFAULT"
    wanted = stamps if context.name in SKIPPABLE else None
    threaded = context.thread_type == ThreadType.FRAME
    number = 0
    size = None
    # PyAV's own iterator, dropped half-way, never frees its last packet.
    demuxed = cast("Generator[av.Packet[av.VideoStream], None, None]", container.demux(stream))
    try:
        with closing(demuxed) as packets:
            for packet in packets:
                if wanted is not None:
                    context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in wanted else "NONREF"
                for frame in packet.decode():
                    size = (frame.width, frame.height) if size is None else size
                    if size != (frame.width, frame.height):
                        raise UnreadableVideo(
                            f"{path}: frame size changes from {size[0]} x {size[1]} to {frame.width} x {frame.height} "
                            f"after {number} frames; encode the video again in one size",
                            path=path,
                        )
                    if number >= limits.frames:
                        raise UnreadableVideo(f"{path}: has more frames than the limit of {limits.frames:,}", path=path)
                    if frame.is_corrupt and threaded:
                        raise UnreadableVideo(f"{path}: is damaged", path=path)
                    yield frame
                    number += 1
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(
            f"{path}: decoding fails after {number} frames ({reason_of(error)})", path=path
        ) from error


def check_indices(indices: Sequence[int]) -> None:
    """Raise ValueError for wrong frame numbers: the caller is at fault, not the file."""
    if not indices or min(indices) < 0 or list(indices) != sorted(indices):
        raise ValueError(f"frame numbers must be non-decreasing and at least 0, got {list(indices)}")


def check_clip(path: str, frames: int, stream: av.VideoStream, pixel_format: PixelFormat, limits: Limits) -> None:
    """Raise UnreadableVideo where a clip takes more memory than the limits allow."""
    width, height = stream.codec_context.width, stream.codec_context.height
    size = frames * width * height * BYTES[pixel_format]
    if size > limits.clip_bytes:
        raise UnreadableVideo(
            f"{path}: {frames} frames of {width} x {height} pixels take {size:,} bytes, more than the limit of "
            f"{limits.clip_bytes:,}; request fewer at once",
            path=path,
        )


def threads_here() -> int:
    """Return the threads for large frames: the cores of this process; one in a worker, beside which others work."""
    if multiprocessing.parent_process() is not None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_THREADS)


def _in_order(
    path: str, container: InputContainer, stream: av.VideoStream, indices: Sequence[int], limits: Limits
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield the requested frames with their numbers, counting from the first frame of the file."""
    needed = set(indices)
    number = 0
    for frame in decode_frames(path, container, stream, limits):
        if _is_whole(path, frame) and number in needed:
            yield number, frame
            if number == indices[-1]:
                _settle(path, stream)
                return
        number += 1
    raise UnreadableVideo(f"{path}: frame {indices[-1]} is requested, but only {number} frames decode", path=path)


def _by_stamp(
    path: str,
    container: InputContainer,
    stream: av.VideoStream,
    indices: Sequence[int],
    timeline: Timeline,
    limits: Limits,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield the requested frames with their numbers, identified by time stamps; seek where that skips frames."""
    if indices[-1] >= len(timeline.stamps):
        raise UnreadableVideo(
            f"{path}: frame {indices[-1]} is requested, but it has {len(timeline.stamps)} frames", path=path
        )
    wanted = sorted(set(indices))
    stamps = frozenset(timeline.stamps[number] for number in wanted)
    position = -1  # the last decoded frame; -1 before the first
    # One iterator from seek to seek: a packet may give several frames, and a new iterator would lose the rest.
    frames: Iterator[av.VideoFrame] = iter(())
    damaged = False
    for number in wanted:
        stamp = timeline.stamps[number]
        place = max(bisect_right(timeline.keyframes, stamp) - 1, 0)
        frame: av.VideoFrame | None = None
        if position >= 0 and bisect_left(timeline.stamps, timeline.keyframes[place]) <= position + 1:
            frame, damaged = _advance(frames, stamp, damaged)
        else:
            # With periodic intra refresh, frames are whole only some way behind a keyframe.
            for start in dict.fromkeys((place, max(place - 1, 0), 0)):
                if position >= 0:
                    _settle(path, stream)
                container.seek(timeline.keyframes[start], stream=stream, backward=True)
                frames = decode_frames(path, container, stream, limits, stamps)
                frame, damaged = _advance(frames, stamp, False)
                if frame is not None and frame.pts == stamp:
                    break
        if frame is None or frame.pts != stamp:
            raise UnreadableVideo(f"{path}: frame {number} is requested, but does not decode", path=path)
        if damaged:
            raise UnreadableVideo(
                f"{path}: frame {number} is requested, but is damaged or refers to a damaged frame", path=path
            )
        yield number, frame
        position = number
    _settle(path, stream)


def _advance(frames: Iterator[av.VideoFrame], stamp: int, damaged: bool) -> tuple[av.VideoFrame | None, bool]:
    """Return the first frame at or after a time stamp, and whether any frame since the last keyframe is damaged.

    Args:
        damaged: whether one of those before `frames` is.
    """
    for frame in frames:
        damaged = frame.is_corrupt or (damaged and not frame.key_frame)
        if frame.pts is not None and frame.pts >= stamp:
            return frame, damaged
    return None, False


def _is_threaded(stream: av.VideoStream) -> bool:
    return stream.codec_context.thread_type == ThreadType.FRAME


def _settle(path: str, stream: av.VideoStream) -> None:
    """Check the frames still being decoded by threads: one may be displayed later than those handed out, and yet be
    what they were made from.
    """
    if not _is_threaded(stream):
        return
    try:
        for frame in stream.codec_context.decode(None):
            if frame.is_corrupt:
                raise UnreadableVideo(f"{path}: is damaged", path=path)
    except EOFError:  # all have been handed out
        pass
    except av.FFmpegError as error:
        raise UnreadableVideo(f"{path}: decoding fails ({reason_of(error)})", path=path) from error


def _is_whole(path: str, frame: av.VideoFrame) -> bool:
    """Return True, or raise where a frame is damaged: numbered by counting, it may hide lost ones."""
    if frame.is_corrupt:
        raise UnreadableVideo(f"{path}: is damaged, and has no time stamps that number the frames behind", path=path)
    return True


def _pixel_format(color: Literal["rgb", "gray"], stream: av.VideoStream) -> PixelFormat:
    if color == "rgb":
        return "rgb24"
    stored = stream.codec_context.format
    return "gray16le" if stored is not None and stored.components[0].bits > 8 else "gray"


def _convert(
    frame: av.VideoFrame, pixel_format: PixelFormat, converter: VideoReformatter, orientation: Orientation
) -> ndarray:
    threads = threads_here() if frame.width * frame.height >= THREADED_PIXELS else 1
    return orientation.apply(converter.reformat(frame, format=pixel_format, threads=threads).to_ndarray())

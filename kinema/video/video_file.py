"""Video files decoded by PyAV, as few frames as possible.

Frames are numbered from 0 in display order. Packets are counted; frames after the last keyframe are decoded to
correct the count. Time stamps, if the container has them, identify the frames, so that a lost frame does not shift the
others.
"""

import multiprocessing
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from typing import Literal, cast

import av
import numpy as np
from av.codec.context import ThreadType
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8
from numpy import ndarray

from kinema.errors import UnreadableVideo
from kinema.modality import Modality, ReadAs
from kinema.video.container import (
    Gray,
    Orientation,
    Packets,
    Timeline,
    displayed_range,
    may_have_fields,
    open_video,
    orientation_of,
    reading,
    reason_of,
    scan_timeline,
    seekable,
)
from kinema.video.described import THREADED_PIXELS, DescribedVideo, is_intact
from kinema.video.fields import second_field_test
from kinema.video.filters import TRANSFERS
from kinema.video.gray import gray_picture
from kinema.video.pixels import (
    SQUARE,
    FrameConverter,
    FrameFacts,
    PixelAspect,
    PixelFormat,
    alpha_decoder,
    aspect_of,
    upright_aspect,
)
from kinema.video.read_options import READ_OPTIONS, Deinterlace, Limits, ReadOptions
from kinema.video.unreadable import over_limit, past_end, unreadable

SKIPPABLE = frozenset({"h264"})
"""Codecs whose decoder can skip unreferenced frames without changing the others by a bit. HEVC cannot: frames with that
mark may be referenced from a higher temporal layer."""

MAX_THREADS = 4
"""Largest number of threads that decode frames in parallel; each holds its own frames in memory."""

BYTES = {"rgb24": 3, "gray": 1, "gray16le": 2}
"""Bytes per pixel of the output formats."""


class VideoFile(DescribedVideo):
    """Local video file, decoded by PyAV within the limits of `options`.

    The container stays open between calls. It is opened again to return to the start after reading, to
    change the number of threads, and if frames decoded in parallel are damaged. Finish one call, or one iteration,
    before the next.

    Args:
        path: Local path, which may name a stream of the container (`rec.mkv#depth`).
        options: Backend and limits.
        read_as: Content of the file, which decides what stream is read if the path names none. Without it, the frames
            of `read_gray` are those of the depth stream, and everything else is of the RGB stream.
    """

    form: Literal["video"] = "video"

    def __init__(self, path: str, options: ReadOptions = READ_OPTIONS, read_as: ReadAs | None = None) -> None:
        self.path = path
        self.options = options
        self.limits = options.limits
        self.read_as = read_as
        self.kind: Modality = "rgb" if read_as in (None, "rgb") else "depth"
        self._depth: VideoFile | None = None
        self.deinterlace: Deinterlace = options.deinterlace or "none"
        self._files = ExitStack()
        self._opened: tuple[InputContainer, av.VideoStream] | None = None
        self._at_start = False
        self._timeline: Timeline | None = None
        self._num_frames: int | None = None
        self._has_fields = False
        self._facts: FrameFacts | None = None
        self._orientation: Orientation | None = None
        self._converter: FrameConverter | None = None
        self._opaque: dict[str, bool] = {}

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self._files.close()
        self._opened = None
        if self._depth is not None:
            self._depth.close()

    @property
    def timeline(self) -> Timeline:
        """Time stamps of all frames, from the packets alone."""
        if self._timeline is None:
            with reading(self.path):
                self._timeline = self._scan(*self._rewind())
        return self._timeline

    @property
    def pixel_aspect(self) -> PixelAspect:
        """Displayed shape of the pixels of upright frames."""
        _, stream = self._current
        if stream.sample_aspect_ratio in (None, 0, 1):  # 0 for an unknown one, from PyAV 19 on
            return SQUARE
        return upright_aspect(aspect_of(stream), self._orientation or self.facts.orientation)

    def read_rgb(self, indices: Sequence[int]) -> UInt8[ndarray, "frames height width 3"]:
        """Return the frames with these numbers, in one decoding pass that seeks if a keyframe lies in between.

        Args:
            indices: Non-decreasing frame numbers; a number may be repeated.

        Raises:
            UnreadableVideo: The file is missing, is not a video, ends before the last requested frame, changes its
                frame size, or exceeds the limits.
        """
        check_indices(indices)
        with reading(self.path):
            return self._read(indices, "rgb", threads_here())

    def read_gray(self, indices: Sequence[int]) -> Gray:
        """Return one channel of the frames: stored values as uint16 if they have more than 8 bits, else uint8.

        Raises:
            UnreadableVideo: As `read_rgb`, or the frames are in color and no encoding of depth is named.
        """
        check_indices(indices)
        with reading(self.path):
            return self._depth_reader()._read(indices, "gray", threads_here())

    def iter_frames(self, numbers: range, color: Literal["rgb", "gray"]) -> Iterator[ndarray]:
        """Yield the frames of a range one by one, as `read_rgb` or `read_gray` returns them, holding one in memory."""
        with reading(self.path):
            reader = self if color == "rgb" else self._depth_reader()
            reformatter = VideoReformatter()
            for frame in reader.iter_stored(numbers):
                yield reader._convert(frame, _pixel_format(self.path, color, reader._current[1]), reformatter)

    def iter_stored(self, numbers: range) -> Iterator[av.VideoFrame]:
        """Yield the frames of a range one by one as stored, not yet upright, decoded by one thread."""
        check_indices(numbers)
        with reading(self.path):
            if self.timeline.keyframes:
                container, stream = self._open()
                frames = self._decode_by_stamp(container, stream, numbers, self.timeline)
            else:
                container, stream = self._rewind()
                frames = self._decode_in_order(container, stream, numbers)
            self._at_start = False
            for _, frame in frames:
                yield frame

    def frame_range(self, start_s: float, stop_s: float) -> tuple[int, int]:
        """Return the frames displayed in [start_s, stop_s), seconds on a player's clock, as a half-open range.

        Raises:
            UnreadableVideo: The file has no time stamps, or ends before the segment does.
        """
        return displayed_range(self.path, self.timeline, start_s, stop_s)

    @property
    def _current(self) -> tuple[InputContainer, av.VideoStream]:
        """The container as it is, whatever its position and threads."""
        return self._opened or self._open()

    def _open(self, threads: int = 1) -> tuple[InputContainer, av.VideoStream]:
        """Return the container at its current position, opened again if it is closed or decodes with other threads.

        Large frames are decoded by `threads` in parallel.
        """
        if self._opened is None:
            self._opened = self._files.enter_context(open_video(self.path, self.limits, self.kind))
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
        """Return the container at its start, opened again if it was read: few containers seek to the start."""
        if self._opened is not None and not self._at_start:
            self.close()
        return self._open(threads)

    def _scan(self, container: InputContainer, stream: av.VideoStream, last: int | None = None) -> Timeline:
        self._at_start = False
        self._has_fields = may_have_fields(stream)
        is_second_field = second_field_test(stream) if self._has_fields else None
        return scan_timeline(self.path, container, stream, self.limits, last, is_second_field)

    def _read(self, indices: Sequence[int], color: Literal["rgb", "gray"], threads: int) -> ndarray:
        try:
            container, stream = self._open(threads)
            pixel_format = _pixel_format(self.path, color, stream)
            check_clip(self.path, len(indices), stream, pixel_format, self.limits)
            timeline = self._timeline
            if timeline is None or not timeline.keyframes:
                if not self._at_start:
                    container, stream = self._rewind(threads)
                if seekable(container, stream):
                    timeline = self._scan(container, stream, indices[-1])
            if timeline is None or not timeline.keyframes:
                container, stream = self._rewind(threads)
                frames = self._decode_in_order(container, stream, indices)
            else:
                frames = self._decode_by_stamp(container, stream, indices, timeline)
            self._at_start = False
            clip: ndarray | None = None
            # One reformatter for all frames: creating one costs more than decoding a small frame.
            reformatter = VideoReformatter()
            for number, frame in frames:
                picture = self._convert(frame, pixel_format, reformatter)
                if clip is None:
                    clip = np.empty((len(indices), *picture.shape), picture.dtype)
                elif picture.shape != clip.shape[1:]:
                    raise unreadable(self.path, f"frame size changes before frame {number}. Encode it in one size.")
                clip[bisect_left(indices, number) : bisect_right(indices, number)] = picture
            assert clip is not None  # `frames` raises if one is missing
            return clip
        except UnreadableVideo:
            # Parallel decoding of a damaged file is not deterministic, so one thread decodes it again.
            if threads == 1 or self._opened is None or not _is_threaded(self._opened[1]):
                raise
        self.close()
        return self._read(indices, color, 1)

    def _decode_in_order(
        self, container: InputContainer, stream: av.VideoStream, indices: Sequence[int]
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the requested frames with their numbers, counting from the first frame of the file."""
        requested = set(indices)
        number = 0
        for frame in decode_frames(self.path, container, stream, self.limits):
            if is_intact(self.path, frame) and number in requested:
                yield number, frame
                if number == indices[-1]:
                    _drain(self.path, stream)
                    return
            number += 1
        raise past_end(self.path, indices[-1], number)

    def _decode_by_stamp(
        self, container: InputContainer, stream: av.VideoStream, indices: Sequence[int], timeline: Timeline
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the requested frames with their numbers, identified by time stamps; seek if that skips frames."""
        if indices[-1] >= len(timeline.stamps):
            raise past_end(self.path, indices[-1], len(timeline.stamps))
        numbers = sorted(set(indices))
        # The second field of a requested frame has another stamp.
        requested = None if self._has_fields else frozenset(timeline.stamps[number] for number in numbers)
        position = -1  # the last decoded frame; -1 before the first
        # One iterator from seek to seek: a packet may give several frames, and a new iterator would lose the rest.
        frames: Iterator[av.VideoFrame] = iter(())
        is_damaged = False
        for number in numbers:
            stamp = timeline.stamps[number]
            place = max(bisect_right(timeline.keyframes, stamp) - 1, 0)
            frame: av.VideoFrame | None = None
            if position >= 0 and bisect_left(timeline.stamps, timeline.keyframes[place]) <= position + 1:
                frame, is_damaged = _advance(frames, stamp, is_damaged)
            else:
                # With periodic intra refresh, frames are complete only some way after a keyframe.
                for start in dict.fromkeys((place, max(place - 1, 0), 0)):
                    if position >= 0:
                        _drain(self.path, stream)
                    container.seek(timeline.keyframes[start], stream=stream, backward=True)
                    frames = decode_frames(self.path, container, stream, self.limits, requested, "keyframe")
                    frame, is_damaged = _advance(frames, stamp, False)
                    if frame is not None and frame.pts == stamp:
                        break
            if frame is None or frame.pts != stamp:
                raise unreadable(self.path, f"frame {number} cannot be decoded")
            if is_damaged:
                raise unreadable(self.path, f"frame {number} is damaged or refers to a damaged frame")
            yield number, frame
            position = number
        _drain(self.path, stream)

    def _decode(
        self, container: InputContainer, stream: av.VideoStream, start: Literal["here", "keyframe"] = "here"
    ) -> Iterator[av.VideoFrame]:
        return decode_frames(self.path, container, stream, self.limits, None, start)

    def _depth_reader(self) -> "VideoFile":
        """Return the reader of the depth stream: this one, if it is opened as depth or the file has one stream."""
        if self.kind == "depth" or len(self._open()[0].streams.video) == 1:
            return self
        if self._depth is None:
            self._depth = type(self)(self.path, self.options, "depth")
        return self._depth

    def _convert(self, frame: av.VideoFrame, pixel_format: PixelFormat, reformatter: VideoReformatter) -> ndarray:
        if self._orientation is None:
            self._orientation = orientation_of(frame)  # once per file: each call leaks some memory
        threads = threads_here() if frame.width * frame.height >= THREADED_PIXELS else 1
        if pixel_format == "rgb24" and not self._is_plain(frame):
            if self._converter is None:
                self._converter = self.converter(threads_here())
            picture = self._converter.rgb(frame)
        elif pixel_format in ("rgb24", frame.format.name):
            picture = reformatter.reformat(frame, format=pixel_format, threads=threads).to_ndarray()
        else:
            picture = gray_picture(self.path, frame, self.read_as, reformatter, threads)
        return self._orientation.apply(picture)

    def _is_plain(self, frame: av.VideoFrame) -> bool:
        """Return whether the stored values alone give the color of a frame: opaque, not HDR, and not deinterlaced."""
        name = frame.format.name
        if name not in self._opaque:  # looked up once per format, since that takes as long as decoding a small frame
            self._opaque[name] = name != "pal8" and not any(c.is_alpha for c in frame.format.components)
        is_changed = self.deinterlace != "none" and frame.interlaced_frame
        return self._opaque[name] and not is_changed and frame.color_trc not in TRANSFERS


def decode_frames(
    path: str,
    container: InputContainer,
    stream: av.VideoStream,
    limits: Limits = READ_OPTIONS.limits,
    stamps: frozenset[int] | None = None,
    start: Literal["here", "keyframe"] = "here",
) -> Iterator[av.VideoFrame]:
    """Yield the frames of an open video from its current position, all of one size.

    With `stamps`, the time stamps of the requested frames, other frames may be skipped if no frame refers to them. With
    `start="keyframe"`, packets before the next keyframe are skipped: seeking may end before it, between frames that
    do not decode, in a Matroska file of several streams.

    Raises:
        UnreadableVideo: Decoding fails, the frame size changes, or there are more frames than the limits allow.
    """
    context = stream.codec_context
    context.options = {"max_pixels": str(limits.pixels)}
    context.skip_frame = "DEFAULT"
    requested = stamps if context.name in SKIPPABLE else None
    decoder = context if stream.metadata.get("alpha_mode") != "1" else alpha_decoder(stream, limits)
    is_threaded = context.thread_type == ThreadType.FRAME
    number = 0
    size = None
    # PyAV's own iterator, dropped half-way, never frees its last packet.
    try:
        with closing(cast(Packets, container.demux(stream))) as packets:
            for packet in packets:
                if start == "keyframe" and packet.size and not packet.is_keyframe:
                    continue
                start = "here"
                if requested is not None:
                    context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in requested else "NONREF"
                for frame in decoder.decode(packet):
                    if size is None and frame.format.name == "pal8" and not any(bytes(frame.planes[1])):
                        raise unreadable(path, "its palette is missing")  # all would be black
                    size = (frame.width, frame.height) if size is None else size
                    if size != (frame.width, frame.height):
                        raise unreadable(
                            path,
                            f"frame size changes from {size[0]} x {size[1]} to {frame.width} x {frame.height} after "
                            f"{number} frames. Encode the video again in one size.",
                        )
                    if number >= limits.frames:
                        raise over_limit(path, "has too many frames", limits, "frames")
                    if frame.is_corrupt and is_threaded:
                        raise unreadable(path, "is damaged")
                    yield frame
                    number += 1
    except (av.FFmpegError, OSError) as error:
        raise unreadable(path, f"decoding fails after {number} frames ({reason_of(error)})") from error


def check_indices(indices: Sequence[int]) -> None:
    """Raise ValueError for wrong frame numbers, a fault of the caller rather than the file."""
    if not indices or min(indices) < 0 or list(indices) != sorted(indices):
        raise ValueError(f"frame numbers must be non-decreasing and at least 0, got {list(indices)}")


def check_clip(path: str, frames: int, stream: av.VideoStream, pixel_format: PixelFormat, limits: Limits) -> None:
    """Raise UnreadableVideo if a clip takes more memory than the limits allow."""
    width, height = stream.codec_context.width, stream.codec_context.height
    size = frames * width * height * BYTES[pixel_format]
    if size > limits.clip_bytes:
        problem = f"{frames} frames of {width} x {height} pixels take {size:,} bytes"
        raise over_limit(path, problem, limits, "clip_bytes")


def threads_here() -> int:
    """Return the number of decoding threads: cores of this process up to a maximum, or one in a child process."""
    if multiprocessing.parent_process() is not None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_THREADS)


def _advance(frames: Iterator[av.VideoFrame], stamp: int, is_damaged: bool) -> tuple[av.VideoFrame | None, bool]:
    """Return the first frame at or after a time stamp, and whether any frame since the last keyframe is damaged.

    `is_damaged` is that of the frames before, since that keyframe.
    """
    for frame in frames:
        is_damaged = frame.is_corrupt or (is_damaged and not frame.key_frame)
        if frame.pts is not None and frame.pts >= stamp:
            return frame, is_damaged
    return None, False


def _is_threaded(stream: av.VideoStream) -> bool:
    return stream.codec_context.thread_type == ThreadType.FRAME


def _drain(path: str, stream: av.VideoStream) -> None:
    """Check the frames still in the decoder's threads, which the yielded frames may refer to."""
    if not _is_threaded(stream):
        return
    with reading(path, "decoding fails"), suppress(EOFError):  # no frame is left
        for frame in stream.codec_context.decode(None):
            if frame.is_corrupt:
                raise unreadable(path, "is damaged")


def _pixel_format(path: str, color: Literal["rgb", "gray"], stream: av.VideoStream) -> PixelFormat:
    stored = stream.codec_context.format
    has_more_bits = stored is not None and stored.components[0].bits > 8
    if color == "gray":
        return "gray16le" if has_more_bits else "gray"
    if stored is not None and has_more_bits and len(stored.components) == 1:
        raise unreadable(path, "expected RGB, got one channel of more than 8 bits. Read it as depth.")
    return "rgb24"

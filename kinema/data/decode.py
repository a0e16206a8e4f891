"""Video files: how many frames they have, and the frames that are asked for, decoding only what is needed.

Frames are numbered from 0 in the order in which they are shown. What a header announces is not trusted: frames are
counted by their packets and, near the end, by decoding.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import fsspec
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8, UInt16
from numpy import ndarray

SEEK_GAP = 64
"""Frames between two wanted ones from which looking for a keyframe may pay; below it, decoding on is as fast."""

SEEKABLE = frozenset({"mov", "matroska", "avi"})
"""Containers, by FFmpeg's names, that find a keyframe exactly; a stream such as MPEG-TS may land behind it."""


class UnreadableVideo(RuntimeError):
    """A file that cannot be decoded; the message names the file and the reason."""


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


def read_frames(path: str, indices: Sequence[int]) -> UInt8[ndarray, "frames height width 3"]:
    """The frames with these numbers, as RGB; one decoding pass, keyframes looked for only across wide gaps.

    Args:
        path: a file or any fsspec URL.
        indices: frame numbers in non-decreasing order; a number may stand several times.

    Raises:
        UnreadableVideo: the file is missing, is no video, or ends before the last wanted frame.
    """
    return _read(path, indices, "rgb24")


def read_grey_frames(
    path: str, indices: Sequence[int]
) -> UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"]:
    """As `read_frames`, for one channel: uint16 where the video stores more than 8 bits, else uint8."""
    with _stream(path) as (_, stream):
        deep = stream.codec_context.format is not None and stream.codec_context.format.components[0].bits > 8
    return _read(path, indices, "gray16le" if deep else "gray")


def count_frames(path: str) -> int:
    """How many frames decode: packets, corrected by decoding from the last keyframe on.

    Raises:
        UnreadableVideo: as `read_frames`, and where not one frame decodes.
    """
    timeline = read_timeline(path)
    with _stream(path) as (container, stream):
        before = 0
        if timeline.keyframes and timeline.keyframes[-1] > timeline.stamps[0]:
            last = timeline.keyframes[-1]
            container.seek(last, stream=stream, backward=True)
            before = bisect_left(timeline.stamps, last)
            tail = sum(frame.pts is not None and frame.pts >= last for frame in _decoded(path, container, stream))
        else:
            tail = sum(1 for _ in _decoded(path, container, stream))
    if before + tail == 0:
        raise UnreadableVideo(f"{path}: not one frame can be decoded")
    return before + tail


def frame_range(path: str, start_s: float, stop_s: float) -> tuple[int, int]:
    """The frames shown in [start_s, stop_s), counted from the first frame's time, as a half-open range of numbers."""
    timeline = read_timeline(path)
    if not timeline.stamps:
        raise UnreadableVideo(f"{path}: has no time stamps, so seconds say nothing; give start_frame and stop_frame")
    seconds = [(stamp - timeline.stamps[0]) / timeline.second for stamp in timeline.stamps]
    slack = 1e-6  # a stamp that is a whole number of time units must not fall out by rounding
    start, stop = bisect_left(seconds, start_s - slack), bisect_left(seconds, stop_s - slack)
    if start == stop:
        raise UnreadableVideo(
            f"{path}: no frame is shown between {start_s} s and {stop_s} s; the last one is at {seconds[-1]:.3f} s"
        )
    return start, stop


def read_timeline(path: str) -> Timeline:
    """Time stamps from the packets, without decoding."""
    stamps: list[int] = []
    keyframes: list[int] = []
    packets = 0
    with _stream(path) as (container, stream):
        # AVI stores no presentation times: where frames are reordered, FFmpeg's guess is in the wrong order.
        usable = not (container.format.name == "avi" and stream.codec_context.has_b_frames)
        seekable = not SEEKABLE.isdisjoint(container.format.name.split(","))
        second = 1 / float(stream.time_base) if stream.time_base else 1.0
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                packets += 1
                if packet.pts is None:
                    usable = False
                    continue
                stamps.append(packet.pts)
                if packet.is_keyframe:
                    keyframes.append(packet.pts)
        except (av.FFmpegError, OSError) as error:
            raise UnreadableVideo(f"{path}: breaks off after {packets} packets ({_reason(error)})") from error
    if not usable or not keyframes or len(set(stamps)) != len(stamps):
        return Timeline(stamps=(), keyframes=(), second=second)
    first = min(keyframes)  # what stands before it was cut off from its own keyframe, and does not decode
    return Timeline(
        stamps=tuple(sorted(stamp for stamp in stamps if stamp >= first)),
        keyframes=tuple(sorted(keyframes)) if seekable else (),
        second=second,
    )


def _read(path: str, indices: Sequence[int], pixel_format: str) -> ndarray:
    wanted = sorted(set(indices))
    if not wanted or wanted[0] < 0 or list(indices) != sorted(indices):
        raise ValueError(f"frame numbers must be non-decreasing and at least 0, got {list(indices)}")
    gaps = np.diff([0, *wanted])
    timeline = read_timeline(path) if gaps.max() > SEEK_GAP else None
    if timeline is not None and timeline.keyframes:
        pictures = _read_by_stamp(path, wanted, timeline, pixel_format)
    else:
        pictures = _read_in_order(path, wanted, pixel_format)
    return np.stack([pictures[i] for i in indices])


def _read_in_order(path: str, wanted: Sequence[int], pixel_format: str) -> dict[int, ndarray]:
    """Decode from the first frame on, convert only the wanted ones, stop after the last."""
    pictures: dict[int, ndarray] = {}
    needed = set(wanted)
    number = 0
    converter = VideoReformatter()
    with _stream(path) as (container, stream):
        for frame in _decoded(path, container, stream):
            if number in needed:
                pictures[number] = _picture(frame, pixel_format, converter)
                if number == wanted[-1]:
                    return pictures
            number += 1
    raise UnreadableVideo(f"{path}: frame {wanted[-1]} is wanted, but only {number} frames decode")


def _read_by_stamp(path: str, wanted: Sequence[int], timeline: Timeline, pixel_format: str) -> dict[int, ndarray]:
    """Jump to the keyframe before a wanted frame where that skips frames; frames are known by their time stamps."""
    if wanted[-1] >= len(timeline.stamps):
        raise UnreadableVideo(f"{path}: frame {wanted[-1]} is wanted, but it has {len(timeline.stamps)} frames")
    pictures: dict[int, ndarray] = {}
    with _stream(path) as (container, stream):
        converter = VideoReformatter()
        position = -1  # the last frame that was decoded; -1 before the first
        # One iterator from seek to seek: a packet may give several frames, and one begun anew would lose the rest.
        frames: Iterator[av.VideoFrame] = iter(())
        for number in wanted:
            stamp = timeline.stamps[number]
            key = timeline.keyframes[max(bisect_right(timeline.keyframes, stamp) - 1, 0)]
            if position < 0 or bisect_left(timeline.stamps, key) > position + 1:
                container.seek(key, stream=stream, backward=True)
                frames = _decoded(path, container, stream)
            frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= stamp), None)
            if frame is None or frame.pts != stamp:
                raise UnreadableVideo(f"{path}: frame {number} is wanted, but does not decode")
            pictures[number] = _picture(frame, pixel_format, converter)
            position = number
    return pictures


@contextmanager
def _stream(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """An open container and its first video stream that is not a cover picture."""
    try:
        source = fsspec.open(path, "rb").open() if "://" in path else path
        if source is path and not Path(path).is_file():
            raise UnreadableVideo(f"{path}: no such file")
        # Tags in a wrong encoding are common in the wild and say nothing about the picture.
        container = av.open(source, metadata_errors="ignore")
    except (av.FFmpegError, OSError, ValueError, ImportError) as error:
        raise UnreadableVideo(f"{path}: is not a video that can be read ({_reason(error)})") from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise UnreadableVideo(f"{path}: has no video stream")
        yield container, streams[0]


def _decoded(path: str, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    number = 0
    try:
        for frame in container.decode(stream):
            yield frame
            number += 1
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"{path}: decoding fails after {number} frames ({_reason(error)})") from error


def _picture(frame: av.VideoFrame, pixel_format: str, converter: VideoReformatter) -> ndarray:
    """Pixels as they are meant to be shown: PyAV hands out the stored picture and the angle to turn it by.

    The converter is one for all frames of a file: making a new one costs more than decoding a small picture.
    """
    picture = converter.reformat(frame, format=pixel_format).to_ndarray()
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarter_turns)) if quarter_turns else picture


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

"""Which frames to read: pure functions of integers, without files, tensors or global random state."""

from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import Field

from kinema.config import config

SamplingRule = Literal["segments", "uniform", "dense"]


class View(NamedTuple):
    """One of several clips that are spread over a video; the only one is its middle."""

    number: int
    of: int


ONLY = View(0, 1)


@config
class Sampling:
    """How a clip's frames are taken from a video; part of the model folder.

    Args:
        rule: `segments` cuts the video into equal parts and takes one frame of each; `uniform` takes frames at equal
            distances over the whole video, at most `interval` apart; `dense` takes them exactly `interval` apart.
        frames: frames in a clip.
        interval: from one frame to the next; None for `segments`.
        clips: views over time at test time; training always draws one.
    """

    rule: SamplingRule = "segments"
    frames: Annotated[int, Field(ge=1)]
    interval: Annotated[int, Field(ge=1)] | None = None
    clips: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        if self.rule == "segments" and self.interval is not None:
            raise ValueError(f"rule='segments' takes no interval, got interval={self.interval}; remove it")
        if self.rule != "segments" and self.interval is None:
            raise ValueError(f"rule={self.rule!r} requires an interval of at least 1 frame")

    def indices(self, num_frames: int, rng: np.random.Generator | None) -> Int64[ndarray, " frames"]:
        """Frame numbers of one clip, drawn with `rng`, or in the middle where it is None."""
        return self._indices(num_frames, rng, ONLY)

    def views(self, num_frames: int) -> Int64[ndarray, "clips frames"]:
        """Frame numbers of each view of a test."""
        views = (View(number, self.clips) for number in range(self.clips))
        return np.stack([self._indices(num_frames, None, view) for view in views])

    def _indices(self, num_frames: int, rng: np.random.Generator | None, view: View) -> Int64[ndarray, " frames"]:
        if self.interval is None:
            return segment_indices(num_frames, self.frames, rng, view)
        take = uniform_indices if self.rule == "uniform" else dense_indices
        return take(num_frames, self.frames, self.interval, rng, view)


def segment_edges(num_frames: int, clip_frames: int) -> tuple[Int64[ndarray, " frames"], Int64[ndarray, " frames"]]:
    """First frame, and one past the last, of each segment: [floor(ni/T), max(floor(ni/T) + 1, floor(n(i+1)/T))).

    A video shorter than the clip has segments of one frame, some of them the same: those frames are repeated.
    """
    _check(num_frames, clip_frames)
    parts = np.arange(clip_frames, dtype=np.int64)
    first = parts * num_frames // clip_frames
    return first, np.maximum(first + 1, (parts + 1) * num_frames // clip_frames)


def segment_indices(
    num_frames: int, clip_frames: int, rng: np.random.Generator | None, view: View = ONLY
) -> Int64[ndarray, " frames"]:
    """One frame of each of `clip_frames` equal segments (TSN, arXiv:1608.00859; thesis 2.4.2).

    Args:
        num_frames: frames in the video, at least 1.
        clip_frames: frames wanted.
        rng: draws a frame uniformly inside each segment; None takes the view's.
        view: number v of V takes the frame at the share (2v + 1) / 2V of each segment, the earlier one where two meet
            there; so the only one takes the middle (the mean, rounded down).

    Returns:
        Non-decreasing frame numbers in [0, num_frames).
    """
    first, stop = segment_edges(num_frames, clip_frames)
    place = first + ((stop - first) * (2 * view.number + 1) - 1) // (2 * view.of)
    return place if rng is None else rng.integers(first, stop)


def uniform_indices(
    num_frames: int,
    clip_frames: int,
    largest_interval: int,
    rng: np.random.Generator | None,
    view: View = ONLY,
) -> Int64[ndarray, " frames"]:
    """Frames at equal distances (thesis 3.4.2): over the whole video, or over a part of it where that is longer than
    `largest_interval` allows; the part is drawn with `rng`, or is the view's.

    DEVIATION: a fixed interval of 32, as the thesis says, would need 512 frames for 16; most clips are shorter, and
    code of that kind repeats their last frame. Here the interval shrinks until the clip spans the video.

    Returns:
        Non-decreasing frame numbers in [0, num_frames), rounded half up.
    """
    _check(num_frames, clip_frames)
    steps = max(clip_frames - 1, 1)
    span = min(largest_interval * (clip_frames - 1), num_frames - 1)
    place = np.arange(clip_frames, dtype=np.int64)
    return _start(num_frames - span, rng, view) + (2 * place * span + steps) // (2 * steps)


def dense_indices(
    num_frames: int,
    clip_frames: int,
    interval: int,
    rng: np.random.Generator | None,
    view: View = ONLY,
) -> Int64[ndarray, " frames"]:
    """Frames exactly `interval` apart, from a drawn place or the view's; a video too short repeats its last frame."""
    _check(num_frames, clip_frames)
    span = min(interval * (clip_frames - 1), num_frames - 1)
    place = np.arange(clip_frames, dtype=np.int64)
    return np.minimum(_start(num_frames - span, rng, view) + place * interval, num_frames - 1)


def _check(num_frames: int, clip_frames: int) -> None:
    if num_frames < 1:
        raise ValueError(f"cannot take {clip_frames} frames from a video of {num_frames}")


def _start(choices: int, rng: np.random.Generator | None, view: View) -> int:
    """One of the first frames that a clip can have: drawn, or of views equally far apart from the first to the last."""
    if rng is not None:
        return int(rng.integers(choices))
    if view.of == 1:
        return (choices - 1) // 2
    return (2 * view.number * (choices - 1) + view.of - 1) // (2 * (view.of - 1))

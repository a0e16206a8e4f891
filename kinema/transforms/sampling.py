"""Frame sampling rules: pure functions of integers, without files, tensors or global random state."""

from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import Field

from kinema.config import config

SamplingRule = Literal["segments", "uniform", "dense"]
TestFrame = Literal["mean", "tsn"]
"""Frame of a segment at test time."""
TrainFrames = Literal["drawn", "as-tested"]
"""Frames of a training clip."""


class View(NamedTuple):
    """One of several clips spread over a video; the only one is in the middle."""

    number: int
    of: int


ONLY = View(0, 1)


@config
class Sampling:
    """Rule that selects the frames of a clip; part of the model folder.

    Attributes:
        rule: `segments` divides the video into equal parts and takes one frame of each. `uniform` takes evenly spaced
            frames over the whole video, at most `interval` apart. `dense` takes them exactly `interval` apart.
        frames: Number of frames per clip.
        interval: Distance between frames; None for `segments`.
        clips: Number of clips per video at test time; training draws one.
        test_frame: Frame of a segment at test time: the `mean` of its frame numbers, rounded down, as in UMDR's and
            De+Recouple's code; or `tsn`, the rule of TSN's code (mmaction2), which takes the same frame or the next.
        train_frames: `drawn` at random where the rule leaves a choice, or `as-tested`: those of the middle clip.
    """

    rule: SamplingRule = "segments"
    frames: Annotated[int, Field(ge=1)]
    interval: Annotated[int, Field(ge=1)] | None = None
    clips: Annotated[int, Field(ge=1)] = 1
    test_frame: TestFrame = "mean"
    train_frames: TrainFrames = "drawn"

    def __post_init__(self) -> None:
        if self.rule == "segments" and self.interval is not None:
            raise ValueError(f"rule='segments' takes no interval, got interval={self.interval}; remove it")
        if self.rule != "segments" and self.interval is None:
            raise ValueError(f"rule={self.rule!r} requires an interval of at least 1 frame")
        if self.rule != "segments" and self.test_frame != "mean":
            raise ValueError(f"test_frame={self.test_frame!r} is for rule='segments'; got rule={self.rule!r}")

    def indices(self, num_frames: int, rng: np.random.Generator | None) -> Int64[ndarray, " frames"]:
        """Return the frame numbers of one clip, drawn with `rng`, or in the middle if it is None."""
        return self._indices(num_frames, rng if self.train_frames == "drawn" else None, ONLY)

    def views(self, num_frames: int) -> Int64[ndarray, "clips frames"]:
        """Return the frame numbers of each clip of a test."""
        views = (View(number, self.clips) for number in range(self.clips))
        return np.stack([self._indices(num_frames, None, view) for view in views])

    def _indices(self, num_frames: int, rng: np.random.Generator | None, view: View) -> Int64[ndarray, " frames"]:
        if self.interval is None:
            return segment_indices(num_frames, self.frames, rng, view, test_frame=self.test_frame)
        take = uniform_indices if self.rule == "uniform" else dense_indices
        return take(num_frames, self.frames, self.interval, rng, view)


def segment_edges(num_frames: int, clip_frames: int) -> tuple[Int64[ndarray, " frames"], Int64[ndarray, " frames"]]:
    """Return the half-open range of each segment: [floor(ni/T), max(floor(ni/T) + 1, floor(n(i+1)/T))).

    A video shorter than the clip has segments of one frame, some of them the same: those frames are repeated.
    """
    _check(num_frames, clip_frames)
    parts = np.arange(clip_frames, dtype=np.int64)
    first = parts * num_frames // clip_frames
    return first, np.maximum(first + 1, (parts + 1) * num_frames // clip_frames)


def segment_indices(
    num_frames: int,
    clip_frames: int,
    rng: np.random.Generator | None,
    view: View = ONLY,
    *,
    test_frame: TestFrame = "mean",
) -> Int64[ndarray, " frames"]:
    """Return one frame of each of `clip_frames` equal segments, as in the public code of UMDR and De+Recouple.

    The thesis does not say how chapter 2 samples its 32 frames.

    Args:
        num_frames: Number of frames in the video, at least 1.
        clip_frames: Number of frames to select.
        rng: Generator that draws a frame uniformly inside each segment; None for the frames of `view`.
        view: View v of V takes the frame at the fraction (2v + 1) / 2V of each segment, the earlier one where two meet
            there; the only view takes the middle (the mean, rounded down).
        test_frame: `tsn` rounds that place down for segments of n / T frames, without rounding their edges first. Of
            two frames it takes the second, where `mean` takes the first.

    Returns:
        Non-decreasing frame numbers in [0, num_frames).
    """
    first, stop = segment_edges(num_frames, clip_frames)
    if rng is not None:
        return rng.integers(first, stop)
    if test_frame == "tsn":
        parts = 2 * view.of * np.arange(clip_frames, dtype=np.int64) + 2 * view.number + 1
        return parts * num_frames // (2 * view.of * clip_frames)
    place: Int64[ndarray, " frames"] = first + ((stop - first) * (2 * view.number + 1) - 1) // (2 * view.of)
    return place


def uniform_indices(
    num_frames: int, clip_frames: int, largest_interval: int, rng: np.random.Generator | None, view: View = ONLY
) -> Int64[ndarray, " frames"]:
    """Return evenly spaced frames, at most `largest_interval` apart.

    They span the whole video, or a part of it if the video is too long; `rng` or the view places the part.

    DEVIATION: section 3.4.2 sets the interval to 32, so that 16 frames span 481; most clips are shorter, and code of
    that kind repeats their last frame. Here the interval shrinks until the clip spans the video. `dense` keeps it.
    DEVIATION: section 3.4.2 uses the same frames in training and inference. Here they are the same up to 481 frames;
    from 482 on, training draws where the clip starts, and tests take the middle. `train_frames="as-tested"` takes it
    in training too.

    Returns:
        Non-decreasing frame numbers in [0, num_frames), rounded half up.
    """
    _check(num_frames, clip_frames)
    steps = max(clip_frames - 1, 1)
    span = min(largest_interval * (clip_frames - 1), num_frames - 1)
    place = np.arange(clip_frames, dtype=np.int64)
    return _start(num_frames - span, rng, view) + (2 * place * span + steps) // (2 * steps)


def dense_indices(
    num_frames: int, clip_frames: int, interval: int, rng: np.random.Generator | None, view: View = ONLY
) -> Int64[ndarray, " frames"]:
    """Return frames exactly `interval` apart, placed by `rng` or the view; a short video repeats its last frame."""
    _check(num_frames, clip_frames)
    span = min(interval * (clip_frames - 1), num_frames - 1)
    place = np.arange(clip_frames, dtype=np.int64)
    return np.minimum(_start(num_frames - span, rng, view) + place * interval, num_frames - 1)


def _check(num_frames: int, clip_frames: int) -> None:
    if num_frames < 1:
        raise ValueError(f"cannot take {clip_frames} frames from a video of {num_frames}")


def _start(choices: int, rng: np.random.Generator | None, view: View) -> int:
    """Return a clip's first frame: drawn, or that of a view, evenly spaced from the first possible to the last."""
    if rng is not None:
        return int(rng.integers(choices))
    if view.of == 1:
        return (choices - 1) // 2
    return (2 * view.number * (choices - 1) + view.of - 1) // (2 * (view.of - 1))

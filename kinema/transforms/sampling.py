"""Frame sampling: rules over a number of frames, and the times at which those frames are displayed.

All are pure functions of numbers, without files, tensors or global random state. The rules count frames. Where a file's
frames are unevenly spaced, or its rate is not that of the model, they count the places of a grid that is even in time.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from pydantic import Field

from kinema.config import Count, Positive, config

SamplingRule = Literal["segments", "uniform", "dense"]
TestFrame = Literal["mean", "tsn"]
"""Frame of a segment at test time."""
TrainFrames = Literal["drawn", "as-tested"]
"""Frames of a training clip."""
Frames = Annotated[int, Field(ge=1, le=2**16)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]
NumClips = Annotated[int, Field(ge=1, le=1000)]
Stamps = Int64[ndarray, " frames"]

UNEVEN_STEP = 0.25
"""Relative deviation from the median above which a frame interval counts as uneven."""
UNEVEN_SHARE = 0.02
"""Share of uneven frame intervals above which the frame rate counts as variable; tolerates a few dropped frames."""
SAME_RATE = 0.02
"""Relative difference up to which two frame rates count as the same."""
MAX_PLACES = 10_000_000
"""Largest number of places of a grid; stamps of a damaged file may be microseconds and years apart."""
BEGUN = 0.1
"""Part of a frame interval by which a frame may begin late and still be the one displayed; tolerates jitter."""


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
        interval: Distance between frames in frames; None for `segments`.
        interval_s: Distance between frames in seconds, in place of `interval`.
        rate: Frame rate that `interval` counts in [1/s]; a file of another rate spans the same time. None counts the
            frames of each file, whatever their rate.
        clips: Number of clips per video at test time; training draws one.
        test_frame: Frame of a segment at test time: the `mean` of its frame numbers, rounded down, as in UMDR's and
            De+Recouple's code; or `tsn`, the rule of TSN's code (mmaction2), which takes the same frame or the next.
        train_frames: `drawn` at random where the rule leaves a choice, or `as-tested`: those of the middle clip.
    """

    rule: SamplingRule = "segments"
    frames: Frames
    interval: Count | None = None
    interval_s: Seconds | None = None
    rate: Positive | None = None
    clips: NumClips = 1
    test_frame: TestFrame = "mean"
    train_frames: TrainFrames = "drawn"

    def __post_init__(self) -> None:
        given = [name for name in ("interval", "interval_s") if getattr(self, name) is not None]
        if self.rule == "segments" and given:
            raise ValueError(f"rule='segments' takes no interval, got {given[0]}={getattr(self, given[0])}; remove it")
        if self.rule != "segments" and len(given) != 1:
            got = " and ".join(given) or "neither"
            raise ValueError(f"rule={self.rule!r} requires an interval of at least 1 frame, or interval_s; got {got}")
        if self.rule != "segments" and self.test_frame != "mean":
            raise ValueError(f"test_frame={self.test_frame!r} is for rule='segments'; got rule={self.rule!r}")

    def on(self, times: "FrameTimes") -> tuple["Sampling", "Grid"]:
        """Return the rule in places of a grid, and the grid over frames displayed at these times.

        Raises:
            ValueError: `interval_s` is set and the times of the frames are unknown.
        """
        if self.interval_s is None:
            rule, rate = self, None if self.interval is None else self.rate
        elif times.rate is None:
            raise ValueError(f"interval_s={self.interval_s} requires time stamps, or the column rate in the manifest")
        else:
            # The whole number of frames nearest to the interval, so that most files keep their own frames.
            interval = max(1, round(self.interval_s * times.rate))
            rule, rate = replace(self, interval=interval, interval_s=None), interval / self.interval_s
        return rule, times.grid(rate)

    def indices(self, num_frames: int, rng: np.random.Generator | None) -> Int64[ndarray, " frames"]:
        """Return the frame numbers of one clip, drawn with `rng`, or in the middle if it is None."""
        return self._indices(num_frames, rng if self.train_frames == "drawn" else None, ONLY)

    def views(self, num_frames: int) -> Int64[ndarray, "clips frames"]:
        """Return the frame numbers of each clip of a test."""
        views = []
        for number in range(self.clips):
            views.append(self._indices(num_frames, None, View(number, self.clips)))
        return np.stack(views)

    def _indices(self, num_frames: int, rng: np.random.Generator | None, view: View) -> Int64[ndarray, " frames"]:
        if self.interval_s is not None:
            raise ValueError("interval_s counts seconds; use the rule that `on` returns for a file")
        if self.interval is None:
            return segment_indices(num_frames, self.frames, rng, view, test_frame=self.test_frame)
        take = uniform_indices if self.rule == "uniform" else dense_indices
        return take(num_frames, self.frames, self.interval, rng, view)


class Grid(NamedTuple):
    """Places at even times, each with the frame displayed then.

    Attributes:
        first: Number of the first frame.
        num_places: Number of places.
        step_s: Time from place to place [s].
        begins_s: Time at which each frame begins, from the first one [s]; None if the places are the frames themselves.
    """

    first: int
    num_places: int
    step_s: float = 0.0
    begins_s: Float64[ndarray, " frames"] | None = None

    def frames(self, places: Int64[ndarray, "*shape"]) -> Int64[ndarray, "*shape"]:
        """Return the number of the frame displayed at each place."""
        if self.begins_s is None:
            return self.first + places
        return self.first - 1 + np.searchsorted(self.begins_s, places * self.step_s, side="right")


@dataclass(frozen=True, kw_only=True)
class FrameTimes:
    """Frames of a sample and the times at which they are displayed.

    Attributes:
        first: Number of the first frame.
        num_frames: Number of frames.
        rate: Mean number of frames per second; None without times.
        stamps: Time of each frame, in units of 1 / `second`; None for an even rate.
        second: Number of units per second.
    """

    first: int
    num_frames: int
    rate: float | None = None
    stamps: Stamps | None = None
    second: float = 1.0

    @classmethod
    def stamped(cls, first: int, stamps: Stamps, second: float) -> "FrameTimes":
        """Return frames with strictly increasing stamps; these are kept only if they are uneven."""
        if len(stamps) < 2:
            return cls(first=first, num_frames=len(stamps))
        rate, uneven = rhythm(stamps, second)
        kept = stamps if uneven > UNEVEN_SHARE else None
        return cls(first=first, num_frames=len(stamps), rate=rate, stamps=kept, second=second)

    def grid(self, rate: float | None) -> Grid:
        """Return the grid of this rate, or of the file's own rate if it is None; the frames themselves if they fit."""
        if self.rate is None or (self.stamps is None and (rate is None or same_rate(rate, self.rate))):
            return Grid(self.first, self.num_frames)
        if self.stamps is None:
            begins = np.arange(self.num_frames) / self.rate
            tick = 0.0
        else:
            begins = (self.stamps - self.stamps[0]) / self.second
            tick = 0.5 / self.second
        usual = float(np.median(np.diff(begins))) if self.num_frames > 1 else 1 / self.rate
        # The last frame is displayed for about as long as the others.
        duration = float(begins[-1]) + 1 / self.rate
        # At least as many places as frames.
        step = 1 / max(1 / usual, self.rate) if rate is None else 1 / rate
        step = max(step, duration / MAX_PLACES)
        slack = max(tick, BEGUN * min(usual, step))
        return Grid(self.first, max(1, int(np.ceil((duration - slack) / step))), step, begins - slack)


def rhythm(stamps: Stamps, second: float) -> tuple[float, float]:
    """Return the mean frame rate [1/s] of at least two stamps, and how uneven they are.

    The latter is the share of frame intervals that differ from the median by more than a quarter or, if it is larger,
    the share of the duration by which a frame is off its place at the mean rate.
    """
    steps = np.diff(stamps)
    total = int(stamps[-1] - stamps[0])
    mean = total / len(steps)
    if int(steps.max()) == int(steps.min()):
        return second / mean, 0.0
    median = float(np.median(steps))
    # A container with coarse time units, such as milliseconds, rounds every stamp by up to one unit.
    share = float(np.mean(np.abs(steps - median) > max(UNEVEN_STEP * median, 1.5)))
    drift = float(np.abs(stamps - stamps[0] - mean * np.arange(len(stamps))).max())
    return second / mean, max(share, drift / total if drift > max(mean, 1.5) else 0.0)


def same_rate(first: float, second: float) -> bool:
    """Return whether two frame rates differ by at most 2 %."""
    return abs(first - second) <= SAME_RATE * max(first, second)


def group_rates(rates: Iterable[float]) -> dict[float, int]:
    """Return the number of files per frame rate, rates that are the same counted under the most frequent of them."""
    groups: list[Counter[float]] = []
    for rate in sorted(rates):
        if not groups or not same_rate(min(groups[-1]), rate):
            groups.append(Counter())
        groups[-1][rate] += 1
    return {group.most_common(1)[0][0]: group.total() for group in groups}


def _uneven(times: Float64[ndarray, " frames"]) -> float:
    return rhythm(np.rint(times * 1e6).astype(np.int64), 1e6)[1]


class Pairing(NamedTuple):
    """Frames of a second file that were recorded with those of a first.

    Attributes:
        numbers: Number in the second file for each frame of the first. It is beyond the last frame, or negative, where
            the second file ends or begins more than half a frame away.
        start: First frame that has a counterpart.
        stop: End of the range to sample from. Frames after the end of a second file that is too short count as missing,
            and are part of the range.
    """

    numbers: Int64[ndarray, " frames"]
    start: int
    stop: int


def pair_frames(times: Float64[ndarray, " frames"], other: Float64[ndarray, " others"]) -> Pairing | None:
    """Return the frames with the nearest times [s, on one clock], or None if frames of equal number belong together.

    Equal numbers of frames at two different, even rates come from a wrong header, and belong together by number. Files
    that do not overlap have no common clock, and are paired from their first frames on.
    """
    if len(times) < 2 or len(other) < 2:
        return None
    if len(times) == len(other) and np.abs(times - other).max() <= np.diff(times).min() / 4:
        return None
    spans = [float(one[-1] - one[0]) for one in (times, other)]
    if len(times) == len(other) and not same_rate(*spans) and max(map(_uneven, (times, other))) <= UNEVEN_SHARE:
        return None
    if times[-1] < other[0] or other[-1] < times[0]:
        other = other - other[0] + times[0]
    # Of two frames that are equally near, the earlier one, however their times are rounded.
    middle = (other[1:] + other[:-1]) / 2 + BEGUN / 2 * np.diff(other)
    numbers = np.searchsorted(middle, times, side="left")
    reach = (0.5 + BEGUN) * max(float(np.median(np.diff(one))) for one in (times, other))
    early, late = times < other[0] - reach, times > other[-1] + reach
    numbers = np.where(early, -1, np.where(late, len(other) - 1 + np.cumsum(late), numbers))
    is_shorter = spans[1] < spans[0] - reach
    return Pairing(numbers, int(early.sum()), len(times) - (0 if is_shorter else int(late.sum())))


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

"""Percentile bootstrap of metrics over clips, or over groups of clips."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy import ndarray

DRAWS_AT_ONCE = 4_000_000
"""Number of draws held in memory at a time."""


class Interval(NamedTuple):
    """Low and high end of an interval."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Settings of Efron's percentile bootstrap.

    Attributes:
        over: Unit drawn with replacement: single clips, or all clips of a group or subject together, if they are
            correlated.
        resamples: Number of resamples.
        level: Share of the resamples inside the interval [%].
        seed: Random seed.
    """

    over: Literal["clip", "group", "subject"] = "clip"
    resamples: int = 2000
    level: float = 95.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"bootstrap: resamples={self.resamples}; expected at least 1")
        if not 0 < self.level < 100:
            raise ValueError(f"bootstrap: level={self.level}; expected a percentage between 0 and 100")


BOOTSTRAP = Bootstrap()


def mean_interval(
    values: Float[ndarray, " samples"] | Bool[ndarray, " samples"],
    groups: Int64[ndarray, " samples"] | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Interval:
    """Return the interval of the mean of one number per clip. Without group numbers, clips are drawn one by one."""
    means = [
        counts @ values.astype(np.float64) / counts.sum(axis=1) for counts in _times_drawn(values, groups, bootstrap)
    ]
    return _percentiles(np.concatenate(means), bootstrap)


def mean_class_interval(
    correct: Bool[ndarray, " samples"],
    targets: Int64[ndarray, " samples"],
    groups: Int64[ndarray, " samples"] | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Interval:
    """Return the interval of the mean class accuracy (0 to 1). Classes that are not drawn are excluded."""
    of_class = np.eye(targets.max() + 1)[targets][:, np.unique(targets)]
    means = []
    for counts in _times_drawn(correct, groups, bootstrap):
        drawn = counts @ of_class
        shares = np.full_like(drawn, np.nan)
        np.divide((counts * correct) @ of_class, drawn, out=shares, where=drawn > 0)
        means.append(np.nanmean(shares, axis=1))
    return _percentiles(np.concatenate(means), bootstrap)


def _times_drawn(
    values: ndarray, groups: Int64[ndarray, " samples"] | None, bootstrap: Bootstrap
) -> Iterator[Float[ndarray, "resamples samples"]]:
    """Yield the number of times that each clip is in each resample, a block of resamples at a time."""
    samples = len(values)
    place = np.arange(samples) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(place.max()) + 1
    rng = np.random.default_rng(bootstrap.seed)
    at_once = max(1, DRAWS_AT_ONCE // samples)
    for first in range(0, bootstrap.resamples, at_once):
        rows = min(at_once, bootstrap.resamples - first)
        drawn = rng.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield times[:, place].astype(np.float64)


def _percentiles(resampled: Float[ndarray, " resamples"], bootstrap: Bootstrap) -> Interval:
    outside = (100 - bootstrap.level) / 2
    low, high = np.percentile(resampled, [outside, 100 - outside])
    return Interval(float(low), float(high))

"""Percentile bootstrap of metrics over clips, or over groups of clips."""

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy import ndarray
from pydantic import Field

from kinema.config import config

DRAWS_AT_ONCE = 4_000_000
"""Number of draws per block of resamples, which bounds the memory."""


class Interval(NamedTuple):
    """Low and high end of an interval."""

    low: float
    high: float


@config
class Bootstrap:
    """Settings of Efron's percentile bootstrap.

    Attributes:
        over: Unit that is resampled: single clips, or all clips of a group or subject, which are correlated. `auto`
            takes the groups of own data where every clip has one, and clips elsewhere.
        resamples: Number of resamples.
        level: Confidence level [%].
        seed: Random seed.
    """

    over: Literal["auto", "clip", "group", "subject"] = "auto"
    resamples: Annotated[int, Field(ge=1)] = 2000
    level: Annotated[float, Field(gt=0, lt=100)] = 95.0
    seed: int = 0


BOOTSTRAP = Bootstrap()


def mean_interval(
    values: Float[ndarray, " samples"] | Bool[ndarray, " samples"],
    groups: Int64[ndarray, " samples"] | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Interval:
    """Return the interval of the mean of one number per clip. Without group numbers, clips are drawn one by one."""
    means = [
        counts @ values.astype(np.float64) / counts.sum(axis=1)
        for counts in _resample_counts(values, groups, bootstrap)
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
    for counts in _resample_counts(correct, groups, bootstrap):
        drawn = counts @ of_class
        shares = np.full_like(drawn, np.nan)
        np.divide((counts * correct) @ of_class, drawn, out=shares, where=drawn > 0)
        means.append(np.nanmean(shares, axis=1))
    return _percentiles(np.concatenate(means), bootstrap)


def _resample_counts(
    values: ndarray, groups: Int64[ndarray, " samples"] | None, bootstrap: Bootstrap
) -> Iterator[Float[ndarray, "resamples samples"]]:
    """Yield how often each resample contains each clip, one block of resamples at a time."""
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

"""Frame rates of files, and how the times of RGB and depth agree, as `prepare` and `check` report them."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from kinema.transforms.sampling import BEGUN, UNEVEN_SHARE, group_rates, rhythm, same_rate
from kinema.video.container import Timeline

RATE_DIGITS = 3
"""Decimals of a frame rate in a manifest."""


class FileTimes(NamedTuple):
    """Times of a file's frames.

    Attributes:
        frames: Number of frames.
        rate: Mean frame rate [1/s]; None if unknown.
        uneven: How uneven the frames are, as `rhythm` returns it.
        first_s: Time of the first frame on the clock of files recorded together [s]; None without time stamps.
        last_s: Time of the last frame [s].
    """

    frames: int
    rate: float | None = None
    uneven: float = 0.0
    first_s: float | None = None
    last_s: float | None = None

    @classmethod
    def of(cls, timeline: Timeline | None, frames: int) -> "FileTimes":
        """Return the times of a file with this number of frames that decode."""
        stamps = () if timeline is None else (timeline.stamps or timeline.pace)
        if timeline is None or len(stamps) < 2:
            return cls(frames)
        rate, uneven = rhythm(np.array(stamps), timeline.second)
        if not timeline.stamps:
            return cls(frames, rate, uneven)
        first, last = timeline.common_s[[0, -1]].tolist()
        return cls(frames, rate, uneven, first, last)

    @property
    def seconds(self) -> float | None:
        """Time from the first frame to the end of the last [s]; None without time stamps."""
        if self.first_s is None or self.last_s is None or self.rate is None:
            return None
        return self.last_s - self.first_s + 1 / self.rate

    @property
    def even_rate(self) -> float | None:
        """Frame rate as a manifest stores it; None if it is unknown or varies."""
        return None if self.rate is None or self.uneven > UNEVEN_SHARE else round(self.rate, RATE_DIGITS)


def pair_findings(rgb: FileTimes, depth: FileTimes, rgb_path: str) -> list[tuple[str, str]]:
    """Return kind and sentence of each disagreement of depth with its RGB.

    Where both have time stamps, depth is paired by time: another start or rate is worth knowing, and another number of
    frames is a fault only if depth ends before RGB.
    """
    unequal = ("unequal lengths", f"has {depth.frames} frames, but {rgb_path} has {rgb.frames}")
    if rgb.first_s is None or rgb.last_s is None or depth.first_s is None or depth.last_s is None:
        return [unequal] if rgb.frames != depth.frames else []
    assert rgb.rate is not None
    assert depth.rate is not None
    spans = rgb.last_s - rgb.first_s, depth.last_s - depth.first_s
    rates = f"has {depth.rate:.4g} frames per second, but {rgb_path} has {rgb.rate:.4g}"
    is_even = rgb.even_rate is not None and depth.even_rate is not None
    if is_even and rgb.frames == depth.frames and not same_rate(*spans):
        return [("pair rates", f"{rates}, with equally many frames: they are paired by number, not by time")]
    found = (
        [] if not is_even or same_rate(rgb.rate, depth.rate) else [("pair rates", f"{rates}: they are paired by time")]
    )
    offset, half = depth.first_s - rgb.first_s, 0.5 / min(rgb.rate, depth.rate)
    if depth.first_s > rgb.last_s or rgb.first_s > depth.last_s:
        problem = f"starts {offset:+.3f} s from the start of {rgb_path}, and they do not overlap"
        found.append(("pair offset", f"{problem}: without a common clock, they are paired from their first frames on"))
        offset = 0.0
    elif abs(offset) > half:
        how = "later" if offset > 0 else "earlier"
        problem = f"starts {abs(offset) * 1000:.0f} ms {how} than {rgb_path}"
        found.append(("pair offset", f"{problem}: they are paired by time, and only frames of both are used"))
    missing = spans[0] - spans[1] - offset
    if min(missing, spans[0] - spans[1]) > (1 + 2 * BEGUN) * half:
        found.append((unequal[0], f"{unequal[1]}; depth ends {missing * 1000:.0f} ms earlier"))
    return found


def describe_rates(rates: Iterable[float | None]) -> str:
    """Return the number of files per frame rate, None for a varying one; empty without rates."""
    given = list(rates)
    counts = [f"{rate:.4g}/s: {count:,}" for rate, count in group_rates(filter(None, given)).items()]
    varying = given.count(None)
    return ", ".join([*counts, *([f"varying: {varying:,}"] if varying else [])])

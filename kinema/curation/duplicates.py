"""Near-duplicates: a signature of each video, and the pairs of videos that are copies of one recording.

A signature is 32 gray pictures of 16 x 16 pixels, each the mean over one thirty-second of the video. Two videos are
compared by their appearance (the mean over time) and by their motion (what is left without it): a copy that was encoded
anew, scaled, mirrored, made brighter or trimmed by up to a quarter agrees in both, another clip of the same person in
the same place does not agree in its motion. Cropping by more than a few percent and added borders are not seen through.
"""

import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

TIMES, SIDE = 32, 16
MOST_STRETCHES = 128
"""Means that are kept while a video is read; then two become one, so that the memory does not grow with its length."""
PICTURES_OF_A_STRETCH = 8
"""Pictures that its mean is taken over where it has more frames."""
LEAST_RANGE = 3.0
"""Gray levels between the darkest and the brightest, below which a video shows nothing that could be compared."""
STILL = 1.0
"""Root mean square of motion, in levels of 255, below which it is noise; videos made by cameras have at least 2."""

COARSE_TIMES, COARSE_SIDE = 8, 8
COARSE_SPANS = ((0.0, 1.0), (0.0, 0.9), (0.1, 1.0), (0.0, 0.8), (0.2, 1.0), (0.1, 0.9))
"""Parts of one video that are held against the whole of the other, so that trimmed copies become candidates."""
COARSE_MOTION = 0.7
"""Agreement from which a pair is looked at closely. Copies that are found at all have at least 0.77."""
BLOCK = 2**24
"""Pairs that are compared coarsely at once: 64 MB."""
CANDIDATES = 8
"""Pairs of one video that are looked at closely, the most alike first."""
FINE_TIMES = 16
FINE_CUTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
FINE_SPANS = tuple((a, 1 - b) for a, b in product(FINE_CUTS, FINE_CUTS) if a + b < 0.31)
FINE_SHIFTS = (-0.03, -0.015, 0.0, 0.015, 0.03)


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Correlations from which two videos are called copies of one.

    Measured on J-HMDB, IsoGD, MSR-Action3D and the built-in moves (187,000 pairs of different clips). In RGB, other
    clips have a motion of at most 0.83 (another swing in the same studio); where one person repeats one gesture in one
    take, 0.96. Copies have a median of 0.99. Depth knows no clothes: the same motion by another body reaches 0.95.

    Args:
        motion: of what changes over time.
        appearance: of the means over time.
        still: of the means over time, for two videos in which nothing moves.
    """

    motion: float
    appearance: float
    still: float = 0.995


LIKENESS = {"rgb": Likeness(motion=0.92, appearance=0.95), "depth": Likeness(motion=0.95, appearance=0.96)}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two videos that are copies of one, by their places in the two rows that were compared.

    Args:
        motion, appearance: correlations; motion is 1 where nothing moves in either.
        mirrored: whether the second is compared left to right.
    """

    first: int
    second: int
    motion: float
    appearance: float
    mirrored: bool


class SignatureBuilder:
    """Takes the frames of a video one by one, as small pictures, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self._width = 1  # frames of a stretch
        self._sums: list[Float[ndarray, "side side"]] = []
        self._counts: list[int] = []

    def wants(self, number: int) -> bool:
        """Whether the frame with this number is needed."""
        return number % max(1, self._width // PICTURES_OF_A_STRETCH) == 0

    def add(self, number: int, picture: Float[ndarray, "side side"]) -> None:
        """Take a frame; numbers increase."""
        place = number // self._width
        if place >= MOST_STRETCHES:
            self._sums = [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)]
            self._counts = [a + b for a, b in zip(self._counts[::2], self._counts[1::2], strict=True)]
            self._width *= 2
            place = number // self._width
        if place == len(self._sums):
            self._sums.append(picture.astype(np.float64))
            self._counts.append(1)
        else:
            self._sums[place] += picture
            self._counts[place] += 1

    def signature(self, frames: int) -> str:
        """The signature of a video of so many frames, as text; empty where it shows nothing that could be compared."""
        if not self._sums:
            return ""
        means = np.stack(self._sums) / np.array(self._counts)[:, None, None]
        edges = np.minimum(np.arange(len(means) + 1) * self._width, frames).astype(np.float64)
        edges[-1] = frames
        # The mean over a part of the time is a difference of integrals; between edges an integral is a straight line.
        integral = np.concatenate([np.zeros((1, SIDE * SIDE)), np.cumsum(_rows(means) * np.diff(edges)[:, None], 0)])
        at = np.linspace(0, frames, TIMES + 1)
        place = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(means) - 1)
        share = ((at - edges[place]) / np.maximum(edges[place + 1] - edges[place], 1e-9))[:, None]
        parts = np.diff(integral[place] * (1 - share) + integral[place + 1] * share, axis=0) * TIMES / frames
        low, high = parts.min(), parts.max()
        if high - low < LEAST_RANGE:
            return ""
        levels = np.rint((parts - low) / (high - low) * 255).astype(np.uint8)
        return b64encode(zlib.compress(levels.tobytes())).decode("ascii")


def signature_pictures(signature: str) -> UInt8[ndarray, "times side side"]:
    """The pictures of a signature that is not empty.

    Raises:
        ValueError: it is none.
    """
    content = zlib.decompressobj().decompress(b64decode(signature), TIMES * SIDE * SIDE)
    return np.frombuffer(content, np.uint8).reshape(TIMES, SIDE, SIDE)


def near_duplicates(
    first: UInt8[ndarray, "n times side side"], second: UInt8[ndarray, "m times side side"], likeness: Likeness
) -> list[Pair]:
    """The pairs, one video of each row, that are copies of one recording; the most alike first.

    Of one video of the first row, at most `CANDIDATES` pairs are found.
    """
    found = []
    if len(first) and len(second):
        moving = [_motion_energy(row) >= STILL for row in (first, second)]
        for i, j, mirrored in _candidates(first, second, *moving):
            other = second[j][..., ::-1] if mirrored else second[j]
            motion, appearance = _compare(first[i], other)
            if motion >= likeness.motion and appearance >= likeness.appearance:
                found.append(Pair(first=i, second=j, motion=motion, appearance=appearance, mirrored=mirrored))
        found += _still_pairs(first, second, ~moving[0], ~moving[1], likeness)
    best: dict[tuple[int, int], Pair] = {}
    for pair in sorted(found, key=lambda pair: (-pair.motion, pair.mirrored)):
        best.setdefault((pair.first, pair.second), pair)
    return sorted(best.values(), key=lambda pair: (-pair.motion, pair.first, pair.second))


def _candidates(
    first: ndarray, second: ndarray, first_moves: ndarray, second_moves: ndarray
) -> list[tuple[int, int, bool]]:
    """Pairs whose coarse motion agrees, straight or mirrored, in blocks of bounded memory."""
    rows, columns = np.flatnonzero(first_moves), np.flatnonzero(second_moves)
    if not len(rows) or not len(columns):
        return []
    wholes, *parts = [_coarse(second[columns], span) for span in COARSE_SPANS]
    found = []
    step = max(1, BLOCK // len(columns))
    for begin in range(0, len(rows), step):
        block = first[rows[begin : begin + step]]
        for mirrored in (False, True):
            whole, *pieces = [_coarse(block[..., ::-1] if mirrored else block, span) for span in COARSE_SPANS]
            score = whole @ wholes.T
            for left, right in [*((whole, part) for part in parts), *((piece, wholes) for piece in pieces)]:
                np.maximum(score, left @ right.T, out=score)
            for i in np.flatnonzero(score.max(1) >= COARSE_MOTION):
                best = np.argsort(-score[i], kind="stable")[:CANDIDATES]
                found += [
                    (int(rows[begin + i]), int(columns[j]), mirrored) for j in best if score[i, j] >= COARSE_MOTION
                ]
    return found


def _compare(
    first: UInt8[ndarray, "times side side"], second: UInt8[ndarray, "times side side"]
) -> tuple[float, float]:
    """Motion and appearance where they agree best, one of the two trimmed by up to a quarter at either end."""
    best = (-1.0, -1.0)
    for long, short in ((first, second), (second, first)):
        pictures, other = _rows(long).astype(np.float32), _spans(((0.0, 1.0),), FINE_TIMES)[0] @ _rows(short)
        _, start, stop = _best_span(pictures, other, FINE_SPANS)
        near = tuple((max(start + a, 0.0), min(stop + b, 1.0)) for a, b in product(FINE_SHIFTS, FINE_SHIFTS))
        motion, start, stop = _best_span(pictures, other, near)
        part = _spans(((start, stop),), FINE_TIMES)[0] @ pictures
        best = max(best, (motion, _correlation(part.mean(0), other.mean(0))))
    return best


def _best_span(
    pictures: Float32[ndarray, "times pixels"],
    other: Float32[ndarray, "fine_times pixels"],
    spans: tuple[tuple[float, float], ...],
) -> tuple[float, float, float]:
    """The part of the pictures whose motion agrees most with the other's: the correlation, and where it lies."""
    parts = _spans(spans, FINE_TIMES) @ pictures
    parts = parts - parts.mean(1, keepdims=True)
    rest = other - other.mean(0)
    size = np.sqrt((parts**2).sum((1, 2)) * (rest**2).sum()) + 1e-6
    motion = np.tensordot(parts, rest, 2) / size
    best = int(motion.argmax())
    return float(motion[best]), *spans[best]


def _still_pairs(
    first: ndarray, second: ndarray, first_still: ndarray, second_still: ndarray, likeness: Likeness
) -> list[Pair]:
    """Videos without motion are copies where their pictures are the same."""
    rows, columns = np.flatnonzero(first_still), np.flatnonzero(second_still)
    if not len(rows) or not len(columns):
        return []
    other = _normalized(second[columns].mean(1, dtype=np.float32).reshape(len(columns), -1))
    found = []
    for mirrored in (False, True):
        means = first[rows].mean(1, dtype=np.float32)
        score = _normalized((means[..., ::-1] if mirrored else means).reshape(len(rows), -1)) @ other.T
        for i, j in np.argwhere(score >= likeness.still):
            found.append(
                Pair(
                    first=int(rows[i]),
                    second=int(columns[j]),
                    motion=1.0,
                    appearance=float(score[i, j]),
                    mirrored=mirrored,
                )
            )
    return found


def _coarse(pictures: ndarray, span: tuple[float, float]) -> Float32[ndarray, "n features"]:
    """Motion in few numbers, of length 1: products of two rows are correlations."""
    share = SIDE // COARSE_SIDE
    small = pictures.reshape(len(pictures), TIMES, COARSE_SIDE, share, COARSE_SIDE, share).mean(
        (3, 5), dtype=np.float32
    )
    parts = _spans((span,), COARSE_TIMES)[0] @ small.reshape(len(pictures), TIMES, -1)
    parts = parts - parts.mean(1, keepdims=True)
    flat = parts.reshape(len(pictures), -1)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6), np.float32)


def _spans(spans: tuple[tuple[float, float], ...], times: int) -> Float32[ndarray, "spans parts times"]:
    """Weights that take the mean over each of `times` equal parts of each span of the whole."""
    bounds = np.array(spans, np.float32)[:, :, None] * TIMES
    edges = bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) * np.linspace(0, 1, times + 1, dtype=np.float32)
    picture = np.arange(TIMES, dtype=np.float32)
    overlap = np.minimum(edges[:, 1:, None], picture + 1) - np.maximum(edges[:, :-1, None], picture)
    weights = np.maximum(overlap, 0)
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def _motion_energy(pictures: ndarray) -> Float[ndarray, " n"]:
    return np.array([np.sqrt(np.var(row, axis=0, dtype=np.float32).mean()) for row in pictures])


def _correlation(first: Float32[ndarray, " pixels"], second: Float32[ndarray, " pixels"]) -> float:
    return float((_normalized(first[None]) @ _normalized(second[None]).T)[0, 0])


def _normalized(rows: ndarray) -> Float32[ndarray, "n pixels"]:
    rest = rows - rows.mean(1, keepdims=True)
    return np.asarray(rest / (np.linalg.norm(rest, axis=1, keepdims=True) + 1e-6), np.float32)


def _rows(pictures: ndarray) -> ndarray:
    return pictures.reshape(len(pictures), -1)

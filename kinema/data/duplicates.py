"""Near-duplicates: signatures of videos, and pairs of videos that are copies of one recording.

A signature is 32 gray images of 16 x 16 pixels, each the mean over 1/32 of the video. Two videos are compared by
appearance (mean over time) and motion (residual after subtracting the mean). Copies that were re-encoded, scaled,
mirrored, brightened or trimmed by up to a quarter agree in both; another clip of the same person in the same place
differs in motion. Copies that are cropped by more than a few percent or have added borders are not found.
"""

import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

TIMES, SIDE = 32, 16
MAX_SEGMENTS = 128
"""Largest number of segments while a video is read; neighbors are then merged, which bounds the memory."""
SEGMENT_SAMPLES = 8
"""Largest number of frames averaged per segment."""
MIN_RANGE = 3.0
"""Range of gray levels below which a video counts as blank and is not compared."""
STILL = 1.0
"""RMS of motion, in gray levels of 255, below which a video counts as still; camera recordings have at least 2."""

COARSE_TIMES, COARSE_SIDE = 8, 8
COARSE_SPANS = ((0.0, 1.0), (0.0, 0.9), (0.1, 1.0), (0.0, 0.8), (0.2, 1.0), (0.1, 0.9))
"""Parts of one video that are compared with the complete other one, to find trimmed copies."""
COARSE_MOTION = 0.7
"""Smallest coarse correlation of a candidate pair. All copies that are found have at least 0.77."""
BLOCK = 2**24
"""Number of pairs per block of the coarse comparison: 64 MB."""
CANDIDATES = 8
"""Largest number of candidates per video; the most similar ones are used."""
FINE_TIMES = 16
FINE_CUTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
FINE_SPANS = tuple((a, 1 - b) for a, b in product(FINE_CUTS, FINE_CUTS) if a + b < 0.31)
FINE_SHIFTS = (-0.03, -0.015, 0.0, 0.015, 0.03)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Smallest correlations of two videos that count as copies.

    Measured on J-HMDB, IsoGD, MSR-Action3D and the built-in moves (187,000 pairs of different clips). In RGB, the
    motion of different clips correlates by at most 0.83 (another swing in the same studio), or 0.96 if one person
    repeats a gesture in one take. Copies have a median of 0.99. Depth does not show clothes: the same motion by another
    body reaches 0.95.
    `still` is the correlation of appearance for two still videos.
    """

    motion: float
    appearance: float
    still: float = 0.995


THRESHOLDS = {"rgb": Thresholds(motion=0.92, appearance=0.95), "depth": Thresholds(motion=0.95, appearance=0.96)}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Positions of two videos that are copies of one recording, and their correlations of motion and appearance.

    `motion` is 1 for two still videos (`is_still`), which may be two small people before one fixed camera. `mirrored`
    tells whether the second video is mirrored left to right.
    """

    first: int
    second: int
    motion: float
    appearance: float
    mirrored: bool
    is_still: bool = False


class SignatureBuilder:
    """Builder of a signature from frames that are added one by one as small images; needs constant memory."""

    def __init__(self) -> None:
        self._width = 1  # frames per segment
        self._sums: list[Float[ndarray, "side side"]] = []
        self._counts: list[int] = []

    def needs(self, number: int) -> bool:
        """Return whether the frame with this number is averaged."""
        return number % max(1, self._width // SEGMENT_SAMPLES) == 0

    def add(self, number: int, image: Float[ndarray, "side side"]) -> None:
        """Add a frame; numbers must increase."""
        place = number // self._width
        if place >= MAX_SEGMENTS:
            self._sums = [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)]
            self._counts = [a + b for a, b in zip(self._counts[::2], self._counts[1::2], strict=True)]
            self._width *= 2
            place = number // self._width
        if place == len(self._sums):
            self._sums.append(image.astype(np.float64))
            self._counts.append(1)
        else:
            self._sums[place] += image
            self._counts[place] += 1

    def signature(self, frames: int) -> str:
        """Return the signature of a video with this number of frames, as text; empty for a blank video."""
        if not self._sums:
            return ""
        means = np.stack(self._sums) / np.array(self._counts)[:, None, None]
        edges = np.minimum(np.arange(len(means) + 1) * self._width, frames).astype(np.float64)
        edges[-1] = frames
        # A mean over time is a difference of integrals, which are linear between edges.
        integral = np.concatenate([np.zeros((1, SIDE * SIDE)), np.cumsum(_rows(means) * np.diff(edges)[:, None], 0)])
        at = np.linspace(0, frames, TIMES + 1)
        place = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(means) - 1)
        share = ((at - edges[place]) / np.maximum(edges[place + 1] - edges[place], 1e-9))[:, None]
        parts = np.diff(integral[place] * (1 - share) + integral[place + 1] * share, axis=0) * TIMES / frames
        low, high = parts.min(), parts.max()
        if high - low < MIN_RANGE:
            return ""
        levels = np.rint((parts - low) / (high - low) * 255).astype(np.uint8)
        return b64encode(zlib.compress(levels.tobytes())).decode("ascii")


def signature_images(signature: str) -> UInt8[ndarray, "times side side"]:
    """Return the images of a signature.

    Raises:
        ValueError: The text is not a signature, or empty.
    """
    content = zlib.decompressobj().decompress(b64decode(signature), TIMES * SIDE * SIDE)
    return np.frombuffer(content, np.uint8).reshape(TIMES, SIDE, SIDE)


def near_duplicates(
    first: UInt8[ndarray, "n times side side"], second: UInt8[ndarray, "m times side side"], thresholds: Thresholds
) -> list[Pair]:
    """Return the pairs that are copies of one recording, the most similar first.

    At most `CANDIDATES` pairs are found per video of the first set.
    """
    pairs = []
    if len(first) and len(second):
        moving = [_motion_energy(row) >= STILL for row in (first, second)]
        for i, j, mirrored in _candidates(first, second, *moving):
            other = second[j][..., ::-1] if mirrored else second[j]
            motion, appearance = _compare(first[i], other)
            if motion >= thresholds.motion and appearance >= thresholds.appearance:
                pairs.append(Pair(first=i, second=j, motion=motion, appearance=appearance, mirrored=mirrored))
        pairs += _still_pairs(first, second, ~moving[0], ~moving[1], thresholds)
    best: dict[tuple[int, int], Pair] = {}
    for pair in sorted(pairs, key=lambda pair: (-pair.motion, pair.mirrored)):
        best.setdefault((pair.first, pair.second), pair)
    return sorted(best.values(), key=lambda pair: (-pair.motion, pair.first, pair.second))


def _candidates(
    first: ndarray, second: ndarray, first_moves: ndarray, second_moves: ndarray
) -> list[tuple[int, int, bool]]:
    """Return pairs with similar coarse motion, mirrored or not; computed in blocks to bound the memory."""
    rows, columns = np.flatnonzero(first_moves), np.flatnonzero(second_moves)
    if not len(rows) or not len(columns):
        return []
    wholes, *parts = [_coarse(second[columns], span) for span in COARSE_SPANS]
    candidates = []
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
                candidates += [
                    (int(rows[begin + i]), int(columns[j]), mirrored) for j in best if score[i, j] >= COARSE_MOTION
                ]
    return candidates


def _compare(
    first: UInt8[ndarray, "times side side"], second: UInt8[ndarray, "times side side"]
) -> tuple[float, float]:
    """Return motion and appearance at the best alignment. Either video may be trimmed by up to 1/4 at each end."""
    best = (-1.0, -1.0)
    for long, short in ((first, second), (second, first)):
        images, other = _rows(long).astype(np.float32), _spans(((0.0, 1.0),), FINE_TIMES)[0] @ _rows(short)
        _, start, stop = _best_span(images, other, FINE_SPANS)
        near = tuple((max(start + a, 0.0), min(stop + b, 1.0)) for a, b in product(FINE_SHIFTS, FINE_SHIFTS))
        motion, start, stop = _best_span(images, other, near)
        part = _spans(((start, stop),), FINE_TIMES)[0] @ images
        best = max(best, (motion, _correlation(part.mean(0), other.mean(0))))
    return best


def _best_span(
    images: Float32[ndarray, "times pixels"],
    other: Float32[ndarray, "fine_times pixels"],
    spans: tuple[tuple[float, float], ...],
) -> tuple[float, float, float]:
    """Return the largest correlation of motion over all spans of the first video, and its span."""
    parts = _spans(spans, FINE_TIMES) @ images
    parts = parts - parts.mean(1, keepdims=True)
    rest = other - other.mean(0)
    size = np.sqrt((parts**2).sum((1, 2)) * (rest**2).sum()) + 1e-6
    motion = np.tensordot(parts, rest, 2) / size
    best = int(motion.argmax())
    return float(motion[best]), *spans[best]


def _still_pairs(
    first: ndarray, second: ndarray, first_still: ndarray, second_still: ndarray, thresholds: Thresholds
) -> list[Pair]:
    """Return pairs of still videos with the same appearance."""
    rows, columns = np.flatnonzero(first_still), np.flatnonzero(second_still)
    if not len(rows) or not len(columns):
        return []
    other = _normalized(second[columns].mean(1, dtype=np.float32).reshape(len(columns), -1))
    pairs = []
    for mirrored in (False, True):
        means = first[rows].mean(1, dtype=np.float32)
        score = _normalized((means[..., ::-1] if mirrored else means).reshape(len(rows), -1)) @ other.T
        for i, j in np.argwhere(score >= thresholds.still):
            pairs.append(
                Pair(
                    first=int(rows[i]),
                    second=int(columns[j]),
                    motion=1.0,
                    appearance=float(score[i, j]),
                    mirrored=mirrored,
                    is_still=True,
                )
            )
    return pairs


def _coarse(images: ndarray, span: tuple[float, float]) -> Float32[ndarray, "n features"]:
    """Return downsampled motion of unit norm, so that products of rows are correlations."""
    share = SIDE // COARSE_SIDE
    small = images.reshape(len(images), TIMES, COARSE_SIDE, share, COARSE_SIDE, share).mean((3, 5), dtype=np.float32)
    parts = _spans((span,), COARSE_TIMES)[0] @ small.reshape(len(images), TIMES, -1)
    parts = parts - parts.mean(1, keepdims=True)
    flat = parts.reshape(len(images), -1)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6), np.float32)


def _spans(spans: tuple[tuple[float, float], ...], times: int) -> Float32[ndarray, "spans parts times"]:
    """Return the weights of means over `times` equal parts of each span."""
    bounds = np.array(spans, np.float32)[:, :, None] * TIMES
    edges = bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) * np.linspace(0, 1, times + 1, dtype=np.float32)
    image = np.arange(TIMES, dtype=np.float32)
    overlap = np.minimum(edges[:, 1:, None], image + 1) - np.maximum(edges[:, :-1, None], image)
    weights = np.maximum(overlap, 0)
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def _motion_energy(images: ndarray) -> Float[ndarray, " n"]:
    return np.array([np.sqrt(np.var(row, axis=0, dtype=np.float32).mean()) for row in images])


def _correlation(first: Float32[ndarray, " pixels"], second: Float32[ndarray, " pixels"]) -> float:
    return float((_normalized(first[None]) @ _normalized(second[None]).T)[0, 0])


def _normalized(rows: ndarray) -> Float32[ndarray, "n pixels"]:
    rest = rows - rows.mean(1, keepdims=True)
    return np.asarray(rest / (np.linalg.norm(rest, axis=1, keepdims=True) + 1e-6), np.float32)


def _rows(images: ndarray) -> ndarray:
    return images.reshape(len(images), -1)

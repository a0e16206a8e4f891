"""Which frames to read: pure functions of integers, without files, tensors or global random state."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a clip's frames are taken from a video; part of the artefact.

    Args:
        rule: `segments` cuts the video into equal parts and takes one frame of each.
        frames: frames in a clip.
    """

    rule: Literal["segments"] = "segments"
    frames: int

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"sampling: frames={self.frames} must be at least 1")

    def indices(self, num_frames: int, rng: np.random.Generator | None) -> Int64[ndarray, " frames"]:
        """Frame numbers of one clip, drawn with `rng`, or the fixed ones of an evaluation where it is None."""
        return segment_indices(num_frames, self.frames, rng)


def segment_edges(num_frames: int, clip_frames: int) -> tuple[Int64[ndarray, " frames"], Int64[ndarray, " frames"]]:
    """First frame, and one past the last, of each segment: [floor(ni/T), max(floor(ni/T) + 1, floor(n(i+1)/T))).

    A video shorter than the clip has segments of one frame, some of them the same: those frames are repeated.
    """
    if num_frames < 1:
        raise ValueError(f"cannot take {clip_frames} frames from a video of {num_frames}")
    parts = np.arange(clip_frames, dtype=np.int64)
    first = parts * num_frames // clip_frames
    return first, np.maximum(first + 1, (parts + 1) * num_frames // clip_frames)


def segment_indices(num_frames: int, clip_frames: int, rng: np.random.Generator | None) -> Int64[ndarray, " frames"]:
    """One frame of each of `clip_frames` equal segments (TSN, arXiv:1608.00859; thesis 2.4.2).

    Args:
        num_frames: frames in the video, at least 1.
        clip_frames: frames wanted.
        rng: draws a frame uniformly inside each segment; None takes the middle one (the mean, rounded down).

    Returns:
        Non-decreasing frame numbers in [0, num_frames).
    """
    first, stop = segment_edges(num_frames, clip_frames)
    return (first + stop - 1) // 2 if rng is None else rng.integers(first, stop)

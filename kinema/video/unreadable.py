"""Errors of frame sources, all of the form `<path>: <problem>`."""

from collections.abc import Sequence
from pathlib import Path

from numpy import ndarray

from kinema.errors import UnreadableVideo
from kinema.video.read_options import Limits


def unreadable(path: str | Path, problem: str) -> UnreadableVideo:
    """Return the error of a file that cannot be read."""
    return UnreadableVideo(f"{path}: {problem}", path=path)


def over_limit(path: str | Path, problem: str, limits: Limits, name: str) -> UnreadableVideo:
    """Return the error of a file that exceeds a field of its limits, such as `frames`."""
    limit = getattr(limits, name)
    return UnreadableVideo(f"{path}: {problem}; expected at most {limit:,} (limits.{name})", path=path, field=name)


def past_end(path: str, index: int, num_frames: int) -> UnreadableVideo:
    """Return the error of a requested frame beyond the end of the file."""
    return unreadable(path, f"frame {index} does not exist; the file has {num_frames} frames")


def no_time_stamps(path: str) -> UnreadableVideo:
    """Return the error of a segment in seconds of a file that has only frame numbers."""
    return unreadable(path, "has no time stamps. Use start_frame and stop_frame instead of seconds.")


def describe(image: ndarray) -> str:
    """Return the size and depth of an image."""
    return f"{image.shape[1]} x {image.shape[0]} pixels of {8 * image.dtype.itemsize} bits"


def check_range(path: str, indices: Sequence[int], num_frames: int) -> None:
    """Check that frame numbers, in any order, are at least 0 and inside the file."""
    if not indices or min(indices) < 0:
        raise ValueError(f"frame numbers must be at least 0, got {list(indices)}")
    if max(indices) >= num_frames:
        raise past_end(path, max(indices), num_frames)

"""Lengths of samples, in frames and in seconds."""

from collections.abc import Iterable

from kinema.data.manifest import Entry


def length_of(entry: Entry) -> tuple[int | None, float | None]:
    """Return the number of frames of a sample and its duration [s]; None if unknown."""
    if entry.start_s is not None and entry.stop_s is not None:
        return None, entry.stop_s - entry.start_s
    frames = entry.frames
    if entry.start_frame is not None and entry.stop_frame is not None:
        frames = entry.stop_frame - entry.start_frame
    return frames, frames / entry.rate if frames and entry.rate else None


def longest(entries: Iterable[Entry]) -> dict[str, int | float]:
    """Return the length of the longest sample, `longest_frames` and `longest_s`, as far as known."""
    lengths = [length_of(entry) for entry in entries]
    frames = max((count for count, _ in lengths if count is not None), default=None)
    seconds = max((duration for _, duration in lengths if duration is not None), default=None)
    found: dict[str, int | float] = {} if frames is None else {"longest_frames": frames}
    return found if seconds is None else found | {"longest_s": round(seconds, 3)}

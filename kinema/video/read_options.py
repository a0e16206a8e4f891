"""How files are read: by what, within which limits, and in which process. Pure settings; part of a recipe's data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may ask for; more than that is refused by name before memory is taken.

    The defaults let pass what a camera or a film makes, and stop what would fill a workstation.

    Args:
        file_bytes: of one file, on disk or behind a URL.
        frames: that one file has.
        seconds: that one file lasts.
        pixels: of one frame.
        clip_bytes: memory of the frames that are asked for at once.
    """

    file_bytes: int = 64 * 2**30
    frames: int = 5_000_000
    seconds: float = 48 * 3600.0
    pixels: int = 64_000_000
    clip_bytes: int = 8 * 2**30

    def __post_init__(self) -> None:
        for name in ("file_bytes", "frames", "seconds", "pixels", "clip_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"limits: {name}={getattr(self, name)} must be positive")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How files are read. It changes speed and safety, never a pixel.

    Args:
        backend: of video files: `pyav`, which comes with kinema, or `torchcodec`, where it is installed and loads.
        isolation: `process` reads in a process of its own, which may crash or hang without harm to this one; for files
            from strangers. `none` reads here, and is faster.
        timeout_s: after which an isolated process is stopped and the file called unreadable.
        cache: folder for copies of files behind URLs; `~/.cache/kinema` where None.
        limits: what a file may ask for.
    """

    backend: Literal["pyav", "torchcodec"] = "pyav"
    isolation: Literal["none", "process"] = "none"
    timeout_s: float = 120.0
    cache: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ValueError(f"reading: timeout_s={self.timeout_s} must be positive")


READ_OPTIONS = ReadOptions()
"""The defaults."""

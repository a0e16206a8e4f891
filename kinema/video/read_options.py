"""How files are read: by what, within which limits, and in which process. Pure settings; part of a recipe's data."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from kinema.config import config

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


@config
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

    file_bytes: PositiveInt = 64 * 2**30
    frames: PositiveInt = 5_000_000
    seconds: PositiveFloat = 48 * 3600.0
    pixels: PositiveInt = 64_000_000
    clip_bytes: PositiveInt = 8 * 2**30


@config
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
    timeout_s: PositiveFloat = 120.0
    cache: Path | None = None
    limits: Limits = Limits()


READ_OPTIONS = ReadOptions()
"""The defaults."""

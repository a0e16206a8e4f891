"""Options for reading files: backend, limits and isolation; part of a recipe's data."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from kinema.config import config
from kinema.errors import ConfigError

Deinterlace = Literal["none", "spatial"]

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


@config
class Limits:
    """Limits of a file, checked before memory is allocated.

    The defaults admit what a camera or a film produces, and refuse what would fill a workstation.

    Attributes:
        file_bytes: Bytes of one file, on disk or behind a URL.
        frames: Number of frames in one file.
        seconds: Duration of one file.
        pixels: Number of pixels per frame.
        clip_bytes: Bytes of memory for the frames requested at once.
    """

    file_bytes: PositiveInt = 64 * 2**30
    frames: PositiveInt = 5_000_000
    seconds: PositiveFloat = 48 * 3600.0
    pixels: PositiveInt = 64_000_000
    clip_bytes: PositiveInt = 8 * 2**30


@config
class ReadOptions:
    """Options for reading files. Except for `deinterlace`, they change speed and safety, never a pixel.

    Attributes:
        backend: Decoder of video files: `pyav`, which comes with kinema, or `torchcodec`, if it is installed and loads.
        isolation: `process` reads in a separate process, which may crash or hang without harm to this one; for
            untrusted files. `auto` does so for mat files, on which native code may crash; `none` reads all in this
            process, and is faster.
        timeout_s: Seconds after which an isolated process is stopped and the file counts as unreadable.
        cache: Folder for copies of files behind URLs; None for `~/.cache/kinema`.
        limits: Limits of a file.
        deinterlace: Treatment of color frames that are marked as interlaced: `none`, or `spatial` to keep the lines of
            the first field and interpolate the others. None for that of the model; a training without one uses `none`.
    """

    backend: Literal["pyav", "torchcodec"] = "pyav"
    isolation: Literal["auto", "none", "process"] = "auto"
    timeout_s: PositiveFloat = 120.0
    cache: Path | None = None
    limits: Limits = Limits()
    deinterlace: Deinterlace | None = None

    def __post_init__(self) -> None:
        if self.backend == "torchcodec" and self.deinterlace not in (None, "none"):
            raise ConfigError(
                f"deinterlace={self.deinterlace!r} requires backend 'pyav', got 'torchcodec'. Use backend 'pyav'.",
                field="deinterlace",
            )


READ_OPTIONS = ReadOptions()

"""Frames from a file: `open_source` opens videos, folders of images, npz and mat arrays, and URLs of them.

The frames are the same to the bit whichever backend decodes them, in this process or in a sandbox.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray

from kinema.errors import UnreadableVideo
from kinema.modality import ReadAs
from kinema.video.array_file import ARRAY_SUFFIXES, ArrayFile
from kinema.video.container import Gray
from kinema.video.image_folder import ImageFolder
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.remote_cache import local_path
from kinema.video.sandbox import SandboxedFile
from kinema.video.streams import split_stream
from kinema.video.torchcodec_file import TorchcodecFile
from kinema.video.unreadable import unreadable
from kinema.video.video_file import VideoFile

CRASHING_SUFFIXES = frozenset({".mat"})
"""Files on which native code may crash: scipy does on some damaged ones."""

FrameSource = VideoFile | ImageFolder | ArrayFile | SandboxedFile
"""Open file with frames. Members raise UnreadableVideo if the file is at fault:

    num_frames                       number of frames that decode
    timeline                         time stamps of the frames; None for folders and arrays
    read_as                          content as which the file was opened; None if it was not named
    size                             width and height of the frames as displayed, with square pixels
    pixel_aspect                     displayed shape of the pixels of upright frames
    remarks                          what a reader should know about the frames
    read_rgb(indices)                uint8, (frames, height, width, 3)
    read_gray(indices)               uint8, or stored values as uint16 if they have more than 8 bits, (frames, height,
                                     width)
    iter_frames(numbers, color)      frames of a range one by one, as "rgb" or "gray"
    frame_range(start_s, stop_s)     half-open range of frames displayed in an interval of seconds
"""


@contextmanager
def open_source(path: str, options: ReadOptions = READ_OPTIONS, read_as: ReadAs | None = None) -> Iterator[FrameSource]:
    """Open a file, a folder of images, or a URL of one, for reading inside the `with` block.

    Args:
        path: Local path, or URL of a protocol in `remote_cache.PROTOCOLS`; it may name a stream of a video, as in
            `rec.mkv#depth` or `rec.mkv#1`.
        options: Backend, isolation and limits.
        read_as: Content of the file: RGB or depth, which decides what stream is read if the path names none, or depth
            in a color format by its encoding. Without it, `read_gray` reads the depth stream and all else the RGB one.

    Raises:
        UnreadableVideo: The file is missing or cannot be read; the message names the path as passed.
        BackendError: The backend is not available.
    """
    file = local_path(path, options) if "://" in path else path
    source = local_source(file, options, read_as)
    try:
        yield source
    except UnreadableVideo as error:
        if file == path:
            raise
        raise UnreadableVideo(str(error).replace(file, path), path=path, field=error.field) from error
    finally:
        source.close()


def local_source(path: str, options: ReadOptions, read_as: ReadAs | None = None) -> FrameSource:
    """Return the source of a local file or folder, which the caller has to close."""
    file, stream = split_stream(path) if "#" in path else (path, None)
    suffix = Path(file).suffix.lower()
    if is_isolated(file, options):
        return SandboxedFile(path, options, read_as)
    is_folder = os.path.isdir(file)  # False for names that no file can have
    is_array = suffix in ARRAY_SUFFIXES and not is_folder
    if is_folder or is_array:
        if stream is not None:
            raise unreadable(path, f"names the stream {stream!r}; only videos have streams")
        return ArrayFile(file, options, read_as) if is_array else ImageFolder(file, options, read_as)
    return (VideoFile if options.backend == "pyav" else TorchcodecFile)(path, options, read_as)


def is_isolated(file: str, options: ReadOptions) -> bool:
    """Return whether the options have a file read in a process of its own."""
    may_crash = Path(file).suffix.lower() in CRASHING_SUFFIXES
    return options.isolation == "process" or (options.isolation == "auto" and may_crash)


def read_rgb(
    path: str, indices: Sequence[int], options: ReadOptions = READ_OPTIONS
) -> UInt8[ndarray, "frames height width 3"]:
    """Open a file and return frames as RGB."""
    with open_source(path, options, "rgb") as source:
        return source.read_rgb(indices)


def read_gray(
    path: str, indices: Sequence[int], options: ReadOptions = READ_OPTIONS, read_as: ReadAs = "depth"
) -> Gray:
    """Open a file and return one channel of its frames."""
    with open_source(path, options, read_as) as source:
        return source.read_gray(indices)


def count_frames(path: str, options: ReadOptions = READ_OPTIONS, read_as: ReadAs | None = None) -> int:
    """Open a file and return its number of frames."""
    with open_source(path, options, read_as) as source:
        return source.num_frames


def frame_range(path: str, start_s: float, stop_s: float, options: ReadOptions = READ_OPTIONS) -> tuple[int, int]:
    """Open a file and return the half-open range of frames displayed in [start_s, stop_s)."""
    with open_source(path, options) as source:
        return source.frame_range(start_s, stop_s)

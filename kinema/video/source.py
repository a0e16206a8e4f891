"""Frames from a file: `open_source` opens videos, folders of images, npz and mat arrays, and URLs of them.

The frames are the same to the bit whichever backend decodes them, in this process or in a sandbox.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray

from kinema.errors import UnreadableVideo
from kinema.video.array_file import ARRAY_SUFFIXES, ArrayFile
from kinema.video.container import Gray
from kinema.video.image_folder import ImageFolder
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.remote_cache import local_path
from kinema.video.sandbox import SandboxedFile
from kinema.video.torchcodec_file import TorchcodecFile
from kinema.video.video_file import VideoFile

FrameSource = VideoFile | ImageFolder | ArrayFile | SandboxedFile
"""Open file with frames. Members raise UnreadableVideo if the file is at fault:

    num_frames                       number of frames that decode
    timeline                         time stamps of the frames; None for folders and arrays
    size                             width and height of the frames as displayed
    read_rgb(indices)                uint8, (frames, height, width, 3)
    read_gray(indices)               uint8, or uint16 if more than 8 bits are stored, (frames, height, width)
    iter_frames(numbers, color)      frames of a range one by one, as "rgb" or "gray"
    frame_range(start_s, stop_s)     half-open range of frames displayed in an interval of seconds
"""


@contextmanager
def open_source(path: str, options: ReadOptions = READ_OPTIONS) -> Iterator[FrameSource]:
    """Open a file, a folder of images, or a URL of one, for reading inside the `with` block.

    Args:
        path: Local path, or URL of a protocol in `remote_cache.PROTOCOLS`.
        options: Backend, isolation and limits.

    Raises:
        UnreadableVideo: The file is missing or cannot be read; the message names the path as passed.
        BackendError: The backend is not available.
    """
    file = local_path(path, options) if "://" in path else path
    source = local_source(file, options)
    try:
        yield source
    except UnreadableVideo as error:
        if file == path:
            raise
        raise UnreadableVideo(str(error).replace(file, path), path=path, field=error.field) from error
    finally:
        source.close()


def local_source(file: str, options: ReadOptions) -> FrameSource:
    """Return the source of a local file or folder, which the caller has to close."""
    if options.isolation == "process":
        return SandboxedFile(file, options)
    if Path(file).is_dir():
        return ImageFolder(file, options)
    if Path(file).suffix.lower() in ARRAY_SUFFIXES:
        return ArrayFile(file, options)
    return VideoFile(file, options) if options.backend == "pyav" else TorchcodecFile(file, options)


def read_rgb(
    path: str, indices: Sequence[int], options: ReadOptions = READ_OPTIONS
) -> UInt8[ndarray, "frames height width 3"]:
    """Open a file and return frames as RGB."""
    with open_source(path, options) as source:
        return source.read_rgb(indices)


def read_gray(path: str, indices: Sequence[int], options: ReadOptions = READ_OPTIONS) -> Gray:
    """Open a file and return one channel of its frames."""
    with open_source(path, options) as source:
        return source.read_gray(indices)


def count_frames(path: str, options: ReadOptions = READ_OPTIONS) -> int:
    """Open a file and return its number of frames."""
    with open_source(path, options) as source:
        return source.num_frames


def frame_range(path: str, start_s: float, stop_s: float, options: ReadOptions = READ_OPTIONS) -> tuple[int, int]:
    """Open a file and return the half-open range of frames displayed in [start_s, stop_s)."""
    with open_source(path, options) as source:
        return source.frame_range(start_s, stop_s)

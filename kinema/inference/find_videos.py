"""Videos that the arguments of a command stand for: files, URLs, folders, patterns, and lists on standard input."""

import glob
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kinema.errors import VideoError
from kinema.video.image_folder import IMAGE_SUFFIXES
from kinema.video.scan import scan_contents
from kinema.video.streams import join_stream, split_stream


def find_videos(sources: Sequence[str]) -> Iterator[str]:
    """Yield files and URLs as they are, and the videos that folders, patterns and `-` stand for.

    A folder is replaced by all videos, arrays and folders of images below it, whatever their names, and is one video
    itself if it has images only. A pattern, such as `clips/*.mp4`, is replaced by what it matches, and `-` by the lines
    of standard input, or by its parts between zero bytes.

    Raises:
        VideoError: A folder has no videos, or nothing matches a pattern.
    """
    for source in sources:
        if source == "-":
            for line in _read_list():
                yield from _in_folder(line)
        elif "://" in source or os.path.exists(source):
            yield from _in_folder(source)
        elif glob.has_magic(pattern := split_stream(source)[0]):
            matches = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
            if not matches:
                raise VideoError(f"{source}: no file matches this pattern", path=source)
            for match in matches:
                yield from _in_folder(join_stream(match, split_stream(source)[1]))
        else:
            yield source


def _in_folder(source: str) -> Iterator[str]:
    """Yield a file or URL, or what lies in a folder."""
    folder = Path(source)
    if "://" in source or not os.path.isdir(source):
        yield source
        return
    contents = scan_contents(folder)
    has_images = any(path.parent == folder and path.suffix.lower() in IMAGE_SUFFIXES for path in contents.others)
    if not contents.sources and not has_images:
        raise VideoError(f"{source}: no videos in this folder", path=source)
    yield from map(str, contents.sources or (source,))


def _read_list() -> list[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a name may be in another encoding
    text = "" if sys.stdin is None else sys.stdin.read()
    lines = text.split("\0") if "\0" in text else text.splitlines()
    return [line for line in lines if line.strip()]

"""Videos that the arguments of a command stand for: files, URLs, folders, patterns, and lists on standard input."""

import glob
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kinema.errors import VideoError, examples
from kinema.terminal import echo
from kinema.video.image_folder import IMAGE_SUFFIXES
from kinema.video.scan import RARE_VIDEO_SUFFIXES, is_text, scan_contents
from kinema.video.streams import join_stream, split_stream


def find_videos(sources: Sequence[str]) -> Iterator[str]:
    """Yield files and URLs as they are, and the videos that folders, patterns and `-` stand for.

    A folder is replaced by all videos, arrays and folders of images below it, whatever their names, and is one video
    itself if it has images only. Folders that cannot be listed stay in the list, to be reported as unreadable. Other
    files of a folder, except documents, are named on standard error. A pattern,
    such as `clips/*.mp4`, is replaced by what it matches, and `-` by the lines of standard input, or by its parts
    between zero bytes.

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
    others = [path for path in contents.others if not is_text(path)]
    rare = [path for path in others if path.suffix.lower() in RARE_VIDEO_SUFFIXES]
    videos = sorted((*contents.sources, *rare, *contents.unreadable))
    images = [path for path in others if path.parent == folder and path.suffix.lower() in IMAGE_SUFFIXES]
    if not videos and images:
        yield source
        return
    names = [str(path.relative_to(source)) for path in sorted({*others} - {*videos})]
    if not videos:
        only = f", only {examples(names)}" if names else ""
        raise VideoError(f"{source}: no videos in this folder{only}", path=source)
    if names:
        echo(f"kinema: {source}: skipped {len(names)} files, not videos: {examples(names)}", to="stderr")
    yield from map(str, videos)


def _read_list() -> list[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a name may be in another encoding
    text = "" if sys.stdin is None else sys.stdin.read()
    lines = text.split("\0") if "\0" in text else text.splitlines()
    return [line for line in lines if line.strip()]

"""What lies below a folder that samples can come from: video files, npz and mat arrays, folders of pictures."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kinema.video.array_file import ARRAY_SUFFIXES
from kinema.video.image_folder import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"})
"""Of video files."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies below a folder, in the order of the paths; what is hidden, by a dot before its name, is not there.

    Args:
        videos: files, by their suffix.
        arrays: npz and mat files.
        picture_folders: folders that hold at least two pictures, and neither videos nor arrays beside them.
        others: all other files; the pictures of a folder of pictures are none of them.
    """

    videos: tuple[Path, ...]
    arrays: tuple[Path, ...]
    picture_folders: tuple[Path, ...]
    others: tuple[Path, ...]

    @property
    def sources(self) -> tuple[Path, ...]:
        return tuple(sorted((*self.videos, *self.arrays, *self.picture_folders)))


def scan(root: Path) -> Found:
    """All that lies below a folder, links followed; the folder itself is never taken for a folder of pictures."""
    videos: list[Path] = []
    arrays: list[Path] = []
    picture_folders: list[Path] = []
    others: list[Path] = []
    for folder, files in _walk(root, frozenset()):
        by_kind = {
            kind: [path for path in files if path.suffix.lower() in suffixes]
            for kind, suffixes in (("video", VIDEO_SUFFIXES), ("array", ARRAY_SUFFIXES), ("picture", IMAGE_SUFFIXES))
        }
        videos += by_kind["video"]
        arrays += by_kind["array"]
        known = {*by_kind["video"], *by_kind["array"]}
        if len(by_kind["picture"]) > 1 and not known and folder != root:
            picture_folders.append(folder)
            known.update(by_kind["picture"])
        others += [path for path in files if path not in known]
    return Found(
        videos=tuple(sorted(videos)),
        arrays=tuple(sorted(arrays)),
        picture_folders=tuple(sorted(picture_folders)),
        others=tuple(sorted(others)),
    )


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder with its files. A link that leads to nowhere is a file, which counting lists as missing."""
    real = folder.resolve()
    if real in above:  # a link that leads back to where one came from
        return
    with os.scandir(folder) as entries:
        shown = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    yield folder, [folder / name for name, is_folder in shown if not is_folder]
    for name, is_folder in shown:
        if is_folder:
            yield from _walk(folder / name, above | {real})

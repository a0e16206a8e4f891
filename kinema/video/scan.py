"""Find videos, npz and mat arrays, and folders of images below a folder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kinema.video.array_file import ARRAY_SUFFIXES
from kinema.video.image_folder import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"})


@dataclass(frozen=True, kw_only=True)
class FolderContents:
    """Files and folders of images below a folder, sorted by path; hidden ones (`.name`) are ignored.

    Args:
        videos: Video files, by suffix.
        arrays: npz and mat files.
        image_folders: Folders with at least two images and neither videos nor arrays.
        others: All other files, except the images in `image_folders`.
    """

    videos: tuple[Path, ...]
    arrays: tuple[Path, ...]
    image_folders: tuple[Path, ...]
    others: tuple[Path, ...]

    @property
    def sources(self) -> tuple[Path, ...]:
        return tuple(sorted((*self.videos, *self.arrays, *self.image_folders)))


def scan(root: Path) -> FolderContents:
    """Return the contents of a folder, links followed; the folder itself never counts as a folder of images."""
    videos: list[Path] = []
    arrays: list[Path] = []
    image_folders: list[Path] = []
    others: list[Path] = []
    for folder, files in _walk(root, frozenset()):
        by_kind = {
            kind: [path for path in files if path.suffix.lower() in suffixes]
            for kind, suffixes in (("video", VIDEO_SUFFIXES), ("array", ARRAY_SUFFIXES), ("image", IMAGE_SUFFIXES))
        }
        videos += by_kind["video"]
        arrays += by_kind["array"]
        known = {*by_kind["video"], *by_kind["array"]}
        if len(by_kind["image"]) > 1 and not known and folder != root:
            image_folders.append(folder)
            known.update(by_kind["image"])
        others += [path for path in files if path not in known]
    return FolderContents(
        videos=tuple(sorted(videos)),
        arrays=tuple(sorted(arrays)),
        image_folders=tuple(sorted(image_folders)),
        others=tuple(sorted(others)),
    )


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder with its files. A broken link counts as a file, so that it is reported as unreadable."""
    real = folder.resolve()
    if real in above:  # a link to a parent folder
        return
    with os.scandir(folder) as entries:
        shown = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    yield folder, [folder / name for name, is_folder in shown if not is_folder]
    for name, is_folder in shown:
        if is_folder:
            yield from _walk(folder / name, above | {real})

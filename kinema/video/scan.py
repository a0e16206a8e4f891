"""Scan of a folder for videos, npz and mat arrays, and folders of images."""

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

    Attributes:
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
        """Videos, arrays and folders of images, sorted by path."""
        return tuple(sorted((*self.videos, *self.arrays, *self.image_folders)))


def scan(root: Path) -> FolderContents:
    """Return the contents of a folder, links followed; the folder itself never counts as a folder of images."""
    videos: list[Path] = []
    arrays: list[Path] = []
    image_folders: list[Path] = []
    others: list[Path] = []
    for folder, files in _walk(root, frozenset()):
        of_video, of_array, images = (
            [path for path in files if path.suffix.lower() in suffixes]
            for suffixes in (VIDEO_SUFFIXES, ARRAY_SUFFIXES, IMAGE_SUFFIXES)
        )
        videos += of_video
        arrays += of_array
        used = {*of_video, *of_array}
        if len(images) > 1 and not used and folder != root:
            image_folders.append(folder)
            used.update(images)
        others += [path for path in files if path not in used]
    return FolderContents(
        videos=tuple(sorted(videos)),
        arrays=tuple(sorted(arrays)),
        image_folders=tuple(sorted(image_folders)),
        others=tuple(sorted(others)),
    )


def _walk(folder: Path, parents: frozenset[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder with its files. A broken link counts as a file, so that it is reported as unreadable."""
    real = folder.resolve()
    if real in parents:  # a link to a parent folder
        return
    with os.scandir(folder) as entries:
        visible = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    yield folder, [folder / name for name, is_folder in visible if not is_folder]
    for name, is_folder in visible:
        if is_folder:
            yield from _walk(folder / name, parents | {real})

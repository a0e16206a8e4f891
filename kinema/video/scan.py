"""Scan of a folder for videos, npz and mat arrays, and folders of images: by name, or by content too."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import islice
from pathlib import Path

from kinema.errors import UnreadableVideo
from kinema.files import is_special
from kinema.video.array_file import ARRAY_SUFFIXES
from kinema.video.container import open_video, packets_of, reading
from kinema.video.image_folder import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"})
RARE_VIDEO_SUFFIXES = frozenset(
    {".asf", ".divx", ".f4v", ".m2ts", ".m2v", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".y4m"}
)
"""Suffixes of videos, too, but only the content of a file decides in a scan."""

TEXT_SUFFIXES = frozenset(
    {".csv", ".doc", ".docx", ".htm", ".html", ".ini", ".ipynb", ".json", ".jsonl", ".log", ".md", ".pdf", ".py"}
    | {".rtf", ".srt", ".tsv", ".txt", ".vtt", ".xls", ".xlsx", ".xml", ".yaml", ".yml"}
)
"""Suffixes of documents, which may lie beside videos."""
OTHER_SUFFIXES = (
    IMAGE_SUFFIXES
    | ARRAY_SUFFIXES
    | {".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"}
    | {".aac", ".flac", ".m4a", ".mp3", ".opus", ".wav", ".wma"}
    | {".bmp", ".heic", ".svg", ".tif", ".tiff", ".webp", ".h5", ".hdf5", ".npy", ".parquet", ".pkl", ".pt", ".pth"}
    | {".crdownload", ".part", ".tmp", ".unfinished"}
)
"""Suffixes of other files that are no videos."""
PROBED_BYTES, PROBED_PACKETS = 4096, 256
"""Numbers of bytes and packets that tell whether a file is a video."""


@dataclass(frozen=True, kw_only=True)
class FolderContents:
    """Files and folders of images below a folder, sorted by path; hidden ones (`.name`) are ignored.

    Attributes:
        videos: Video files.
        arrays: npz and mat files.
        image_folders: Folders with at least two images and neither videos nor arrays.
        others: All other files, except the images in `image_folders`.
        unreadable: Folders that cannot be listed.
    """

    videos: tuple[Path, ...]
    arrays: tuple[Path, ...]
    image_folders: tuple[Path, ...]
    others: tuple[Path, ...]
    unreadable: tuple[Path, ...] = ()

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
    unreadable: list[Path] = []
    for folder, files in _walk(root, unreadable):
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
        unreadable=tuple(sorted(unreadable)),
    )


def scan_contents(root: Path) -> FolderContents:
    """Return the contents of a folder as `scan` does, with files whose content is a video whatever their name."""
    contents = scan(root)
    videos = {path for path in contents.others if is_video(path)}
    return replace(
        contents,
        videos=tuple(sorted({*contents.videos, *videos})),
        others=tuple(path for path in contents.others if path not in videos),
    )


def is_text(path: Path) -> bool:
    """Return whether a file is a document by its suffix, or plain text by its first bytes."""
    if path.suffix.lower() in TEXT_SUFFIXES:
        return True
    if not os.path.isfile(path):  # a pipe would wait for a writer
        return False
    try:
        with path.open("rb") as file:
            start = file.read(PROBED_BYTES)
    except OSError:
        return False
    return b"\0" not in start and not start.startswith(b"YUV4MPEG2") and _is_utf8(start)


def is_video(path: Path) -> bool:
    """Return whether at least two frames of a file decode. Documents, images, sounds and archives are not opened."""
    if path.suffix.lower() in OTHER_SUFFIXES or is_special(path) or is_text(path):
        return False
    frames = 0
    try:
        with reading(path), open_video(str(path)) as (container, stream):
            for packet in islice(packets_of(container, stream), PROBED_PACKETS):
                frames += sum(not frame.is_corrupt for frame in packet.decode())
                if frames > 1:
                    return True
    except UnreadableVideo:
        return False
    return False


def _is_utf8(start: bytes) -> bool:
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4 and error.start > 0  # a character cut at the end
    return True


def _walk(root: Path, unreadable: list[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder with its files, and collect those that cannot be listed. A broken link counts as a file.

    Links are followed, but neither to a parent folder nor, below another link, to a folder that was seen before:
    folders with links to each other have too many paths.
    """
    seen: set[str] = set()
    waiting = [(0, root, frozenset[str]())]  # by the number of links
    while waiting:
        num_links, folder, parents = heappop(waiting)
        real = os.path.realpath(folder)
        if real in parents or (num_links > 1 and real in seen):
            continue
        seen.add(real)
        files = []
        try:
            with os.scandir(folder) as listed:
                entries = [entry for entry in listed if not entry.name.startswith(".")]
        except OSError:
            unreadable.append(folder)
            continue
        for entry in entries:
            if _is_folder(entry):
                heappush(waiting, (num_links + entry.is_symlink(), folder / entry.name, parents | {real}))
            else:
                files.append(folder / entry.name)
        yield folder, files


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False

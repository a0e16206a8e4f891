"""Lists that come with a corpus: what they say is compared with what lies on disk, and every difference is counted."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from kinema.data.manifest import Entry, rows
from kinema.datasets.prepared import examples
from kinema.errors import ManifestError

Key = TypeVar("Key", bound=Hashable)
ANNOTATIONS = "annotations.csv"
"""A table that lies beside the files of a corpus: `path`, `label`, `split` and more; its split stands."""
ARCHIVES = frozenset({".rar", ".zip", ".tar", ".gz", ".tgz"})


class Chosen(NamedTuple):
    """The samples of a corpus, by which rule they were split, what is to be said of them, and the official counts."""

    entries: list[Entry]
    version: str
    notes: list[str]
    declared: dict[str, int] | None = None


def read_annotations(root: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of each sample in the folder's table; nothing where there is no table.

    Raises:
        ManifestError: the table lacks a column, or a path stands twice.
    """
    table = root / ANNOTATIONS
    if not table.is_file():
        return []
    lines = rows(table, table.read_bytes())
    lacking = [column for column in columns if column not in lines[0][1]]
    if lacking:
        raise ManifestError(f"{table}, line 1: column {lacking[0]!r} is missing; wanted are {', '.join(columns)}")
    check_once(table, [(line, row["path"]) for line, row in lines])
    return lines


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of each line of a list that is not blank, without the spaces around it.

    Raises:
        ManifestError: it is no text, or has no such line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise ManifestError(f"{path}: is empty; get the list again")
    return lines


def check_once(table: Path, named: Sequence[tuple[int, str]]) -> None:
    """Refuse a list in which a sample stands twice."""
    first: dict[str, int] = {}
    for line, name in named:
        if name in first:
            raise ManifestError(f"{table}, line {line}: {name} stands in line {first[name]} already")
        first[name] = line


def find_list(root: Path, folders: Sequence[str], *names: str) -> Path | None:
    """The first file of one of these names, in one of these folders below the root, folder by folder."""
    places = [root / folder / name for folder in folders for name in names]
    return next((path for path in places if path.is_file()), None)


def differences(name: str, listed: Collection[str], there: Collection[str], missing: Sequence[str]) -> list[str]:
    """Notes on what a list names and the disk lacks, and on what the disk has and no list names.

    Args:
        name: of the list, for the notes.
        listed: files that it names.
        there: files of the corpus that are on disk, named in the same way.
        missing: samples of the list that are not on disk, or not with all their files.
    """
    notes = []
    if missing:
        notes.append(
            f"{len(missing)} samples of {name} are not on disk and were left out, and coverage counts them as "
            f"missing: {examples(missing)}"
        )
    extra = sorted(set(there) - set(listed))
    if extra:
        notes.append(f"{len(extra)} files on disk are not in {name} and were left out: {examples(extra)}")
    return notes


def first_home(root: Path, homes: Mapping[str, Sequence[tuple[Key, Path]]]) -> tuple[dict[Key, Path], list[str]]:
    """The videos of the first folder that has any, by what tells them apart, and what to say of the other folders.

    Args:
        root: the folder of the corpus.
        homes: the videos of each folder below it where they may lie.

    Raises:
        ManifestError: a video is there twice.
    """
    filled = {home: found for home, found in homes.items() if found}
    taken = next(iter(filled), "")
    notes = [
        f"{len(found)} videos in {root / home} were left out; those in {root / taken} were taken"
        for home, found in filled.items()
        if home != taken
    ]
    videos: dict[Key, Path] = {}
    for key, path in filled.get(taken, ()):
        first = videos.setdefault(key, path)
        if first != path:
            raise ManifestError(f"{path}: the same video is there as {first} too; move one away")
    return videos, notes


def other_counts(paths: Mapping[str, Path], listed: Mapping[str, int], official: Mapping[str, int]) -> list[str]:
    """Notes on lists that are not as long as the official ones, by splits."""
    return [
        f"{path.name} lists {listed[split]} samples, the official one {official[split]}: it is another, or a part"
        for split, path in paths.items()
        if listed[split] != official[split]
    ]


def still_packed(folders: Sequence[Path]) -> list[str]:
    """What to say of archives that lie in these folders, where samples are missing; nothing where there is none."""
    there = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()) if path.is_file()]
    packed = [path.name for path in there if path.suffix.lower() in ARCHIVES]
    return [f"archives are there and may be still packed: unpack {examples(packed, 10)}"] if packed else []

"""Lists that come with a corpus: what they say is compared with what lies on disk, and every difference is counted."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from kinema.data.corpora.prepared import examples
from kinema.data.manifest import Entry, ManifestError, rows

ANNOTATIONS = "annotations.csv"
"""A table that lies beside the files of a corpus: `path`, `label`, `split` and more; its split stands."""


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


def check_once(table: Path, named: Sequence[tuple[int, str]]) -> None:
    """Refuse a list in which a sample stands twice."""
    first: dict[str, int] = {}
    for line, name in named:
        if name in first:
            raise ManifestError(f"{table}, line {line}: {name} stands in line {first[name]} already")
        first[name] = line


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

"""A user's own videos: a folder of class folders, or a table; both become a manifest."""

import difflib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from kinema.data.decode import UnreadableVideo
from kinema.data.manifest import (
    COLUMNS,
    LABEL,
    DepthFacts,
    Entry,
    Manifest,
    ManifestError,
    check_manifest_name,
    class_lists,
    locate,
    parse_row,
    rows,
    split_by_group,
    write_manifest,
)
from kinema.data.sources import count_frames

SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"})
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
SPLIT_SEED = 0
"""Of the split that is made where none is given; fixed, so that the same videos give the same manifest."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A manifest that was written, and what a user should know about it.

    Args:
        unreadable: files that cannot be decoded, each with the reason; their lines stay, with `frames` empty.
        notes: what was decided or left out, a sentence each.
    """

    manifest: Manifest
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]


def prepare_folder(root: Path, out: Path, *, held_out_share: float = 0.2) -> Prepared:
    """Make a manifest of `root/CLASS/video`, or `root/train/CLASS/video` with `val` or `test` beside it.

    Args:
        root: the folder; any depth of folders may lie inside a class.
        out: the CSV to write; the JSON comes beside it.
        held_out_share: of each class that becomes split `val` where the folders name no split.

    Raises:
        ManifestError: there is no such folder, no video in it, or fewer than two classes.
    """
    _check(out, held_out_share)
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder; give the one that holds a folder for each class")
    top = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and _holds_video(p))
    split_folders = [p for p in top if p.name.lower() in SPLIT_FOLDERS]
    named = bool(split_folders) and len(split_folders) == len(top)
    if len(split_folders) > 1 and not named:
        other = next(p.name for p in top if p not in split_folders)
        raise ManifestError(
            f"{root}: {split_folders[0].name!r} and {split_folders[1].name!r} name splits, but {other!r} beside them "
            "holds videos too; put its classes into a split, or move it away"
        )
    branches = [(SPLIT_FOLDERS[p.name.lower()], p) for p in top] if named else [("", root)]

    entries, others = [], 0
    for split, branch in branches:
        for folder in sorted(p for p in branch.iterdir() if p.is_dir() and not p.name.startswith(".")):
            for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
                if path.suffix.lower() in SUFFIXES:
                    entries.append(Entry(rgb=_relative(path, out), split=split, labels={LABEL: folder.name.strip()}))
                else:
                    others += 1
    if not entries:
        kinds = ", ".join(sorted(SUFFIXES))
        raise ManifestError(f"{root}: no video in any class folder; looked for CLASS/NAME with {kinds}")
    notes = [f"{others} files are no videos by their name and were left out"] if others else []
    if not named:
        entries = split_by_group(entries, share=held_out_share, seed=SPLIT_SEED)
        notes.append(_split_note(entries))
    return _write(entries, out, corpus=root.resolve().name, notes=notes)


def prepare_table(
    table: Path,
    out: Path,
    *,
    columns: Mapping[str, str] | None = None,
    held_out_share: float = 0.2,
    depth: DepthFacts | None = None,
) -> Prepared:
    """Make a manifest of a CSV whose columns may have other names.

    Args:
        table: the CSV; its paths are relative to its folder, or URLs.
        columns: manifest column -> the table's name for it; what is not named is taken where the name is the same.
        held_out_share: as for `prepare_folder`, where no split column is there; groups and subjects stay together.
        depth: what the numbers of 16-bit depth mean; not needed for depth as 8-bit video.

    Raises:
        ManifestError: a column is missing or unknown, or a line says something impossible.
    """
    _check(out, held_out_share)
    if not table.is_file():
        raise ManifestError(f"{table}: no such table")
    if out.resolve() == table.resolve():
        raise ManifestError(f"{out}: is the table itself, and would be written over; give the manifest another name")
    lines = rows(table, table.read_bytes())
    names = _column_names(table, list(lines[0][1]), columns or {})
    entries: list[Entry] = []
    for line, row in lines:
        try:
            entry = parse_row({column: row[name] for column, name in names.items()}, line)
        except ValueError as error:
            raise ManifestError(f"{table}, line {line}: {error}") from error
        entries.append(replace(entry, rgb=_moved(entry.rgb, table, out), depth=_moved(entry.depth, table, out)))
    unused = sorted(set(lines[0][1]) - set(names.values()))
    notes = [f"columns not used: {', '.join(unused)}"] if unused else []
    if "split" not in names:
        entries = split_by_group(entries, share=held_out_share, seed=SPLIT_SEED)
        notes.append(_split_note(entries))
    return _write(entries, out, corpus=table.stem, notes=notes, depth=depth)


def _holds_video(folder: Path) -> bool:
    return any(p.suffix.lower() in SUFFIXES and p.is_file() for p in folder.rglob("*"))


def _column_names(table: Path, there: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    known = [*COLUMNS, LABEL]
    for column, name in columns.items():
        if column not in known and not column.startswith(f"{LABEL}."):
            near = difflib.get_close_matches(column, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ManifestError(f"--columns {column}={name}: a manifest has no column {column!r}; {hint}")
        if name not in there:
            raise ManifestError(f"{table}: has no column {name!r}; its columns are {', '.join(there)}")
    names = {name: name for name in there if name in known or name.startswith(f"{LABEL}.")} | dict(columns)
    if "rgb" not in names and "depth" not in names:
        raise ManifestError(f"{table}: no column 'rgb' or 'depth'; say which holds the paths: --columns rgb=NAME")
    if not any(column == LABEL or column.startswith(f"{LABEL}.") for column in names):
        raise ManifestError(f"{table}: no column 'label'; say which holds the classes: --columns label=NAME")
    return names


def _write(
    entries: Sequence[Entry], out: Path, *, corpus: str, notes: Sequence[str], depth: DepthFacts | None = None
) -> Prepared:
    classes = class_lists(entries)
    for head, names in classes.items():
        if len(names) < 2:
            raise ManifestError(f"{out}: {head!r} has one class, {names[0]!r}; recognising needs at least two")

    out.parent.mkdir(parents=True, exist_ok=True)

    def counted(entry: Entry) -> tuple[Entry, str]:
        path = locate(out, entry.rgb or entry.depth)
        try:
            frames = count_frames(path)
        except UnreadableVideo as error:
            return replace(entry, frames=None), str(error)
        try:
            return replace(entry, frames=frames), ""
        except ValueError as error:  # the segment ends behind the last frame
            raise ManifestError(f"{path}: {error}") from error

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = list(pool.map(counted, entries))
    differing = sum(
        before.frames is not None and after.frames is not None and before.frames != after.frames
        for before, (after, _) in zip(entries, results, strict=True)
    )
    if differing:
        notes = [*notes, f"{differing} lines announced another number of frames than decodes; the latter stands"]
    manifest = write_manifest(
        out, entries=[entry for entry, _ in results], classes=classes, corpus=corpus, version="own", depth=depth
    )
    return Prepared(manifest=manifest, unreadable=tuple(reason for _, reason in results if reason), notes=tuple(notes))


def _check(out: Path, held_out_share: float) -> None:
    check_manifest_name(out)
    if not 0 < held_out_share < 1:
        raise ManifestError(f"held_out_share={held_out_share} must lie between 0 and 1")


def _split_note(entries: Sequence[Entry]) -> str:
    held = sum(entry.split == "val" for entry in entries)
    return f"no split was given: {len(entries) - held} samples are train and {held} val, groups kept together"


def _moved(source: str, table: Path, out: Path) -> str:
    """A path of the table's as the manifest says it."""
    return _relative(table.parent / source, out) if source and "://" not in source else source


def _relative(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path.resolve(), out.parent.resolve())).as_posix()

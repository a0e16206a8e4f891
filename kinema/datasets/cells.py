"""Cells of a user's own table: missing values, numbers that pandas wrote as floats, and spellings of splits."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from kinema.data.manifest import LABEL, Entry
from kinema.data.names import (
    MISSING,
    NOT_A_NUMBER,
    SPLIT_OF_SPELLING,
    SPLITS,
    similar_names,
    spelling_key,
    split_name,
    without_floats,
)
from kinema.errors import ManifestError, did_you_mean, examples

Place = Literal["line", "item"]
"""Unit of row numbers in messages: lines of the file, or items of a list."""
Row = tuple[int, dict[str, str]]
NAME_COLUMNS = ("group", "subject", "camera")
"""Columns of names, in which whole numbers may be written as floats."""
INTEGER_COLUMNS = ("start_frame", "stop_frame", "frames")
"""Columns of whole numbers."""


def is_label(column: str) -> bool:
    """Return whether a field or column is `label` or `label.HEAD`."""
    return column == LABEL or column.startswith(f"{LABEL}.")


def clean_rows(
    table: Path, place: Place, rows: Sequence[Row], columns: Mapping[str, str]
) -> tuple[list[Row], list[str]]:
    """Return number and cells of each row by manifest column, and notes on cells that were read as others.

    Args:
        table: Table, for messages.
        place: Unit of row numbers.
        rows: Rows of the table.
        columns: Column of the table for each manifest column.

    Raises:
        ManifestError: Labels are missing, or a split is missing or unknown.
    """
    numbers = [number for number, _ in rows]
    cleaned: dict[str, list[str]] = {}
    notes = []
    for column, name in columns.items():
        cells = [row[name] for _, row in rows]
        missing = [(number, cell) for number, cell in zip(numbers, cells, strict=True) if cell in MISSING]
        if is_label(column) or (column == "split" and 0 < len(missing) < len(cells)):
            _refuse_missing(table, place, column, missing)
        cells = ["" if cell in MISSING else cell for cell in cells]
        if column == "split":
            cells, split_notes = _splits(table, place, numbers, cells)
            notes += split_notes
        elif is_label(column) or column in (*NAME_COLUMNS, *INTEGER_COLUMNS):
            whole, changed = without_floats(["0", *cells] if column in INTEGER_COLUMNS else cells)
            if changed and column not in INTEGER_COLUMNS:
                before, after = next(pair for pair in zip(cells, whole, strict=True) if pair[0] != pair[1])
                notes.append(f"{column}: {changed} numbers were read without their decimals, e.g. {before} as {after}")
            cells = whole[-len(cells) :]
        cleaned[column] = cells
    return [
        (number, {column: cells[position] for column, cells in cleaned.items()})
        for position, number in enumerate(numbers)
    ], notes


def _refuse_missing(table: Path, place: Place, column: str, missing: Sequence[tuple[int, str]]) -> None:
    if missing:
        written = ", ".join(repr(cell) for cell in sorted({cell for _, cell in missing}))
        where = f"{place}{'s' if len(missing) > 1 else ''} {examples([str(number) for number, _ in missing], 5)}"
        fix = "Fill or remove them" if column == "split" else "Fill or remove them; a class needs another name"
        problem = f"{column} is missing in {len(missing)} {place}s ({written})"
        raise ManifestError(f"{table}, {where}: {problem}. {fix}.", path=table, line=missing[0][0], field=column)


def _splits(table: Path, place: Place, numbers: Sequence[int], cells: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the splits by their usual names, and a note on other spellings."""
    unknown = [(number, cell) for number, cell in zip(numbers, cells, strict=True) if cell and not split_name(cell)]
    if unknown:
        number, cell = unknown[0]
        problem = f"{table}, {place} {number}: {unknown_split(cell)}"
        raise ManifestError(problem, path=table, line=number, field="split")
    splits = [split_name(cell) or "" for cell in cells]
    other = sorted({f"{cell!r} as {split}" for cell, split in zip(cells, splits, strict=True) if cell != split})
    return splits, [f"split: read {examples(other, 6)}"] if other else []


def unknown_split(name: str) -> str:
    """Return the message about an unknown split, with the nearest one."""
    near = difflib.get_close_matches(name.strip().lower(), SPLIT_OF_SPELLING, n=1, cutoff=0.5)
    return f"unknown split {name!r}; {did_you_mean(SPLIT_OF_SPELLING[near[0]] if near else name, SPLITS)}"


def check_class_names(classes: Mapping[str, Sequence[str]], path: Path) -> None:
    """Check that no two classes of a task head are spellings of one name.

    Raises:
        ManifestError: Two names differ by case, blanks or hyphens alone, or a name is a missing value.
    """
    for head, names in classes.items():
        pair = similar_names(names)
        if pair:
            problem = f"{pair[0]!r} and {pair[1]!r} ({head}) differ by case, blanks or spelling of a number alone"
            raise ManifestError(f"{path}: classes {problem}. Rename one of them.", path=path, field=head)
        for name in NOT_A_NUMBER.intersection(names):
            problem = f"class {name!r} is a missing value"
            raise ManifestError(f"{path}: {problem}. Label these samples, or move them away.", path=path, field=head)


def unite_spellings(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return the entries with one spelling of each group, subject and camera, the most frequent one, and notes."""
    united, notes = list(entries), []
    for column in NAME_COLUMNS:
        counts = Counter(name for entry in entries if (name := getattr(entry, column)))
        spellings: dict[str, list[str]] = {}
        for name, _ in counts.most_common():
            spellings.setdefault(spelling_key(name), []).append(name)
        chosen = {name: names[0] for names in spellings.values() for name in names}
        if len(spellings) < len(counts):
            united = [replace(e, **{column: chosen.get(getattr(e, column), "")}) for e in united]  # type: ignore[arg-type]  # text
            pairs = [f"{', '.join(names[1:])} as {names[0]}" for names in spellings.values() if len(names) > 1]
            notes.append(f"{column}: read {examples(pairs, 6)}")
    return united, notes

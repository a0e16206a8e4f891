"""A user's own table: CSV, or JSON as a list of objects or one object per line."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from kinema.config import config
from kinema.data.csv_table import read_csv
from kinema.data.manifest import COLUMNS, LABEL, Entry, check_manifest_name, parse_row
from kinema.datasets.cells import Place, Row, clean_rows, is_label
from kinema.datasets.holdout import assign_splits
from kinema.datasets.options import OwnDataOptions
from kinema.datasets.prepared import PreparedDataset, write_prepared
from kinema.datasets.registry import DatasetSpec
from kinema.errors import ManifestError, UsageError, did_you_mean
from kinema.files import read_bytes

OBJECTS = "a list of objects, or one object per line"
OTHER_NAMES = {
    **dict.fromkeys(("subset", "partition", "phase", "is_train"), "split"),
    **dict.fromkeys(("subject_id", "person", "person_id"), "subject"),
    **dict.fromkeys(("start", "start_time", "begin"), "start_s"),
    **dict.fromkeys(("end", "end_time", "stop"), "stop_s"),
}
"""Usual names of columns that decide the split or the frames."""


@config
class TableOptions(OwnDataOptions):
    """Options of a user's own table.

    Attributes:
        columns: Names of the table's columns, for example rgb=path,group=source_video,label.verb=verb.
    """

    columns: str = ""


def prepare(options: TableOptions, table_format: Literal["csv", "json"]) -> PreparedDataset:
    """Write the manifest of a table, whose paths are relative to its folder, or URLs.

    Raises:
        ManifestError: A column is missing or unknown, or a line has an impossible value.
        UsageError: `columns` is malformed.
    """
    table, out = options.root, options.out
    check_manifest_name(out)
    for written in (out, out.with_suffix(".json")):
        if os.path.realpath(table) == os.path.realpath(written):
            problem = f"{written}: is the table itself and would be overwritten. Choose another name for the manifest."
            raise ManifestError(problem, path=written, field="out")
    if not table.is_file():
        raise ManifestError(f"{table}: no such table", path=table, field="root")
    place, lines = _json_rows(table) if table_format == "json" else ("line", read_csv(table, read_bytes(table)))
    chosen = _parse_columns(options.columns)
    names = _column_names(table, list(lines[0][1]), chosen)
    rows, cell_notes = clean_rows(table, place, lines, names)
    entries: list[Entry] = []
    for line, row in rows:
        try:
            entries.append(parse_row(row, line))
        except ManifestError as error:
            message = f"{table}, {place} {line}: {error}"
            raise ManifestError(message, path=table, line=line, field=error.field) from error
    unused = sorted(set(lines[0][1]) - set(names.values()))
    notes = [f"unused columns: {', '.join(unused)}"] if unused else []
    notes += [f"column {name!r} is read as {column}" for column, name in names.items() if column not in (name, *chosen)]
    has_split = any(entry.split for entry in entries)
    assigned = assign_splits(entries, options, base=table.parent, has_split=has_split)
    return write_prepared(
        assigned.entries,
        out,
        base=table.parent,
        dataset=table.stem,
        depth=options.depth_facts,
        mirrored=options.mirrored,
        depth_encoding=options.depth_encoding,
        ungrouped=assigned.ungrouped,
        notes=[*notes, *cell_notes, *assigned.notes],
    )


def _parse_columns(text: str) -> dict[str, str]:
    """Return the table's column of each manifest column in `a=b,c=d`."""
    columns = {}
    for part in filter(None, text.split(",")):
        column, equals, name = part.partition("=")
        if not equals or not column or not name:
            raise UsageError(f"--columns: expected column=name, got {part!r}", field="columns")
        columns[column.strip()] = name.strip()
    return columns


def _json_rows(table: Path) -> tuple[Place, list[Row]]:
    """Return number and cells of each object; missing columns are empty."""
    try:
        text = read_bytes(table).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{table}: not UTF-8 text ({error.reason} at byte {error.start})", path=table) from error
    place: Place = "item" if text.lstrip().startswith("[") else "line"
    if place == "item":
        numbered = list(enumerate(_parse_json(text, table), start=1))
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        numbered = [(number, _parse_json(line, table, number)) for number, line in lines]
    if not numbered:
        raise ManifestError(f"{table}: empty table; expected {OBJECTS}", path=table)
    cells = [(number, _cells(row, table, place, number)) for number, row in numbered]
    columns = dict.fromkeys(column for _, row in cells for column in row)
    return place, [(number, {column: row.get(column, "") for column in columns}) for number, row in cells]


def _parse_json(text: str, table: Path, line: int | None = None) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        place = f"{table}" if line is None else f"{table}, line {line}"
        raise ManifestError(f"{place}: not valid JSON ({error}); expected {OBJECTS}", path=table, line=line) from error


class _Pairs(list[tuple[str, Any]]):
    """Names and values of an object, including names that occur twice."""


def _cells(row: Any, table: Path, place: Place, number: int) -> dict[str, str]:
    def error(problem: str, field: str | None = None) -> ManifestError:
        return ManifestError(f"{table}, {place} {number}: {problem}", path=table, line=number, field=field)

    if not isinstance(row, _Pairs):
        raise error(f"not an object; expected {OBJECTS}")
    cells: dict[str, str] = {}
    for name, value in row:
        if name.strip() in cells:
            raise error(f"{name!r} occurs twice", name.strip())
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            kind = {bool: "true or false", _Pairs: "an object", list: "a list"}[type(value)]
            raise error(f"{name!r} is {kind}; expected a string or a number", name)
        if isinstance(value, float) and math.isinf(value):
            raise error(f"{name!r} is infinite; expected a string or a finite number", name)
        cells[name.strip()] = "" if value is None else str(value).strip()
    return cells


def _column_names(table: Path, header: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return the table's column of each manifest column."""
    manifest_columns = [*COLUMNS, LABEL]
    for column, name in columns.items():
        if column not in manifest_columns and not is_label(column):
            hint = did_you_mean(column, manifest_columns)
            raise ManifestError(f"--columns {column}={name}: unknown manifest column {column!r}; {hint}", field=column)
        if name not in header:
            problem = f"{table}: column {name!r} not found; its columns are {', '.join(header)}"
            raise ManifestError(problem, path=table, field=name)
    names = {name: name for name in header if name in manifest_columns or is_label(name)} | dict(columns)
    if "rgb" not in names and "depth" not in names:
        problem = f"{table}: no column 'rgb' or 'depth'. Name the column of the paths: --columns rgb=NAME."
        raise ManifestError(problem, path=table, field="rgb")
    if not any(map(is_label, names)):
        problem = f"{table}: no column 'label'. Name the column of the classes: --columns label=NAME."
        raise ManifestError(problem, path=table, field=LABEL)
    for name in header:
        column = OTHER_NAMES.get(name.lower(), name.lower())
        if name in names.values() or column in names or column not in manifest_columns:
            continue
        if column not in ("split", "start_s", "stop_s") or name.lower() == column:
            names[column] = name
        else:
            problem = f"{table}: column {name!r} may be {column!r}. Pass --columns {column}={name}, or rename it."
            raise ManifestError(problem, path=table, line=1, field=name)
    return names


SPECS = (
    DatasetSpec("csv", "Your own CSV table.", TableOptions, partial(prepare, table_format="csv")),
    DatasetSpec("json", "Your own JSON table.", TableOptions, partial(prepare, table_format="json")),
)

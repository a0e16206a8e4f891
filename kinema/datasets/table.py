"""A table of one's own becomes a manifest: CSV, or JSON as a list of objects or with an object a line."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from kinema.config import config
from kinema.data.manifest import COLUMNS, LABEL, Entry, parse_row, rows
from kinema.datasets.options import Holdout, OwnDataOptions
from kinema.datasets.prepared import HOLDOUT, Prepared, check_target, finish, hold_out, not_held_out
from kinema.errors import ManifestError, UsageError
from kinema.modality import DepthFacts

Place = Literal["line", "item"]
"""How a row of a table is found again: by the line in the file, or by its number in a list."""


@config
class TableOptions(OwnDataOptions):
    """Options of a table of one's own.

    Args:
        columns: Names of the table's columns, for example rgb=path,group=source_video,label.verb=verb.
    """

    form: ClassVar[Literal["csv", "json"]]
    columns: str = ""


@config
class CsvOptions(TableOptions):
    """Make a manifest of a CSV table."""

    form: ClassVar[Literal["csv", "json"]] = "csv"


@config
class JsonOptions(TableOptions):
    """Make a manifest of a JSON table: a list of objects, or one object per line."""

    form: ClassVar[Literal["csv", "json"]] = "json"


def prepare(options: TableOptions) -> Prepared:
    """Write the manifest of a table; see `prepare_table`."""
    return prepare_table(
        options.root,
        options.out,
        form=options.form,
        columns=_pairs(options.columns),
        holdout=options,
        depth=options.depth_facts,
    )


def _pairs(text: str) -> dict[str, str]:
    """Return `a=b,c=d` as a mapping."""
    found = {}
    for part in filter(None, text.split(",")):
        column, equals, name = part.partition("=")
        if not equals or not column or not name:
            raise UsageError(f"--columns: {part!r} is not of the form column=name", field="columns")
        found[column.strip()] = name.strip()
    return found


def prepare_table(
    table: Path,
    out: Path,
    *,
    form: Literal["csv", "json"] = "csv",
    columns: Mapping[str, str] | None = None,
    holdout: Holdout = HOLDOUT,
    depth: DepthFacts | None = None,
) -> Prepared:
    """Make a manifest of a table whose columns may have other names.

    Args:
        table: the CSV or JSON; its paths are relative to its folder, or URLs.
        out: the CSV to write; a JSON comes beside it.
        columns: manifest column -> the table's name for it; what is not named is taken where the name is the same.
        holdout: the split, where no split column is there.
        depth: what the numbers of 16-bit depth mean; not needed for depth as 8-bit video.

    Raises:
        ManifestError: a column is missing or unknown, or a line says something impossible.
    """
    check_target(out, table)
    if not table.is_file():
        raise ManifestError(f"{table}: no such table")
    place: Place = "line"
    lines = rows(table, table.read_bytes()) if form == "csv" else []
    if form == "json":
        place, lines = _json_rows(table)
    names = _column_names(table, list(lines[0][1]), columns or {})
    entries: list[Entry] = []
    for line, row in lines:
        try:
            entries.append(parse_row({column: row[name] for column, name in names.items()}, line))
        except ValueError as error:
            raise ManifestError(f"{table}, {place} {line}: {error}") from error
    unused = sorted(set(lines[0][1]) - set(names.values()))
    notes = [f"columns not used: {', '.join(unused)}"] if unused else []
    if "split" in names:
        notes += not_held_out(holdout)
    else:
        entries, said = hold_out(entries, holdout)
        notes += said
    return finish(entries, out, base=table.parent, corpus=table.stem, depth=depth, notes=notes)


def _json_rows(table: Path) -> tuple[Place, list[tuple[int, dict[str, str]]]]:
    """Number and cells of each object; a column that an object lacks is empty there."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{table}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    numbered: list[tuple[int, Any]]
    place: Place
    if text.lstrip().startswith("["):
        place, numbered = "item", list(enumerate(_parsed(text, f"{table}"), start=1))
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        place, numbered = "line", [(number, _parsed(line, f"{table}, line {number}")) for number, line in lines]
    if not numbered:
        raise ManifestError(f"{table}: is empty; it needs a list of objects, or one object a line")
    found = [(number, _cells(row, f"{table}, {place} {number}")) for number, row in numbered]
    columns = dict.fromkeys(column for _, row in found for column in row)
    return place, [(number, {column: row.get(column, "") for column in columns}) for number, row in found]


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"{where}: is no JSON ({error}); a table is a list of objects, or one object a line"
        ) from error


class _Pairs(list[tuple[str, Any]]):
    """Names and values of an object, as they stand there: a name that stands twice is not lost."""


def _cells(row: Any, where: str) -> dict[str, str]:
    if not isinstance(row, _Pairs):
        raise ManifestError(f"{where}: is no object; a table is a list of objects, or one object a line")
    cells: dict[str, str] = {}
    for name, value in row:
        if name.strip() in cells:
            raise ManifestError(f"{where}: {name!r} stands twice")
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            kind = {bool: "true or false", _Pairs: "an object", list: "a list"}[type(value)]
            raise ManifestError(f"{where}: {name!r} is {kind}; a cell is a string or a number")
        cells[name.strip()] = "" if value is None else str(value).strip()
    return cells


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

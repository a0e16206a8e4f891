"""Tables of the thesis: the rows that it prints, own and quoted, beside our stored results."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

OWN = ("MFST", "RPE-STDT", "CTN")
"""Beginnings of the names of the thesis's own models."""

COMPARISONS = ("2.1", "2.2", "2.3", "3.6", "4.7")
"""Tables that quote rows of other publications."""

UMDR = "github.com/zhoubenjia/MotionRGBD-PAMI, 32 frames"
"""Source of rows that the thesis lacks: a publication of 2023, ahead of MFST in most columns."""


@dataclass(frozen=True, kw_only=True)
class PrintedNumber:
    """Number in a table of the thesis.

    Attributes:
        row: Model or setting, with the modalities in brackets.
        column: Dataset and metric.
        value: Number as printed.
        note: Remark, such as pretraining and frames.
        origin: `thesis` for its own experiments, `quoted` for those that it takes from other publications, or the
            source of a number that it lacks.
        recipes: Names of the recipes of this number, also of two readings of the thesis; `A+B` for a fusion of two.
    """

    row: str
    column: str
    value: str
    note: str
    origin: str
    recipes: tuple[str, ...]


@cache
def all_numbers() -> tuple[tuple[str, PrintedNumber], ...]:
    """Return all numbers with their tables, in the order of the thesis, then those that it lacks."""
    numbers = []
    for name in ("thesis_tables.csv", "umdr_rows.csv"):
        text = files("kinema.assets").joinpath(name).read_text(encoding="utf-8")
        for line in csv.DictReader(text.splitlines()):
            table, row = line["table"], line["row"]
            is_quoted = table in COMPARISONS and not row.startswith(OWN)
            number = PrintedNumber(
                row=row,
                column=_column(line["dataset"], line["metric"]),
                value=line["value"],
                note=line["note"],
                origin=UMDR if name == "umdr_rows.csv" else "quoted" if is_quoted else "thesis",
                recipes=tuple(line.get("recipe", "").split()),
            )
            numbers.append((table, number))
    return tuple(numbers)


def printed_numbers(table: str) -> tuple[PrintedNumber, ...]:
    """Return the numbers of a table."""
    return tuple(number for name, number in all_numbers() if name == table)


def printed_accuracy(recipe: str) -> str:
    """Return the accuracies that the thesis prints for a recipe as text; empty if it prints none."""
    found = [number for _, number in all_numbers() if recipe in number.recipes]
    return ", ".join(f"{number.value} % ({number.column})" for number in found)


def comparison(table: str, results: Path) -> Iterator[tuple[str, ...]]:
    """Yield a header and the rows of a table: name, origin, printed numbers, note, and our stored results."""
    numbers = printed_numbers(table)
    columns = list(dict.fromkeys(number.column for number in numbers))
    yield ("row", "origin", *columns, "note", "ours, top-1 %")
    for name in dict.fromkeys(number.row for number in numbers):
        row = [number for number in numbers if number.row == name]
        values = {number.column: number.value for number in row}
        cells = (values.get(column, "") for column in columns)
        note = row[0].note.replace("frames None", "frames not given")
        yield (
            name,
            row[0].origin,
            *cells,
            note,
            _our_results([recipe for number in row for recipe in number.recipes], results),
        )


def _column(dataset: str, metric: str) -> str:
    if metric.startswith("params"):
        return "parameters, M"
    if dataset == "-":
        return metric.replace("_", " ")
    return f"{dataset} {metric.removeprefix('top1').replace('_', ' ').strip()}".strip()


def _our_results(recipes: Sequence[str], results: Path) -> str:
    """Return the top-1 of each stored result of the recipes, with its start weights, or `not run`."""
    if not recipes:
        return ""
    names = dict.fromkeys(recipe.replace("/", "_") for recipe in recipes)
    found = []
    for path in (path for name in names for path in sorted(results.glob(f"{name}_seed*.json"))):
        stored = json.loads(path.read_text(encoding="utf-8"))
        top1 = stored["measures"].get("joint.top1", stored["measures"].get("top1"))
        found.append(f"{stored['dataset']} {top1:.1f} (start weights: {stored.get('start_weights') or 'unknown'})")
    return "; ".join(found) or "not run"

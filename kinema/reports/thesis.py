"""Tables of the thesis: the rows that it prints, own and quoted, beside our stored results."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

OWN = ("MFST", "RPE-STDT", "CTN")
"""Beginnings of the names of the thesis's own models."""

COMPARISONS = ("2.1", "2.2", "2.3", "3.6", "4.7")
"""Tables that quote rows of other publications."""

RECIPES = {
    ("2.1", "MFST-Large [RGB]"): ("ntu60_mfst_large",),
    ("2.1", "MFST-Large [DEP]"): ("ntu60_mfst_large_depth",),
    ("2.1", "MFST-Large [RGB+DEP]"): (),
    ("2.2", "MFST-Large [RGB]"): ("isogd_mfst_large",),
    ("2.2", "MFST-Large [DEP]"): ("isogd_mfst_large_depth",),
    ("2.2", "MFST-Large [RGB+DEP]"): (),
    ("2.3", "MFST-Base"): ("table_2_3_base",),
    ("2.3", "MFST-Large"): ("ntu60_mfst_large",),
    ("3.6", "RPE-STDT"): ("ucf101_rpe_stdt_base12", "hmdb51_rpe_stdt_base12", "diving48_rpe_stdt_base12"),
    ("4.7", "CTN"): ("epic_kitchens_ctn_base", "diving48_ctn_base"),
}
"""Recipes of the thesis's own rows. Color and depth together are the fusion of two trainings."""

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
    """

    row: str
    column: str
    value: str
    note: str
    origin: str


@cache
def printed_numbers(table: str) -> tuple[PrintedNumber, ...]:
    """Return the numbers of a table in the order of the thesis, then those that it lacks."""
    numbers = []
    for name in ("thesis_tables.csv", "umdr_rows.csv"):
        text = files("kinema.assets").joinpath(name).read_text(encoding="utf-8")
        for line in csv.DictReader(text.splitlines()):
            is_quoted = table in COMPARISONS and not line["row"].startswith(OWN)
            origin = UMDR if name == "umdr_rows.csv" else "quoted" if is_quoted else "thesis"
            column = _column(line["dataset"], line["metric"])
            if line["table"] == table:
                numbers.append(
                    PrintedNumber(row=line["row"], column=column, value=line["value"], note=line["note"], origin=origin)
                )
    return tuple(numbers)


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
        yield (name, row[0].origin, *cells, note, _our_results(RECIPES.get((table, name)), results))


def _column(dataset: str, metric: str) -> str:
    if metric.startswith("params"):
        return "parameters, M"
    if dataset == "-":
        return metric.replace("_", " ")
    return f"{dataset} {metric.removeprefix('top1').replace('_', ' ').strip()}".strip()


def _our_results(recipes: tuple[str, ...] | None, results: Path) -> str:
    """Return the top-1 of each stored result of the recipes, with its start weights, or `not run`."""
    if recipes is None:
        return ""
    found = []
    for path in (path for recipe in recipes for path in sorted(results.glob(f"{recipe}_seed*.json"))):
        stored = json.loads(path.read_text(encoding="utf-8"))
        top1 = stored["measures"].get("joint.top1", stored["measures"].get("top1"))
        found.append(f"{stored['dataset']} {top1:.1f} (start weights: {stored.get('start_weights') or 'unknown'})")
    return "; ".join(found) or "not run"

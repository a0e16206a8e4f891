"""CSV tables: cells are read back as written, and no spreadsheet takes one for a formula."""

import csv
from pathlib import Path

import pytest

from kinema.data.csv_table import csv_text, read_csv
from kinema.data.manifest import Entry, class_lists, load_manifest, write_manifest

FORMULAS = [
    "=1+1",
    "@SUM(A1)",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "-",
    "-x",
    "'=1",
    "''+",
    "\uff1d1",
    "=a,b",
    '="a"',
    "=\ra",
    "+1 ",
]


@pytest.mark.parametrize("cell", [*FORMULAS, "-1.5", "+3", "-1e-5", "-.5", "'quoted'", "a=b", "a\rb", "a\nb"])
def test_cells_are_read_back_as_written(cell):
    text = csv_text([["name", "other"], [cell, "x"]])
    assert read_csv(Path("a.csv"), text.encode())[0][1] == {"name": cell.strip(), "other": "x"}
    written = list(csv.reader(text.splitlines(keepends=True)))[1][0]
    assert (written != cell) == (cell in FORMULAS)
    assert written == cell or written == f"'{cell}"


def test_numbers_and_empty_cells_are_not_quoted():
    assert csv_text([["a", "b", "c"], [-1.5, None, "-1.5"]]) == "a,b,c\n-1.5,,-1.5\n"


def test_manifests_keep_names_that_look_like_formulas(tmp_path):
    entries = [Entry(rgb=f"-{n}.mp4", group="@g", labels={"label": label}) for n, label in enumerate(["=1+1", "-1.5"])]
    facts = {"classes": class_lists(entries), "dataset": "d", "version": "1", "depth": None}
    written = write_manifest(tmp_path / "m.csv", entries=entries, **facts)
    assert [(e.rgb, e.group, e.labels) for e in written.entries] == [(e.rgb, e.group, e.labels) for e in entries]
    assert load_manifest(tmp_path / "m.csv").digest == written.digest
    assert "'=1+1" in (tmp_path / "m.csv").read_text()

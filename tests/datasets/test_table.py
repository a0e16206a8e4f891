"""A user's own tables: CSV and JSON, with columns of other names."""

import json
from pathlib import Path

import pytest

from kinema.data.manifest import load_manifest
from kinema.datasets.options import Holdout
from kinema.datasets.table import TableOptions, prepare
from kinema.errors import ConfigError, ManifestError
from kinema.video.source import open_source


def prepare_table(table, out, form="csv", columns=None, **options):
    names = ",".join(f"{column}={name}" for column, name in (columns or {}).items())
    return prepare(TableOptions(root=table, out=out, columns=names, **options), form)


@pytest.fixture
def table(tmp_path, fill):
    """Table of twelve videos of four people, with other column names than a manifest."""
    fill(tmp_path / "in" / "videos", *(f"{n} x.mp4" for n in range(12)))
    path = tmp_path / "in" / "table.csv"
    lines = [f'"videos/{n} x.mp4",{"walk" if n % 2 else "run"},p{n // 3},4.5' for n in range(12)]
    path.write_text("\n".join(["clip,action,person,score", *lines]) + "\n")
    return path


COLUMNS = {"rgb": "clip", "label": "action", "subject": "person"}


def test_columns_of_other_names_are_mapped(tmp_path, table, match_notes):
    prepared = prepare_table(table, tmp_path / "out" / "m.csv", columns=COLUMNS)
    manifest = prepared.manifest
    assert manifest.classes == {"label": ("run", "walk")}
    assert [entry.labels["label"] for entry in manifest.entries] == ["run", "walk"] * 6
    assert [entry.subject for entry in manifest.entries] == [f"p{n // 3}" for n in range(12)]
    assert all(Path(manifest.locate(entry.rgb)).is_file() for entry in manifest.entries)
    assert manifest.entries[0].rgb == "../in/videos/0 x.mp4"
    assert match_notes(prepared.notes[:1], "columns score")
    held = {entry.subject for entry in manifest.entries if entry.split == "val"}
    assert held
    assert not held & {entry.subject for entry in manifest.entries if entry.split == "train"}


def test_the_split_of_the_table_is_used(tmp_path, table, match_notes):
    text = table.read_text().splitlines()
    splits = ["split", *(["train"] * 8), *(["test"] * 4)]
    table.write_text("\n".join(f"{line},{split}" for line, split in zip(text, splits, strict=True)))
    prepared = prepare_table(table, tmp_path / "m.csv", columns=COLUMNS)
    assert [entry.split for entry in prepared.manifest.entries] == splits[1:]
    assert match_notes(prepared.notes, "columns score", "1 subjects p2")


def test_wrong_frame_counts_are_corrected(tmp_path, table, match_notes):
    text = table.read_text().splitlines()
    table.write_text("\n".join(f"{line},{'frames' if not n else 9 + (n < 4)}" for n, line in enumerate(text)))
    prepared = prepare_table(table, tmp_path / "m.csv", columns=COLUMNS)
    assert {entry.frames for entry in prepared.manifest.entries} == {9}
    assert any(match_notes([note], "3 lines frames") for note in prepared.notes)


def test_a_table_is_not_overwritten(raises, tmp_path, table):
    before = table.read_bytes()
    with raises(ManifestError, path="table.csv", field="out"):
        prepare_table(table, tmp_path / "in" / ".." / "in" / "table.csv", columns=COLUMNS)
    assert table.read_bytes() == before


def test_a_segment_after_the_end_of_its_file_is_refused(raises, tmp_path, fill):
    fill(tmp_path, "1.mp4", "2.mp4")
    table = tmp_path / "t.csv"
    table.write_text("rgb,start_frame,stop_frame,label\n1.mp4,0,9,a\n2.mp4,0,10,b\n")
    with raises(ManifestError, "10", path="2.mp4", line=3, field="stop_frame"):
        prepare_table(table, tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("columns", "word", "facts"),
    [
        ({}, "NAME", {"path": "table.csv", "field": "rgb"}),
        ({"rgb": "clip"}, "NAME", {"path": "table.csv", "field": "label"}),
        ({"rgb": "clips", "label": "action"}, "", {"path": "table.csv", "field": "clips"}),
        ({"rbg": "clip", "label": "action"}, "", {"field": "rbg"}),
    ],
    ids=str,
)
def test_unknown_columns_are_refused(raises, tmp_path, table, columns, word, facts):
    with raises(ManifestError, word, **facts):
        prepare_table(table, tmp_path / "m.csv", columns=columns)


def test_an_invalid_line_is_refused(raises, tmp_path, table):
    table.write_text(table.read_text() + '"videos/0 x.mp4",,p9,1\n')
    with raises(ManifestError, path="table.csv", line=14):
        prepare_table(table, tmp_path / "m.csv", columns=COLUMNS)
    with raises(ManifestError, path="gone.csv", field="root"):
        prepare_table(tmp_path / "gone.csv", tmp_path / "m.csv")


def test_divided_groups_and_subjects_are_noted(tmp_path, fill, match_notes):
    fill(tmp_path, *(f"{n}.mp4" for n in range(8)))
    table = tmp_path / "t.csv"
    lines = [f"{n}.mp4,{'ab'[n % 2]},g{n % 4},s{n // 4},{'train' if n < 5 else 'test'}" for n in range(8)]
    table.write_text("\n".join(["rgb,label,group,subject,split", *lines]))
    notes = prepare_table(table, tmp_path / "m.csv").notes
    assert any(match_notes([note], "3 groups g1 g2 g3") for note in notes)
    assert any(match_notes([note], "1 subjects s1") for note in notes)


@pytest.mark.parametrize("column", ["group", "subject", "camera"])
def test_keep_together_never_divides_its_column(tmp_path, fill, column):
    fill(tmp_path, *(f"{n}.mp4" for n in range(24)))
    table = tmp_path / "t.csv"
    lines = [f"{n}.mp4,{'ab'[n % 2]},g{n // 2 % 6},s{n // 4},c{n % 3 + n % 2}" for n in range(24)]
    table.write_text("\n".join(["rgb,label,group,subject,camera", *lines]))
    prepared = prepare_table(table, tmp_path / "m.csv", val_share=0.2, test_share=0.2, keep_together=column)
    splits = {}
    for entry in prepared.manifest.entries:
        splits.setdefault(getattr(entry, column), set()).add(entry.split)
    assert all(len(names) == 1 for names in splits.values())
    assert {entry.split for entry in prepared.manifest.entries} >= {"train", "val"}
    assert f", {column}s kept together" in prepared.notes[0]


def test_keep_together_needs_a_full_column(raises, tmp_path, table):
    with raises(ManifestError, "e.g", path="0 x.mp4", line=2, field="camera"):
        prepare_table(table, tmp_path / "m.csv", columns=COLUMNS, keep_together="camera")


@pytest.mark.parametrize(
    ("shares", "named"),
    [
        ({"val_share": 0.0}, "val_share=0.0"),
        ({"val_share": 1.0}, "val_share=1.0"),
        ({"test_share": -0.1}, "test_share=-0.1"),
        ({"test_share": 0.8}, "test_share=0.8"),
    ],
    ids=str,
)
def test_impossible_shares_are_refused(raises, shares, named):
    with raises(ConfigError, named):
        Holdout(**shares)


def test_pairs_of_unequal_length_are_noted(tmp_path, fill, shorter, match_notes):
    fill(tmp_path, "1.mp4", "2.mp4", "2d.mp4")
    (tmp_path / "1d.mp4").write_bytes(Path(shorter).read_bytes())
    table = tmp_path / "t.csv"
    table.write_text("rgb,depth,label\n1.mp4,1d.mp4,a\n2.mp4,2d.mp4,b\n2.mp4,2d.mp4,b\n")
    prepared = prepare_table(table, tmp_path / "m.csv")
    assert [entry.frames for entry in prepared.manifest.entries] == [9, 9, 9]
    assert any(match_notes([note], "1 pairs 1.mp4 9 1d.mp4 7") for note in prepared.notes)


def test_each_file_is_counted_once(tmp_path, fill, monkeypatch):
    fill(tmp_path, "1.mp4", "1d.mp4")
    counted = []

    def count(path, **options):
        counted.append(Path(path).name)
        return open_source(path, **options)

    monkeypatch.setattr("kinema.datasets.prepared.open_source", count)
    (tmp_path / "t.csv").write_text("rgb,depth,start_frame,stop_frame,label\n1.mp4,1d.mp4,0,4,a\n1.mp4,1d.mp4,4,9,b\n")
    prepare_table(tmp_path / "t.csv", tmp_path / "m.csv")
    assert sorted(counted) == ["1.mp4", "1d.mp4"]


def test_unreadable_depth_is_listed(tmp_path, fill):
    fill(tmp_path, "1.mp4", "2.mp4", "1d.mp4")
    (tmp_path / "t.csv").write_text("rgb,depth,label\n1.mp4,1d.mp4,a\n2.mp4,gone.mp4,b\n")
    prepared = prepare_table(tmp_path / "t.csv", tmp_path / "m.csv")
    assert len(prepared.unreadable) == 1
    assert "gone.mp4: no such file" in prepared.unreadable[0]
    assert [entry.depth for entry in prepared.manifest.entries] == ["1d.mp4", "gone.mp4"]


def test_several_labels_of_a_table_become_several_task_heads(tmp_path, fill):
    fill(tmp_path, *(f"{n}.mp4" for n in range(6)))
    lines = [f"{n}.mp4,{('cut', 'wash')[n % 2]},{('bread', 'apple', 'pan')[n % 3]}" for n in range(6)]
    (tmp_path / "t.csv").write_text("\n".join(["rgb,verb,noun", *lines]))
    prepare_table(tmp_path / "t.csv", tmp_path / "m.csv", columns={"label.verb": "verb", "label.noun": "noun"})
    manifest = load_manifest(tmp_path / "m.csv")
    assert manifest.heads == {"verb": 2, "noun": 3}
    assert manifest.entries[3].labels == {"verb": "wash", "noun": "bread"}


OBJECTS = [
    {"clip": "0.mp4", "action": "run", "person": 1, "frames": 9},
    {"clip": "1.mp4", "action": "run", "person": 2, "frames": None, "score": 0.5},
    {"clip": "2.mp4", "action": 7, "person": 1},
    {"clip": "3.mp4", "action": 7, "person": 2},
]


@pytest.mark.parametrize("form", ["list", "lines"])
def test_json_is_a_list_of_objects_or_one_object_per_line(tmp_path, fill, form, match_notes):
    fill(tmp_path, *(f"{n}.mp4" for n in range(4)))
    table = tmp_path / "t.json"
    text = json.dumps(OBJECTS, indent=1) if form == "list" else "\n".join(map(json.dumps, OBJECTS)) + "\n\n"
    table.write_text(text, encoding="utf-8-sig")
    prepared = prepare_table(table, tmp_path / "m.csv", form="json", columns=COLUMNS)
    assert [(e.rgb, e.labels["label"], e.subject, e.frames) for e in prepared.manifest.entries] == [
        ("0.mp4", "run", "1", 9),
        ("1.mp4", "run", "2", 9),
        ("2.mp4", "7", "1", 9),
        ("3.mp4", "7", "2", 9),
    ]
    assert match_notes(prepared.notes[:1], "columns score")


WRONG_JSON = {
    "nested": (
        '[{"rgb": "1.mp4", "label": "a"}, {"rgb": "2.mp4", "label": ["b"]}]',
        "",
        {"line": 2, "field": "label"},
    ),
    "an object": (
        '{"rgb": "1.mp4", "label": "a"}\n{"rgb": {}, "label": "b"}',
        "",
        {"line": 2, "field": "rgb"},
    ),
    "truth": ('[{"rgb": "1.mp4", "label": true}]', "", {"line": 1, "field": "label"}),
    "twice": ('[{"rgb": "1.mp4", "label": "a", "label": "b"}]', "", {"line": 1, "field": "label"}),
    "no object": ('[{"rgb": "1.mp4", "label": "a"}, 3]', "", {"line": 2}),
    "lines of lists": ('{"rgb": "1.mp4", "label": "a"}\n["b"]', "", {"line": 2}),
    "broken line": ('{"rgb": "1.mp4", "label": "a"}\n\n{"rgb"', "JSON", {"line": 3}),
    "broken list": ('[{"rgb": "1.mp4"', "JSON", {}),
    "too deep": ("[" * 100_000, "JSON", {}),
    "empty list": ("[]", "objects", {}),
    "nothing": (" \n", "objects", {}),
    "empty label": ('[{"rgb": "1.mp4", "label": "a"}, {"rgb": "2.mp4"}]', "", {"line": 2}),
    "a word for frames": ('{"rgb": "1.mp4", "label": "a", "frames": "x"}', "", {"line": 1}),
    "no columns": ('[{"label": "a"}]', "", {"field": "rgb"}),
}


@pytest.mark.parametrize("wrong", WRONG_JSON)
def test_invalid_json_is_refused_with_its_line_or_item(raises, tmp_path, wrong):
    text, word, facts = WRONG_JSON[wrong]
    (tmp_path / "t.json").write_text(text)
    with raises(ManifestError, word, **{"path": "t.json", **facts}):
        prepare_table(tmp_path / "t.json", tmp_path / "m.csv", form="json")


def test_a_json_table_is_not_overwritten_by_the_json_of_the_manifest(raises, tmp_path):
    (tmp_path / "t.json").write_text("[]")
    with raises(ManifestError, path="t.json", field="out"):
        prepare_table(tmp_path / "t.json", tmp_path / "t.csv", form="json")
    assert (tmp_path / "t.json").read_text() == "[]"

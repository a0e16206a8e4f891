"""Round trip of manifests, and errors that name the file, line and field."""

import dataclasses
import json
from collections import Counter

import pytest

from kinema.data.manifest import BUILT_IN, COLUMNS, Entry, class_lists, load_manifest, locate, write_manifest
from kinema.datasets.table import TableOptions, prepare
from kinema.datasets.templates import parse_template
from kinema.errors import ManifestError
from kinema.modality import DepthFacts

FACTS = {
    "corpus": "own",
    "version": "1",
    "classes": {"label": ["run", "walk"]},
    "depth": None,
    "declared": {"train": 1, "val": 1},
}
ENTRIES = (
    Entry(
        rgb="a b/1, first.mp4",
        split="train",
        group="g1",
        subject="s1",
        camera="c1",
        sample="x 1",
        labels={"label": "run"},
    ),
    Entry(rgb='b/"2".mp4', depth="d/2.mkv", start_s=0.1, stop_s=2.5, split="val", labels={"label": "walk"}),
    Entry(rgb="s3://bucket/3.mp4", start_frame=3, stop_frame=9, frames=12, split="val", labels={"label": "éte, été"}),
)


def write(path, entries=ENTRIES, **changed):
    fields = {
        "entries": entries,
        "classes": class_lists(entries),
        "dataset": "own",
        "version": "2",
        "depth": DepthFacts(unit_mm=0.5, near=10, far=20.5, coverage="masked"),
    }
    return write_manifest(path, **{**fields, **changed})


def table(folder, text, facts=FACTS, encoding="utf-8"):
    """Write a CSV and a JSON by hand."""
    path = folder / "m.csv"
    path.write_text(text, encoding=encoding)
    if facts is not None:
        path.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")
    return path


def without_lines(entries):
    return [dataclasses.replace(entry, line=0) for entry in entries]


def test_what_is_written_is_read_again(tmp_path):
    manifest = write(tmp_path / "new folder" / "m.csv")
    assert without_lines(manifest.entries) == list(ENTRIES)
    assert [entry.line for entry in manifest.entries] == [2, 3, 4]
    assert manifest.classes == {"label": ("run", "walk", "éte, été")}
    assert manifest.depth == DepthFacts(unit_mm=0.5, near=10, far=20.5, coverage="masked")
    assert (manifest.dataset, manifest.version) == ("own", "2")
    assert manifest.declared == {"train": 1, "val": 2}
    assert manifest.heads == {"label": 3}
    assert [manifest.targets(i) for i in range(3)] == [{"label": 0}, {"label": 1}, {"label": 2}]
    assert manifest.positions("val") == [1, 2]


def test_columns_that_nothing_uses_are_left_out(tmp_path):
    path = write(tmp_path / "m.csv", entries=[Entry(rgb="1.mp4", labels={"label": "run"})]).path
    assert path.read_text() == "rgb,label\n1.mp4,run\n"


def test_the_same_samples_give_the_same_bytes_and_digest(tmp_path):
    first, second = write(tmp_path / "one.csv"), write(tmp_path / "two.csv")
    for suffix in (".csv", ".json"):
        assert first.path.with_suffix(suffix).read_bytes() == second.path.with_suffix(suffix).read_bytes()
    assert first.digest == second.digest


@pytest.mark.parametrize(("suffix", "old", "new"), [(".csv", "g1", "g9"), (".json", '"own"', '"our"')])
def test_the_digest_covers_both_files(tmp_path, suffix, old, new):
    before = write(tmp_path / "m.csv")
    file = before.path.with_suffix(suffix)
    changed = file.read_text().replace(old, new)
    assert changed != file.read_text()
    file.write_text(changed)
    assert load_manifest(before.path).digest != before.digest


def test_several_task_heads_have_a_column_and_a_list_each(tmp_path):
    entries = [
        Entry(rgb="1.mp4", labels={"verb": "cut", "noun": "bread"}),
        Entry(rgb="2.mp4", labels={"verb": "wash", "noun": "bread"}),
        Entry(rgb="3.mp4", labels={"verb": "cut", "noun": "apple"}),
    ]
    manifest = write(tmp_path / "m.csv", entries=entries)
    assert manifest.path.read_text().splitlines()[0] == "rgb,label.verb,label.noun"
    assert manifest.classes == {"verb": ("cut", "wash"), "noun": ("apple", "bread")}
    assert manifest.heads == {"verb": 2, "noun": 2}
    assert [manifest.targets(i) for i in range(3)] == [
        {"verb": 0, "noun": 1},
        {"verb": 1, "noun": 1},
        {"verb": 0, "noun": 0},
    ]


def test_a_table_as_people_write_it_is_read(tmp_path):
    """Byte-order mark, spaces after commas, commas in quotes, spaces in paths, Windows line ends."""
    path = table(tmp_path, 'rgb, label\r\nmy videos/1.mp4, run\r\n"a, b.mp4",walk\r\n', encoding="utf-8-sig")
    assert [(e.rgb, e.labels["label"], e.line) for e in load_manifest(path).entries] == [
        ("my videos/1.mp4", "run", 2),
        ("a, b.mp4", "walk", 3),
    ]


def test_paths_are_relative_to_the_manifest_and_urls_are_left_alone(tmp_path):
    manifest = write(tmp_path / "sets" / "m.csv")
    assert manifest.locate("../videos/1.mp4") == str(tmp_path / "videos" / "1.mp4")
    assert manifest.locate("/data/1.mp4") == "/data/1.mp4"
    assert locate(manifest.path, "s3://bucket/../3.mp4") == "s3://bucket/../3.mp4"


WRONG_LINES = {
    "both units": ("rgb,start_s,stop_s,start_frame,stop_frame,label", "1.mp4,0,1,0,9,run", "start_s", "both"),
    "start alone": ("rgb,start_s,label", "1.mp4,1.5,run", "start_s", "stop_s"),
    "stop alone": ("rgb,stop_frame,label", "1.mp4,7,run", "start_frame", "stop_frame"),
    "negative second": ("rgb,start_s,stop_s,label", "1.mp4,-1,2,run", "start_s", "-1.0"),
    "negative frame": ("rgb,start_frame,stop_frame,label", "1.mp4,-1,2,run", "start_frame", "-1"),
    "empty segment": ("rgb,start_frame,stop_frame,label", "1.mp4,5,5,run", "start_frame", "5 and 5"),
    "backwards": ("rgb,start_s,stop_s,label", "1.mp4,3,2,run", "start_s", "3.0 and 2.0"),
    "endless": ("rgb,start_s,stop_s,label", "1.mp4,0,inf,run", "start_s", "inf"),
    "no second": ("rgb,start_s,stop_s,label", "1.mp4,nan,2,run", "start_s", "nan"),
    "a word for a second": ("rgb,start_s,stop_s,label", "1.mp4,x,2,run", "start_s", "'x'"),
    "half a frame": ("rgb,frames,label", "1.mp4,1.5,run", "frames", "'1.5'"),
    "no frames": ("rgb,frames,label", "1.mp4,0,run", "frames", "frames=0"),
    "behind the end": ("rgb,frames,start_frame,stop_frame,label", "1.mp4,8,0,9,run", "stop_frame", "8 frames"),
    "empty label": ("rgb,label", "1.mp4,", "label", "empty"),
    "no file": ("rgb,depth,label", ",,run", "rgb", "depth"),
    "unknown label": ("rgb,label", "1.mp4,wlak", "label", "did you mean 'walk'?"),
    "too few cells": ("rgb,label", "1.mp4", None, "got 1"),
    "too many cells": ("rgb,label", "1.mp4,run,walk", None, "got 3"),
}


@pytest.mark.parametrize("wrong", WRONG_LINES)
def test_a_wrong_line_is_named_with_its_number_in_the_file(tmp_path, raises, wrong):
    header, line, field, word = WRONG_LINES[wrong]
    good = {"rgb": "0.mp4", "label": "run"}
    first = ",".join(good.get(column, "") for column in header.split(","))
    path = table(tmp_path, f"{header}\n{first}\n{first}\n{line}\n")
    with raises(ManifestError, "m.csv, line 4: ", word, path="m.csv", line=4, field=field):
        load_manifest(path)


def test_lines_are_counted_as_an_editor_does(tmp_path, raises):
    path = table(tmp_path, 'rgb,label\n"1\n.mp4",run\n\n2.mp4,\n')
    with raises(ManifestError, path="m.csv", line=5, field="label"):
        load_manifest(path)


def test_a_duplicate_column_is_refused(tmp_path, raises):
    with raises(ManifestError, "duplicate", path="m.csv", line=1, field="label"):
        load_manifest(table(tmp_path, "rgb,label, label\n1.mp4,run,walk\n"))


def test_a_cell_that_is_far_too_long_is_refused_by_its_line(tmp_path, raises):
    with raises(ManifestError, "limit", path="m.csv", line=3):
        load_manifest(table(tmp_path, f"rgb,label\n1.mp4,run\n{'x' * 200_000},run\n"))


def test_an_unknown_column_is_named_with_the_nearest_known_one(tmp_path, raises):
    path = table(tmp_path, "rgb,lable\n1.mp4,run\n")
    with raises(ManifestError, "did you mean 'label'?", path="m.csv", line=1, field="lable"):
        load_manifest(path)
    path = table(tmp_path, "rgb,label,zzz\n1.mp4,run,1\n")
    with raises(ManifestError, *COLUMNS, path="m.csv", line=1, field="zzz"):
        load_manifest(path)


@pytest.mark.parametrize("text", ["", "rgb,label\n", "\n\n"], ids=["nothing", "header alone", "empty lines"])
def test_an_empty_table_is_refused(tmp_path, raises, text):
    with raises(ManifestError, "empty", path="m.csv"):
        load_manifest(table(tmp_path, text))


def test_a_table_that_is_not_text_is_refused(tmp_path, raises):
    path = table(tmp_path, "rgb,label\ncafé.mp4,run\n", encoding="latin-1")
    with raises(ManifestError, "UTF-8", path="m.csv"):
        load_manifest(path)


def test_a_null_character_is_refused_by_its_line(tmp_path, raises):
    with raises(ManifestError, "null", path="m.csv", line=3):
        load_manifest(table(tmp_path, "rgb,label\n1.mp4,run\n2.mp4,r\0un\n"))


def test_a_missing_manifest_and_a_misspelled_built_in_one_are_told_apart(tmp_path, raises):
    with raises(ManifestError, "`kinema prepare`", path="gone.csv"):
        load_manifest(tmp_path / "gone.csv")
    with raises(ManifestError, "did you mean 'moves_cross_subject'?", path="moves_cross_subjects"):
        load_manifest("moves_cross_subjects")


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_manifests_load_by_name(name):
    manifest = load_manifest(name)
    assert manifest.depth is not None
    assert set(manifest.declared) == {"train", "test"}
    assert Counter(entry.split for entry in manifest.entries) == manifest.declared


def test_a_table_without_its_json_names_the_command_that_makes_both(tmp_path, raises):
    with raises(ManifestError, "`kinema prepare csv", path="m.json"):
        load_manifest(table(tmp_path, "rgb,label\n1.mp4,run\n", facts=None))


@pytest.mark.parametrize("field", ["classes", "corpus", "version", "declared"])
def test_facts_without_a_field_are_refused_by_its_name(tmp_path, raises, field):
    facts = {name: value for name, value in FACTS.items() if name != field}
    with raises(ManifestError, "missing", path="m.json", field=field):
        load_manifest(table(tmp_path, "rgb,label\n1.mp4,run\n", facts=facts))


@pytest.mark.parametrize(
    ("change", "word", "place"),
    [
        (
            {"depth": {"depth_unit": 1, "coverage": "full"}},
            "missing",
            {"path": "m.json", "field": "depth_range"},
        ),
        ({"depth": {"depth_unit": 1, "depth_range": [9, 2], "coverage": "full"}}, "near=9", {"path": "m.json"}),
        ({"classes": ["run", "walk"]}, "list", {"path": "m.json"}),
        ({"classes": {"label": ["run", "walk", "run"]}}, "'run'", {"path": "m.json", "field": "label"}),
        (
            {"classes": {"label": ["run", "walk"], "verb": ["go"]}},
            "missing",
            {"path": "m.csv", "line": 1, "field": "label.verb"},
        ),
        ({"classes": {}}, "class list", {"path": "m.json", "field": "label"}),
    ],
    ids=str,
)
def test_impossible_facts_are_refused(tmp_path, raises, change, word, place):
    with raises(ManifestError, word, **place):
        load_manifest(table(tmp_path, "rgb,label\n1.mp4,run\n", facts={**FACTS, **change}))


def test_facts_that_are_not_json_are_refused(tmp_path, raises):
    path = table(tmp_path, "rgb,label\n1.mp4,run\n")
    path.with_suffix(".json").write_text("{")
    with raises(ManifestError, path="m.json"):
        load_manifest(path)


def test_an_unknown_split_is_refused_with_the_existing_ones(tmp_path, raises):
    manifest = write(tmp_path / "m.csv")
    with raises(ManifestError, "'test'", "train, val", path="m.csv", field="split"):
        manifest.positions("test")


def test_nothing_to_write_is_refused(tmp_path, raises):
    with raises(ManifestError, path="m.csv"):
        write(tmp_path / "m.csv", entries=())


def test_more_samples_can_be_declared_than_written_but_not_fewer(tmp_path, raises):
    manifest = write(tmp_path / "m.csv", declared={"train": 9, "val": 2, "test": 4})
    assert load_manifest(manifest.path).declared == {"test": 4, "train": 9, "val": 2}
    with raises(ManifestError, "'val' declares 1 samples, got 2", path="m.csv", field="declared"):
        write(tmp_path / "m.csv", declared={"train": 9, "val": 1})
    with raises(ManifestError, "'val' declares 0 samples, got 2", path="m.csv", field="declared"):
        write(tmp_path / "m.csv", declared={"train": 9})


def test_a_split_may_be_unlabeled_and_is_listed_as_such(tmp_path, raises):
    hidden = Entry(rgb="4.mp4", split="test")
    manifest = write(tmp_path / "m.csv", (*ENTRIES, hidden))
    assert manifest.unlabeled == ("test",)
    assert [manifest.targets(i) for i in (0, 3)] == [{"label": 0}, {"label": -1}]
    assert load_manifest(manifest.path).entries == (*manifest.entries[:3], dataclasses.replace(hidden, line=5))
    assert write(tmp_path / "n.csv").unlabeled == ()
    with raises(ManifestError, "'val'", path="o.csv", field="label"):
        write(tmp_path / "o.csv", (*ENTRIES, dataclasses.replace(hidden, split="val")))


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("rgb,split,label\n1.mp4,train,run\n2.mp4,test,walk\n", 3, "'test'"),
        ("rgb,split,label\n1.mp4,train,\n2.mp4,test,\n", 2, "empty"),
    ],
)
def test_every_split_has_labels_except_the_unlabeled_ones(tmp_path, raises, text, line, word):
    with raises(ManifestError, word, path="m.csv", line=line, field="label"):
        load_manifest(table(tmp_path, text, facts={**FACTS, "unlabelled": ["test"]}))
    text = "rgb,split,label.a,label.b\n1.mp4,train,x,y\n2.mp4,test,x,\n"
    facts = {**FACTS, "classes": {"a": ["x", "z"], "b": ["y", "z"]}, "unlabelled": ["test"]}
    with raises(ManifestError, "empty", path="m.csv", line=3, field="label.b"):
        load_manifest(table(tmp_path, text, facts=facts))


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ("label,label.label", "label.label"),
        ("label.", "label."),
        ("label,label.a.b", "label.a.b"),
        ("label.joint", "label.joint"),
    ],
)
def test_columns_of_labels_name_different_heads(raises, tmp_path, columns, field):
    cells = "x," * columns.count(",") + "x"
    (tmp_path / "t.csv").write_text(f"rgb,{columns}\na.mp4,{cells}\n")
    with raises(ManifestError, path="t.csv", line=2, field=field):
        prepare(TableOptions(root=tmp_path / "t.csv", out=tmp_path / "m.csv"), "csv")
    (tmp_path / "t.json").write_text('{"corpus": "d", "version": "1", "classes": {}, "declared": {}}')
    with raises(ManifestError, path="t.csv", line=2, field=field):
        load_manifest(tmp_path / "t.csv")
    template = "/".join(f"{{{column}}}" for column in columns.split(","))
    if field != "label.a.b":
        with raises(ManifestError, field=field if field != "label." else "label."):
            parse_template(template + ".mp4")


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"rgb": "caf\udce9.mp4"}, "rgb"),
        ({"depth": "\ud800.mkv"}, "depth"),
        ({"rgb": "a.mp4", "group": "\udfff"}, "group"),
        ({"rgb": "a.mp4", "labels": {"label": "caf\udce9"}}, "label"),
        ({"rgb": "a.mp4", "labels": {"\udce9": "a"}}, "label.\udce9"),
    ],
)
def test_names_in_another_encoding_are_refused(raises, tmp_path, entry, field):
    entries = [Entry(**{"labels": {"label": "a"}, **entry})]
    facts = {"classes": class_lists(entries), "version": "1", "depth": None}
    with raises(ManifestError, path="m.csv", field=field):
        write_manifest(tmp_path / "m.csv", entries=entries, dataset="d", **facts)
    assert not (tmp_path / "m.csv").exists()


def test_a_folder_with_a_name_in_another_encoding_may_hold_a_dataset(raises, tmp_path):
    path = tmp_path / "caf\udce9.csv"
    entries = [Entry(rgb="a.mp4", labels={"label": "a"})]
    facts = {"classes": class_lists(entries), "version": "1", "depth": None}
    assert write_manifest(path, entries=entries, dataset="caf\udce9", **facts).dataset == "caf\\udce9"
    path.with_suffix(".json").write_text('{"corpus": "\\ud800", "version": "1", "classes": {}, "declared": {}}')
    with raises(ManifestError, path=path.with_suffix(".json")):
        load_manifest(path)

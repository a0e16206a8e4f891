"""What is written is what is read, and every line that cannot be true is named."""

import dataclasses
import json
from collections import Counter

import pytest

from kinema.data.manifest import BUILT_IN, Entry, class_lists, load_manifest, locate, write_manifest
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
    given = {
        "entries": entries,
        "classes": class_lists(entries),
        "dataset": "own",
        "version": "2",
        "depth": DepthFacts(unit_mm=0.5, near=10, far=20.5, coverage="masked"),
    }
    return write_manifest(path, **{**given, **changed})


def table(folder, text, facts=FACTS, encoding="utf-8"):
    """A manifest as its two texts say it."""
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
    """A byte-order mark, spaces behind commas, commas in quotes, spaces in paths, lines that end as on Windows."""
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
    "both units": ("rgb,start_s,stop_s,start_frame,stop_frame,label", "1.mp4,0,1,0,9,run", "in seconds or in frames"),
    "start alone": ("rgb,start_s,label", "1.mp4,1.5,run", "start_s and stop_s come together"),
    "stop alone": ("rgb,stop_frame,label", "1.mp4,7,run", "start_frame and stop_frame come together"),
    "negative second": ("rgb,start_s,stop_s,label", "1.mp4,-1,2,run", "start_s=-1.0 must be at least 0"),
    "negative frame": ("rgb,start_frame,stop_frame,label", "1.mp4,-1,2,run", "start_frame=-1 must be at least 0"),
    "empty segment": ("rgb,start_frame,stop_frame,label", "1.mp4,5,5,run", "start_frame=5 must .* below stop_frame=5"),
    "backwards": ("rgb,start_s,stop_s,label", "1.mp4,3,2,run", r"start_s=3\.0 must .* below stop_s=2\.0"),
    "endless": ("rgb,start_s,stop_s,label", "1.mp4,0,inf,run", r"below stop_s=inf"),
    "no second": ("rgb,start_s,stop_s,label", "1.mp4,nan,2,run", "start_s=nan must be at least 0"),
    "a word for a second": ("rgb,start_s,stop_s,label", "1.mp4,x,2,run", "start_s='x' is not a number"),
    "half a frame": ("rgb,frames,label", "1.mp4,1.5,run", r"frames='1\.5' is not a whole number"),
    "no frames": ("rgb,frames,label", "1.mp4,0,run", "frames=0 must be at least 1, or empty"),
    "behind the end": (
        "rgb,frames,start_frame,stop_frame,label",
        "1.mp4,8,0,9,run",
        "stop_frame=9 lies behind .* 8 fr",
    ),
    "empty label": ("rgb,label", "1.mp4,", "label is empty"),
    "no file": ("rgb,depth,label", ",,run", "neither rgb nor depth is given"),
    "unknown label": (
        "rgb,label",
        "1.mp4,wlak",
        r"label 'wlak' is not among the 2 classes of m\.json; did you mean 'walk'",
    ),
    "too few cells": ("rgb,label", "1.mp4", "the header has 2 columns, this line has not"),
    "too many cells": ("rgb,label", "1.mp4,run,walk", "the header has 2 columns, this line has not"),
}


@pytest.mark.parametrize("wrong", WRONG_LINES)
def test_a_wrong_line_is_named_with_its_number_in_the_file(tmp_path, wrong):
    header, line, message = WRONG_LINES[wrong]
    good = {"rgb": "0.mp4", "label": "run"}
    first = ",".join(good.get(column, "") for column in header.split(","))
    path = table(tmp_path, f"{header}\n{first}\n{first}\n{line}\n")
    with pytest.raises(ManifestError, match=rf"m\.csv, line 4: .*{message}"):
        load_manifest(path)


def test_lines_are_counted_as_an_editor_does(tmp_path):
    path = table(tmp_path, 'rgb,label\n"1\n.mp4",run\n\n2.mp4,\n')
    with pytest.raises(ManifestError, match="line 5: label is empty"):
        load_manifest(path)


def test_a_column_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"m\.csv, line 1: column 'label' stands twice"):
        load_manifest(table(tmp_path, "rgb,label, label\n1.mp4,run,walk\n"))


def test_a_cell_that_is_far_too_long_is_refused_by_its_line(tmp_path):
    with pytest.raises(ManifestError, match=r"m\.csv, line 3: field larger than field limit"):
        load_manifest(table(tmp_path, f"rgb,label\n1.mp4,run\n{'x' * 200_000},run\n"))


def test_an_unknown_column_is_named_with_the_nearest_known_one(tmp_path):
    path = table(tmp_path, "rgb,lable\n1.mp4,run\n")
    with pytest.raises(ManifestError, match=r"m\.csv, line 1: unknown column 'lable'; did you mean 'label'\?"):
        load_manifest(path)
    path = table(tmp_path, "rgb,label,zzz\n1.mp4,run,1\n")
    with pytest.raises(ManifestError, match="unknown column 'zzz'; a manifest has rgb, depth, rgb_box, start_s"):
        load_manifest(path)


@pytest.mark.parametrize("text", ["", "rgb,label\n", "\n\n"], ids=["nothing", "header alone", "empty lines"])
def test_an_empty_table_is_refused(tmp_path, text):
    with pytest.raises(ManifestError, match=r"m\.csv: is empty"):
        load_manifest(table(tmp_path, text))


def test_a_table_that_is_no_text_is_refused(tmp_path):
    path = table(tmp_path, "rgb,label\ncafé.mp4,run\n", encoding="latin-1")
    with pytest.raises(ManifestError, match=r"m\.csv: is not UTF-8 text"):
        load_manifest(path)


def test_a_missing_manifest_and_a_misspelt_built_in_one_are_told_apart(tmp_path):
    with pytest.raises(ManifestError, match=r"gone\.csv: no such manifest; `kinema prepare` makes one"):
        load_manifest(tmp_path / "gone.csv")
    with pytest.raises(ManifestError, match="did you mean 'moves_cross_subject'"):
        load_manifest("moves_cross_subjects")


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_manifests_load_by_name(name):
    manifest = load_manifest(name)
    assert manifest.depth is not None
    assert set(manifest.declared) == {"train", "test"}
    assert Counter(entry.split for entry in manifest.entries) == manifest.declared


def test_a_table_without_its_facts_says_what_makes_both(tmp_path):
    with pytest.raises(
        ManifestError, match=r"m\.json, which holds the class lists, is not beside it; `kinema prepare csv"
    ):
        load_manifest(table(tmp_path, "rgb,label\n1.mp4,run\n", facts=None))


@pytest.mark.parametrize("field", ["classes", "corpus", "version", "declared"])
def test_facts_without_a_field_are_refused_by_its_name(tmp_path, field):
    facts = {name: value for name, value in FACTS.items() if name != field}
    with pytest.raises(ManifestError, match=rf"m\.json: field '{field}' is missing"):
        load_manifest(table(tmp_path, "rgb,label\n1.mp4,run\n", facts=facts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": {"depth_unit": 1, "coverage": "full"}}, "field 'depth_range' is missing"),
        ({"depth": {"depth_unit": 1, "depth_range": [9, 2], "coverage": "full"}}, r"near=9"),
        ({"classes": ["run", "walk"]}, "cannot be read"),
        ({"classes": {"label": ["run", "walk", "run"]}}, "class 'run' stands twice in 'label'"),
        ({"classes": {"label": ["run", "walk"], "verb": ["go"]}}, r"m\.csv, line 1: column 'label\.verb' is missing"),
        ({"classes": {}}, "has no class list for column 'label'"),
    ],
    ids=str,
)
def test_facts_that_cannot_be_are_refused(tmp_path, change, message):
    with pytest.raises(ManifestError, match=message):
        load_manifest(table(tmp_path, "rgb,label\n1.mp4,run\n", facts={**FACTS, **change}))


def test_facts_that_are_no_json_are_refused(tmp_path):
    path = table(tmp_path, "rgb,label\n1.mp4,run\n")
    path.with_suffix(".json").write_text("{")
    with pytest.raises(ManifestError, match=r"m\.json: cannot be read"):
        load_manifest(path)


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    manifest = write(tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="no sample has split 'test'; its splits are train, val"):
        manifest.positions("test")


def test_nothing_to_write_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="there is no sample to write"):
        write(tmp_path / "m.csv", entries=())


def test_more_samples_can_be_declared_than_there_are_but_not_fewer(tmp_path):
    manifest = write(tmp_path / "m.csv", declared={"train": 9, "val": 2, "test": 4})
    assert load_manifest(manifest.path).declared == {"test": 4, "train": 9, "val": 2}
    with pytest.raises(ManifestError, match="split 'val' is said to hold 1 samples, but there are 2"):
        write(tmp_path / "m.csv", declared={"train": 9, "val": 1})
    with pytest.raises(ManifestError, match="split 'val' is said to hold 0 samples, but there are 2"):
        write(tmp_path / "m.csv", declared={"train": 9})


def test_a_split_may_have_no_labels_and_says_so(tmp_path):
    hidden = Entry(rgb="4.mp4", split="test")
    manifest = write(tmp_path / "m.csv", (*ENTRIES, hidden))
    assert manifest.unlabeled == ("test",)
    assert [manifest.targets(i) for i in (0, 3)] == [{"label": 0}, {"label": -1}]
    assert load_manifest(manifest.path).entries == (*manifest.entries[:3], dataclasses.replace(hidden, line=5))
    assert write(tmp_path / "n.csv").unlabeled == ()
    with pytest.raises(ManifestError, match="some samples of split 'val' have labels, and some have none"):
        write(tmp_path / "o.csv", (*ENTRIES, dataclasses.replace(hidden, split="val")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rgb,split,label\n1.mp4,train,run\n2.mp4,test,walk\n", "line 3: has a label, but its split 'test' is said to"),
        ("rgb,split,label\n1.mp4,train,\n2.mp4,test,\n", "line 2: label is empty"),
    ],
)
def test_labels_stand_in_all_splits_but_those_that_are_said_to_have_none(tmp_path, text, message):
    with pytest.raises(ManifestError, match=message):
        load_manifest(table(tmp_path, text, facts={**FACTS, "unlabelled": ["test"]}))
    text = "rgb,split,label.a,label.b\n1.mp4,train,x,y\n2.mp4,test,x,\n"
    facts = {**FACTS, "classes": {"a": ["x", "z"], "b": ["y", "z"]}, "unlabelled": ["test"]}
    with pytest.raises(ManifestError, match=r"line 3: label\.b is empty"):
        load_manifest(table(tmp_path, text, facts=facts))

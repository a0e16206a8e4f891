"""Splits of a user's own data: groups, a test split, caveats, spellings, and files that are left out."""

from collections import defaultdict

import pytest

from kinema.data.manifest import Entry, Manifest, load_manifest
from kinema.data.splits import held_out_split, split_caveat
from kinema.datasets.folder import FolderOptions, prepare
from kinema.datasets.table import TableOptions
from kinema.datasets.table import prepare as prepare_table
from kinema.errors import ManifestError


@pytest.fixture
def prepared(tmp_path, fill):
    """Return a function that prepares a folder of these files."""

    def run(*names, **options):
        root = fill(tmp_path / "v", *names)
        return prepare(FolderOptions(root=root, out=tmp_path / "m.csv", **options))

    return run


@pytest.fixture
def read_table(tmp_path):
    """Return a function that prepares a table; its files do not exist, which concerns no split."""

    def run(*rows, **options):
        (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
        return prepare_table(TableOptions(root=tmp_path / "t.csv", out=tmp_path / "m.csv", **options), "csv")

    return run


def rows(header, count):
    """Return a table of two classes with so many groups each, two clips a group."""
    lines = (f"{label}{g}{c}.mp4,{label},{label}{g}" for label in "ab" for g in range(count) for c in range(2))
    return [f"rgb,label,{header}", *lines]


@pytest.mark.parametrize(
    ("count", "options", "splits"),
    [
        (5, {}, {"train": 12, "val": 4, "test": 4}),
        (4, {}, {"train": 12, "val": 4}),
        (5, {"test_share": 0.0}, {"train": 16, "val": 4}),
        (4, {"test_share": 0.2}, {"train": 8, "val": 4, "test": 4}),
        (5, {"val_share": 0.4}, {"train": 12, "val": 8}),
    ],
)
def test_a_test_split_is_made_where_every_class_has_five_groups(read_table, count, options, splits):
    result = read_table(*rows("group", count), **options)
    assert result.manifest.declared == splits
    if not options:
        assert ("--test-share" in result.notes[0]) == ("test" not in splits)
    assert f"({2 * count} groups, {4 * count} samples)" in result.notes[0]
    assert split_caveat(result.manifest, "val") == ""


@pytest.mark.parametrize("options", [{}, {"keep_together": "none"}], ids=str)
def test_samples_without_a_group_are_said_and_stored(read_table, options):
    result = read_table("rgb,label", *(f"{n:x}x.mp4,{'ab'[n % 2]}" for n in range(8)), **options)
    assert "groups kept together" not in " ".join(result.notes)
    assert "clips of one recording may be in both splits" in result.notes[0]
    assert load_manifest(result.manifest.path).ungrouped == 8
    assert "8 of 8 samples" in split_caveat(result.manifest, "val")
    assert split_caveat(result.manifest, "train") == ""


def test_segments_of_one_file_are_a_recording(read_table):
    result = read_table(
        "rgb,label,start_s,stop_s", *(f"{n // 2}x.mp4,{'ab'[n % 2]},{n % 2},{n % 2 + 1}" for n in range(8))
    )
    assert result.manifest.ungrouped == 0
    assert "groups kept together (4 groups, 8 samples)" in result.notes[0]


def test_own_splits_that_divide_groups_carry_a_caveat(read_table):
    result = read_table("rgb,label,group,split", "1.mp4,a,g,train", "2.mp4,b,h,train", "3.mp4,a,G,val", "4.mp4,b,i,val")
    assert result.manifest.ungrouped == 0
    assert split_caveat(result.manifest, "val") == "clips of 1 groups are in both train and val (g)"


def test_spellings_of_one_person_are_one(read_table):
    people = ("Anna", "anna", "Anna", "ANNA ", "Bo-1", "bo 1", "Bo-1", "eve")
    result = read_table("rgb,label,subject", *(f"{n}.mp4,{'ab'[n % 2]},{name}" for n, name in enumerate(people)))
    splits = defaultdict(set)
    for entry in result.manifest.entries:
        splits[entry.subject].add(entry.split)
    assert set(splits) == {"Anna", "Bo-1", "eve"}
    assert all(len(names) == 1 for names in splits.values())
    assert any("anna" in note and "as Anna" in note for note in result.notes)


def test_classes_that_a_split_lacks_are_named(read_table):
    result = read_table("rgb,label,split", "1.mp4,a,train", "2.mp4,b,train", "3.mp4,a,val", "4.mp4,c,val")
    assert [note for note in result.notes if note.startswith("split ")] == [
        "split train has no sample of 1 classes: c",
        "split val has no sample of 1 classes: b",
    ]


def test_one_video_with_two_labels_is_noted(read_table, match_notes):
    result = read_table("rgb,label,split", "1.mp4,a,train", "1.mp4,b,train", "2.mp4,a,val", "3.mp4,b,val")
    assert match_notes(result.notes[-1:], "1 labels 1.mp4")


def test_listed_files_are_left_out(prepared, tmp_path, raises, match_notes):
    names = [f"{label}/{n}x.mp4" for label in "ab" for n in range(4)]
    assert len(prepared(*names).manifest.entries) == 8
    (tmp_path / "bad.txt").write_text("v/a/0x.mp4\tbroken: at frame 3\nb/1x.mp4\n\nb/9x.mp4\n")
    result = prepared(*names, exclude=tmp_path / "bad.txt")
    left = {entry.rgb for entry in result.manifest.entries}
    assert left == {f"v/{name}" for name in names} - {"v/a/0x.mp4", "v/b/1x.mp4"}
    assert match_notes(result.notes[:2], "2 left out", "1 no samples b/9x.mp4")
    (tmp_path / "bad.txt").write_text("")
    assert len(prepared(*names, exclude=tmp_path / "bad.txt").manifest.entries) == 8
    (tmp_path / "bad.txt").write_text("other.mp4\n")
    with raises(ManifestError, "other.mp4", path="bad.txt", field="exclude"):
        prepared(*names, exclude=tmp_path / "bad.txt")
    (tmp_path / "bad.txt").write_text("\n".join(names))
    with raises(ManifestError, "no sample is left", path="bad.txt", field="exclude"):
        prepared(*names, exclude=tmp_path / "bad.txt")
    with raises(ManifestError, path="gone.txt", field="exclude"):
        prepared(*names, exclude=tmp_path / "gone.txt")


def manifest_of(tmp_path, *splits):
    """Return a manifest with one sample in each split."""
    entries = tuple(Entry(rgb=f"{n}.mp4", split=split, labels={"label": "a"}) for n, split in enumerate(splits))
    return Manifest(
        path=tmp_path / "m.csv",
        entries=entries,
        classes={"label": ("a", "b")},
        dataset="",
        version="own",
        depth=None,
        declared={},
        digest="",
    )


@pytest.mark.parametrize(
    ("splits", "preferred", "expected"),
    [
        (("train", "val", "test"), "test", "test"),
        (("train", "val"), "test", "val"),
        (("train", "test"), "val", "test"),
        (("train",), "val", "val"),
        (("train", "val"), "fold1", "fold1"),
    ],
)
def test_the_split_that_is_there_is_evaluated(tmp_path, splits, preferred, expected):
    assert held_out_split(manifest_of(tmp_path, *splits), preferred) == expected


def test_a_missing_split_names_the_option(tmp_path, raises):
    manifest = manifest_of(tmp_path, "train", "val")
    assert held_out_split(manifest, "test", train="val") == "test"
    with raises(ManifestError, "--data.evaluate", path="m.csv", field="split"):
        manifest.positions("test", option="--data.evaluate")
    with raises(ManifestError, "--split", path="m.csv", field="split"):
        manifest.positions("fold1")

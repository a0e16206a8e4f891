"""Names in a user's own data: Unicode, case, blanks, splits, missing values, and numbers written as floats."""

import json
import unicodedata

import numpy as np
import pytest

from kinema.data.manifest import Entry, load_manifest, write_manifest
from kinema.data.names import similar_names, split_name, without_floats
from kinema.datasets.folder import FolderOptions
from kinema.datasets.folder import prepare as prepare_folder
from kinema.datasets.table import TableOptions
from kinema.datasets.table import prepare as prepare_table
from kinema.errors import ManifestError
from kinema.evaluation.predictions import Predictions, load_predictions, save_predictions

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture
def read_labels(tmp_path):
    """Return a function that prepares a table of these labels, or other columns, and returns the result.

    The files do not exist, which concerns no label.
    """

    def read(labels, form="csv", **columns):
        rows = [
            {"rgb": f"{n}.mp4", "label": label, **{name: cells[n] for name, cells in columns.items()}}
            for n, label in enumerate(labels)
        ]
        table = tmp_path / f"t.{form}"
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)] if form == "csv" else []
        table.write_text("\n".join(lines) if form == "csv" else json.dumps(rows), encoding="utf-8")
        return prepare_table(TableOptions(root=table, out=tmp_path / "m.csv"), form)

    return read


def test_folders_whose_names_differ_by_unicode_form_alone_are_one_class(tmp_path, fill):
    names = (*(f"{COMPOSED}/{n}.mp4" for n in range(2)), *(f"{DECOMPOSED}/{n}.mp4" for n in range(2)))
    root = fill(tmp_path / "v", *names, "run/1.mp4", "run/2.mp4")
    prepared = prepare_folder(FolderOptions(root=root, out=tmp_path / "m.csv"))
    assert prepared.manifest.classes == {"label": (COMPOSED, "run")}
    assert sorted(entry.frames for entry in prepared.manifest.entries) == [9] * 6
    template = FolderOptions(root=root, out=tmp_path / "n.csv", rgb="{label}/{name}.mp4")
    assert prepare_folder(template).manifest.classes == prepared.manifest.classes


@pytest.mark.parametrize("pair", [("Run", "run"), ("run", "run "), ("hand wave", "hand_wave")], ids=str)
def test_folders_whose_names_differ_by_case_or_blanks_alone_are_refused(raises, tmp_path, fill, pair):
    root = fill(tmp_path / "v", *(f"train/{name}/1.mp4" for name in pair), f"val/{pair[0]}/2.mp4")
    with raises(ManifestError, *map(repr, pair), path="v", field="label"):
        prepare_folder(FolderOptions(root=root, out=tmp_path / "m.csv"))


def test_labels_of_a_manifest_are_composed(tmp_path):
    entries = [Entry(rgb=f"{n}.mp4", labels={"label": name}) for n, name in enumerate((COMPOSED, DECOMPOSED, "run"))]
    manifest = write_manifest(
        tmp_path / "m.csv",
        entries=entries,
        classes={"label": (DECOMPOSED, "run")},
        dataset="",
        version="",
        depth=None,
    )
    assert manifest.classes == {"label": (COMPOSED, "run")}
    assert [manifest.targets(n)["label"] for n in range(3)] == [0, 0, 1]


@pytest.mark.parametrize(
    "pair",
    [
        ("Run", "run"),
        ("jumping  jack", "jumping jack"),
        ("jumping\N{NO-BREAK SPACE}jack", "jumping jack"),
        ("jumping_jack", "jumping jack"),
        ("JumpingJack", "jumping-jack"),
        ("run\N{ZERO WIDTH SPACE}", "run"),
        ("\N{FULLWIDTH LATIN SMALL LETTER R}un", "run"),
        ("ÉCOLE", "école"),
        ("01", "1"),
        ("向 左", "向左"),
    ],
    ids=ascii,
)
def test_names_that_differ_by_case_or_blanks_alone_are_refused(raises, read_labels, pair):
    assert similar_names(["walk", *pair]) == pair
    with raises(ManifestError, *map(repr, sorted(pair)), path="m.csv", field="label"):
        read_labels([*pair, "walk", "walk"])


@pytest.mark.parametrize("pair", [("1 2", "12"), ("-1", "1"), ("C++", "C"), ("run.", "run"), ("a", "b")], ids=str)
def test_other_names_are_two_classes(pair):
    assert similar_names(pair) is None


def test_each_split_has_one_spelling(read_labels, match_notes):
    spellings = ["train", "Train", "TRAINING", "validation", " val", "Valid", "dev", "test", "Testing", "test_set"]
    prepared = read_labels(list("ab" * 5), split=spellings)
    assert prepared.manifest.declared == {"test": 3, "train": 3, "val": 4}
    assert match_notes(prepared.notes, "TRAINING train Testing test Train train")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("trian", "train"),
        ("eval", "val"),
        ("tets", "test"),
        ("vallidation", "val"),
        ("holdout", "train"),
        ("tain", "train"),
    ],
)
def test_an_unknown_split_is_refused_with_the_nearest(raises, read_labels, name, near):
    assert split_name(name) is None
    with raises(ManifestError, near, path="t.csv", line=3, field="split"):
        read_labels(["a", "b", "a"], split=["train", name, "test"])


def test_an_empty_column_of_splits_is_no_split(raises, read_labels):
    assert read_labels(["a", "b"] * 3, split=["", "nan"] * 3).manifest.declared == {"train": 4, "val": 2}
    with raises(ManifestError, path="t.csv", line=4, field="split"):
        read_labels(["a", "b"] * 2, split=["train", "train", "", "NaN"])


def test_a_split_of_another_spelling_in_a_manifest_is_refused(raises, tmp_path):
    (tmp_path / "m.csv").write_text("rgb,label,split\n1.mp4,a,train\n2.mp4,b,Train\n3.mp4,a,val\n")
    facts = {"corpus": "", "version": "", "classes": {"label": ["a", "b"]}, "declared": {}}
    (tmp_path / "m.json").write_text(json.dumps(facts))
    with raises(ManifestError, "'Train'", path="m.csv", line=3, field="split"):
        load_manifest(tmp_path / "m.csv")


def test_a_folder_of_a_misspelled_split_is_refused(raises, tmp_path, fill):
    root = fill(tmp_path / "v", "train/a/1.mp4", "train/b/1.mp4", "vall/a/2.mp4")
    with raises(ManifestError, "'val'", path="vall", field="split"):
        prepare_folder(FolderOptions(root=root, out=tmp_path / "m.csv"))
    fill(tmp_path / "w", "train/1.mp4", "train/2.mp4", "plane/1.mp4", "plane/2.mp4")
    manifest = prepare_folder(FolderOptions(root=tmp_path / "w", out=tmp_path / "n.csv")).manifest
    assert manifest.classes == {"label": ("plane", "train")}


def test_numbers_that_pandas_wrote_as_floats_are_one_class(read_labels, match_notes):
    prepared = read_labels(["0", "1", "0.0", "1.0"], subject=["3", "3.0", "4.0", "4"], frames=["9.0", "", "nan", "9"])
    assert prepared.manifest.classes == {"label": ("0", "1")}
    assert [entry.subject for entry in prepared.manifest.entries] == ["3", "3", "4", "4"]
    assert match_notes(prepared.notes[:2], "label 2 0.0 0", "subject 2 3.0 3")
    mixed = read_labels([0, 1, 0.0, 1.0], form="json")
    assert mixed.manifest.classes == {"label": ("0", "1")}


def test_other_numbers_stay_as_written():
    assert without_floats(["0.0", "1.0"]) == (["0.0", "1.0"], 0)
    assert without_floats(["0.5", "1", "v1.0"]) == (["0.5", "1", "v1.0"], 0)


@pytest.mark.parametrize("missing", ["nan", "NaN", "None", "null", "N/A", "<NA>", "NaT", ""])
def test_missing_labels_are_refused_with_their_lines(raises, read_labels, missing):
    with raises(ManifestError, "4, 5", path="t.csv", line=4, field="label"):
        read_labels(["x", "y", missing, missing, "x"])


@pytest.mark.parametrize("missing", [None, float("nan"), "", "NaN"], ids=str)
def test_missing_labels_of_json_are_refused_with_their_items(raises, read_labels, missing):
    with raises(ManifestError, "3, 4", path="t.json", line=3, field="label"):
        read_labels(["x", "y", missing, missing], form="json")
    with raises(ManifestError, path="t.json", line=2, field="label"):
        read_labels(["x", float("inf")], form="json")


def test_a_folder_of_missing_labels_is_refused(raises, tmp_path, fill):
    root = fill(tmp_path / "v", "nan/1.mp4", "run/1.mp4", "None/1.mp4")
    with raises(ManifestError, "'nan'", path="v", field="label"):
        prepare_folder(FolderOptions(root=root, out=tmp_path / "m.csv"))


def test_classes_of_stored_predictions_are_composed(tmp_path):
    predictions = Predictions(
        logits={"label": np.zeros((1, 2), np.float32)},
        targets={"label": np.zeros(1, np.int64)},
        index=np.zeros(1, np.int64),
        classes={"label": (DECOMPOSED, "run")},
        split="val",
        declared=1,
        missing=(),
        manifest_digest="",
        weights_digest="",
    )
    save_predictions(tmp_path / "p.safetensors", predictions)
    assert load_predictions(tmp_path / "p.safetensors").classes == {"label": (COMPOSED, "run")}


def test_usual_names_of_columns_are_read_or_asked_about(raises, read_labels):
    labels, splits = ["run", "walk"] * 2, ["train", "train", "val", "val"]
    prepared = read_labels(labels, Split=splits, person=["anna", "ben"] * 2)
    assert [entry.split for entry in prepared.manifest.entries] == splits
    assert [entry.subject for entry in prepared.manifest.entries] == ["anna", "ben"] * 2
    assert any("'Split'" in note for note in prepared.notes)
    for name, column in (("subset", "split"), ("start_time", "start_s"), ("end", "stop_s")):
        with raises(ManifestError, f"--columns {column}={name}", path="t.csv", field=name):
            read_labels(labels, **{name: ["1", "2", "3", "4"]})


@pytest.mark.parametrize(
    ("names", "template"),
    [
        (("run/train/0", "run/val/1", "walk/train/0", "walk/val/1"), "{label}/{split}/"),
        (("batch1/run/0", "batch1/walk/1", "batch2/run/0", "batch2/walk/1"), "{group}/{label}/"),
    ],
)
def test_folders_of_two_levels_are_asked_about(raises, tmp_path, fill, names, template):
    root = fill(tmp_path / "v", *(f"{name}.mp4" for name in names))
    with raises(ManifestError, template, path=root):
        prepare_folder(FolderOptions(root=root, out=tmp_path / "m.csv"))


@pytest.mark.parametrize(
    "folders", [("train_videos", "val_videos"), ("split_train", "split_test"), ("Trainingsdaten", "Testdaten")]
)
def test_folders_of_splits_may_be_decorated(tmp_path, fill, folders):
    root = fill(
        tmp_path / "v", *(f"{folder}/{label}/{n}.mp4" for folder in folders for label in ("run", "walk") for n in "01")
    )
    manifest = prepare_folder(FolderOptions(root=root, out=tmp_path / "m.csv")).manifest
    assert set(manifest.classes["label"]) == {"run", "walk"}
    assert {entry.split for entry in manifest.entries} < {"train", "val", "test"}

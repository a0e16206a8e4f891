"""ChaLearn IsoGD: official lists and pairs on disk."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from kinema.datasets.isogd import CLASSES, prepare, read_pairs
from kinema.datasets.options import DatasetOptions
from kinema.datasets.skeleton import read_listing
from kinema.errors import ManifestError


def prepare_isogd(root, out):
    return prepare(DatasetOptions(root=root, out=out))


def line(split, number, label=""):
    return f"{split}/001/M_{number:05}.avi {split}/001/K_{number:05}.avi {label}".rstrip()


@pytest.fixture
def root(tmp_path, fill):
    """Folder with three training and two validation pairs, an incomplete pair and an unlisted one."""
    root = fill(tmp_path / "i", *(f"train/001/{kind}_0000{n}.avi" for n in (1, 2, 3) for kind in "MK"))
    fill(root, *(f"valid/001/{kind}_0000{n}.avi" for n in (1, 2) for kind in "MK"))
    fill(root, "train/001/M_00004.avi", "train/001/M_00009.avi", "train/001/K_00009.avi")
    (root / "train_list.txt").write_text("\n".join(line("train", n, 10 * n) for n in (1, 2, 3, 4, 5)) + "\n")
    (root / "valid_list.txt").write_text("\n".join(line("valid", n) for n in (1, 2)))
    (root / "test_list.txt").write_text(line("test", 1))
    return root


def test_listed_pairs_on_disk_become_a_manifest(tmp_path, root, match_notes):
    (root / "valid_list_with_labels.txt").write_text("\n".join(line("valid", n, 249) for n in (1, 2)))
    prepared = prepare_isogd(root, tmp_path / "m.csv")
    manifest = prepared.manifest
    assert [(e.rgb, e.depth, e.split, e.labels["label"]) for e in manifest.entries] == [
        *((f"i/train/001/M_0000{n}.avi", f"i/train/001/K_0000{n}.avi", "train", f"0{n}0") for n in (1, 2, 3)),
        *((f"i/valid/001/M_0000{n}.avi", f"i/valid/001/K_0000{n}.avi", "val", "249") for n in (1, 2)),
    ]
    assert manifest.classes == {"label": CLASSES}
    assert manifest.targets(0) == {"label": 9}
    assert manifest.declared == {"train": 5, "val": 2, "test": 1}
    assert manifest.depth is None
    lists = "train_list.txt valid_list_with_labels.txt test_list.txt"
    assert match_notes(
        prepared.notes,
        "test labels 1 pairs test_list.txt",
        "245 249 classes 001 002 003 242",
        f"3 samples {lists} train/001/M_00004.avi train/001/M_00005.avi test/001/M_00001.avi",
        f"2 files {lists} train/001/K_00009.avi train/001/M_00009.avi",
    )


def test_missing_and_unlabeled_lists_are_noted(tmp_path, root, match_notes):
    (root / "test_list.txt").unlink()
    prepared = prepare_isogd(root, tmp_path / "m.csv")
    assert prepared.manifest.declared == {"train": 5, "val": 2}
    assert prepared.manifest.unlabeled == ("val",)
    assert [entry.labels for entry in prepared.manifest.entries if entry.split == "val"] == [{}, {}]
    assert match_notes(
        prepared.notes[:2],
        f"test test_list_with_labels.txt test_list.txt {root}",
        "val labels 2 pairs valid_list.txt",
    )
    assert prepared.summary.startswith(f"{tmp_path / 'm.csv'}: 3 of 5 declared train, 2 val; 249 classes; 0 files")


def test_pairs_of_unequal_length_are_noted(tmp_path, root, shorter):
    (root / "train" / "001" / "K_00002.avi").write_bytes(Path(shorter).read_bytes())
    notes = prepare_isogd(root, tmp_path / "m.csv").notes
    assert notes[-1].endswith("i/train/001/M_00002.avi has 9 and i/train/001/K_00002.avi 7")


@pytest.mark.parametrize(
    ("text", "word", "facts"),
    [
        ("a.avi b.avi 1\n\nc.avi", "NUMBER", {"path": "train_list.txt", "line": 3}),
        ("a.avi b.avi 1 2", "", {"path": "train_list.txt", "line": 1}),
        ("a.avi b.avi 250", "250", {"path": "train_list.txt", "line": 1, "field": "label"}),
        ("a.avi b.avi 0", "0", {"path": "train_list.txt", "line": 1, "field": "label"}),
        ("a.avi b.avi x", "", {"path": "train_list.txt", "line": 1, "field": "label"}),
        ("a.avi b.avi 1\nc.avi d.avi", "", {"path": "train_list.txt", "line": 2, "field": "label"}),
        ("a.avi b.avi 1\na.avi d.avi 1", "a.avi", {"path": "train_list.txt", "line": 2}),
        ("\n", "empty", {"path": "train_list.txt"}),
    ],
)
def test_a_malformed_list_is_refused(raises, tmp_path, text, word, facts):
    (tmp_path / "train_list.txt").write_text(text)
    with raises(ManifestError, word, **facts):
        read_listing({"train": tmp_path / "train_list.txt"}, read_pairs)


def test_a_file_listed_twice_is_refused(tmp_path, raises, root):
    """Refuse a duplicate as depth in one list, or in the lists of two splits, which would leak."""
    (root / "train_list.txt").write_text("a.avi b.avi 1\nc.avi b.avi 1")
    with raises(ManifestError, "b.avi", path="train_list.txt", line=2):
        prepare_isogd(root, tmp_path / "m.csv")
    (root / "train_list.txt").write_text(line("valid", 2, 1))
    with raises(ManifestError, "valid/001/M_00002.avi", path="valid_list.txt", line=2):
        prepare_isogd(root, tmp_path / "m.csv")


def test_a_wrong_folder_is_refused(raises, tmp_path, root, fill):
    with raises(ManifestError, path="gone", field="root"):
        prepare_isogd(tmp_path / "gone", tmp_path / "m.csv")
    with raises(ManifestError, "train_list.txt", path="empty"):
        prepare_isogd(fill(tmp_path / "empty", "train/001/M_00001.avi"), tmp_path / "m.csv")
    (root / "train_list.txt").write_text(line("train", 7, 1))
    with raises(ManifestError, "train/001/M_0", path="i"):
        prepare_isogd(root, tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("name", "pairs", "labels"),
    [
        pytest.param("train_list.txt", 35_878, 249, marks=pytest.mark.long),
        ("valid_list.txt", 5_784, 0),
        ("valid_list_with_labels.txt", 5_784, 249),
        ("test_list.txt", 6_271, 0),
    ],
)
def test_the_real_lists_have_the_published_counts(real_data, name, pairs, labels):
    found = read_pairs(real_data / "annotations" / "isogd" / name, "train")
    assert len(found) == pairs
    assert len({pair.entry.labels["label"] for pair in found if pair.entry.labels}) == labels


@pytest.fixture
def real(tmp_path, real_data):
    """Folder with some real pairs and the real lists."""
    root = tmp_path / "isogd"
    root.mkdir()
    (root / "train").symlink_to(real_data / "isogd_rgbd" / "train")
    for path in (real_data / "annotations" / "isogd").iterdir():
        (root / path.name).symlink_to(path)
    return root


@pytest.mark.long
def test_the_real_pairs_are_counted_against_the_real_lists(tmp_path, real, monkeypatch, match_notes):
    unread = SimpleNamespace(num_frames=9, remarks=(), timeline=None)
    monkeypatch.setattr("kinema.datasets.prepared.open_source", lambda *_, **__: nullcontext(unread))
    prepared = prepare_isogd(real, tmp_path / "m.csv")
    assert prepared.manifest.declared == {"train": 35_878, "val": 5_784, "test": 6_271}
    assert len(prepared.manifest.entries) == 121
    assert prepared.manifest.entries[0].labels == {"label": "019"}
    assert match_notes(prepared.notes[:1], "test labels 6271 pairs test_list.txt")
    assert prepared.notes[2].startswith(
        "47812 samples of train_list.txt, valid_list_with_labels.txt, test_list.txt are"
    )
    assert len(prepared.notes) == 3


@pytest.mark.long
def test_the_real_pairs_are_of_equal_length(tmp_path, real_data):
    prepared = prepare_isogd(real_data / "isogd_rgbd", tmp_path / "m.csv")
    assert prepared.manifest.declared == {"train": 121}
    assert prepared.unreadable == ()
    assert not any("differ in their number of frames" in note for note in prepared.notes)

"""ChaLearn IsoGD: its lists, and the pairs that are on disk."""

from pathlib import Path

import pytest

from kinema.datasets.isogd import CLASSES, prepare_isogd, read_pairs
from kinema.errors import ManifestError


def line(split, number, label=""):
    return f"{split}/001/M_{number:05}.avi {split}/001/K_{number:05}.avi {label}".rstrip()


@pytest.fixture
def root(tmp_path, fill):
    """Three pairs to train on, two to validate; a pair is cut in two, and one is in no list."""
    root = fill(tmp_path / "i", *(f"train/001/{kind}_0000{n}.avi" for n in (1, 2, 3) for kind in "MK"))
    fill(root, *(f"valid/001/{kind}_0000{n}.avi" for n in (1, 2) for kind in "MK"))
    fill(root, "train/001/M_00004.avi", "train/001/M_00009.avi", "train/001/K_00009.avi")
    (root / "train_list.txt").write_text("\n".join(line("train", n, 10 * n) for n in (1, 2, 3, 4, 5)) + "\n")
    (root / "valid_list.txt").write_text("\n".join(line("valid", n) for n in (1, 2)))
    (root / "test_list.txt").write_text(line("test", 1))
    return root


def test_the_pairs_that_are_listed_and_there_become_a_manifest(tmp_path, root):
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
    assert prepared.notes == (
        "split test has no labels: the 1 pairs of test_list.txt can be answered, and not measured",
        "3 samples of train_list.txt, valid_list_with_labels.txt, test_list.txt are not on disk and were left out, and "
        "coverage counts them as missing: train/001/M_00004.avi, train/001/M_00005.avi, test/001/M_00001.avi",
        "2 files on disk are not in train_list.txt, valid_list_with_labels.txt, test_list.txt and were left out: "
        "train/001/K_00009.avi, train/001/M_00009.avi",
    )


def test_a_list_without_labels_is_named_and_one_that_is_not_there_too(tmp_path, root):
    (root / "test_list.txt").unlink()
    prepared = prepare_isogd(root, tmp_path / "m.csv")
    assert prepared.manifest.declared == {"train": 5, "val": 2}
    assert prepared.manifest.unlabelled == ("val",)
    assert [entry.labels for entry in prepared.manifest.entries if entry.split == "val"] == [{}, {}]
    assert prepared.notes[0] == (
        "split val has no labels: the 2 pairs of valid_list.txt can be answered, and not measured"
    )
    assert prepared.notes[1] == (f"split test is left out: test_list_with_labels.txt or test_list.txt is not in {root}")
    assert prepared.summary.startswith(f"{tmp_path / 'm.csv'}: 3 of 5 declared train, 2 val; 249 classes; 0 files")


def test_unequal_lengths_of_a_pair_are_said(tmp_path, root, shorter):
    (root / "train" / "001" / "K_00002.avi").write_bytes(Path(shorter).read_bytes())
    notes = prepare_isogd(root, tmp_path / "m.csv").notes
    assert notes[-1].endswith("i/train/001/M_00002.avi has 9 and i/train/001/K_00002.avi 7")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.avi b.avi 1\n\nc.avi", r"line 3: 'c\.avi' is not of the form RGB DEPTH NUMBER"),
        ("a.avi b.avi 1 2", "line 1: .* is not of the form"),
        ("a.avi b.avi 250", "line 1: '250' is no gesture; they are 1 to 249"),
        ("a.avi b.avi 0", "line 1: '0' is no gesture"),
        ("a.avi b.avi x", "line 1: 'x' is no gesture"),
        ("a.avi b.avi 1\nc.avi d.avi", "line 2: some lines of the list have a label, and some have none"),
        ("a.avi b.avi 1\na.avi d.avi 1", r"line 2: a\.avi stands in line 1 already"),
        ("a.avi b.avi 1\nc.avi b.avi 1", r"line 2: b\.avi stands in line 1 already"),
        ("\n", r"is empty; a line is RGB DEPTH NUMBER"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "train_list.txt").write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_pairs(tmp_path / "train_list.txt")


def test_what_is_no_folder_of_pairs_is_refused(tmp_path, root, fill):
    with pytest.raises(ManifestError, match="gone: no such folder"):
        prepare_isogd(tmp_path / "gone", tmp_path / "m.csv")
    with pytest.raises(
        ManifestError, match=r"there is no list with labels; looked for train_list\.txt, train_list_sub"
    ):
        prepare_isogd(fill(tmp_path / "empty", "train/001/M_00001.avi"), tmp_path / "m.csv")
    (root / "train_list.txt").write_text(line("train", 7, 1))
    with pytest.raises(
        ManifestError, match=r"no pair with a label is on disk; 2 listed pairs are missing, e\.g\. train/001/M_0"
    ):
        prepare_isogd(root, tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("name", "pairs", "labels"),
    [
        ("train_list.txt", 35_878, 249),
        ("valid_list.txt", 5_784, 0),
        ("valid_list_with_labels.txt", 5_784, 249),
        ("test_list.txt", 6_271, 0),
    ],
)
def test_the_real_lists_have_as_many_pairs_as_they_are_said_to(real_data, name, pairs, labels):
    found = read_pairs(real_data / "annotations" / "isogd" / name)
    assert len(found) == pairs
    assert len({pair.label for pair in found} - {""}) == labels


@pytest.fixture
def real(tmp_path, real_data):
    """The real pairs that are here, with the real lists of all."""
    root = tmp_path / "isogd"
    root.mkdir()
    (root / "train").symlink_to(real_data / "isogd_rgbd" / "train")
    for path in (real_data / "annotations" / "isogd").iterdir():
        (root / path.name).symlink_to(path)
    return root


def test_the_real_pairs_are_counted_against_the_real_lists(tmp_path, real, monkeypatch):
    monkeypatch.setattr("kinema.datasets.prepared.count_frames", lambda _: 9)
    prepared = prepare_isogd(real, tmp_path / "m.csv")
    assert prepared.manifest.declared == {"train": 35_878, "val": 5_784, "test": 6_271}
    assert len(prepared.manifest.entries) == 121
    assert prepared.manifest.entries[0].labels == {"label": "019"}
    assert prepared.notes[0] == (
        "split test has no labels: the 6271 pairs of test_list.txt can be answered, and not measured"
    )
    assert prepared.notes[1].startswith(
        "47812 samples of train_list.txt, valid_list_with_labels.txt, test_list.txt are"
    )
    assert len(prepared.notes) == 2


@pytest.mark.long
def test_the_real_pairs_are_of_equal_length(tmp_path, real_data):
    prepared = prepare_isogd(real_data / "isogd_rgbd", tmp_path / "m.csv")
    assert prepared.manifest.declared == {"train": 121}
    assert prepared.unreadable == ()
    assert not any("differ in their number of frames" in note for note in prepared.notes)

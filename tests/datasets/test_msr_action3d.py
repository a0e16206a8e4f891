"""MSR-Action3D: file names, tables, and the real sequences."""

import csv
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kinema.datasets.msr_action3d import CLASSES, DEPTH, prepare
from kinema.datasets.options import DatasetOptions
from kinema.errors import ManifestError
from kinema.transforms.preprocessing import depth_to_uint8
from kinema.video.source import read_gray


def prepare_msr_action3d(root, out):
    return prepare(DatasetOptions(root=root, out=out))


NAMES = [f"a{a:02}_s{s:02}_e{e:02}" for a in (1, 20) for s in range(1, 11) for e in (1, 2)]


@pytest.fixture
def root(tmp_path, fill_arrays):
    return fill_arrays(tmp_path / "msr", *(f"depth/{name}.npz" for name in NAMES))


def annotate(root, *lines, header="path,label,subject,frames,split"):
    (root / "annotations.csv").write_text("\n".join([header, *lines]) + "\n")


def test_file_names_give_action_subject_and_split(tmp_path, root, match_notes):
    prepared = prepare_msr_action3d(root, tmp_path / "m.csv")
    manifest = prepared.manifest
    assert manifest.classes == {"label": CLASSES}
    assert Counter(entry.labels["label"] for entry in manifest.entries) == {"high_arm_wave": 20, "pickup_and_throw": 20}
    assert {entry.subject for entry in manifest.entries if entry.split == "train"} == {
        "s01",
        "s03",
        "s05",
        "s07",
        "s09",
    }
    assert manifest.declared == {"train": 20, "test": 20}
    assert manifest.depth == DEPTH
    assert match_notes(prepared.notes[:1], "40 sequences 567")
    assert prepared.notes[1].startswith("18 of 20 classes have no sample on disk: horizontal_arm_wave")
    assert len(prepared.notes) == 2


def test_the_range_of_depth_is_written_in_whole_numbers(tmp_path, root):
    """The digest of a manifest goes into runs and predictions, so its JSON must not change."""
    prepare_msr_action3d(root, tmp_path / "m.csv")
    assert '"depth_range": [\n      325,\n      580\n    ]' in (tmp_path / "m.json").read_text()


def test_a_table_selects_samples_and_counts_missing_ones(tmp_path, root, match_notes):
    annotate(
        root,
        "depth/a01_s01_e01.npz,high_arm_wave,s01,5,train",
        "depth/a20_s02_e01.npz,pickup_and_throw,s02,5,val",
        "depth/a20_s02_e03.npz,pickup_and_throw,s02,5,val",
    )
    prepared = prepare_msr_action3d(root, tmp_path / "m.csv")
    assert [entry.split for entry in prepared.manifest.entries] == ["train", "val"]
    assert prepared.manifest.declared == {"train": 1, "val": 2}
    assert match_notes(
        prepared.notes,
        "18 20 classes horizontal_arm_wave hammer hand_catch 15",
        "1 samples annotations.csv depth/a20_s02_e03.npz",
        "38 files annotations.csv depth/a01_s01_e02.npz depth/a01_s02_e01.npz depth/a01_s02_e02.npz 35",
    )
    assert "1 train, 1 of 2 declared val; 20 classes" in prepared.summary


@pytest.mark.parametrize(
    ("line", "word", "facts"),
    [
        (
            "depth/a01_s01_e01.npz,hammer,s01,5,train",
            "high_arm_wave",
            {"line": 2, "field": "label"},
        ),
        (
            "depth/a01_s01_e01.npz,high_arm_wave,s02,5,val",
            "high_arm_wave",
            {"line": 2, "field": "subject"},
        ),
        ("gone/a01_s01_e01.npz,high_arm_wave,s01,5,train", "1", {"path": "msr"}),
    ],
)
def test_a_table_that_contradicts_file_names_is_refused(raises, tmp_path, root, line, word, facts):
    annotate(root, line)
    with raises(ManifestError, word, **{"path": "annotations.csv", **facts}):
        prepare_msr_action3d(root, tmp_path / "m.csv")


def test_a_table_with_a_missing_column_or_duplicate_is_refused(raises, tmp_path, root):
    annotate(root, "depth/a01_s01_e01.npz,high_arm_wave", header="path,label")
    with raises(ManifestError, path="annotations.csv", line=1, field="subject"):
        prepare_msr_action3d(root, tmp_path / "m.csv")
    annotate(root, *["depth/a01_s01_e01.npz,high_arm_wave,s01,5,train"] * 2)
    with raises(ManifestError, "depth/a01_s01_e01.npz", path="annotations.csv", line=3):
        prepare_msr_action3d(root, tmp_path / "m.csv")


def test_duplicate_or_unknown_sequences_are_refused(raises, tmp_path, root, fill_arrays):
    fill_arrays(root, "other/a01_s01_e01.npz")
    with raises(ManifestError, "depth/a01_s01_e01.npz", path="a01_s01_e01.npz"):
        prepare_msr_action3d(root, tmp_path / "m.csv")
    fill_arrays(tmp_path / "many", "a21_s01_e01.npz")
    with raises(ManifestError, "21", path="a21_s01_e01.npz"):
        prepare_msr_action3d(tmp_path / "many", tmp_path / "m.csv")
    with raises(ManifestError, "aAA_sSS_eEE", path="gone", field="root"):
        prepare_msr_action3d(tmp_path / "gone", tmp_path / "m.csv")


def test_bin_files_are_noted(raises, tmp_path, root, match_notes):
    (root / "a01_s01_e03_sdepth.bin").write_bytes(b"")
    assert match_notes(prepare_msr_action3d(root, tmp_path / "m.csv").notes[:1], "1 .bin a01_s01_e03_sdepth.bin")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a01_s01_e03_sdepth.bin").write_bytes(b"")
    with raises(ManifestError, "1 .bin files", path="raw"):
        prepare_msr_action3d(tmp_path / "raw", tmp_path / "m.csv")


def test_the_real_sequences_become_a_manifest(tmp_path, real_data, monkeypatch):
    """283 training and 154 validation sequences; their frames are counted in a test marked long."""
    root = real_data / "msr_action3d"
    with (root / "annotations.csv").open(newline="") as file:
        lines = {row["path"]: row for row in csv.DictReader(file)}
    monkeypatch.setattr(
        "kinema.datasets.prepared.open_source",
        lambda path, **_: nullcontext(
            SimpleNamespace(
                num_frames=int(lines[Path(path).relative_to(root.resolve()).as_posix()]["frames"]),
                remarks=(),
                timeline=None,
            )
        ),
    )
    prepared = prepare_msr_action3d(root, tmp_path / "m.csv")
    manifest = prepared.manifest
    assert manifest.declared == {"train": 283, "val": 154}
    assert [entry.labels["label"] for entry in manifest.entries] == [row["label"] for row in lines.values()]
    assert [manifest.targets(i)["label"] for i in range(437)] == [int(row["label_id"]) for row in lines.values()]
    assert {entry.subject for entry in manifest.entries if entry.split == "val"} == {"s02", "s04", "s06"}
    assert prepared.unreadable == ()
    assert len(prepared.notes) == 1
    assert prepared.notes[0].startswith("20 files on disk are not in annotations.csv and are omitted: original_mat/")


@pytest.mark.long
def test_the_real_sequences_have_the_frames_of_their_table(tmp_path, real_data):
    prepared = prepare_msr_action3d(real_data / "msr_action3d", tmp_path / "m.csv")
    assert prepared.unreadable == ()
    assert not any("announced another number" in note for note in prepared.notes)


@pytest.mark.long
def test_the_real_mat_files_are_read(tmp_path, real_data):
    prepared = prepare_msr_action3d(real_data / "msr_action3d" / "original_mat", tmp_path / "m.csv")
    assert prepared.manifest.declared == {"train": 20}
    assert {entry.labels["label"] for entry in prepared.manifest.entries} == set(CLASSES)
    assert prepared.unreadable == ()


def test_the_depth_range_covers_the_real_people(real_data):
    """Less than a thousandth of the person's pixels of 21 sequences is clipped at either end."""
    files = sorted((real_data / "msr_action3d" / "depth160").glob("*.npz"))[::21]
    levels = np.concatenate([depth_to_uint8(read_gray(str(path), range(0, 13, 3)), DEPTH).ravel() for path in files])
    person = levels[levels > 0]
    assert (person == 1).mean() < 1e-3
    assert (person == 255).mean() < 1e-3
    low, high = np.percentile(person, [0.1, 99.9])
    assert high - low > 127
    assert 0.05 < len(person) / len(levels) < 0.15

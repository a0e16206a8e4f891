"""Diving48: two versions of its lists, classes of four attributes, and the real vocabulary and records."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kinema.cli import main
from kinema.data.manifest import load_manifest
from kinema.datasets.diving48 import (
    ATTRIBUTES,
    COUNTS,
    SEPARATOR,
    prepare,
    read_dives,
    read_vocabulary,
)
from kinema.datasets.options import DatasetOptions
from kinema.datasets.skeleton import read_listing
from kinema.errors import ManifestError


def prepare_diving48(root, out):
    return prepare(DatasetOptions(root=root, out=out))


VOCABULARY = [[f"Back{n // 12}", f"{n}som", "NoTwis", "PIKE"] for n in range(48)]
TRAIN = ("-mmq0PT-u8k_00155", "-mmq0PT-u8k_00156", "_8Vy3dlHg2w_00000")
TEST = ("2x00lRzlTVQ_00001",)
V2_LENGTHS = ("Diving48_V2_train.json 3 15027", "Diving48_V2_test.json 1 1970")


def record(video, *, label=0, start=0, end=9, **fields):
    return {"vid_name": video, "label": label, "start_frame": start, "end_frame": end, **fields}


def write(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return path


def write_lists(folder, *, version="_V2", train=TRAIN, test=TEST):
    write(folder / "Diving48_vocab.json", VOCABULARY)
    write(folder / f"Diving48{version}_train.json", [record(v, label=n) for n, v in enumerate(train)])
    write(folder / f"Diving48{version}_test.json", [record(v, label=47) for v in test])


@pytest.mark.parametrize(("home", "folder"), [("rgb/", ""), ("videos/", "annotations"), ("", "annotations")])
def test_listed_dives_on_disk_become_a_manifest(tmp_path, fill, home, folder, match_notes):
    root = fill(tmp_path / "d", *(f"{home}{video}.mp4" for video in (*TRAIN, *TEST)))
    write_lists(root / folder)
    prepared = prepare_diving48(root, tmp_path / "m.csv")
    manifest = prepared.manifest
    assert [(e.rgb, e.split, e.group, e.labels["label"], e.frames) for e in manifest.entries] == [
        (f"d/{home}{TRAIN[0]}.mp4", "train", "-mmq0PT-u8k", "Back0, 0som, NoTwis, PIKE", 9),
        (f"d/{home}{TRAIN[1]}.mp4", "train", "-mmq0PT-u8k", "Back0, 1som, NoTwis, PIKE", 9),
        (f"d/{home}{TRAIN[2]}.mp4", "train", "_8Vy3dlHg2w", "Back0, 2som, NoTwis, PIKE", 9),
        (f"d/{home}{TEST[0]}.mp4", "test", "2x00lRzlTVQ", "Back3, 47som, NoTwis, PIKE", 9),
    ]
    assert all((e.start_frame, e.stop_frame, e.start_s) == (None, None, None) for e in manifest.entries)
    assert [manifest.targets(n)["label"] for n in range(4)] == [0, 1, 2, 47]
    assert (manifest.dataset, manifest.version) == ("Diving48", "V2, train 3, test 1")
    assert manifest.declared == {"train": 15_027, "test": 1_970} == COUNTS["V2"]
    assert match_notes(prepared.notes, *V2_LENGTHS, "44 48 classes Back0 3som")


def test_missing_and_unlisted_files_are_counted(tmp_path, fill, match_notes):
    root = fill(tmp_path / "d", f"rgb/{TRAIN[1]}.mp4", "rgb/elsewhere_00001.mp4", f"{TEST[0]}.mp4")
    (root / "Diving48_rgb.tar.gz").touch()
    write_lists(root)
    prepared = prepare_diving48(root, tmp_path / "m.csv")
    lists = "Diving48_V2_train.json Diving48_V2_test.json"
    assert match_notes(
        prepared.notes,
        *V2_LENGTHS,
        f"1 files {root} ignored {root / 'rgb'}",
        "47 48 classes",
        f"3 samples {lists} {TRAIN[0]} {TRAIN[2]} {TEST[0]}",
        f"1 files {lists} rgb/elsewhere_00001.mp4",
        "archives Diving48_rgb.tar.gz",
    )
    assert ": 0 of 1970 declared test, 1 of 15027 declared train; 48 classes" in prepared.summary


def test_videos_of_other_lengths_are_counted_and_used_in_full(tmp_path, fill, match_notes):
    root = fill(tmp_path / "d", *(f"rgb/{video}.mp4" for video in (*TRAIN, *TEST)))
    write_lists(root)
    records = [record(TRAIN[0], end=10), record(TRAIN[1], start=1), record(TRAIN[2])]
    write(root / "Diving48_V2_train.json", records)
    (root / "rgb" / f"{TEST[0]}.mp4").write_bytes(b"")
    prepared = prepare_diving48(root, tmp_path / "m.csv")
    assert [e.frames for e in prepared.manifest.entries] == [9, 9, 9, None]
    assert all(e.stop_frame is None for e in prepared.manifest.entries)
    assert match_notes(prepared.notes[-1:], f"2 videos {TRAIN[0]} 0 10 9 {TRAIN[1]} 1 9 9")
    assert len(prepared.unreadable) == 1


def test_v1_and_v2_are_distinguished(tmp_path, fill, match_notes):
    root = fill(tmp_path / "d", *(f"rgb/{video}.mp4" for video in (*TRAIN, *TEST)))
    write_lists(root, version="")
    prepared = prepare_diving48(root, tmp_path / "m.csv")
    assert prepared.manifest.version == "V1, train 3, test 1"
    assert prepared.manifest.declared == {"train": 16_067, "test": 2_337}
    assert match_notes(prepared.notes[:1], "V1 V2 V1 V2")
    write_lists(root)
    prepared = prepare_diving48(root, tmp_path / "m.csv")
    assert prepared.manifest.version == "V2, train 3, test 1"
    assert match_notes(prepared.notes[:1], "V1 Diving48_train.json Diving48_test.json")


@pytest.mark.parametrize("gone", ["train", "test"])
def test_lists_of_two_versions_are_refused(raises, tmp_path, fill, gone, match_notes):
    root = fill(tmp_path / "d", *(f"rgb/{video}.mp4" for video in (*TRAIN, *TEST)))
    write_lists(root)
    other = {"train": "test", "test": "train"}[gone]
    (root / f"Diving48_V2_{gone}.json").rename(root / f"Diving48_{gone}.json")
    with raises(ManifestError, f"Diving48_{gone}.json", path="d"):
        prepare_diving48(root, tmp_path / "m.csv")
    (root / f"Diving48_{gone}.json").unlink()
    prepared = prepare_diving48(root, tmp_path / "m.csv")
    assert {entry.split for entry in prepared.manifest.entries} == {other}
    assert match_notes(prepared.notes[:1], f"{gone} Diving48_V2_{gone}.json {root}")


@pytest.mark.parametrize(
    ("name", "count", "word", "facts"),
    [
        (
            "Diving48_V2_test",
            2_337,
            "2337",
            {"path": "Diving48_V2_test.json"},
        ),
        pytest.param("Diving48_V2_train", 16_067, "Diving48_train.json", {}, marks=pytest.mark.long),
    ],
)
def test_a_list_of_v1_named_v2_is_refused(raises, tmp_path, fill, name, count, word, facts):
    root = fill(tmp_path / "d", f"rgb/{TRAIN[0]}.mp4")
    write_lists(root)
    write(root / f"{name}.json", [record(f"x_{number:05}") for number in range(count)])
    with raises(ManifestError, word, **facts):
        prepare_diving48(root, tmp_path / "m.csv")


@pytest.mark.long
def test_a_list_of_v2_named_v1_is_refused(raises, tmp_path, fill):
    root = fill(tmp_path / "d", f"rgb/{TRAIN[0]}.mp4")
    write_lists(root, version="")
    write(root / "Diving48_test.json", [record(f"x_{number:05}") for number in range(1_970)])
    with raises(ManifestError, "Diving48_V2_test.json", path="Diving48_test.json"):
        prepare_diving48(root, tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("found", "word", "facts"),
    [
        (
            [record("a_1"), record("b_1", label=48)],
            "48",
            {"line": 2, "field": "label"},
        ),
        ([record("a_1", label="3")], "3", {"line": 1, "field": "label"}),
        ([record("a_1", label=True)], "True", {"line": 1, "field": "label"}),
        (
            [{"vid_name": "a_1", "label": 1, "start_frame": 0}],
            "",
            {"line": 1, "field": "end_frame"},
        ),
        ([record("a_1", start=10)], "start_frame", {"line": 1, "field": "end_frame"}),
        ([record("../a_1")], "../a_1", {"line": 1, "field": "vid_name"}),
        ([record("a_1"), record("b_1"), record("a_1", label=1)], "a_1", {"line": 3}),
        ([["a_1", 3]], "vid_name", {"line": 1}),
        ({"a_1": 3}, "records", {}),
        ([], "records", {}),
    ],
)
def test_an_invalid_list_is_refused(raises, tmp_path, found, word, facts):
    with raises(ManifestError, word, **{"path": "Diving48_V2_train.json", **facts}):
        read_listing(
            {"train": write(tmp_path / "Diving48_V2_train.json", found)},
            lambda path, split: read_dives(path, split, [str(n) for n in range(48)], {}),
        )


def test_a_truncated_list_and_a_video_in_both_lists_are_refused(raises, tmp_path, fill):
    root = fill(tmp_path / "d", f"rgb/{TRAIN[0]}.mp4")
    write_lists(root, test=TRAIN[:1])
    with raises(ManifestError, "Diving48_V2_train.json", path="Diving48_V2_test.json", line=1):
        prepare_diving48(root, tmp_path / "m.csv")
    path = root / "Diving48_V2_train.json"
    path.write_text(path.read_text()[:-9])
    with raises(ManifestError, "JSON", path="Diving48_V2_train.json"):
        prepare_diving48(root, tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("found", "word", "facts"),
    [
        (VOCABULARY[:47], "Diving48", {"path": "Diving48_vocab.json"}),
        ([*VOCABULARY[:47], VOCABULARY[0]], "0", {"path": "Diving48_vocab.json", "field": "47"}),
        (
            [*VOCABULARY[:47], ["Back", "15som", "PIKE"]],
            "",
            {"path": "Diving48_vocab.json", "field": "47"},
        ),
        ([*VOCABULARY[:47], ["Back", "1, 5", "NoTwis", "PIKE"]], "", {"path": "Diving48_vocab.json", "field": "47"}),
        ([*VOCABULARY[:47], None], "", {"path": "Diving48_vocab.json", "field": "47"}),
    ],
)
def test_a_malformed_vocabulary_is_refused(raises, tmp_path, found, word, facts):
    with raises(ManifestError, word, **facts):
        read_vocabulary(write(tmp_path / "Diving48_vocab.json", found))


def test_a_wrong_folder_is_refused(raises, tmp_path, fill):
    out = tmp_path / "m.csv"
    with raises(ManifestError, "Diving48_V2_train.json", path="gone", field="root"):
        prepare_diving48(tmp_path / "gone", out)
    root = fill(tmp_path / "d", "rgb/other.mp4")
    with raises(ManifestError, "Diving48_vocab.json", path="d"):
        prepare_diving48(root, out)
    write(root / "Diving48_vocab.json", VOCABULARY)
    with raises(ManifestError, "Diving48_V2", path="d"):
        prepare_diving48(root, out)
    write_lists(root)
    (root / "Diving48_rgb.tar.gz").touch()
    with raises(ManifestError, "rgb/-mmq0PT-u8k_00155.mp4", path="d"):
        prepare_diving48(root, out)
    fill(root, "rgb/other.avi")
    with raises(ManifestError, "other.avi", path="other.mp4"):
        prepare_diving48(root, out)
    assert not out.exists()


@pytest.fixture(scope="module")
def real(real_data):
    return real_data / "annotations" / "diving48"


def test_the_real_vocabulary_names_48_classes_of_four_attributes(real):
    vocabulary = read_vocabulary(real / "Diving48_vocab_48.json")
    assert vocabulary[0] == ("Back", "15som", "05Twis", "FREE")
    assert vocabulary[47] == ("Reverse", "Dive", "NoTwis", "TUCK")
    assert len(set(vocabulary)) == 48
    assert SEPARATOR.join(vocabulary[0]) == "Back, 15som, 05Twis, FREE"
    values = dict(zip(ATTRIBUTES, map(set, zip(*vocabulary, strict=True)), strict=True))
    assert values["take-off"] == {"Back", "Forward", "Inward", "Reverse"}
    assert values["position"] == {"FREE", "PIKE", "STR", "TUCK"}
    assert {name: len(found) for name, found in values.items()} == {
        "take-off": 4,
        "somersault": 8,
        "twist": 8,
        "position": 4,
    }


def test_the_real_records_are_read(real):
    segments = {}
    dives = read_dives(real / "Diving48_V2_train_first2.json", "train", [str(n) for n in range(48)], segments)
    assert [(d.name, d.entry.labels["label"]) for d in dives] == [
        ("-mmq0PT-u8k_00155", "0"),
        ("-mmq0PT-u8k_00156", "0"),
    ]
    assert segments == {"-mmq0PT-u8k_00155": (0, 48), "-mmq0PT-u8k_00156": (0, 70)}


def test_download_to_first_training_step(tmp_path, real, write_video, stamp, capsys, monkeypatch, train_one_step):
    """Real vocabulary, two real and other synthetic records, and videos of the listed lengths."""
    records = json.loads((real / "Diving48_V2_train_first2.json").read_text())
    records += [record(f"abcdefghij{n}_{n:05}", label=n, end=20 + n) for n in (3, 8, 30)]
    held_out = [record(f"zyxwvutsrq{n}_{n:05}", label=n, end=20 + n) for n in (0, 8)]
    root = tmp_path / "diving"
    (root / "rgb").mkdir(parents=True)
    write(root / "Diving48_V2_train.json", records)
    write(root / "Diving48_V2_test.json", held_out)
    shutil.copy(real / "Diving48_vocab_48.json", root / "Diving48_vocab.json")
    for found in (*records, *held_out):
        write_video(root / "rgb" / f"{found['vid_name']}.mp4", [stamp(n) for n in range(found["end_frame"])])
    monkeypatch.chdir(tmp_path)
    main(["prepare", "diving48", "--root", "diving", "--out", "diving48_v2.csv"])
    output = capsys.readouterr().out
    assert "another number of frames" not in output
    assert "2 of 1970 declared test, 5 of 15027 declared train; 48 classes; 0 files cannot be read" in output
    manifest = load_manifest("diving48_v2.csv")
    assert manifest.entries[0].labels == {"label": "Back, 15som, 05Twis, FREE"}
    assert [entry.frames for entry in manifest.entries] == [48, 70, 23, 28, 50, 20, 28]
    train_one_step("diving48_v2.csv", {"train": 5, "test": 2})
    capsys.readouterr()
    evaluate = "--manifest diving48_v2.csv --workers 0 --device cpu --per-attribute --json report.json"
    main(["evaluate", "run", *evaluate.split()])
    output = capsys.readouterr().out
    assert "Diving48, version V2, train 5, test 2\n" in output
    assert all(f"\n{attribute} " in output for attribute in ATTRIBUTES)
    stored = json.loads(Path("report.json").read_text())
    assert (stored["dataset"], stored["version"]) == ("Diving48", "V2, train 5, test 2")
    assert all(np.sum(found["counts"]) == 2 for found in stored["attributes"].values())

"""UCF-101: official splits, the action with two spellings, and the real lists and clips."""

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from kinema.cli import main
from kinema.data.manifest import load_manifest
from kinema.datasets.options import ThreeSplitOptions
from kinema.datasets.ucf101 import COUNTS, NUM_CLASSES, prepare, read_classes, read_videos
from kinema.errors import ConfigError, ManifestError


def prepare_ucf101(root, out, split=1, **options):
    return prepare(ThreeSplitOptions(root=root, out=out, split=split, **options))


ACTIONS = ("ApplyEyeMakeup", "HandstandPushups", "HandstandWalking", *(f"Other{n}" for n in range(98)))
TRAIN = ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01", "HandstandPushups/v_HandStandPushups_g08_c01")
TEST = ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01", "HandstandPushups/v_HandStandPushups_g01_c02")
OTHER_LENGTHS = tuple(f"{split}list01.txt 2 {count}" for split, count in COUNTS[1].items())


def write(path, *lines, end="\r\n"):
    """Write a list with the line endings of the official ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode())
    return path


def write_lists(folder, *, train=TRAIN, test=TEST, split=1):
    write(folder / "classInd.txt", *(f"{number} {name}" for number, name in enumerate(ACTIONS, start=1)))
    numbered = [f"{clip}.avi {ACTIONS.index(clip.split('/')[0]) + 1}" for clip in train]
    write(folder / f"trainlist{split:02}.txt", *numbered)
    write(folder / f"testlist{split:02}.txt", *(f"{clip}.avi" for clip in test))


@pytest.mark.parametrize(
    ("home", "folder"), [("UCF-101/", "ucfTrainTestlist"), ("", ""), ("videos/", "annotations"), ("UCF-101/", "")]
)
def test_listed_videos_on_disk_become_a_manifest(tmp_path, fill, home, folder, match_notes):
    root = fill(tmp_path / "u", *(f"{home}{clip}.avi" for clip in (*TRAIN, *TEST)))
    write_lists(root / folder)
    prepared = prepare_ucf101(root, tmp_path / "m.csv")
    manifest = prepared.manifest
    assert [(e.rgb, e.split, e.group, e.labels["label"], e.frames) for e in manifest.entries] == [
        (f"u/{home}{TRAIN[0]}.avi", "train", "ApplyEyeMakeup_g08", "ApplyEyeMakeup", 9),
        (f"u/{home}{TRAIN[1]}.avi", "train", "HandstandPushups_g08", "HandstandPushups", 9),
        (f"u/{home}{TEST[0]}.avi", "test", "ApplyEyeMakeup_g01", "ApplyEyeMakeup", 9),
        (f"u/{home}{TEST[1]}.avi", "test", "HandstandPushups_g01", "HandstandPushups", 9),
    ]
    assert manifest.classes == {"label": ACTIONS}
    assert (manifest.dataset, manifest.version) == ("UCF-101", "split 1, train 2, test 2")
    assert manifest.declared == COUNTS[1]
    assert match_notes(prepared.notes, *OTHER_LENGTHS, "99 101 classes HandstandWalking Other0 Other1 96")


@pytest.mark.parametrize("file", ["v_HandStandPushups", "v_HandstandPushups"])
@pytest.mark.parametrize("folder", ["HandstandPushups", "HandStandPushups"])
@pytest.mark.parametrize("listed", ["HandstandPushups", "HandStandPushups"])
def test_the_action_with_two_spellings_is_found_in_both(tmp_path, fill, file, folder, listed):
    """Folders and class list use HandstandPushups, files and official lists v_HandStandPushups; copies vary."""
    root = fill(tmp_path / "u", f"UCF-101/{folder}/{file}_g08_c01.avi", f"UCF-101/{TEST[0]}.avi")
    write_lists(root, test=TEST[:1])
    write(root / "trainlist01.txt", f"{listed}/v_HandStandPushups_g08_c01.avi 2")
    manifest = prepare_ucf101(root, tmp_path / "m.csv").manifest
    assert [(e.group, e.labels["label"]) for e in manifest.entries] == [
        ("HandstandPushups_g08", "HandstandPushups"),
        ("ApplyEyeMakeup_g01", "ApplyEyeMakeup"),
    ]


def test_missing_and_unlisted_files_are_counted(tmp_path, fill, match_notes):
    root = fill(tmp_path / "u", f"UCF-101/{TRAIN[1]}.avi", "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g02_c01.avi")
    fill(root, f"videos/{TEST[1]}.avi")
    (root / "UCF101.rar").touch()
    write_lists(root)
    prepared = prepare_ucf101(root, tmp_path / "m.csv")
    lists = "trainlist01.txt testlist01.txt"
    assert match_notes(
        prepared.notes,
        *OTHER_LENGTHS,
        f"1 files {root / 'videos'} ignored {root / 'UCF-101'}",
        "100 101 classes ApplyEyeMakeup HandstandWalking Other0 97",
        f"3 samples {lists} v_ApplyEyeMakeup_g08_c01 v_ApplyEyeMakeup_g01_c01 v_HandStandPushups_g01_c02",
        f"1 files {lists} UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g02_c01.avi",
        "archives UCF101.rar",
    )
    assert ": 0 of 3783 declared test, 1 of 9537 declared train; 101 classes" in prepared.summary


def test_an_unreadable_file_keeps_its_line(tmp_path, fill):
    root = fill(tmp_path / "u", *(f"UCF-101/{clip}.avi" for clip in (*TRAIN, *TEST)))
    (root / "UCF-101" / f"{TRAIN[0]}.avi").write_bytes(b"")
    write_lists(root)
    prepared = prepare_ucf101(root, tmp_path / "m.csv")
    assert [entry.frames for entry in prepared.manifest.entries] == [None, 9, 9, 9]
    (tmp_path / "bad.txt").write_text(f"{prepared.manifest.entries[0].rgb}\tunreadable\n")
    left = prepare_ucf101(root, tmp_path / "m.csv", exclude=tmp_path / "bad.txt")
    assert [entry.frames for entry in left.manifest.entries] == [9, 9, 9]
    assert left.manifest.declared == prepared.manifest.declared
    assert left.unreadable == ()
    assert len(prepared.unreadable) == 1
    assert "v_ApplyEyeMakeup_g08_c01.avi" in prepared.unreadable[0]


@pytest.mark.parametrize(
    ("lines", "word", "facts"),
    [
        (["Knitting/v_Knitting_g01_c01.avi"], "classInd.txt", {"line": 1, "field": "label"}),
        ([f"{TEST[0]}.avi", f"{TEST[0]}.avi"], "v_ApplyEyeMakeup_g01_c01", {"line": 2}),
        ([f"{TEST[0]}.avi 7"], "ApplyEyeMakeup", {"line": 1, "field": "label"}),
        (
            ["ApplyEyeMakeup/v_Other3_g01_c01.avi"],
            "v_Other3_g01_c01.avi",
            {"line": 1, "field": "label"},
        ),
        (
            ["", "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1"],
            "ApplyEyeMakeup/v_Apply",
            {"line": 2},
        ),
        ([f"{TEST[0]}.avi 1 2"], "", {"line": 1}),
        (["", " "], "empty", {}),
        (
            ["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c05.avi"],
            "v_ApplyEyeMakeup_g08_c05",
            {"line": 1, "field": "group"},
        ),
    ],
)
def test_a_list_of_another_dataset_is_refused(raises, tmp_path, fill, lines, word, facts):
    root = fill(tmp_path / "u", *(f"{clip}.avi" for clip in (*TRAIN, *TEST)))
    write_lists(root)
    write(root / "testlist01.txt", *lines)
    with raises(ManifestError, word, **{"path": "testlist01.txt", **facts}):
        prepare_ucf101(root, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize(
    ("lines", "word", "facts"),
    [
        (["1 Biking", "2 Diving"], "UCF-101", {"path": "classInd.txt"}),
        (["0 Biking"], "0 Biking", {"path": "classInd.txt", "line": 1}),
        (["1 Biking", "2 Biking"], "Biking", {"path": "classInd.txt", "line": 2}),
    ],
)
def test_a_class_list_of_another_dataset_is_refused(raises, tmp_path, lines, word, facts):
    with raises(ManifestError, word, **facts):
        read_classes(write(tmp_path / "classInd.txt", *lines))
    (tmp_path / "classInd.txt").write_bytes(b"1 Caf\xe9")
    with raises(ManifestError, "UTF-8", path="classInd.txt"):
        read_classes(tmp_path / "classInd.txt")


def test_a_wrong_folder_is_refused(raises, tmp_path, fill):
    out = tmp_path / "m.csv"
    with raises(ManifestError, "classInd.txt", path="gone", field="root"):
        prepare_ucf101(tmp_path / "gone", out)
    root = fill(tmp_path / "u", "Elsewhere/1.avi")
    with raises(ManifestError, "ucfTrainTestlist", path="u"):
        prepare_ucf101(root, out)
    write_lists(root)
    (root / "UCF101.rar").touch()
    with raises(ManifestError, "UCF-101/ApplyEyeMakeup/v_", path="u"):
        prepare_ucf101(root, out)
    with raises(ManifestError, "trainlist02.txt", path="u"):
        prepare_ucf101(root, out, 2)
    with raises(ConfigError, "4", field="split"):
        prepare_ucf101(root, out, 4)
    fill(root, f"{TRAIN[1]}.avi", f"{TRAIN[1].replace('HandstandPushups/', 'HandStandPushups/')}.avi")
    with raises(ManifestError, "duplicate", path="v_HandStandPushups_g08_c01.avi"):
        prepare_ucf101(root, out)


@pytest.fixture(scope="module")
def real(real_data):
    return real_data / "annotations" / "ucf101"


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_real_lists_have_the_official_counts_and_divide_no_group(real, split):
    classes = read_classes(real / "classInd.txt")
    clips = {side: read_videos(real / f"{side}list{split:02}.txt", classes, side) for side in ("train", "test")}
    assert {side: len(found) for side, found in clips.items()} == COUNTS[split]
    assert len({clip.name for found in clips.values() for clip in found}) == 13_320
    groups = {side: {clip.entry.group for clip in found} for side, found in clips.items()}
    assert (len(groups["train"]), len(groups["test"])) == (1_818, 707)
    assert not groups["train"] & groups["test"]
    for found in groups.values():
        assert {group.rsplit("_", 1)[0] for group in found} == set(classes)


def test_official_counts():
    assert COUNTS == {
        1: {"train": 9_537, "test": 3_783},
        2: {"train": 9_586, "test": 3_734},
        3: {"train": 9_624, "test": 3_696},
    }
    assert {sum(counts.values()) for counts in COUNTS.values()} == {13_320}
    assert NUM_CLASSES == 101


def test_the_real_lists_of_two_splits_are_not_mixed(raises, tmp_path, real, fill):
    root = fill(tmp_path / "u", f"{TEST[0]}.avi")
    for name, source in (("classInd", "classInd"), ("trainlist01", "trainlist01"), ("testlist01", "testlist02")):
        shutil.copy(real / f"{source}.txt", root / f"{name}.txt")
    with raises(ManifestError, "trainlist01.txt", path="testlist01.txt", line=1):
        prepare_ucf101(root, tmp_path / "m.csv")


@pytest.mark.parametrize(("split", "sides"), [(1, {"Diving": "test"}), (2, {"Diving": "train"})])
def test_the_real_clips_become_a_manifest(tmp_path, real_data, real, split, sides):
    """Nine clips of the first group of three actions, and two of SoccerJuggling, in their official splits."""
    root = tmp_path / "u"
    shutil.copytree(real_data / "format_samples" / "ucf101", root / "UCF-101")
    (root / "UCF-101" / "SoccerJuggling").mkdir()
    for clip in sorted((real_data / "format_samples" / "torchvision_0.14.1").glob("v_SoccerJuggling*")):
        shutil.copy(clip, root / "UCF-101" / "SoccerJuggling")
    (root / "ucfTrainTestlist").symlink_to(real)
    prepared = prepare_ucf101(root, tmp_path / "m.csv", split)
    manifest = prepared.manifest
    assert len(manifest.entries) == 11
    assert prepared.unreadable == ()
    frames = {Path(e.rgb).stem: e.frames for e in manifest.entries}
    assert (frames["v_ApplyEyeMakeup_g01_c01"], frames["v_SoccerJuggling_g23_c01"]) == (164, 240)
    assert {e.split for e in manifest.entries if e.labels["label"] == "Diving"} == {sides["Diving"]}
    assert {e.split for e in manifest.entries if e.labels["label"] == "SoccerJuggling"} == {"train"}
    assert manifest.targets(0) == {
        "label": read_classes(real / "classInd.txt").index(manifest.entries[0].labels["label"])
    }
    assert prepared.notes[0].startswith("97 of 101 classes have no sample on disk: ApplyLipstick")
    assert prepared.notes[1].startswith("13309 samples of trainlist")


def test_download_to_first_training_step(tmp_path, real, fill, capsys, monkeypatch, train_one_step):
    clips = [
        f"{folder}/v_{name}_g{group:02}_c01.avi"
        for folder, name in (
            ("ApplyEyeMakeup", "ApplyEyeMakeup"),
            ("HandstandPushups", "HandStandPushups"),
            ("YoYo", "YoYo"),
        )
        for group in (1, 2, 8, 9, 10, 11)
    ]
    root = fill(tmp_path / "ucf", *(f"UCF-101/{clip}" for clip in clips))
    shutil.copytree(real, root / "ucfTrainTestlist", copy_function=shutil.copy)
    monkeypatch.chdir(tmp_path)
    main(["prepare", "ucf101", "--root", "ucf", "--out", "ucf101_1.csv"])
    output = "".join(capsys.readouterr())
    assert "98 of 101 classes have no sample on disk" in output
    assert "6 of 3783 declared test, 12 of 9537 declared train; 101 classes; 0 files cannot be read" in output
    args = "train ctn_tiny --data.manifest ucf101_1.csv --data.evaluate test --compute.device cpu --run.out refused"
    with pytest.raises(SystemExit):
        main(args.split())
    assert "declares 3783" in capsys.readouterr().err
    train_one_step("ucf101_1.csv", {"train": 12, "test": 6})
    capsys.readouterr()
    main(["evaluate", "run", "--manifest", "ucf101_1.csv", "--workers", "0", "--device", "cpu"])
    assert "UCF-101, version split 1, train 9537, test 3783\n" in capsys.readouterr().out


def test_the_split_option_defaults_to_1(tmp_path, fill, capsys):
    root = fill(tmp_path / "u", *(f"{clip}.avi" for clip in (*TRAIN, *TEST)))
    write_lists(root)
    write_lists(root, split=3)
    out = tmp_path / "m.csv"
    for args, version in (([], "split 1"), (["--split", "3"], "split 3")):
        main(["prepare", "ucf101", "--root", str(root), "--out", str(out), *args])
        assert load_manifest(out).version.startswith(version)
    for split in ("4", "cross_view", "01"):
        with pytest.raises(SystemExit):
            main(["prepare", "ucf101", "--root", str(root), "--out", str(out), "--split", split])
        assert "--split" in capsys.readouterr().err


@pytest.mark.long
def test_each_of_13320_files_is_opened_once(tmp_path, real, monkeypatch):
    opened = []
    unread = SimpleNamespace(num_frames=9, remarks=(), timeline=None)
    monkeypatch.setattr(
        "kinema.datasets.prepared.open_source", lambda path, **_: opened.append(path) or nullcontext(unread)
    )
    classes = read_classes(real / "classInd.txt")
    root = tmp_path / "u"
    for side in ("train", "test"):
        for clip in read_videos(real / f"{side}list01.txt", classes, side):
            folder = root / "UCF-101" / clip.entry.labels["label"]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{clip.name}.avi").touch()
    (root / "annotations").symlink_to(real)
    prepared = prepare_ucf101(root, tmp_path / "m.csv")
    assert len(opened) == len(set(opened)) == 13_320
    assert prepared.notes == ()
    assert prepared.summary.endswith("m.csv: 3783 test, 9537 train; 101 classes; 0 files cannot be read")

"""HMDB-51: official splits from the lists of 51 actions, unmistakable labels, real lists and clips."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from kinema.cli import main
from kinema.data.dataset import frames_of
from kinema.data.manifest import load_manifest
from kinema.datasets import jhmdb
from kinema.datasets.hmdb51 import CLASSES, COUNTS, prepare, read_list
from kinema.datasets.options import ThreeSplitOptions
from kinema.errors import ConfigError, ManifestError
from kinema.video.source import read_rgb
from kinema.video.video_file import VideoFile


def prepare_hmdb51(root, out, split=1):
    return prepare(ThreeSplitOptions(root=root, out=out, split=split))


SPECIAL_FILMS = ("Some.Film_(1999)", "other@film!", "semi;colon", "no#1", "two words", "Äpfel")
"""Films with special characters in their names, as in the real ones."""


def clip(film, action, number=0):
    return f"{film}_{action}_f_cm_np1_fr_med_{number}"


def make_clips(action):
    """Return 70 training clips (six with special names), 30 test clips and 2 unused ones, with their numbers."""
    names = [clip(film, action) for film in SPECIAL_FILMS] + [clip(f"film{n}", action) for n in range(96)]
    return dict(zip(names, [1] * 70 + [2] * 30 + [0] * 2, strict=True))


def write_list(folder, action, sides, split=1):
    """Write a list with the line endings of the official ones."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{action}_test_split{split}.txt"
    path.write_text("".join(f"{name}.avi {side} \n" for name, side in sides.items()), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("home", "folder"),
    [("hmdb51_org/", "testTrainMulti_7030_splits"), ("", ""), ("videos/", "splits"), ("", "annotations")],
)
def test_listed_clips_on_disk_become_a_manifest(tmp_path, fill, home, folder, match_notes):
    names = {action: [*list(make_clips(action))[:6], clip("film95", action)] for action in ("wave", "sit")}
    root = fill(tmp_path / "h", *(f"{home}{action}/{name}.avi" for action, found in names.items() for name in found))
    for action in CLASSES:
        write_list(root / folder, action, make_clips(action))
    prepared = prepare_hmdb51(root, tmp_path / "m.csv")
    manifest = prepared.manifest
    assert [(e.rgb, e.split, e.group, e.labels["label"]) for e in manifest.entries] == [
        (f"h/{home}{action}/{clip(film, action)}.avi", "train", film, action)
        for action in ("sit", "wave")
        for film in SPECIAL_FILMS
    ]
    assert manifest.classes == {"label": CLASSES}
    assert (manifest.dataset, manifest.version) == ("HMDB-51", "split 1, train 3570, test 1530")
    assert manifest.declared == {"train": 3570, "test": 1530} == COUNTS
    assert prepared.unreadable == ()
    assert match_notes(prepared.notes[:2], "102 clips 1 0", "49 51 classes brush_hair cartwheel catch 46")
    assert prepared.notes[2].startswith("5088 samples of the 51 lists of split 1 are not on disk and are omitted")
    assert len(prepared.notes) == 3  # the clips of number 0 that are there are listed, and nothing else is
    assert (
        ": 0 of 1530 declared test, 12 of 3570 declared train; 51 classes; 0 files cannot be read" in prepared.summary
    )


def test_clips_with_special_characters_are_read(tmp_path, fill, read_stamps):
    root = fill(
        tmp_path / "h", *(f"{action}/{name}.avi" for action in ("run", "sit") for name in list(make_clips(action))[:6])
    )
    for action in ("run", "sit"):
        write_list(root, action, make_clips(action))
    prepare_hmdb51(root, tmp_path / "m.csv")
    manifest = load_manifest(tmp_path / "m.csv")
    for entry in manifest.entries:
        path = manifest.locate(entry.rgb)
        assert read_stamps(read_rgb(path, range(*frames_of(entry, VideoFile(path))))) == list(range(9))


def test_every_label_equals_the_folder(tmp_path, fill):
    """Guard against clips selected by one list and labeled by another (pytorch/vision 1246, 5359)."""
    actions = ("climb", "climb_stairs", "wave", "brush_hair", "sword", "sword_exercise", "kick", "kick_ball")
    names = {action: [name for name in make_clips(action) if name.startswith("film")][61::3] for action in actions}
    root = fill(tmp_path / "h", *(f"{action}/{name}.avi" for action, own in names.items() for name in own))
    for action in actions:
        write_list(root / "splits", action, make_clips(action))
    manifest = prepare_hmdb51(root, tmp_path / "m.csv").manifest
    assert Counter(e.labels["label"] for e in manifest.entries) == dict.fromkeys(actions, 11)
    for position, entry in enumerate(manifest.entries):
        folder = Path(entry.rgb).parent.name
        assert entry.labels["label"] == folder
        assert CLASSES[manifest.targets(position)["label"]] == folder
        assert entry.split == {1: "train", 2: "test"}[make_clips(folder)[Path(entry.rgb).stem]]


def test_missing_packed_and_unlisted_clips_are_counted(tmp_path, fill, match_notes):
    root = fill(tmp_path / "h", f"hmdb51_org/run/{clip('film1', 'run')}.avi", f"hmdb51_org/run/{clip('x', 'run')}.avi")
    fill(root, f"run/{clip('film2', 'run')}.avi")
    for name in ("sit.rar", "wave.rar"):
        (root / "hmdb51_org" / name).touch()
    for action in ("run", "sit", "wave"):
        write_list(root, action, make_clips(action))
    prepared = prepare_hmdb51(root, tmp_path / "m.csv")
    assert match_notes(
        prepared.notes,
        "48 51 actions brush_hair cartwheel catch 45",
        "6 clips 1 0",
        f"1 files {root} ignored {root / 'hmdb51_org'}",
        "50 51 classes brush_hair cartwheel catch 47",
        f"299 samples 3 lists 1 {', '.join(clip(film, 'run') for film in SPECIAL_FILMS[:3])} 296",
        f"1 files 3 lists 1 hmdb51_org/run/{clip('x', 'run')}.avi",
        "archives sit.rar wave.rar",
    )
    assert ": 0 of 1530 declared test, 1 of 3570 declared train" in prepared.summary


def test_packed_archives_are_named(raises, tmp_path):
    (tmp_path / "h").mkdir()
    for name in ("brush_hair.rar", "cartwheel.rar"):
        (tmp_path / "h" / name).touch()
    write_list(tmp_path / "h", "brush_hair", make_clips("brush_hair"))
    with raises(ManifestError, "brush_hair.rar", path="h"):
        prepare_hmdb51(tmp_path / "h", tmp_path / "m.csv")


def test_a_list_of_j_hmdb_is_refused(raises, tmp_path, fill):
    """Its name and format are the same, and it contains some of the clips."""
    root = fill(tmp_path / "h", f"catch/{clip('film1', 'catch')}.avi")
    assert set(jhmdb.CLASSES) <= set(CLASSES)
    write_list(root, "catch", {name: 1 + (n > 30) for n, name in enumerate(list(make_clips("catch"))[:45])})
    with raises(ManifestError, "J-HMDB", path="catch_test_split1.txt"):
        prepare_hmdb51(root, tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("line", "word", "facts"),
    [
        (
            "new_run_f_cm_np1_fr_med_0.avi 3",
            "new_run_",
            {"path": "run_test_split1.txt", "line": 103, "field": "split"},
        ),
        ("new_run_f_cm_np1_fr_med_0.avi", "", {"path": "run_test_split1.txt", "line": 103, "field": "split"}),
        (
            "new_sit_f_cm_np1_fr_med_0.avi 1",
            "",
            {"path": "run_test_split1.txt", "line": 103, "field": "label"},
        ),
        ("UCF-101/v_Archery_g01_c01.avi 1", "", {"path": "run_test_split1.txt", "line": 103, "field": "label"}),
        ("film3_run_f_cm_np1_fr_med_0.avi 2", "", {"path": "run_test_split1.txt"}),
        (
            "new_run_f_cm_np1_fr_med_0.avi 1",
            "HMDB-51",
            {"path": "run_test_split1.txt"},
        ),
    ],
)
def test_an_invalid_list_is_refused(raises, tmp_path, line, word, facts):
    path = write_list(tmp_path, "run", make_clips("run"))
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")
    with raises(ManifestError, word, **facts):
        read_list(path, "run")


def test_a_clip_in_two_lists_or_in_another_folder_is_refused(raises, tmp_path, fill):
    root = fill(tmp_path / "h", f"sit/{clip('film1', 'run')}.avi")
    write_list(root, "run", make_clips("run"))
    with raises(ManifestError, "film1_run_", path="run_test_split1.txt", line=8, field="label"):
        prepare_hmdb51(root, tmp_path / "m.csv")
    (root / "run_test_split1.txt").unlink()
    twice = clip("film1_draw", "sword")  # also a clip of draw_sword, by its name
    write_list(root, "sword", {twice: 1, **dict(list(make_clips("sword").items())[1:])})
    write_list(root, "draw_sword", make_clips("draw_sword"))
    with raises(ManifestError, "film1_draw_sword_", path="sword_test_split1.txt", line=1):
        prepare_hmdb51(root, tmp_path / "m.csv")


def test_a_wrong_folder_is_refused(raises, tmp_path, fill):
    out = tmp_path / "m.csv"
    with raises(ManifestError, path="gone", field="root"):
        prepare_hmdb51(tmp_path / "gone", out)
    root = fill(tmp_path / "h", "run/1.avi")
    with raises(ManifestError, "brush_hair_test_split1.txt", path="h"):
        prepare_hmdb51(root, out)
    write_list(root, "run", make_clips("run"))
    with raises(ManifestError, "brush_hair_test_split2.txt", path="h"):
        prepare_hmdb51(root, out, 2)
    with raises(ConfigError, "0", field="split"):
        prepare_hmdb51(root, out, 0)
    (root / "run_test_split1.txt").rename(root / "fly_test_split1.txt")
    with raises(ManifestError, "'fly'", path="fly_test_split1.txt", field="label"):
        prepare_hmdb51(root, out)
    assert not out.exists()


@pytest.fixture(scope="module")
def real(real_data):
    return real_data / "annotations" / "hmdb51_splits"


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_real_lists_have_the_official_counts(real, split):
    assert sorted(path.name for path in real.glob(f"*_test_split{split}.txt")) == sorted(
        f"{action}_test_split{split}.txt" for action in CLASSES
    )
    clips = [clip for action in CLASSES for clip in read_list(real / f"{action}_test_split{split}.txt", action)]
    assert Counter(clip.entry.split for clip in clips) == {"train": 3_570, "test": 1_530, "": 1_666}
    assert len({clip.name for clip in clips}) == 6_766
    films = {}
    for found in clips:
        if found.entry.split:
            films.setdefault((found.entry.group, found.entry.labels["label"]), set()).add(found.entry.split)
    assert all(len(sides) == 1 for sides in films.values())
    across = {}
    for (film, _), sides in films.items():
        across.setdefault(film, set()).update(sides)
    assert sum(len(sides) > 1 for sides in across.values()) == {1: 133, 2: 149, 3: 144}[split]


@pytest.fixture
def download(tmp_path, real_data, real):
    """Real clips in the folders of the official download, with all 153 lists."""
    root = tmp_path / "hmdb"
    for path in (real_data / "format_samples" / "torchvision_0.14.1").glob("*_np*.avi"):
        name = path.name.removeprefix("hmdb51_")
        action = "cartwheel" if "cartwheel" in name else "wave"
        (root / "hmdb51_org" / action).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "hmdb51_org" / action / name)
    (root / "testTrainMulti_7030_splits").symlink_to(real)
    return root


def test_the_real_clips_become_a_manifest_with_decoded_frames(tmp_path, download, match_notes):
    """Headers announce one frame too many, one file has metadata that is not UTF-8, and one is unused in split 1."""
    prepared = prepare_hmdb51(download, tmp_path / "m.csv")
    assert prepared.unreadable == ()
    assert [(Path(e.rgb).name, e.frames, e.split, e.group) for e in prepared.manifest.entries] == [
        ("Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi", 83, "train", "Turnk_r_Pippi_Michel"),
        ("RATRACE_wave_f_nm_np1_fr_goo_37.avi", 72, "train", "RATRACE"),
        ("TrumanShow_wave_f_nm_np1_fr_med_26.avi", 48, "test", "TrumanShow"),
    ]
    for entry in prepared.manifest.entries:
        path = prepared.manifest.locate(entry.rgb)
        assert len(read_rgb(path, [entry.frames - 1])) == 1
    assert match_notes(prepared.notes[:1], "1666 split 1")
    second = prepare_hmdb51(download, tmp_path / "m.csv", 2).manifest
    assert second.version == "split 2, train 3570, test 1530"
    assert [e.split for e in second.entries] != [e.split for e in prepared.manifest.entries]


def test_download_to_first_training_step(tmp_path, download, real, fill, capsys, monkeypatch, train_one_step):
    chosen = [c for action in ("run", "sit") for c in read_list(real / f"{action}_test_split1.txt", action)]
    chosen = [
        *[c for c in chosen if c.entry.split == "train"][::20],
        *[c for c in chosen if c.entry.split == "test"][::20],
    ]
    fill(download, *(f"hmdb51_org/{c.entry.rgb}.avi" for c in chosen))
    monkeypatch.chdir(tmp_path)
    main(["prepare", "hmdb51", "--root", "hmdb", "--split", "1", "--out", "hmdb51_1.csv"])
    assert "47 of 51 classes have no sample on disk" in capsys.readouterr().err
    counts = Counter(entry.split for entry in load_manifest("hmdb51_1.csv").entries)
    assert counts == {"train": 9, "test": 4}
    train_one_step("hmdb51_1.csv", counts)

"""J-HMDB: undivided films, official lists, and the real clips."""

import csv
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from kinema.datasets.hmdb51 import parse_film, read_clips
from kinema.datasets.jhmdb import SPLITS, prepare
from kinema.datasets.options import DatasetOptions
from kinema.datasets.skeleton import read_listing
from kinema.errors import ManifestError


def prepare_jhmdb(root, out):
    return prepare(DatasetOptions(root=root, out=out))


CLIPS = [
    f"{action}/{name}_{action}_u_cm_np1_fr_med_{n}.avi"
    for action in ("catch", "pick")
    for name in ("Some.Film_(1999)", "other@film!", "third")
    for n in range(2)
]


def lists(folder, sides, action="catch"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{Path(clip).name} {side} " for clip, side in sides.items() if clip.startswith(action)]
    (folder / f"{action}_test_split1.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("inside", ["", "videos/", "ReCompress_Videos/"])
def test_without_a_list_a_fifth_is_held_out_by_films(tmp_path, fill, inside):
    root = fill(tmp_path / "j", *(f"{inside}{clip}" for clip in CLIPS))
    prepared = prepare_jhmdb(root, tmp_path / "m.csv")
    manifest = prepared.manifest
    assert manifest.heads == {"label": 21}
    assert {entry.group for entry in manifest.entries} == {"Some.Film_(1999)", "other@film!", "third"}
    sides = {}
    for entry in manifest.entries:
        sides.setdefault(entry.group, set()).add(entry.split)
    assert sorted(map(sorted, sides.values())) == [["train"], ["train"], ["val"]]


def test_a_folder_of_images_is_a_clip(tmp_path, fill_pictures):
    root = fill_pictures(tmp_path / "j", *(f"Rename_Images/{clip[:-4]}" for clip in CLIPS))
    manifest = prepare_jhmdb(root, tmp_path / "m.csv").manifest
    assert len(manifest.entries) == 12
    assert {entry.frames for entry in manifest.entries} == {3}
    assert {entry.group for entry in manifest.entries} == {"Some.Film_(1999)", "other@film!", "third"}


def test_videos_and_images_are_not_mixed(tmp_path, fill, fill_pictures):
    root = fill(tmp_path / "j", *(f"ReCompress_Videos/{clip}" for clip in CLIPS))
    fill_pictures(root, *(f"Rename_Images/{clip[:-4]}" for clip in CLIPS))
    prepared = prepare_jhmdb(root, tmp_path / "m.csv")
    assert len(prepared.manifest.entries) == 12
    assert any(note.startswith(f"12 files in {root / 'Rename_Images'} were ignored") for note in prepared.notes)


@pytest.mark.parametrize("folder", [".", "splits"])
def test_the_official_lists_are_the_split(tmp_path, fill, folder):
    root = fill(tmp_path / "j", *CLIPS)
    sides = {clip: 1 + ("third" in clip) for clip in CLIPS if "other" not in clip}
    sides["catch/gone_catch_u_cm_np1_fr_med_0.avi"] = 2
    for action in ("catch", "pick"):
        lists(root / folder, sides, action)
    prepared = prepare_jhmdb(root, tmp_path / "m.csv")
    splits = {Path(entry.rgb).name: entry.split for entry in prepared.manifest.entries}
    assert splits == {
        Path(clip).name: ("train", "test")[side - 1] for clip, side in sides.items() if "gone" not in clip
    }
    assert prepared.manifest.declared == {"train": 4, "test": 5}
    assert prepared.notes[1].startswith("1 samples of the 2 lists are not on disk and are omitted; coverage")
    assert prepared.notes[2].startswith(
        "4 files on disk are not in the 2 lists and are omitted: catch/other@film!_catch"
    )


@pytest.mark.parametrize(
    ("text", "word", "facts"),
    [
        ("x_catch.avi 3", "x_catch.avi 3", {"path": "catch_test_split1.txt", "line": 1, "field": "split"}),
        ("x_catch.avi", "", {"path": "catch_test_split1.txt", "line": 1, "field": "split"}),
        ("x_catch.avi 1\n\nx_catch.avi 2", "x_catch", {"path": "catch_test_split1.txt", "line": 3}),
    ],
)
def test_a_malformed_list_is_refused(raises, tmp_path, text, word, facts):
    (tmp_path / "catch_test_split1.txt").write_text(text)
    with raises(ManifestError, word, **facts):
        read_listing(
            {"catch": tmp_path / "catch_test_split1.txt"}, lambda path, action: read_clips(path, action, SPLITS)
        )


def test_a_list_of_another_action_is_refused(raises, tmp_path, fill):
    root = fill(tmp_path / "j", *CLIPS)
    lists(root, {"catch/third_pick_u_cm_np1_fr_med_0.avi": 1})
    with raises(ManifestError, "third_pick_", path="catch_test_split1.txt", line=1, field="label"):
        prepare_jhmdb(root, tmp_path / "m.csv")
    (root / "catch_test_split1.txt").rename(root / "fly_test_split1.txt")
    with raises(ManifestError, "21", path="fly_test_split1.txt", field="label"):
        prepare_jhmdb(root, tmp_path / "m.csv")


def test_a_folder_without_clips_is_refused(raises, tmp_path, fill):
    root = fill(tmp_path / "j", "fly/1.mp4")
    with raises(ManifestError, "videos/brush_hair", path="j"):
        prepare_jhmdb(root, tmp_path / "m.csv")
    with raises(ManifestError, path="gone", field="root"):
        prepare_jhmdb(tmp_path / "gone", tmp_path / "m.csv")


@pytest.fixture(scope="module")
def real(real_data):
    with (real_data / "jhmdb" / "annotations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_real_clips_become_a_manifest(tmp_path, real_data, real, monkeypatch):
    """465 training and 173 validation clips; their frames are counted in a test marked long."""
    root = real_data / "jhmdb"
    frames = {row["path"]: int(row["frames"]) for row in real}
    monkeypatch.setattr(
        "kinema.datasets.prepared.open_source",
        lambda path, **_: nullcontext(
            SimpleNamespace(
                num_frames=frames[Path(path).relative_to(root.resolve()).as_posix()], remarks=(), timeline=None
            )
        ),
    )
    prepared = prepare_jhmdb(root, tmp_path / "m.csv")
    manifest = prepared.manifest
    assert manifest.declared == {"train": 465, "val": 173}
    assert manifest.heads == {"label": 21}
    assert [manifest.targets(i)["label"] for i in range(638)] == [int(row["label_id"]) for row in real]
    assert [entry.frames for entry in manifest.entries] == list(frames.values())
    assert (prepared.unreadable, prepared.notes) == ((), ())
    sides = {split: {e.group for e in manifest.entries if e.split == split} for split in ("train", "val")}
    assert not sides["train"] & sides["val"]


def test_the_films_of_the_real_clips_are_in_their_names(real):
    assert len(real) == 638
    assert [parse_film(Path(row["path"]).stem, row["label"]) for row in real] == [row["source_video"] for row in real]


@pytest.mark.parametrize("action", ["brush_hair", "wave"])
def test_a_real_official_list_is_split_70_to_30(tmp_path, real_data, action):
    """HMDB-51's lists have the same format, with a third number for unused clips."""
    text = (real_data / "annotations" / "hmdb51_splits" / f"{action}_test_split1.txt").read_text()
    used = [line for line in text.splitlines() if not line.strip().endswith(" 0")]
    (tmp_path / f"{action}_test_split1.txt").write_text("\n".join(used))
    sides = [clip.entry.split for clip in read_clips(tmp_path / f"{action}_test_split1.txt", action, SPLITS)]
    assert (sides.count("train"), sides.count("test")) == (70, 30)


@pytest.mark.long
def test_the_real_clips_have_the_frames_of_their_table(tmp_path, real_data):
    prepared = prepare_jhmdb(real_data / "jhmdb", tmp_path / "m.csv")
    assert (prepared.unreadable, prepared.notes) == ((), ())

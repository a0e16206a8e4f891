"""A user's own videos, in folders or in a table, as they lie on a disk."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import pytest

from kinema.data.corpora.folder import prepare_folder, prepare_table
from kinema.data.decode import UnreadableVideo
from kinema.data.manifest import ManifestError, load_manifest


@pytest.fixture(scope="module")
def short(tmp_path_factory, write_video, stamp):
    """A video of nine frames."""
    return write_video(tmp_path_factory.mktemp("short") / "short.mp4", [stamp(n) for n in range(9)])


@pytest.fixture
def fill(short):
    def fill(root, *names):
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(short, path)
        return root

    return fill


def test_a_folder_of_class_folders_becomes_a_manifest(tmp_path, fill):
    root = fill(
        tmp_path / "my videos",
        *(f"jumping jack/{n}.mp4" for n in range(10)),
        *(f"wave, twice/{n}.MP4" for n in range(5)),
        "wave, twice/deeper/it's (1).avi",
    )
    prepared = prepare_folder(root, tmp_path / "out" / "mine.csv")
    manifest = prepared.manifest
    assert manifest.path == tmp_path / "out" / "mine.csv"
    assert manifest.classes == {"label": ("jumping jack", "wave, twice")}
    assert manifest.corpus == "my videos"
    assert prepared.unreadable == ()
    assert {entry.frames for entry in manifest.entries} == {9}
    assert Counter(entry.labels["label"] for entry in manifest.entries) == {"jumping jack": 10, "wave, twice": 6}
    for entry in manifest.entries:
        path = Path(manifest.locate(entry.rgb))
        assert path.is_file()
        assert path.relative_to(root).parts[0] == entry.labels["label"]
    assert manifest.declared == {"train": 13, "val": 3}
    assert prepared.notes == ("no split was given: 13 samples are train and 3 val, groups kept together",)


def test_the_same_videos_give_the_same_manifest(tmp_path, fill):
    root = fill(tmp_path / "v", *(f"{label}/{n}.mp4" for n in range(6) for label in "ab"))
    first, second = (prepare_folder(root, tmp_path / f"{n}.csv").manifest for n in (1, 2))
    assert first.digest == second.digest


def test_the_folder_can_be_moved_together_with_its_manifest(tmp_path, fill):
    root = fill(tmp_path / "before", "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4")
    prepare_folder(root, root / "m.csv")
    shutil.move(root, tmp_path / "after")
    moved = load_manifest(tmp_path / "after" / "m.csv")
    assert all(Path(moved.locate(entry.rgb)).is_file() for entry in moved.entries)


@pytest.mark.parametrize(
    ("folders", "names"),
    [(("train", "val"), ["train", "val"]), (("Training", "Validation", "TEST"), ["test", "train", "val"])],
    ids=str,
)
def test_split_folders_are_the_split(tmp_path, fill, folders, names):
    root = fill(tmp_path / "v", *(f"{split}/{label}/{n}.mp4" for split in folders for label in "ab" for n in range(2)))
    prepared = prepare_folder(root, tmp_path / "m.csv")
    assert sorted(prepared.manifest.declared) == names
    assert set(prepared.manifest.declared.values()) == {4}
    assert prepared.manifest.classes == {"label": ("a", "b")}
    assert prepared.notes == ()


def test_a_folder_without_videos_beside_the_splits_is_no_class(tmp_path, fill):
    root = fill(tmp_path / "v", *(f"{split}/{label}/1.mp4" for split in ("train", "test") for label in "ab"))
    (root / "annotations").mkdir()
    (root / "annotations" / "classes.txt").write_text("a b")
    prepared = prepare_folder(root, tmp_path / "m.csv")
    assert prepared.manifest.classes == {"label": ("a", "b")}
    assert prepared.manifest.declared == {"train": 2, "test": 2}


def test_videos_beside_the_splits_are_never_taken_for_a_class(tmp_path, fill):
    root = fill(tmp_path / "v", "train/a/1.mp4", "train/b/1.mp4", "val/a/2.mp4", "extra/a/3.mp4")
    with pytest.raises(ManifestError, match="'train' and 'val' name splits, but 'extra' beside them holds videos too"):
        prepare_folder(root, tmp_path / "m.csv")


def test_a_space_at_the_end_of_a_folders_name_is_no_part_of_the_class(tmp_path, fill):
    root = fill(tmp_path / "v", "a /1.mp4", "a /2.mp4", "b/1.mp4", "b/2.mp4")
    manifest = prepare_folder(root, tmp_path / "m.csv").manifest
    assert manifest.classes == {"label": ("a", "b")}
    assert all(Path(manifest.locate(entry.rgb)).is_file() for entry in manifest.entries)


def test_hidden_files_are_not_there_and_other_files_are_counted(tmp_path, fill):
    root = fill(tmp_path / "v", "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4", "a/._1.mp4", ".cache/1.mp4", "b/notes.txt")
    (root / "a" / "poster.jpg").write_bytes(b"")
    (root / "a" / ".DS_Store").write_bytes(b"")
    (root / "b" / "folder.mp4").mkdir()
    prepared = prepare_folder(root, tmp_path / "m.csv")
    assert len(prepared.manifest.entries) == 4
    assert prepared.notes[0] == "2 files are no videos by their name and were left out"


def test_an_unreadable_file_keeps_its_line_and_is_listed(tmp_path, fill):
    root = fill(tmp_path / "v", "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4")
    (root / "b" / "3.mp4").write_text("no video")
    prepared = prepare_folder(root, tmp_path / "m.csv")
    assert {Path(e.rgb).as_posix(): e.frames for e in prepared.manifest.entries} == {
        "v/a/1.mp4": 9,
        "v/a/2.mp4": 9,
        "v/b/1.mp4": 9,
        "v/b/2.mp4": 9,
        "v/b/3.mp4": None,
    }
    assert len(prepared.unreadable) == 1
    assert "v/b/3.mp4: is not a video that can be read" in prepared.unreadable[0]


def test_what_is_no_folder_of_videos_is_refused(tmp_path, fill):
    with pytest.raises(ManifestError, match="gone: no such folder; give the one that holds a folder for each class"):
        prepare_folder(tmp_path / "gone", tmp_path / "m.csv")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(ManifestError, match=r"empty: no video in any class folder; looked for CLASS/NAME with .*\.mp4"):
        prepare_folder(tmp_path / "empty", tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="'label' has one class, 'a'; recognising needs at least two"):
        prepare_folder(fill(tmp_path / "v", "a/1.mp4", "a/2.mp4"), tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


@pytest.fixture
def table(tmp_path, fill):
    """Twelve videos of four people, with columns of other names than a manifest's."""
    fill(tmp_path / "in" / "videos", *(f"{n} x.mp4" for n in range(12)))
    path = tmp_path / "in" / "table.csv"
    lines = [f'"videos/{n} x.mp4",{"walk" if n % 2 else "run"},p{n // 3},4.5' for n in range(12)]
    path.write_text("\n".join(["clip,action,person,score", *lines]) + "\n")
    return path


COLUMNS = {"rgb": "clip", "label": "action", "subject": "person"}


def test_a_table_with_columns_of_other_names_becomes_a_manifest(tmp_path, table):
    prepared = prepare_table(table, tmp_path / "out" / "m.csv", columns=COLUMNS)
    manifest = prepared.manifest
    assert manifest.classes == {"label": ("run", "walk")}
    assert [entry.labels["label"] for entry in manifest.entries] == ["run", "walk"] * 6
    assert [entry.subject for entry in manifest.entries] == [f"p{n // 3}" for n in range(12)]
    assert all(Path(manifest.locate(entry.rgb)).is_file() for entry in manifest.entries)
    assert manifest.entries[0].rgb == "../in/videos/0 x.mp4"
    assert prepared.notes[0] == "columns not used: score"
    held = {entry.subject for entry in manifest.entries if entry.split == "val"}
    assert held
    assert not held & {entry.subject for entry in manifest.entries if entry.split == "train"}


def test_a_split_that_the_table_says_stands(tmp_path, table):
    text = table.read_text().splitlines()
    splits = ["split", *(["train"] * 8), *(["test"] * 4)]
    table.write_text("\n".join(f"{line},{split}" for line, split in zip(text, splits, strict=True)))
    prepared = prepare_table(table, tmp_path / "m.csv", columns=COLUMNS)
    assert [entry.split for entry in prepared.manifest.entries] == splits[1:]
    assert prepared.notes == ("columns not used: score",)


def test_a_count_that_the_table_says_is_corrected_and_counted(tmp_path, table):
    text = table.read_text().splitlines()
    table.write_text("\n".join(f"{line},{'frames' if not n else 9 + (n < 4)}" for n, line in enumerate(text)))
    prepared = prepare_table(table, tmp_path / "m.csv", columns=COLUMNS)
    assert {entry.frames for entry in prepared.manifest.entries} == {9}
    assert "3 lines announced another number of frames than decodes; the latter stands" in prepared.notes


def test_a_table_is_not_written_over(tmp_path, table):
    before = table.read_bytes()
    with pytest.raises(ManifestError, match=r"table\.csv: is the table itself, and would be written over"):
        prepare_table(table, tmp_path / "in" / ".." / "in" / "table.csv", columns=COLUMNS)
    assert table.read_bytes() == before


def test_a_segment_that_ends_behind_its_file_is_refused_by_name(tmp_path, fill):
    fill(tmp_path, "1.mp4", "2.mp4")
    table = tmp_path / "t.csv"
    table.write_text("rgb,start_frame,stop_frame,label\n1.mp4,0,9,a\n2.mp4,0,10,b\n")
    with pytest.raises(ManifestError, match=r"2\.mp4: stop_frame=10 lies behind the file's 9 frames"):
        prepare_table(table, tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "no column 'rgb' or 'depth'; say which holds the paths: --columns rgb=NAME"),
        ({"rgb": "clip"}, "no column 'label'; say which holds the classes: --columns label=NAME"),
        ({"rgb": "clips", "label": "action"}, "has no column 'clips'; its columns are clip, action, person, score"),
        ({"rbg": "clip", "label": "action"}, "a manifest has no column 'rbg'; did you mean 'rgb'"),
    ],
    ids=str,
)
def test_columns_that_do_not_fit_are_refused_by_name(tmp_path, table, columns, message):
    with pytest.raises(ManifestError, match=message):
        prepare_table(table, tmp_path / "m.csv", columns=columns)


def test_a_wrong_line_of_a_table_is_named(tmp_path, table):
    table.write_text(table.read_text() + '"videos/0 x.mp4",,p9,1\n')
    with pytest.raises(ManifestError, match=r"table\.csv, line 14: label is empty"):
        prepare_table(table, tmp_path / "m.csv", columns=COLUMNS)
    with pytest.raises(ManifestError, match=r"gone\.csv: no such table"):
        prepare_table(tmp_path / "gone.csv", tmp_path / "m.csv")


def test_the_real_jhmdb_becomes_a_manifest(tmp_path, real_data, monkeypatch):
    """465 clips to train on and 173 to ask about, of 21 actions; counting their frames is another test's matter."""
    with (real_data / "jhmdb" / "annotations.csv").open(newline="") as file:
        frames = {line["path"]: int(line["frames"]) for line in csv.DictReader(file)}
    root = real_data / "jhmdb"

    def announced(path):
        if not Path(path).is_file():
            raise UnreadableVideo(f"{path}: no such file")
        return frames[Path(path).relative_to(root.resolve()).as_posix()]

    monkeypatch.setattr("kinema.data.corpora.folder.count_frames", announced)
    prepared = prepare_table(
        root / "annotations.csv", tmp_path / "m.csv", columns={"rgb": "path", "group": "source_video"}
    )
    manifest = prepared.manifest
    assert manifest.declared == {"train": 465, "val": 173}
    assert manifest.heads == {"label": 21}
    assert prepared.unreadable == ()
    assert prepared.notes == ("columns not used: fps, label_id",)
    assert [entry.frames for entry in manifest.entries] == list(frames.values())
    sides = {split: {e.group for e in manifest.entries if e.split == split} for split in ("train", "val")}
    assert not sides["train"] & sides["val"]


@pytest.mark.long
def test_the_real_jhmdb_has_the_frames_that_it_says(tmp_path, real_data):
    prepared = prepare_table(
        real_data / "jhmdb" / "annotations.csv", tmp_path / "m.csv", columns={"rgb": "path", "group": "source_video"}
    )
    assert prepared.unreadable == ()
    assert prepared.notes == ("columns not used: fps, label_id",)

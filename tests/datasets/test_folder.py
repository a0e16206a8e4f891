"""A user's own videos in class folders."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from kinema.data.manifest import load_manifest
from kinema.datasets.folder import FolderOptions, prepare
from kinema.errors import ManifestError
from kinema.modality import DepthFacts


def prepare_folder(root, out, **options):
    return prepare(FolderOptions(root=root, out=out, **options))


def test_a_folder_of_class_folders_becomes_a_manifest(tmp_path, fill, match_notes):
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
    assert manifest.dataset == "my videos"
    assert prepared.unreadable == ()
    assert {entry.frames for entry in manifest.entries} == {9}
    assert Counter(entry.labels["label"] for entry in manifest.entries) == {"jumping jack": 10, "wave, twice": 6}
    for entry in manifest.entries:
        path = Path(manifest.locate(entry.rgb))
        assert path.is_file()
        assert path.relative_to(root).parts[0] == entry.labels["label"]
    assert manifest.declared == {"train": 10, "val": 3, "test": 3}
    assert match_notes(prepared.notes, "10 train 3 val 3 test groups both splits --group")
    assert manifest.ungrouped == 16
    assert "classes: jumping jack, wave, twice" in prepared.summary


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


def test_a_folder_without_videos_is_not_a_class(tmp_path, fill):
    root = fill(tmp_path / "v", *(f"{split}/{label}/1.mp4" for split in ("train", "test") for label in "ab"))
    (root / "annotations").mkdir()
    (root / "annotations" / "classes.txt").write_text("a b")
    prepared = prepare_folder(root, tmp_path / "m.csv")
    assert prepared.manifest.classes == {"label": ("a", "b")}
    assert prepared.manifest.declared == {"train": 2, "test": 2}


def test_videos_beside_split_folders_are_refused(raises, tmp_path, fill):
    root = fill(tmp_path / "v", "train/a/1.mp4", "train/b/1.mp4", "val/a/2.mp4", "extra/a/3.mp4")
    with raises(ManifestError, path="extra", field="split"):
        prepare_folder(root, tmp_path / "m.csv")


def test_trailing_spaces_of_a_folder_are_not_part_of_the_class(tmp_path, fill):
    root = fill(tmp_path / "v", "a /1.mp4", "a /2.mp4", "b/1.mp4", "b/2.mp4")
    manifest = prepare_folder(root, tmp_path / "m.csv").manifest
    assert manifest.classes == {"label": ("a", "b")}
    assert all(Path(manifest.locate(entry.rgb)).is_file() for entry in manifest.entries)


def test_hidden_files_are_ignored_and_other_files_are_counted(tmp_path, fill, match_notes):
    root = fill(tmp_path / "v", "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4", "a/._1.mp4", ".cache/1.mp4", "b/notes.txt")
    (root / "a" / "poster.jpg").write_bytes(b"")
    (root / "a" / ".DS_Store").write_bytes(b"")
    (root / "b" / "folder.mp4").mkdir()
    prepared = prepare_folder(root, tmp_path / "m.csv")
    assert len(prepared.manifest.entries) == 4
    assert match_notes(prepared.notes[:1], "2 files unknown type")


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
    assert "v/b/3.mp4: not a readable video" in prepared.unreadable[0]


def test_a_folder_without_classes_is_refused(raises, tmp_path, fill):
    with raises(ManifestError, path="gone", field="root"):
        prepare_folder(tmp_path / "gone", tmp_path / "m.csv")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with raises(ManifestError, "CLASS/NAME", path="empty"):
        prepare_folder(tmp_path / "empty", tmp_path / "m.csv")
    with raises(ManifestError, path="m.csv", field="label"):
        prepare_folder(fill(tmp_path / "v", "a/1.mp4", "a/2.mp4"), tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_the_split_does_not_depend_on_the_location_of_videos_and_manifest(tmp_path, fill):
    root = fill(tmp_path / "v", *(f"{label}/{n}.mp4" for n in range(20) for label in "ab"))
    moved = tmp_path / "another place" / "w"
    shutil.copytree(root, moved)

    def split(root, out):
        manifest = prepare_folder(root, out).manifest
        return {Path(manifest.locate(e.rgb)).relative_to(root.resolve()): e.split for e in manifest.entries}

    splits = [split(root, tmp_path / out) for out in ("m.csv", "v/m.csv", "far/off/m.csv")]
    assert splits[0] == splits[1] == splits[2] == split(moved, tmp_path / "m.csv")


def test_a_test_split_can_be_held_out_beside_the_validation_split(tmp_path, fill, match_notes):
    root = fill(tmp_path / "v", *(f"{label}/{n}.mp4" for n in range(10) for label in "ab"))
    prepared = prepare_folder(root, tmp_path / "m.csv", val_share=0.3, test_share=0.4)
    assert prepared.manifest.declared == {"train": 6, "val": 6, "test": 8}
    assert match_notes(prepared.notes, "6 train 6 val 8 test groups")


def test_unused_shares_are_noted(tmp_path, fill, match_notes):
    root = fill(tmp_path / "v", *(f"{split}/{label}/1.mp4" for split in ("train", "test") for label in "ab"))
    prepared = prepare_folder(root, tmp_path / "m.csv", val_share=0.3)
    assert match_notes(prepared.notes, "val_share test_share keep_together not")


def test_a_class_of_videos_with_another_suffix_is_kept(raises, tmp_path, fill):
    root = fill(tmp_path / "v", "a/1.mp4", "a/2.mp4", "b/00001.MTS", "b/00002.MTS", "c/1", "c/2.video")
    prepared = prepare_folder(root, tmp_path / "m.csv")
    assert prepared.manifest.classes == {"label": ("a", "b", "c")}
    assert {entry.frames for entry in prepared.manifest.entries} == {9}
    with raises(ManifestError, "'b'", path="00001.MTS", field="label"):
        prepare_folder(root, tmp_path / "n.csv", rgb="{label}/{name}")


def test_a_class_that_loses_all_its_files_is_refused(raises, tmp_path, fill):
    root = fill(tmp_path / "v", "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4")
    (root / "c").mkdir()
    for name in ("1.MTS", "2.MTS", "3.MTS", "4.MTS"):
        (root / "c" / name).write_bytes(bytes(5000))
    with raises(ManifestError, "'c'", "1.MTS, 2.MTS, 3.MTS and 1 more", path="c", field="label"):
        prepare_folder(root, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_empty_folders_are_noted_and_documents_are_no_class(tmp_path, fill, match_notes):
    root = fill(tmp_path / "v", "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4")
    (root / "docs").mkdir()
    (root / "docs" / "README").write_text("Two classes.")
    (root / "jump").mkdir()
    prepared = prepare_folder(root, tmp_path / "m.csv")
    assert prepared.manifest.classes == {"label": ("a", "b")}
    assert match_notes(prepared.notes[:2], "1 files unknown type", "1 folders no video jump")


def test_folders_of_images_are_clips(tmp_path, fill_pictures, match_notes):
    root = fill_pictures(tmp_path / "v", *(f"{label}/clip {n}" for label in "ab" for n in range(3)), suffix=".jpg")
    (root / "a" / "clip 0" / "notes.txt").write_text("")
    prepared = prepare_folder(root, tmp_path / "m.csv")
    entries = prepared.manifest.entries
    assert [(entry.rgb, entry.depth, entry.frames) for entry in entries] == [
        (f"v/{label}/clip {n}", "", 3) for label in "ab" for n in range(3)
    ]
    assert match_notes(prepared.notes[:2], "1 files unknown type", "6 folders RGB")


def test_images_directly_in_a_class_folder_are_not_a_clip(raises, tmp_path, fill_pictures):
    root = fill_pictures(tmp_path / "v", "a", "b")
    with raises(ManifestError, "CLASS/NAME/", path="v"):
        prepare_folder(root, tmp_path / "m.csv")


def test_a_folder_with_a_single_image_is_not_a_clip(tmp_path, fill_pictures, match_notes):
    root = fill_pictures(tmp_path / "v", "a/1", "a/2", "b/1", "b/2")
    fill_pictures(root, "a/3", count=1)
    prepared = prepare_folder(root, tmp_path / "m.csv")
    assert len(prepared.manifest.entries) == 4
    assert match_notes(prepared.notes[:1], "1 files unknown type")


def test_16_bit_images_are_depth(tmp_path, fill_pictures, match_notes):
    root = fill_pictures(tmp_path / "v", "a/1", "a/2", "b/1", "b/2", kind="depth")
    prepared = prepare_folder(root, tmp_path / "m.csv", depth_unit=1, depth_range=(500, 1100))
    assert {entry.rgb for entry in prepared.manifest.entries} == {""}
    assert prepared.manifest.entries[0].depth == "v/a/1"
    assert prepared.manifest.depth == DepthFacts(unit_mm=1, near=500, far=1100, coverage="full")
    assert match_notes(prepared.notes[:1], "4 folders depth")


@pytest.mark.parametrize("kind", ["rgb", "depth"])
def test_arrays_are_rgb_or_depth_by_their_channels(tmp_path, fill_arrays, kind, match_notes):
    root = fill_arrays(tmp_path / "v", "a/1.npz", "a/2.npz", "b/1.npz", "b/2.npz", kind=kind)
    (root / "b" / "3.npz").write_text("no array")
    prepared = prepare_folder(root, tmp_path / "m.csv")
    assert [entry.source(kind) for entry in prepared.manifest.entries] == [
        f"v/{name}.npz" for name in ("a/1", "a/2", "b/1", "b/2", "b/3")
    ]
    assert [entry.frames for entry in prepared.manifest.entries] == [5, 5, 5, 5, None]
    assert match_notes(prepared.notes[:1], f"5 arrays {'RGB' if kind == 'rgb' else 'depth'}")
    assert len(prepared.unreadable) == 1


def test_16_bit_depth_without_a_range_is_noted_with_its_values(tmp_path, fill_pictures):
    root = fill_pictures(tmp_path / "v", "a/1", "a/2", "b/1", "b/2", kind="depth")
    notes = prepare_folder(root, tmp_path / "m.csv").notes
    assert "--depth-range" in notes[-1]
    assert notes[-1].endswith("v/a/1 has values from 500 to 500")


def test_a_range_without_depth_is_refused(raises, tmp_path, fill):
    root = fill(tmp_path / "v", "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4")
    with raises(ManifestError, path="m.csv", field="depth_range"):
        prepare_folder(root, tmp_path / "m.csv", depth_range=(1, 2))


def test_several_kinds_of_files_are_refused(raises, tmp_path, fill, fill_arrays, fill_pictures):
    root = fill_arrays(fill(tmp_path / "v", "a/1.mp4", "b/1.mp4"), "a/1.npz", "b/1.npz")
    with raises(ManifestError, "TEMPLATE", path="v"):
        prepare_folder(root, tmp_path / "m.csv")
    root = fill_pictures(fill(tmp_path / "w", "a/1.mp4", "b/1.mp4"), "a/thumbs")
    with raises(ManifestError, "a/1.mp4", path="w"):
        prepare_folder(root, tmp_path / "m.csv")
    root = fill_pictures(fill_pictures(tmp_path / "x", "a/1 rgb", "b/1 rgb"), "a/1 depth", "b/1 depth", kind="depth")
    with raises(ManifestError, "a/1", path="x"):
        prepare_folder(root, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_links_are_followed_without_endless_recursion(tmp_path, fill):
    fill(tmp_path / "store", "1.mp4", "2.mp4")
    root = fill(tmp_path / "v", "b/1.mp4", "b/2.mp4")
    (root / "a").mkdir()
    (root / "a" / "linked").symlink_to(tmp_path / "store")
    (root / "a" / "linked again").symlink_to(tmp_path / "store")
    (root / "a" / "root").symlink_to(root)
    (root / "a" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    prepared = prepare_folder(root, tmp_path / "m.csv")
    assert Counter(entry.labels["label"] for entry in prepared.manifest.entries)["b"] == 2
    assert sum(entry.frames is not None for entry in prepared.manifest.entries) >= 6
    assert len(prepared.unreadable) == 1
    assert "no such file" in prepared.unreadable[0]


def test_mirrored_classes_are_noted(tmp_path, fill, match_notes):
    root = fill(tmp_path / "v", *(f"swipe {way}/{n}.mp4" for way in ("left", "right", "up") for n in range(2)))
    assert match_notes(
        prepare_folder(root, tmp_path / "m.csv").notes[-1:],
        "swipe left swipe right label mirror --data.augmentation.flip 0",
    )


def test_classes_that_mirroring_may_exchange_are_asked_about(raises, tmp_path, fill, match_notes):
    root = fill(tmp_path / "v", *(f"wave {way}/{n}.mp4" for way in ("sxa", "dxa", "up") for n in range(2)))
    asked = prepare_folder(root, tmp_path / "m.csv")
    assert asked.manifest.mirrored is None
    assert match_notes(asked.notes[-1:], "wave dxa wave sxa mirrored none")
    answered = prepare_folder(root, tmp_path / "n.csv", mirrored="wave sxa=wave dxa")
    assert answered.manifest.mirrored == (("wave sxa", "wave dxa"),)
    assert match_notes(answered.notes[-1:], "wave sxa wave dxa mirror --data.augmentation.flip 0")
    answered = prepare_folder(root, tmp_path / "n.csv", mirrored="none")
    assert answered.manifest.mirrored == ()
    assert "mirror" not in " ".join(answered.notes)
    with raises(ManifestError, "'wave dxa'", field="mirrored"):
        prepare_folder(root, tmp_path / "n.csv", mirrored="wave sxa=wave dx")


def test_classes_missing_from_the_split_are_noted(tmp_path, fill, match_notes):
    root = fill(tmp_path / "v", "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4", "rare/1.mp4")
    assert any(match_notes([note], "val 1 classes rare") for note in prepare_folder(root, tmp_path / "m.csv").notes)

"""Groups found in file names: recordings, films, people and web videos, and names that tell none."""

import time
from collections import defaultdict

import numpy as np
import pytest

from kinema.data.names import split_name
from kinema.datasets.folder import FolderOptions, prepare
from kinema.datasets.source_groups import find_groups
from kinema.errors import ManifestError

STYLES = {
    "UCF": [["v_Archery_g01_c01", "v_Archery_g01_c02"], ["v_Archery_g02_c01"]],
    "UCF of 11 classes": [["v_shooting_01_01", "v_shooting_01_02"], ["v_shooting_02_01"]],
    "HMDB": [
        ["April_09_brush_hair_u_nm_np1_ba_goo_0", "April_09_brush_hair_u_nm_np1_ba_goo_1"],
        ["50_FIRST_DATES_brush_hair_f_cm_np1_ba_med_19"],
    ],
    "Kinetics": [["-0aBcDeFgHi_000010_000020", "-0aBcDeFgHi_000030_000040"], ["zzZzz_zzzz0_000030_000040"]],
    "web videos": [["v_dQw4w9WgXcQ_10_20", "v_dQw4w9WgXcQ_30.5_40"], ["v_aQw4w9WgXcQ_10_20"]],
    "parts of a single recording": [["walk_01_part1", "walk_01_part2"]],
    "NTU": [["S001C001P003R001A001_rgb", "S009C002P003R002A001_rgb"], ["S001C001P004R001A001_rgb"]],
    "KTH": [["person01_boxing_d1", "person01_boxing_d2"], ["person02_boxing_d1"]],
    "MHAD": [["a1_s1_t1_color", "a1_s1_t2_color"], ["a1_s2_t1_color"]],
    "parts": [["walk_01_part1", "walk_01_part2"], ["walk_02_part1"]],
    "cuts": [["clip_1_cut_001", "clip_1_cut_003"], ["clip_2_cut_001"]],
    "numbers": [["rec-3 (1)", "rec-3 (2)"], ["rec-4 (1)"]],
    "letters": [["walk_01a", "walk_01b"], ["walk_02a"]],
    "seconds": [["yard_0.0s-2.5s", "yard_2.5s-5.0s"], ["street_0.0s-2.5s"]],
    "GoPro": [["GX010023", "GX020023", "GX030023"], ["GX010024"]],
    "old GoPro": [["GOPR0099", "GP010099"], ["GOPR0100"]],
    "copies": [["x", "x (1)", "x - Copy", "x - Copy (2)", "Copy of x"]],
    "variants": [["x", "x_flipped"], ["y_aug3", "y_aug4"]],
    "folders": [["monday/x", "monday/y"], ["tuesday/z", "tuesday/u"]],
    "streams": [["walk_01_part1.mkv#color", "walk_01_part2.mkv#color"], ["walk_02_part1.mkv#color"]],
}


@pytest.mark.parametrize("style", STYLES)
def test_clips_of_one_source_are_a_group(style):
    labels = {_file(name): "c" for names in STYLES[style] for name in names}
    groups, _ = find_groups(labels)
    members = defaultdict(list)
    for file, group in groups.items():
        members[group].append(file)
    assert sorted(members.values()) == sorted([_file(name) for name in names] for names in STYLES[style])


def _file(name):
    return f"c/{name}" if "#" in name else f"c/{name}.mp4"


@pytest.mark.parametrize(
    "pattern",
    [
        "archery_{:02}",
        "archery ({})",
        "{}",
        "{:05}",
        "JumpingJack_{:02}",
        "class2_{:02}",
        "take2 ({})",
        "wave_clip_{}",
        "IMG_{:04}",
        "DJI_{:04}",
        "VID_20261130_1234{:02}",
        "IMG20261130_1234{:02}",
        "2026-11-30 12-34-{:02}",
        "squat 10kg {}",
        "plank 60 sec_{}",
        "run 5k-{}",
    ],
)
def test_a_plain_numbering_is_no_group(pattern):
    assert find_groups({f"c/{pattern.format(n)}.mp4": "c" for n in range(1, 21)}) == ({}, [])


def test_weights_are_no_recordings():
    names = [f"c/squat {weight} {n}.mp4" for weight in ("10kg", "20 kg", "7.5lb") for n in range(5)]
    assert find_groups(dict.fromkeys(names, "c")) == ({}, [])


def test_groups_found_in_names_stay_together(tmp_path, fill, match_notes):
    names = [
        f"{label}/v_{label}_g{g:02}_c{c:02}.avi" for label in ("Archery", "Biking") for g in range(1, 6) for c in (1, 2)
    ]
    root = fill(tmp_path / "v", *names)
    prepared = prepare(FolderOptions(root=root, out=tmp_path / "m.csv"))
    splits = defaultdict(set)
    for entry in prepared.manifest.entries:
        splits[entry.rgb.split("_c")[0]].add(entry.split)
        assert entry.group == entry.rgb.rpartition("/")[2].split("_c")[0]
    assert all(len(names) == 1 for names in splits.values())
    assert prepared.manifest.declared == {"train": 12, "val": 4, "test": 4}
    assert match_notes(
        prepared.notes[:2], "groups UCF 10 groups 20 v_Archery_g01", "12 train 4 val 4 test groups 10 20"
    )
    assert prepared.manifest.ungrouped == 0
    alone = prepare(FolderOptions(root=root, out=tmp_path / "n.csv", keep_together="none"))
    assert {entry.group for entry in alone.manifest.entries} == {""}
    assert alone.manifest.ungrouped == 20


def test_a_class_with_a_single_group_is_named(tmp_path, fill, match_notes):
    names = [f"Archery/v_Archery_g{g:02}_c{c:02}.avi" for g in (1, 2, 3) for c in (1, 2)]
    root = fill(tmp_path / "v", *names, *(f"Biking/v_Biking_g01_c{c:02}.avi" for c in (1, 2, 3)))
    prepared = prepare(FolderOptions(root=root, out=tmp_path / "m.csv"))
    assert match_notes(prepared.notes[1:2], "1 classes single group Biking")
    assert {e.split for e in prepared.manifest.entries if e.labels["label"] == "Biking"} == {"train"}


def test_a_single_group_in_every_class_is_divided_and_said(tmp_path, fill, match_notes):
    root = fill(tmp_path / "v", *(f"{label}/S001C001P001R00{n}A00{n}.avi" for label in "ab" for n in (1, 2, 3)))
    prepared = prepare(FolderOptions(root=root, out=tmp_path / "m.csv"))
    assert match_notes(prepared.notes[:1], "single group NTU P001")
    assert prepared.manifest.declared == {"train": 4, "val": 2}


def test_found_groups_that_cross_given_splits_are_counted(tmp_path, fill, match_notes):
    names = [
        f"{'train' if c == 1 else 'val'}/{label}/v_{label}_g{g:02}_c{c:02}.avi"
        for label in "ab"
        for g in (1, 2)
        for c in (1, 2)
    ]
    prepared = prepare(FolderOptions(root=fill(tmp_path / "v", *names), out=tmp_path / "m.csv"))
    assert match_notes(prepared.notes, "4 groups 8", "4 groups more than one split v_a_g01")


def test_groups_of_the_user_are_not_changed(tmp_path, fill):
    names = [f"{label}/p{g}/v_{label}_g01_c0{g}.avi" for label in "ab" for g in (1, 2, 3)]
    options = FolderOptions(root=fill(tmp_path / "v", *names), out=tmp_path / "m.csv", rgb="{label}/{group}/{name}.avi")
    assert {entry.group for entry in prepare(options).manifest.entries} == {"p1", "p2", "p3"}


def test_near_duplicates_are_kept_together(tmp_path, write_video, match_notes):
    for number, label in enumerate("ab"):
        (tmp_path / "v" / label).mkdir(parents=True)
        for n, (name, copy) in enumerate(("xy", "zu", "vw")):
            blocks = np.random.default_rng([number, n]).integers(0, 256, (24, 6, 6, 1))
            pictures = blocks.repeat(8, 1).repeat(8, 2).repeat(3, 3).astype(np.uint8)
            write_video(tmp_path / "v" / label / f"{name}.mp4", pictures)
            write_video(tmp_path / "v" / label / f"{copy}.avi", pictures, codec="mpeg4", options={})
    prepared = prepare(FolderOptions(root=tmp_path / "v", out=tmp_path / "m.csv"))
    splits = {entry.rgb.removeprefix("v/").partition(".")[0]: entry.split for entry in prepared.manifest.entries}
    assert all(splits[f"{label}/{a}"] == splits[f"{label}/{b}"] for label in "ab" for a, b in ("xy", "zu", "vw"))
    assert prepared.manifest.declared == {"train": 8, "val": 4}
    assert match_notes(prepared.notes[:1], "12 near-duplicates a/x.mp4 a/y.avi")


def test_a_template_names_the_groups(tmp_path, fill, match_notes, raises):
    root = fill(tmp_path / "v", *(f"{label}/day {d}_{n}.mp4" for label in "ab" for d in "xy" for n in range(2)))
    prepared = prepare(FolderOptions(root=root, out=tmp_path / "m.csv", group="{group}_{clip:d}"))
    assert {entry.group for entry in prepared.manifest.entries} == {"day x", "day y"}
    assert prepared.manifest.ungrouped == 0
    alone = prepare(FolderOptions(root=root, out=tmp_path / "m.csv", group="{group}"))
    assert alone.manifest.ungrouped == 0  # every file is a recording of its own
    some = prepare(FolderOptions(root=root, out=tmp_path / "m.csv", group="{label}/day x{group}"))
    assert match_notes(some.notes, "4 files --group", "4 of 8 both splits")
    assert some.manifest.ungrouped == 4
    for wrong in ("{name}", "{group}-{n:d}", "{group"):
        with raises(ManifestError):
            prepare(FolderOptions(root=root, out=tmp_path / "m.csv", group=wrong))


@pytest.mark.parametrize("name", ["_" * 250 + "!", "1_" * 125 + "!", "a" + " (" * 125, "part1" + "_" * 245 + "x"])
def test_no_name_takes_long_to_group(name):
    start = time.process_time()
    find_groups({f"a/{name}.mp4": "a", f"a/{name}2.mp4": "a"})
    assert split_name(40 * name + "sets" * 5000) is None
    assert time.process_time() - start < 0.5

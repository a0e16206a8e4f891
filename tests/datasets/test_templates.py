"""Templates that find and pair RGB and depth by file name."""

import shutil
import time
from pathlib import Path

import pytest

from kinema.data.manifest import load_manifest
from kinema.datasets.folder import FolderOptions, prepare
from kinema.datasets.templates import parse_template
from kinema.errors import ManifestError


def prepare_templates(root, out, **options):
    return prepare(FolderOptions(root=root, out=out, **options))


RGB, DEPTH = "{label}/{name}_rgb.mp4", "{label}/{name}_depth.mkv"


def pairs(manifest):
    return {(entry.rgb, entry.depth, entry.labels["label"]) for entry in manifest.entries}


def test_rgb_and_depth_are_paired_by_shared_fields(tmp_path, fill, match_notes):
    root = fill(
        tmp_path / "v",
        *(f"{label}/{n}_{end}" for label in ("a b", "c") for n in range(5) for end in ("rgb.mp4", "depth.mkv")),
    )
    prepared = prepare_templates(root, tmp_path / "m.csv", rgb=RGB, depth=DEPTH)
    assert pairs(prepared.manifest) == {
        (f"v/{label}/{n}_rgb.mp4", f"v/{label}/{n}_depth.mkv", label) for label in ("a b", "c") for n in range(5)
    }
    assert {entry.frames for entry in prepared.manifest.entries} == {9}
    assert prepared.manifest.declared == {"train": 6, "val": 2, "test": 2}
    assert match_notes(prepared.notes, "6 train 2 val 2 test groups")


def test_fields_of_one_template_do_not_split_a_pair(tmp_path, fill):
    root = fill(tmp_path / "v", *(f"{label}/1_at{n}_rgb.mp4" for n, label in enumerate("ab")))
    fill(root, *(f"{label}/1_by{n}_depth.mkv" for n, label in enumerate("ab", start=7)))
    prepared = prepare_templates(
        root, tmp_path / "m.csv", rgb="{label}/{name}_at{hour}_rgb.mp4", depth="{label}/{name}_by{subject}_depth.mkv"
    )
    assert pairs(prepared.manifest) == {
        ("v/a/1_at0_rgb.mp4", "v/a/1_by7_depth.mkv", "a"),
        ("v/b/1_at1_rgb.mp4", "v/b/1_by8_depth.mkv", "b"),
    }
    assert [entry.subject for entry in prepared.manifest.entries] == ["7", "8"]


def test_samples_with_one_modality_are_counted(tmp_path, fill, match_notes):
    root = fill(tmp_path / "v", *(f"{label}/1_{end}" for label in "ab" for end in ("rgb.mp4", "depth.mkv")))
    fill(root, "a/2_rgb.mp4", "b/3_depth.mkv", "b/4_depth.mkv")
    prepared = prepare_templates(root, tmp_path / "m.csv", rgb=RGB, depth=DEPTH)
    assert ("v/a/2_rgb.mp4", "", "a") in pairs(prepared.manifest)
    assert ("", "v/b/3_depth.mkv", "b") in pairs(prepared.manifest)
    assert len(prepared.manifest.entries) == 5
    assert match_notes(
        prepared.notes[:2], "1 samples rgb depth a/2_rgb.mp4", "2 samples depth rgb b/3_depth.mkv b/4_depth.mkv"
    )


def test_unmatched_files_are_counted(tmp_path, fill, fill_pictures, match_notes):
    root = fill(tmp_path / "v", *(f"{label}/{n}_rgb.mp4" for label in "ab" for n in range(2)))
    fill_pictures(fill(root, "a/x.mp4", "a/deeper/1_rgb.mp4"), "a/pictures")
    (root / "readme.txt").write_text("")
    prepared = prepare_templates(root, root / "m.csv", rgb=RGB)
    assert match_notes(prepared.notes[:1], "4 files a/deeper/1_rgb.mp4 a/pictures a/x.mp4 1")
    again = prepare_templates(root, root / "m.csv", rgb=RGB)
    assert again.notes == prepared.notes
    assert again.manifest.digest == prepared.manifest.digest


def test_fields_fill_columns_and_splits_are_normalized(tmp_path, fill, match_notes):
    splits = ("Training", "validation", "fold3")
    root = fill(
        tmp_path / "v",
        *(f"{split}/walk c{n}-s{n % 2}/{label}@{n}.mp4" for n, split in enumerate(splits) for label in "ab"),
    )
    prepared = prepare_templates(root, tmp_path / "m.csv", rgb="{split}/{group} c{camera}-s{subject}/{label}@{}.mp4")
    found = {(e.split, e.group, e.camera, e.subject, e.labels["label"]) for e in prepared.manifest.entries}
    assert found == {
        (split, "walk", str(n), str(n % 2), label)
        for n, split in enumerate(("train", "val", "fold3"))
        for label in "ab"
    }
    assert match_notes(prepared.notes[:1], "1 groups walk")


def test_isogd_names_can_be_matched(tmp_path, fill):
    folders = [f"{split}/{label:03}" for split in ("train", "valid") for label in (1, 2)]
    root = fill(
        tmp_path / "v", *(f"{folder}/{kind}_0000{n}.avi" for folder in folders for n in (1, 2) for kind in "MK")
    )
    prepared = prepare_templates(
        root, tmp_path / "m.csv", rgb="{split}/{label}/M_{name}.avi", depth="{split}/{label}/K_{name}.avi"
    )
    assert prepared.manifest.declared == {"train": 4, "val": 4}
    assert prepared.manifest.classes == {"label": ("001", "002")}
    for entry in prepared.manifest.entries:
        assert entry.depth == entry.rgb.replace("M_", "K_")
    assert prepared.notes == ()


def test_ntu_names_can_be_matched(tmp_path, fill, fill_pictures, match_notes):
    """Depth is a folder of 16-bit images; names contain subject, camera and action."""
    names = [f"S001C{c:03}P{p:03}R001A{a:03}" for c in (1, 2) for p in (1, 2, 3) for a in (1, 50)]
    root = fill(tmp_path / "v", *(f"nturgb+d_rgb/{name}_rgb.avi" for name in names))
    fill_pictures(root, *(f"nturgb+d_depth/{name}_depth" for name in names), kind="depth", count=9)
    prepared = prepare_templates(
        root,
        tmp_path / "m.csv",
        rgb="nturgb+d_rgb/S{setup}C{camera}P{subject}R{take}A{label}_rgb.avi",
        depth="nturgb+d_depth/S{setup}C{camera}P{subject}R{take}A{label}_depth/",
        keep_together="subject",
        depth_unit=1,
        depth_range=(500, 4500),
    )
    manifest = prepared.manifest
    assert len(manifest.entries) == 12
    for entry in manifest.entries:
        name = Path(entry.rgb).name.removesuffix("_rgb.avi")
        assert Path(entry.depth).name == f"{name}_depth"
        assert name == f"S001C{entry.camera}P{entry.subject}R001A{entry.labels['label']}"
    held = {entry.subject for entry in manifest.entries if entry.split == "val"}
    assert len(held) == 1
    assert match_notes(prepared.notes, "8 train 4 val subjects")


def test_arrays_can_be_paired_with_videos(tmp_path, fill, fill_arrays):
    root = fill(tmp_path / "v", *(f"rgb/{label}{n}.mp4" for label in "ab" for n in range(2)))
    fill_arrays(root, *(f"depth/{label}{n}.npz" for label in "ab" for n in range(2)))
    prepared = prepare_templates(
        root, tmp_path / "m.csv", rgb="rgb/{label}{take:d}.mp4", depth="depth/{label}{take:d}.npz"
    )
    assert ("v/rgb/b1.mp4", "v/depth/b1.npz", "b") in pairs(prepared.manifest)
    assert any(note.startswith("4 pairs of RGB and depth differ in their number of frames") for note in prepared.notes)


def test_several_labels_become_several_task_heads(tmp_path, fill):
    root = fill(tmp_path / "v", *(f"{v}-{n}/{k}.mp4" for v in ("cut", "wash") for n in ("egg", "pan") for k in "12"))
    prepare_templates(root, tmp_path / "m.csv", rgb="{label.verb}-{label.noun}/{}.mp4")
    manifest = load_manifest(tmp_path / "m.csv")
    assert manifest.classes == {"verb": ("cut", "wash"), "noun": ("egg", "pan")}
    assert manifest.entries[2].labels == {"verb": "cut", "noun": "pan"}


def test_a_path_matching_both_templates_belongs_to_the_more_specific(raises, tmp_path, fill, match_notes):
    root = fill(tmp_path / "v", *(f"{label}/{n}{end}.mp4" for label in "ab" for n in range(2) for end in ("", "_d")))
    prepared = prepare_templates(root, tmp_path / "m.csv", rgb="{label}/{name}.mp4", depth="{label}/{name}_d.mp4")
    assert ("v/a/0.mp4", "v/a/0_d.mp4", "a") in pairs(prepared.manifest)
    assert len(prepared.manifest.entries) == 4
    assert match_notes(prepared.notes[:1], "4 paths a/0_d.mp4 a/1_d.mp4 b/0_d.mp4 1")
    with raises(ManifestError, path="a/0.mp4"):
        prepare_templates(root, tmp_path / "m.csv", rgb="{label}/{name}.mp4", depth="{label}/{name}.mp4")


def test_a_repeated_field_must_match_twice(tmp_path, fill, match_notes):
    root = fill(tmp_path / "v", "a/a_1.mp4", "a/b_2.mp4", "b/b_3.mp4", "b/b_4.mp4")
    prepared = prepare_templates(root, tmp_path / "m.csv", rgb="{label}/{label}_{}.mp4")
    assert [entry.rgb for entry in prepared.manifest.entries] == ["v/a/a_1.mp4", "v/b/b_3.mp4", "v/b/b_4.mp4"]
    assert any(match_notes([note], "1 files a/b_2.mp4") for note in prepared.notes)


def test_an_ambiguous_name_is_refused(raises, tmp_path, fill):
    root = fill(tmp_path / "v", "wave_hand_1.mp4", "run_2.mp4", "run_3.mp4")
    with raises(ManifestError, "wave_hand", path="wave_hand_1.mp4", field="label"):
        prepare_templates(root, tmp_path / "m.csv", rgb="{label}_{take}.mp4")
    manifest = prepare_templates(root, tmp_path / "m.csv", rgb="{label}_{take:d}.mp4").manifest
    assert manifest.classes == {"label": ("run", "wave_hand")}


def test_ambiguous_nameless_fields_are_accepted(tmp_path, fill):
    root = fill(tmp_path / "v", "a/1_2_3.mp4", "b/1_2_3.mp4")
    manifest = prepare_templates(root, tmp_path / "m.csv", rgb="{label}/{}_{}.mp4").manifest
    assert len(manifest.entries) == 2


def test_two_files_for_the_same_sample_are_refused(raises, tmp_path, fill):
    root = fill(tmp_path / "v", "a/1_x_rgb.mp4", "a/1_y_rgb.mp4", "a/1_depth.mkv", "b/1_x_rgb.mp4", "b/1_depth.mkv")
    with raises(ManifestError, "a/1_x_rgb.mp4", path="1_y_rgb.mp4", field="rgb"):
        prepare_templates(root, tmp_path / "m.csv", rgb="{label}/{name:d}_{}_rgb.mp4", depth="{label}/{name}_depth.mkv")


def test_a_template_without_match_is_refused_with_an_example(raises, tmp_path, fill):
    root = fill(tmp_path / "v", "a/1_rgb.mp4", "b/1_rgb.mp4")
    with raises(ManifestError, "a/1_rgb.mp4", field="depth"):
        prepare_templates(root, tmp_path / "m.csv", rgb=RGB, depth=DEPTH)
    shutil.rmtree(root)
    root.mkdir()
    with raises(ManifestError, field="rgb"):
        prepare_templates(root, tmp_path / "m.csv", rgb=RGB)
    with raises(ManifestError, path="gone", field="root"):
        prepare_templates(tmp_path / "gone", tmp_path / "m.csv", rgb=RGB)


def test_unknown_file_types_need_their_suffix_in_the_template(tmp_path, fill):
    root = fill(tmp_path / "v", "a/1.mp4", "a/2.ts", "b/1.mp4", "b/2.ts")
    (root / "a" / "notes.txt").write_text("")
    prepared = prepare_templates(root, tmp_path / "m.csv", rgb="{label}/{}")
    assert [entry.rgb for entry in prepared.manifest.entries] == ["v/a/1.mp4", "v/b/1.mp4"]
    prepared = prepare_templates(root, tmp_path / "m.csv", rgb="{label}/{}.ts")
    assert [entry.rgb for entry in prepared.manifest.entries] == ["v/a/2.ts", "v/b/2.ts"]


def test_a_misspelled_field_is_noted(tmp_path, fill, match_notes):
    root = fill(tmp_path / "v", "a/s1_1.mp4", "a/s2_1.mp4", "b/s1_1.mp4")
    notes = prepare_templates(root, tmp_path / "m.csv", rgb="{label}/{subjct}_{}.mp4").notes
    assert match_notes(notes[:1], "{subjct} {subject}")


@pytest.mark.parametrize(
    ("text", "word", "facts"),
    [
        ("{name}.mp4", "{label}", {"field": "label"}),
        ("a/1.mp4", "{label}", {"field": "label"}),
        ("{label/{name}.mp4", "field", {}),
        ("{label!r}/{name}.mp4", "{label}", {"field": "label"}),
        ("{label[0]}/{name}.mp4", "{label[0]}", {"field": "label[0]"}),
        ("{label}/{name:03}.mp4", "{name}", {"field": "name"}),
        ("{label}/{clip}/{frame}.jpg", "folder", {}),
        ("/{label}/{name}.mp4", "relative", {}),
    ],
    ids=str,
)
def test_a_malformed_template_is_refused(raises, text, word, facts):
    with raises(ManifestError, word, **facts):
        parse_template(text)


def test_two_templates_need_the_same_labels(raises, tmp_path, fill):
    root = fill(tmp_path / "v", "a/1_rgb.mp4")
    with raises(ManifestError, "label.verb", field="label"):
        prepare_templates(root, tmp_path / "m.csv", rgb=RGB, depth="{label.verb}/{name}_depth.mkv")
    with raises(ManifestError, path="m.csv", field="label"):
        prepare_templates(root, tmp_path / "m.csv")


def test_regex_characters_are_literal():
    template = parse_template("./{label}/a.b (1)+[{name}]{{x}}.mp4")
    assert template.match("run/a.b (1)+[7]{x}.mp4") == {"label": "run", "name": "7"}
    assert template.match("run/aXb (1)+[7]{x}.mp4") is None
    assert template.match("run/deeper/a.b (1)+[7]{x}.mp4") is None


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{a}_{b}_{c}_{d}_{e}_{label}.mp4", "x_" * 120 + "y.avi"),
        ("{a}{b}{c}{d}{e}{label}/{n:d}.mp4", "1" * 2000 + "/1.avi"),
        ("{a}_{b}_{a}_{b}_{label}.mp4", "_" * 250 + ".avi"),
        ("{label}{a}{label}{b}{label}.mp4", "ab" * 120 + ".mkv"),
    ],
)
def test_no_name_takes_long_to_match(template, path):
    start = time.process_time()
    assert parse_template(template).match(path) is None
    assert time.process_time() - start < 0.5


def test_too_many_values_of_repeated_fields_are_refused(raises):
    with raises(ManifestError, "repeated", path="ab" * 120 + "c.mp4"):
        parse_template("{a}{label}{b}{a}{c}{label}.mp4").match("ab" * 120 + "c.mp4")


@pytest.mark.parametrize(
    ("template", "path", "fields"),
    [
        ("{label}/v_{label}_g{group:d}.mp4", "a b/v_a b_g17.mp4", {"label": "a b", "group": "17"}),
        ("{label}/{name}_{name}.mp4", "a/b_b_b_b.mp4", {"label": "a", "name": "b_b"}),
        ("{}-{label}.mp4", "a-b-c.mp4", {"label": "c"}),
        ("{label}{n:d}.mp4", "a.mp4", None),
        ("{label}/{n}.mp4", "a/b/c.mp4", None),
        ("{label}/{label}.mp4", "a/b.mp4", None),
        ("{label}\n/{n}.mp4", "a\n/\n.mp4", {"label": "a", "n": ""}),
    ],
)
def test_fields_of_a_path(template, path, fields):
    assert parse_template(template).match(path) == fields

"""NTU RGB+D 60 and 120: names, official splits, files on disk, and the crop of RGB to the person."""

import re
import shutil
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kinema.cli import main
from kinema.data.dataset import VideoDataset
from kinema.data.manifest import PixelBox, load_manifest
from kinema.data.samplers import Draw
from kinema.datasets.ntu import FACTS, Ntu60Options, Ntu120Options, prepare, read_samples
from kinema.datasets.ntu_crop import RGB_SIZE, rgb_box
from kinema.datasets.ntu_names import (
    CLASSES,
    NTU60,
    NTU120,
    PERFORMERS,
    TRAIN_SUBJECTS,
    Sample,
    official_samples,
    parse_name,
    split_of,
)
from kinema.errors import ConfigError, ManifestError
from kinema.transforms.mirroring import mirrored_pair
from kinema.transforms.preprocessing import Extent, Preprocessing
from kinema.transforms.sampling import Sampling
from kinema.video.source import read_rgb

RGB, MASKED, FULL = "nturgb+d_rgb", "nturgb+d_depth_masked", "nturgb+d_depth"
TRAIN, TEST = "S001C002P001R001A001", "S001C001P003R002A060"


@pytest.fixture(scope="session")
def large(tmp_path_factory, write_video):
    """Video of three frames of NTU's RGB size."""
    pictures = [np.full((1080, 1920, 3), 60 * number, np.uint8) for number in range(3)]
    options = {"preset": "ultrafast", "crf": "40"}
    return write_video(tmp_path_factory.mktemp("large") / "large.avi", pictures, options=options)


@pytest.fixture
def fill_ntu(short):
    """Fill RGB files and depth folders with these names; depth shows a person in a rectangle."""

    def fill(root, *names, rgb=short, person=(150, 250, 200, 300), size=(424, 512), count=3):
        for name in names:
            path = root / name
            if name.endswith(".avi"):
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(rgb, path)
                continue
            path.mkdir(parents=True)
            start = "MDepth" if "masked" in name else "Depth"
            depth = np.full(size, 0 if "masked" in name else 3000, np.uint16)
            if person is not None:
                top, bottom, left, right = person
                depth[top:bottom, left:right] = 2500
            for number in range(1, count + 1):
                Image.fromarray(depth).save(path / f"{start}-{number:08}.png")
        return root

    return fill


def prepare60(root, out, **options):
    return prepare(Ntu60Options(root=root, out=out, **options))


def prepare120(root, out, **options):
    return prepare(Ntu120Options(root=root, out=out, **options))


# -- names and splits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("collection", "protocol", "train", "test"),
    [
        (NTU60, "cross_subject", 40_320, 16_560),
        (NTU60, "cross_view", 37_920, 18_960),
        (NTU120, "cross_subject", 63_360, 51_120),
        (NTU120, "cross_setup", 54_720, 59_760),
    ],
)
def test_official_splits_have_the_published_counts(collection, protocol, train, test):
    counts = Counter(split_of(sample, protocol) for sample in official_samples(collection).values())
    assert counts == {"train": train, "test": test}


TEST_SUBJECTS = (
    *(3, 6, 7, *range(10, 13), *range(20, 25), 26, 29, 30, 32, 33, 36, 37, 39, 40),
    *(*range(41, 45), 48, 51, *range(60, 70), 71, 72, 73, 75, 76, 77, 79, 87, 88, 90, 96, 99, 101, 102, 104, 105, 106),
)
"""All other subjects; counts alone would not distinguish two subjects with equally many samples."""


def test_splits_by_subject_setup_and_camera():
    assert sorted((*TRAIN_SUBJECTS, *TEST_SUBJECTS)) == [*range(1, 107)]
    for last, count in ((40, 20), (106, 53)):
        assert len({p for p in TRAIN_SUBJECTS if p <= last}) == count
        assert {p for setup in PERFORMERS.values() for p in setup if p <= last} == {*range(1, last + 1)}
    by_setup = {sample.setup: split_of(sample, "cross_setup") for sample in official_samples(NTU120).values()}
    assert [setup for setup, split in by_setup.items() if split == "train"] == [*range(2, 33, 2)]
    by_camera = {sample.camera: split_of(sample, "cross_view") for sample in official_samples(NTU60).values()}
    assert by_camera == {1: "test", 2: "train", 3: "train"}


def test_names_are_parsed_and_formatted():
    sample = Sample(setup=18, camera=3, performer=106, replication=2, action=61)
    assert (sample.name, sample.performance) == ("S018C003P106R002A061", "S018P106R002A061")
    assert parse_name(sample.name) == sample
    for text in ("S018C003P106R002A61", "s018c003p106r002a061", "S018C003P106R002A061_rgb", "S018C003P106R002A0٦1"):
        assert parse_name(text) is None


def test_no_two_classes_are_mirror_images():
    assert len(set(CLASSES)) == 120
    assert NTU60.classes == NTU120.classes[:60]
    assert mirrored_pair(CLASSES) is None


def test_the_classes_are_those_of_the_official_page(real_data):
    page = (real_data / "annotations" / "ntu_rgbd" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\* A(\d+)\.\s+(.*?)[. ]*$", page, re.MULTILINE)
    assert [int(number) for number, _ in named] == [*range(1, 121)]
    assert tuple(name.replace("\u2019", "'") for _, name in named) == CLASSES
    assert (CLASSES[9], CLASSES[59], CLASSES[60]) == ("clapping", "walking apart from each other", "put on headphone")


@pytest.mark.parametrize(
    ("name", "count", "of_60"),
    [
        ("NTU_RGBD_samples_with_missing_skeletons.txt", 302, 302),
        ("NTU_RGBD120_samples_with_missing_skeletons.txt", 535, 302),
    ],
)
def test_the_real_lists_name_samples_of_the_collections(real_data, name, count, of_60):
    """Published counts with skeletons: 113,945 samples of NTU RGB+D 120, 63,026 of them for training by subject."""
    samples = read_samples(real_data / "annotations" / "ntu_rgbd" / name)
    assert len(samples) == count
    assert len({sample.name for sample in samples} & official_samples(NTU60).keys()) == of_60
    if count == 535:
        left = set(official_samples(NTU120).values()) - set(samples)
        assert len(left) == 113_945
        assert sum(split_of(sample, "cross_subject") == "train" for sample in left) == 63_026
        assert sum(split_of(sample, "cross_setup") == "train" for sample in left) == 54_468


# -- files on disk ---------------------------------------------------------------------------------------------------


def test_samples_on_disk_become_a_manifest(tmp_path, fill_ntu):
    names = [f"{RGB}/{name}_rgb.avi" for name in (TRAIN, TEST)]
    root = fill_ntu(tmp_path / "n", *names, f"{MASKED}/{TRAIN}", f"{MASKED}/{TEST}")
    prepared = prepare60(root, tmp_path / "m.csv")
    manifest = prepared.manifest
    assert [
        (e.rgb, e.depth, e.split, e.group, e.subject, e.camera, e.sample, e.labels["label"]) for e in manifest.entries
    ] == [
        (
            f"n/{RGB}/{TEST}_rgb.avi",
            f"n/{MASKED}/{TEST}",
            "test",
            "S001P003R002A060",
            "P003",
            "C001",
            TEST,
            "walking apart from each other",
        ),
        (
            f"n/{RGB}/{TRAIN}_rgb.avi",
            f"n/{MASKED}/{TRAIN}",
            "train",
            "S001P001R001A001",
            "P001",
            "C002",
            TRAIN,
            "drink water",
        ),
    ]
    assert manifest.classes == {"label": CLASSES[:60]}
    assert [manifest.targets(n) for n in range(2)] == [{"label": 59}, {"label": 0}]
    assert manifest.depth == FACTS["masked"]
    assert (manifest.depth.unit_mm, manifest.depth.coverage) == (1.0, "masked")
    assert (manifest.dataset, manifest.version) == ("NTU RGB+D 60", "cross_subject")
    assert manifest.declared == {"test": 16_560, "train": 40_320}
    assert prepared.summary.endswith(
        "1 of 16560 declared test, 1 of 40320 declared train; 60 classes; 0 files cannot be read"
    )


@pytest.mark.parametrize(("place", "ending"), [("", "_rgb"), (f"{RGB}/s001/", "_rgb"), ("a/b/c/", "")])
def test_rgb_is_found_at_any_depth(tmp_path, fill_ntu, place, ending):
    root = fill_ntu(tmp_path / "n", f"{place}{TRAIN}{ending}.avi", f"{place}{TEST}{ending}.avi")
    manifest = prepare60(root, tmp_path / "m.csv").manifest
    assert [(e.rgb, e.depth) for e in manifest.entries] == [
        (f"n/{place}{name}{ending}.avi", "") for name in (TEST, TRAIN)
    ]
    assert manifest.depth is None


def test_cross_view_and_cross_setup(tmp_path, fill_ntu, match_notes):
    root = fill_ntu(tmp_path / "n", *(f"S{s:03}C{c:03}P008R001A001_rgb.avi" for s in (1, 2) for c in (1, 2, 3)))
    prepared = prepare60(root, tmp_path / "m.csv", split="cross_view")
    assert [(e.sample[:8], e.split) for e in prepared.manifest.entries] == [
        (f"S{s:03}C{c:03}", "test" if c == 1 else "train") for s in (1, 2) for c in (1, 2, 3)
    ]
    assert prepared.manifest.declared == {"test": 18_960, "train": 37_920}
    assert prepared.manifest.version == "cross_view"
    assert any(match_notes([note], "2 groups S001P008R001A001 S002P008R001A001") for note in prepared.notes)
    prepared = prepare120(root, tmp_path / "m.csv", split="cross_setup")
    assert {(e.sample[:4], e.split) for e in prepared.manifest.entries} == {("S001", "test"), ("S002", "train")}
    assert prepared.manifest.declared == {"test": 59_760, "train": 54_720}
    assert prepared.manifest.classes == {"label": CLASSES}


@pytest.mark.parametrize(("prepare_one", "split"), [(prepare60, "cross_setup"), (prepare120, "cross_view")])
def test_a_split_of_the_other_collection_is_refused(tmp_path, raises, prepare_one, split):
    with raises(ConfigError, split, field="split"):
        prepare_one(tmp_path, tmp_path / "m.csv", split=split)


@pytest.mark.parametrize(
    ("requested", "coverage", "folder", "note"),
    [
        ("auto", "masked", MASKED, "masked 2 full 1 not"),
        ("masked", "masked", MASKED, "masked 2 full 1 not"),
        ("full", "full", FULL, "full 1 masked 2 not"),
    ],
)
def test_masked_depth_is_preferred_and_the_choice_is_noted(
    tmp_path, fill_ntu, requested, coverage, folder, note, match_notes
):
    root = fill_ntu(tmp_path / "n", f"{MASKED}/{TRAIN}", f"{FULL}/{TRAIN}", f"{MASKED}/{TEST}")
    prepared = prepare60(root, tmp_path / "m.csv", depth_coverage=requested)
    manifest = prepared.manifest
    assert {e.depth for e in manifest.entries} <= {f"n/{folder}/{name}" for name in (TRAIN, TEST)}
    assert manifest.depth == FACTS[coverage]
    assert match_notes(prepared.notes[:1], note)
    unused = [note for note in prepared.notes if match_notes([note], f"1 samples neither RGB depth {TEST}")]
    assert len(unused) == (requested == "full")


@pytest.mark.parametrize(("folder", "requested"), [(MASKED, "full"), (FULL, "masked")])
def test_missing_requested_depth_is_refused(raises, tmp_path, fill_ntu, folder, requested):
    root = fill_ntu(tmp_path / "n", f"{folder}/{TRAIN}", f"{folder}/{TEST}")
    with raises(ManifestError, path="n", field="depth_coverage"):
        prepare60(root, tmp_path / "m.csv", depth_coverage=requested)
    assert prepare60(root, tmp_path / "m.csv").manifest.depth.coverage != requested


def test_samples_with_one_modality_are_counted(tmp_path, fill_ntu, match_notes):
    third = "S002C001P003R001A002"
    root = fill_ntu(tmp_path / "n", f"{TRAIN}_rgb.avi", f"{TEST}_rgb.avi", f"{MASKED}/{TEST}", f"{MASKED}/{third}")
    prepared = prepare60(root, tmp_path / "m.csv")
    assert [(bool(e.rgb), bool(e.depth)) for e in prepared.manifest.entries] == [
        (True, True),
        (True, False),
        (False, True),
    ]
    assert any(match_notes([note], f"1 samples rgb depth depth {TRAIN}") for note in prepared.notes)
    assert any(match_notes([note], f"1 samples depth rgb rgb {third}") for note in prepared.notes)


def test_other_files_are_counted(tmp_path, fill_ntu, fill_pictures, fill_arrays, match_notes):
    wrong = (
        "S1C1P1R1A1_rgb.avi",
        "s001c002p001r001a001_rgb.avi",
        f"{TRAIN}_rgb (1).avi",
        f"{MASKED}/S001C2P001R001A001",
    )
    root = fill_ntu(tmp_path / "n", f"{TRAIN}_rgb.avi", f"{TEST}_rgb.avi", f"{TRAIN}_ir.avi", "holiday.avi", *wrong)
    fill_ntu(root, "S004C001P009R001A001_rgb.avi", "S001C004P001R001A001_rgb.avi")
    fill_pictures(root, f"frames/{TRAIN}")
    fill_arrays(root, "x.npz")
    fill_ntu(root, f"{MASKED}/{TEST}", count=1)
    (root / "nturgbd_rgb_s002.zip").touch()
    for number in (1, 2):
        (root / f"S001C001P001R001A00{number}.skeleton").touch()
    prepared = prepare60(root, tmp_path / "m.csv")
    assert [e.sample for e in prepared.manifest.entries] == [TEST, TRAIN]
    assert match_notes(
        prepared.notes[:7],
        f"1 infrared {TRAIN}_ir.avi",
        f"2 videos RGB NTU RGB+D holiday.avi frames/{TRAIN}",
        f"1 folders {MASKED}/{TEST}/MDepth-00000001.png",
        "1 archives nturgbd_rgb_s002.zip",
        f"4 names S001C001P001R001A001_rgb {TRAIN}_rgb (1).avi S1C1P1R1A1_rgb.avi s001c002p001r001a001_rgb.avi 1",
        "3 files .npz 1 .skeleton 2",
        "2 names NTU RGB+D 60 S001C004P001R001A001 S004C001P009R001A001",
    )


def test_missing_samples_are_counted_by_setup_and_camera(tmp_path, fill_ntu, monkeypatch):
    unread = SimpleNamespace(num_frames=9, remarks=(), timeline=None)
    monkeypatch.setattr("kinema.datasets.prepared.open_source", lambda *_, **__: nullcontext(unread))
    samples = [sample for sample in official_samples(NTU60).values() if sample.setup == 4 and sample.camera != 3]
    root = fill_ntu(tmp_path / "n", *(f"S004/{sample.name}_rgb.avi" for sample in samples))
    prepared = prepare60(root, tmp_path / "m.csv")
    assert len(prepared.manifest.entries) == 960
    note = next(note for note in prepared.notes if "are not on disk" in note)
    assert note.startswith(
        "55920 of the 56880 samples of NTU RGB+D 60 are not on disk; coverage counts them as missing. By setup: "
        "S001 2880 of 2880, S002 3240 of 3240, S003 3240 of 3240, S004 480 of 1440, "
    )
    assert "; by camera: C001 18480, C002 18480, C003 18960; e.g. S001C001P001R001A001, " in note
    assert ": 720 of 16560 declared test, 240 of 40320 declared train; " in prepared.summary


def test_samples_of_ntu_120_are_not_in_ntu_60(raises, tmp_path, fill_ntu, match_notes):
    later = ("S018C001P008R001A061", "S032C003P106R002A120", "S001C001P001R001A061")
    root = fill_ntu(tmp_path / "n", f"{TRAIN}_rgb.avi", f"{TEST}_rgb.avi", *(f"{name}_rgb.avi" for name in later))
    prepared = prepare60(root, tmp_path / "m.csv")
    assert [e.sample for e in prepared.manifest.entries] == [TEST, TRAIN]
    assert any(
        match_notes(
            [note],
            "3 samples NTU RGB+D 120 S018 A061 S001C001P001R001A061 S018C001P008R001A061 S032C003P106R002A120",
        )
        for note in prepared.notes
    )
    prepared = prepare120(root, tmp_path / "m.csv")
    assert [e.sample for e in prepared.manifest.entries] == [TEST, TRAIN, *later[:2]]
    assert prepared.manifest.targets(2) == {"label": 60}
    assert any(note.startswith("1 names are not samples of NTU RGB+D 120") for note in prepared.notes)
    only = fill_ntu(tmp_path / "only", *(f"{name}_rgb.avi" for name in later[:2]))
    with raises(ManifestError, "ntu120", path="only"):
        prepare60(only, tmp_path / "m.csv")


def test_a_duplicate_sample_is_refused(raises, tmp_path, fill_ntu):
    root = fill_ntu(tmp_path / "n", f"a/{TRAIN}_rgb.avi", f"b/{TRAIN}_rgb.avi")
    with raises(ManifestError, "a/S001C002P001R001A001_rgb.avi", path="S001C002P001R001A001_rgb.avi"):
        prepare60(root, tmp_path / "m.csv")


def test_a_wrong_root_is_refused(raises, tmp_path, fill_ntu):
    with raises(ManifestError, "NTU", path="gone", field="root"):
        prepare60(tmp_path / "gone", tmp_path / "m.csv")
    (tmp_path / "empty").mkdir()
    with raises(ManifestError, "NTU", path="empty"):
        prepare60(tmp_path / "empty", tmp_path / "m.csv")
    root = fill_ntu(tmp_path / "n", "S1C1P1R1A1_rgb.avi", "run/1.avi")
    with raises(ManifestError, "NTU", path="n"):
        prepare60(root, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


# -- omitted samples -----------------------------------------------------------------------------------------


def test_listed_samples_are_omitted_and_not_declared(tmp_path, fill_ntu, match_notes):
    root = fill_ntu(tmp_path / "n", *(f"{name}_rgb.avi" for name in (TRAIN, TEST, "S001C003P003R002A060")))
    listed = tmp_path / "missing.txt"
    listed.write_text(
        f"2 of the captured samples have no skeleton.\nPlease ignore these.\n\n{TEST}\nS018C001P008R001A061\n"
    )
    assert len(prepare60(root, tmp_path / "m.csv").manifest.entries) == 3
    prepared = prepare60(root, tmp_path / "m.csv", without=listed)
    assert [e.sample for e in prepared.manifest.entries] == [TRAIN, "S001C003P003R002A060"]
    assert prepared.manifest.declared == {"test": 16_559, "train": 40_320}
    assert prepared.manifest.version == "cross_subject, without missing.txt"
    assert match_notes(prepared.notes[:1], "1 samples missing.txt 1 2 NTU RGB+D 60")
    assert not any(TEST in note for note in prepared.notes)
    assert match_notes(prepare120(root, tmp_path / "m.csv", without=listed).notes[:1], "2 samples missing.txt")


@pytest.mark.parametrize(
    ("text", "word", "facts"),
    [
        ("", "", {"path": "l.txt"}),
        ("drink water\nclapping\n", "", {"path": "l.txt"}),
        (f"{TRAIN}\nand so on\n", "", {"path": "l.txt", "line": 2}),
        (f"{TRAIN}.skeleton\n", "S001C002P001R001A001.skeleton", {"path": "l.txt", "line": 1}),
        (
            f"{TRAIN}\n\nS001C002P099R001A001\n",
            "S001C002P099R001A001",
            {"path": "l.txt", "line": 3},
        ),
        (f"{TRAIN}\n{TEST}\n{TRAIN}\n", TRAIN, {"path": "l.txt", "line": 3}),
        ("S018C001P008R001A061\n", "S018C001P008R001A061", {"path": "l.txt"}),
    ],
)
def test_a_malformed_list_is_refused(raises, tmp_path, fill_ntu, text, word, facts):
    root = fill_ntu(tmp_path / "n", f"{TRAIN}_rgb.avi")
    (tmp_path / "l.txt").write_text(text)
    with raises(ManifestError, word, **facts):
        prepare60(root, tmp_path / "m.csv", without=tmp_path / "l.txt")
    with raises(ManifestError, "such", path="gone.txt"):
        prepare60(root, tmp_path / "m.csv", without=tmp_path / "gone.txt")


def test_the_real_list_of_ntu_120_applies_to_ntu_60(tmp_path, fill_ntu, real_data):
    root = fill_ntu(tmp_path / "n", f"{TRAIN}_rgb.avi", f"{TEST}_rgb.avi", "S001C002P005R002A008_rgb.avi")
    listed = real_data / "annotations" / "ntu_rgbd" / "NTU_RGBD120_samples_with_missing_skeletons.txt"
    prepared = prepare60(root, tmp_path / "m.csv", without=listed)
    assert [e.sample for e in prepared.manifest.entries] == [TEST, TRAIN]
    assert sum(prepared.manifest.declared.values()) == 56_880 - 302
    assert prepared.notes[0].endswith("and not declared (302 of its 535 are of NTU RGB+D 60)")


# -- crop of RGB ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "across",
    [
        ((2.8931, -0.0233, 238.20), (0.0114, 2.8822, -36.78)),
        ((2.9078, -0.0105, 215.51), (-0.0034, 2.9109, -51.34)),
        ((2.8976, -0.0072, 212.65), (-0.0127, 2.8976, -65.31)),
    ],
    ids=["C001", "C002", "C003"],
)
@pytest.mark.parametrize("place", [(130, 150), (256, 212), (380, 250)])
def test_depth_positions_map_to_rgb(across, place):
    """Maps fitted to the official joints of setup 1, one per camera (shahroudy/NTURGB-D, issue 39)."""
    x, y = place
    found = rgb_box(Extent(y - 10, y + 10, x - 10, x + 10), (100, 100)).box
    expected = [factors[0] * x + factors[1] * y + factors[2] for factors in across]
    assert abs((found.left + found.right) / 2 - expected[0]) < 20
    assert abs((found.top + found.bottom) / 2 - expected[1]) < 25


@pytest.mark.parametrize(
    ("extent", "box"),
    [
        (Extent(150, 250, 200, 300), PixelBox(left=624, top=288, right=1264, bottom=768)),
        (Extent(0, 60, 0, 20), PixelBox(left=0, top=0, right=640, bottom=480)),
        (Extent(400, 424, 500, 512), PixelBox(left=1280, top=600, right=1920, bottom=1080)),
    ],
)
def test_the_box_stays_in_the_frame(extent, box):
    found = rgb_box(extent, (640, 480))
    assert found.box == box
    assert found.box.fits(*RGB_SIZE)
    assert (found.box.right - found.box.left, found.box.bottom - found.box.top) == (640, 480)
    assert not found.is_too_small


def test_a_person_larger_than_the_box_is_detected():
    """At 2.9 RGB pixels per depth pixel, 480 rows are 165 rows of depth and 640 columns 220."""
    assert not rgb_box(Extent(100, 265, 200, 260), (640, 480)).is_too_small
    assert rgb_box(Extent(100, 267, 200, 260), (640, 480)).is_too_small
    assert rgb_box(Extent(100, 200, 100, 322), (640, 480)).is_too_small
    assert not rgb_box(Extent(100, 267, 200, 260), (960, 540)).is_too_small


def test_rgb_is_cropped_to_the_person_in_masked_depth(tmp_path, fill_ntu, large, short, match_notes):
    """One person fits the box and one does not; other samples have an empty mask, small RGB or no masked depth."""
    names = [f"S001C001P001R001A{action:03}" for action in range(1, 8)]
    root = fill_ntu(tmp_path / "n", *(f"{RGB}/{name}_rgb.avi" for name in (*names[:3], *names[4:])), rgb=large)
    fill_ntu(root, f"{RGB}/{names[3]}_rgb.avi", rgb=short)
    fill_ntu(root, f"{MASKED}/{names[0]}", f"{MASKED}/{names[3]}")
    fill_ntu(root, f"{MASKED}/{names[1]}", person=(100, 300, 200, 260))
    fill_ntu(root, f"{MASKED}/{names[2]}", person=None)
    fill_ntu(root, f"{MASKED}/{names[5]}", size=(212, 256), person=(10, 100, 10, 100))
    fill_ntu(root, f"{MASKED}/{names[6]}")
    (root / MASKED / names[6] / "MDepth-00000002.png").write_bytes(b"no picture")
    prepared = prepare60(root, tmp_path / "m.csv")
    boxes = {entry.sample: entry.rgb_box for entry in prepared.manifest.entries}
    assert boxes == {
        names[0]: PixelBox(left=624, top=288, right=1264, bottom=768),
        names[1]: PixelBox(left=566, top=288, right=1206, bottom=768),
        **dict.fromkeys(names[2:]),
    }
    full = "1 samples full RGB"
    for words in (
        "RGB 2 samples 640 x 480",
        f"1 larger {names[1]} --rgb-crop-size",
        f"{full} no person {names[2]}",
        f"{full} RGB 64 x 48 1920 x 1080 {names[3]}",
        f"{full} no masked depth {names[4]}",
        f"{full} masked depth 256 x 212 512 x 424 {names[5]}",
        f"{full} RGB depth read {names[6]}",
    ):
        assert any(match_notes([note], words) for note in prepared.notes), words
    wide = prepare60(root, tmp_path / "m.csv", rgb_crop_size=(960, 720)).manifest.entries[0].rgb_box
    assert (wide.right - wide.left, wide.bottom - wide.top) == (960, 720)
    plain = prepare60(root, tmp_path / "m.csv", rgb_crop="none")
    assert {entry.rgb_box for entry in plain.manifest.entries} == {None}
    assert not any("full RGB frames" in note for note in plain.notes)


def test_masked_depth_locates_the_person_if_full_depth_is_used(tmp_path, fill_ntu, large):
    names = ("S001C001P001R001A001", "S001C001P001R001A002")
    root = fill_ntu(tmp_path / "n", *(f"{name}_rgb.avi" for name in names), rgb=large)
    fill_ntu(root, *(f"{place}/{name}" for place in (MASKED, FULL) for name in names))
    manifest = prepare60(root, tmp_path / "m.csv", depth_coverage="full").manifest
    assert manifest.depth == FACTS["full"]
    assert {str(entry.rgb_box) for entry in manifest.entries} == {"624 288 1264 768"}


def test_crop_without_masked_depth(raises, tmp_path, fill_ntu, match_notes):
    root = fill_ntu(tmp_path / "n", f"{TRAIN}_rgb.avi", f"{TEST}_rgb.avi", f"{FULL}/{TRAIN}")
    prepared = prepare60(root, tmp_path / "m.csv")
    assert {entry.rgb_box for entry in prepared.manifest.entries} == {None}
    assert any(match_notes([note], "RGB not cropped RGB masked depth") for note in prepared.notes)
    with raises(ManifestError, "--rgb-crop none", path="n", field="rgb_crop"):
        prepare60(root, tmp_path / "m.csv", rgb_crop="subject")
    for size in ((1921, 480), (640, 1081), (0, 480)):
        with raises(ManifestError, f"{size[0]} x {size[1]}", field="rgb_crop_size"):
            prepare60(root, tmp_path / "m.csv", rgb_crop_size=size)


def test_a_real_clip_is_cropped_to_its_person(tmp_path, fill_ntu, real_data):
    """The woman with the cup is in columns 994 to 1114 and rows 288 to 742 of the first frame.

    By the map fitted to camera 1 of setup 1, she is in columns 262 to 305 and rows 112 to 269 of depth.
    """
    name = "S001C001P001R001A001"
    clip = real_data / "format_samples" / "mmaction2" / f"{name}_rgb.avi"
    root = tmp_path / "n"
    fill_ntu(root, f"{MASKED}/{name}", person=(112, 269, 262, 305), count=9)
    fill_ntu(root, f"{RGB}/{name}_rgb.avi", rgb=clip)
    args = ["--root", str(root), "--out", str(tmp_path / "m.csv"), "--rgb-crop", "subject"]
    main(["prepare", "ntu60", *args])
    manifest = load_manifest(tmp_path / "m.csv")
    (entry,) = manifest.entries
    assert (entry.frames, entry.split, entry.labels) == (103, "train", {"label": "drink water"})
    box = entry.rgb_box
    assert box.left < 994 - 150
    assert box.right > 1114 + 150
    assert box.top < 288
    assert box.bottom > 742 - 10
    preprocessing = Preprocessing(modalities=("rgb",), short_side=240, size=224)
    data = VideoDataset(manifest, sampling=Sampling(frames=2), preprocessing=preprocessing)
    clip = data[Draw(0)]["inputs"]["rgb"][0, :, 0].float()
    frame = read_rgb(manifest.locate(entry.rgb), [25])[0]
    part = Image.fromarray(frame[box.top : box.bottom, box.left : box.right]).resize(
        (320, 240), Image.Resampling.BICUBIC
    )
    expected = np.asarray(part, np.float32)[8:232, 48:272].transpose(2, 0, 1)
    assert np.abs(clip.numpy() - expected).mean() < 3


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_accepts_its_options(capsys, tmp_path, fill_ntu, large):
    root = fill_ntu(tmp_path / "n", f"{TRAIN}_rgb.avi", f"{TEST}_rgb.avi", rgb=large)
    fill_ntu(root, f"{MASKED}/{TRAIN}", f"{FULL}/{TRAIN}")
    (tmp_path / "l.txt").write_text("S001C003P003R002A060\n")
    args = ["prepare", "ntu60", "--root", root, "--out", tmp_path / "m.csv", "--split", "cross_view"]
    args += ["--depth-coverage", "full", "--without", tmp_path / "l.txt", "--rgb-crop-size", 800, 600]
    main([str(word) for word in args])
    manifest = load_manifest(tmp_path / "m.csv")
    assert manifest.version == "cross_view, without l.txt"
    assert manifest.depth == FACTS["full"]
    boxes = [e.rgb_box for e in manifest.entries]
    assert boxes[0] is None
    assert boxes[1].right - boxes[1].left == 800
    output = "".join(capsys.readouterr())
    assert "1 samples of l.txt are omitted and not declared" in output
    assert "1 of 18960 declared test, 1 of 37919 declared train" in output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ntu60", "--depth", "{label}"], "'--depth'"),
        (["ntu60", "--val-share", "0.3"], "'--val-share'"),
        (["jhmdb", "--split", "cross_view"], "'--split'"),
        (["isogd", "--rgb-crop", "none"], "'--rgb-crop'"),
        (["ntu120", "--split", "2"], "cross_setup"),
        (["folder", "--depth-coverage", "masked"], "depth_coverage"),
    ],
)
def test_options_of_other_datasets_are_refused(capsys, tmp_path, args, message):
    with pytest.raises(SystemExit) as stop:
        main(["prepare", *args, "--root", str(tmp_path), "--out", str(tmp_path / "m.csv")])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err

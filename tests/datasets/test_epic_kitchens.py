"""EPIC-KITCHENS-100: official lists, and segments of videos and folders of frames."""

import csv
import shutil
from fractions import Fraction

import pytest
from PIL import Image

from kinema.cli import main
from kinema.data.dataset import frames_of
from kinema.datasets.epic_kitchens import (
    CLASSES,
    COUNTS,
    LABEL_COLUMNS,
    prepare,
    read_classes,
    read_segments,
)
from kinema.datasets.epic_kitchens import COLUMNS as SEGMENT_COLUMNS
from kinema.datasets.options import DatasetOptions
from kinema.errors import ManifestError
from kinema.video.image_folder import ImageFolder
from kinema.video.source import read_rgb
from kinema.video.video_file import VideoFile


def prepare_epic_kitchens(root, out):
    return prepare(DatasetOptions(root=root, out=out))


COLUMNS = (*SEGMENT_COLUMNS, *LABEL_COLUMNS.values())
CLASS_COLUMNS = "id,key,instances,category"


def row(number, *, video="P01_01", start=1.0, stop=1.6, rate=60, verb=3, noun=5, **cells):
    """Return a line of an official list; frame numbers are at `rate` fps, regardless of the video's own rate."""
    found = {
        "narration_id": f"{video}_{number}",
        "participant_id": video[:3],
        "video_id": video,
        "start_timestamp": f"00:00:{start:05.2f}",
        "stop_timestamp": f"00:00:{stop:05.2f}",
        "start_frame": max(1, int(start * rate)),
        "stop_frame": int(stop * rate),
        "verb_class": verb,
        "noun_class": noun,
        **cells,
    }
    return ",".join(str(found[column]) for column in COLUMNS)


def write_list(path, *lines, columns=COLUMNS):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")


def write_classes(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for head, count in CLASSES.items():
        lines = [f"{n},{head}:{n},\"['{head}:{n}', 'another']\",things" for n in range(count)]
        (folder / f"EPIC_100_{head}_classes.csv").write_text("\n".join([CLASS_COLUMNS, *lines]) + "\n")


@pytest.fixture
def root(tmp_path):
    """Folder with lists only: two training and two validation segments."""
    root = tmp_path / "e"
    write_classes(root)
    write_list(root / "EPIC_100_train.csv", row(0), row(1, start=0, stop=0.5, verb=0, noun=299))
    validation = [row(n, video="P02_101", rate=50, start=n, stop=n + 0.5) for n in (0, 1)]
    write_list(root / "EPIC_100_validation.csv", *validation)
    return root


@pytest.fixture
def fill_frames(stamp):
    """Fill folders with frames that show their numbers, with official file names."""

    def fill(root, name, numbers):
        (root / name).mkdir(parents=True)
        for number in numbers:
            Image.fromarray(stamp(number)).save(root / name / f"frame_{number:010}.jpg", quality=95)
        return root

    return fill


@pytest.mark.parametrize("home", ["", "EPIC-KITCHENS/"])
@pytest.mark.parametrize("folder", ["", "annotations", "epic-kitchens-100-annotations"])
def test_listed_segments_on_disk_become_a_manifest(tmp_path, fill, home, folder, match_notes):
    root = fill(tmp_path / "e", f"{home}P01/videos/P01_01.MP4", f"{home}P02/videos/P02_101.mp4")
    write_classes(root / folder)
    write_list(root / folder / "EPIC_100_train.csv", row(0), row(1, start=0, stop=0.5, verb=0, noun=299))
    write_list(root / folder / "EPIC_100_validation.csv", row(0, video="P02_101", rate=50))
    prepared = prepare_epic_kitchens(root, tmp_path / "m.csv")
    manifest = prepared.manifest
    assert [(e.rgb, e.sample, e.split, e.group, e.subject, e.start_s, e.stop_s) for e in manifest.entries] == [
        (f"e/{home}P01/videos/P01_01.MP4", "P01_01_0", "train", "P01_01", "P01", 1.0, 1.6),
        (f"e/{home}P01/videos/P01_01.MP4", "P01_01_1", "train", "P01_01", "P01", 0.0, 0.5),
        (f"e/{home}P02/videos/P02_101.mp4", "P02_101_0", "val", "P02_101", "P02", 1.0, 1.6),
    ]
    assert manifest.heads == CLASSES
    assert [manifest.targets(n) for n in range(3)] == [
        {"verb": 3, "noun": 5},
        {"verb": 0, "noun": 299},
        {"verb": 3, "noun": 5},
    ]
    assert manifest.entries[0].labels == {"verb": "verb:3", "noun": "noun:5"}
    assert manifest.declared == {"train": 2, "val": 1}
    assert (manifest.dataset, manifest.version) == ("EPIC-KITCHENS-100", "train 2, val 1")
    assert match_notes(
        prepared.notes,
        "EPIC_100_train.csv 2 samples 67217",
        "EPIC_100_validation.csv 1 samples 9668",
    )
    assert prepared.summary.endswith("2 train, 1 val; 97 of verb, 300 of noun; 0 files cannot be read")


def test_a_segment_of_a_video_is_cut_by_time_stamps(tmp_path, root, write_video, stamp, read_stamps):
    """At 29.97 fps, 1.0 s to 1.6 s are frames 30 to 47; the official frame numbers in the list are 60 to 96."""
    (root / "P01" / "videos").mkdir(parents=True)
    pictures = [stamp(number) for number in range(120)]
    write_video(root / "P01" / "videos" / "P01_01.MP4", pictures, rate=Fraction(30000, 1001))
    manifest = prepare_epic_kitchens(root, tmp_path / "m.csv").manifest
    entry = manifest.entries[0]
    assert (entry.sample, entry.frames) == ("P01_01_0", 120)
    path = manifest.locate(entry.rgb)
    shown = range(*frames_of(entry, VideoFile(path)))
    assert shown == range(30, 48)
    assert read_stamps(read_rgb(path, shown)) == list(shown)


def test_a_segment_of_a_folder_is_cut_by_frame_numbers(tmp_path, root, fill_frames, read_stamps):
    fill_frames(root, "P01/rgb_frames/P01_01", range(1, 121))
    manifest = prepare_epic_kitchens(root, tmp_path / "m.csv").manifest
    found = {}
    for entry in manifest.entries:
        path = manifest.locate(entry.rgb)
        found[entry.sample] = read_stamps(read_rgb(path, range(*frames_of(entry, ImageFolder(path)))))
    assert found == {"P01_01_0": list(range(60, 97)), "P01_01_1": list(range(1, 31))}
    assert {entry.frames for entry in manifest.entries} == {120}


def test_missing_segments_are_counted_by_video(tmp_path, root, fill, fill_frames, match_notes):
    fill_frames(root, "P01/rgb_frames/P01_01", range(1, 91))  # ends 6 frames before segment 0 does
    fill(root, "P01/videos/P01_01.MP4", "P03/videos/P03_07.MP4")
    (root / "P02" / "rgb_frames").mkdir(parents=True)
    (root / "P02" / "rgb_frames" / "P02_101.tar").touch()
    write_list(root / "EPIC_100_test_timestamps.csv", row(0, video="P04_01").rsplit(",", 2)[0], columns=SEGMENT_COLUMNS)
    prepared = prepare_epic_kitchens(root, tmp_path / "m.csv")
    assert [(e.sample, e.start_frame, e.stop_frame) for e in prepared.manifest.entries] == [
        ("P01_01_0", 59, 90),
        ("P01_01_1", 0, 30),
    ]
    assert prepared.manifest.declared == {"train": 2, "val": 2, "test": 1}
    assert match_notes(prepared.notes[:1], "test labels kinema evaluate kinema submit")
    lists = "EPIC_100_train.csv EPIC_100_validation.csv EPIC_100_test_timestamps.csv"
    assert match_notes(
        prepared.notes[4:],
        "1 videos files frames P01_01",
        "1 videos packed .tar P02_101",
        f"3 segments {lists} 2 videos P02_101 2 P04_01 1",
        "1 segments 6 frames cut",
        f"1 files {lists} P03_07",
    )
    assert ": 0 of 1 declared test, 2 train, 0 of 2 declared val; 97 of verb" in prepared.summary


def test_segments_after_the_last_image_are_missing(tmp_path, root, fill_frames):
    fill_frames(root, "P01/rgb_frames/P01_01", range(1, 90))
    prepared = prepare_epic_kitchens(root, tmp_path / "m.csv")
    assert [entry.sample for entry in prepared.manifest.entries] == ["P01_01_1"]
    assert "They are of 2 videos: P01_01 (1), P02_101 (2)" in prepared.notes[-1]


def test_missing_images_or_numbers_from_0_shift_no_segment(tmp_path, root, fill_frames):
    fill_frames(root, "P01/rgb_frames/P01_01", [*range(1, 50), *range(51, 121)])
    fill_frames(root, "P02/rgb_frames/P02_101", range(120))
    prepared = prepare_epic_kitchens(root, tmp_path / "m.csv")
    assert [(entry.sample, entry.frames) for entry in prepared.manifest.entries] == [
        ("P01_01_0", None),
        ("P01_01_1", None),
    ]
    assert len(prepared.unreadable) == 1
    assert "frame_0000000049.jpg and frame_0000000051.jpg" in prepared.unreadable[0]
    assert any(
        note.startswith("1 folders of frames are omitted because their frame numbers do not start at 1")
        and note.endswith("P02_101 (frame_0000000000.jpg)")
        for note in prepared.notes
    )


def test_corrected_videos_are_noted(tmp_path, root, fill_frames):
    write_list(root / "EPIC_100_train.csv", row(0, video="P27_103", rate=50, start=0, stop=0.5))
    fill_frames(root, "P27/rgb_frames/P27_103", range(1, 40))
    notes = prepare_epic_kitchens(root, tmp_path / "m.csv").notes
    assert any(note.startswith("the official frames of P27_103 were first published with errors") for note in notes)


def test_a_missing_list_omits_its_split(tmp_path, root, fill, match_notes):
    fill(root, "P02/videos/P02_101.MP4")
    (root / "EPIC_100_train.csv").unlink()
    prepared = prepare_epic_kitchens(root, tmp_path / "m.csv")
    assert match_notes(prepared.notes[:1], f"train EPIC_100_train.csv {root}")
    assert prepared.manifest.declared == {"val": 2}


@pytest.mark.parametrize(
    ("cells", "word", "facts"),
    [
        ({"noun_class": ""}, "", {"line": 3, "field": "noun_class"}),
        ({"verb_class": ""}, "", {"line": 3, "field": "verb_class"}),
        ({"stop_frame": ""}, "narration_id", {"line": 3, "field": "stop_frame"}),
        ({"verb_class": 97}, "97", {"line": 3, "field": "verb_class"}),
        ({"noun_class": 300}, "300", {"line": 3, "field": "noun_class"}),
        ({"noun_class": -1}, "-1", {"line": 3, "field": "noun_class"}),
        ({"noun_class": "door"}, "", {"line": 3, "field": "noun_class"}),
        ({"stop_timestamp": "00:00:01.00"}, "01.00", {"line": 3, "field": "stop_timestamp"}),
        ({"stop_frame": 59}, "start_frame", {"line": 3, "field": "stop_frame"}),
        ({"start_frame": 0}, "stop_frame", {"line": 3, "field": "start_frame"}),
        ({"start_timestamp": "1.0"}, "SS.SS", {"line": 3, "field": "start_timestamp"}),
        ({"start_timestamp": "00:00:61.00"}, "00:00:61.00", {"line": 3, "field": "start_timestamp"}),
        ({"video_id": "../P01_01"}, "../P01_01", {"line": 3, "field": "video_id"}),
        ({"participant_id": "P02"}, "P01_01", {"line": 3, "field": "video_id"}),
    ],
)
def test_an_invalid_line_is_refused_with_its_field(raises, tmp_path, cells, word, facts):
    path = tmp_path / "EPIC_100_train.csv"
    write_list(path, row(0), row(1, **cells))
    with raises(ManifestError, word, path=path, **facts):
        read_segments(path, "train", {head: ["a"] * count for head, count in CLASSES.items()})


def test_an_unrelated_list_is_refused(raises, tmp_path, root, fill):
    fill(root, "P01/videos/P01_01.MP4")
    out = tmp_path / "m.csv"
    train, validation = root / "EPIC_100_train.csv", root / "EPIC_100_validation.csv"
    original = train.read_text()
    for columns in (COLUMNS[:-2], ("path", "label")):  # that of the test segments; one of another data set
        write_list(train, ",".join(columns), columns=columns)
        missing = next(column for column in (*SEGMENT_COLUMNS, "verb_class") if column not in columns)
        with raises(ManifestError, path="EPIC_100_train.csv", line=1, field=missing):
            prepare_epic_kitchens(root, out)
    shutil.copy(validation, train)
    with raises(ManifestError, "EPIC_100_train.csv", path="EPIC_100_validation.csv", line=2):
        prepare_epic_kitchens(root, out)
    train.write_text(original + original.splitlines()[1] + "\n")
    with raises(ManifestError, "P01_01_0", path="EPIC_100_train.csv", line=4):
        prepare_epic_kitchens(root, out)


def test_a_class_list_of_another_head_is_refused(raises, tmp_path):
    write_classes(tmp_path)
    verbs, nouns = (tmp_path / f"EPIC_100_{head}_classes.csv" for head in CLASSES)
    assert read_classes(verbs, "verb")[96] == "verb:96"
    with raises(ManifestError, "EPIC-KITCHENS-100", path="EPIC_100_noun_classes.csv"):
        read_classes(nouns, "verb")
    lines = verbs.read_text().splitlines()
    for changed, word, facts in (
        ([*lines[:3], *lines[4:]], "'3'", {"line": 4, "field": "id"}),
        ([*lines[:3], "2,,[],things", *lines[4:]], "'2'", {"line": 4, "field": "id"}),
        ([*lines[:3], "2,verb:1,[],things", *lines[4:]], "verb:1", {"line": 4}),
        (["verb", *(line.split(",")[1] for line in lines[1:])], "", {"line": 1, "field": "id"}),
    ):
        verbs.write_text("\n".join(changed))
        with raises(ManifestError, word, path=verbs, **facts):
            read_classes(verbs, "verb")


def test_a_wrong_root_is_refused(raises, tmp_path, root):
    out = tmp_path / "m.csv"
    with raises(ManifestError, path="gone", field="root"):
        prepare_epic_kitchens(tmp_path / "gone", out)
    with raises(ManifestError, "EPIC_100_verb_classes.csv"):
        prepare_epic_kitchens(tmp_path, out)
    with raises(ManifestError, "P01/videos/P01_01.MP4", path="e"):
        prepare_epic_kitchens(root, out)
    for name in ("train", "validation"):
        (root / f"EPIC_100_{name}.csv").unlink()
    with raises(ManifestError, "EPIC_100_train.csv", path="e"):
        prepare_epic_kitchens(root, out)
    assert not out.exists()


def test_the_command_prints_a_summary(capsys, tmp_path, root, fill):
    fill(root, "P01/videos/P01_01.MP4")
    main(["prepare", "epic_kitchens", "--root", str(root), "--out", str(tmp_path / "m.csv")])
    output = "".join(capsys.readouterr())
    assert "2 segments of EPIC_100_train.csv, EPIC_100_validation.csv are not on disk" in output
    assert "2 train, 0 of 2 declared val; 97 of verb, 300 of noun; 0 files cannot be read" in output


@pytest.fixture(scope="module")
def real(real_data):
    return real_data / "annotations" / "epic_kitchens_100"


@pytest.fixture(scope="module")
def real_classes(real):
    return {head: read_classes(real / f"EPIC_100_{head}_classes.csv", head) for head in CLASSES}


@pytest.fixture(scope="module")
def real_segments(real, real_classes):
    return read_segments(real / "EPIC_100_validation.csv", "val", real_classes)


def test_the_real_class_lists_have_97_verbs_and_300_nouns(raises, real):
    verbs, nouns = (read_classes(real / f"EPIC_100_{head}_classes.csv", head) for head in ("verb", "noun"))
    assert (len(verbs), len(nouns)) == (97, 300)
    assert verbs[:3] == ("take", "put", "wash")
    assert nouns[:3] == ("tap", "spoon", "plate")
    assert (verbs[-1], nouns[-1]) == ("unfreeze", "extract:vanilla")
    with raises(ManifestError, "EPIC-KITCHENS-100", path="EPIC_100_noun_classes_v2.csv"):
        read_classes(real / "EPIC_100_noun_classes_v2.csv", "noun")


@pytest.mark.long  # 9,668 segments with checked types take 20 seconds
def test_the_real_lists_have_the_official_number_of_segments(real_segments):
    assert len(real_segments) == 9_668 == COUNTS["val"]
    entries = [segment.sample.entry for segment in real_segments]
    assert len({entry.rgb for entry in entries}) == 138
    first = entries[0]
    assert (first.sample, first.subject, first.rgb, first.group) == ("P01_11_0", "P01", "P01_11", "P01_11")
    assert (first.start_s, first.stop_s, *real_segments[0][1:]) == (0.0, 1.89, 1, 113)
    assert first.labels == {"verb": "take", "noun": "plate"}


@pytest.mark.long
def test_the_list_of_the_source_domain_is_read(real, real_classes):
    """Its format is that of the full training list, which is not among the real data."""
    assert len(read_segments(real / "EPIC_100_uda_source_train.csv", "train", real_classes)) == 16_115


@pytest.mark.long
def test_official_frame_numbers_are_at_60_fps_for_all_videos(real, real_segments):
    """All videos of the list are of EPIC-KITCHENS-55, some at 29.97, 47.95 or 90 fps."""
    with (real / "EPIC_100_video_info.csv").open() as file:
        rates = {video["video_id"]: round(float(video["fps"]), 2) for video in csv.DictReader(file)}
    assert {rates[segment.sample.entry.rgb] for segment in real_segments} == {29.97, 47.95, 59.94, 90.0}
    for segment in real_segments:
        assert abs(segment.stop_frame - 60 * segment.sample.entry.stop_s) <= 1
        assert abs(segment.start_frame - max(1, 60 * segment.sample.entry.start_s)) <= 1


@pytest.mark.long
def test_the_real_lists_are_counted_against_the_disk(tmp_path, real, fill, match_notes):
    """The start of the source domain's list serves as the training list."""
    root = fill(tmp_path / "e", "P01/videos/P01_01.MP4", "P01/videos/P01_11.MP4")
    for name in ("verb_classes", "noun_classes", "validation"):
        (root / f"EPIC_100_{name}.csv").symlink_to(real / f"EPIC_100_{name}.csv")
    lines = (real / "EPIC_100_uda_source_train.csv").read_text().splitlines()[:1001]
    (root / "EPIC_100_train.csv").write_text("\n".join(lines))
    prepared = prepare_epic_kitchens(root, tmp_path / "m.csv")
    manifest = prepared.manifest
    assert manifest.declared == {"train": 1000, "val": 9_668}
    assert {entry.group for entry in manifest.entries} == {"P01_01", "P01_11"}
    validation = (real / "EPIC_100_validation.csv").read_text().splitlines()
    assert len(manifest.positions("val")) == sum(line.startswith("P01_11_") for line in validation)
    assert match_notes(prepared.notes[:1], "EPIC_100_train.csv 1000 samples 67217")
    left_out = 1000 + 9_668 - len(manifest.entries)
    assert prepared.notes[1].startswith(f"{left_out} segments of EPIC_100_train.csv, EPIC_100_validation.csv are not")
    val = manifest.entries[manifest.positions("val")[0]]
    assert (val.sample, val.labels) == ("P01_11_0", {"verb": "take", "noun": "plate"})

"""Tests of the check: every kind of finding, with its line and file, and the journal of inspections."""

import json
import os
import shutil
import time

import fsspec
import numpy as np
import pytest

from kinema.curation import inspections
from kinema.curation.check import check
from kinema.curation.findings import SEVERITY
from kinema.curation.inspections import MediaFile, inspect_all, journal_path
from kinema.data.manifest import Entry, write_manifest
from kinema.errors import ManifestError
from kinema.modality import DepthFacts
from kinema.video.read_options import Limits, ReadOptions

HERE = ReadOptions()
"""Options that read in this process, since a reader process takes a second to start."""


def noise(seed, frames=20, levels=256):
    """Return coarse random frames, different for each seed."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, levels, (frames, 6, 8, 1), dtype=np.uint8).repeat(8, 1).repeat(8, 2).repeat(3, 3)


@pytest.fixture(scope="session")
def films(tmp_path_factory, write_video):
    """Return a folder with six different videos of 20 frames, and depth for four of them."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(6):
        write_video(folder / f"{number}.mp4", noise(number))
    for number in range(4):
        depth = (500 + 10 * noise(number)[..., 0].astype(np.uint16)).astype(np.uint16)
        write_video(folder / f"{number}.mkv", depth, codec="ffv1", pixel_format="gray16le", options={})
    return folder


@pytest.fixture
def folder(films, tmp_path):
    shutil.copytree(films, tmp_path / "set")
    return tmp_path / "set"


def sample(number, *, label="", split="", **fields):
    """Return one of six samples of two classes: four of train, two of test."""
    fields = {"rgb": f"{number}.mp4", "frames": 20} | fields
    return Entry(
        split=split or ("train" if number < 4 else "test"), labels={"label": label or "ab"[number % 2]}, **fields
    )


def samples(**of_third):
    """Return the six samples, with some fields of the third replaced."""
    return [sample(number, **(of_third if number == 2 else {})) for number in range(6)]


@pytest.fixture
def checked(folder, depth_facts):
    def run(entries, *, classes=("a", "b"), depth=depth_facts, read_options=HERE, workers=1, **options):
        manifest = write_manifest(
            folder / "m.csv", entries=entries, classes={"label": classes}, dataset="films", version="1", depth=depth
        )
        return check(manifest, journal=folder / "journal.jsonl", read_options=read_options, workers=workers, **options)

    return run


def facts_of(result):
    return [(finding.kind, finding.line, finding.file) for finding in result.findings]


def test_a_clean_dataset_has_no_findings(checked):
    result = checked([sample(n, depth=f"{n}.mkv" if n < 4 else "") for n in range(6)])
    assert facts_of(result) == []
    assert (result.faults, result.notes, result.bad_files, result.incomparable) == ((), (), {}, 0)
    assert len(result.inspections) == 10
    assert result.num_cached == 0


def test_files_that_cannot_be_read_are_named_with_their_line(checked, folder, write_sound):
    (folder / "0.mp4").unlink()
    (folder / "1.mp4").write_text("no video")
    write_sound(folder / "2.mp4", codec="aac")
    (folder / "3.mp4").write_bytes((folder / "3.mp4").read_bytes()[:1000])
    result = checked(samples())
    assert facts_of(result)[:4] == [
        ("missing", 2, "0.mp4"),
        ("unreadable", 3, "1.mp4"),
        ("unreadable", 5, "3.mp4"),
        ("no video stream", 4, "2.mp4"),
    ]
    assert str(folder) not in result.faults[1].sentence
    assert list(result.bad_files) == ["0.mp4", "1.mp4", "3.mp4", "2.mp4"]
    assert result.incomparable == 4
    assert result.faults[0].modality == "rgb"


def test_a_file_of_many_lines_is_reported_once(checked, folder):
    (folder / "0.mp4").unlink()
    entries = [sample(0, start_frame=n, stop_frame=n + 5) for n in range(4)]
    (fault,) = [f for f in checked([*entries, *samples()[1:]]).faults if f.kind == "missing"]
    assert fault.line == 2
    assert "3 more lines" in fault.sentence


def test_a_wrong_number_of_frames_in_the_manifest(checked):
    result = checked(samples(frames=21))
    assert facts_of(result) == [("frame count", 4, "2.mp4")]
    assert "frames=21" in result.faults[0].sentence
    assert "20 decode" in result.faults[0].sentence
    assert result.bad_files == {}  # fixed in the manifest


@pytest.mark.parametrize(
    ("segment", "kind", "numbers"),
    [
        ({"start_frame": 2, "stop_frame": 21}, "segment", ("stop_frame=21", "20 frames")),
        ({"start_s": 0.1, "stop_s": 1.0}, "segment", ("stop_s=1.0", "0.800 s")),
        ({"start_frame": 3, "stop_frame": 4}, "short segment", ("1 frames",)),
        ({"start_s": 0.40, "stop_s": 0.44}, "short segment", ("1 frames",)),
        ({"start_s": 0.0, "stop_s": 0.4}, "shorter than a clip", ("10 frames", "16")),
    ],
)
def test_invalid_segments(checked, segment, kind, numbers):
    result = checked(samples(frames=None, **segment))
    assert facts_of(result) == [(kind, 4, "2.mp4")]
    assert all(number in result.findings[0].sentence for number in numbers)


def test_a_segment_up_to_the_end_fits(checked):
    assert facts_of(checked(samples(start_s=0.0, stop_s=0.8))) == []
    assert facts_of(checked(samples(start_frame=4, stop_frame=20))) == []


def test_seconds_without_time_stamps(checked, folder, fill_pictures):
    fill_pictures(folder, "pictures", count=12)
    result = checked(samples(rgb="pictures", frames=None, start_s=0.0, stop_s=0.5))
    assert ("segment", 4, "pictures") in facts_of(result)


def test_videos_of_a_single_frame_and_shorter_than_a_clip(checked, folder, write_video):
    write_video(folder / "2.mp4", noise(2, frames=1))
    write_video(folder / "3.mp4", noise(3, frames=9))
    entries = [sample(n, frames=None) for n in range(6)]
    result = checked(entries)
    assert facts_of(result) == [("too short", 4, "2.mp4"), ("shorter than a clip", 5, "3.mp4")]
    assert [finding.severity for finding in result.findings] == ["fault", "note"]
    assert facts_of(checked(entries, clip_frames=9)) == [("too short", 4, "2.mp4")]


def test_rgb_and_depth_of_unequal_lengths(checked, folder, write_video):
    depth = np.full((18, 48, 64), 900, np.uint16) + noise(9, frames=18)[..., 0]
    write_video(folder / "2.mkv", depth.astype(np.uint16), codec="ffv1", pixel_format="gray16le", options={})
    result = checked(samples(depth="2.mkv"))
    assert facts_of(result) == [("unequal lengths", 4, "2.mkv")]
    assert "18 frames" in result.faults[0].sentence
    assert "2.mp4 has 20" in result.faults[0].sentence
    assert list(result.bad_files) == ["2.mkv"]


def test_depth_outside_the_range(checked, folder, write_video):
    assert facts_of(checked(samples(depth="2.mkv"), depth=None)) == [("depth range", 4, "2.mkv")]
    write_video(folder / "8.mkv", noise(8)[..., 0], codec="ffv1", pixel_format="gray", options={})
    result = checked(samples(depth="8.mkv"))
    assert facts_of(result) == [("depth range", 4, "8.mkv")]
    assert "8-bit depth" in result.faults[0].sentence
    assert "500" in result.faults[0].sentence
    eight = DepthFacts(unit_mm=None, near=0, far=255, coverage="full")
    assert facts_of(checked(samples(depth="8.mkv"), depth=eight)) == []


def test_one_sample_in_two_splits_and_one_video_in_two_splits(checked):
    again = [*samples(), sample(0, split="test", label="a")]
    assert facts_of(checked(again)) == [("same sample", 8, "0.mp4")]
    parts = [
        *samples()[1:],
        sample(0, start_frame=0, stop_frame=16),
        sample(0, split="test", start_frame=4, stop_frame=20),
    ]
    assert facts_of(checked(parts)) == [("same sample", 8, "0.mp4")]
    frames = [{"start_frame": 0, "stop_frame": 10}, {"start_frame": 10, "stop_frame": 20}]
    other = [*samples()[1:], sample(0, **frames[0]), sample(0, split="test", **frames[1])]
    assert facts_of(checked(other, clip_frames=8)) == [("same video", 8, "0.mp4")]
    apart = [*samples()[1:], sample(0, start_s=0.0, stop_s=0.4), sample(0, split="test", start_s=0.4, stop_s=0.8)]
    result = checked(apart, clip_frames=8)
    assert facts_of(result) == [("same video", 8, "0.mp4")]
    assert "line 7" in result.notes[0].sentence


def test_a_copy_is_found_in_another_split_only(checked, folder, write_video):
    write_video(folder / "copy.mp4", noise(4)[2:, ::2, ::2], options={"crf": "28"})
    result = checked([*samples(), sample(3, rgb="copy.mp4", frames=18)])
    assert facts_of(result) == [("near-duplicate", 8, "copy.mp4"), ("resolutions", 0, "")]
    assert "copy of 4.mp4 in test (line 6)" in result.faults[0].sentence
    assert "motion similarity 0.9" in result.faults[0].sentence
    (copies,) = result.copies
    assert (copies.first, copies.second, copies.splits, copies.lines) == (
        "4.mp4",
        "copy.mp4",
        ("test", "train"),
        (6, 8),
    )
    inside = checked([*samples(), sample(5, rgb="copy.mp4", frames=18)])
    assert facts_of(inside) == [("resolutions", 0, "")]
    mirrored = noise(4)[:, :, ::-1]
    write_video(folder / "copy.mp4", [np.ascontiguousarray(picture) for picture in mirrored])
    assert "mirrored copy of 4.mp4" in checked([*samples(), sample(3, rgb="copy.mp4")]).faults[0].sentence


def test_one_video_with_two_labels(checked, folder):
    result = checked([*samples(), sample(0, label="b")])
    assert facts_of(result) == [("two labels", 8, "0.mp4")]
    assert result.faults[0].sentence == "has label b here, and a in line 2 (0.mp4)"
    shutil.copy(folder / "0.mp4", folder / "copy.mp4")
    assert facts_of(checked([*samples(), sample(0, rgb="copy.mp4", label="b")])) == [("two labels", 8, "copy.mp4")]
    assert facts_of(checked([*samples(), sample(0, rgb="copy.mp4")])) == []
    assert facts_of(checked([*samples(), sample(0, label="b", start_frame=0, stop_frame=16)])) == []


def test_different_actions_before_one_fixed_camera_are_no_copies(checked, folder, write_video):
    for name, places in (("t", range(20)), ("v", range(20, 0, -1))):
        pictures = noise(9)[:1].repeat(20, 0)
        for picture, place in zip(pictures, places, strict=True):
            picture[20:22, 20 + place : 22 + place] = 255 - picture[20:22, 20 + place : 22 + place]
        write_video(folder / f"{name}.mp4", pictures)
    filmed = [*samples(), sample(0, rgb="t.mp4"), sample(4, rgb="v.mp4", label="b")]
    assert facts_of(checked(filmed)) == []
    shutil.copy(folder / "t.mp4", folder / "same.mp4")
    assert facts_of(checked([*filmed, sample(4, rgb="same.mp4")])) == [("near-duplicate", 8, "t.mp4")]


def test_the_copy_in_train_is_reported_for_removal(checked, folder):
    shutil.copy(folder / "4.mp4", folder / "copy.mp4")
    entries = [sample(n, split="train" if n < 4 else "val") for n in range(6)]
    result = checked([*entries, sample(3, rgb="copy.mp4")])
    assert list(result.bad_files) == ["copy.mp4"]
    assert "4.mp4 in val" in result.faults[0].sentence


def test_copies_of_depth_are_found_without_rgb(checked, folder):
    shutil.copy(folder / "0.mkv", folder / "copy.mkv")
    entries = [sample(n, rgb="", depth=f"{n}.mkv") for n in range(4)]
    result = checked([*entries, sample(4, rgb="", depth="copy.mkv"), sample(5, rgb="", depth="1.mkv", split="train")])
    assert ("near-duplicate", 2, "0.mkv") in facts_of(result)


def test_groups_and_subjects_in_more_than_one_split(checked):
    entries = [sample(n, group=f"g{n % 4}", subject=f"s{n}") for n in range(6)]
    result = checked(entries)
    assert facts_of(result) == [("shared group", 0, "")]
    assert result.notes[0].sentence.startswith("2 groups (g0, g1) ")
    for names in (("s1", "s1"), ("Anna", "anna")):
        people = [sample(n, subject=names[n > 3]) for n in range(6)]
        assert facts_of(checked(people)) == [("shared subject", 0, "")]


def test_two_spellings_of_one_class_are_reported(checked):
    result = checked(samples(), classes=("a", "b", "A"))
    assert "similar classes" in {finding.kind for finding in result.faults}


def test_classes_without_samples_and_imbalanced_classes(checked):
    result = checked(samples(), classes=("a", "b", "c", "d"))
    assert [finding.kind for finding in result.findings] == ["untrained class", "untested class"]
    for finding, split in zip(result.findings, ("train", "test"), strict=True):
        assert finding.sentence.startswith(split)
        assert finding.sentence.endswith("2 of 4 classes: c, d")
    many = [*samples(), *(sample(0, start_frame=n, stop_frame=n + 2) for n in range(18))]
    (note,) = [finding for finding in checked(many, clip_frames=2).findings if finding.kind == "imbalance"]
    assert all(part in note.sentence for part in ("'a' has 20", "'b' has 2"))


def test_without_a_split_called_train_no_class_is_untrained(checked):
    assert facts_of(checked([sample(n, split="test") for n in range(6)], classes=("a", "b", "c"))) == [
        ("untested class", 0, "")
    ]


def test_a_split_that_declares_more_than_is_listed(folder, depth_facts):
    manifest = write_manifest(
        folder / "m.csv",
        entries=samples(),
        classes={"label": ("a", "b")},
        dataset="films",
        version="1",
        depth=depth_facts,
        declared={"train": 4, "test": 3},
    )
    result = check(manifest, journal=folder / "journal.jsonl", read_options=HERE)
    (finding,) = result.findings
    assert finding.kind == "declared"
    assert all(part in finding.sentence for part in ("test", "3", "2 samples"))


def test_only_the_given_splits_are_read(checked, folder, raises):
    for number in range(4):
        (folder / f"{number}.mp4").unlink()
    result = checked(samples(), splits=("test",))
    assert facts_of(result) == []
    assert len(result.entries) == len(result.inspections) == 2
    with raises(ManifestError, "'val'"):
        checked(samples(), splits=("val",))


def test_every_kind_has_a_severity_and_faults_come_first():
    severities = list(SEVERITY.values())
    assert severities == sorted(severities)


# -- journal of inspections --------------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch):
    """Record the names of the files that are decoded."""
    names = []
    plain = inspections.inspect

    def counted(path, *options):
        names.append(os.path.basename(path))
        return plain(path, *options)

    monkeypatch.setattr(inspections, "inspect", counted)
    return names


def test_unchanged_files_are_not_decoded_again(checked, folder, decoded, write_video):
    first = checked(samples())
    assert sorted(decoded) == [f"{n}.mp4" for n in range(6)]
    decoded.clear()
    second = checked(samples())
    assert decoded == []
    assert second.num_cached == 6
    assert (second.findings, second.inspections) == (first.findings, first.inspections)
    stat = os.stat(folder / "1.mp4")
    os.utime(folder / "1.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    write_video(folder / "3.mp4", noise(3, frames=12))
    os.utime(folder / "3.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    third = checked(samples())
    assert sorted(decoded) == ["1.mp4", "3.mp4"]
    assert facts_of(third) == [("frame count", 5, "3.mp4"), ("shorter than a clip", 5, "3.mp4")]


def test_a_folder_with_changed_images_is_decoded_again(folder, fill_pictures, decoded):
    fill_pictures(folder, "pictures", count=3)
    sources = [MediaFile(str(folder / "pictures"), "rgb")]
    options = {"read_options": HERE, "workers": 1, "journal": folder / "journal.jsonl"}
    assert inspect_all(sources, **options)[0][sources[0]].frames == 3
    assert inspect_all(sources, **options)[1] == 1
    shutil.copy(folder / "pictures" / "0.png", folder / "pictures" / "3.png")
    assert inspect_all(sources, **options)[0][sources[0]].frames == 4
    stat = os.stat(folder / "pictures" / "0.png")
    os.utime(folder / "pictures" / "0.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**12))
    assert inspect_all(sources, **options)[1] == 0
    assert decoded == ["pictures"] * 3


def test_inspections_are_in_the_order_of_the_request(folder, monkeypatch):
    plain = inspections.inspect

    def first_last(path, kind, read_options, _encoding=None):
        time.sleep(0.2 if path.endswith("0.mp4") else 0)
        return plain(path, kind, read_options)

    monkeypatch.setattr(inspections, "inspect", first_last)
    sources = [MediaFile(str(folder / f"{number}.mp4"), "rgb") for number in (3, 0, 2, 0, 1)]
    found = inspect_all(sources, read_options=HERE, workers=3, journal=folder / "journal.jsonl")[0]
    assert list(found) == [sources[0], sources[1], sources[2], sources[4]]


def test_remote_files_are_cached(checked, folder, decoded):
    for number in range(6):
        with fsspec.open(f"memory://checked/{number}.mp4", "wb") as file:
            file.write((folder / f"{number}.mp4").read_bytes())
    entries = [sample(n, rgb=f"memory://checked/{n}.mp4") for n in range(6)]
    read_options = ReadOptions(cache=folder / "copies")
    assert facts_of(checked(entries, read_options=read_options)) == []
    assert checked(entries, read_options=read_options).num_cached == 6
    assert len(decoded) == 6
    gone = checked([*entries, sample(0, rgb="memory://checked/gone.mp4", frames=None)], read_options=read_options)
    assert facts_of(gone) == [("missing", 8, "memory://checked/gone.mp4")]


def test_a_missing_file_is_not_cached(checked, folder):
    (folder / "0.mp4").rename(folder / "away.mp4")
    assert facts_of(checked(samples())) == [("missing", 2, "0.mp4")]
    (folder / "away.mp4").rename(folder / "0.mp4")
    assert facts_of(checked(samples())) == []


def test_an_interrupted_check_resumes(checked, decoded):
    def stop(done, total, _):
        assert total == 6
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checked(samples(), progress=stop)
    before = len(decoded)
    assert 3 <= before < 6
    counts = []
    result = checked(samples(), progress=lambda *numbers: counts.append(numbers))
    assert result.num_cached == before
    assert sorted(decoded) == [f"{n}.mp4" for n in range(6)]
    assert [done for done, _, _ in counts] == [1, 2, 3, 4, 5, 6]
    assert counts[-1] == (6, 6, before)


def test_each_result_is_on_disk_before_progress_is_reported(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.mp4").write_text("no video")
    sources, journal, lines = [MediaFile(str(tmp_path / f"{n}.mp4"), "rgb") for n in range(5)], tmp_path / "m.jsonl", []
    inspect_all(
        sources,
        read_options=HERE,
        workers=1,
        journal=journal,
        progress=lambda done, _: lines.append(len(journal.read_bytes().splitlines()) >= done),
    )
    assert lines == [True] * 5


def test_an_incomplete_line_of_the_journal_is_ignored(checked, folder, decoded):
    checked(samples())
    journal = folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-100])
    decoded.clear()
    assert checked(samples()).num_cached == 5
    assert len(decoded) == 1
    assert checked(samples()).num_cached == 6
    journal.write_bytes(b'{"version": 7}\nnonsense\n[]\n\xff\xfe\n' + journal.read_bytes())
    assert checked(samples()).num_cached == 6


def test_results_of_other_limits_or_versions_are_ignored(checked, decoded, monkeypatch):
    result = checked(samples(), read_options=ReadOptions(limits=Limits(frames=10)))
    assert {finding.kind for finding in result.faults} == {"unreadable"}
    assert facts_of(checked(samples())) == []
    monkeypatch.setattr(inspections, "VERSION", 99)
    decoded.clear()
    checked(samples())
    assert len(decoded) == 6


def test_manifests_in_one_folder_share_a_journal(tmp_path):
    one, two, other = (journal_path(tmp_path / name, tmp_path) for name in ("a.csv", "b.csv", "c/a.csv"))
    assert one == two != other
    assert one.parent == tmp_path


def test_threads_and_processes_give_the_result_of_one_thread(checked, folder):
    (folder / "1.mp4").write_text("no video")
    entries = [sample(n, depth=f"{n}.mkv" if n < 4 else "") for n in range(6)]
    alone = checked(entries)
    (folder / "journal.jsonl").unlink()
    together = checked(entries, read_options=ReadOptions(isolation="process"), workers=2)
    assert together.num_cached == 0
    assert together.inspections == alone.inspections
    assert list(together.inspections) == list(alone.inspections)
    assert together.findings == alone.findings
    record = json.loads((folder / "journal.jsonl").read_text().splitlines()[0])
    assert set(record) == {"version", "path", "kind", "state", "inspection"}


def test_a_timeout_of_a_reader_process_is_not_cached(folder):
    source = MediaFile(str(folder / "0.mp4"), "rgb")
    hasty = ReadOptions(isolation="process", timeout_s=1e-4)
    journal = folder / "journal.jsonl"
    inspection = inspect_all([source], read_options=hasty, workers=1, journal=journal)[0][source]
    assert inspection.problem == "unreadable"
    assert "process" in inspection.reason
    assert inspect_all([source], read_options=HERE, workers=1, journal=journal)[0][source].problem == ""


def test_unusual_file_names(checked, folder):
    names = ["a @ (1)! '.mp4", "Übermut größer.mp4", "100% #7 & <b>.mp4", "äöü [x];{y}.mp4", "c:d.mp4", "%05d.mp4"]
    for number, name in enumerate(names):
        (folder / f"{number}.mp4").rename(folder / name)
    assert facts_of(checked([sample(n, rgb=name) for n, name in enumerate(names)])) == []

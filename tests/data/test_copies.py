"""Copies of samples in another split: same frames, same content, or nearly the same video."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from kinema.data.copies import find_copies
from kinema.data.manifest import Entry, write_manifest
from kinema.video.read_options import READ_OPTIONS


def film(seed, frames=24, size=48):
    """Return a picture with a bright square on a path of its own."""
    generator = np.random.default_rng(seed)
    background = generator.integers(40, 120, (6, 6)).repeat(size // 6, 0).repeat(size // 6, 1)
    pictures = np.repeat(background[None], frames, 0)
    steps = np.cumsum(generator.normal(0, 5, (frames, 2)), 0) + size / 2
    for picture, (y, x) in zip(pictures, np.clip(steps, 0, size - 12).astype(int), strict=True):
        picture[y : y + 12, x : x + 12] = 230
    return pictures.astype(np.uint8)[..., None].repeat(3, -1)


@pytest.fixture
def compare(tmp_path, write_video):
    """Return a function that writes three training clips, and compares them with the given validation entries."""
    for seed in range(3):
        write_video(tmp_path / f"t{seed}.mp4", film(seed))

    def compare(*entries):
        own = [
            Entry(rgb=f"t{seed}.mp4", frames=24, split="train", labels={"label": "ab"[seed % 2]}) for seed in range(3)
        ]
        others = [replace(entry, split="val", labels={"label": "a"}) for entry in entries]
        manifest = write_manifest(
            tmp_path / "m.csv",
            entries=[*own, *others],
            classes={"label": ("a", "b")},
            dataset="",
            version="",
            depth=None,
        )
        copies, shared = find_copies(manifest, range(len(own)), range(len(own), len(manifest.entries)), READ_OPTIONS)
        return [(copy.first.rgb, copy.second.rgb) for copy in copies], shared

    return compare


def test_other_clips_are_no_copies(tmp_path, write_video, compare):
    write_video(tmp_path / "v.mp4", film(7))
    assert compare(Entry(rgb="v.mp4")) == ([], 0)


VARIANTS = {
    "re-encoded": {"codec": "mpeg4", "options": {}},
    "smaller": {"scale": 2},
    "mirrored": {"mirrored": True},
    "brighter": {"gain": 20},
    "trimmed": {"skip": 4},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_near_duplicates_are_found(tmp_path, write_video, compare, variant):
    facts = dict(VARIANTS[variant])
    pictures = film(1)[facts.pop("skip", 0) :].astype(int) + facts.pop("gain", 0)
    pictures = np.clip(pictures, 0, 255).astype(np.uint8)
    step = facts.pop("scale", 1)
    pictures = pictures[:, ::step, ::step][:, :, :: -1 if facts.pop("mirrored", False) else 1]
    write_video(tmp_path / "v.mp4", pictures, **facts)
    assert compare(Entry(rgb="v.mp4")) == ([("t1.mp4", "v.mp4")], 0)


def test_a_copied_file_is_found_even_if_nothing_decodes(tmp_path, compare):
    (tmp_path / "t0.mp4").write_bytes(b"no video")
    shutil.copy(tmp_path / "t0.mp4", tmp_path / "v.mp4")
    shutil.copy(tmp_path / "t1.mp4", tmp_path / "w.avi")
    assert compare(Entry(rgb="v.mp4"), Entry(rgb="w.avi")) == ([("t1.mp4", "w.avi"), ("t0.mp4", "v.mp4")], 0)


def test_segments_of_one_recording_are_copies_if_they_overlap(compare):
    assert compare(Entry(rgb="t2.mp4")) == ([("t2.mp4", "t2.mp4")], 0)
    assert compare(Entry(rgb="t2.mp4", start_frame=2, stop_frame=9))[0] == [("t2.mp4", "t2.mp4")]


def test_other_segments_of_one_recording_are_counted(tmp_path):
    entries = [
        Entry(rgb="t.mp4", start_frame=begin, stop_frame=begin + 8, split=split, labels={"label": label})
        for begin, split, label in ((0, "train", "a"), (8, "train", "b"), (16, "val", "a"))
    ]
    manifest = write_manifest(
        tmp_path / "m.csv", entries=entries, classes={"label": ("a", "b")}, dataset="", version="", depth=None
    )
    assert find_copies(manifest, [0, 1], [2], READ_OPTIONS) == ([], 1)


def test_signatures_of_many_frames_are_stored(tmp_path, write_video, compare, monkeypatch):
    monkeypatch.setattr("kinema.data.copies.SLOW_FRAMES", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_video(tmp_path / "v.mp4", film(1))
    assert compare(Entry(rgb="v.mp4")) == ([("t1.mp4", "v.mp4")], 0)
    monkeypatch.setattr("kinema.data.copies.signature_of", lambda *_: pytest.fail("decoded again"))
    assert compare(Entry(rgb="v.mp4")) == ([("t1.mp4", "v.mp4")], 0)


def test_too_many_frames_are_said(tmp_path, write_video, compare, monkeypatch, caplog):
    write_video(tmp_path / "v.mp4", film(1))
    monkeypatch.setattr("kinema.data.copies.MAX_FRAMES", 10)
    assert compare(Entry(rgb="v.mp4"))[0] in ([], [("t1.mp4", "v.mp4")])
    assert "kinema check" in caplog.text


def test_a_missing_file_among_many_has_no_signature(tmp_path, compare, monkeypatch):
    monkeypatch.setattr("kinema.data.copies.SLOW_FRAMES", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        assert compare(Entry(rgb="missing.mp4")) == ([], 0)


def test_different_actions_before_one_fixed_camera_are_no_copies(tmp_path, write_video):
    """People are small: their motion is lost in a signature, and the background is the same."""
    background = np.random.default_rng(0).integers(0, 255, (12, 12)).repeat(8, 0).repeat(8, 1)
    for name, path in (("t", np.arange(24) % 12), ("v", np.arange(24)[::-1] // 2)):
        pictures = np.repeat(background[None], 24, 0)
        for picture, place in zip(pictures, path, strict=True):
            picture[40:44, 40 + place : 44 + place] = 255 - picture[40:44, 40 + place : 44 + place]
        write_video(tmp_path / f"{name}.mp4", pictures.astype(np.uint8)[..., None].repeat(3, -1))
    shutil.copy(tmp_path / "t.mp4", tmp_path / "same.mp4")
    entries = [
        Entry(rgb=f"{name}.mp4", frames=24, split=split, labels={"label": label})
        for name, split, label in (("t", "train", "a"), ("v", "val", "b"), ("same", "val", "a"))
    ]
    facts = {"classes": {"label": ("a", "b")}, "dataset": "", "version": "", "depth": None}
    copies, _ = find_copies(write_manifest(tmp_path / "m.csv", entries=entries, **facts), [0], [1, 2], READ_OPTIONS)
    assert [copy.second.rgb for copy in copies] == ["same.mp4"]

"""Tests of near-duplicates: altered copies are found, other recordings of the same place are not."""

import numpy as np
import pytest

from kinema.curation.inspect import inspect
from kinema.data import duplicates
from kinema.data.duplicates import SIDE, THRESHOLDS, TIMES, SignatureBuilder, near_duplicates, signature_images


def film(place, motion, frames=60, height=64, width=96, reach=24):
    """Return frames of a person-sized blob that moves over a background."""
    background = np.kron(np.random.default_rng(place).integers(30, 220, (4, 6)), np.ones((16, 16)))
    times = 2 * np.pi * np.arange(frames)[:, None] / 60
    way = np.array([32, 48]) + reach * np.sin(times * [1 + motion % 3, 1 + motion // 3] + [0, 1])
    y, x = np.mgrid[:height, :width]
    pictures = []
    for row, column in way:
        blot = np.exp(-(((y - row) / 14) ** 2 + ((x - column) / 8) ** 2))
        pictures.append(np.clip(background * (1 - blot) + 240 * blot, 0, 255))
    return np.repeat(np.stack(pictures)[..., None], 3, -1).astype(np.uint8)


def signature(pictures):
    builder = SignatureBuilder()
    for number, picture in enumerate(pictures):
        if builder.needs(number):
            height, width = picture.shape[:2]
            rows = np.add.reduceat(picture[..., 0].astype(float), np.arange(SIDE) * height // SIDE, axis=0)
            both = np.add.reduceat(rows, np.arange(SIDE) * width // SIDE, axis=1)
            builder.add(number, both * SIDE * SIDE / (height * width))
    return signature_images(builder.signature(len(pictures)))


@pytest.fixture(scope="module")
def films():
    """Return signatures of five motions in each of four places."""
    return np.stack([signature(film(place, motion)) for place in range(4) for motion in range(5)])


COPIES = {
    "re-encoded at low quality": lambda p: (p, {"crf": "36", "preset": "veryfast"}),
    "half the size": lambda p: (p[:, ::2, ::2], None),
    "trimmed at the start": lambda p: (p[12:], None),
    "trimmed at the end": lambda p: (p[:-12], None),
    "trimmed at both ends": lambda p: (p[6:-6], None),
    "lower frame rate": lambda p: (p[np.round(np.arange(0, 59, 5 / 3)).astype(int)], None),
    "brighter": lambda p: (np.clip(p * 1.1 + 10, 0, 255).astype(np.uint8), None),
    "mirrored": lambda p: (p[:, :, ::-1], None),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found(tmp_path, write_video, films, how):
    pictures, options = COPIES[how](film(2, 3))
    path = write_video(tmp_path / "copy.mp4", [np.ascontiguousarray(p) for p in pictures], options=options)
    copy = signature_images(inspect(path, "rgb").signature)
    (pair,) = near_duplicates(films, copy[None], THRESHOLDS["rgb"])
    assert (pair.first, pair.second, pair.mirrored) == (13, 0, how == "mirrored")
    assert pair.motion > 0.92
    (turned,) = near_duplicates(copy[None], films, THRESHOLDS["rgb"])
    assert (turned.first, turned.second) == (0, 13)


def test_other_motions_and_other_places_are_not_copies(films):
    others = np.stack([signature(film(place, motion)) for place in range(4) for motion in range(5, 9)])
    assert near_duplicates(films, others, THRESHOLDS["rgb"]) == []
    elsewhere = np.stack([signature(film(place, motion)) for place in range(4, 8) for motion in range(5)])
    assert near_duplicates(films, elsewhere, THRESHOLDS["rgb"]) == []


def test_the_same_path_with_another_amplitude_is_a_candidate_but_not_a_copy(films):
    alike = np.stack([signature(film(0, motion, reach=16)) for motion in range(5)])
    moving = np.ones(5, bool)
    assert len(duplicates._candidates(films[:5], alike, moving, moving)) >= 3
    assert near_duplicates(films[:5], alike, THRESHOLDS["rgb"]) == []


def test_pairs_are_unique_and_sorted_by_similarity(films):
    found = near_duplicates(films[:6], films[3:9], THRESHOLDS["rgb"])
    assert sorted((pair.first, pair.second) for pair in found) == [(3, 0), (4, 1), (5, 2)]
    assert [pair.motion for pair in found] == sorted((pair.motion for pair in found), reverse=True)
    assert all(pair.motion > 0.999 for pair in found)
    assert near_duplicates(films[:0], films, THRESHOLDS["rgb"]) == []


def test_the_size_of_a_block_changes_nothing(films, monkeypatch):
    whole = near_duplicates(films, films, THRESHOLDS["rgb"])
    monkeypatch.setattr(duplicates, "BLOCK", 45)
    assert near_duplicates(films, films, THRESHOLDS["rgb"]) == whole
    assert len(whole) == 20


def test_still_videos_with_the_same_image_are_copies():
    still = np.stack([signature(np.repeat(film(place, 0, frames=1), 20, 0)) for place in range(6)])
    found = near_duplicates(still[:4], still[2:], THRESHOLDS["rgb"])
    assert sorted((pair.first, pair.second) for pair in found) == [(2, 0), (3, 1)]
    mirrored = near_duplicates(still[:1], still[:1, :, :, ::-1], THRESHOLDS["rgb"])
    assert [(pair.first, pair.second, pair.mirrored) for pair in mirrored] == [(0, 0, True)]


def test_a_still_video_is_not_a_copy_of_a_moving_one(films):
    still = signature(np.repeat(film(1, 1).mean(0, keepdims=True).astype(np.uint8), 20, 0))
    assert near_duplicates(films, still[None], THRESHOLDS["rgb"]) == []


def test_a_signature_is_the_mean_over_each_part():
    rng = np.random.default_rng(0)
    for frames in (1, 5, 32, 50, 128, 129, 500):
        pictures = rng.integers(0, 256, (frames, SIDE, SIDE)).astype(float)
        builder = SignatureBuilder()
        for number, picture in enumerate(pictures):
            builder.add(number, picture)
        # Repeat each image 32 times, which makes all parts equally long.
        expected = np.repeat(pictures, TIMES, 0).reshape(TIMES, frames, SIDE, SIDE).mean(1)
        got = signature_images(builder.signature(frames)).astype(float)
        low, high = expected.min(), expected.max()
        # Frames of long videos are merged, which blurs their means.
        blur = 1 if frames <= 128 else 60
        assert np.abs(got - (expected - low) / (high - low) * 255).max() < blur
        if frames > 128:
            assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.9


def test_memory_does_not_grow_with_the_length_of_a_video():
    builder = SignatureBuilder()
    expected = 0
    for number in range(100_000):
        if builder.needs(number):
            expected += 1
            builder.add(number, np.full((SIDE, SIDE), number % 255, float))
    assert len(builder._sums) <= duplicates.MAX_SEGMENTS
    assert expected < 5000


def test_a_blank_video_has_no_signature():
    builder = SignatureBuilder()
    assert builder.signature(0) == ""
    for number in range(10):
        builder.add(number, np.full((SIDE, SIDE), 16.0))
    assert builder.signature(10) == ""


# -- real recordings ---------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_real_clips_of_other_sources_are_not_copies_and_trimmed_ones_are(real_data, tmp_path, write_video):
    """J-HMDB has 465 x 173 pairs of different sources, two of them of one golfer in one studio."""
    import csv

    from kinema.video.source import read_rgb

    with (real_data / "jhmdb" / "annotations.csv").open() as file:
        rows = list(csv.DictReader(file))
    inspections = {row["path"]: inspect(str(real_data / "jhmdb" / row["path"]), "rgb") for row in rows}
    sides = [
        np.stack([signature_images(inspections[row["path"]].signature) for row in rows if row["split"] == split])
        for split in ("train", "val")
    ]
    assert near_duplicates(sides[0], sides[1], THRESHOLDS["rgb"]) == []
    found = 0
    for row in rows[::32]:
        frames = inspections[row["path"]].frames
        pictures = read_rgb(str(real_data / "jhmdb" / row["path"]), range(frames // 10, frames))
        path = write_video(tmp_path / "trimmed.mp4", list(pictures[:, ::2, ::2]), options={"crf": "24"})
        copy = signature_images(inspect(path, "rgb").signature)
        own = signature_images(inspections[row["path"]].signature)
        found += bool(near_duplicates(own[None], copy[None], THRESHOLDS["rgb"]))
    assert found >= 19  # of 20

"""Crop to the subject: one box per clip, from the readings of masked depth."""

import dataclasses

import numpy as np
import pytest

from kinema.data.dataset import Failure, VideoDataset
from kinema.data.samplers import Draw
from kinema.errors import ConfigError, ManifestError, RecipeError
from kinema.modality import DepthFacts
from kinema.training.recipe import Clip
from kinema.transforms.geometry import FULL_FRAME
from kinema.transforms.preprocessing import Preprocessing, SubjectCrop, subject_box
from kinema.transforms.sampling import Sampling, segment_indices
from kinema.video.video_file import VideoFile

MASKED = DepthFacts(unit_mm=1.0, near=500.0, far=4500.0, coverage="masked")
PLAIN = SubjectCrop(margin=0.0)


def mask(*parts, frames=3, height=100, width=200):
    """Return depth with readings only in these (frame, top, bottom, left, right)."""
    depth = np.zeros((frames, height, width), np.uint16)
    for frame, top, bottom, left, right in parts:
        depth[frame, top:bottom, left:right] = 1500
    return depth


def pixels(box, depth):
    rows, columns = box.pixels(*depth.shape[1:])
    return rows.start, rows.stop, columns.start, columns.stop


def test_the_box_holds_the_readings_of_all_frames_and_is_square():
    depth = mask((0, 30, 60, 80, 90), (2, 40, 70, 95, 100))
    assert pixels(subject_box(depth, PLAIN), depth) == (30, 70, 70, 110)


def test_a_box_that_is_wider_than_high_grows_in_height():
    depth = mask((0, 40, 50, 60, 120))
    assert pixels(subject_box(depth, PLAIN), depth) == (15, 75, 60, 120)


def test_the_margin_is_a_share_of_the_box_on_each_side():
    depth = mask((0, 30, 70, 80, 110))
    assert pixels(subject_box(depth, SubjectCrop(margin=0.25)), depth) == (20, 80, 65, 125)


@pytest.mark.parametrize(
    ("part", "box"),
    [
        ((0, 0, 40, 0, 10), (0, 48, 0, 48)),  # moved in from the corner
        ((0, 60, 100, 190, 200), (52, 100, 152, 200)),
        ((0, 10, 90, 20, 180), (0, 100, 4, 196)),  # as high as the frame allows
        ((0, 0, 100, 0, 200), (0, 100, 0, 200)),
    ],
    ids=str,
)
def test_the_box_stays_in_the_frame_and_keeps_the_person(part, box):
    depth = mask(part)
    top, bottom, left, right = got = pixels(subject_box(depth, SubjectCrop(margin=0.1)), depth)
    assert got == box
    assert top <= part[1]
    assert bottom >= part[2]
    assert left <= part[3]
    assert right >= part[4]


def test_frames_without_readings_change_nothing_and_a_clip_without_any_is_whole():
    part = (0, 30, 60, 80, 90)
    assert subject_box(mask(part, frames=5), PLAIN) == subject_box(mask(part, frames=1), PLAIN)
    assert subject_box(mask(), PLAIN) == FULL_FRAME


def test_specks_are_no_person():
    """A row or column counts where it has two readings, and one of every 100 pixels."""
    person = (0, 30, 60, 80, 90)
    assert subject_box(mask(person, (1, 2, 3, 5, 6)), PLAIN) == subject_box(mask(person), PLAIN)
    assert subject_box(mask((0, 50, 51, 3, 4)), PLAIN) == FULL_FRAME
    assert subject_box(mask(person, (1, 10, 14, 80, 83), width=400), PLAIN).top == 0.3
    depth = mask(person, (1, 10, 12, 80, 82))
    assert subject_box(depth, PLAIN).top == 0.1


def preprocessing(modalities, margin=0.1):
    return Preprocessing(
        modalities=modalities, short_side=36, size=32, depth=MASKED, subject=SubjectCrop(margin=margin)
    )


def masked(data_set):
    return dataclasses.replace(data_set, depth=MASKED)


@pytest.mark.parametrize("modalities", [("rgb",), ("depth",), ("rgb", "depth")], ids=str)
def test_a_sample_is_cut_to_its_subject(data_set, monkeypatch, modalities):
    """Depth of the clip's frames is read for the crop of an RGB model, too."""
    asked = []

    read_gray = VideoFile.read_gray

    def half_a_person(source, indices):
        asked.append(list(indices))
        depth = read_gray(source, indices)
        depth[:, :, :32] = 0
        return depth

    monkeypatch.setattr(VideoFile, "read_gray", half_a_person)
    data = VideoDataset(masked(data_set), sampling=Sampling(frames=4), preprocessing=preprocessing(modalities, 0.0))
    sample = data[Draw(0)]
    assert set(sample["inputs"]) == set(modalities)
    assert asked == [segment_indices(10, 4, None).tolist()]
    whole = dataclasses.replace(data.preprocessing, subject=None)
    plain = VideoDataset(masked(data_set), sampling=Sampling(frames=4), preprocessing=whole)[Draw(0)]
    assert not any((sample["inputs"][m] == plain["inputs"][m]).all() for m in modalities)
    if "depth" in modalities:
        assert (sample["inputs"]["depth"] > 0).float().mean() > 0.6 > (plain["inputs"]["depth"] > 0).float().mean()


def test_a_sample_without_depth_has_no_subject_and_says_so(data_set):
    entries = (dataclasses.replace(data_set.entries[0], depth=""), *data_set.entries[1:])
    manifest = dataclasses.replace(masked(data_set), entries=entries)
    failure = VideoDataset(manifest, sampling=Sampling(frames=4), preprocessing=preprocessing(("rgb",)))[Draw(0)]
    assert isinstance(failure, Failure)
    assert (failure.path, failure.line) == (str(data_set.path), 2)
    assert "depth: no file" in failure.message


@pytest.mark.parametrize("facts", [None, dataclasses.replace(MASKED, coverage="full")], ids=["no facts", "full"])
def test_depth_that_is_not_masked_shows_no_subject(data_set, facts, raises):
    manifest = dataclasses.replace(data_set, depth=facts)
    with raises(ManifestError, path="manifest.json", field="coverage"):
        VideoDataset(manifest, sampling=Sampling(frames=4), preprocessing=preprocessing(("rgb",)))


def test_what_cannot_be_is_refused_where_it_is_built(raises):
    with raises(ConfigError, field="margin"):
        SubjectCrop(margin=-0.1)
    full = dataclasses.replace(MASKED, coverage="full")
    with raises(ConfigError, "coverage='full'"):
        Preprocessing(short_side=36, size=32, depth=full, subject=PLAIN)


def test_a_recipe_sets_the_margin(raises):
    clip = Clip(frames=8, size=32, short_side=36, subject_margin=0.2)
    assert clip.preprocessing(MASKED).subject == SubjectCrop(margin=0.2)
    assert clip.preprocessing(MASKED).depth == MASKED  # the trained carries what the crop rests on
    assert Clip(frames=8, size=32, short_side=36).preprocessing(MASKED).subject is None
    with raises(RecipeError, "masked", field="clip.subject_margin"):
        clip.preprocessing(dataclasses.replace(MASKED, coverage="full"))


def test_a_real_person_fills_the_box(real_data):
    """MSR-Action3D: masked Kinect depth of one person, who is kept complete and fills more of the box."""
    shares = []
    for file in sorted((real_data / "msr_action3d" / "depth160").glob("*.npz"))[::40]:
        with np.load(file, allow_pickle=False) as arrays:
            seen = arrays["depth"][::8] > 0
        rows, columns = subject_box(seen.astype(np.uint8), SubjectCrop(margin=0.05)).pixels(*seen.shape[1:])
        assert seen[:, rows, columns].sum() > 0.99 * seen.sum()
        shares.append(seen[:, rows, columns].mean() / seen.mean())
    assert np.mean(shares) > 1.3

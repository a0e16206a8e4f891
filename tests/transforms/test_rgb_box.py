"""Per-sample RGB crop box: read from the manifest and applied first, wherever clips are read."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.cli import main
from kinema.curation.check import check
from kinema.data.dataset import Failure, VideoDataset, read_clips, read_views
from kinema.data.manifest import Entry, PixelBox, load_manifest, parse_pixel_box, write_manifest
from kinema.data.samplers import Draw
from kinema.datasets.table import TableOptions, prepare
from kinema.errors import ManifestError
from kinema.modality import DepthFacts
from kinema.transforms.augment import Augmentation
from kinema.transforms.preprocessing import Preprocessing, SubjectCrop
from kinema.transforms.sampling import Sampling
from kinema.video.read_options import ReadOptions

BOX = PixelBox(left=32, top=16, right=64, bottom=48)
"""Lower right part of a picture of 64 x 48 pixels."""
MASKED = DepthFacts(unit_mm=1.0, near=500.0, far=4500.0, coverage="masked")
EIGHT = Sampling(frames=8)


def preprocessing(*modalities, subject=None):
    return Preprocessing(modalities=modalities, short_side=32, size=32, depth=MASKED, subject=subject)


@pytest.fixture(scope="module")
def pair(tmp_path_factory, write_video):
    """Write RGB that is bright in the box alone, most in its right half, and masked depth of a person at the left."""
    folder = tmp_path_factory.mktemp("pair")
    rgb, depth = np.full((10, 48, 64, 3), 30, np.uint8), np.zeros((10, 48, 64), np.uint16)
    rgb[:, 16:48, 32:64] = 220
    rgb[:, 16:48, 48:64] = 240
    depth[:, 8:40, 0:32] = 2500
    write_video(folder / "rgb.mkv", rgb, codec="ffv1", pixel_format="bgr0", options={})
    write_video(folder / "depth.mkv", depth, codec="ffv1", pixel_format="gray16le", options={})
    return folder


def write(folder, *entries, depth=MASKED):
    labeled = [dataclasses.replace(entry, labels={"label": "ab"[n % 2]}) for n, entry in enumerate(entries)]
    return write_manifest(
        folder / "m.csv", entries=labeled, classes={"label": ("a", "b")}, dataset="c", version="1", depth=depth
    )


def entry(**fields):
    return Entry(**{"rgb": "rgb.mkv", "depth": "depth.mkv", "frames": 10, "rgb_box": BOX, **fields})


def test_a_box_is_four_whole_numbers():
    assert parse_pixel_box(" 32 16  64 48") == BOX
    assert parse_pixel_box(str(BOX)) == BOX
    assert BOX.fits(64, 48)
    assert not BOX.fits(63, 48)
    assert not BOX.fits(64, 47)


@pytest.mark.parametrize("text", ["", "1 2 3", "1 2 3 4 5", "1 2 3.5 4", "-1 2 3 4", "a b c d", "1,2,3,4", "² 1 3 4"])
def test_text_that_is_not_a_box_is_refused(text):
    with pytest.raises(ValueError, match="four whole numbers"):
        parse_pixel_box(text)


@pytest.mark.parametrize("text", ["5 0 5 4", "0 4 5 4", "6 0 5 4", "0 5 5 4"])
def test_an_empty_box_is_refused(text):
    with pytest.raises(ValueError, match=text):
        parse_pixel_box(text)


def test_the_column_is_written_read_and_may_be_empty(pair):
    manifest = write(pair, entry(), entry(rgb_box=None))
    assert (pair / "m.csv").read_text().splitlines()[0] == "rgb,depth,rgb_box,frames,label"
    assert (pair / "m.csv").read_text().splitlines()[1] == "rgb.mkv,depth.mkv,32 16 64 48,10,a"
    assert [e.rgb_box for e in manifest.entries] == [BOX, None]
    assert "rgb_box" not in (write(pair, entry(rgb_box=None)).path).read_text()


def test_a_cell_that_is_not_a_box_is_named_with_its_line(pair, raises):
    write(pair, entry(), entry())
    text = (pair / "m.csv").read_text()
    for cell in ("32 16 64", "64 16 32 48"):
        first, last = text.rsplit("32 16 64 48", 1)
        (pair / "m.csv").write_text(first + cell + last)
        with raises(ManifestError, cell, path="m.csv", line=3, field="rgb_box"):
            load_manifest(pair / "m.csv")
    with raises(ManifestError, "32 16 64 48", field="rgb_box"):
        entry(rgb="")


def test_a_table_may_say_it(pair, tmp_path):
    (tmp_path / "t.csv").write_text(
        f"path,part,label,split\n{pair}/rgb.mkv,32 16 64 48,a,train\n{pair}/rgb.mkv,,b,test\n"
    )
    options = TableOptions(root=tmp_path / "t.csv", out=tmp_path / "m.csv", columns="rgb=path,rgb_box=part")
    manifest = prepare(options, "csv").manifest
    assert [e.rgb_box for e in manifest.entries] == [BOX, None]


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_views_and_training_draws_see_the_box_alone(pair, isolation):
    read_options = ReadOptions(isolation=isolation)
    given = {"locate": lambda source: str(pair / source), "sampling": EIGHT, "read_options": read_options}
    seen = preprocessing("rgb")
    for one, low, high in ((entry(), 228, 232), (entry(rgb_box=None), 0, 150)):
        views = read_views(one, preprocessing=seen, **given)["rgb"]
        assert low <= views.float().mean() <= high
        drawn = read_clips(
            one, preprocessing=seen, augmentation=Augmentation(flip=0.5), rng=np.random.default_rng(0), **given
        )["rgb"]
        assert low <= drawn.float().mean() <= high
        if one.rgb_box is not None:
            assert views[..., :16].unique().tolist() == [220]  # nothing of the surroundings is mixed in
            assert views[..., 16:].unique().tolist() == [240]


def test_the_partner_of_a_mixture_is_cut_to_its_own_box(pair):
    """Both samples are white in their boxes and dark around them, so that a partner's surroundings would show."""
    small = PixelBox(left=40, top=20, right=60, bottom=40)
    manifest = write(pair, entry(), entry(rgb_box=small))
    data = VideoDataset(
        manifest, sampling=EIGHT, preprocessing=preprocessing("rgb"), augmentation=Augmentation(mixup_alpha=0.8)
    )
    mixed = data[Draw(0, (1,), Draw(1, (2,)))]
    assert mixed["inputs"]["rgb"].float().mean() > 215
    assert mixed["inputs"]["rgb"].min() > 210


def test_the_subject_of_masked_depth_then_cuts_depth_alone(pair):
    """The person in depth is at the left, where RGB is dark, so that cropping RGB to it would show."""
    crop = preprocessing("rgb", "depth", subject=SubjectCrop(margin=0.0))
    manifest = write(pair, entry(), entry(rgb_box=None))
    own, shared = (VideoDataset(manifest, sampling=EIGHT, preprocessing=crop)[Draw(n)]["inputs"] for n in (0, 1))
    assert (own["depth"] > 0).all()
    assert torch.equal(own["depth"], shared["depth"])
    assert own["rgb"][..., :16].unique().tolist() == [220]
    assert own["rgb"][..., 16:].unique().tolist() == [240]
    assert shared["rgb"].max() < 40


def test_rgb_with_its_own_box_needs_no_depth(pair):
    manifest = write(pair, entry(depth=""), entry())
    data = VideoDataset(manifest, sampling=EIGHT, preprocessing=preprocessing("rgb", subject=SubjectCrop()))
    assert data[Draw(0)]["inputs"]["rgb"].min() > 210


def test_a_box_beyond_the_frame_is_an_error_that_names_file_and_line(pair, tmp_path):
    wide = PixelBox(left=32, top=16, right=65, bottom=48)
    manifest = write(pair, entry(), entry(rgb_box=wide))
    failure = VideoDataset(manifest, sampling=EIGHT, preprocessing=preprocessing("rgb"))[Draw(1)]
    assert isinstance(failure, Failure)
    assert (Path(failure.path).name, failure.line) == ("rgb.mkv", 3)
    found = check(manifest, journal=tmp_path / "journal.jsonl", read_options=ReadOptions()).faults
    (fault,) = (fault for fault in found if fault.kind == "rgb box")
    assert fault.line == 3
    assert "32 16 65 48" in fault.sentence
    assert "64 x 48" in fault.sentence


def test_sampling_says_the_box(pair, capsys):
    write(pair, entry(), entry())
    main(["sampling", str(pair / "m.csv"), "--index", "1"])
    assert "rgb.mkv, frames 0 to 9, RGB cropped to 32 16 64 48;" in capsys.readouterr().out

import dataclasses

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from kinema.errors import UnreadableVideo
from kinema.modality import DepthFacts
from kinema.transforms.preprocessing import depth_levels, depth_to_uint8, jet, jet_colors
from kinema.video.source import read_gray


def read_depth(path, indices, facts):
    return depth_levels(read_gray(path, indices), facts, path)


def level_by_hand(stored, near, far):
    """Return the level of one value, in double precision."""
    if stored == 0:
        return 0
    return 1 + round(254 * min(max((stored - near) / (far - near), 0), 1))


@pytest.mark.parametrize(("near", "far"), [(500.0, 4500.0), (0.0, 65535.0), (350.0, 630.0), (1.0, 2.0)])
def test_depth_becomes_eight_bits_by_the_formula(near, far):
    stored = np.unique(np.concatenate([np.arange(0, 65536, 7), np.arange(0, 5000)])).astype(np.uint16)
    got = depth_to_uint8(stored, DepthFacts(unit_mm=None, near=near, far=far, coverage="full"))
    wanted = [level_by_hand(int(value), near, far) for value in stored]
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - wanted).max() <= 1  # a half may round either way in single precision
    assert (got != wanted).mean() < 1e-3


def test_no_reading_stays_no_reading_and_all_else_is_clipped(depth_facts):
    stored = np.array([0, 1, 499, 500, 2500, 4500, 4501, 65535], np.uint16)
    assert depth_to_uint8(stored, depth_facts).tolist() == [0, 1, 1, 1, 128, 255, 255, 255]


def test_sixteen_bits_are_read_as_they_were_written(tmp_path, write_video, depth_facts):
    stored = np.random.default_rng(0).integers(0, 65536, size=(5, 48, 64)).astype(np.uint16)
    path = write_video(tmp_path / "depth.mkv", stored, codec="ffv1", pixel_format="gray16le", options={})
    whole = dataclasses.replace(depth_facts, near=0.0, far=65535.0)
    np.testing.assert_array_equal(read_depth(path, [0, 3, 3, 4], whole), depth_to_uint8(stored[[0, 3, 3, 4]], whole))
    np.testing.assert_array_equal(read_gray(path, range(5)), stored)


def test_sixteen_bits_without_a_range_are_refused_by_name(tmp_path, write_video, raises):
    stored = np.full((3, 48, 64), 1000, np.uint16)
    path = write_video(tmp_path / "depth.mkv", stored, codec="ffv1", pixel_format="gray16le", options={})
    with raises(UnreadableVideo, path="depth.mkv", field="depth_range"):
        read_depth(path, [0], None)


def test_eight_bit_gray_video_is_taken_as_it_is(tmp_path, write_video):
    stored = np.random.default_rng(0).integers(0, 256, size=(4, 48, 64)).astype(np.uint8)
    path = write_video(tmp_path / "depth.mkv", stored, codec="ffv1", pixel_format="gray", options={})
    np.testing.assert_array_equal(read_depth(path, [1, 2], None), stored[[1, 2]])


def test_eight_bit_values_with_a_range_follow_the_formula(tmp_path, write_video):
    stored = np.random.default_rng(0).integers(0, 256, size=(2, 48, 64)).astype(np.uint8)
    path = write_video(tmp_path / "depth.mkv", stored, codec="ffv1", pixel_format="gray", options={})
    facts = DepthFacts(unit_mm=None, near=50.0, far=200.0, coverage="masked")
    np.testing.assert_array_equal(read_depth(path, [0, 1], facts), depth_to_uint8(stored, facts))


def test_a_real_depth_video_has_levels_and_holes(real_data):
    """IsoGD's Kinect depth: 8-bit gray, 0 where there is no reading."""
    depth = read_depth(str(real_data / "isogd_rgbd" / "train" / "001" / "K_00002.avi"), [0, 10, 20], None)
    assert depth.shape == (3, 240, 320)
    assert (depth == 0).any()
    assert len(np.unique(depth)) > 30


def test_a_missing_depth_file_is_named(tmp_path, depth_facts, raises):
    with raises(UnreadableVideo, "no such file", path="gone.mkv"):
        read_depth(str(tmp_path / "gone.mkv"), [0], depth_facts)


@pytest.fixture
def stored():
    """Depth with no reading, below, at and above both ends of the range, and past what fits in 8 bits."""
    frames = np.random.default_rng(0).integers(1, 6000, size=(4, 12, 16)).astype(np.uint16)
    frames[:, 0, :8] = (0, 1, 499, 500, 501, 4500, 4501, 65535)
    return frames


def save_pictures(folder, frames):
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return str(folder)


def save_npz(path, frames):
    np.savez_compressed(path, depth=frames)
    return str(path)


def save_mat(path, frames):
    savemat(path, {"depth": np.moveaxis(frames, 0, -1)})
    return str(path)


def test_every_form_of_16_bit_depth_gives_the_same_bytes(tmp_path, write_video, depth_facts, stored):
    lossless = {"codec": "ffv1", "pixel_format": "gray16le", "options": {}}
    forms = [
        write_video(tmp_path / "depth.mkv", stored, **lossless),
        save_pictures(tmp_path / "pictures", stored),
        save_npz(tmp_path / "depth.npz", stored),
        save_npz(tmp_path / "wide.npz", stored.astype(np.int32)),
        save_mat(tmp_path / "depth.mat", stored),
    ]
    indices = [0, 2, 2, 3]
    wanted = depth_to_uint8(stored[indices], depth_facts)
    assert wanted[0, 0, :8].tolist() == [0, 1, 1, 1, 1, 255, 255, 255]
    for form in forms:
        np.testing.assert_array_equal(read_depth(form, indices, depth_facts), wanted, err_msg=form)


@pytest.mark.parametrize("facts", [None, DepthFacts(unit_mm=None, near=50.0, far=200.0, coverage="masked")], ids=str)
def test_every_form_of_8_bit_depth_gives_the_same_bytes(tmp_path, write_video, facts):
    frames = np.random.default_rng(0).integers(0, 256, size=(4, 12, 16)).astype(np.uint8)
    forms = [
        write_video(tmp_path / "depth.mkv", frames, codec="ffv1", pixel_format="gray", options={}),
        save_pictures(tmp_path / "pictures", frames),
        save_npz(tmp_path / "depth.npz", frames),
        save_mat(tmp_path / "depth.mat", frames),
    ]
    wanted = frames if facts is None else depth_to_uint8(frames, facts)
    for form in forms:
        np.testing.assert_array_equal(read_depth(form, range(4), facts), wanted, err_msg=form)


def test_a_range_is_in_stored_units_whatever_they_are_in_millimeters(stored):
    """`unit_mm` is the size of a unit; near and far are in units, like the file."""
    metric, own = (DepthFacts(unit_mm=unit, near=500.0, far=4500.0, coverage="full") for unit in (0.25, None))
    np.testing.assert_array_equal(depth_to_uint8(stored, metric), depth_to_uint8(stored, own))


# -- the JET map -------------------------------------------------------------------------------------------------------

ANCHORS = {
    0: (0, 0, 128),
    1: (0, 0, 132),
    31: (0, 0, 252),
    32: (0, 0, 255),
    33: (0, 4, 255),
    95: (0, 252, 255),
    96: (2, 255, 254),
    128: (130, 255, 126),
    160: (255, 252, 0),
    223: (255, 0, 0),
    224: (252, 0, 0),
    254: (132, 0, 0),
    255: (128, 0, 0),
}
"""Red, green and blue of COLORMAP_JET in OpenCV 5.0.0, which stores blue first."""


def test_levels_have_the_colors_that_opencv_gives_them():
    table = jet_colors()
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    assert {level: tuple(table[level].tolist()) for level in ANCHORS} == ANCHORS


def test_all_colors_follow_the_formula():
    for level, color in enumerate(jet_colors().tolist()):
        wanted = [255 * min(max(1.5 - abs(4 * level / 255 - k), 0), 1) for k in (3, 2, 1)]
        assert color == pytest.approx(wanted, abs=0.5 + 1e-9), level


def test_the_colors_are_those_of_matplotlib_within_its_other_knots():
    """Matplotlib's `jet` has other breakpoints: up to 33 of 255 away, 7 on average. With blue first it is 255."""
    theirs = matplotlib.colormaps["jet"](np.arange(256), bytes=True)[:, :3].astype(int)
    apart = np.abs(jet_colors() - theirs)
    assert apart.max() <= 33
    assert apart.mean() < 7
    assert np.abs(jet_colors()[:, ::-1] - theirs).max() == 255


def test_every_level_has_a_color_of_its_own():
    assert len({tuple(color) for color in jet_colors().tolist()}) == 256


def test_nobody_can_change_the_colors():
    with pytest.raises(ValueError, match="read-only"):
        jet_colors()[0, 0] = 1


@pytest.mark.parametrize("views", [(), (3,)], ids=str)
def test_a_clip_of_levels_becomes_a_clip_of_their_colors(views):
    levels = torch.randint(0, 256, (*views, 1, 4, 12, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    before = levels.clone()
    colors = jet(levels)
    assert colors.shape == (*views, 3, 4, 12, 16)
    assert colors.is_contiguous()
    table = jet_colors()
    for place in np.ndindex(*views, 4, 12, 16):
        *view, frame, row, column = place
        seen = colors[(*view, slice(None), frame, row, column)].tolist()
        assert seen == table[levels[(*view, 0, frame, row, column)]].tolist()
    assert torch.equal(levels, before)


def test_where_nothing_was_read_all_is_dark_blue():
    colors = jet(torch.zeros(1, 2, 4, 5, dtype=torch.uint8))
    assert torch.equal(colors, torch.tensor([0, 0, 128], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 2, 4, 5))

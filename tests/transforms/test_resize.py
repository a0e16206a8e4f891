"""Resizing equals the explicit mean under a triangle, and depth never mixes readings with missing ones."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kinema.transforms.geometry import FULL_FRAME, Box, Window, resize


def triangle(extent, count):
    """Return the weights of each pixel, row by row, as exact fractions."""
    scale = Fraction(extent, count)
    support = max(scale, Fraction(1))
    rows = []
    for number in range(count):
        middle = (number + Fraction(1, 2)) * scale
        row = [max(Fraction(0), 1 - abs(pixel + Fraction(1, 2) - middle) / support) for pixel in range(extent)]
        rows.append([weight / sum(row) for weight in row])
    return rows


def by_hand(picture, size):
    """Return the mean of the readings where they have at least half of the weight."""
    down, across = (np.array(triangle(extent, count)) for extent, count in zip(picture.shape, size, strict=True))
    level = down @ picture.astype(object) @ across.T
    weight = down @ (picture != 0).astype(object) @ across.T
    return [
        [float(v / w) if w >= Fraction(1, 2) else 0.0 for v, w in zip(*rows, strict=True)]
        for rows in zip(level, weight, strict=True)
    ]


def whole(frames, size, box=FULL_FRAME):
    return resize(torch.as_tensor(frames), size, Window(0, 0, *size), box)


def with_holes(height, width, time=2, seed=0):
    rng = np.random.default_rng(seed)
    depth = rng.integers(1, 256, (time, height, width), dtype=np.uint8)
    depth[rng.random(depth.shape) < 0.1] = 0
    depth[:, height // 4 : height // 2, width // 3 : width // 2] = 0
    depth[0, :, : width // 5] = 0
    return depth


@pytest.mark.parametrize("size", [(6, 8), (4, 4), (3, 16), (12, 16), (18, 25)], ids=str)
def test_depth_is_the_mean_of_its_readings(size):
    """A quarter, a third, one axis alone, unchanged, and larger: exact fractions, rounded at the end."""
    depth = with_holes(12, 16)
    got = whole(depth[..., None], size)[:, 0].numpy()
    wanted = np.array([by_hand(picture, size) for picture in depth])
    assert ((got == 0) == (wanted == 0)).all()
    assert np.abs(got - wanted).max() <= 0.5 + 1e-3
    assert (got == 0).any()


def test_no_depth_appears_between_a_person_and_no_reading():
    """Plain interpolation makes such a mean at every edge of a mask."""
    depth = np.zeros((1, 48, 64), np.uint8)
    depth[0, 7:41, 13:50] = 200
    got = whole(depth[..., None], (20, 27))
    assert set(got.unique().tolist()) == {0, 200}
    plain = F.interpolate(torch.as_tensor(depth)[:, None], size=(20, 27), mode="bilinear", antialias=True)
    assert len(plain.unique()) > 4


@pytest.mark.parametrize("size", [(12, 16), (20, 27), (30, 40)], ids=str)
def test_depth_without_holes_is_resized_like_any_picture(size):
    depth = np.random.default_rng(0).integers(1, 256, (2, 24, 32), dtype=np.uint8)
    plain = F.interpolate(torch.as_tensor(depth)[:, None], size=size, mode="bilinear", antialias=True)
    assert torch.equal(whole(depth[..., None], size), plain)
    holed = np.concatenate([depth, np.zeros((1, 24, 32), np.uint8)])  # a hole elsewhere takes the other way
    assert (whole(holed[..., None], size)[:2].int() - plain.int()).abs().max() <= 1


def test_a_picture_without_any_reading_stays_so():
    assert (whole(np.zeros((2, 24, 32, 1), np.uint8), (10, 13)) == 0).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["holes", "none"])
def test_a_window_is_a_part_of_the_whole(channels, kind):
    frames = np.random.default_rng(0).integers(1, 256, (3, 24, 32, channels), dtype=np.uint8)
    if kind == "holes":
        frames[:, 4:9, 3:8] = 0
    size = (20, 27)
    got = resize(torch.as_tensor(frames), size, Window(3, 5, 14, 16))
    assert torch.equal(got, whole(frames, size)[:, :, 3:17, 5:21])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["holes", "none"])
def test_a_box_at_whole_pixels_is_those_pixels(channels, kind):
    """The edge differs, since the antialiasing of a box includes the picture around it."""
    frames = np.random.default_rng(0).integers(1, 256, (2, 40, 60, channels), dtype=np.uint8)
    if kind == "holes":
        frames[:, 14:19, 13:18] = 0
    box = Box(10 / 40, 10 / 60, 34 / 40, 50 / 60)
    got = resize(torch.as_tensor(frames), (12, 20), Window(0, 0, 12, 20), box)
    cut = whole(frames[:, 10:34, 10:50], (12, 20))
    assert (got.int() - cut.int())[..., 1:-1, 1:-1].abs().max() <= 1
    window = resize(torch.as_tensor(frames), (12, 20), Window(2, 3, 8, 9), box)
    assert (window.int() - got[:, :, 2:10, 3:12].int()).abs().max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_box_between_pixels_shows_the_same_in_pictures_of_every_size(channels):
    """On a ramp, the value of a pixel is its position."""
    box = Box(0.233, 0.311, 0.811, 0.877)
    wanted = 20 + 200 * (0.311 + (np.arange(20) + 0.5) / 20 * (0.877 - 0.311))
    for width in (40, 60, 200):
        ramp = 20 + 200 * (np.arange(width) + 0.5) / width
        frames = np.broadcast_to(ramp[None, None, :, None], (1, 30, width, channels)).round().astype(np.uint8).copy()
        frames[:, :3] = 0 if channels == 1 else frames[:, :3]  # a hole that the box does not see
        got = resize(torch.as_tensor(frames), (12, 20), Window(0, 0, 12, 20), box)
        assert np.abs(got.numpy() - wanted).max() < 1.6

"""Boxes and warps mean the same at any resolution, and pixels follow the formula."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from kinema.transforms.geometry import (
    FULL_FRAME,
    IDENTITY,
    Box,
    Geometry,
    Warp,
    Window,
    crop,
    resize,
    rotation,
    view_clips,
    warp,
)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        (FULL_FRAME, (0, 10), (0, 20)),
        (Box(0.1, 0.25, 0.5, 0.5), (1, 5), (5, 10)),
        (Box(0.26, 0.0, 0.34, 0.02), (3, 4), (0, 1)),  # at least one pixel
        (Box(1.0, 1.0, 1.0, 1.0), (9, 10), (19, 20)),
    ],
    ids=str,
)
def test_a_box_is_whole_pixels_of_a_picture(box, rows, columns):
    got = box.pixels(10, 20)
    assert [(part.start, part.stop) for part in got] == [rows, columns]


def noise(channels, height=40, width=50, time=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (time, channels, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_straight_warp_is_the_square_itself(channels):
    frames = noise(channels)
    got = warp(frames, IDENTITY, top=3, left=7, size=32)
    assert torch.equal(got, frames[:, :, 3:35, 7:39])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_quarter_turn_is_against_the_clock(channels):
    """A quarter turn moves the right side up; corners come from the frame around the square."""
    frames = noise(channels)
    got = warp(frames, rotation(90), top=3, left=7, size=32)
    wanted = torch.rot90(frames[:, :, 3:35, 7:39], 1, dims=(2, 3))
    assert (got.int() - wanted.int()).abs().max() <= (0 if channels == 1 else 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("by", [rotation(10), rotation(-33), Warp(xy=0.2, y0=0.1), Warp(x0=-0.2, yx=0.1)], ids=str)
def test_a_warp_takes_every_pixel_from_where_the_formula_says(channels, by):
    """Compare with the formula in double precision, inside the frame."""
    smooth = ndimage.gaussian_filter(noise(channels).numpy().astype(float), (0, 0, 3, 3))
    frames = torch.from_numpy(np.clip(3 * (smooth - 128) + 128, 1, 255).astype(np.uint8))
    got = warp(frames, by, top=6, left=9, size=28).numpy()
    y, x = np.meshgrid(*[(np.arange(28) + 0.5) / 28 - 0.5] * 2, indexing="ij")
    from_x = 9 + 14 + 28 * (by.xx * x + by.xy * y + by.x0)
    from_y = 6 + 14 + 28 * (by.yx * x + by.yy * y + by.y0)
    inside = (from_x > 1) & (from_x < 49) & (from_y > 1) & (from_y < 39)
    if channels == 1:  # a place in the middle between two pixels may go to either
        inside &= (np.abs(from_x - np.rint(from_x)) > 1e-3) & (np.abs(from_y - np.rint(from_y)) > 1e-3)
    for frame in range(2):
        for channel in range(channels):
            wanted = ndimage.map_coordinates(
                frames[frame, channel].numpy().astype(float),
                [from_y - 0.5, from_x - 0.5],
                order=0 if channels == 1 else 1,
            )
            away = np.abs(got[frame, channel] - wanted)[inside]
            assert away.max() < (0.5 if channels == 1 else 1.01)  # Pillow cuts off what is below a level
    assert inside.mean() > 0.6


def test_beyond_the_frame_rgb_is_gray_and_depth_has_no_reading():
    far = Warp(x0=3.0)
    assert (warp(noise(3), far, top=3, left=7, size=32) == 128).all()
    assert (warp(noise(1), far, top=3, left=7, size=32) == 0).all()


def test_a_turned_depth_picture_holds_no_depth_that_was_not_there():
    frames = torch.where(noise(1) > 128, 200, 50).to(torch.uint8)
    assert set(warp(frames, rotation(20), top=3, left=7, size=32).unique().tolist()) <= {0, 50, 200}


def test_one_warp_after_the_other_is_one_warp():
    """A point of the result passes the last warp first; opposite rotations cancel."""
    first, last = Warp(xy=0.3, x0=0.1), rotation(30)
    both = first.then(last)
    for x, y in ((0.0, 0.0), (0.4, -0.2), (-0.1, 0.5)):
        between = last.xx * x + last.xy * y + last.x0, last.yx * x + last.yy * y + last.y0
        wanted = (
            first.xx * between[0] + first.xy * between[1] + first.x0,
            first.yx * between[0] + first.yy * between[1] + first.y0,
        )
        got = both.xx * x + both.xy * y + both.x0, both.yx * x + both.yy * y + both.y0
        np.testing.assert_allclose(got, wanted, atol=1e-12)
    np.testing.assert_allclose(rotation(25).then(rotation(-25)), IDENTITY, atol=1e-12)


def first_pixels(height: int, width: int, rounding: str) -> tuple[int, int]:
    """Return the row and column at which a center crop of 224 of a picture with short side 256 begins."""
    shape, scale = [], 256 / min(height, width)
    for side in (height, width):
        shape.append(int(256 * side / min(height, width)) if rounding == "torchvision" else round(side * scale))
    free = [side - 224 for side in shape]
    if rounding == "torchvision":
        return round(free[0] / 2.0), round(free[1] / 2.0)  # int(round((height - crop_height) / 2.0))
    return math.floor(free[0] / 2 + 0.5), math.floor(free[1] / 2 + 0.5)


@pytest.mark.parametrize("rounding", ["half-up", "torchvision"])
@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (1080, 1920), (58, 72), (256, 340), (240, 427)])
def test_a_center_crop_begins_where_the_rounding_puts_it(rounding, height, width):
    """A ramp of the resized picture's own numbers shows where the crop begins."""
    row, column = first_pixels(height, width, rounding)
    scale = 256 / min(height, width)
    shape = (256, int(width * scale) if rounding == "torchvision" else round(width * scale))
    if height > width:
        shape = (int(height * scale) if rounding == "torchvision" else round(height * scale), 256)
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8))
    whole = resize(frames, shape, Window(0, 0, *shape))
    expected = whole[0, :, row : row + 224, column : column + 224]
    got = crop(frames, Geometry(256, rounding=rounding), 224)[:, 0]
    views = view_clips(frames, np.zeros((1, 1), np.int64), short_side=256, size=224, num_crops=1, rounding=rounding)
    assert torch.equal(got, expected)
    assert torch.equal(views[0, :, 0], expected)


def test_the_named_example_of_torchvision():
    assert first_pixels(240, 320, "torchvision") == (16, 58)
    assert first_pixels(240, 320, "half-up") == (16, 59)

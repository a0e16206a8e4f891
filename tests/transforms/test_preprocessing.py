import numpy as np
import pytest
import torch

from kinema.errors import ConfigError
from kinema.transforms.augment import (
    Augmentation,
    Color,
    Erasing,
    RandAugment,
    augment,
    draw_color,
    draw_erasing,
    draw_geometry,
    draw_params,
    erase,
    recolor,
)
from kinema.transforms.geometry import IDENTITY, Box, Geometry, Warp, crop, rotation, view_clips
from kinema.transforms.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(short_side=36, size=32)


def noise(height, width, channels=3, time=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (time, height, width, channels), dtype=torch.uint8, generator=generator)


def with_square(height, width, top, left, *, side, channels):
    """Return dark frames with one bright square at a known place."""
    frames = torch.full((2, height, width, channels), 20, dtype=torch.uint8)
    frames[:, top : top + side, left : left + side] = 240
    return frames


def center_of_light(clip):
    """Return row and column of the bright square's center in a cropped clip."""
    light = (clip[0, 0].double() - 20).clamp_min(0)
    rows, columns = torch.meshgrid(torch.arange(light.shape[0]), torch.arange(light.shape[1]), indexing="ij")
    return np.array([(light * rows).sum() / light.sum(), (light * columns).sum() / light.sum()])


def test_a_center_crop_without_resizing_is_exact():
    frames = noise(36, 48)
    clip = crop(frames, Geometry(36, 0.5, 0.5, mirrored=False), 32)
    assert torch.equal(clip, frames[:, 2:34, 8:40].permute(3, 0, 1, 2))


@pytest.mark.parametrize(
    ("top", "left", "rows", "columns"), [(0.0, 0.0, 0, 0), (0.999, 0.999, 4, 16), (0.0, 0.5, 0, 8)]
)
def test_a_place_is_a_share_of_the_room(top, left, rows, columns):
    frames = noise(36, 48)
    clip = crop(frames, Geometry(36, top, left, mirrored=False), 32)
    assert torch.equal(clip, frames[:, rows : rows + 32, columns : columns + 32].permute(3, 0, 1, 2))


def test_mirroring_is_exact():
    frames = noise(36, 48)
    plain, mirrored = (crop(frames, Geometry(36, 0.3, 0.7, mirrored=m), 32) for m in (False, True))
    assert torch.equal(mirrored, plain.flip(-1))
    assert not torch.equal(mirrored, plain)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (20, 30), (16, 16), (37, 211), (32, 32)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_picture_becomes_a_square_of_bytes(height, width, channels):
    """Landscape, portrait, smaller than the crop, and very wide frames."""
    clip = crop(noise(height, width, channels), Geometry(PREPROCESSING.short_side), 32)
    assert clip.shape == (channels, 2, 32, 32)
    assert clip.dtype == torch.uint8
    assert clip.is_contiguous()


def test_the_shorter_side_is_the_one_that_is_resized():
    for height, width in [(72, 144), (144, 72)]:
        frames = with_square(height, width, height // 2 - 8, width // 2 - 8, side=16, channels=3)
        light = (crop(frames, Geometry(36, 0.5, 0.5, mirrored=False), 36)[0, 0] > 128).sum()
        assert light == 8 * 8


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (120, 160)], ids=str)
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(36, 0.5, 0.5, False),
        Geometry(40, 0.2, 0.9, True),
        Geometry(36, 0.9, 0.1, True),
        Geometry(48, 0.4, 0.6, False),
    ],
    ids=str,
)
def test_color_and_depth_are_cut_at_the_same_place(height, width, geometry):
    side = min(height, width) // 4
    top, left = height // 2 - side // 2 - 1, width // 2 - side // 2 + 2
    color = crop(with_square(height, width, top, left, side=side, channels=3), geometry, 32)
    depth = crop(with_square(height, width, top, left, side=side, channels=1), geometry, 32)
    assert np.abs(center_of_light(color) - center_of_light(depth)).max() < 0.05

    scale = geometry.short_side / min(height, width)
    resized = round(height * scale), round(width * scale)
    corner = [np.floor(share * (extent - 32) + 0.5) for share, extent in zip(geometry[1:3], resized, strict=True)]
    expected = [(place + side / 2) * scale - 0.5 - at for place, at in zip((top, left), corner, strict=True)]
    if geometry.mirrored:
        expected[1] = 31 - expected[1]
    assert np.abs(center_of_light(color) - expected).max() < 0.3


def test_a_depth_picture_of_another_size_is_cut_at_the_same_place():
    geometry = Geometry(36, 0.3, 0.8, mirrored=True)
    color = crop(with_square(96, 128, 40, 56, side=16, channels=3), geometry, 32)
    depth = crop(with_square(48, 64, 20, 28, side=8, channels=1), geometry, 32)
    assert np.abs(center_of_light(color) - center_of_light(depth)).max() < 0.3


def test_frames_of_another_shape_are_refused():
    with pytest.raises(TypeError):
        crop(noise(36, 48)[0], Geometry(PREPROCESSING.short_side), 32)
    with pytest.raises(TypeError):
        recolor(crop(noise(36, 48, 1), Geometry(PREPROCESSING.short_side), 32), Color(1.1, 1.0, 1.0))


def test_an_evaluation_takes_the_middle_and_is_not_mirrored():
    assert Geometry(PREPROCESSING.short_side) == Geometry(36, 0.5, 0.5, mirrored=False)


def test_draws_stay_in_their_ranges_and_reach_all_of_them():
    rng = np.random.default_rng(0)
    augmentation = Augmentation(short_side=(30, 40), flip=0.25, color_jitter=0.4)
    drawn = [draw_geometry(augmentation, PREPROCESSING, rng) for _ in range(2000)]
    assert {g.short_side for g in drawn} == set(range(32, 41))  # never below the square
    assert 0.2 < np.mean([g.mirrored for g in drawn]) < 0.3
    for places in ([g.top for g in drawn], [g.left for g in drawn]):
        assert 0 <= min(places) < 0.01
        assert 0.99 < max(places) < 1
    colors = np.array([draw_color(augmentation, rng)[:3] for _ in range(2000)])
    assert (colors.min(0) < 0.62).all()
    assert (colors.min(0) >= 0.6).all()
    assert (colors.max(0) > 1.38).all()
    assert (colors.max(0) <= 1.4).all()


def test_an_augmentation_that_varies_nothing_moves_the_crop_alone():
    rng = np.random.default_rng(0)
    drawn = [draw_geometry(Augmentation(), PREPROCESSING, rng) for _ in range(50)]
    assert {(g.short_side, g.mirrored) for g in drawn} == {(36, False)}
    assert len({g.top for g in drawn}) == 50
    assert draw_color(Augmentation(), rng) == Color(1, 1, 1)


def recolored_by_hand(clip, color):
    value = clip.astype(np.float64) * color.brightness
    luma = np.array([0.299, 0.587, 0.114])
    middle = np.tensordot(luma, value, 1).mean()
    value = middle + (value - middle) * color.contrast
    gray = np.tensordot(luma, value, 1)
    value = gray + (value - gray) * color.saturation
    return np.clip(np.round(value), 0, 255)


def test_factors_of_one_change_no_color():
    clip = noise(8, 8).permute(3, 0, 1, 2).contiguous()
    assert torch.equal(recolor(clip, Color(1.0, 1.0, 1.0)), clip)
    nearly = recolor(clip, Color(1.0 + 1e-7, 1.0, 1.0))  # by the long way
    assert torch.equal(nearly, clip)


def test_a_shuffle_puts_channels_in_other_places_and_changes_no_value():
    clip = noise(8, 8).permute(3, 0, 1, 2).contiguous()
    assert torch.equal(recolor(clip, Color(order=(2, 0, 1))), clip[[2, 0, 1]])


@pytest.mark.parametrize(("share", "orders"), [(0.0, 1), (1.0, 6)])
def test_shuffles_are_drawn_as_often_as_said(share, orders):
    rng = np.random.default_rng(0)
    drawn = {draw_color(Augmentation(channel_shuffle=share), rng).order for _ in range(100)}
    assert len(drawn) == orders


@pytest.mark.parametrize("color", [Color(1.4, 1, 1), Color(1, 0.6, 1), Color(1, 1, 1.3), Color(0.7, 1.2, 0.8)])
def test_colors_change_by_the_formula(color):
    clip = noise(8, 8).permute(3, 0, 1, 2).contiguous()
    got = recolor(clip, color)
    assert got.dtype == torch.uint8
    assert np.abs(got.numpy() - recolored_by_hand(clip.numpy(), color)).max() <= 1
    assert (got.numpy() != recolored_by_hand(clip.numpy(), color)).mean() < 0.01


@pytest.mark.parametrize(("modality", "channels"), [("rgb", 3), ("depth", 1), ("depth", 3)])
def test_normalizing_is_value_over_255_less_mean_over_deviation(modality, channels):
    preprocessing = Preprocessing(short_side=36, size=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    clip = torch.arange(256, dtype=torch.uint8).repeat(channels).view(1, channels, 1, 16, 16)
    mean, std = (preprocessing.mean, preprocessing.std) if modality == "rgb" else ((0.5,) * channels, (0.5,) * channels)
    got = preprocessing.normalize(modality, clip)
    assert got.dtype == torch.float32
    for channel in range(channels):
        wanted = (clip[:, channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(got[:, channel].double(), wanted, rtol=0, atol=1e-6)


def test_depth_can_be_normalized_like_the_public_code():
    """UMDR: (x - 127.5) / 128; without the option (x - 127.5) / 127.5."""
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 16, 16)
    for field, divisor in (({"depth_std": 128 / 255}, 128), ({}, 127.5)):
        got = Preprocessing(modalities=("depth",), short_side=36, size=32, **field).normalize("depth", levels)
        torch.testing.assert_close(got.double(), (levels.double() - 127.5) / divisor, rtol=0, atol=1e-6)


def test_each_modality_is_normalized_by_its_own_numbers():
    preprocessing = Preprocessing(modalities=("rgb", "depth"), short_side=36, size=32, mean=(0.1, 0.2, 0.3))
    black = torch.zeros(1, 3, 1, 2, 2, dtype=torch.uint8)
    both = preprocessing.normalize_all({"rgb": black, "depth": black[:, :1]})
    torch.testing.assert_close(both["rgb"].amax((0, 2, 3, 4)), torch.tensor([-0.2, -0.4, -0.6]))
    torch.testing.assert_close(both["depth"], torch.full((1, 1, 1, 2, 2), -1.0))


@pytest.mark.parametrize("modalities", [("rgb",), ("depth",), ("rgb", "depth")])
@pytest.mark.parametrize("depth_channels", [1, 3])
def test_a_stream_has_the_channels_of_its_modality(modalities, depth_channels):
    made = Preprocessing(modalities=modalities, short_side=36, size=32, depth_channels=depth_channels)
    assert made.channels == {m: {"rgb": 3, "depth": depth_channels}[m] for m in modalities}


@pytest.mark.parametrize(
    ("fields", "field", "word"),
    [
        ({"modalities": ()}, "modalities", "()"),
        ({"modalities": ("rgb", "sound")}, "modalities.1", "'sound'"),
        ({"modalities": ("rgb", "rgb")}, "", "modalities="),
        ({"size": 37}, "", "size=37"),
        ({"size": 0}, "size", "0"),
        ({"std": (0.5, 0.0, 0.5)}, "std.1", "0.0"),
        ({"modalities": ("depth",), "depth_colors": "jet"}, "", "depth_channels=1"),
    ],
    ids=str,
)
def test_preprocessing_that_cannot_be_is_refused(fields, field, word, raises):
    with raises(ConfigError, word, field=field):
        Preprocessing(**{"short_side": 36, "size": 32, **fields})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"short_side": (40, 30)}, ""),
        ({"short_side": (0, 30)}, "short_side.0"),
        ({"flip": 1.5}, "flip"),
        ({"color_jitter": 1.0}, "color_jitter"),
        ({"mixup_alpha": -0.1}, "mixup_alpha"),
        ({"cutmix_alpha": float("inf")}, "cutmix_alpha"),
        ({"rotation": 181}, "rotation"),
        ({"rotation_prob": 1.1}, "rotation_prob"),
        ({"erasing": float("nan")}, "erasing"),
        ({"erasing_area": (0.0, 0.4)}, "erasing_area.0"),
        ({"erasing_area": (0.5, 0.4)}, ""),
        ({"erasing_aspect": (1.5, 2.0)}, "erasing_aspect.0"),
    ],
    ids=str,
)
def test_an_augmentation_that_cannot_be_is_refused(fields, field, raises):
    with raises(ConfigError, next(iter(fields)), field=field):
        Augmentation(**fields)


# -- what is drawn beside place and color -----------------------------------------------------------------------------

EVERYTHING = Augmentation(
    short_side=(34, 44),
    flip=0.5,
    color_jitter=0.4,
    channel_shuffle=0.3,
    rotation=10,
    rotation_prob=0.5,
    randaugment=RandAugment(operations=2),
    erasing=0.5,
)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_new_leaves_the_draws_of_place_and_color_as_they_were(seed):
    """A recipe's draws do not depend on augmentations that are off."""
    varied = draw_params(EVERYTHING, PREPROCESSING, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    assert varied.geometry._replace(warp=IDENTITY) == draw_geometry(EVERYTHING, PREPROCESSING, rng)
    assert varied.color == draw_color(EVERYTHING, rng)


def test_by_default_nothing_new_is_drawn():
    rng = np.random.default_rng(0)
    varied = draw_params(Augmentation(), PREPROCESSING, rng)
    assert (varied.geometry.warp, varied.operations, varied.erasing) == (IDENTITY, (), None)
    again = np.random.default_rng(0)
    draw_geometry(Augmentation(), PREPROCESSING, again)
    draw_color(Augmentation(), again)
    assert rng.random() == again.random()


def test_rotations_are_drawn_as_often_and_as_far_as_said():
    augmentation = Augmentation(rotation=10, rotation_prob=0.25)
    rng = np.random.default_rng(0)
    warps = [draw_params(augmentation, PREPROCESSING, rng).geometry.warp for _ in range(2000)]
    angles = np.array([np.degrees(np.arctan2(warp.yx, warp.xx)) for warp in warps if warp != IDENTITY])
    assert 0.22 < len(angles) / 2000 < 0.28
    assert -10 <= angles.min() < -9.5
    assert 9.5 < angles.max() <= 10


def test_a_turned_clip_shows_at_its_corners_what_the_frame_has_there():
    """The warp samples the full frame: no corner is empty unless the frame ends there."""
    frames = noise(60, 60)
    middle = Geometry(60, 0.5, 0.5, mirrored=False, warp=rotation(30))
    assert (crop(frames, middle, 32) != 128).all(0).float().mean() > 0.97
    corner = (crop(frames, middle._replace(top=0.0, left=0.0), 32) == 128).all(0)
    assert corner[:, 0, 0].all()
    assert 0.05 < corner.float().mean() < 0.3


def test_a_warped_clip_is_mirrored_after_it():
    frames = noise(60, 60)
    geometry = Geometry(60, 0.5, 0.5, mirrored=False, warp=Warp(xy=0.2, x0=0.1))
    assert torch.equal(crop(frames, geometry._replace(mirrored=True), 32), crop(frames, geometry, 32).flip(-1))


def test_erased_boxes_have_the_area_and_the_aspect_and_fit():
    augmentation = Augmentation(erasing=1.0)
    rng = np.random.default_rng(0)
    boxes = [draw_erasing(augmentation, rng).box for _ in range(2000)]
    sides = np.array([(b.bottom - b.top, b.right - b.left) for b in boxes])
    areas, aspects = sides.prod(1), sides[:, 0] / sides[:, 1]
    assert 0.02 <= areas.min() < 0.03
    assert 0.39 < areas.max() <= 0.4
    assert 0.3 - 1e-9 <= aspects.min() < 0.35
    assert 3.2 < aspects.max() <= 1 / 0.3 + 1e-9
    assert min(map(min, boxes)) >= 0
    assert max(map(max, boxes)) <= 1 + 1e-9
    assert {round(b.top, 1) for b in boxes} >= {0.0, 0.3, 0.6}


def test_an_area_of_the_whole_picture_can_be_erased():
    whole = Augmentation(erasing=1.0, erasing_area=(1.0, 1.0))
    assert draw_erasing(whole, np.random.default_rng(0)).box == pytest.approx(Box())


def test_erasing_is_drawn_as_often_as_said():
    rng = np.random.default_rng(0)
    drawn = [draw_params(Augmentation(erasing=0.25), PREPROCESSING, rng).erasing for _ in range(1000)]
    assert 0.2 < np.mean([erasing is not None for erasing in drawn]) < 0.3
    assert len({erasing.seed for erasing in drawn if erasing}) > 200


@pytest.mark.parametrize("channels", [1, 3])
def test_a_box_is_erased_with_noise_that_stands_still_or_with_no_reading(channels):
    clip = torch.full((channels, 4, 20, 20), 77, dtype=torch.uint8)
    got = erase(clip, Erasing(Box(0.2, 0.5, 0.6, 0.75), 5))
    inside = torch.zeros(20, 20, dtype=torch.bool)
    inside[4:12, 10:15] = True
    assert (got[:, :, ~inside] == 77).all()
    assert (clip == 77).all()
    if channels == 1:
        assert (got[:, :, inside] == 0).all()
    else:
        noise_there = got[:, :, inside]
        assert torch.equal(noise_there, noise_there[:, :1].expand_as(noise_there))
        assert len(noise_there.unique()) > 80
        assert not torch.equal(got, erase(clip, Erasing(Box(0.2, 0.5, 0.6, 0.75), 6)))


@pytest.mark.parametrize("seed", range(12))
def test_colors_never_touch_depth(seed):
    """With color operations alone, a depth clip equals its crop."""
    colors = Augmentation(color_jitter=0.4, channel_shuffle=1.0, randaugment=RandAugment(operations=3))
    varied = draw_params(colors, PREPROCESSING, np.random.default_rng(seed))
    frames = noise(36, 48, channels=1)
    assert torch.equal(augment(frames, varied, 32), crop(frames, varied.geometry, 32))
    rgb = noise(36, 48)
    assert not torch.equal(augment(rgb, varied, 32), crop(rgb, varied.geometry, 32))


# -- views of a test ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(36, 50), (50, 36), (36, 36), (72, 100), (20, 64)], ids=str)
def test_three_crops_are_both_ends_of_the_longer_side_and_the_middle(height, width, channels):
    frames = noise(height, width, channels, time=5)
    if channels == 1:
        frames[:, 5:9, 5:20] = 0
    places = np.array([[0, 2, 4], [1, 1, 3]])
    got = view_clips(frames, places, short_side=36, size=32, num_crops=3)
    assert got.shape == (6, channels, 3, 32, 32)
    assert got.is_contiguous()
    ends = [(end, 0.5) if height > width else (0.5, end) for end in (0.0, 0.5, 1.0)]
    for number, view in enumerate(got):
        clip, end = divmod(number, 3)
        geometry = Geometry(36, *ends[end], mirrored=False)
        assert torch.equal(view, crop(frames[places[clip]], geometry, 32))


def test_one_crop_is_the_middle():
    frames = noise(36, 50, time=4)
    (view,) = view_clips(frames, np.array([[0, 1, 2, 3]]), short_side=36, size=32, num_crops=1)
    assert torch.equal(view, crop(frames, Geometry(PREPROCESSING.short_side), 32))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_recoloring_leaves_its_input_alone(order):
    clip = noise(8, 8).permute(3, 0, 1, 2).contiguous()
    before = clip.clone()
    recolor(clip, Color(1.3, 0.8, 1.1, order))
    assert torch.equal(clip, before)


def test_normalizing_leaves_its_input_alone():
    clip = torch.full((1, 3, 1, 2, 2), 7, dtype=torch.uint8)
    PREPROCESSING.normalize("rgb", clip)
    assert (clip == 7).all()

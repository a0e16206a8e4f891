import numpy as np
import pytest
import torch

from kinema.data.transforms import (
    Augmentation,
    Colour,
    Geometry,
    Preprocessing,
    centre_geometry,
    cut,
    draw_colour,
    draw_geometry,
    recolour,
)

PREPROCESSING = Preprocessing(short_side=36, size=32)


def noise(height, width, channels=3, time=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (time, height, width, channels), dtype=torch.uint8, generator=generator)


def with_square(height, width, top, left, *, side, channels):
    """Dark, with one bright square at a known place."""
    frames = torch.full((2, height, width, channels), 20, dtype=torch.uint8)
    frames[:, top : top + side, left : left + side] = 240
    return frames


def centre_of_light(clip):
    """Row and column of the bright square's middle in a cut clip."""
    light = (clip[0, 0].double() - 20).clamp_min(0)
    rows, columns = torch.meshgrid(torch.arange(light.shape[0]), torch.arange(light.shape[1]), indexing="ij")
    return np.array([(light * rows).sum() / light.sum(), (light * columns).sum() / light.sum()])


def test_a_centre_crop_without_resizing_is_exact():
    frames = noise(36, 48)
    clip = cut(frames, Geometry(36, 0.5, 0.5, mirrored=False), 32)
    assert torch.equal(clip, frames[:, 2:34, 8:40].permute(3, 0, 1, 2))


@pytest.mark.parametrize(
    ("top", "left", "rows", "columns"), [(0.0, 0.0, 0, 0), (0.999, 0.999, 4, 16), (0.0, 0.5, 0, 8)]
)
def test_a_place_is_a_share_of_the_room(top, left, rows, columns):
    frames = noise(36, 48)
    clip = cut(frames, Geometry(36, top, left, mirrored=False), 32)
    assert torch.equal(clip, frames[:, rows : rows + 32, columns : columns + 32].permute(3, 0, 1, 2))


def test_mirroring_is_exact():
    frames = noise(36, 48)
    plain, mirrored = (cut(frames, Geometry(36, 0.3, 0.7, mirrored=m), 32) for m in (False, True))
    assert torch.equal(mirrored, plain.flip(-1))
    assert not torch.equal(mirrored, plain)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (20, 30), (16, 16), (37, 211), (32, 32)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_picture_becomes_a_square_of_bytes(height, width, channels):
    """Landscape, portrait, smaller than the square, and very wide."""
    clip = cut(noise(height, width, channels), centre_geometry(PREPROCESSING), 32)
    assert clip.shape == (channels, 2, 32, 32)
    assert clip.dtype == torch.uint8
    assert clip.is_contiguous()


def test_the_shorter_side_is_the_one_that_is_resized():
    for height, width in [(72, 144), (144, 72)]:
        frames = with_square(height, width, height // 2 - 8, width // 2 - 8, side=16, channels=3)
        light = (cut(frames, Geometry(36, 0.5, 0.5, mirrored=False), 36)[0, 0] > 128).sum()
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
def test_colour_and_depth_are_cut_at_the_same_place(height, width, geometry):
    side = min(height, width) // 4
    top, left = height // 2 - side // 2 - 1, width // 2 - side // 2 + 2
    colour = cut(with_square(height, width, top, left, side=side, channels=3), geometry, 32)
    depth = cut(with_square(height, width, top, left, side=side, channels=1), geometry, 32)
    assert np.abs(centre_of_light(colour) - centre_of_light(depth)).max() < 0.05

    scale = geometry.short_side / min(height, width)
    resized = round(height * scale), round(width * scale)
    corner = [np.floor(share * (extent - 32) + 0.5) for share, extent in zip(geometry[1:3], resized, strict=True)]
    expected = [(place + side / 2) * scale - 0.5 - at for place, at in zip((top, left), corner, strict=True)]
    if geometry.mirrored:
        expected[1] = 31 - expected[1]
    assert np.abs(centre_of_light(colour) - expected).max() < 0.3


def test_a_depth_picture_of_another_size_is_cut_at_the_same_place():
    geometry = Geometry(36, 0.3, 0.8, mirrored=True)
    colour = cut(with_square(96, 128, 40, 56, side=16, channels=3), geometry, 32)
    depth = cut(with_square(48, 64, 20, 28, side=8, channels=1), geometry, 32)
    assert np.abs(centre_of_light(colour) - centre_of_light(depth)).max() < 0.3


def test_frames_of_another_shape_are_refused():
    with pytest.raises(TypeError):
        cut(noise(36, 48)[0], centre_geometry(PREPROCESSING), 32)
    with pytest.raises(TypeError):
        recolour(cut(noise(36, 48, 1), centre_geometry(PREPROCESSING), 32), Colour(1.1, 1.0, 1.0))


def test_an_evaluation_takes_the_middle_and_is_not_mirrored():
    assert centre_geometry(PREPROCESSING) == Geometry(36, 0.5, 0.5, mirrored=False)


def test_draws_stay_in_their_ranges_and_reach_all_of_them():
    rng = np.random.default_rng(0)
    augmentation = Augmentation(short_side=(30, 40), flip=0.25, colour_jitter=0.4)
    drawn = [draw_geometry(augmentation, PREPROCESSING, rng) for _ in range(2000)]
    assert {g.short_side for g in drawn} == set(range(32, 41))  # never below the square
    assert 0.2 < np.mean([g.mirrored for g in drawn]) < 0.3
    for places in ([g.top for g in drawn], [g.left for g in drawn]):
        assert 0 <= min(places) < 0.01
        assert 0.99 < max(places) < 1
    colours = np.array([draw_colour(augmentation, rng)[:3] for _ in range(2000)])
    assert (colours.min(0) < 0.62).all()
    assert (colours.min(0) >= 0.6).all()
    assert (colours.max(0) > 1.38).all()
    assert (colours.max(0) <= 1.4).all()


def test_an_augmentation_that_varies_nothing_moves_the_crop_alone():
    rng = np.random.default_rng(0)
    drawn = [draw_geometry(Augmentation(), PREPROCESSING, rng) for _ in range(50)]
    assert {(g.short_side, g.mirrored) for g in drawn} == {(36, False)}
    assert len({g.top for g in drawn}) == 50
    assert draw_colour(Augmentation(), rng) == Colour(1, 1, 1)


def recoloured_by_hand(clip, colour):
    value = clip.astype(np.float64) * colour.brightness
    luma = np.array([0.299, 0.587, 0.114])
    middle = np.tensordot(luma, value, 1).mean()
    value = middle + (value - middle) * colour.contrast
    grey = np.tensordot(luma, value, 1)
    value = grey + (value - grey) * colour.saturation
    return np.clip(np.round(value), 0, 255)


def test_factors_of_one_change_no_colour():
    clip = noise(8, 8).permute(3, 0, 1, 2).contiguous()
    assert torch.equal(recolour(clip, Colour(1.0, 1.0, 1.0)), clip)
    nearly = recolour(clip, Colour(1.0 + 1e-7, 1.0, 1.0))  # by the long way
    assert torch.equal(nearly, clip)


def test_a_shuffle_puts_channels_in_other_places_and_changes_no_value():
    clip = noise(8, 8).permute(3, 0, 1, 2).contiguous()
    assert torch.equal(recolour(clip, Colour(order=(2, 0, 1))), clip[[2, 0, 1]])


@pytest.mark.parametrize(("share", "orders"), [(0.0, 1), (1.0, 6)])
def test_shuffles_are_drawn_as_often_as_said(share, orders):
    rng = np.random.default_rng(0)
    drawn = {draw_colour(Augmentation(colour_shuffle=share), rng).order for _ in range(100)}
    assert len(drawn) == orders


@pytest.mark.parametrize("colour", [Colour(1.4, 1, 1), Colour(1, 0.6, 1), Colour(1, 1, 1.3), Colour(0.7, 1.2, 0.8)])
def test_colours_change_by_the_formula(colour):
    clip = noise(8, 8).permute(3, 0, 1, 2).contiguous()
    got = recolour(clip, colour)
    assert got.dtype == torch.uint8
    assert np.abs(got.numpy() - recoloured_by_hand(clip.numpy(), colour)).max() <= 1
    assert (got.numpy() != recoloured_by_hand(clip.numpy(), colour)).mean() < 0.01


@pytest.mark.parametrize(("modality", "channels"), [("rgb", 3), ("depth", 1), ("depth", 3)])
def test_normalising_is_value_over_255_less_mean_over_deviation(modality, channels):
    preprocessing = Preprocessing(short_side=36, size=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    clip = torch.arange(256, dtype=torch.uint8).repeat(channels).view(1, channels, 1, 16, 16)
    mean, std = (preprocessing.mean, preprocessing.std) if modality == "rgb" else ((0.5,) * channels, (0.5,) * channels)
    got = preprocessing.normalise(modality, clip)
    assert got.dtype == torch.float32
    for channel in range(channels):
        wanted = (clip[:, channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(got[:, channel].double(), wanted, rtol=0, atol=1e-6)


def test_each_modality_is_normalised_by_its_own_numbers():
    preprocessing = Preprocessing(modalities=("rgb", "depth"), short_side=36, size=32, mean=(0.1, 0.2, 0.3))
    black = torch.zeros(1, 3, 1, 2, 2, dtype=torch.uint8)
    both = preprocessing.normalise_all({"rgb": black, "depth": black[:, :1]})
    torch.testing.assert_close(both["rgb"].amax((0, 2, 3, 4)), torch.tensor([-0.2, -0.4, -0.6]))
    torch.testing.assert_close(both["depth"], torch.full((1, 1, 1, 2, 2), -1.0))


@pytest.mark.parametrize(("modalities", "channels"), [(("rgb",), 3), (("depth",), 1), (("rgb", "depth"), 3)])
def test_a_stream_has_the_channels_of_its_modality(modalities, channels):
    assert Preprocessing(modalities=modalities, short_side=36, size=32).channels == channels
    assert Preprocessing(modalities=modalities, short_side=36, size=32, depth_channels=3).channels == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modalities": ()}, r"modalities=\(\) must name"),
        ({"modalities": ("rgb", "rgb")}, "each once"),
        ({"size": 37}, "size=37 must be at least 1 and at most short_side=36"),
        ({"size": 0}, "size=0 must be at least 1"),
        ({"std": (0.5, 0.0, 0.5)}, "must be positive"),
    ],
    ids=str,
)
def test_preprocessing_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**{"short_side": 36, "size": 32, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"short_side": (40, 30)}, r"short_side=\(40, 30\) must be an increasing range"),
        ({"flip": 1.5}, r"flip=1\.5 must be a probability"),
        ({"colour_jitter": 1.0}, r"colour_jitter=1\.0 must be at least 0 and below 1"),
        ({"mixup_alpha": -0.1}, r"mixup_alpha=-0\.1 must not be negative"),
    ],
    ids=str,
)
def test_an_augmentation_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**fields)

"""RandAugment's operations follow their formulas; color operations use statistics of the whole clip."""

import numpy as np
import pytest
import torch

from kinema.errors import ConfigError
from kinema.transforms.augment import (
    OPERATIONS,
    Operation,
    RandAugment,
    apply_color_operations,
    combined_warp,
    draw_operations,
)
from kinema.transforms.geometry import IDENTITY, Warp, rotation

PLACES = {"rotate", "shear_x", "shear_y", "translate_x", "translate_y"}


def clip(time=3, low=30, high=200):
    """Return noise whose brightness differs from frame to frame."""
    rng = np.random.default_rng(0)
    frames = rng.integers(low, high, (3, time, 12, 16)) + 15 * np.arange(time)[None, :, None, None]
    return torch.from_numpy(frames.astype(np.uint8))


def changed(given, name, strength=0.9):
    return apply_color_operations(given, (Operation(name, strength),))


def test_there_are_the_14_operations_of_the_paper():
    assert len(set(OPERATIONS)) == len(OPERATIONS) == 14
    assert set(OPERATIONS) >= PLACES


def test_all_operations_and_both_directions_are_drawn_alike():
    rng = np.random.default_rng(0)
    drawn = [op for _ in range(2000) for op in draw_operations(RandAugment(operations=2, magnitude=5), rng)]
    counts = {name: sum(op.name == name for op in drawn) for name in OPERATIONS}
    assert min(counts.values()) > 0.75 * 4000 / 14
    assert max(counts.values()) < 1.25 * 4000 / 14
    assert {op.strength for op in drawn} == {-0.5, 0.5}
    assert 0.45 < np.mean([op.strength > 0 for op in drawn]) < 0.55


def test_nothing_is_drawn_where_no_operation_is_wanted():
    rng = np.random.default_rng(0)
    assert draw_operations(RandAugment(), rng) == ()
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(
    ("operation", "warp"),
    [
        (Operation("rotate", 1.0), rotation(30)),
        (Operation("rotate", -0.5), rotation(-15)),
        (Operation("shear_x", 1.0), Warp(xy=0.3)),
        (Operation("shear_y", -1.0), Warp(yx=-0.3)),
        (Operation("translate_x", 1.0), Warp(x0=150 / 331)),
        (Operation("translate_y", -0.5), Warp(y0=-75 / 331)),
        (Operation("solarize", 1.0), IDENTITY),
    ],
    ids=str,
)
def test_places_are_moved_by_the_numbers_of_autoaugment(operation, warp):
    assert combined_warp((operation,)) == warp


def test_operations_on_places_follow_one_another():
    both = combined_warp((Operation("rotate", 1.0), Operation("identity", 1.0), Operation("shear_x", 1.0)))
    np.testing.assert_allclose(both, rotation(30).then(Warp(xy=0.3)))
    other_way = combined_warp((Operation("shear_x", 1.0), Operation("rotate", 1.0)))
    assert np.abs(np.subtract(both, other_way)).max() > 0.05


def luma(values):
    return np.tensordot([0.299, 0.587, 0.114], values, 1)


def by_hand(name, values, strength):
    """Return the result for a whole clip, in double precision."""
    factor = 1 + 0.9 * strength
    match name:
        case "identity":
            return values
        case "autocontrast":
            low, high = (edge((1, 2, 3), keepdims=True) for edge in (values.min, values.max))
            return (values - low) * 255 / (high - low)
        case "posterize":
            kept = 2 ** round(4 * abs(strength))
            return values // kept * kept
        case "solarize":
            return np.where(values < 256 - round(256 * abs(strength)), values, 255 - values)
        case "color":
            return luma(values) * (1 - factor) + values * factor
        case "contrast":
            return round(luma(values).mean()) * (1 - factor) + values * factor
        case "brightness":
            return values * factor


@pytest.mark.parametrize("strength", [0.9, -0.4])
@pytest.mark.parametrize(
    "name", ["identity", "autocontrast", "posterize", "solarize", "color", "contrast", "brightness"]
)
def test_colors_change_by_the_formula_on_the_whole_clip(name, strength):
    given = clip()
    wanted = np.clip(by_hand(name, given.numpy().astype(float), strength), 0, 255)
    got = changed(given, name, strength)
    assert got.dtype == torch.uint8
    assert got.is_contiguous()
    assert np.abs(got.numpy() - wanted).max() <= (1.6 if name in ("color", "contrast") else 1)


def test_equalize_spreads_the_levels_of_the_whole_clip():
    got = changed(clip(low=100, high=120), "equalize")
    assert got.min() < 15
    assert got.max() == 255
    means = got.float().mean((0, 2, 3))
    assert (means.diff() > 20).all()  # frames that were brighter still are: they share one histogram


def test_sharpness_does_not_reach_from_one_frame_into_the_next():
    given = clip()
    alone = torch.cat([changed(given[:, [frame]], "sharpness") for frame in range(3)], 1)
    assert torch.equal(changed(given, "sharpness"), alone)
    assert not torch.equal(alone, given)
    blurred = changed(given, "sharpness", -1.0)
    assert blurred.float().diff(dim=-1).abs().mean() < 0.6 * given.float().diff(dim=-1).abs().mean()


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - PLACES - {"autocontrast", "equalize"}))
def test_strength_0_changes_no_color(name):
    assert torch.equal(changed(clip(), name, 0.0), clip())


@pytest.mark.parametrize("name", sorted(PLACES))
def test_strength_0_moves_nothing_and_places_are_no_matter_of_colors(name):
    assert combined_warp((Operation(name, 0.0),)) == IDENTITY
    assert torch.equal(changed(clip(), name, 1.0), clip())


def test_operations_on_colors_are_done_in_their_order():
    given = clip()
    first, last = Operation("solarize", 0.5), Operation("brightness", 0.5)
    assert torch.equal(apply_color_operations(given, (first, last)), changed(changed(given, *first), *last))
    assert not torch.equal(apply_color_operations(given, (first, last)), apply_color_operations(given, (last, first)))


@pytest.mark.parametrize(("field", "value"), [("operations", -1), ("magnitude", 10.5), ("magnitude", -1)], ids=str)
def test_what_cannot_be_is_refused(field, value, raises):
    with raises(ConfigError, value, field=field):
        RandAugment(**{field: value})

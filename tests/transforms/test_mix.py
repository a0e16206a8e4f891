"""MixUp and CutMix mix all modalities alike, by the weight in the label."""

import numpy as np
import pytest
import torch

from kinema.modality import DepthFacts
from kinema.transforms.augment import Augmentation, cutmix, draw_cutmix_box, mix, mixup
from kinema.transforms.geometry import Box
from kinema.transforms.preprocessing import Preprocessing

OWN = {
    "rgb": torch.full((1, 3, 2, 20, 30), 40, dtype=torch.uint8),
    "depth": torch.full((1, 1, 2, 20, 30), 100, dtype=torch.uint8),
}
OTHER = {modality: clip + 100 for modality, clip in OWN.items()}


def test_mixup_is_the_weighted_mean():
    clips, share = mixup(OWN, OTHER, 0.3)
    assert share == 0.3
    assert (clips["rgb"] == 110).all()
    assert (clips["depth"] == 170).all()


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.37, 0.5, 0.9, 1.0])
def test_a_mixture_is_the_mean_of_the_normalized_clips(weight):
    """All pairs of levels, also where one or both have no reading."""
    levels = torch.arange(256, dtype=torch.uint8)
    own = levels[:, None].expand(-1, 256).reshape(1, 1, 1, 256, 256)
    other = own.mT
    facts = DepthFacts(unit_mm=1, near=500, far=4500, coverage="masked")
    normalize = Preprocessing(modalities=("depth",), short_side=256, size=256, depth=facts).normalize
    clips, _ = mixup({"depth": own, "rgb": own}, {"depth": other, "rgb": other}, weight)
    exact = weight * normalize("depth", own).double() + (1 - weight) * normalize("depth", other).double()
    assert (normalize("depth", clips["depth"]) - exact).abs().max() <= 0.5 / 127.5 + 1e-6
    assert torch.equal(clips["depth"], clips["rgb"])


@pytest.mark.parametrize("mixed_in", [0.1, 0.25, 0.4])
def test_where_one_clip_has_a_reading_the_share_is_kept(mixed_in):
    """A clip and its mirrored mixture have other labels, so they are other clips."""
    own, other = (torch.tensor(values, dtype=torch.uint8) for values in ([100, 0], [0, 200]))
    clips, _ = mixup({"depth": own}, {"depth": other}, 1 - mixed_in)
    assert clips["depth"].tolist() == [round(100 * (1 - mixed_in)), round(200 * mixed_in)]
    mirrored, _ = mixup({"depth": own}, {"depth": other}, mixed_in)
    assert mirrored["depth"].tolist() == [round(100 * mixed_in), round(200 * (1 - mixed_in))]


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        (Box(0.1, 0.2, 0.5, 0.6), (slice(2, 10), slice(6, 18))),
        (Box(0.0, 0.0, 1.0, 1.0), (slice(0, 20), slice(0, 30))),
        (Box(0.98, 0.0, 1.0, 0.01), (slice(19, 20), slice(0, 1))),
    ],
    ids=str,
)
def test_cutmix_pastes_the_partners_box_and_counts_its_pixels(box, pixels):
    clips, share = cutmix(OWN, OTHER, box)
    for modality, clip in clips.items():
        inside = torch.zeros(20, 30, dtype=torch.bool)
        inside[pixels] = True
        assert torch.equal(clip, torch.where(inside, OTHER[modality], OWN[modality]))
        assert share == pytest.approx(1 - inside.double().mean().item())
    assert (OWN["rgb"] == 40).all()  # it was not touched


def test_boxes_have_the_area_unless_they_hang_over_the_edge():
    rng = np.random.default_rng(0)
    for area in (0.0, 0.1, 0.5, 1.0):
        boxes = [draw_cutmix_box(area, rng) for _ in range(500)]
        areas = np.array([(b.bottom - b.top) * (b.right - b.left) for b in boxes])
        assert areas.max() <= area + 1e-9
        inside = [b.top > 0 and b.left > 0 and b.bottom < 1 and b.right < 1 for b in boxes]
        np.testing.assert_allclose(areas[inside], area, atol=1e-9)
        assert min(min(b) for b in boxes) >= 0
        assert max(max(b) for b in boxes) <= 1
    middles = np.array(
        [((b.top + b.bottom) / 2, (b.left + b.right) / 2) for b in (draw_cutmix_box(0, rng) for _ in range(500))]
    )
    assert (np.abs(middles.mean(0) - 0.5) < 0.05).all()


def kind(clips):
    """MixUp changes every pixel; CutMix takes each from one of the two."""
    return "cutmix" if set(clips["rgb"].unique().tolist()) <= {40, 140} else "mixup"


@pytest.mark.parametrize(("mixup_alpha", "cutmix_alpha", "share"), [(0.8, 0.0, 0.0), (0.0, 1.0, 1.0), (0.8, 1.0, 0.5)])
def test_one_of_the_two_is_taken_by_a_fair_coin_where_both_are_wanted(mixup_alpha, cutmix_alpha, share):
    augmentation = Augmentation(mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha)
    assert augmentation.mixes_samples
    rng = np.random.default_rng(0)
    kinds = []
    for _ in range(400):
        clips, own_share = mix(OWN, OTHER, augmentation, rng)
        kinds.append(kind(clips) == "cutmix")
        mean = clips["rgb"].double().mean().item()
        assert own_share == pytest.approx((140 - mean) / 100, abs=0.006)
    # A weight of nearly 0 or 1 rounds to an unmixed picture, which `kind` takes for the other one.
    assert np.mean(kinds) == pytest.approx(share, abs=0.12)


def test_nothing_is_mixed_where_nothing_is_wanted():
    assert not Augmentation().mixes_samples

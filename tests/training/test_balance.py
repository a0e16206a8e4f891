"""Tests of balancing classes by sampling or by weights in the loss."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kinema.data.dataset import VideoDataset
from kinema.data.loaders import collate, complete
from kinema.data.manifest import Manifest, class_lists, write_manifest
from kinema.data.samplers import Draw, TrainingBatches
from kinema.training.loaders import training_batches
from kinema.training.loop import train
from kinema.training.recipe import Recipe
from kinema.training.runs import Run
from kinema.training.setup import TrainingSetup, balance_loss

CLASSES = (0,) * 13 + (1,) * 4 + (2,) * 2
"""Classes of the samples at positions 100 to 118."""

POSITIONS = tuple(range(100, 100 + len(CLASSES)))


def draw_batches(
    *, steps: int = 1, first_step: int = 0, seed: int = 0, batch_size: int = 19, **changes
) -> TrainingBatches:
    return TrainingBatches(
        POSITIONS,
        batch_size=batch_size,
        steps=steps,
        first_step=first_step,
        seed=seed,
        classes=changes.pop("classes", CLASSES),
        **changes,
    )


def class_of(draw: Draw) -> int:
    return CLASSES[draw.index - 100]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_class_comes_equally_often_in_each_pass_but_for_a_rest(seed: int) -> None:
    """19 draws of three classes: six or seven of each."""
    extra = Counter()
    for draws in draw_batches(steps=30, seed=seed):  # a batch is an epoch here
        counts = Counter(class_of(draw) for draw in draws)
        assert sorted(counts.values()) == [6, 6, 7]
        extra[max(counts, key=counts.__getitem__)] += 1
    assert set(extra) == {0, 1, 2}  # the remainder goes to different classes


def test_a_class_gives_all_of_its_samples_before_one_comes_again() -> None:
    for draws in draw_batches(steps=20):
        for name in range(3):
            own = [draw.index for draw in draws if class_of(draw) == name]
            size = CLASSES.count(name)
            assert max(Counter(own).values()) == -(-len(own) // size)
            assert len(set(own)) == min(size, len(own))


def test_classes_are_mixed_within_a_pass() -> None:
    """Draws of one class are not adjacent in an epoch."""
    names = [class_of(draw) for draw in next(iter(draw_batches()))]
    assert sum(one != other for one, other in pairwise(names)) > 5


def test_every_sample_of_a_large_class_comes_in_time() -> None:
    seen = {draw.index for draws in draw_batches(steps=20) for draw in draws}
    assert seen == set(POSITIONS)


def test_a_sample_that_comes_twice_in_a_pass_is_cut_in_two_ways() -> None:
    for draws in draw_batches(steps=5, mixup="partner"):
        assert len({draw.seed for draw in draws}) == len(draws)
        partners = [draw.partner for draw in draws if draw.partner is not None]
        assert len({partner.seed for partner in partners}) == len(draws)
        assert not {draw.seed for draw in draws} & {partner.seed for partner in partners}


def test_partners_are_balanced_too_and_in_another_order() -> None:
    (draws,) = draw_batches(mixup="partner")
    partners = [draw.partner for draw in draws if draw.partner is not None]
    assert sorted(Counter(class_of(partner) for partner in partners).values()) == [6, 6, 7]
    assert [partner.index for partner in partners] != [draw.index for draw in draws]


def test_draws_follow_the_seed_alone_and_go_on_in_the_middle() -> None:
    """Epochs of 19 draws end within batches of four."""
    whole = list(draw_batches(steps=12, batch_size=4))
    assert list(draw_batches(steps=12, batch_size=4)) == whole
    assert list(draw_batches(steps=12, batch_size=4, seed=1)) != whole
    for step in (1, 4, 5, 11):
        assert list(draw_batches(steps=12, batch_size=4, first_step=step)) == whole[step:]


def test_balanced_passes_differ_from_one_another() -> None:
    one, other = ([draw.index for draw in draws] for draws in draw_batches(steps=2))
    assert one != other


def test_without_classes_every_sample_comes_once_in_a_pass() -> None:
    (draws,) = draw_batches(classes=None)
    assert sorted(draw.index for draw in draws) == list(POSITIONS)


# -- in trainings --------------------------------------------------------------------------------------------------


@pytest.fixture
def uneven(few_moves: Manifest, tiny_recipe: Recipe, tmp_path: Path) -> tuple[Recipe, Manifest]:
    """Return a recipe on four kicks, four runs and two walks, with other counts in a second task head."""
    entries = [
        replace(
            entry,
            rgb=few_moves.locate(entry.rgb),
            depth="",
            labels={"verb": entry.labels["label"], "noun": "ball" if number in (0, 10) else "none"},
        )
        for number, entry in enumerate(few_moves.entries)
    ]
    manifest = write_manifest(
        tmp_path / "two.csv", entries=entries, classes=class_lists(entries), dataset="two", version="1", depth=None
    )
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, manifest=str(manifest.path)))
    return recipe, manifest


def with_balance(recipe: Recipe, balance: str) -> Recipe:
    return replace(recipe, data=replace(recipe.data, balance=balance))


def test_the_sampler_balances_the_first_task_head(uneven: tuple[Recipe, Manifest]) -> None:
    recipe, manifest = uneven
    positions = manifest.positions("train")
    counts = {}
    for balance in ("none", "sampler"):
        batches = training_batches(TrainingSetup.build(with_balance(recipe, balance)), start=0, last=15)
        verbs = [manifest.entries[draw.index].labels["verb"] for draws in batches for draw in draws]  # six passes
        counts[balance] = Counter(verbs)
    assert counts["none"] == {"kick": 24, "run": 24, "walk": 12}
    assert sum(counts["sampler"].values()) == 60
    assert all(6 * 3 <= count <= 6 * 4 for count in counts["sampler"].values())
    assert balance_loss(with_balance(recipe, "sampler"), manifest, positions) is None


def test_every_head_has_weights_of_its_own(uneven: tuple[Recipe, Manifest]) -> None:
    recipe, manifest = uneven
    positions = manifest.positions("train")
    weights = balance_loss(with_balance(recipe, "loss"), manifest, positions)
    assert weights is not None
    expected = {
        "verb": {"kick": 10 / (3 * 4), "run": 10 / (3 * 4), "walk": 10 / (3 * 2)},
        "noun": {"ball": 10 / (2 * 1), "none": 10 / (2 * 9)},
    }
    for head, names in manifest.classes.items():
        assert weights[head].tolist() == pytest.approx([expected[head][name] for name in names])
    assert balance_loss(with_balance(recipe, "none"), manifest, positions) is None


class Heads(nn.Module):
    """Network of two linear maps of a clip's mean colors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.verb = nn.Linear(3, 3)
        self.noun = nn.Linear(3, 2)

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        colors = clip.mean((2, 3, 4))
        return {"verb": self.verb(colors), "noun": self.noun(colors)}


@pytest.mark.parametrize("balance", ["none", "loss"])
def test_the_logged_loss_is_that_of_weighted_heads(uneven: tuple[Recipe, Manifest], balance: str) -> None:
    recipe, manifest = uneven
    recipe = replace(with_balance(recipe, balance), optim=replace(recipe.optim, label_smoothing=0.0))
    preprocessing = recipe.clip.preprocessing(None)
    data = VideoDataset(
        manifest,
        sampling=recipe.clip.frame_sampling(),
        preprocessing=preprocessing,
        augmentation=recipe.data.augmentation,
    )
    positions = manifest.positions("train")
    (draws,) = TrainingBatches(positions, batch_size=4, steps=1, seed=recipe.run.seed)
    batch = complete(collate([data[draw] for draw in draws]))
    with torch.no_grad():
        logits = Heads()(preprocessing.normalize_all(batch["inputs"])["rgb"])
    expected = 0.0
    for head, head_logits in logits.items():
        labels = [manifest.targets(position)[head] for position in positions]
        log_probabilities = head_logits.double().log_softmax(1).numpy()
        for row, label in enumerate(batch["targets"][head].tolist()):
            weight = 1.0 if balance == "none" else len(labels) / (len(set(labels)) * labels.count(label))
            expected -= weight * log_probabilities[row, label] / 4
    run = train(recipe, model=Heads(), max_steps=1)
    assert run.steps()[0]["loss"] == pytest.approx(float(np.asarray(expected)), rel=1e-5)


def test_a_balanced_training_goes_on_to_the_bit(uneven: tuple[Recipe, Manifest], tmp_path: Path) -> None:
    recipe, _ = uneven
    losses = []
    for parted in (False, True):
        out = replace(with_balance(recipe, "sampler").run, out=tmp_path / str(parted))
        run = train(replace(with_balance(recipe, "sampler"), run=out), model=Heads(), max_steps=3 if parted else None)
        if parted:
            run = train(run.recipe, Run.open(run.path), model=Heads())
        losses.append([line["loss"] for line in run.steps()])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 10

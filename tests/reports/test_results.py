"""A stored result can be checked without the run that it came from."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kinema.models.ctn import CTNConfig
from kinema.reports.results import store_result
from kinema.training.loop import train
from kinema.training.recipe import Clip, Recipe, load_recipe


@pytest.fixture
def quick_recipe(tmp_path: Path) -> Recipe:
    recipe = load_recipe("moves_ctn_tiny")
    return replace(
        recipe,
        clip=Clip(frames=8, size=32, short_side=32),
        data=replace(recipe.data, workers=0, augmentation=replace(recipe.data.augmentation, short_side=(32, 40))),
        model=CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3),
        run=replace(recipe.run, out=tmp_path / "run"),
    )


def test_accuracy_can_be_computed_again_from_what_is_stored(quick_recipe: Recipe, tmp_path: Path) -> None:
    run = train(quick_recipe, max_steps=2)
    store_result(run, tmp_path / "results" / "x.json", title="synthetic")
    stored = json.loads((tmp_path / "results" / "x.json").read_text())
    pairs = zip(stored["predictions"]["targets"]["label"], stored["predictions"]["answers"]["label"], strict=True)
    right = [target == answer for target, answer in pairs]
    assert len(right) == 90
    assert stored["measures"]["top1"] == pytest.approx(100 * sum(right) / len(right), abs=1e-3)
    assert stored["provenance"]["seed"] == 0
    assert stored["recipe"]["optim"]["lr"] == quick_recipe.optim.lr
    assert stored["training"]["steps"] == 2
    assert stored["recipe"]["run"]["out"] is None
    assert str(tmp_path) not in (tmp_path / "results" / "x.json").read_text()

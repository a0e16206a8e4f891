"""Tests of stored results, which can be checked without their run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kinema.errors import PredictionsError
from kinema.evaluation.bootstrap import mean_interval
from kinema.evaluation.calibration import calibration_error, negative_log_likelihood
from kinema.evaluation.compare import compare
from kinema.evaluation.predictions import load_predictions, measure
from kinema.models.ctn import CTNConfig
from kinema.reports import results
from kinema.reports.results import load_result, store_result
from kinema.reports.run_list import side_of
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


def test_metrics_can_be_recomputed_from_a_stored_result(quick_recipe: Recipe, tmp_path: Path) -> None:
    run = train(quick_recipe, max_steps=2)
    store_result(run, tmp_path / "results" / "x.json", title="synthetic")
    stored = json.loads((tmp_path / "results" / "x.json").read_text())
    pairs = zip(stored["predictions"]["targets"]["label"], stored["predictions"]["answers"]["label"], strict=True)
    correct = [target == answer for target, answer in pairs]
    assert len(correct) == 90
    assert stored["measures"]["top1"] == pytest.approx(100 * sum(correct) / len(correct), abs=1e-3)
    assert stored["provenance"]["seed"] == 0
    assert stored["recipe"]["optim"]["lr"] == quick_recipe.optim.lr
    assert stored["training"]["steps"] == 2
    assert stored["recipe"]["run"]["out"] is None
    assert str(tmp_path) not in (tmp_path / "results" / "x.json").read_text()
    correct = np.array(correct)
    assert stored["intervals"]["top1"] == pytest.approx([100 * end for end in mean_interval(correct)], abs=1e-3)
    assert stored["bootstrap"] == {"over": "clip", "resamples": 2000, "level": 95.0, "seed": 0}
    assert stored["protocol"] == {"frames": 8, "clips": 1, "crops": 1}
    best = np.array(stored["predictions"]["top5"]["label"])
    assert best[:, 0].tolist() == stored["predictions"]["answers"]["label"]
    among_five = (best == np.array(stored["predictions"]["targets"]["label"])[:, None]).any(1)
    assert stored["measures"]["top5"] == pytest.approx(100 * among_five.mean(), abs=1e-3)


def test_stored_scores_give_every_metric_to_three_digits(quick_recipe: Recipe, tmp_path: Path) -> None:
    run = train(quick_recipe, max_steps=2)
    path = tmp_path / "x.json"
    stored = store_result(run, path, title="synthetic")
    exact, stored_predictions = load_predictions(run.predictions), load_result(path)
    np.testing.assert_array_equal(stored_predictions.index, exact.index)
    np.testing.assert_array_equal(stored_predictions.targets["label"], exact.targets["label"])
    np.testing.assert_array_equal(stored_predictions.logits["label"].argmax(1), exact.logits["label"].argmax(1))
    shifted = exact.logits["label"] - exact.logits["label"].max(1, keepdims=True)
    np.testing.assert_allclose(stored_predictions.logits["label"], shifted, rtol=1e-3, atol=1e-6)
    assert dict(measure(stored_predictions)) == pytest.approx(dict(measure(exact)))
    logits, targets = stored_predictions.logits["label"], stored_predictions.targets["label"]
    assert stored["measures"]["nll"] == pytest.approx(negative_log_likelihood(logits, targets), rel=1e-3)
    assert stored["measures"]["ece"] == pytest.approx(calibration_error(logits, targets), abs=0.1)
    assert compare(side_of("x.json", tmp_path), [exact])["label"].agreement == 100
    for field in ("classes", "split", "declared", "manifest_digest", "weights_digest", "protocol"):
        assert getattr(stored_predictions, field) == getattr(exact, field)


def test_many_scores_are_not_stored_and_a_result_without_scores_is_refused(
    quick_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raises
) -> None:
    monkeypatch.setattr(results, "MAX_SCORES", 90 * 15 - 1)
    stored = store_result(train(quick_recipe, max_steps=1), tmp_path / "x.json", title="synthetic")
    assert stored["predictions"]["scores"] == {"label": None}
    assert len(stored["predictions"]["top5"]["label"]) == 90
    with raises(PredictionsError, "too large", path="x.json"):
        load_result(tmp_path / "x.json")
    old = Path(__file__).parents[2] / "results" / "moves_ctn_tiny_seed0.json"
    with raises(PredictionsError, "scores", path=old):
        load_result(old)

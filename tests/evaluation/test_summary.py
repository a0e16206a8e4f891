"""Tests of the summary of a predictions file."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, top_k_accuracy_score

from kinema.errors import ComparisonError, PredictionsError
from kinema.evaluation.bootstrap import Bootstrap, mean_interval
from kinema.evaluation.calibration import calibration_error, fit_temperature, negative_log_likelihood
from kinema.evaluation.predictions import Predictions, Protocol, measure
from kinema.evaluation.summary import summarize, summary_to_json

CLASSES = tuple("abcdefg")


def make_predictions(seed=0, *, split="test", first=0, heads=("label",), **facts):
    rng = np.random.default_rng(seed)
    targets = {head: rng.integers(0, 6, 80) for head in heads}  # class g has no sample
    logits = {head: 3 * rng.normal(size=(80, 7)).astype(np.float32) for head in heads}
    for head in heads:
        logits[head][np.arange(80), targets[head]] += 2
    fields = {
        "classes": dict.fromkeys(heads, CLASSES),
        "split": split,
        "declared": 80,
        "missing": (),
        "manifest_digest": "m" * 64,
        "weights_digest": "w" * 64,
        "protocol": Protocol(frames=8, clips=3, crops=1),
        "groups": {"group": np.arange(80) // 4},
        **facts,
    }
    return Predictions(logits=logits, targets=targets, index=first + np.arange(80), **fields)


def test_metrics_match_scikit_learn():
    predictions = make_predictions()
    logits, targets = predictions.logits["label"], predictions.targets["label"]
    found = summarize(predictions).heads["label"]
    answers, labels = logits.argmax(1), np.arange(7)
    assert found.top1 == pytest.approx(100 * accuracy_score(targets, answers))
    assert found.top5 == pytest.approx(100 * top_k_accuracy_score(targets, logits, k=5, labels=labels))
    with pytest.warns(UserWarning, match="y_true"):
        balanced = balanced_accuracy_score(targets, answers)
    assert found.mean_class == pytest.approx(100 * balanced)
    assert found.nll == pytest.approx(log_loss(targets, softmax(np.float64(logits), axis=1), labels=labels))
    np.testing.assert_allclose(
        found.scores.f1, 100 * f1_score(targets, answers, labels=labels, average=None, zero_division=np.nan)
    )
    assert found.empty == ("g",)
    assert dict(measure(predictions)) == pytest.approx(
        {"top1": found.top1, "top5": found.top5, "mean_class": found.mean_class, "coverage": 100}
    )


def test_metrics_of_verb_noun_and_action_match_values_computed_by_hand():
    """Four segments with three verbs and two nouns.

    | segment | verb | shares     | noun | shares | rank of the action among the products                |
    | 0       | 0    | .5 .3 .2   | 0    | .6 .4  | .30 is the first                                     |
    | 1       | 1    | .5 .3 .2   | 0    | .6 .4  | .18 comes after .30 and .20                          |
    | 2       | 2    | .6 .3 .1   | 1    | .9 .1  | .01 is the last of six                               |
    | 3       | 0    | .2 .7 .1   | 1    | .3 .7  | .14 comes after .49 and .21; the verb alone is wrong |
    """
    shares = {
        "verb": [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]],
        "noun": [[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.3, 0.7]],
    }
    predictions = replace(
        make_predictions(heads=("verb", "noun"), groups={}).select_rows(np.arange(4)),
        logits={head: np.log(np.float32(rows)) + np.float32(3) for head, rows in shares.items()},
        targets={"verb": np.array([0, 1, 2, 0]), "noun": np.array([0, 0, 1, 1])},
        classes={"verb": ("take", "put", "wash"), "noun": ("tap", "plate")},
        declared=4,
    )
    assert predictions.ranks("joint").tolist() == [0, 2, 5, 2]
    expected = {"verb": (25, 100), "noun": (75, 100), "joint": (25, 75)}
    numbers = dict(measure(predictions))
    assert {head: (numbers[f"{head}.top1"], numbers[f"{head}.top5"]) for head in expected} == expected
    summary = summarize(predictions)
    found = {**summary.heads, "joint": summary.joint}
    assert {head: (found[head].top1, found[head].top5) for head in expected} == expected
    stored = json.loads(json.dumps(summary_to_json(summary)))
    assert {
        h: (part["top1"], part["top5"]) for h, part in {**stored["heads"], "joint": stored["joint"]}.items()
    } == expected


def test_every_interval_contains_its_metric_and_uses_the_bootstrap_settings():
    predictions = make_predictions()
    found = summarize(predictions).heads["label"]
    for name in ("top1", "top5", "mean_class"):
        low, high = getattr(found, f"{name}_interval")
        assert 0 <= low < getattr(found, name) < high <= 100
    right = 100.0 * (predictions.logits["label"].argmax(1) == predictions.targets["label"])
    assert found.top1_interval == pytest.approx(mean_interval(right))
    grouped = Bootstrap(over="group", resamples=500)
    assert summarize(predictions, bootstrap=grouped).heads["label"].top1_interval == pytest.approx(
        mean_interval(right, np.arange(80) // 4, grouped)
    )


def test_unknown_groups_are_refused(raises):
    with raises(PredictionsError, "'subject'", field="bootstrap_over"):
        summarize(make_predictions(), bootstrap=Bootstrap(over="subject"))


def test_joint_top1_is_the_share_with_every_head_correct():
    predictions = make_predictions(heads=("verb", "noun"))
    verb, noun = (predictions.logits[h].argmax(1) == predictions.targets[h] for h in ("verb", "noun"))
    summary = summarize(predictions)
    assert summary.joint.top1 == pytest.approx(100 * (verb & noun).mean())
    assert summary.joint.top1_interval == pytest.approx(mean_interval(100.0 * (verb & noun)))
    shares = [softmax(np.float64(predictions.logits[h]), axis=1) for h in ("verb", "noun")]
    among_five = []
    for i, product in enumerate(np.einsum("nv,no->nvo", *shares)):
        own = product[predictions.targets["verb"][i], predictions.targets["noun"][i]]
        among_five.append((product > own).sum() < 5)
    assert summary.joint.top5 == pytest.approx(100 * np.mean(among_five))
    assert (
        summary.joint.top5 < 100 * np.mean([predictions.ranks("verb") < 5, predictions.ranks("noun") < 5], axis=1).min()
    )  # not the same as each head's five best
    measures = dict(measure(predictions))
    assert (measures["joint.top1"], measures["joint.top5"]) == pytest.approx((summary.joint.top1, summary.joint.top5))


def test_a_single_head_has_no_joint_metrics():
    assert summarize(make_predictions()).joint is None
    assert "joint.top1" not in dict(measure(make_predictions()))


def test_no_temperature_is_fitted_by_default():
    assert summarize(make_predictions()).scaled is None


def test_a_temperature_is_fitted_on_one_split_and_used_on_another():
    predictions, held_out = make_predictions(0), make_predictions(1, split="val", first=80)
    scaled = summarize(predictions, temperature_from=held_out).scaled
    best = fit_temperature(held_out.logits["label"], held_out.targets["label"])
    assert scaled.temperature == {"label": best}
    assert best != pytest.approx(fit_temperature(predictions.logits["label"], predictions.targets["label"]), rel=1e-3)
    logits, targets = predictions.logits["label"], predictions.targets["label"]
    assert scaled.nll["label"] == negative_log_likelihood(logits, targets, temperature=best)
    assert scaled.ece["label"] == calibration_error(logits, targets, temperature=best)
    assert scaled.fitted_on == "80 samples of split 'val'"


def test_evaluated_samples_in_the_temperature_fit_are_counted():
    predictions = make_predictions()
    scaled = summarize(predictions, temperature_from=predictions).scaled
    assert scaled.fitted_on == "80 samples of split 'test', 80 of which are reported here: not a held-out number"
    overlapping = make_predictions(1, split="val", first=60)
    assert "20 of which are reported here" in summarize(predictions, temperature_from=overlapping).scaled.fitted_on
    elsewhere = make_predictions(1, manifest_digest="n" * 64)
    assert "reported" not in summarize(predictions, temperature_from=elsewhere).scaled.fitted_on


def test_a_temperature_of_another_model_is_refused(raises):
    with raises(ComparisonError, "vvvvvvvvvvvv", field="temperature_from"):
        summarize(make_predictions(), temperature_from=make_predictions(1, weights_digest="v" * 64))
    with raises(ComparisonError, "classes", field="temperature_from"):
        summarize(make_predictions(), temperature_from=make_predictions(1, classes={"label": CLASSES[::-1]}))


def test_a_temperature_at_a_bound_is_reported():
    predictions = make_predictions()
    sure = replace(predictions, logits={"label": np.eye(7, dtype=np.float32)[predictions.targets["label"]]})
    assert summarize(predictions, temperature_from=sure).scaled.bounded == ("label",)
    assert summarize(predictions, temperature_from=predictions).scaled.bounded == ()


def test_a_summary_can_be_written_as_json():
    predictions = make_predictions(declared=100, missing=("line 3: gone",))
    found = json.loads(
        json.dumps(summary_to_json(summarize(predictions, temperature_from=predictions)), allow_nan=False)
    )
    assert (found["samples"], found["declared"], found["coverage"]) == (80, 100, 80)
    assert found["protocol"] == {"frames": 8, "clips": 3, "crops": 1}
    head = found["heads"]["label"]
    assert len(head["classes"]) == len(head["confusion"]) == 7
    assert head["classes"][6]["recall"] is None
    assert head["classes"][6]["support"] == 0
    assert np.trace(head["confusion"]) / 80 * 100 == pytest.approx(head["top1"])
    assert head["classes_without_samples"] == ["g"]
    assert found["joint"] is None
    assert found["scaled"]["temperature"]["label"] > 1

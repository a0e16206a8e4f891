"""Tests of calibration metrics against scikit-learn and explicit computations."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from kinema.evaluation.calibration import TEMPERATURES, calibration_error, fit_temperature, negative_log_likelihood


def make_logits(seed, *, samples=400, classes=6, sharpness=3.0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, samples)
    logits = rng.normal(size=(samples, classes))
    logits[np.arange(samples), targets] += 1
    return (sharpness * logits).astype(np.float32), targets


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_likelihood_matches_scikit_learn(seed, temperature):
    logits, targets = make_logits(seed)
    probabilities = softmax(np.float64(logits) / temperature, axis=1)
    expected = log_loss(targets, probabilities, labels=np.arange(6))
    assert negative_log_likelihood(logits, targets, temperature=temperature) == pytest.approx(expected)


def test_the_likelihood_of_a_confident_error_is_finite():
    logits = np.array([[1e4, 0.0], [0.0, 1e4]], np.float32)
    assert negative_log_likelihood(logits, np.array([1, 1])) == pytest.approx(5000)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bins", [1, 15, 20])
def test_the_calibration_error_matches_a_loop_over_bins(seed, bins):
    logits, targets = make_logits(seed, sharpness=1.0)  # overconfident in some bins, underconfident in others
    expected = 0.0
    probabilities = np.exp(np.float64(logits)) / np.exp(np.float64(logits)).sum(1, keepdims=True)
    for number in range(bins):
        inside = [i for i in range(400) if number / bins < max(probabilities[i]) <= (number + 1) / bins]
        if inside:
            accuracy = sum(probabilities[i].argmax() == targets[i] for i in inside) / len(inside)
            confidence = sum(max(probabilities[i]) for i in inside) / len(inside)
            expected += 100 * len(inside) / 400 * abs(accuracy - confidence)
    assert calibration_error(logits, targets, bins=bins) == pytest.approx(expected)
    assert bins == 1 or expected > 1.5 * calibration_error(logits, targets, bins=1)


def test_a_confidence_on_an_edge_belongs_to_the_lower_of_fifteen_bins():
    logits, targets = make_logits(0, sharpness=1.0)
    assert calibration_error(logits, targets) == calibration_error(logits, targets, bins=15)
    assert calibration_error(logits, targets) != pytest.approx(calibration_error(logits, targets, bins=10))
    edge = np.log(np.array([[0.5, 0.5]] * 2 + [[0.9, 0.1]] * 2))  # two bins: one half is in the first
    assert calibration_error(edge, np.array([0, 0, 1, 1]), bins=2) == pytest.approx(0.5 * 50 + 0.5 * 90)


def test_a_calibrated_model_has_no_calibration_error():
    """Three of four predictions with confidence 3/4 are correct."""
    logits = np.log(np.array([[0.75, 0.25]] * 4))
    assert calibration_error(logits, np.array([0, 0, 0, 1])) == pytest.approx(0)
    assert calibration_error(logits, np.array([1, 1, 1, 1])) == pytest.approx(75)


def test_errors_of_different_bins_do_not_cancel_out():
    """Confidence equals accuracy on average, but in no bin."""
    logits = np.log(np.array([[0.6, 0.4]] * 5 + [[0.9, 0.1]] * 5))
    targets = np.array([0] * 5 + [0, 0, 1, 1, 1])
    assert calibration_error(logits, targets) == pytest.approx(0.5 * 40 + 0.5 * 50)


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_of_two_classes_matches_logistic_regression(seed):
    """With two classes and no intercept, 1 / temperature is the weight of the difference of the logits."""
    logits, targets = make_logits(seed, classes=2)
    difference = np.float64(logits[:, 1:] - logits[:, :1])
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(difference, targets)
    assert fit_temperature(logits, targets) == pytest.approx(1 / model.coef_.item(), rel=1e-4)


@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_the_temperature_maximizes_the_likelihood_and_undoes_a_factor(factor):
    logits, targets = make_logits(0)
    best = fit_temperature((factor * logits).astype(np.float32), targets)
    assert best == pytest.approx(factor * fit_temperature(logits, targets), rel=1e-3)
    likelihood = negative_log_likelihood(factor * logits, targets, temperature=best)
    for other in best * np.geomspace(0.05, 20, 40):
        assert negative_log_likelihood(factor * logits, targets, temperature=other) >= likelihood - 1e-12


def test_a_temperature_corrects_an_overconfident_model():
    logits, targets = make_logits(0, samples=4000)
    best = fit_temperature(logits[:2000], targets[:2000])
    assert best > 1.5
    before, after = (calibration_error(logits[2000:], targets[2000:], temperature=t) for t in (1, best))
    assert after < before / 2


def test_perfect_or_uninformative_predictions_give_a_temperature_at_a_bound():
    logits = 5 * np.eye(3, dtype=np.float32)
    assert fit_temperature(logits, np.arange(3)) == TEMPERATURES[0]
    assert fit_temperature(logits, np.array([1, 2, 0])) == pytest.approx(TEMPERATURES[1], rel=1e-3)

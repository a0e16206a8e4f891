"""Calibration of probabilities: negative log-likelihood, expected calibration error, and temperature scaling."""

import math

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 15
"""Number of bins of the expected calibration error."""

TEMPERATURES = (0.01, 100.0)
"""Range of the temperature search. Without it, the temperature of error-free predictions would go to 0."""


def negative_log_likelihood(
    logits: Float[ndarray, "samples classes"], targets: Int64[ndarray, " samples"], *, temperature: float = 1.0
) -> float:
    """Return the mean of -log(softmax(logits / temperature)) of the true class, in nats."""
    logs = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return float(-np.take_along_axis(logs, targets[:, None], axis=1).mean())


def calibration_error(
    logits: Float[ndarray, "samples classes"],
    targets: Int64[ndarray, " samples"],
    *,
    temperature: float = 1.0,
    bins: int = BINS,
) -> float:
    """Return the expected calibration error (ECE, arXiv:1706.04599) in percent.

    Predictions are sorted by their softmax into bins of equal width, (0, 1/15], (1/15, 2/15] and so on. The error is
    the mean of |accuracy - mean confidence| over the bins, weighted by their size.
    """
    probabilities = softmax(logits.astype(np.float64) / temperature, axis=1)
    confidence, correct = probabilities.max(axis=1), logits.argmax(axis=1) == targets
    bin_of = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(100 * np.abs(gaps).sum() / len(targets))


def fit_temperature(logits: Float[ndarray, "samples classes"], targets: Int64[ndarray, " samples"]) -> float:
    """Return the temperature with the highest likelihood (temperature scaling, arXiv:1706.04599).

    The result is an end of `TEMPERATURES` if all predictions are correct or the logits carry no information.
    """
    true_logits = np.take_along_axis(logits, targets[:, None], axis=1)
    if (true_logits == logits.max(axis=1, keepdims=True)).all():
        return TEMPERATURES[0]  # the likelihood increases as the temperature decreases
    result = minimize_scalar(
        lambda log: negative_log_likelihood(logits, targets, temperature=math.exp(log)),
        bounds=tuple(math.log(end) for end in TEMPERATURES),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(math.exp(result.x))

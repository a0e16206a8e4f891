"""Whether a model is as sure as it is right: likelihood, calibration error, and the temperature that mends it."""

import math

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 15
TEMPERATURES = (0.01, 100.0)
"""Between these a temperature is looked for; predictions without a mistake would have 0."""


def negative_log_likelihood(
    logits: Float[ndarray, "samples classes"], targets: Int64[ndarray, " samples"], *, temperature: float = 1.0
) -> float:
    """Mean of -log(softmax(logits / temperature)) of the right class, in nats."""
    logs = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return float(-np.take_along_axis(logs, targets[:, None], axis=1).mean())


def calibration_error(
    logits: Float[ndarray, "samples classes"],
    targets: Int64[ndarray, " samples"],
    *,
    temperature: float = 1.0,
    bins: int = BINS,
) -> float:
    """Expected calibration error (ECE, arXiv:1706.04599) in percent.

    The confidence of an answer is its softmax. Answers are sorted into bins of equal width, (0, 1/15], (1/15, 2/15] and
    so on; the error is the mean over the bins, weighted by their answers, of |share that is right - mean confidence|.
    """
    shares = softmax(logits.astype(np.float64) / temperature, axis=1)
    confidence, right = shares.max(axis=1), logits.argmax(axis=1) == targets
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    gaps = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(100 * np.abs(gaps).sum() / len(targets))


def fit_temperature(logits: Float[ndarray, "samples classes"], targets: Int64[ndarray, " samples"]) -> float:
    """The one number that logits are divided by for the highest likelihood (temperature scaling, arXiv:1706.04599).

    Returns:
        A temperature in `TEMPERATURES`; their end where predictions have no mistake, or say nothing.
    """
    own = np.take_along_axis(logits, targets[:, None], axis=1)
    if (own == logits.max(axis=1, keepdims=True)).all():
        return TEMPERATURES[0]  # ever lower ones are ever likelier, down to where rounding makes them equal
    # The likelihood has one hill over the temperature, so that a search between bounds finds its top.
    found = minimize_scalar(
        lambda log: negative_log_likelihood(logits, targets, temperature=math.exp(log)),
        bounds=tuple(math.log(end) for end in TEMPERATURES),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(math.exp(found.x))

"""Numbers that say how good predictions are: arrays in, numbers out, accuracies in percent."""

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray
from sklearn.metrics import confusion_matrix


def ranks(logits: Float[ndarray, "samples classes"], targets: Int64[ndarray, " samples"]) -> Int64[ndarray, " samples"]:
    """How many classes stand before the right one; among equal logits the lower class number stands first.

    All stand before it where its logit is NaN: a network that has diverged is never right.
    """
    own = np.take_along_axis(logits, targets[:, None], axis=1)
    earlier = np.arange(logits.shape[1])[None, :] < targets[:, None]
    behind = (logits < own) | ((logits == own) & ~earlier)
    return np.asarray((~behind).sum(axis=1), dtype=np.int64)


def top_k_accuracy(logits: Float[ndarray, "samples classes"], targets: Int64[ndarray, " samples"], k: int) -> float:
    """Percent of samples whose class is among the k likeliest; k is at most the number of classes."""
    return float(100 * (ranks(logits, targets) < min(k, logits.shape[1])).mean())


def confusion(
    logits: Float[ndarray, "samples classes"], targets: Int64[ndarray, " samples"]
) -> Int64[ndarray, "classes classes"]:
    """Counts: a row for each true class, a column for each answer."""
    counts = confusion_matrix(targets, logits.argmax(axis=1), labels=np.arange(logits.shape[1]))
    return np.asarray(counts, dtype=np.int64)


def class_accuracy(counts: Int64[ndarray, "classes classes"]) -> Float[ndarray, " classes"]:
    """Percent right of each true class; NaN for a class without samples."""
    total = counts.sum(axis=1)
    share = np.full(len(counts), np.nan)
    np.divide(100 * counts.diagonal(), total, out=share, where=total > 0)
    return share


def mean_class_accuracy(counts: Int64[ndarray, "classes classes"]) -> float:
    """Mean over the classes that have samples, in percent."""
    return float(np.nanmean(class_accuracy(counts)))

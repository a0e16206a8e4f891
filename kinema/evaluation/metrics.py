"""Metrics of logits and targets. Accuracies are in percent."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix

COMBINATIONS_AT_ONCE = 2_000_000
"""Number of class combinations of several task heads held in memory at a time."""


class ClassScores(NamedTuple):
    """Precision, recall and F1 of each class in percent (NaN if undefined), and its number of samples."""

    precision: Float[ndarray, " classes"]
    recall: Float[ndarray, " classes"]
    f1: Float[ndarray, " classes"]
    support: Int64[ndarray, " classes"]


def ranks(logits: Float[ndarray, "samples classes"], targets: Int64[ndarray, " samples"]) -> Int64[ndarray, " samples"]:
    """Return the number of classes ranked above the true one. Ties go to the lower class number.

    All classes rank above one with logit NaN, so that a diverged network is never correct.
    """
    own = np.take_along_axis(logits, targets[:, None], axis=1)
    earlier = np.arange(logits.shape[1])[None, :] < targets[:, None]
    behind = (logits < own) | ((logits == own) & ~earlier)
    return np.asarray((~behind).sum(axis=1), dtype=np.int64)


def top_k_accuracy(logits: Float[ndarray, "samples classes"], targets: Int64[ndarray, " samples"], k: int) -> float:
    """Return the percentage of samples whose class is in the top k (capped at the number of classes)."""
    return float(100 * (ranks(logits, targets) < min(k, logits.shape[1])).mean())


def confusion(
    logits: Float[ndarray, "samples classes"], targets: Int64[ndarray, " samples"]
) -> Int64[ndarray, "classes classes"]:
    """Return the confusion matrix, a row per true class and a column per predicted class."""
    counts = confusion_matrix(targets, logits.argmax(axis=1), labels=np.arange(logits.shape[1]))
    return np.asarray(counts, dtype=np.int64)


def mean_class_accuracy(counts: Int64[ndarray, "classes classes"]) -> float:
    """Return the mean accuracy over the classes that have samples, in percent."""
    return float(np.nanmean(_percent(counts.diagonal(), counts.sum(axis=1))))


def class_scores(counts: Int64[ndarray, "classes classes"]) -> ClassScores:
    """Return the scores of each class from a confusion matrix.

    Precision is NaN for a class that is never predicted, recall for a class without samples, F1 if both apply.
    """
    correct, predicted, support = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
    return ClassScores(
        precision=_percent(correct, predicted),
        recall=_percent(correct, support),
        f1=_percent(2 * correct, predicted + support),
        support=support,
    )


def joint_ranks(
    logits: Sequence[Float[ndarray, "samples _"]], targets: Sequence[Int64[ndarray, " samples"]]
) -> Int64[ndarray, " samples"]:
    """Return `ranks` over all combinations of the classes of several task heads.

    The score of a combination is the product of the heads' softmaxes (section 4.4.2: verb and noun make an action).
    Rank 0 means that every head is correct.
    """
    shape = tuple(head.shape[1] for head in logits)
    combined = np.ravel_multi_index(tuple(targets), shape).astype(np.int64)
    logs = [log_softmax(head.astype(np.float64), axis=1) for head in logits]
    result = np.empty(len(combined), np.int64)
    at_once = max(1, COMBINATIONS_AT_ONCE // int(np.prod(shape)))
    for first in range(0, len(combined), at_once):
        part = slice(first, first + at_once)
        total = logs[0][part]
        for head in logs[1:]:
            total = (total[:, :, None] + head[part][:, None, :]).reshape(len(total), -1)
        result[part] = ranks(total, combined[part])
    return result


def _percent(counted: Int64[ndarray, " classes"], total: Int64[ndarray, " classes"]) -> Float[ndarray, " classes"]:
    share = np.full(len(total), np.nan)
    np.divide(100 * counted, total, out=share, where=total > 0)
    return share

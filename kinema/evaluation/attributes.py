"""Accuracy per attribute of Diving48's classes: take-off, somersaults, twists and position (figure 3.8).

A class name is the list of its attributes. The predicted attributes are those of the top class, so their confusion
matrices are sums over the confusion matrix of the classes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from kinema.datasets.diving48 import ATTRIBUTES, DATASET, SEPARATOR
from kinema.errors import PredictionsError
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, Interval, mean_interval
from kinema.evaluation.compare import bootstrap_groups
from kinema.evaluation.metrics import confusion, mean_class_accuracy
from kinema.evaluation.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class AttributeSummary:
    """Metrics of one attribute.

    Args:
        values: in the order of the class list.
        top1: percent of the samples whose top class has the true value.
        top1_interval: its bootstrap interval.
        mean_value: mean over the values that have samples, in percent.
        counts: a row per true value, a column per predicted value.
    """

    values: tuple[str, ...]
    top1: float
    top1_interval: Interval
    mean_value: float
    counts: Int64[ndarray, "values values"]


def summarize_attributes(predictions: Predictions, *, bootstrap: Bootstrap = BOOTSTRAP) -> dict[str, AttributeSummary]:
    """Compute the metrics of each attribute of Diving48's classes.

    Args:
        predictions: whose classes are named like `Back, 15som, 05Twis, FREE`.
        bootstrap: how samples are drawn for the intervals.

    Raises:
        PredictionsError: there are several task heads, a class has another name, or the split has no labels.
    """
    head, *others = predictions.classes
    if others:
        raise PredictionsError(
            f"attributes: expected {DATASET}'s one task head, got {1 + len(others)}", field="classes"
        )
    split = [tuple(name.split(SEPARATOR)) for name in predictions.classes[head]]
    for name, parts in zip(predictions.classes[head], split, strict=True):
        if len(parts) != len(ATTRIBUTES):
            raise PredictionsError(
                f"attributes: expected {DATASET}'s class names like 'Back, 15som, 05Twis, FREE', got {name!r}",
                field="classes",
            )
    predictions.require_labels()
    counts = confusion(predictions.logits[head], predictions.targets[head])
    predicted, targets = predictions.logits[head].argmax(axis=1), predictions.targets[head]
    groups = bootstrap_groups(predictions, bootstrap)
    found = {}
    for place, attribute in enumerate(ATTRIBUTES):
        values = tuple(dict.fromkeys(parts[place] for parts in split))
        number = np.array([values.index(parts[place]) for parts in split], np.int64)
        correct = number[predicted] == number[targets]
        summed = np.zeros((len(values), len(values)), np.int64)
        np.add.at(summed, (number[:, None], number[None, :]), counts)
        found[attribute] = AttributeSummary(
            values=values,
            top1=float(100 * correct.mean()),
            top1_interval=mean_interval(100.0 * correct, groups, bootstrap),
            mean_value=mean_class_accuracy(summed),
            counts=summed,
        )
    return found

"""What a class is made of, asked one by one: take-off, somersaults, twists and position of Diving48 (figure 3.8).

The name of a class is its attributes. The answer to an attribute is that of the likeliest class, so that an answer is
as far from the truth as the confusion matrix of the classes says, summed over all other attributes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from kinema.datasets.diving48 import ATTRIBUTES, BETWEEN, CORPUS
from kinema.errors import PredictionsError
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, Interval, mean_interval
from kinema.evaluation.compare import units_of
from kinema.evaluation.evaluate import Predictions
from kinema.evaluation.metrics import confusion, mean_class_accuracy


@dataclass(frozen=True, kw_only=True)
class AttributeSummary:
    """Numbers of one attribute.

    Args:
        values: in the order in which the classes name them.
        top1: percent of the samples whose likeliest class has the right value.
        top1_interval: its bootstrap interval.
        mean_value: mean over the values that have samples, in percent.
        counts: a row for each true value, a column for each answer.
    """

    values: tuple[str, ...]
    top1: float
    top1_interval: Interval
    mean_value: float
    counts: Int64[ndarray, "values values"]


def by_attribute(predictions: Predictions, *, bootstrap: Bootstrap = BOOTSTRAP) -> dict[str, AttributeSummary]:
    """The numbers of each attribute of Diving48's classes.

    Args:
        predictions: whose classes are named like `Back, 15som, 05Twis, FREE`.
        bootstrap: how samples are drawn for the intervals.

    Raises:
        PredictionsError: there are several task heads, a class is named otherwise, or the split has no labels.
    """
    head, *others = predictions.classes
    if others:
        raise PredictionsError(f"attributes are those of {CORPUS}'s classes; these predictions have several task heads")
    split = [tuple(name.split(BETWEEN)) for name in predictions.classes[head]]
    for name, parts in zip(predictions.classes[head], split, strict=True):
        if len(parts) != len(ATTRIBUTES):
            raise PredictionsError(
                f"attributes are those of {CORPUS}'s classes, which are named like 'Back, 15som, 05Twis, FREE', and "
                f"not {name!r}"
            )
    if not predictions.labelled:
        raise PredictionsError(f"split {predictions.split!r} has no labels, so that nothing can be measured on it")
    counts = confusion(predictions.logits[head], predictions.targets[head])
    answers, targets = predictions.logits[head].argmax(axis=1), predictions.targets[head]
    units = units_of(predictions, bootstrap)
    found = {}
    for place, attribute in enumerate(ATTRIBUTES):
        values = tuple(dict.fromkeys(parts[place] for parts in split))
        number = np.array([values.index(parts[place]) for parts in split], np.int64)
        right = number[answers] == number[targets]
        summed = np.zeros((len(values), len(values)), np.int64)
        np.add.at(summed, (number[:, None], number[None, :]), counts)
        found[attribute] = AttributeSummary(
            values=values,
            top1=float(100 * right.mean()),
            top1_interval=mean_interval(100.0 * right, units, bootstrap),
            mean_value=mean_class_accuracy(summed),
            counts=summed,
        )
    return found

"""Accuracy per attribute of Diving48's classes: take-off, somersaults, twists and position (figure 3.8).

A class name lists its attributes, and the predicted attributes are those of the top class. The confusion matrix of an
attribute is therefore a sum over that of the classes.
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

    Attributes:
        values: Values in the order of the class list.
        top1: Share of the samples whose top class has the true value [%].
        top1_interval: Bootstrap interval of `top1`.
        mean_value: Mean accuracy over the values that have samples [%].
        counts: Confusion matrix, a row per true and a column per predicted value.
    """

    values: tuple[str, ...]
    top1: float
    top1_interval: Interval
    mean_value: float
    counts: Int64[ndarray, "values values"]


def summarize_attributes(predictions: Predictions, *, bootstrap: Bootstrap = BOOTSTRAP) -> dict[str, AttributeSummary]:
    """Compute the metrics of each attribute, for classes named like `Back, 15som, 05Twis, FREE`.

    Raises:
        PredictionsError: The predictions have several task heads, other class names, or no labels.
    """
    head, *others = predictions.classes
    if others:
        raise PredictionsError(
            f"attributes: {1 + len(others)} task heads; expected the one of {DATASET}", field="classes"
        )
    split = [tuple(name.split(SEPARATOR)) for name in predictions.classes[head]]
    for name, parts in zip(predictions.classes[head], split, strict=True):
        if len(parts) != len(ATTRIBUTES):
            raise PredictionsError(
                f"attributes: class {name!r}; expected names of {DATASET} such as 'Back, 15som, 05Twis, FREE'",
                field="classes",
            )
    predictions.require_labels()
    counts = confusion(predictions.logits[head], predictions.targets[head])
    predicted, targets = predictions.logits[head].argmax(axis=1), predictions.targets[head]
    groups = bootstrap_groups(predictions, bootstrap)
    summaries = {}
    for place, attribute in enumerate(ATTRIBUTES):
        values = tuple(dict.fromkeys(parts[place] for parts in split))
        number = np.array([values.index(parts[place]) for parts in split], np.int64)
        correct = number[predicted] == number[targets]
        summed = np.zeros((len(values), len(values)), np.int64)
        np.add.at(summed, (number[:, None], number[None, :]), counts)
        summaries[attribute] = AttributeSummary(
            values=values,
            top1=float(100 * correct.mean()),
            top1_interval=mean_interval(100.0 * correct, groups, bootstrap),
            mean_value=mean_class_accuracy(summed),
            counts=summed,
        )
    return summaries

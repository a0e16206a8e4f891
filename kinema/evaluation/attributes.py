"""Accuracy per attribute of Diving48's classes: take-off, somersaults, twists and position (figure 3.8).

A class name lists its attributes. The predicted attributes are those of the top class, or each is the one whose classes
have the largest summed probability. The thesis does not say which of the two figure 3.8 shows.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray
from scipy.special import softmax

from kinema.datasets.diving48 import ATTRIBUTES, DATASET, SEPARATOR
from kinema.errors import PredictionsError
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, Interval, mean_interval
from kinema.evaluation.compare import bootstrap_groups
from kinema.evaluation.metrics import mean_class_accuracy
from kinema.evaluation.predictions import Predictions

AttributeRule = Literal["top-class", "marginal"]
"""Predicted value of an attribute: that of the top class, or the one with the largest probability over all classes."""


@dataclass(frozen=True, kw_only=True)
class AttributeSummary:
    """Metrics of one attribute.

    Attributes:
        values: Values in the order of the class list.
        top1: Share of the samples whose predicted value is the true one [%].
        top1_interval: Bootstrap interval of `top1`.
        mean_value: Mean accuracy over the values that have samples [%].
        counts: Confusion matrix, a row per true and a column per predicted value.
    """

    values: tuple[str, ...]
    top1: float
    top1_interval: Interval
    mean_value: float
    counts: Int64[ndarray, "values values"]


def summarize_attributes(
    predictions: Predictions, *, rule: AttributeRule = "top-class", bootstrap: Bootstrap = BOOTSTRAP
) -> dict[str, AttributeSummary]:
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
    logits, targets = predictions.logits[head], predictions.targets[head]
    groups = bootstrap_groups(predictions, bootstrap)
    summaries = {}
    for place, attribute in enumerate(ATTRIBUTES):
        values = tuple(dict.fromkeys(parts[place] for parts in split))
        number = np.array([values.index(parts[place]) for parts in split], np.int64)
        true, predicted = number[targets], predict_values(logits, number, rule)
        correct = predicted == true
        counts = np.zeros((len(values), len(values)), np.int64)
        np.add.at(counts, (true, predicted), 1)
        summaries[attribute] = AttributeSummary(
            values=values,
            top1=float(100 * correct.mean()),
            top1_interval=mean_interval(100.0 * correct, groups, bootstrap),
            mean_value=mean_class_accuracy(counts),
            counts=counts,
        )
    return summaries


def predict_values(
    logits: Float[ndarray, "samples classes"], number: Int64[ndarray, " classes"], rule: AttributeRule
) -> Int64[ndarray, " samples"]:
    """Return the predicted value of an attribute for each sample; `number` is the value of each class."""
    match rule:
        case "top-class":
            top: Int64[ndarray, " samples"] = number[logits.argmax(axis=1)]
            return top
        case "marginal":
            probabilities = softmax(logits.astype(np.float64), axis=1)
            members = number[:, None] == np.arange(number.max() + 1)
            best: Int64[ndarray, " samples"] = (probabilities @ members).argmax(axis=1)
            return best
        case _:
            assert_never(rule)

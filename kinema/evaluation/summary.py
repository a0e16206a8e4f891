"""All numbers of a predictions file, with their intervals, as plain fields."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kinema.errors import ComparisonError
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, Interval, mean_class_interval, mean_interval
from kinema.evaluation.calibration import TEMPERATURES, calibration_error, fit_temperature, negative_log_likelihood
from kinema.evaluation.compare import units_of
from kinema.evaluation.evaluate import JOINT, Predictions
from kinema.evaluation.metrics import ClassScores, class_scores, confusion, mean_class_accuracy


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """Logits divided by one number, and what became of their calibration.

    Args:
        temperature: of each head.
        fitted_on: the split that it was fitted on, in words; says so where it is the one that is reported.
        nll, ece: of the scaled logits of each head, in nats and in percent.
        bounded: heads whose temperature stands at the end of the range that was searched.
    """

    temperature: Mapping[str, float]
    fitted_on: str
    nll: Mapping[str, float]
    ece: Mapping[str, float]
    bounded: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class HeadSummary:
    """Numbers of one task head.

    Args:
        top1, top5, mean_class: in percent, each with its bootstrap interval.
        nll: negative log-likelihood in nats.
        ece: expected calibration error in percent.
        scores: of each class.
        empty: classes without samples, which the mean over classes leaves out.
    """

    top1: float
    top1_interval: Interval
    top5: float
    top5_interval: Interval
    mean_class: float
    mean_class_interval: Interval
    nll: float
    ece: float
    scores: ClassScores
    empty: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class JointSummary:
    """Numbers of all task heads together, in percent: every head right; the combination among the best five."""

    top1: float
    top1_interval: Interval
    top5: float
    top5_interval: Interval


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All numbers of a predictions file."""

    predictions: Predictions
    bootstrap: Bootstrap
    heads: Mapping[str, HeadSummary]
    joint: JointSummary | None
    scaled: Scaled | None


def summarise(
    predictions: Predictions, *, bootstrap: Bootstrap = BOOTSTRAP, temperature_from: Predictions | None = None
) -> Summary:
    """Compute all numbers.

    Args:
        predictions: what is reported.
        bootstrap: how samples are drawn for the intervals.
        temperature_from: predictions of the same model that a temperature is fitted on, best of another split; none is
            fitted without them.

    Raises:
        PredictionsError: the bootstrap draws groups that are not known, or the temperature is another model's.
    """
    units = units_of(predictions, bootstrap)
    heads = {}
    for head, names in predictions.classes.items():
        logits, targets = predictions.logits[head], predictions.targets[head]
        right = predictions.right(head)
        among_five = predictions.ranks(head) < 5
        counts = confusion(logits, targets)
        scores = class_scores(counts)
        heads[head] = HeadSummary(
            top1=float(100 * right.mean()),
            top1_interval=mean_interval(100.0 * right, units, bootstrap),
            top5=float(100 * among_five.mean()),
            top5_interval=mean_interval(100.0 * among_five, units, bootstrap),
            mean_class=mean_class_accuracy(counts),
            mean_class_interval=_percent(mean_class_interval(right, targets, units, bootstrap)),
            nll=negative_log_likelihood(logits, targets),
            ece=calibration_error(logits, targets),
            scores=scores,
            empty=tuple(name for name, support in zip(names, scores.support.tolist(), strict=True) if not support),
        )
    joint = None
    if len(heads) > 1:
        right, among_five = predictions.right(JOINT), predictions.ranks(JOINT) < 5
        joint = JointSummary(
            top1=float(100 * right.mean()),
            top1_interval=mean_interval(100.0 * right, units, bootstrap),
            top5=float(100 * among_five.mean()),
            top5_interval=mean_interval(100.0 * among_five, units, bootstrap),
        )
    return Summary(
        predictions=predictions,
        bootstrap=bootstrap,
        heads=heads,
        joint=joint,
        scaled=None if temperature_from is None else _scaled(predictions, temperature_from),
    )


def plain(summary: Summary) -> dict[str, Any]:
    """The summary as JSON can hold it; None stands where there is nothing to count."""
    predictions = summary.predictions
    heads = {}
    for head, names in predictions.classes.items():
        found = summary.heads[head]
        numbers = {key: value for key, value in asdict(found).items() if key not in ("scores", "empty")}
        numbers["classes_without_samples"] = list(found.empty)
        numbers["classes"] = [
            {"class": name, **{field: _or_none(getattr(found.scores, field)[i]) for field in ClassScores._fields}}
            for i, name in enumerate(names)
        ]
        numbers["confusion"] = confusion(predictions.logits[head], predictions.targets[head]).tolist()
        heads[head] = numbers
    return {
        "corpus": predictions.corpus,
        "version": predictions.version,
        "split": predictions.split,
        "samples": len(predictions.index),
        "declared": predictions.declared,
        "coverage": predictions.coverage,
        "missing": list(predictions.missing),
        "protocol": None if predictions.protocol is None else asdict(predictions.protocol),
        "manifest_digest": predictions.manifest_digest,
        "weights_digest": predictions.weights_digest,
        "bootstrap": asdict(summary.bootstrap),
        "heads": heads,
        "joint": None if summary.joint is None else asdict(summary.joint),
        "scaled": None if summary.scaled is None else asdict(summary.scaled),
    }


def _scaled(predictions: Predictions, source: Predictions) -> Scaled:
    if source.classes != predictions.classes:
        raise ComparisonError("the temperature's predictions have other task heads or classes than those reported")
    if source.weights_digest != predictions.weights_digest:
        raise ComparisonError(
            f"the temperature's predictions come from other weights ({source.weights_digest[:12]}) than those reported "
            f"({predictions.weights_digest[:12]}); a temperature belongs to one model: evaluate it on both splits"
        )
    shared = 0
    if source.manifest_digest == predictions.manifest_digest:
        shared = len(np.intersect1d(source.index, predictions.index))
    where = f"{len(source.index)} samples of split {source.split!r}"
    if shared:
        where += f", {shared} of which are reported here: no held-out number"
    fitted = {head: fit_temperature(source.logits[head], source.targets[head]) for head in source.classes}
    return Scaled(
        temperature=fitted,
        fitted_on=where,
        nll={
            head: negative_log_likelihood(predictions.logits[head], predictions.targets[head], temperature=value)
            for head, value in fitted.items()
        },
        ece={
            head: calibration_error(predictions.logits[head], predictions.targets[head], temperature=value)
            for head, value in fitted.items()
        },
        bounded=tuple(
            head for head, value in fitted.items() if value < 1.01 * TEMPERATURES[0] or value > 0.99 * TEMPERATURES[1]
        ),
    )


def _percent(interval: Interval) -> Interval:
    return Interval(100 * interval.low, 100 * interval.high)


def _or_none(value: np.generic) -> int | float | None:
    number: int | float = value.item()
    return None if isinstance(number, float) and np.isnan(number) else number

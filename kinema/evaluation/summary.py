"""All metrics of a predictions file with their bootstrap intervals."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kinema.errors import ComparisonError
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, Interval, mean_class_interval, mean_interval
from kinema.evaluation.calibration import TEMPERATURES, calibration_error, fit_temperature, negative_log_likelihood
from kinema.evaluation.compare import bootstrap_groups
from kinema.evaluation.metrics import ClassScores, class_scores, confusion, mean_class_accuracy
from kinema.evaluation.predictions import JOINT, Predictions


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """Calibration after temperature scaling.

    Args:
        temperature: per task head.
        fitted_on: description of the samples that it was fitted on; names those that are reported as well.
        nll, ece: of the scaled logits per task head, in nats and in percent.
        bounded: task heads whose temperature is at the end of the searched range.
    """

    temperature: Mapping[str, float]
    fitted_on: str
    nll: Mapping[str, float]
    ece: Mapping[str, float]
    bounded: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class HeadSummary:
    """Metrics of one task head.

    Args:
        top1, top5, mean_class: in percent, each with its bootstrap interval.
        nll: negative log-likelihood in nats.
        ece: expected calibration error in percent.
        scores: per-class scores.
        empty: classes without samples, excluded from the mean over classes.
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
    """Metrics of all task heads together, in percent: every head correct; the combination in the top five."""

    top1: float
    top1_interval: Interval
    top5: float
    top5_interval: Interval


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All metrics of a predictions file."""

    predictions: Predictions
    bootstrap: Bootstrap
    heads: Mapping[str, HeadSummary]
    joint: JointSummary | None
    scaled: Scaled | None


def summarize(
    predictions: Predictions, *, bootstrap: Bootstrap = BOOTSTRAP, temperature_from: Predictions | None = None
) -> Summary:
    """Compute all metrics.

    Args:
        predictions: predictions to summarize.
        bootstrap: how samples are drawn for the intervals.
        temperature_from: predictions of the same model to fit a temperature on, best on another split; none is fitted
            if None.

    Raises:
        PredictionsError: the predictions have no labels, or not the groups that the bootstrap draws.
        ComparisonError: the temperature's predictions come from another model.
    """
    groups = bootstrap_groups(predictions, bootstrap)
    heads = {}
    for head, names in predictions.classes.items():
        logits, targets = predictions.logits[head], predictions.targets[head]
        correct = predictions.correct(head)
        in_top5 = predictions.ranks(head) < 5
        counts = confusion(logits, targets)
        scores = class_scores(counts)
        heads[head] = HeadSummary(
            top1=float(100 * correct.mean()),
            top1_interval=mean_interval(100.0 * correct, groups, bootstrap),
            top5=float(100 * in_top5.mean()),
            top5_interval=mean_interval(100.0 * in_top5, groups, bootstrap),
            mean_class=mean_class_accuracy(counts),
            mean_class_interval=_percent(mean_class_interval(correct, targets, groups, bootstrap)),
            nll=negative_log_likelihood(logits, targets),
            ece=calibration_error(logits, targets),
            scores=scores,
            empty=tuple(name for name, support in zip(names, scores.support.tolist(), strict=True) if not support),
        )
    joint = None
    if len(heads) > 1:
        correct, in_top5 = predictions.correct(JOINT), predictions.ranks(JOINT) < 5
        joint = JointSummary(
            top1=float(100 * correct.mean()),
            top1_interval=mean_interval(100.0 * correct, groups, bootstrap),
            top5=float(100 * in_top5.mean()),
            top5_interval=mean_interval(100.0 * in_top5, groups, bootstrap),
        )
    return Summary(
        predictions=predictions,
        bootstrap=bootstrap,
        heads=heads,
        joint=joint,
        scaled=None if temperature_from is None else _scaled(predictions, temperature_from),
    )


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """Return the summary as plain data; None where a metric is undefined."""
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
        "dataset": predictions.dataset,
        "version": predictions.version,
        "split": predictions.split,
        "samples": predictions.num_samples,
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
        raise ComparisonError("temperature: its predictions have other task heads or classes", field="temperature_from")
    if source.weights_digest != predictions.weights_digest:
        raise ComparisonError(
            f"temperature: fitted on predictions of weights {source.weights_digest[:12]}; expected "
            f"{predictions.weights_digest[:12]}. Evaluate one model on both splits.",
            field="temperature_from",
        )
    shared = 0
    if source.manifest_digest == predictions.manifest_digest:
        shared = len(np.intersect1d(source.index, predictions.index))
    where = f"{source.num_samples} samples of split {source.split!r}"
    if shared:
        where += f", {shared} of which are reported here: not a held-out number"
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

"""Summary of a predictions file: all metrics with their bootstrap intervals."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from kinema.errors import ComparisonError
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, Interval, mean_class_interval, mean_interval
from kinema.evaluation.calibration import TEMPERATURES, calibration_error, fit_temperature, negative_log_likelihood
from kinema.evaluation.compare import bootstrap_groups, bootstrap_unit
from kinema.evaluation.metrics import ClassScores, class_scores, confusion, mean_class_accuracy
from kinema.evaluation.predictions import JOINT, Predictions


@dataclass(frozen=True, kw_only=True)
class TemperatureScaling:
    """Calibration of each task head after temperature scaling.

    Attributes:
        temperature: Fitted temperatures.
        fitted_on: Description of the samples used for the fit, with a warning if some of them are evaluated too.
        nll: Negative log-likelihood [nats].
        ece: Expected calibration error [%].
        bounded: Task heads whose temperature is at a bound of the search range.
    """

    temperature: Mapping[str, float]
    fitted_on: str
    nll: Mapping[str, float]
    ece: Mapping[str, float]
    bounded: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class JointSummary:
    """Top-1 and top-5 accuracy [%] of one task head, or of all heads together, with bootstrap intervals."""

    top1: float
    top1_interval: Interval
    top5: float
    top5_interval: Interval


@dataclass(frozen=True, kw_only=True)
class HeadSummary(JointSummary):
    """Metrics of one task head.

    Attributes:
        mean_class: Mean class accuracy [%].
        mean_class_interval: Bootstrap interval of `mean_class`.
        nll: Negative log-likelihood [nats].
        ece: Expected calibration error [%].
        scores: Scores of each class.
        empty: Classes without samples, excluded from the mean over classes.
    """

    mean_class: float
    mean_class_interval: Interval
    nll: float
    ece: float
    scores: ClassScores
    empty: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Metrics of a predictions file."""

    predictions: Predictions
    bootstrap: Bootstrap
    heads: Mapping[str, HeadSummary]
    joint: JointSummary | None
    scaled: TemperatureScaling | None


def summarize(
    predictions: Predictions, *, bootstrap: Bootstrap = BOOTSTRAP, temperature_from: Predictions | None = None
) -> Summary:
    """Compute all metrics of a predictions file.

    A temperature is fitted on `temperature_from`, predictions of the same model, preferably on another split.

    Raises:
        PredictionsError: The predictions have no labels, or not the groups that the bootstrap draws.
        ComparisonError: The temperature is fitted on predictions of another model.
    """
    groups = bootstrap_groups(predictions, bootstrap)
    heads = {}
    for head, names in predictions.classes.items():
        accuracies = _accuracies(predictions, head, groups, bootstrap)
        logits, targets = predictions.logits[head], predictions.targets[head]
        counts = confusion(logits, targets)
        scores = class_scores(counts)
        low, high = mean_class_interval(predictions.correct(head), targets, groups, bootstrap)
        heads[head] = HeadSummary(
            **vars(accuracies),
            mean_class=mean_class_accuracy(counts),
            mean_class_interval=Interval(100 * low, 100 * high),
            nll=negative_log_likelihood(logits, targets),
            ece=calibration_error(logits, targets),
            scores=scores,
            empty=tuple(name for name, support in zip(names, scores.support.tolist(), strict=True) if not support),
        )
    return Summary(
        predictions=predictions,
        bootstrap=bootstrap,
        heads=heads,
        joint=_accuracies(predictions, JOINT, groups, bootstrap) if len(heads) > 1 else None,
        scaled=None if temperature_from is None else _scale(predictions, temperature_from),
    )


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """Return a summary as plain data, with None for undefined metrics."""
    predictions = summary.predictions
    heads = {}
    for head, names in predictions.classes.items():
        metrics = summary.heads[head]
        numbers = {key: value for key, value in asdict(metrics).items() if key not in ("scores", "empty")}
        numbers["classes_without_samples"] = list(metrics.empty)
        numbers["classes"] = [
            {"class": name, **{field: _or_none(getattr(metrics.scores, field)[i]) for field in ClassScores._fields}}
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
        "start_weights": predictions.start_weights,
        "caveat": predictions.caveat,
        "bootstrap": asdict(summary.bootstrap) | {"over": bootstrap_unit(predictions, summary.bootstrap)},
        "heads": heads,
        "joint": None if summary.joint is None else asdict(summary.joint),
        "scaled": None if summary.scaled is None else asdict(summary.scaled),
    }


def _accuracies(
    predictions: Predictions, head: str, groups: Int64[ndarray, " samples"] | None, bootstrap: Bootstrap
) -> JointSummary:
    correct, in_top5 = predictions.correct(head), predictions.ranks(head) < 5
    return JointSummary(
        top1=float(100 * correct.mean()),
        top1_interval=mean_interval(100.0 * correct, groups, bootstrap),
        top5=float(100 * in_top5.mean()),
        top5_interval=mean_interval(100.0 * in_top5, groups, bootstrap),
    )


def _scale(predictions: Predictions, source: Predictions) -> TemperatureScaling:
    if source.classes != predictions.classes:
        raise ComparisonError("temperature: predictions with other task heads or classes", field="temperature_from")
    if source.weights_digest != predictions.weights_digest:
        raise ComparisonError(
            f"temperature: fitted on predictions of weights {source.weights_digest[:12]}; expected "
            f"{predictions.weights_digest[:12]}. Evaluate one model on both splits.",
            field="temperature_from",
        )
    shared = 0
    if source.manifest_digest == predictions.manifest_digest:
        shared = len(np.intersect1d(source.index, predictions.index))
    description = f"{source.num_samples} samples of split {source.split!r}"
    if shared:
        description += f", {shared} of which are reported here: not a held-out number"
    fitted = {head: fit_temperature(source.logits[head], source.targets[head]) for head in source.classes}
    pairs = {head: (predictions.logits[head], predictions.targets[head]) for head in predictions.classes}
    return TemperatureScaling(
        temperature=fitted,
        fitted_on=description,
        nll={head: negative_log_likelihood(*pairs[head], temperature=value) for head, value in fitted.items()},
        ece={head: calibration_error(*pairs[head], temperature=value) for head, value in fitted.items()},
        bounded=tuple(
            head for head, value in fitted.items() if value < 1.01 * TEMPERATURES[0] or value > 0.99 * TEMPERATURES[1]
        ),
    )


def _or_none(value: np.generic) -> int | float | None:
    number: int | float = value.item()
    return None if isinstance(number, float) and np.isnan(number) else number

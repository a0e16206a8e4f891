"""Printed evaluation: metrics with confidence intervals, classes, fused models, and paired differences."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from kinema.errors import PredictionsError, one_line
from kinema.evaluation.attributes import AttributeSummary
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, Interval
from kinema.evaluation.calibration import BINS
from kinema.evaluation.compare import Comparison, bootstrap_groups, bootstrap_unit
from kinema.evaluation.evaluate_models import ModelsEvaluation, evaluation_to_json
from kinema.evaluation.fusion import FusionSummary
from kinema.evaluation.predictions import JOINT, Predictions, mistakes
from kinema.evaluation.summary import Summary
from kinema.files import read_json, write_texts
from kinema.inference.trained_model import NOT_PRETRAINED
from kinema.terminal import TerminalConsole

logger = logging.getLogger(__name__)

WIDTH = 160
"""Number of columns if the output is not a terminal."""


def console() -> TerminalConsole:
    """Return a console for standard output that prints class and file names without markup."""
    return TerminalConsole(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False, emoji=False)


def print_evaluation(evaluation: ModelsEvaluation, *, per_class: bool) -> None:
    """Print all metrics of one or several models, and the paths of their predictions."""
    summary, suffix = evaluation.summary, ""
    if summary is None:
        suffix = " (no labels: predictions only)"
    elif evaluation.fusion is not None:
        print_fusion(evaluation.fusion)
    else:
        print_summary(summary)
    if summary is not None and per_class:
        print_classes(summary)
    if summary is not None and evaluation.attributes is not None:
        print_attributes(summary, evaluation.attributes)
    for name, path in evaluation.files.items():
        where = "not written" if name in evaluation.unwritten else path
        _print(f"{samples_line(evaluation.predictions[name])}{suffix}; predictions: {where}")


def samples_line(predictions: Predictions) -> str:
    """Return the number of samples, their split, coverage and caveat as text, and missing pretrained weights."""
    line = f"{predictions.num_samples} samples of split {predictions.split!r}, coverage {predictions.coverage:.2f} %"
    if NOT_PRETRAINED in predictions.start_weights:
        line += f"; start weights: {predictions.start_weights}, unlike chapters 3 and 4 of the thesis"
    return f"{line}; {predictions.caveat}" if predictions.caveat else line


def print_summary(summary: Summary) -> None:
    """Print one metric per line, with the coverage if it is below 100 %."""
    _print_data(summary.predictions)
    if summary.predictions.protocol is not None:
        _print(f"T x V x C = {summary.predictions.protocol} (frames per clip, clips and crops per video)")
    if summary.predictions.start_weights:
        _print(f"start weights: {summary.predictions.start_weights}")
    console().print(_metrics(summary))
    _print_notes(summary)


def print_classes(summary: Summary) -> None:
    """Print precision, recall, F1 and support of every class, in the order of the logits."""
    predictions = summary.predictions
    for head, names in predictions.classes.items():
        scores = summary.heads[head].scores
        table = _table("class" if head == "label" else head, "precision %", "recall %", "F1 %", "samples")
        columns = (scores.precision, scores.recall, scores.f1)
        for row, name in enumerate(names):
            numbers = ["-" if value != value else f"{value:.1f}" for value in (float(c[row]) for c in columns)]
            table.add_row(name, *numbers, f"{scores.support[row]}", _covered(predictions))
        console().print(table)


def print_attributes(summary: Summary, attributes: Mapping[str, AttributeSummary]) -> None:
    """Print the accuracy of each attribute of the top class, and its most frequent confusions."""
    table = _table("attribute", "values", "top1 %", _level(summary.bootstrap), "mean over values %")
    for name, attribute in attributes.items():
        numbers = (f"{attribute.top1:.2f}", _range(attribute.top1_interval), f"{attribute.mean_value:.2f}")
        table.add_row(name, f"{len(attribute.values)}", *numbers, _covered(summary.predictions))
    console().print(table)
    for name, attribute in attributes.items():
        wrong = attribute.counts - np.diag(attribute.counts.diagonal())
        order = sorted(np.argwhere(wrong).tolist(), key=lambda pair: -wrong[pair[0], pair[1]])
        values = attribute.values
        _print_confusions(f"{name}: ", [(values[true], values[top], int(wrong[true, top])) for true, top in order])


def print_fusion(fusion: FusionSummary) -> None:
    """Print the metrics of each model and each fusion, and the gain of each fusion over each model."""
    table = _table("scores of", "T x V x C", "head", "top1 %", _level(fusion.bootstrap), "top5 %", "mean_class %")
    for name, summary in fusion.models.items():
        rows = [(head, m.top1, m.top1_interval, m.top5, f"{m.mean_class:.2f}") for head, m in summary.heads.items()]
        if summary.joint is not None:
            rows.append((JOINT, summary.joint.top1, summary.joint.top1_interval, summary.joint.top5, ""))
        for head, top1, interval, top5, mean_class in rows:
            numbers = (f"{top1:.2f}", _range(interval), f"{top5:.2f}", mean_class, _covered(summary.predictions))
            table.add_row(name, str(summary.predictions.protocol or "-"), head, *numbers)
    _print_data(next(iter(fusion.models.values())).predictions)
    console().print(table)
    console().print()
    for name, comparisons in fusion.differences.items():
        print_comparison(name, comparisons, bootstrap=fusion.bootstrap)


def print_comparison(name: str, comparisons: Mapping[str, Comparison], *, bootstrap: Bootstrap = BOOTSTRAP) -> None:
    """Print the paired difference of top-1, one line per task head."""
    for head, pair in comparisons.items():
        of = f" ({head})" if len(comparisons) > 1 else ""
        covered = f"  (coverage {pair.coverage:.2f} %)" if pair.coverage < 100 else ""
        covered += f"  ({pair.caveat})" if pair.caveat else ""
        seeds = "" if pair.seeds == (1, 1) else f", mean of {pair.seeds[0]} and {pair.seeds[1]} seeds"
        test = ""
        if pair.p_value is not None:
            test = (
                f"; correct only in the first: {pair.only_first}, only in the second: {pair.only_second}, "
                f"McNemar's exact p = {pair.p_value:.2g}"
            )
        _print(
            f"{name}{of}: top1 {pair.difference:+.2f} points, {_level(bootstrap)} {_range(pair.interval, '+.2f')}"
            f"  [{pair.first:.2f} - {pair.second:.2f} % of {pair.samples} clips{seeds}{test}; "
            f"same prediction for {pair.agreement:.1f} %]{covered}"
        )


def check_json_target(path: Path) -> None:
    """Refuse to replace a JSON that holds no metrics, such as that of a manifest; warn before metrics are replaced.

    Raises:
        PredictionsError: The file holds something else.
    """
    if not path.is_file():
        return
    try:
        old = read_json(path)
    except (OSError, ValueError):
        old = None
    if not isinstance(old, dict) or not old.keys() & {"heads", "models"}:
        problem = f"{path}: exists and holds no metrics. Choose another --json."
        raise PredictionsError(problem, path=path, field="--json")
    logger.warning("%s: exists and will be replaced. Stop and pass --json to keep it.", path)


def write_evaluation_json(path: Path, evaluation: ModelsEvaluation) -> None:
    """Write all metrics of an evaluation as one JSON file.

    Raises:
        PredictionsError: The file cannot be written.
    """
    metrics = evaluation_to_json(evaluation)
    try:
        write_texts({path: json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n"})
    except OSError as error:
        problem = f"{path}: cannot be written ({one_line(error)}). Choose another --json."
        raise PredictionsError(problem, path=path, field="--json") from error


def _print(line: str) -> None:
    console().print(line, soft_wrap=True)


def _print_data(predictions: Predictions) -> None:
    """Print missing samples, dataset and version, since two versions cannot be compared, and the split's caveat."""
    for reason in predictions.missing:
        _print(f"missing: {reason}")
    if predictions.dataset:
        _print(f"{predictions.dataset}, version {predictions.version}")
    if predictions.caveat:
        _print(f"note: {predictions.caveat}")


def _metrics(summary: Summary) -> Table:
    table = _table("", "value", "", _level(summary.bootstrap), "")
    several, scaled = len(summary.heads) > 1, summary.scaled

    def add(name: str, value: str, unit: str, interval: Interval | None = None) -> None:
        table.add_row(name, value, unit, "" if interval is None else _range(interval), _covered(summary.predictions))

    for head, metrics in summary.heads.items():
        prefix = f"{head}." if several else ""
        add(f"{prefix}top1", f"{metrics.top1:.2f}", "%", metrics.top1_interval)
        add(f"{prefix}top5", f"{metrics.top5:.2f}", "%", metrics.top5_interval)
        add(f"{prefix}mean_class", f"{metrics.mean_class:.2f}", "%", metrics.mean_class_interval)
        add(f"{prefix}ece", f"{metrics.ece:.2f}", "%")
        add(f"{prefix}nll", f"{metrics.nll:.3f}", "nats")
        if scaled is not None:
            add(f"{prefix}temperature", f"{scaled.temperature[head]:.3f}", "")
            add(f"{prefix}ece, scaled", f"{scaled.ece[head]:.2f}", "%")
            add(f"{prefix}nll, scaled", f"{scaled.nll[head]:.3f}", "nats")
    if summary.joint is not None:
        add(f"{JOINT}.top1", f"{summary.joint.top1:.2f}", "%", summary.joint.top1_interval)
        add(f"{JOINT}.top5", f"{summary.joint.top5:.2f}", "%", summary.joint.top5_interval)
    return table


def _print_notes(summary: Summary) -> None:
    """Print the definitions of the metrics, excluded classes and the most frequent confusions."""
    predictions, bootstrap = summary.predictions, summary.bootstrap
    groups = bootstrap_groups(predictions, bootstrap)
    units = f"{len(predictions.index):,} clips"
    if groups is not None:
        units = f"{len(np.unique(groups)):,} {bootstrap_unit(predictions, bootstrap)}s of {units}"
    _print(
        f"CI: percentile bootstrap over {units}, {bootstrap.resamples:,} resamples, "
        f"seed {bootstrap.seed}; ece: expected calibration error over {BINS} equal bins of confidence"
    )
    if summary.joint is not None:
        _print(f"{JOINT}: all of {', '.join(summary.heads)} correct; top5 by the product of the softmax scores")
    if summary.scaled is not None:
        _print(f"temperature: fitted on {summary.scaled.fitted_on}")
        for head in summary.scaled.bounded:
            _print(f"temperature of {head}: at the bound of the search range, not meaningful")
    for head, metrics in summary.heads.items():
        if metrics.empty:
            total, of = len(predictions.classes[head]), "" if head == "label" else f" of {head}"
            empty = ", ".join(metrics.empty)
            _print(f"mean_class{of}: over {total - len(metrics.empty)} of {total} classes; without samples: {empty}")
    for head in predictions.classes:
        _print_confusions("" if head == "label" else f"{head}: ", mistakes(predictions, head))


def _print_confusions(prefix: str, confusions: Sequence[tuple[str, str, int]]) -> None:
    pairs = ", ".join(f"{true} -> {top} ({count})" for true, top, count in confusions[:5])
    if pairs:
        _print(f"{prefix}most frequent confusions (true -> predicted): {pairs}")


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="left" if column in ("", "head") else "right")
    table.add_column("")
    return table


def _covered(predictions: Predictions) -> str:
    return f"(coverage {predictions.coverage:.2f} %)" if predictions.coverage < 100 else ""


def _level(bootstrap: Bootstrap) -> str:
    return f"{bootstrap.level:g} % CI"


def _range(interval: Interval, form: str = ".2f") -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}"

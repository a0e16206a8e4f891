"""What an evaluation prints: a table of numbers with their intervals, classes, fused models, differences."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from kinema.evaluation.attributes import AttributeSummary
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, Interval
from kinema.evaluation.calibration import BINS
from kinema.evaluation.compare import Comparison, bootstrap_groups
from kinema.evaluation.evaluate_models import ModelsEvaluation, evaluation_to_json
from kinema.evaluation.fusion import FusionSummary
from kinema.evaluation.predictions import JOINT, Predictions, mistakes
from kinema.evaluation.summary import Summary

WIDTH = 160
"""Columns where the output is no terminal."""


def console() -> Console:
    """Standard output; names of classes and files are printed as they are."""
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False, emoji=False)


def print_evaluation(evaluation: ModelsEvaluation, *, per_class: bool) -> None:
    """Print all numbers of one or several models, and where their predictions are."""
    suffix = ""
    if evaluation.summary is None:
        suffix = ", which has no labels: answered, not measured"
    elif evaluation.fusion is not None:
        print_fusion(evaluation.fusion)
    else:
        print_summary(evaluation.summary)
    if evaluation.summary is not None and per_class:
        print_classes(evaluation.summary)
    if evaluation.summary is not None and evaluation.attributes is not None:
        print_attributes(evaluation.summary, evaluation.attributes)
    for name, path in evaluation.files.items():
        console().print(f"{samples_line(evaluation.predictions[name])}{suffix}; predictions: {path}", soft_wrap=True)


def samples_line(predictions: Predictions) -> str:
    """Return the number of samples, their split and coverage as text."""
    return f"{predictions.num_samples} samples of split {predictions.split!r}, coverage {predictions.coverage:.2f} %"


def print_summary(summary: Summary) -> None:
    """Every number in a line of its own, with the coverage where that is not whole."""
    predictions, out = summary.predictions, console()
    for reason in predictions.missing:
        out.print(f"missing: {reason}", soft_wrap=True)
    _print_data(predictions, out)
    if predictions.protocol is not None:
        out.print(f"T x V x C = {predictions.protocol}: frames in a clip, clips and crops of a video")
    out.print(_numbers(summary))
    _print_notes(summary, out)


def print_classes(summary: Summary) -> None:
    """Precision, recall, F1 and support of every class, in the order of the logits."""
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
    """Print how often each attribute of the top class is correct, and the most frequent mistakes."""
    out = console()
    table = _table("attribute", "values", "top1 %", _level(summary.bootstrap), "mean over values %")
    for name, found in attributes.items():
        numbers = (f"{found.top1:.2f}", _range(found.top1_interval), f"{found.mean_value:.2f}")
        table.add_row(name, f"{len(found.values)}", *numbers, _covered(summary.predictions))
    out.print(table)
    for name, found in attributes.items():
        wrong = found.counts - np.diag(found.counts.diagonal())
        order = sorted(np.argwhere(wrong).tolist(), key=lambda pair: -wrong[pair[0], pair[1]])[:5]
        pairs = ", ".join(
            f"{found.values[true]} for {found.values[said]} ({wrong[true, said]})" for true, said in order
        )
        if pairs:
            out.print(f"{name}, most often mistaken: {pairs}", soft_wrap=True)


def print_fusion(fusion: FusionSummary) -> None:
    """Print the numbers of each model and of each fusion, and the gain of each fusion over each model."""
    out, bootstrap = console(), fusion.bootstrap
    first = next(iter(fusion.models.values())).predictions
    table = _table("scores of", "T x V x C", "head", "top1 %", _level(bootstrap), "top5 %", "mean_class %")
    for name, summary in fusion.models.items():
        protocol = str(summary.predictions.protocol or "-")
        for head, found in summary.heads.items():
            row = [f"{found.top1:.2f}", _range(found.top1_interval), f"{found.top5:.2f}", f"{found.mean_class:.2f}"]
            table.add_row(name, protocol, head, *row, _covered(summary.predictions))
        if summary.joint is not None:
            row = [f"{summary.joint.top1:.2f}", _range(summary.joint.top1_interval), f"{summary.joint.top5:.2f}", ""]
            table.add_row(name, protocol, JOINT, *row, _covered(summary.predictions))
    for reason in first.missing:
        out.print(f"missing: {reason}", soft_wrap=True)
    _print_data(first, out)
    out.print(table)
    out.print()
    for name, comparisons in fusion.differences.items():
        print_comparison(name, comparisons, bootstrap=bootstrap)


def print_comparison(name: str, comparisons: Mapping[str, Comparison], *, bootstrap: Bootstrap = BOOTSTRAP) -> None:
    """A paired difference of top-1 in one line a task head."""
    for head, found in comparisons.items():
        of = f" ({head})" if len(comparisons) > 1 else ""
        covered = f"  (coverage {found.coverage:.2f} %)" if found.coverage < 100 else ""
        seeds = "" if found.seeds == (1, 1) else f", mean of {found.seeds[0]} and {found.seeds[1]} seeds"
        alone = ""
        if found.p_value is not None:
            alone = (
                f"; only one is right: {found.only_first} to {found.only_second}, "
                f"McNemar's exact p = {found.p_value:.2g}"
            )
        console().print(
            f"{name}{of}: top1 {found.difference:+.2f} points, {_level(bootstrap)} {_range(found.interval, '+.2f')}"
            f"  [{found.first:.2f} - {found.second:.2f} % of {found.samples} clips{seeds}{alone}; "
            f"same answer to {found.agreement:.1f} %]{covered}",
            soft_wrap=True,
        )


def write_evaluation_json(path: Path, evaluation: ModelsEvaluation) -> None:
    """Write all numbers of an evaluation as one JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = evaluation_to_json(evaluation)
    path.write_text(json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _print_data(predictions: Predictions, out: Console) -> None:
    """Of which corpus, in which version: numbers of two versions cannot be compared."""
    if predictions.dataset:
        out.print(f"{predictions.dataset}, version {predictions.version}", soft_wrap=True)


def _numbers(summary: Summary) -> Table:
    table = _table("", "value", "", _level(summary.bootstrap), "")
    covered = _covered(summary.predictions)
    several = len(summary.heads) > 1
    for head, found in summary.heads.items():
        prefix = f"{head}." if several else ""
        for name, value, interval in (
            ("top1", found.top1, found.top1_interval),
            ("top5", found.top5, found.top5_interval),
            ("mean_class", found.mean_class, found.mean_class_interval),
        ):
            table.add_row(f"{prefix}{name}", f"{value:.2f}", "%", _range(interval), covered)
        table.add_row(f"{prefix}ece", f"{found.ece:.2f}", "%", "", covered)
        table.add_row(f"{prefix}nll", f"{found.nll:.3f}", "nats", "", covered)
        if summary.scaled is not None:
            table.add_row(f"{prefix}temperature", f"{summary.scaled.temperature[head]:.3f}", "", "", covered)
            table.add_row(f"{prefix}ece, scaled", f"{summary.scaled.ece[head]:.2f}", "%", "", covered)
            table.add_row(f"{prefix}nll, scaled", f"{summary.scaled.nll[head]:.3f}", "nats", "", covered)
    if summary.joint is not None:
        joint = summary.joint
        for name, value, interval in (
            ("top1", joint.top1, joint.top1_interval),
            ("top5", joint.top5, joint.top5_interval),
        ):
            table.add_row(f"{JOINT}.{name}", f"{value:.2f}", "%", _range(interval), covered)
    return table


def _print_notes(summary: Summary, out: Console) -> None:
    """What the numbers mean, and what they leave out."""
    predictions, bootstrap = summary.predictions, summary.bootstrap
    units = bootstrap_groups(predictions, bootstrap)
    count = len(predictions.index) if units is None else len(np.unique(units))
    out.print(
        f"intervals: percentile bootstrap over {count:,} {bootstrap.over}s, {bootstrap.resamples:,} resamples, "
        f"seed {bootstrap.seed}; "
        f"ece: |right - confident| over {BINS} equal bins of confidence",
        soft_wrap=True,
    )
    if summary.joint is not None:
        out.print(f"{JOINT}: all of {', '.join(summary.heads)} right; its top5 by the product of the softmaxes")
    if summary.scaled is not None:
        out.print(f"temperature: fitted on {summary.scaled.fitted_on}", soft_wrap=True)
        for head in summary.scaled.bounded:
            out.print(f"temperature of {head}: at the end of what is searched; it says nothing", soft_wrap=True)
    for head, found in summary.heads.items():
        if found.empty:
            total, left = len(predictions.classes[head]), len(found.empty)
            of = "" if head == "label" else f" of {head}"
            out.print(
                f"mean_class{of}: over {total - left} of {total} classes; without samples: {', '.join(found.empty)}",
                soft_wrap=True,
            )
    for head in predictions.classes:
        wrong = ", ".join(f"{true} for {said} ({count})" for true, said, count in mistakes(predictions, head)[:5])
        if wrong:
            of = "" if head == "label" else f"{head}, "
            out.print(f"{of}most often mistaken: {wrong}", soft_wrap=True)


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
    return f"{bootstrap.level:g} % interval"


def _range(interval: Interval, form: str = ".2f") -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}"

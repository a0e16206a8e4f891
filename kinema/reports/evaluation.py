"""What an evaluation prints: a table of numbers with their intervals, classes, fused models, differences."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from kinema.evaluation.attributes import AttributeSummary
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, Interval
from kinema.evaluation.calibration import BINS
from kinema.evaluation.compare import Comparison, Fusion, align, compare, fuse, units_of
from kinema.evaluation.evaluate import JOINT, Missing, Predictions, mistakes
from kinema.evaluation.summary import Summary, plain, summarise

WIDTH = 160
"""Columns where the output is no terminal."""


def console() -> Console:
    """Standard output; names of classes and files are printed as they are."""
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False, emoji=False)


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


def print_attributes(summary: Summary, attributes: Mapping[str, AttributeSummary]) -> dict[str, Any]:
    """How often each attribute of the likeliest class is right, and what is most often mistaken for what.

    Returns:
        What was printed, with the confusion matrices, as JSON can hold it.
    """
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
    return {name: {**asdict(found), "counts": found.counts.tolist()} for name, found in attributes.items()}


def print_fusion(
    singles: Mapping[str, Predictions], *, bootstrap: Bootstrap, missing: Missing
) -> tuple[dict[Fusion, Summary], dict[str, Any]]:
    """Each model, the mean of their logits and of their softmaxes, and what each mean gains over each model.

    Args:
        singles: predictions by the name that is printed.
        bootstrap: how samples are drawn for the intervals.
        missing: `stop` where a model lacks a sample, or `allow` and use those that all have.

    Returns:
        The summaries of the fused models, and all that was printed as JSON can hold it.

    Raises:
        ComparisonError: the models have not answered the same samples.
    """
    out = console()
    aligned = dict(zip(singles, align(list(singles.values()), missing=missing), strict=True))
    fused = {score: fuse(list(aligned.values()), score=score) for score in get_args(Fusion)}
    shown = {**aligned, **{f"mean of {score}": predictions for score, predictions in fused.items()}}
    summaries = {name: summarise(predictions, bootstrap=bootstrap) for name, predictions in shown.items()}
    table = _table("scores of", "T x V x C", "head", "top1 %", _level(bootstrap), "top5 %", "mean_class %")
    for name, summary in summaries.items():
        protocol = str(summary.predictions.protocol or "-")
        for head, found in summary.heads.items():
            row = [f"{found.top1:.2f}", _range(found.top1_interval), f"{found.top5:.2f}", f"{found.mean_class:.2f}"]
            table.add_row(name, protocol, head, *row, _covered(summary.predictions))
        if summary.joint is not None:
            row = [f"{summary.joint.top1:.2f}", _range(summary.joint.top1_interval), f"{summary.joint.top5:.2f}", ""]
            table.add_row(name, protocol, JOINT, *row, _covered(summary.predictions))
    for reason in next(iter(aligned.values())).missing:
        out.print(f"missing: {reason}", soft_wrap=True)
    _print_data(next(iter(aligned.values())), out)
    out.print(table)
    differences = {
        f"mean of {score} - {name}": compare([predictions], [single], bootstrap=bootstrap)
        for score, predictions in fused.items()
        for name, single in aligned.items()
    }
    out.print()
    for name, comparisons in differences.items():
        print_comparison(name, comparisons, bootstrap=bootstrap)
    said = {
        "models": {name: plain(summary) for name, summary in summaries.items()},
        "differences": {
            name: {head: asdict(found) for head, found in comparisons.items()}
            for name, comparisons in differences.items()
        },
    }
    return {score: summaries[f"mean of {score}"] for score in fused}, said


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


def write_json(path: Path, said: Mapping[str, Any]) -> None:
    """Write what was printed, and more, as one JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _print_data(predictions: Predictions, out: Console) -> None:
    """Of which corpus, in which version: numbers of two versions cannot be compared."""
    if predictions.corpus:
        out.print(f"{predictions.corpus}, version {predictions.version}", soft_wrap=True)


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
    units = units_of(predictions, bootstrap)
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

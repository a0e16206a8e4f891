"""Paired comparison of the predictions of several models on the same samples.

The difference of two accuracies on the same clips varies far less from sample to sample than either accuracy does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy import ndarray
from scipy.stats import binomtest

from kinema.errors import ComparisonError, PredictionsError
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, Interval, mean_interval
from kinema.evaluation.evaluate import Missing
from kinema.evaluation.predictions import JOINT, Predictions


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """First minus second, on the same clips; accuracies in percent.

    Args:
        first, second: top-1 of each side, the mean over its seeds.
        seeds: runs on each side.
        difference, interval: first minus second in percent points, and its bootstrap interval.
        only_first, only_second: clips that only one side predicts correctly; None if a side has several seeds.
        p_value: of McNemar's exact test that both are equally accurate; None if a side has several seeds.
        agreement: percent of clips with the same prediction, the mean over all pairs of a seed from each side.
        samples: number of clips compared.
        coverage: percent of the declared samples that were compared.
    """

    first: float
    second: float
    seeds: tuple[int, int]
    difference: float
    interval: Interval
    only_first: int | None
    only_second: int | None
    p_value: float | None
    agreement: float
    samples: int
    coverage: float


def compare(
    first: Sequence[Predictions], second: Sequence[Predictions], *, bootstrap: Bootstrap = BOOTSTRAP
) -> dict[str, Comparison]:
    """Compare two models, each with one or several seeds, on the same samples.

    Args:
        first, second: predictions of each seed of a side.
        bootstrap: how clips are drawn for the interval; seeds are not drawn.

    Returns:
        A comparison per task head, and of all heads together if there are several.

    Raises:
        ComparisonError: the samples, their labels or the class lists differ.
    """
    if not first or not second:
        raise ComparisonError("a side of the comparison has no predictions")
    aligned = align([*first, *second], missing="stop")
    ours, theirs = aligned[: len(first)], aligned[len(first) :]
    groups = bootstrap_groups(aligned[0], bootstrap)
    found = {}
    for head in aligned[0].heads:
        ours_correct, theirs_correct = (np.stack([p.correct(head) for p in side]) for side in (ours, theirs))
        difference, interval = paired_difference(
            ours_correct.mean(axis=0), theirs_correct.mean(axis=0), groups, bootstrap
        )
        single_seeds = len(ours) == len(theirs) == 1
        only_first = int((ours_correct[0] & ~theirs_correct[0]).sum())
        only_second = int((theirs_correct[0] & ~ours_correct[0]).sum())
        found[head] = Comparison(
            first=float(100 * ours_correct.mean()),
            second=float(100 * theirs_correct.mean()),
            seeds=(len(ours), len(theirs)),
            difference=difference,
            interval=interval,
            only_first=only_first if single_seeds else None,
            only_second=only_second if single_seeds else None,
            p_value=mcnemar(only_first, only_second) if single_seeds else None,
            agreement=float(np.mean([_agreement(a, b, head) for a in ours for b in theirs])),
            samples=ours_correct.shape[1],
            coverage=aligned[0].coverage,
        )
    return found


def seeds_minus_floor(
    correct: Bool[ndarray, "seeds samples"],
    floor: Float[ndarray, " samples"] | Bool[ndarray, " samples"],
    groups: Int64[ndarray, " samples"] | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> tuple[float, Interval]:
    """Return the seeds' mean accuracy minus that of a floor, in percent points, with its bootstrap interval.

    Args:
        correct: whether each seed predicts each clip correctly.
        floor: the same for the model to be beaten, 0 to 1, in the same order of clips.
        groups: group number of each clip, if groups are drawn.
        bootstrap: how to draw.
    """
    return paired_difference(correct.mean(axis=0), floor.astype(np.float64), groups, bootstrap)


def paired_difference(
    first: Float[ndarray, " samples"],
    second: Float[ndarray, " samples"],
    groups: Int64[ndarray, " samples"] | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> tuple[float, Interval]:
    """Return first minus second in percent points and its interval, drawing both sides' clips together.

    Args:
        first, second: how correct each side is on each clip, 0 to 1.
    """
    difference = 100 * (first - second)
    return float(difference.mean()), mean_interval(difference, groups, bootstrap)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test; 1 if the two sides never differ.

    Args:
        only_first, only_second: number of samples that only one side predicts correctly.
    """
    differ = only_first + only_second
    return float(binomtest(only_first, differ, 0.5).pvalue) if differ else 1.0


def align(predictions: Sequence[Predictions], *, missing: Missing) -> list[Predictions]:
    """Return the predictions of several models on the same samples in the same order.

    Args:
        predictions: of each model.
        missing: `stop` if one lacks a sample that another has, or `allow` and keep the shared samples.

    Raises:
        ComparisonError: the manifest, split, class lists or labels differ, samples are missing, or none is shared.
    """
    first = predictions[0]
    for number, other in enumerate(predictions[1:], start=2):
        _check_same(first, other, number)
    shared = set(first.index.tolist()).intersection(*(p.index.tolist() for p in predictions[1:]))
    unshared = {index for p in predictions for index in p.index.tolist()} - shared
    if unshared and missing == "stop":
        raise ComparisonError(
            f"{len(unshared)} samples are not in all {len(predictions)} predictions, e.g. position {min(unshared)} of "
            "the manifest. Evaluate all models on the same samples, or use --allow-missing to keep the shared ones.",
            field="index",
        )
    if not shared:
        raise ComparisonError("no sample is in all of the predictions", field="index")
    reasons = tuple(dict.fromkeys(reason for p in predictions for reason in p.missing))
    aligned = []
    for p in predictions:
        order = np.argsort(p.index)
        rows = order[np.isin(p.index[order], list(shared))]
        aligned.append(replace(p.select_rows(rows), missing=reasons))
    for number, other in enumerate(aligned[1:], start=2):
        for head, targets in aligned[0].targets.items():
            if not np.array_equal(targets, other.targets[head]):
                raise ComparisonError(
                    f"predictions 1 and {number}: labels of {head!r} differ for the same samples", field=head
                )
    return aligned


def bootstrap_groups(predictions: Predictions, bootstrap: Bootstrap) -> Int64[ndarray, " samples"] | None:
    """Return the group number of each sample, or None if the bootstrap draws single clips.

    Raises:
        PredictionsError: the predictions have no such groups.
    """
    if bootstrap.over == "clip":
        return None
    if bootstrap.over not in predictions.groups:
        known = ", ".join(["clip", *predictions.groups])
        raise PredictionsError(
            f"bootstrap over {bootstrap.over!r}: the predictions have no {bootstrap.over} for every sample; expected "
            f"one of {known}",
            field="bootstrap_over",
        )
    return predictions.groups[bootstrap.over]


def _check_same(first: Predictions, other: Predictions, number: int) -> None:
    sides: Mapping[str, tuple[object, object]] = {
        "manifest": (first.manifest_digest[:12], other.manifest_digest[:12]),
        "split": (first.split, other.split),
        "task heads": (tuple(first.classes), tuple(other.classes)),
        **{f"class list of {head!r}": (names, other.classes.get(head)) for head, names in first.classes.items()},
    }
    for what, (ours, theirs) in sides.items():
        if ours != theirs:
            shown = "" if what.startswith("class list") else f" ({ours} and {theirs})"
            raise ComparisonError(
                f"predictions 1 and {number}: {what} differs{shown}. Evaluate both on the same split of one manifest.",
                field=what,
            )


def _agreement(first: Predictions, second: Predictions, head: str) -> float:
    heads = list(first.classes) if head == JOINT else [head]
    same = [first.logits[name].argmax(axis=1) == second.logits[name].argmax(axis=1) for name in heads]
    return float(100 * np.all(same, axis=0).mean())

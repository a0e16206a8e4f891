"""Paired comparison of models on the same samples, whose differences vary far less than their accuracies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray
from scipy.stats import binomtest

from kinema.data.manifest import is_own_version
from kinema.errors import ComparisonError, PredictionsError
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, Interval, mean_interval
from kinema.evaluation.evaluate import Missing
from kinema.evaluation.predictions import JOINT, Predictions


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Paired difference of two models on the same clips. Accuracies are in percent.

    Attributes:
        first: Mean top-1 of the first side over its seeds.
        second: Mean top-1 of the second side.
        seeds: Number of seeds of each side.
        difference: First minus second in percentage points.
        interval: Bootstrap interval of the difference.
        only_first: Number of clips that only the first side predicts correctly. None with several seeds.
        only_second: Number of clips that only the second side predicts correctly. None with several seeds.
        p_value: P-value of McNemar's exact test. None with several seeds.
        agreement: Share of clips with the same prediction [%], averaged over all pairs of seeds.
        samples: Number of compared clips.
        coverage: Share of the declared samples that were compared [%].
        caveat: Why accuracy on this split may be optimistic. Empty without a known reason.
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
    caveat: str = ""


def compare(
    first: Sequence[Predictions], second: Sequence[Predictions], *, bootstrap: Bootstrap = BOOTSTRAP
) -> dict[str, Comparison]:
    """Compare two models, each with one or several seeds, on the same samples.

    Returns:
        Comparison by task head, with `joint` for all heads together if there are several. The interval accounts for the
        sampling of clips, not of seeds.

    Raises:
        ComparisonError: The samples, their labels or the class lists differ.
    """
    if not first or not second:
        raise ComparisonError("compare: one side has no predictions; expected at least one each")
    aligned = align([*first, *second], missing="stop")
    ours, theirs = aligned[: len(first)], aligned[len(first) :]
    groups = bootstrap_groups(aligned[0], bootstrap)
    comparisons = {}
    for head in aligned[0].heads:
        ours_correct, theirs_correct = (np.stack([p.correct(head) for p in side]) for side in (ours, theirs))
        difference, interval = paired_difference(
            ours_correct.mean(axis=0), theirs_correct.mean(axis=0), groups, bootstrap
        )
        only_first, only_second = None, None
        if len(ours) == len(theirs) == 1:
            only_first = int((ours_correct & ~theirs_correct).sum())
            only_second = int((theirs_correct & ~ours_correct).sum())
        comparisons[head] = Comparison(
            first=float(100 * ours_correct.mean()),
            second=float(100 * theirs_correct.mean()),
            seeds=(len(ours), len(theirs)),
            difference=difference,
            interval=interval,
            only_first=only_first,
            only_second=only_second,
            p_value=None if only_first is None or only_second is None else mcnemar(only_first, only_second),
            agreement=float(np.mean([_agreement(a, b, head) for a in ours for b in theirs])),
            samples=ours_correct.shape[1],
            coverage=aligned[0].coverage,
            caveat=aligned[0].caveat,
        )
    return comparisons


def paired_difference(
    first: Float[ndarray, " samples"],
    second: Float[ndarray, " samples"],
    groups: Int64[ndarray, " samples"] | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> tuple[float, Interval]:
    """Return the mean of first minus second (each 0 to 1 per clip) in percentage points, and its interval."""
    difference = 100 * (first - second)
    return float(difference.mean()), mean_interval(difference, groups, bootstrap)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test from the numbers of clips that only one side gets right."""
    differ = only_first + only_second
    return float(binomtest(only_first, differ, 0.5).pvalue) if differ else 1.0


def align(predictions: Sequence[Predictions], *, missing: Missing) -> list[Predictions]:
    """Return the predictions of several models on the same samples in the same order.

    With `missing="allow"`, samples that some models lack are dropped.

    Raises:
        ComparisonError: The manifest, split, class lists or labels differ, samples are missing, or none is shared.
    """
    first = predictions[0]
    for number, other in enumerate(predictions[1:], start=2):
        _check_same(first, other, number)
    shared = set(first.index.tolist()).intersection(*(p.index.tolist() for p in predictions[1:]))
    unshared = {index for p in predictions for index in p.index.tolist()} - shared
    if unshared and missing == "stop":
        raise ComparisonError(
            f"predictions: {len(unshared)} samples are not in all {len(predictions)} files, e.g. position "
            f"{min(unshared)} of the manifest. Evaluate all models on the same samples, or pass --allow-missing.",
            field="index",
        )
    if not shared:
        raise ComparisonError("predictions: no sample is in all files", field="index")
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
        PredictionsError: The predictions have no such groups.
    """
    unit = bootstrap_unit(predictions, bootstrap)
    if unit == "clip":
        return None
    if unit not in predictions.groups:
        raise PredictionsError(
            f"bootstrap over {unit!r}: not stored for every sample; expected one of "
            f"{', '.join(['clip', *predictions.groups])}",
            field="bootstrap_over",
        )
    return predictions.groups[unit]


def bootstrap_unit(predictions: Predictions, bootstrap: Bootstrap) -> Literal["clip", "group", "subject"]:
    """Return the unit that the bootstrap draws: for own data with a group for every clip, the groups."""
    if bootstrap.over != "auto":
        return bootstrap.over
    return "group" if "group" in predictions.groups and is_own_version(predictions.version) else "clip"


def _check_same(first: Predictions, other: Predictions, number: int) -> None:
    sides: Mapping[str, tuple[object, object]] = {
        "manifest": (first.manifest_digest[:12], other.manifest_digest[:12]),
        "split": (first.split, other.split),
        "task heads": (tuple(first.classes), tuple(other.classes)),
        **{f"class list of {head!r}": (names, other.classes.get(head)) for head, names in first.classes.items()},
    }
    for field, (ours, theirs) in sides.items():
        if ours != theirs:
            values = "" if field.startswith("class list") else f" ({ours} and {theirs})"
            raise ComparisonError(
                f"predictions 1 and {number}: {field} differs{values}. Evaluate both on one split of one manifest.",
                field=field,
            )


def _agreement(first: Predictions, second: Predictions, head: str) -> float:
    heads = list(first.classes) if head == JOINT else [head]
    same = [first.logits[name].argmax(axis=1) == second.logits[name].argmax(axis=1) for name in heads]
    return float(100 * np.all(same, axis=0).mean())

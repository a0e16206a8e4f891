"""Predictions of several models on the same samples: fused by their scores, and compared pair by pair.

Two models that answer the same clips are compared by what they say to each clip: the difference of their accuracies
then moves far less from sample to sample than either accuracy does.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy import ndarray
from scipy.special import log_softmax, logsumexp
from scipy.stats import binomtest

from kinema.errors import ComparisonError, PredictionsError
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, Interval, mean_interval
from kinema.evaluation.evaluate import JOINT, Missing, Predictions

Fusion = Literal["logits", "softmax"]
"""What of the single models' scores is averaged."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """First minus second, on the same clips; accuracies in percent.

    Args:
        first, second: top-1 of each side, the mean over its seeds.
        seeds: runs on each side.
        difference, interval: first minus second in percent points, and its bootstrap interval.
        only_first, only_second: clips that one alone has right; None where a side has several seeds.
        p_value: of McNemar's exact test that both are right equally often; None where a side has several seeds.
        agreement: percent of clips that get the same answer, the mean over all pairs of a seed from each side.
        samples: clips compared.
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
    """Compare two models, each of one or several seeds, on the samples that all of them have answered.

    Args:
        first, second: predictions of each seed of a side.
        bootstrap: how clips are drawn for the interval; seeds are not drawn.

    Returns:
        A comparison of each task head, and of all heads together where there are several.

    Raises:
        ComparisonError: the samples, their labels or the class lists are not the same.
    """
    if not first or not second:
        raise ComparisonError("a side of the comparison has no predictions")
    aligned = align([*first, *second], missing="stop")
    ours, theirs = aligned[: len(first)], aligned[len(first) :]
    units = units_of(aligned[0], bootstrap)
    found = {}
    for head in aligned[0].measured:
        right, other = (np.stack([p.right(head) for p in side]) for side in (ours, theirs))
        difference, interval = paired_difference(right.mean(axis=0), other.mean(axis=0), units, bootstrap)
        alone = len(ours) == len(theirs) == 1
        only_first, only_second = int((right[0] & ~other[0]).sum()), int((other[0] & ~right[0]).sum())
        found[head] = Comparison(
            first=float(100 * right.mean()),
            second=float(100 * other.mean()),
            seeds=(len(ours), len(theirs)),
            difference=difference,
            interval=interval,
            only_first=only_first if alone else None,
            only_second=only_second if alone else None,
            p_value=mcnemar(only_first, only_second) if alone else None,
            agreement=float(np.mean([_agreement(a, b, head) for a in ours for b in theirs])),
            samples=right.shape[1],
            coverage=aligned[0].coverage,
        )
    return found


def seeds_minus_floor(
    right: Bool[ndarray, "seeds samples"],
    floor: Float[ndarray, " samples"] | Bool[ndarray, " samples"],
    units: Int64[ndarray, " samples"] | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> tuple[float, Interval]:
    """The seeds' mean accuracy minus that of a floor, in percent points, with its bootstrap interval over clips.

    Args:
        right: whether each seed has each clip right.
        floor: the same of what is to be beaten, 1 where it is right, in the same order of clips.
        units: number of the group of each clip, where groups are drawn.
        bootstrap: how to draw.
    """
    return paired_difference(right.mean(axis=0), floor.astype(np.float64), units, bootstrap)


def paired_difference(
    first: Float[ndarray, " samples"],
    second: Float[ndarray, " samples"],
    units: Int64[ndarray, " samples"] | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> tuple[float, Interval]:
    """First minus second in percent points, and its interval; both sides keep their clips together.

    Args:
        first, second: how right each side is for each clip, 0 to 1.
    """
    difference = 100 * (first - second)
    return float(difference.mean()), mean_interval(difference, units, bootstrap)


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test: how likely so unequal counts are if both models are right equally often.

    Args:
        only_first, only_second: samples that one of the two alone has right.

    Returns:
        The two-sided p-value; 1 where the two never differ.
    """
    differ = only_first + only_second
    return float(binomtest(only_first, differ, 0.5).pvalue) if differ else 1.0


def fuse(predictions: Sequence[Predictions], *, score: Fusion, missing: Missing = "stop") -> Predictions:
    """The predictions of several models as one: the mean of their logits, or of their softmaxes.

    Args:
        predictions: of each model, on the same samples.
        score: what is averaged. A mean of softmaxes is given back as its logarithm, whose softmax it is.
        missing: `stop` where a model lacks a sample that another has, or `allow` and keep what all have.

    Raises:
        ComparisonError: the samples, their labels or the class lists are not the same.
    """
    aligned = align(predictions, missing=missing)
    fused = {}
    for head in aligned[0].classes:
        scores = np.stack([p.logits[head].astype(np.float64) for p in aligned])
        if score == "logits":
            fused[head] = scores.mean(axis=0)
        else:
            fused[head] = logsumexp(log_softmax(scores, axis=2), axis=0) - np.log(len(aligned))
    digest = hashlib.sha256("\n".join([score, *(p.weights_digest for p in aligned)]).encode()).hexdigest()
    protocols = {p.protocol for p in aligned}
    return replace(
        aligned[0], logits=fused, weights_digest=digest, protocol=protocols.pop() if len(protocols) == 1 else None
    )


def align(predictions: Sequence[Predictions], *, missing: Missing) -> list[Predictions]:
    """The same predictions with the same samples in the same order.

    Args:
        predictions: of several models.
        missing: `stop` where one lacks a sample that another has, or `allow` and keep what all have.

    Raises:
        ComparisonError: the manifest, split, class lists or labels differ, samples are missing, or none is shared.
    """
    first = predictions[0]
    for number, other in enumerate(predictions[1:], start=2):
        _check_same(first, other, number)
    shared = set(first.index.tolist()).intersection(*(p.index.tolist() for p in predictions[1:]))
    lacking = {index for p in predictions for index in p.index.tolist()} - shared
    if lacking and missing == "stop":
        raise ComparisonError(
            f"{len(lacking)} samples are not in all of the {len(predictions)} predictions, e.g. position "
            f"{min(lacking)} of the manifest; evaluate all on the same samples (--allow-missing fuses what all have)"
        )
    if not shared:
        raise ComparisonError("no sample is in all of the predictions")
    reasons = tuple(dict.fromkeys(reason for p in predictions for reason in p.missing))
    aligned = []
    for p in predictions:
        order = np.argsort(p.index)
        chosen = p.rows(order[np.isin(p.index[order], list(shared))])
        aligned.append(replace(chosen, missing=reasons))
    for number, other in enumerate(aligned[1:], start=2):
        for head, targets in aligned[0].targets.items():
            if not np.array_equal(targets, other.targets[head]):
                raise ComparisonError(f"predictions 1 and {number} have other labels of {head!r} for the same samples")
    return aligned


def units_of(predictions: Predictions, bootstrap: Bootstrap) -> Int64[ndarray, " samples"] | None:
    """The group of each sample, where the bootstrap draws groups.

    Raises:
        PredictionsError: the predictions know no such groups.
    """
    if bootstrap.over == "clip":
        return None
    if bootstrap.over not in predictions.units:
        known = ", ".join(["clip", *predictions.units])
        raise PredictionsError(
            f"a bootstrap over {bootstrap.over!r} wants a {bootstrap.over} for every sample, which the manifest does "
            f"not give, or the file was written before files held them; it can be over {known}"
        )
    return predictions.units[bootstrap.over]


def _check_same(first: Predictions, other: Predictions, number: int) -> None:
    sides: Mapping[str, tuple[object, object]] = {
        "manifest (by its digest)": (first.manifest_digest[:12], other.manifest_digest[:12]),
        "split": (first.split, other.split),
        "task heads": (tuple(first.classes), tuple(other.classes)),
        **{f"class list of {head!r}": (names, other.classes.get(head)) for head, names in first.classes.items()},
    }
    for what, (ours, theirs) in sides.items():
        if ours != theirs:
            shown = "" if what.startswith("class list") else f" ({ours} and {theirs})"
            raise ComparisonError(
                f"predictions 1 and {number} differ in their {what}{shown}; evaluate both on the same split of one "
                "manifest"
            )


def _agreement(first: Predictions, second: Predictions, head: str) -> float:
    heads = list(first.classes) if head == JOINT else [head]
    same = [first.logits[name].argmax(axis=1) == second.logits[name].argmax(axis=1) for name in heads]
    return float(100 * np.all(same, axis=0).mean())

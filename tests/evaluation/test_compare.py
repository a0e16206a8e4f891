"""Tests of paired comparisons and fusions of models on the same clips."""

import itertools
from dataclasses import replace
from math import comb

import numpy as np
import pytest
from scipy.special import softmax

from kinema.errors import ComparisonError, PredictionsError
from kinema.evaluation.bootstrap import Bootstrap
from kinema.evaluation.compare import align, compare, mcnemar, paired_difference
from kinema.evaluation.fusion import fuse
from kinema.evaluation.predictions import Predictions, Protocol


def make_predictions(seed, *, samples=60, strength=1.5, order=None, keep=None, heads=("label",), sizes=(4,), **facts):
    """Return random predictions of a model on the samples at positions 100, 101, ..."""
    truth = np.random.default_rng(99)
    targets = {head: truth.integers(0, size, samples) for head, size in zip(heads, sizes, strict=True)}
    rng = np.random.default_rng(seed)
    logits = {}
    for head, size in zip(heads, sizes, strict=True):
        logits[head] = rng.normal(size=(samples, size)).astype(np.float32)
        logits[head][np.arange(samples), targets[head]] += strength
    fields = {
        "classes": {h: tuple(f"{h} {i}" for i in range(size)) for h, size in zip(heads, sizes, strict=True)},
        "split": "test",
        "declared": samples,
        "missing": (),
        "manifest_digest": "m" * 64,
        "weights_digest": str(seed),
        "protocol": Protocol(frames=16, clips=1, crops=1),
        "groups": {"subject": np.arange(samples) % 7},
        **facts,
    }
    predictions = Predictions(logits=logits, targets=targets, index=100 + np.arange(samples), **fields)
    rows = np.arange(samples) if keep is None else np.asarray(keep)
    if order is not None:
        rows = np.random.default_rng(order).permutation(rows)
    return predictions.select_rows(rows)


def is_correct(predictions):
    return predictions.logits["label"].argmax(1) == predictions.targets["label"]


# -- paired comparison ---------------------------------------------------------------------------------------------


def test_a_comparison_matches_values_computed_directly():
    first, second = make_predictions(1), make_predictions(2, strength=1.0)
    a, b = is_correct(first), is_correct(second)
    found = compare([first], [second])["label"]
    assert found.first == pytest.approx(100 * a.mean())
    assert found.second == pytest.approx(100 * b.mean())
    assert found.difference == pytest.approx(100 * (a.mean() - b.mean()))
    assert (found.only_first, found.only_second) == ((a & ~b).sum(), (b & ~a).sum())
    assert found.agreement == pytest.approx(
        100 * (first.logits["label"].argmax(1) == second.logits["label"].argmax(1)).mean()
    )
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 60, 60) for _ in range(2000)]
    differences = [100 * (a[rows].mean() - b[rows].mean()) for rows in drawn]
    assert found.interval == pytest.approx(np.percentile(differences, [2.5, 97.5]))
    assert (found.samples, found.coverage, found.seeds) == (60, 100, (1, 1))


def test_a_comparison_does_not_depend_on_the_order_of_samples():
    assert compare([make_predictions(1)], [make_predictions(2)]) == compare(
        [make_predictions(1, order=3)], [make_predictions(2, order=4)]
    )


def test_a_model_does_not_differ_from_itself():
    found = compare([make_predictions(1)], [make_predictions(1, order=5)])["label"]
    assert (found.difference, found.interval, found.p_value, found.agreement) == (0, (0, 0), 1, 100)


def test_pairing_narrows_the_interval_of_models_that_fail_on_the_same_clips():
    first = make_predictions(1, samples=300)
    almost = first.logits["label"].copy()
    almost[:6] = -almost[:6]
    second = replace(first, logits={"label": almost})
    paired = compare([first], [second])["label"].interval
    unpaired = compare([first], [make_predictions(2, samples=300)])["label"].interval
    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (5, 5), (9, 1), (1, 9), (0, 4), (30, 12), (6, 5)])
def test_mcnemar_matches_the_two_sided_binomial_sum(only_first, only_second):
    differ = only_first + only_second
    tail = sum(comb(differ, k) for k in range(min(only_first, only_second) + 1)) / 2**differ
    assert mcnemar(only_first, only_second) == pytest.approx(min(1, 2 * tail))


def test_seeds_are_averaged_clip_by_clip():
    first, second = (
        [make_predictions(seed) for seed in (1, 2, 3)],
        [make_predictions(seed, strength=0.7) for seed in (4, 5)],
    )
    mean = np.mean([is_correct(p) for p in first], axis=0) - np.mean([is_correct(p) for p in second], axis=0)
    found = compare(first, second)["label"]
    rng = np.random.default_rng(0)
    differences = [100 * mean[rng.integers(0, 60, 60)].mean() for _ in range(2000)]
    assert found.difference == pytest.approx(100 * mean.mean())
    assert found.interval == pytest.approx(np.percentile(differences, [2.5, 97.5]))
    assert (found.seeds, found.p_value, found.only_first, found.only_second) == ((3, 2), None, None, None)
    answers = [[p.logits["label"].argmax(1) for p in side] for side in (first, second)]
    pairs = [100 * (a == b).mean() for a, b in itertools.product(*answers)]
    assert found.agreement == pytest.approx(np.mean(pairs))


def test_the_mean_of_seeds_is_compared_with_one_model():
    runs = [make_predictions(seed) for seed in (1, 2, 3)]
    floor = make_predictions(9, strength=0.5)
    found = paired_difference(np.mean([is_correct(p) for p in runs], axis=0), is_correct(floor).astype(np.float64))
    same = compare(runs, [floor])["label"]
    assert found[0] == pytest.approx(same.difference)
    assert found[1] == pytest.approx(same.interval)
    assert found[0] == pytest.approx(100 * (np.mean([is_correct(p).mean() for p in runs]) - is_correct(floor).mean()))


def test_a_comparison_over_subjects_resamples_subjects(raises):
    first, second = make_predictions(1), make_predictions(2, order=8)
    found = compare([first], [second], bootstrap=Bootstrap(over="subject"))["label"]
    expected = paired_difference(
        is_correct(first) * 1.0, is_correct(make_predictions(2)) * 1.0, np.arange(60) % 7, Bootstrap(over="subject")
    )
    assert found.difference == pytest.approx(expected[0])
    assert found.interval == pytest.approx(expected[1])
    assert found.interval != compare([first], [second])["label"].interval
    with raises(PredictionsError, "'group'", "one of clip, subject", field="bootstrap_over"):
        compare([first], [second], bootstrap=Bootstrap(over="group"))


def test_several_heads_are_compared_separately_and_jointly():
    two = {"heads": ("verb", "noun"), "sizes": (3, 4)}
    first, second = make_predictions(1, **two), make_predictions(2, **two)
    found = compare([first], [second])
    assert list(found) == ["verb", "noun", "joint"]

    def each(p):
        return [p.logits[h].argmax(1) == p.targets[h] for h in ("verb", "noun")]

    joint = [np.logical_and(*each(p)).mean() for p in (first, second)]
    assert (found["joint"].first, found["joint"].second) == pytest.approx((100 * joint[0], 100 * joint[1]))
    assert found["verb"].first == pytest.approx(100 * each(first)[0].mean())
    same = [first.logits[h].argmax(1) == second.logits[h].argmax(1) for h in ("verb", "noun")]
    assert found["joint"].agreement == pytest.approx(100 * np.logical_and(*same).mean())


@pytest.mark.parametrize(
    ("other", "field", "parts"),
    [
        ({"manifest_digest": "n" * 64}, "manifest", ["mmmmmmmmmmmm and nnnnnnnnnnnn"]),
        ({"split": "val"}, "split", ["test and val"]),
        ({"keep": range(59)}, "index", ["1 samples", "position 159"]),
        ({"keep": [*range(10), *range(12, 60)]}, "index", ["2 samples", "position 110"]),
        ({"classes": {"label": ("label 1", "label 0", "label 2", "label 3")}}, "class list of 'label'", []),
        ({"heads": ("verb",)}, "task heads", ["('label',) and ('verb',)"]),
    ],
    ids=["manifest", "split", "last", "two", "classes", "heads"],
)
def test_different_samples_are_not_compared_or_fused(raises, other, field, parts):
    with raises(ComparisonError, *parts, field=field):
        compare([make_predictions(1)], [make_predictions(2, **other)])
    with raises(ComparisonError, *parts, field=field):
        fuse([make_predictions(1), make_predictions(2, **other)], score="logits")


def test_different_labels_of_the_same_samples_are_refused(raises):
    other = make_predictions(2)
    other.targets["label"][3] += 1 if other.targets["label"][3] == 0 else -1
    with raises(ComparisonError, "1 and 2", "labels", field="label"):
        compare([make_predictions(1)], [other])


def test_a_side_without_predictions_is_refused(raises):
    with raises(ComparisonError, "no predictions"):
        compare([make_predictions(1)], [])


# -- fusion --------------------------------------------------------------------------------------------------------


def test_fused_logits_are_the_mean_of_the_logits_of_the_same_sample():
    fused = fuse([make_predictions(1), make_predictions(2, order=3), make_predictions(3, order=4)], score="logits")
    expected = np.mean([make_predictions(seed).logits["label"] for seed in (1, 2, 3)], axis=0)
    np.testing.assert_allclose(fused.logits["label"], expected, rtol=1e-6)
    assert fused.index.tolist() == list(range(100, 160))
    np.testing.assert_array_equal(fused.targets["label"], make_predictions(1).targets["label"])


def test_the_softmax_of_fused_softmaxes_is_the_mean_of_the_softmaxes():
    fused = fuse([make_predictions(1), make_predictions(2, order=3)], score="softmax")
    expected = np.mean([softmax(np.float64(make_predictions(seed).logits["label"]), axis=1) for seed in (1, 2)], axis=0)
    np.testing.assert_allclose(softmax(fused.logits["label"], axis=1), expected, rtol=1e-6)


def test_fusion_by_logits_and_by_softmax_can_disagree():
    """One model is very confident in class 0, the other prefers class 1."""
    sure, leaning = (
        replace(
            make_predictions(1, samples=1),
            logits={"label": np.array([row], np.float32)},
            targets={"label": np.array([0])},
        )
        for row in ([9.0, 0.0, -9.0, -9.0], [-9.0, 2.0, 0.0, 0.0])
    )
    by_logits, by_softmax = (fuse([sure, leaning], score=score).logits["label"] for score in ("logits", "softmax"))
    assert by_logits.argmax() == 1
    assert by_softmax.argmax() == 0


def test_fused_scores_are_finite_if_a_softmax_underflows():
    far = make_predictions(1, samples=2)
    far = replace(far, logits={"label": np.array([[0, -2000, -3000, -4000], [-2000, 0, 0, 0]], np.float32)})
    assert np.isfinite(fuse([far, far], score="softmax").logits["label"]).all()


def test_allowed_missing_samples_are_dropped_and_lower_the_coverage(raises):
    one = make_predictions(1, keep=range(50), missing=("line 61: gone",))
    two = make_predictions(2, keep=range(5, 60), order=1, missing=("line 2: broken", "line 61: gone"))
    with raises(ComparisonError, "15 samples", field="index"):
        fuse([one, two], score="logits")
    fused = fuse([one, two], score="logits", missing="allow")
    assert fused.index.tolist() == list(range(105, 150))
    assert fused.coverage == 75
    assert fused.missing == ("line 61: gone", "line 2: broken")
    np.testing.assert_array_equal(fused.groups["subject"], np.arange(5, 50) % 7)
    with raises(ComparisonError, "no sample", field="index"):
        fuse(
            [make_predictions(1, keep=range(5)), make_predictions(2, keep=range(5, 9))], score="logits", missing="allow"
        )


def test_a_fusion_has_its_own_digest_and_protocol():
    ways = [
        fuse([make_predictions(1), make_predictions(seed)], score=score)
        for seed in (2, 3)
        for score in ("logits", "softmax")
    ]
    assert len({way.weights_digest for way in ways}) == 4
    assert ways[0].protocol == Protocol(frames=16, clips=1, crops=1)
    other = make_predictions(2, protocol=Protocol(frames=16, clips=5, crops=3))
    assert fuse([make_predictions(1), other], score="logits").protocol is None


def test_aligned_predictions_are_unchanged():
    first, second = align([make_predictions(1, order=1), make_predictions(2, order=2)], missing="stop")
    np.testing.assert_array_equal(first.logits["label"], make_predictions(1).logits["label"])
    np.testing.assert_array_equal(second.logits["label"], make_predictions(2).logits["label"])

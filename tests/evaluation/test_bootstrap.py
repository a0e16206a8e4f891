"""Tests of bootstrap intervals against a loop over NumPy draws and against SciPy."""

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import recall_score

from kinema.evaluation import bootstrap as module
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap, mean_class_interval, mean_interval


def correct_and_targets(seed=0, samples=120, classes=5):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, samples)
    return rng.random(samples) < 0.3 + 0.1 * targets, targets


def test_the_default_is_2000_resamples_at_95_percent():
    assert (BOOTSTRAP.over, BOOTSTRAP.resamples, BOOTSTRAP.level, BOOTSTRAP.seed) == ("auto", 2000, 95.0, 0)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_interval_of_a_mean_matches_a_loop_over_resamples(seed):
    correct, _ = correct_and_targets()
    rng = np.random.default_rng(seed)
    means = [correct[rng.integers(0, 120, 120)].mean() for _ in range(2000)]
    found = mean_interval(correct, bootstrap=Bootstrap(seed=seed))
    assert found == pytest.approx(np.percentile(means, [2.5, 97.5]))


def test_the_interval_agrees_with_scipy():
    values = np.random.default_rng(1).gamma(2.0, size=150)
    expected = scipy_bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    found = mean_interval(values, bootstrap=Bootstrap(resamples=20_000))
    assert found == pytest.approx((expected.low, expected.high), abs=0.02)


def test_the_level_and_the_seed_are_respected():
    correct, _ = correct_and_targets()
    narrow, wide = (mean_interval(correct, bootstrap=Bootstrap(level=level)) for level in (50, 99))
    assert wide.low < narrow.low < correct.mean() < narrow.high < wide.high
    assert mean_interval(correct, bootstrap=Bootstrap(seed=1)) != mean_interval(correct)
    assert mean_interval(correct) == mean_interval(correct)


def test_all_clips_of_a_group_are_drawn_together():
    correct, _ = correct_and_targets()
    groups = np.random.default_rng(2).integers(0, 9, 120) * 7
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rng = np.random.default_rng(0)
    means = []
    for _ in range(2000):
        drawn = np.concatenate([members[number] for number in rng.integers(0, 9, 9)])
        means.append(correct[drawn].mean())
    found = mean_interval(correct, groups, Bootstrap(over="subject"))
    assert found == pytest.approx(np.percentile(means, [2.5, 97.5]))


def test_duplicate_clips_do_not_narrow_the_interval_over_groups():
    correct, _ = correct_and_targets(samples=20)
    thrice, groups = np.repeat(correct, 3), np.repeat(np.arange(20), 3)
    assert mean_interval(thrice, groups) == pytest.approx(mean_interval(correct))
    over_clips = mean_interval(thrice)
    assert over_clips.high - over_clips.low < 0.75 * (mean_interval(correct).high - mean_interval(correct).low)


@pytest.mark.filterwarnings("ignore:.*no true samples")
def test_classes_that_are_not_drawn_are_excluded_from_the_mean_over_classes():
    correct, targets = correct_and_targets(samples=25)
    targets = np.concatenate([targets, [7]])  # a class of one clip; 5 and 6 have none
    correct = np.concatenate([correct, [True]])
    answers = np.where(correct, targets, (targets + 1) % 8)
    rng = np.random.default_rng(0)
    means = []
    for _ in range(300):
        drawn = rng.integers(0, 26, 26)
        present = np.unique(targets[drawn])
        means.append(recall_score(targets[drawn], answers[drawn], labels=present, average="macro"))
    found = mean_class_interval(correct, targets, bootstrap=Bootstrap(resamples=300))
    assert found == pytest.approx(np.percentile(means, [2.5, 97.5]))


def test_the_interval_does_not_depend_on_the_block_size(monkeypatch):
    correct, targets = correct_and_targets()
    whole = [*mean_interval(correct), *mean_class_interval(correct, targets)]
    monkeypatch.setattr(module, "DRAWS_AT_ONCE", 1000)
    assert [*mean_interval(correct), *mean_class_interval(correct, targets)] == pytest.approx(whole)


def test_constant_values_have_an_interval_of_width_zero():
    assert mean_interval(np.ones(10, bool)) == (1, 1)


@pytest.mark.parametrize(("fields", "value"), [({"resamples": 0}, "resamples=0"), ({"level": 100.0}, "level=100.0")])
def test_invalid_bootstrap_settings_are_refused(fields, value):
    with pytest.raises(ValueError, match=value):
        Bootstrap(**fields)

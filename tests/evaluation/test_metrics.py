"""Tests of the metrics against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from kinema.evaluation import metrics
from kinema.evaluation.metrics import (
    class_scores,
    confusion,
    joint_ranks,
    mean_class_accuracy,
    ranks,
    top_k_accuracy,
)


def random_logits(seed, *, samples=200, classes=7):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, size=samples)
    targets[:classes] = np.arange(classes)
    logits = rng.normal(size=(samples, classes)).astype(np.float32)
    logits[np.arange(samples), targets] += 0.8
    return logits, targets


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_top_k_accuracy_matches_scikit_learn(seed, k):
    logits, targets = random_logits(seed)
    expected = 100 * top_k_accuracy_score(targets, logits, k=k, labels=np.arange(7))
    assert top_k_accuracy(logits, targets, k) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_mean_class_accuracy_matches_scikit_learn(seed):
    logits, targets = random_logits(seed)
    expected = 100 * balanced_accuracy_score(targets, logits.argmax(1))
    assert mean_class_accuracy(confusion(logits, targets)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_confusion_has_a_row_for_each_true_class(seed):
    logits, targets = random_logits(seed)
    np.testing.assert_array_equal(confusion(logits, targets), confusion_matrix(targets, logits.argmax(1)))
    by_hand = np.zeros((7, 7), int)
    for truth, predicted in zip(targets, logits.argmax(1), strict=True):
        by_hand[truth, predicted] += 1
    np.testing.assert_array_equal(confusion(logits, targets), by_hand)


def test_a_class_without_samples_does_not_count_in_the_mean():
    logits = np.eye(4, dtype=np.float32)[[0, 0, 2, 3]]
    targets = np.array([0, 2, 2, 3])
    accuracy = class_scores(confusion(logits, targets)).recall
    np.testing.assert_array_equal(accuracy, [100, np.nan, 50, 100])
    assert mean_class_accuracy(confusion(logits, targets)) == pytest.approx(250 / 3)


def test_ties_go_to_the_lower_class_number():
    logits = np.array([[1, 2, 2, 0, 2]] * 5, np.float32)
    assert ranks(logits, np.arange(5)).tolist() == [3, 0, 1, 4, 2]


def test_a_constant_prediction_is_correct_for_one_class_only():
    logits, targets = np.zeros((10, 5), np.float32), np.arange(10) % 5
    assert top_k_accuracy(logits, targets, 1) == 20
    assert top_k_accuracy(logits, targets, 3) == 60


def test_argmax_has_rank_0():
    logits, targets = random_logits(0)
    logits = logits.round()  # many ties
    np.testing.assert_array_equal(ranks(logits, targets) == 0, logits.argmax(1) == targets)


def test_top_k_of_all_classes_is_100_percent():
    logits, targets = random_logits(0, classes=3)
    assert top_k_accuracy(logits, targets, 5) == 100
    assert top_k_accuracy(logits, targets, 3) == 100


def test_a_diverged_network_is_never_correct():
    logits, targets = random_logits(0)
    assert top_k_accuracy(np.full_like(logits, np.nan), targets, 5) == 0
    logits[3] = np.nan
    assert ranks(logits, targets)[3] == 7


@pytest.mark.parametrize("seed", range(5))
def test_precision_recall_and_f1_match_scikit_learn(seed):
    logits, targets = random_logits(seed)
    logits[:, 6] = -9  # never predicted
    targets[targets == 5] = 4  # without samples
    logits[:, 3] = -9
    targets[targets == 3] = 2  # neither
    *expected, support = precision_recall_fscore_support(
        targets, logits.argmax(1), labels=np.arange(7), zero_division=np.nan
    )
    found = class_scores(confusion(logits, targets))
    for share, scores in zip(expected, (found.precision, found.recall, found.f1), strict=True):
        np.testing.assert_allclose(scores, 100 * share)
    np.testing.assert_array_equal(found.support, support)
    assert np.isnan(found.precision[[3, 6]]).all()
    assert np.isnan(found.recall[[3, 5]]).all()
    assert np.isnan(found.f1[3])
    assert found.f1[6] == 0
    assert np.isfinite(found.f1[[0, 1, 2, 4, 5]]).all()


def test_the_joint_rank_matches_the_outer_product_of_softmaxes():
    """Ranks of three heads are counted over the products of all combinations."""
    rng = np.random.default_rng(0)
    sizes = (4, 3, 5)
    logits = [rng.normal(scale=2, size=(50, size)).astype(np.float32) for size in sizes]
    targets = [rng.integers(0, size, 50) for size in sizes]
    expected = []
    for i in range(50):
        shares = [np.exp(np.float64(head[i])) / np.exp(np.float64(head[i])).sum() for head in logits]
        product = np.einsum("a,b,c->abc", *shares)
        expected.append(int((product > product[targets[0][i], targets[1][i], targets[2][i]]).sum()))
    assert joint_ranks(logits, targets).tolist() == expected
    assert len(set(expected)) > 10


def test_the_joint_rank_is_0_if_every_head_is_correct():
    rng = np.random.default_rng(1)
    logits = [rng.normal(size=(300, size)).astype(np.float32) for size in (3, 4)]
    targets = [rng.integers(0, size, 300) for size in (3, 4)]
    right = (logits[0].argmax(1) == targets[0]) & (logits[1].argmax(1) == targets[1])
    np.testing.assert_array_equal(joint_ranks(logits, targets) == 0, right)


def test_a_pair_that_is_second_in_both_heads_can_be_among_the_five_best():
    """Probabilities (.5, .4, .1) and (.6, .4) have the products .30, .24, .20, .16, .06, .04."""
    logits = [np.log([[0.5, 0.4, 0.1]]), np.log([[0.6, 0.4]])]
    found = [joint_ranks(logits, [np.array([a]), np.array([b])]).item() for a in range(3) for b in range(2)]
    assert found == [0, 2, 1, 3, 4, 5]


def test_joint_ranks_do_not_depend_on_the_block_size(monkeypatch):
    rng = np.random.default_rng(2)
    logits = [rng.normal(size=(23, size)).astype(np.float32) for size in (3, 4)]
    targets = [rng.integers(0, size, 23) for size in (3, 4)]
    at_once = joint_ranks(logits, targets)
    monkeypatch.setattr(metrics, "COMBINATIONS_AT_ONCE", 60)
    np.testing.assert_array_equal(joint_ranks(logits, targets), at_once)

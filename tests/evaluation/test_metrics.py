"""The numbers, against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from kinema.evaluation.metrics import class_accuracy, confusion, mean_class_accuracy, ranks, top_k_accuracy


def random_answers(seed, *, samples=200, classes=7):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, size=samples)
    targets[:classes] = np.arange(classes)
    logits = rng.normal(size=(samples, classes)).astype(np.float32)
    logits[np.arange(samples), targets] += 0.8
    return logits, targets


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_top_k_accuracy_is_scikit_learns_in_percent(seed, k):
    logits, targets = random_answers(seed)
    wanted = 100 * top_k_accuracy_score(targets, logits, k=k, labels=np.arange(7))
    assert top_k_accuracy(logits, targets, k) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(5))
def test_mean_class_accuracy_is_scikit_learns_in_percent(seed):
    logits, targets = random_answers(seed)
    wanted = 100 * balanced_accuracy_score(targets, logits.argmax(1))
    assert mean_class_accuracy(confusion(logits, targets)) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(5))
def test_confusion_has_a_row_for_each_true_class(seed):
    logits, targets = random_answers(seed)
    np.testing.assert_array_equal(confusion(logits, targets), confusion_matrix(targets, logits.argmax(1)))
    by_hand = np.zeros((7, 7), int)
    for truth, answer in zip(targets, logits.argmax(1), strict=True):
        by_hand[truth, answer] += 1
    np.testing.assert_array_equal(confusion(logits, targets), by_hand)


def test_a_class_without_samples_does_not_count_in_the_mean():
    logits = np.eye(4, dtype=np.float32)[[0, 0, 2, 3]]
    targets = np.array([0, 2, 2, 3])
    accuracy = class_accuracy(confusion(logits, targets))
    np.testing.assert_array_equal(accuracy, [100, np.nan, 50, 100])
    assert mean_class_accuracy(confusion(logits, targets)) == pytest.approx(250 / 3)


def test_among_equal_logits_the_lower_class_number_stands_first():
    logits = np.array([[1, 2, 2, 0, 2]] * 5, np.float32)
    assert ranks(logits, np.arange(5)).tolist() == [3, 0, 1, 4, 2]


def test_a_constant_answer_is_right_for_one_class_only():
    logits, targets = np.zeros((10, 5), np.float32), np.arange(10) % 5
    assert top_k_accuracy(logits, targets, 1) == 20
    assert top_k_accuracy(logits, targets, 3) == 60


def test_the_best_answer_and_the_first_rank_are_the_same():
    logits, targets = random_answers(0)
    logits = logits.round()  # many ties
    np.testing.assert_array_equal(ranks(logits, targets) == 0, logits.argmax(1) == targets)


def test_all_classes_hold_the_right_one():
    logits, targets = random_answers(0, classes=3)
    assert top_k_accuracy(logits, targets, 5) == 100
    assert top_k_accuracy(logits, targets, 3) == 100


def test_a_network_that_has_diverged_is_never_right():
    logits, targets = random_answers(0)
    assert top_k_accuracy(np.full_like(logits, np.nan), targets, 5) == 0
    logits[3] = np.nan
    assert ranks(logits, targets)[3] == 7

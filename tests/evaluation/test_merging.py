"""Tests of merging the predictions of several processes."""

from dataclasses import replace

import numpy as np
import pytest

from kinema.data.manifest import Manifest, load_manifest
from kinema.errors import PredictionsError
from kinema.evaluation.predictions import Predictions, merge_predictions


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load_manifest("moves_cross_subject")


def make_predictions(manifest: Manifest, positions: list[int]) -> Predictions:
    """Return the predictions of one process. Logits hold the position of the sample."""
    index = np.array(positions, np.int64)
    targets = np.array([manifest.targets(i)["label"] for i in positions], np.int64)
    return Predictions(
        logits={"label": np.repeat(index[:, None], len(manifest.classes["label"]), 1).astype(np.float32)},
        targets={"label": targets},
        index=index,
        classes=manifest.classes,
        split="test",
        declared=90,
        missing=(),
        manifest_digest=manifest.digest,
        weights_digest="",
    )


def test_predictions_are_merged_in_the_order_of_the_manifest(manifest: Manifest) -> None:
    positions = manifest.positions("test")
    merged = merge_predictions(
        [make_predictions(manifest, positions[1::2]), make_predictions(manifest, positions[::2])], manifest
    )
    whole = make_predictions(manifest, positions)
    assert merged.index.tolist() == positions
    assert (merged.logits["label"] == whole.logits["label"]).all()
    assert (merged.targets["label"] == whole.targets["label"]).all()
    assert merged.coverage == 100
    subjects = [manifest.entries[i].subject for i in positions]
    same = np.equal.outer(merged.groups["subject"], merged.groups["subject"])
    assert (same == [[a == b for b in subjects] for a in subjects]).all()
    assert len(set(subjects)) > 1


@pytest.mark.parametrize("wrong", ["twice", "missing", "another split's"])
def test_missing_and_duplicate_samples_are_refused(manifest: Manifest, wrong: str) -> None:
    positions = manifest.positions("test")
    one, two = positions[::2], positions[1::2]
    match wrong:
        case "twice":
            two = [*two, one[0]]
        case "missing":
            two = two[1:]
        case "another split's":
            two = [*two[1:], manifest.positions("train")[0]]
    with pytest.raises(AssertionError, match="90"):
        merge_predictions([make_predictions(manifest, one), make_predictions(manifest, two)], manifest)


@pytest.mark.parametrize("declared", [0, 1, -1, 89])
def test_a_declared_number_below_the_samples_is_refused(manifest: Manifest, declared, raises) -> None:
    """Coverage would be above 100 %, or no number."""
    predictions = make_predictions(manifest, manifest.positions("test"))
    assert predictions.coverage == 100
    with raises(PredictionsError, repr(declared), field="declared"):
        replace(predictions, declared=declared)


def test_negative_positions_are_refused(manifest: Manifest, raises) -> None:
    predictions = make_predictions(manifest, manifest.positions("test"))
    with raises(PredictionsError, field="index"):
        replace(predictions, index=predictions.index - 10**6)

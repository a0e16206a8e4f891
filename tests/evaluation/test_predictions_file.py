"""Predictions files with odd values in their header or arrays are refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save

from kinema.errors import PredictionsError
from kinema.evaluation.predictions import load_predictions

HEADER = {
    "classes": {"label": ["a", "b"]},
    "split": "test",
    "declared": 3,
    "missing": [],
    "manifest_digest": "",
    "weights_digest": "",
    "protocol": {"frames": 8, "clips": 1, "crops": 1},
}
ARRAYS = {
    "index": np.arange(3),
    "logits.label": np.zeros((3, 2), np.float32),
    "targets.label": np.zeros(3, np.int64),
    "units.group": np.zeros(3, np.int64),
}


@pytest.fixture
def write(tmp_path):
    def write(header, arrays):
        path = tmp_path / "p.safetensors"
        path.write_bytes(save(ARRAYS | arrays, metadata={"predictions": json.dumps(HEADER | header)}))
        return path

    return write


def test_the_others_are_read(write):
    assert load_predictions(write({"unknown": 1}, {})).coverage == 100


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("declared", value) for value in (0, 1, 2, -1, 2**63, 10**400, 3.0, "3", None, True, float("nan"), [3])),
        ("protocol", {"frames": -1, "clips": 1, "crops": 1}),
        ("protocol", {"frames": "a", "clips": None, "crops": []}),
        ("protocol", 5),
        ("missing", "abc"),
        ("missing", [1]),
        ("split", 5),
        ("classes", {"label": "ab"}),
        ("classes", {"label": [1, 2]}),
        ("classes", {}),
    ],
)
def test_odd_values_of_the_header(write, raises, field, value):
    path = write({field: value}, {})
    with raises(PredictionsError, path=path):
        load_predictions(path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("logits.label", np.full((3, 2), np.nan, np.float32)),
        ("logits.label", np.zeros((3, 2), np.int64)),
        ("targets.label", np.array([0, 1, 5])),
        ("targets.label", np.zeros((3, 1), np.int64)),
        ("index", np.array([0, 1, -5])),
        ("index", np.array([0, 0, 1])),
        ("index", np.zeros(0, np.int64)),
        ("units.group", np.zeros(2, np.int64)),
    ],
)
def test_odd_arrays(write, raises, name, array):
    path = write({}, {name: array})
    with raises(PredictionsError, path=path):
        load_predictions(path)

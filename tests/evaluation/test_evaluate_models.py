"""Tests of evaluating and summarizing several models in one call."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kinema.errors import ComparisonError
from kinema.evaluation.compare import compare
from kinema.evaluation.evaluate_models import EvaluationSettings, evaluate_models, evaluation_to_json
from kinema.evaluation.fusion import fuse
from kinema.evaluation.predictions import load_predictions, save_predictions
from kinema.evaluation.summary import summarize, summary_to_json

SETTINGS = EvaluationSettings(workers=0, device="cpu")


@pytest.fixture
def stored(data_set, model_folder: Path, tmp_path: Path) -> Path:
    out = tmp_path / "one.safetensors"
    evaluate_models([model_folder], str(data_set.path), settings=SETTINGS, out=out)
    return out


def test_one_model_is_evaluated_stored_and_summarized(data_set, model_folder, tmp_path, capsys):
    out = tmp_path / "p.safetensors"
    found = evaluate_models([model_folder], str(data_set.path), settings=SETTINGS, out=out)
    assert capsys.readouterr().out == ""  # reports print, not the evaluation
    assert found.files == {str(model_folder): out}
    assert found.fusion is None
    assert found.attributes is None
    assert evaluation_to_json(found) == summary_to_json(summarize(load_predictions(out)))


def test_several_models_are_fused_and_compared_with_each(stored, tmp_path):
    one = load_predictions(stored)
    shifted = {"label": np.roll(one.logits["label"], 1, axis=1)}
    two = dataclasses.replace(one, logits=shifted, weights_digest="other")
    save_predictions(tmp_path / "two.safetensors", two)
    sources = [stored, tmp_path / "two.safetensors"]
    found = evaluate_models(sources)
    assert list(found.files.values()) == sources
    names = [*map(str, sources), "mean of logits", "mean of softmax"]
    assert found.fusion is not None
    assert list(found.fusion.models) == names
    for score in ("logits", "softmax"):
        mean = fuse([one, two], score=score)
        assert summary_to_json(found.fusion.fused[score]) == summary_to_json(summarize(mean))
        for name, single in zip(names, (one, two), strict=False):
            assert found.fusion.differences[f"mean of {score} - {name}"] == compare([mean], [single])
    assert found.summary is found.fusion.fused["logits"]
    assert set(evaluation_to_json(found)) == {"models", "differences"}


def test_a_model_on_other_samples_is_fused_only_if_missing_ones_are_allowed(raises, stored, tmp_path):
    fewer = load_predictions(stored).select_rows(np.arange(4))
    save_predictions(tmp_path / "fewer.safetensors", fewer)
    sources = [stored, tmp_path / "fewer.safetensors"]
    with raises(ComparisonError, field="index"):
        evaluate_models(sources)
    found = evaluate_models(sources, settings=EvaluationSettings(missing="allow"))
    assert found.summary is not None
    assert found.summary.predictions.num_samples == 4
    assert found.predictions[str(stored)].num_samples == 6


def test_a_second_model_gets_its_own_file_and_stored_predictions_are_read(data_set, model_folder, stored, tmp_path):
    again = tmp_path / "again"
    again.symlink_to(model_folder)
    out = tmp_path / "p.safetensors"
    sources = [model_folder, stored, again]
    found = evaluate_models(sources, str(data_set.path), settings=SETTINGS, out=out)
    assert list(found.files.values()) == [out, stored, tmp_path / "p-3.safetensors"]
    assert all(path.is_file() for path in found.files.values())


def test_a_split_without_labels_is_predicted_without_metrics(data_set, model_folder, tmp_path, monkeypatch):
    out = tmp_path / "p.safetensors"
    unlabeled = predict_without_labels(data_set, model_folder, tmp_path)

    def evaluate(*_, out, **__):
        save_predictions(out, unlabeled)
        return SimpleNamespace(predictions=unlabeled)

    monkeypatch.setattr("kinema.evaluation.evaluate_models.evaluate", evaluate)
    found = evaluate_models([model_folder], str(data_set.path), settings=SETTINGS, out=out)
    assert found.summary is None
    assert evaluation_to_json(found) == {}
    assert out.is_file()


def predict_without_labels(data_set, model_folder, tmp_path):
    out = tmp_path / "labeled.safetensors"
    evaluate_models([model_folder], str(data_set.path), settings=SETTINGS, out=out)
    labeled = load_predictions(out)
    return dataclasses.replace(labeled, targets={"label": np.full(labeled.num_samples, -1)})

"""Outputs of an evaluation: numbers survive a file that cannot be written, and nothing is replaced in silence."""

from pathlib import Path

import pytest

from kinema.cli.app import main
from kinema.errors import ModelError, PredictionsError, UnwrittenPredictions
from kinema.evaluation.evaluate import evaluate
from kinema.evaluation.evaluate_models import EvaluationSettings, evaluate_models
from kinema.evaluation.predictions import load_predictions
from kinema.inference.trained_model import load_model

SETTINGS = EvaluationSettings(workers=0, device="cpu")


@pytest.fixture
def args(model_folder: Path, data_set, tmp_path: Path) -> list[str]:
    out = str(tmp_path / "p.safetensors")
    return ["evaluate", str(model_folder), "--manifest", str(data_set.path), "--workers", "0", "--out", out]


def test_an_evaluation_prints_its_numbers_where_it_cannot_write(args, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    for option, path in (("--out", "file/p.safetensors"), ("--json", "file/m.json"), ("--json", "model")):
        with pytest.raises(SystemExit) as stop:
            main([*args, option, str(tmp_path / path), "--quiet"])
        assert stop.value.code == 2
        output = capsys.readouterr()
        assert "top1" in output.out
        assert path in output.err.splitlines()[-1]
        assert option in output.err.splitlines()[-1]


def test_every_output_that_cannot_be_written_is_named(args, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        main([*args, "--out", str(tmp_path / "file" / "p"), "--json", str(tmp_path / "file" / "m.json"), "--quiet"])
    lines = capsys.readouterr().err.splitlines()
    assert [("--out" in line, "--json" in line) for line in lines] == [(True, False), (False, True)]


def test_the_error_of_unwritten_predictions_has_the_evaluation(model_folder, data_set, raises, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with raises(UnwrittenPredictions, path=tmp_path / "file" / "p", field="out"):
        evaluate(model_folder, data_set, device="cpu", out=tmp_path / "file" / "p")
    found = evaluate_models([model_folder], str(data_set.path), settings=SETTINGS, out=tmp_path / "file" / "p")
    (error,) = found.unwritten.values()
    assert found.summary is not None
    assert error.evaluation.measures["top1"] == pytest.approx(found.summary.heads["label"].top1)


def test_predictions_and_metrics_are_replaced_with_a_warning(args, tmp_path: Path, capsys) -> None:
    both = [*args, "--json", str(tmp_path / "metrics.json")]
    main(both)
    assert "replaced" not in capsys.readouterr().err
    main(both)
    lines = [line for line in capsys.readouterr().err.splitlines() if "replaced" in line]
    assert [("--out" in line, "--json" in line) for line in lines] == [(False, True), (True, False)]


def test_a_file_of_another_kind_is_never_replaced(args, model_folder, data_set, tmp_path: Path, raises, capsys) -> None:
    manifest = Path(str(data_set.path))
    weights = next(model_folder.glob("*.safetensors"))
    (tmp_path / "notes.txt").write_text("mine")
    description = model_folder / "model.json"
    for target in (manifest, manifest.with_suffix(".json"), weights, description, tmp_path / "notes.txt"):
        before = target.read_bytes()
        with raises(PredictionsError, path=target, field="out"):
            evaluate_models([model_folder], str(manifest), settings=SETTINGS, out=target)
        with pytest.raises(SystemExit):
            main([*args, "--json", str(target)])
        assert "--json" in capsys.readouterr().err
        assert target.read_bytes() == before


def test_predictions_that_are_read_are_not_replaced(model_folder: Path, data_set, tmp_path: Path, raises) -> None:
    out = tmp_path / "p.safetensors"
    evaluate_models([model_folder], str(data_set.path), settings=SETTINGS, out=out)
    before = load_predictions(out).weights_digest
    with raises(PredictionsError, path=out, field="out"):
        evaluate_models([model_folder, out], str(data_set.path), settings=SETTINGS, out=out)
    with raises(PredictionsError, path=out, field="out"):
        evaluate_models([model_folder], str(data_set.path), settings=SETTINGS, out=out, temperature_from=out)
    assert load_predictions(out).weights_digest == before
    evaluate_models([model_folder], str(data_set.path), settings=SETTINGS, out=Path("/dev/null"))


def test_a_network_of_ones_own_is_named_for_its_models_alone(args, model_folder, raises) -> None:
    with raises(ModelError, "no network of your own", path=model_folder, field="model"):
        load_model(model_folder, model="mynets:Mean")
    with pytest.raises(SystemExit):
        main([*args, "--model", "mynets:Mean"])

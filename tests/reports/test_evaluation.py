"""Tests of the output of `kinema evaluate` and `kinema runs --compare` for stored predictions."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kinema.cli import main
from kinema.evaluation.predictions import Predictions, Protocol, load_predictions, save_predictions
from kinema.evaluation.summary import summarize
from kinema.inference.trained_model import save_model

NAMES = ("kick [high]", "run", "walk", "wave :smile:", "never")


def predictions_of(seed: int, **facts: object) -> Predictions:
    """Return random predictions on forty clips of four classes; a fifth class has no samples."""
    targets = np.arange(40) % 4
    logits = np.random.default_rng(seed).normal(size=(40, 5)).astype(np.float32)
    logits[np.arange(40), targets] += 1.5
    predictions = Predictions(
        logits={"label": logits},
        targets={"label": targets},
        index=np.arange(40),
        classes={"label": NAMES},
        split="test",
        declared=40,
        missing=(),
        manifest_digest="m" * 64,
        weights_digest=str(seed) * 64,
        protocol=Protocol(frames=16, clips=5, crops=3),
        groups={"subject": np.arange(40) // 8},
    )
    return replace(predictions, **facts)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Return a folder with predictions of two models on split test, and of the first on split val."""
    save_predictions(tmp_path / "one.safetensors", predictions_of(1))
    save_predictions(tmp_path / "two.safetensors", predictions_of(2))
    val = predictions_of(3, split="val", index=40 + np.arange(40), weights_digest="1" * 64)
    save_predictions(tmp_path / "val.safetensors", val)
    return tmp_path


def output(capsys: pytest.CaptureFixture[str], *args: str | Path) -> list[str]:
    main([str(arg) for arg in args])
    return capsys.readouterr().out.splitlines()


def refused(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def row(lines: list[str], name: str) -> list[str]:
    (columns,) = (line.split() for line in lines if line.startswith(f"{name} "))
    return columns


def test_all_metrics_are_computed_from_a_predictions_file(stored: Path, capsys) -> None:
    lines = output(capsys, "evaluate", "--predictions", stored / "one.safetensors")
    metrics = summarize(predictions_of(1)).heads["label"]
    assert row(lines, "top1")[1:3] == [f"{metrics.top1:.2f}", "%"]
    assert row(lines, "top1")[3:] == [f"{metrics.top1_interval.low:.2f}", "to", f"{metrics.top1_interval.high:.2f}"]
    assert row(lines, "mean_class")[1] == f"{metrics.mean_class:.2f}"
    assert row(lines, "ece")[1:] == [f"{metrics.ece:.2f}", "%"]
    assert row(lines, "nll")[1:] == [f"{metrics.nll:.3f}", "nats"]
    assert any(line.startswith("T x V x C = 16 x 5 x 3 ") for line in lines)
    assert "mean_class: over 4 of 5 classes; without samples: never" in lines
    assert any("percentile bootstrap over 40 clips, 2,000 resamples, seed 0" in line for line in lines)
    assert "over 15 equal bins" in "".join(lines)
    assert lines[-1].startswith("40 samples of split 'test', coverage 100.00 %; predictions: ")


def test_every_metric_carries_a_coverage_below_100_percent(tmp_path: Path, capsys) -> None:
    save_predictions(tmp_path / "p.safetensors", predictions_of(1, declared=50, missing=("m.csv, line 3: gone",)))
    lines = output(
        capsys, "evaluate", "--predictions", tmp_path / "p.safetensors", "--per-class",
        "--temperature-from", tmp_path / "p.safetensors",
    )  # fmt: skip
    assert "missing: m.csv, line 3: gone" in lines
    numbers = ["top1", "top5", "mean_class", "ece", "nll", "temperature", "ece, scaled", "nll, scaled", *NAMES]
    for name in numbers:
        assert all(line.rstrip().endswith("(coverage 80.00 %)") for line in lines if line.startswith(f"{name}  "))
        assert any(line.startswith(f"{name}  ") for line in lines), name


def test_the_caveat_of_a_split_is_beside_every_accuracy(stored: Path, capsys) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        save_predictions(stored / f"{name}.safetensors", predictions_of(seed, caveat="clips may be in both"))
    assert load_predictions(stored / "one.safetensors").caveat == "clips may be in both"
    one, two = stored / "one.safetensors", stored / "two.safetensors"
    for args in (
        ("evaluate", "--predictions", one, "--json", stored / "e.json"),
        ("evaluate", "--predictions", one, "--fuse", two),
    ):
        lines = output(capsys, *args)
        assert "note: clips may be in both" in lines
        assert lines[-1].partition(";")[2].startswith(" clips may be in both; predictions: ")
        assert all("clips may be in both" in line for line in lines if "points, " in line)
    assert json.loads((stored / "e.json").read_text())["caveat"] == "clips may be in both"
    (line,) = output(capsys, "runs", stored, "--compare", "one.safetensors", "two.safetensors")
    assert line.endswith("(clips may be in both)")


def test_classes_are_listed_by_name(stored: Path, capsys) -> None:
    lines = output(capsys, "evaluate", "--predictions", stored / "one.safetensors", "--per-class")
    scores = summarize(predictions_of(1)).heads["label"].scores
    assert row(lines, "run")[1:] == [f"{s[1]:.1f}" for s in (scores.precision, scores.recall, scores.f1)] + ["10"]
    assert row(lines, "kick [high]")[-1] == "10"  # printed without markup
    assert row(lines, "wave :smile:")[-1] == "10"
    assert row(lines, "never")[2:] == ["-", "0.0", "0"]


def test_subjects_are_resampled_for_the_interval(stored: Path, capsys) -> None:
    args = ["evaluate", "--predictions", stored / "one.safetensors", "--bootstrap-over"]
    over_subjects = output(capsys, *args, "subject")
    assert any("over 5 subjects" in line for line in over_subjects)
    assert row(over_subjects, "top1")[3:] != row(output(capsys, *args, "clip"), "top1")[3:]
    assert "group" in refused(capsys, *args, "group")


def test_a_temperature_names_its_predictions(stored: Path, capsys) -> None:
    args = ["evaluate", "--predictions", stored / "one.safetensors", "--temperature-from"]
    lines = output(capsys, *args, stored / "val.safetensors")
    assert "temperature: fitted on 40 samples of split 'val'" in lines
    lines = output(capsys, *args, stored / "one.safetensors")
    assert any(line.startswith("temperature: ") and line.count("40") == 2 for line in lines)
    assert "222222222222" in refused(capsys, *args, stored / "two.safetensors")
    assert not any(line.startswith("temperature") for line in output(capsys, *args[:-1]))


def test_fused_models_are_compared_with_single_models(stored: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(stored)
    one, two = "one.safetensors", "two.safetensors"
    lines = output(capsys, "evaluate", "--predictions", one, "--fuse", two, "--json", "out.json")
    mean = (predictions_of(1).logits["label"] + predictions_of(2).logits["label"]) / 2
    top1 = 100 * (mean.argmax(1) == np.arange(40) % 4).mean()
    alone = [100 * (predictions_of(s).logits["label"].argmax(1) == np.arange(40) % 4).mean() for s in (1, 2)]
    assert row(lines, "mean of logits ")[9] == f"{top1:.2f}"
    for path, single in ((one, alone[0]), (two, alone[1])):
        assert row(lines, path)[1:8] == ["16", "x", "5", "x", "3", "label", f"{single:.2f}"]
        (difference,) = (line for line in lines if line.startswith(f"mean of logits - {path}: "))
        assert f"top1 {top1 - single:+.2f} points, 95 % CI" in difference
        assert "McNemar's exact p = " in difference
    written = json.loads((stored / "out.json").read_text())
    assert written["models"]["mean of logits"]["heads"]["label"]["top1"] == pytest.approx(top1)
    assert len(written["models"]) == len(written["differences"]) == 4


def test_each_fused_model_is_evaluated_and_stored(
    data_set, make_trained_model, tiny_ctn, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, modality in (("color", "rgb"), ("depth", "depth")):
        model = tiny_ctn(channels=3 if modality == "rgb" else 1)
        depth = data_set.depth if modality == "depth" else None
        save_model(tmp_path / name, make_trained_model(model, modalities=(modality,), depth=depth))
    args = ["color", "--manifest", data_set.path, "--fuse", "depth", "--workers", "0", "--out", "p.safetensors"]
    lines = output(capsys, "evaluate", *args)
    first, second = load_predictions(Path("p.safetensors")), load_predictions(Path("p-2.safetensors"))
    assert first.weights_digest != second.weights_digest
    assert first.protocol == second.protocol == Protocol(frames=8, clips=1, crops=1)
    mean = (first.logits["label"] + second.logits["label"]).argmax(1) == first.targets["label"]
    assert row(lines, "mean of logits ")[9] == f"{100 * mean.mean():.2f}"
    assert lines[-1] == "6 samples of split 'test', coverage 100.00 %; predictions: p-2.safetensors"
    again = output(capsys, "evaluate", "--predictions", "p.safetensors", "--fuse", "p-2.safetensors")
    assert row(again, "mean of softmax ") == row(lines, "mean of softmax ")


def test_models_on_other_samples_are_fused_only_with_allow_missing(stored: Path, capsys) -> None:
    save_predictions(stored / "subset.safetensors", predictions_of(2).select_rows(np.arange(30)))
    args = ["evaluate", "--predictions", stored / "one.safetensors", "--fuse", stored / "subset.safetensors"]
    assert "10 samples" in refused(capsys, *args)
    lines = output(capsys, *args, "--allow-missing")
    assert row(lines, "mean of softmax ")[-3:] == ["(coverage", "75.00", "%)"]
    assert all("(coverage 75.00 %)" in line for line in lines if "McNemar" in line)
    assert "test and val" in refused(capsys, *args[:-1], stored / "val.safetensors")


def test_runs_are_compared_by_their_stored_predictions(stored: Path, capsys) -> None:
    for name, seed in (("a", 1), ("b0", 2), ("b1", 4)):
        save_predictions(stored / "runs" / name / "predictions.safetensors", predictions_of(seed))
    (line,) = output(capsys, "runs", stored / "runs", "--compare", "a", "b0")
    correct = [predictions_of(s).logits["label"].argmax(1) == np.arange(40) % 4 for s in (1, 2, 4)]
    assert line.startswith(f"a - b0: top1 {100 * (correct[0].mean() - correct[1].mean()):+.2f} points")
    assert f"only in the first: {(correct[0] & ~correct[1]).sum()}, " in line
    assert f"only in the second: {(correct[1] & ~correct[0]).sum()}, " in line
    (line,) = output(capsys, "runs", stored / "runs", "--compare", "a", "b0,b1")
    assert f"top1 {100 * (correct[0].mean() - np.mean(correct[1:])):+.2f} points" in line
    assert "mean of 1 and 2 seeds" in line
    (line,) = output(capsys, "runs", stored, "--compare", stored / "one.safetensors", "runs/b0")
    assert "same prediction for" in line
    assert "nowhere: " in refused(capsys, "runs", stored / "runs", "--compare", "a", "nowhere")
    assert "no predictions" in refused(capsys, "runs", stored / "runs", "--compare", "a", ",")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["evaluate"], "either MODEL and --manifest, or --predictions"),
        (["evaluate", "runs/a"], "either MODEL and --manifest"),
        (["evaluate", "--manifest", "m.csv"], "either MODEL and --manifest"),
        (["evaluate", "--predictions", "p", "--manifest", "m.csv"], "either MODEL and --manifest"),
        (["evaluate", "runs/a", "--predictions", "p"], "either MODEL and --manifest"),
        (["evaluate", "--predictions", "p"], "p: "),
        (["evaluate", "--predictions", "p", "--fuse", "q", "p"], "--fuse: "),
        (
            ["evaluate", "--predictions", "p", "--fuse", "q", "--temperature-from", "r"],
            "--temperature-from cannot",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(args: list[str], message: str, capsys) -> None:
    assert message in refused(capsys, *args)

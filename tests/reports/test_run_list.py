"""Tests of the list of runs, with complete and damaged ones."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from kinema.cli import main
from kinema.data.manifest import load_manifest
from kinema.errors import RunError
from kinema.models.ctn import CTNConfig
from kinema.reports.run_list import run_line, runs_in
from kinema.training.loop import train
from kinema.training.recipe import Clip, Recipe, load_recipe
from kinema.training.recipe_json import recipe_to_json

RECIPE = load_recipe("moves_ctn_tiny")


def make_run(path: Path, *, steps: int = 0, scores: tuple[float, ...] = (), recipe: Recipe = RECIPE) -> Path:
    """Write a run folder as a training does."""
    (path / "checkpoints").mkdir(parents=True)
    (path / "checkpoints" / "last.pt").write_bytes(b"")
    (path / "recipe.json").write_text(recipe_to_json(recipe))
    lines = [{"step": step + 1, "loss": 3.0 - step / 1000} for step in range(steps)]
    (path / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluations = [{"step": number + 1, "top1": score, "coverage": 100.0} for number, score in enumerate(scores)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in evaluations))
    if scores:
        (path / "predictions.safetensors").write_bytes(b"")
    return path


def test_a_run_is_read_from_its_folder(tmp_path: Path) -> None:
    line = run_line(make_run(tmp_path / "mine", steps=12, scores=(20.0, 61.5, 40.0)))
    samples = len(load_manifest("moves_cross_subject").positions("train"))
    assert line.steps == -(-RECIPE.optim.epochs * samples // RECIPE.data.batch_size)
    assert (line.name, line.model, line.data) == ("mine", "ctn_tiny", "moves_cross_subject rgb")
    assert (line.step, line.top1, line.state, line.faults) == (12, 61.5, "unfinished", ())
    assert line.loss == pytest.approx(3.0 - 11 / 1000)


def test_the_planned_steps_are_those_of_the_training(tmp_path: Path) -> None:
    """A training of 0.07 epochs takes three steps, 2.4 rounded up."""
    recipe = replace(
        RECIPE,
        clip=Clip(frames=8, size=32, short_side=32),
        data=replace(RECIPE.data, workers=0, augmentation=replace(RECIPE.data.augmentation, short_side=(32, 40))),
        model=CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3),
        optim=replace(RECIPE.optim, epochs=0.07, warmup_epochs=0.0),
        run=replace(RECIPE.run, out=tmp_path / "run"),
    )
    train(recipe)
    line = run_line(tmp_path / "run")
    assert (line.step, line.steps, line.state, line.model, line.faults) == (3, 3, "finished", "ctn", ())


@pytest.mark.parametrize(
    ("scores", "state"),
    [
        ((20.0, 61.5, 40.0, 61.5), "finished"),  # patience 2: two evaluations after the best one
        ((20.0, 61.5, 40.0), "unfinished"),
        ((61.5, 20.0, 40.0, 62.0), "unfinished"),
        ((), "unfinished"),
    ],
)
def test_a_run_whose_patience_is_used_up_is_finished(tmp_path: Path, scores: tuple[float, ...], state: str) -> None:
    recipe = replace(RECIPE, run=replace(RECIPE.run, patience=2))
    assert run_line(make_run(tmp_path / "run", steps=12, scores=scores, recipe=recipe)).state == state
    assert run_line(make_run(tmp_path / "patient", steps=12, scores=scores)).state == "unfinished"


def test_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=2)
    (path / "checkpoints" / "last.pt").unlink()
    assert run_line(path).state == "no checkpoint"


def test_a_changed_model_is_named_by_its_family_and_a_users_own_network_own(tmp_path: Path) -> None:
    other = replace(RECIPE, model=replace(RECIPE.model, depth=3))
    path = make_run(tmp_path / "run", recipe=other)
    assert run_line(path).model == "ctn"
    (path / "model").mkdir()
    (path / "model" / "model.json").write_text(json.dumps({"model": {"kind": "own"}}))
    assert run_line(path).model == "own"


def test_several_heads_are_ranked_by_their_joint_top1(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", scores=(1.0,))
    (path / "metrics.jsonl").write_text(json.dumps({"step": 1, "verb.top1": 50.0, "joint.top1": 30.0}) + "\n")
    assert run_line(path).top1 == 30


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda p: (p / "recipe.json").unlink(), "recipe.json"),
        (lambda p: (p / "recipe.json").write_text('{"clip": '), "recipe.json"),
        (
            lambda p: (p / "steps.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo'),
            "steps.jsonl, line 2: ",
        ),
        (lambda p: (p / "metrics.jsonl").write_text("[]\n"), "metrics.jsonl, line 1: "),
        (lambda p: (p / "steps.jsonl").write_bytes(b"\xff\xfe\x00"), "steps.jsonl: "),
        (lambda p: (p / "predictions.safetensors").unlink(), "predictions.safetensors: "),
        (
            lambda p: ((p / "model").mkdir(), (p / "model" / "model.json").write_text("{")),
            "model.json: ",
        ),
        (
            lambda p: (p / "recipe.json").write_text(
                recipe_to_json(replace(RECIPE, data=replace(RECIPE.data, manifest="/gone.csv")))
            ),
            "/gone.csv: ",
        ),
    ],
    ids=["no recipe", "recipe", "half a line", "no line", "no text", "predictions", "model", "manifest"],
)
def test_a_fault_of_a_run_is_one_line_and_hides_no_other_run(tmp_path: Path, spoil, fault: str, capsys) -> None:
    spoil(make_run(tmp_path / "spoilt", steps=2, scores=(10.0,)))
    make_run(tmp_path / "whole", steps=3, scores=(77.0,))
    main(["runs", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("spoilt: "))
    assert fault in line
    (whole,) = (line for line in lines if line.startswith("whole "))
    assert "77.00" in whole
    assert any(line.startswith("spoilt  ") for line in lines)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("recipe.json", "[" * 10**6),
        ("steps.jsonl", '{"step": 1e999}'),
        ("steps.jsonl", '{"step": ' + "[" * 10**6),
        ("metrics.jsonl", '{"step": 3, "top1": ' + "1" * 400 + "}"),
        ("metrics.jsonl", '{"step": 3, "top1": {}}'),
        ("model/model.json", '{"model":' * 10**5),
    ],
)
def test_no_content_of_a_run_hides_the_others(tmp_path: Path, name: str, content: str, capsys) -> None:
    broken = make_run(tmp_path / "broken", steps=2)
    (broken / name).parent.mkdir(exist_ok=True)
    (broken / name).write_text(content)
    make_run(tmp_path / "good", steps=2)
    lines = {line.name: line for line in runs_in(tmp_path)}
    assert lines["good"].step == 2
    assert not lines["good"].faults
    assert "broken" in lines
    main(["runs", str(tmp_path)])
    assert "broken" in capsys.readouterr().out


def test_runs_are_sorted_by_age_and_links_are_skipped(tmp_path: Path) -> None:
    for name, when in (("b", 2000), ("a", 3000), ("c", 1000)):
        path = make_run(tmp_path / name, steps=1)
        for part in path.iterdir():
            os.utime(part, (when, when))
    (tmp_path / "latest").symlink_to("a")
    (tmp_path / "notes.txt").write_text("no run")
    (tmp_path / "pictures").mkdir()
    assert [line.name for line in runs_in(tmp_path)] == ["c", "b", "a"]
    assert [line.name for line in runs_in(tmp_path / "a")] == ["a"]


def test_a_folder_without_runs_is_refused(tmp_path: Path, raises) -> None:
    for folder in (tmp_path, tmp_path / "gone"):
        with raises(RunError, path=folder):
            runs_in(folder)

"""Tests of run folders, logs and checkpoints."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.errors import RecipeError, RunError
from kinema.training.loop import train
from kinema.training.recipe import Recipe
from kinema.training.runs import Run

STORED = Path(__file__).parents[1] / "stored"


def test_a_run_stores_recipe_and_environment(tiny_recipe: Recipe) -> None:
    run = Run.create(tiny_recipe, name="tiny")
    run.begin()
    assert Run.open(run.path).recipe == tiny_recipe
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert {"commit", "kinema", "python", "platform"} <= set(environment)


def test_latest_points_only_to_runs_in_the_default_folder(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (None, Path("runs/two"), Path("elsewhere/three")):
        run = Run.create(replace(tiny_recipe, run=replace(tiny_recipe.run, out=out)), name="x")
        run.begin()
        run.point_latest()
    assert Path("runs/latest").resolve() == (tmp_path / "runs" / "two").resolve()
    assert not Path("elsewhere/latest").exists()


def test_a_run_opened_by_its_link_is_resolved(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run.create(replace(tiny_recipe, run=replace(tiny_recipe.run, out=Path("runs/one"))), name="x")
    run.begin()
    run.point_latest()
    resumed = Run.open("runs/latest")
    by_name = Run.create(
        replace(tiny_recipe, run=replace(tiny_recipe.run, out=Path("runs/latest"))), name="x", existing="resume"
    )
    for opened in (resumed, by_name):
        opened.point_latest()
        assert Path("runs/latest").readlink() == Path("one")
        assert opened.path == (tmp_path / "runs" / "one").resolve()


def test_a_run_of_an_older_version_is_resumed_in_its_folder(tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe, run=replace(tiny_recipe.run, out=tmp_path / "run"))
    run = Run.create(recipe, name="x")
    run.begin()
    run.close()
    stored = json.loads((run.path / "recipe.json").read_text())
    stored["clip"] |= {"mean": [0.5] * 3, "std": [0.5] * 3}  # the defaults of that version
    stored["data"]["read_options"]["isolation"] = "none"
    (run.path / "recipe.json").write_text(json.dumps(stored))
    assert Run.create(recipe, name="x", existing="resume").path == run.path


def test_two_runs_in_the_same_second_get_different_folders(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "20260101-000000")
    recipe = replace(tiny_recipe, run=replace(tiny_recipe.run, out=None))
    both = [Run.create(recipe, name="x") for _ in range(2)]  # planned before either has begun
    for run in both:
        run.begin()
    assert both[0].path != both[1].path


def test_a_planned_run_writes_nothing(tiny_recipe: Recipe) -> None:
    run = Run.create(tiny_recipe, name="tiny")
    assert not run.path.exists()


def test_a_folder_that_holds_a_run_is_not_overwritten(tiny_recipe: Recipe, raises) -> None:
    run = Run.create(tiny_recipe, name="tiny")
    run.begin()
    with raises(RunError, f"--resume {run.path}", path=run.path, field="run.out"):
        Run.create(tiny_recipe, name="tiny")


def test_a_folder_without_a_recipe_is_not_a_run(tmp_path: Path, raises) -> None:
    with raises(RunError, "recipe.json", path=tmp_path):
        Run.open(tmp_path)


def test_logs_are_truncated_to_the_checkpoint_and_incomplete_lines_dropped(tiny_recipe: Recipe) -> None:
    run = Run.create(tiny_recipe, name="tiny")
    run.begin()
    for step in range(1, 6):
        run.log("steps", {"step": step, "loss": 1.0})
    state = {"step": 3, "best": 0.0, "stale": 0, "manifest_digest": "", "model": {}, "optimizer": {}, "averaged": None}
    run.save_checkpoint(state)
    with (run.path / "steps.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    state = run.load_checkpoint()
    assert state is not None
    run.truncate_logs(state["step"])
    assert [line["step"] for line in run.steps()] == [1, 2, 3]


def test_a_checkpoint_that_could_execute_code_is_refused(tiny_recipe: Recipe, tmp_path: Path, raises) -> None:
    run = Run.create(tiny_recipe, name="tiny")
    run.begin()

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"step": 1, "trap": Trap()}, run.path / "checkpoints" / "last.pt")
    with raises(RunError, "cannot be read", path="last.pt"):
        run.load_checkpoint()
    assert not (tmp_path / "executed").exists()


def test_a_file_that_is_not_a_checkpoint_is_refused(tiny_recipe: Recipe, raises) -> None:
    run = Run.create(tiny_recipe, name="tiny")
    run.begin()
    run.save_checkpoint({"step": 1})
    with raises(RunError, "not a checkpoint", path="last.pt"):
        run.load_checkpoint()


def test_a_run_stored_in_format_1_resumes(tmp_path: Path) -> None:
    """Recipe, checkpoint and logs were written by kinema before format 2."""
    shutil.copytree(STORED / "run_format1", tmp_path / "old")
    expected = [(line["step"], line["loss"], line["lr"]) for line in Run.open(tmp_path / "old").steps()]
    run = train(Run.open(tmp_path / "old").recipe, Run.open(tmp_path / "old"))
    found = [(line["step"], line["loss"], line["lr"]) for line in run.steps()]
    assert len(found) == 9
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert [line["step"] for line in run.metrics()] == [3, 9]


def test_paths_that_no_recipe_can_store_are_refused_before_the_folder_is_made(tmp_path, tiny_recipe, raises) -> None:
    out = tmp_path / "caf\udce9"
    with raises(RecipeError, path=out):
        Run.create(replace(tiny_recipe, run=replace(tiny_recipe.run, out=out)), name="tiny").begin()
    assert not out.exists()

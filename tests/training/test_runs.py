"""The run folder never holds half a thing."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinema.training.recipe import Recipe
from kinema.training.runs import Run, RunError


def test_a_run_knows_its_recipe_and_its_environment(tiny_recipe: Recipe) -> None:
    run = Run.create(tiny_recipe, name="tiny")
    assert Run.open(run.path).recipe == tiny_recipe
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert {"commit", "kinema", "python", "platform"} <= set(environment)


def test_latest_points_at_the_last_run(tiny_recipe: Recipe, tmp_path: Path) -> None:
    for name in ("one", "two"):
        out = tmp_path / "runs" / name
        Run.create(replace(tiny_recipe, run=replace(tiny_recipe.run, out=out)), name="x")
    assert (tmp_path / "runs" / "latest").resolve() == (tmp_path / "runs" / "two").resolve()


def test_two_runs_of_one_second_do_not_share_a_folder(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "20260101-000000")
    recipe = replace(tiny_recipe, run=replace(tiny_recipe.run, out=None))
    assert Run.create(recipe, name="x").path != Run.create(recipe, name="x").path


def test_a_folder_that_holds_a_run_is_not_written_over(tiny_recipe: Recipe) -> None:
    run = Run.create(tiny_recipe, name="tiny")
    with pytest.raises(RunError, match=f"holds a run already; go on with --resume {run.path}"):
        Run.create(tiny_recipe, name="tiny")


def test_a_folder_without_a_recipe_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run"):
        Run.open(tmp_path)


def test_logs_are_cut_back_to_the_checkpoint_and_torn_lines_dropped(tiny_recipe: Recipe) -> None:
    run = Run.create(tiny_recipe, name="tiny")
    for step in range(1, 6):
        run.log_step({"step": step, "loss": 1.0})
    run.save_checkpoint({"step": 3, "best": 0.0})
    with (run.path / "steps.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    state = run.load_checkpoint()
    assert state is not None
    assert state["step"] == 3
    assert [line["step"] for line in run.steps()] == [1, 2, 3]


def test_a_checkpoint_that_could_execute_code_is_refused(tiny_recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(tiny_recipe, name="tiny")

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"step": 1, "trap": Trap()}, run.path / "checkpoints" / "last.pt")
    with pytest.raises(RunError, match="cannot be read"):
        run.load_checkpoint()
    assert not (tmp_path / "executed").exists()

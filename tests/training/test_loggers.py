"""Tests of loggers: they hold the same numbers as the run folder, each step once, also in resumed runs."""

import csv
import importlib.machinery
import importlib.util
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from logging import getLogger
from pathlib import Path

import numpy as np
import pytest

from kinema.errors import RecipeError
from kinema.training.loggers import TrainingLogger, check_loggers
from kinema.training.loop import train
from kinema.training.messages import evaluation_message
from kinema.training.progress import TrainingProgress
from kinema.training.recipe import Recipe
from kinema.training.recipe_json import recipe_from_json, recipe_to_json
from kinema.training.runs import Run


def with_loggers(recipe: Recipe, *loggers: str) -> Recipe:
    return replace(recipe, run=replace(recipe.run, loggers=loggers))


def stopped_and_resumed(recipe: Recipe) -> Run:
    """Return a run of ten steps that was killed at step 6 and resumed from its checkpoint at step 4."""
    run = train(recipe, max_steps=4)
    for step in (5, 6):
        line = {"step": step, "loss": 1e6, "lr": 1.0, "clips_per_s": 1.0, "data_wait": 0.0}
        run.log("steps", line)
        for table in run.path.glob("csv/metrics.csv"):
            columns = table.read_text().splitlines()[0].split(",")
            cells = [str(line.get(column.removeprefix("train/"), "")) for column in columns]
            table.write_text(table.read_text() + ",".join(cells) + "\n")
    return train(run.recipe, Run.open(run.path))


def rows_of(run: Run) -> list[dict[str, str]]:
    with (run.path / "csv" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if value != ""} for row in csv.DictReader(file)]


def as_rows(kind: str, lines: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{(name if name == "step" else f"{kind}/{name}"): float(line[name]) for name in line} for line in lines]


def test_csv_holds_every_step_and_evaluation_once_in_a_resumed_run(tiny_recipe: Recipe) -> None:
    run = stopped_and_resumed(with_loggers(tiny_recipe, "csv"))
    assert [line["step"] for line in run.metrics()] == [4, 5, 10]
    rows = [{name: float(value) for name, value in row.items()} for row in rows_of(run)]
    expected = as_rows("train", run.steps()), as_rows("evaluation", run.metrics())
    assert [row for row in rows if "train/loss" in row] == expected[0]
    assert [row for row in rows if "train/loss" not in row] == expected[1]


def test_csv_is_on_disk_with_each_checkpoint_and_counts_skips(tiny_recipe: Recipe) -> None:
    """A killed training leaves all lines up to its checkpoint."""
    run = Run.create(tiny_recipe, name="tiny")
    run.begin()
    recipe = with_loggers(tiny_recipe, "csv")
    logger = TrainingLogger(run, recipe, steps=10, start=0, is_first=True, progress="none")
    line = {"loss": 1.0, "lr": 0.1, "clips_per_s": 2.0, "data_wait": 0.5}
    logger.log_step(1, line, skipped=0)
    logger.log_step(2, line, skipped=3)
    logger.flush()
    assert [row["step"] for row in rows_of(run)] == ["1", "2"]
    assert [step.get("skipped") for step in run.steps()] == [None, 3]


def test_tensorboard_holds_every_step_and_evaluation_once_in_a_resumed_run(tiny_recipe: Recipe) -> None:
    from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator

    recipe = with_loggers(tiny_recipe, "tensorboard")
    run = stopped_and_resumed(recipe)
    events = EventAccumulator(str(run.path / "tensorboard"), STORE_EVERYTHING_SIZE_GUIDANCE).Reload()
    expected = {}
    for kind, lines in (("train", run.steps()), ("evaluation", run.metrics())):
        for name in lines[0].keys() - {"step"}:
            expected[f"{kind}/{name}"] = [(line["step"], float(np.float32(line[name]))) for line in lines]
    assert {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]} == expected
    assert len(expected["train/loss"]) == 10
    assert [step for step, _ in expected["evaluation/top1"]] == [4, 5, 10]

    (text,) = events.Tensors("recipe/text_summary")
    assert recipe_from_json(text.tensor_proto.string_val[0].decode()) == run.recipe


WANDB = """
import sys
from kinema.training.loop import train
from kinema.training.recipe_json import recipe_from_json
from kinema.training.runs import Run

recipe = recipe_from_json(sys.stdin.read())
run = train(recipe, max_steps=4)
train(run.recipe, Run.open(run.path))
"""


@pytest.mark.long
def test_weights_and_biases_holds_every_step_of_a_resumed_run(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs in a separate process, because the threads of wandb would outlive the test."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    text = recipe_to_json(with_loggers(tiny_recipe, "wandb"))
    done = subprocess.run(
        [sys.executable, "-c", WANDB], input=text, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "run")
    first, second = sorted(run.path.glob("wandb/offline-run-*/*.wandb"))
    history: dict[str, list[tuple[int, float]]] = {}
    for record in [*read_wandb(first), *read_wandb(second)]:
        values = {"/".join([item.key, *item.nested_key]).strip("/"): item.value_json for item in record.history.item}
        for name, value in values.items():
            history.setdefault(name, []).append((int(values["_step"]), json.loads(value)))
    assert history["train/loss"] == [(line["step"], line["loss"]) for line in run.steps()]
    assert history["evaluation/top1"] == [(line["step"], line["top1"]) for line in run.metrics()]
    assert len(run.steps()) == 10
    names = {record.run.run_id for record in [*read_wandb(first), *read_wandb(second)] if record.HasField("run")}
    assert len(names) == 1  # a resumed run continues the same W&B run
    assert names != {"run"}  # folder names are not unique
    (config,) = {
        item.value_json
        for record in read_wandb(first)
        for item in record.config.update
        if (item.key, *item.nested_key) == ("optim",)
    }
    assert json.loads(config)["lr"] == tiny_recipe.optim.lr


def read_wandb(path: Path) -> Iterator[object]:
    """Yield the records of a .wandb file: LevelDB's log format (32 KiB blocks, split records) after 7 header bytes."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a record in one part, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
@pytest.mark.parametrize("found", ["nothing", "a folder"])
def test_a_logger_whose_package_is_missing_is_refused_with_the_line_that_installs_it(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, name: str, found: str, raises
) -> None:
    """A folder of the package's name, such as wandb leaves behind, is not a package."""
    spec = None if found == "nothing" else importlib.machinery.ModuleSpec(name, None, is_package=True)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda package, *_: spec if package == name else real(package))
    recipe = with_loggers(tiny_recipe, "csv", name)
    with raises(RecipeError, f"pip install 'kinema[{name}]'", field="run.loggers"):
        check_loggers(recipe.run.loggers)
    with raises(RecipeError, name, field="run.loggers"):
        train(recipe)
    assert recipe.run.out is not None
    assert not recipe.run.out.exists()


def test_only_the_first_process_writes(tiny_recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.create(tiny_recipe, name="tiny")
    run.begin()
    recipe = with_loggers(tiny_recipe, "csv", "tensorboard")
    with TrainingLogger(run, recipe, steps=10, start=0, is_first=False, progress="bar") as logger:
        logger.log("a line")
        logger.log_step(1, {"loss": 1.0, "lr": 0.1, "clips_per_s": 2.0, "data_wait": 0.5}, skipped=1)
        logger.log_evaluation(1, {"top1": 50.0})
        logger.flush()
    assert {path.name for path in run.path.iterdir()} == {"recipe.json", "environment.json", "checkpoints", "run.lock"}
    assert capsys.readouterr().err == ""


def test_messages_are_printed_unchanged_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """A folder may be called [bold], and a long message stays on one line."""
    kinema_logger = getLogger("kinema")
    before = (kinema_logger.level, kinema_logger.propagate, list(kinema_logger.handlers))
    measures = {f"a long name of a task head {number}.top1": 50.0 for number in range(9)}
    with TrainingProgress(steps=2, done=0):
        getLogger("kinema.training").info("run: runs/[bold]x[/bold], from step 0")
        getLogger("kinema").info("%s", evaluation_message(1, measures, [{"index": 4}, {"index": 4}, {"index": 7}]))
    getLogger("kinema").info("after the training")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "run: runs/[bold]x[/bold], from step 0"
    numbers = "  ".join(f"{name} 50.0" for name in measures)
    assert lines[1:] == [f"step 1: {numbers}  (skipped 3 draws of 2 samples)"]
    assert (kinema_logger.level, kinema_logger.propagate, list(kinema_logger.handlers)) == before


def test_a_library_call_logs_and_prints_nothing(
    tiny_recipe: Recipe, capsys: pytest.CaptureFixture[str], messages: Callable[[], list[str]]
) -> None:
    train(tiny_recipe, max_steps=1)
    logged = messages()
    assert [line.split(":")[0] for line in logged] == ["run", "plan", "step 1"]
    assert capsys.readouterr() == ("", "")
    getLogger("kinema").setLevel("ERROR")
    train(replace(tiny_recipe, run=replace(tiny_recipe.run, out=None)), Run.open(tiny_recipe.run.out), max_steps=2)
    assert messages() == []

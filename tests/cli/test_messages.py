"""Tests of --quiet and --log-level: results on standard output, messages on standard error."""

import logging
import runpy
import sys
from pathlib import Path

import pytest

from kinema.cli.app import COMMANDS, GROUPS, main
from kinema.cli.messages import messages_on_stderr, split_log_level
from kinema.errors import UsageError
from kinema.training.progress import TrainingProgress


@pytest.fixture
def prepare(fill, tmp_path: Path) -> list[str]:
    """Arguments that prepare four videos, with notes about them."""
    names = [f"{label}/{number}.mp4" for label in ("run", "walk") for number in range(2)]
    return ["prepare", "folder", "--root", str(fill(tmp_path / "videos", *names)), "--out", str(tmp_path / "m.csv")]


def test_notes_are_on_standard_error_and_the_summary_on_standard_output(prepare: list[str], capsys) -> None:
    main(prepare)
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 1
    assert "2 classes" in output.out
    assert "has no split" in output.err
    for quiet in (["--quiet", *prepare], [*prepare, "--log-level", "warning"], [*prepare, "--log_level=WARNING"]):
        main(quiet)
        again = capsys.readouterr()
        assert again.out == output.out
        assert "has no split" not in again.err


@pytest.mark.parametrize(("level", "lines"), [(logging.INFO, ["run: a"]), (logging.WARNING, [])])
def test_a_progress_bar_prints_messages_once_and_obeys_the_level(level: int, lines: list[str], capsys) -> None:
    with messages_on_stderr(level), TrainingProgress(steps=1, done=0) as bar:
        logging.getLogger("kinema.training").info("run: a")
        bar.step(loss=1.0, lr=0.1, clips_per_s=1.0, data_wait=0.0)
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.long
def test_a_quiet_training_prints_its_model_only(tiny_recipe_file: Path, capsys) -> None:
    main(["train", str(tiny_recipe_file), "--run.out", str(tiny_recipe_file.parent / "run"), "--quiet"])
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out == f"model: {tiny_recipe_file.parent / 'run' / 'model'}\n"


@pytest.fixture
def tiny_recipe_file(tmp_path: Path) -> Path:
    (tmp_path / "small.py").write_text(
        "from kinema.models.ctn import CTNConfig\n"
        "from kinema.training.recipe import Clip, Data, Optim, Recipe\n"
        "RECIPE = Recipe(clip=Clip(frames=8, size=16, short_side=16), data=Data(workers=0, batch_size=90,\n"
        "    manifest='moves_cross_subject', train='test', evaluate='train', duplicates='allow'),\n"
        "    model=CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3),\n"
        "    optim=Optim(lr=0.01, epochs=1.0))\n"
    )
    return tmp_path / "small.py"


def test_errors_are_printed_at_every_level(capsys) -> None:
    for level in ("debug", "info", "warning", "error"):
        with pytest.raises(SystemExit) as stop:
            main(["check", "gone.csv", "--log-level", level])
        assert stop.value.code == 2
        assert "gone.csv" in capsys.readouterr().err


@pytest.mark.parametrize("args", [["--log-level"], ["--log-level", "loud"], ["--log-level="], ["--log-level", "check"]])
def test_an_unknown_level_is_refused(args: list[str], raises) -> None:
    with raises(UsageError, "info", field="--log-level"):
        split_log_level(["check", *args])


def test_the_last_level_counts_and_other_arguments_are_kept() -> None:
    assert split_log_level(["a", "--quiet", "--log-level", "debug", "b"]) == (["a", "b"], logging.DEBUG)
    assert split_log_level(["--log-level", "debug", "--quiet"]) == ([], logging.WARNING)


def test_messages_are_printed_once_and_the_logger_is_as_before(capsys) -> None:
    logger = logging.getLogger("kinema")
    before = (logger.level, logger.propagate, list(logger.handlers))
    with messages_on_stderr(logging.INFO):
        logging.getLogger("kinema.data").info("%s", "[bold]")
        logging.getLogger("kinema.data").warning("100 %s", "%")
        logging.getLogger("kinema.data").debug("hidden")
    assert capsys.readouterr() == ("", "[bold]\nkinema: 100 %\n")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_every_command_is_in_one_group() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)


def test_the_package_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["kinema", "--version"])
    runpy.run_module("kinema", run_name="__main__")
    assert capsys.readouterr().out.startswith("kinema ")

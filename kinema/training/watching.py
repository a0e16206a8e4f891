"""What a training says while it runs: to the terminal, the run's own records, and further loggers."""

import importlib.util
import json
import shutil
import textwrap
import uuid
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, assert_never

from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from lightning_fabric.utilities.rank_zero import rank_zero_only

from kinema.errors import RecipeError
from kinema.training.progress import TrainingProgress
from kinema.training.recipe import LoggerName, Recipe, recipe_to_json
from kinema.training.runs import Run

NEEDS: Mapping[LoggerName, str] = {"csv": "", "tensorboard": "tensorboard", "wandb": "wandb"}
"""The package that a logger needs."""


class Watch:
    """The first process's records; the others keep none.

    Args:
        run: its folder.
        recipe: names further loggers: `csv/metrics.csv`, `tensorboard/` in the run's folder, Weights & Biases.
        steps: of the whole training.
        start: where this part of it begins; what came before is told to the loggers again, so that they hold the whole.
        first: whether this is the first process.

    Raises:
        RecipeError: the package of a logger is not installed.
    """

    def __init__(self, run: Run, recipe: Recipe, *, steps: int, start: int, first: bool) -> None:
        self.run = run
        self.first = first
        self.progress = TrainingProgress(steps=steps, done=start, shown=first)
        check_loggers(recipe.run.loggers)
        self.loggers = [make_logger(name, run.path) for name in recipe.run.loggers] if first else []
        for logger in self.loggers:
            _tell(logger, recipe)
            if start and not isinstance(logger, WandbLogger):  # that one is elsewhere, and goes on
                for line in run.steps():
                    logger.log_metrics(_named("train", line), int(line["step"]))
                for line in run.metrics():
                    logger.log_metrics(_named("evaluation", line), int(line["step"]))

    def __enter__(self) -> "Watch":
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.__exit__(kind, error, trace)
        for logger in self.loggers:
            logger.finalize("success" if error is None else "failed")

    def say(self, *lines: str) -> None:
        self.progress.say(*lines)

    def stepped(self, step: int, line: Mapping[str, float], *, skipped: int) -> None:
        """A step was taken, without so many samples that could not be read."""
        if self.first:
            self.run.log_step({"step": step, **line, **({"skipped": skipped} if skipped else {})})
        for logger in self.loggers:
            logger.log_metrics(_named("train", line), step)
        self.progress.step(**line)

    def evaluated(self, step: int, measures: Mapping[str, float]) -> None:
        if self.first:
            self.run.log_metrics({"step": step, **measures})
        for logger in self.loggers:
            logger.log_metrics(_named("evaluation", measures), step)
        self.progress.evaluated(step=step, measures=dict(measures), skipped=self.run.skipped())

    def saved(self) -> None:
        """A checkpoint was written; what the loggers hold back is to be on the disk as well."""
        for logger in self.loggers:
            logger.save()


class WandbLogger(Logger):
    """Weights & Biases behind Fabric's interface; a run that is resumed goes on as the same one."""

    def __init__(self, folder: Path) -> None:
        import wandb

        self.folder = folder
        self._run = wandb.init(project="kinema", name=folder.name, id=_identity(folder), dir=folder, resume="allow")

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str:
        return self.folder.name

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._run.log(dict(metrics), step=step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        self._run.config.update(params, allow_val_change=True)  # type: ignore[no-untyped-call]  # without annotations

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._run.finish(0 if status == "success" else 1)


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Look for the packages of loggers, without importing them.

    Raises:
        RecipeError: one is not installed.
    """
    for name in names:
        found = importlib.util.find_spec(NEEDS[name]) if NEEDS[name] else None
        # Without an origin it is a mere folder of that name, such as wandb leaves where it was called.
        if NEEDS[name] and (found is None or found.origin is None):
            raise RecipeError(f"run.loggers: {name} is not installed; pip install 'kinema[{name}]'")


def make_logger(name: LoggerName, folder: Path) -> Logger:
    """A logger that writes into a run's folder, anew; what an earlier part of the run left there is cleared away."""
    match name:
        case "csv":
            shutil.rmtree(folder / name, ignore_errors=True)
            return CSVLogger(folder, name="", version=name, flush_logs_every_n_steps=20)
        case "tensorboard":
            shutil.rmtree(folder / name, ignore_errors=True)
            return TensorBoardLogger(folder, name="", version=name, default_hp_metric=False)
        case "wandb":
            return WandbLogger(folder)
        case _:
            assert_never(name)


def _tell(logger: Logger, recipe: Recipe) -> None:
    """Let a logger hold the recipe as well; CSV holds numbers alone."""
    text = recipe_to_json(recipe)
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text("recipe", textwrap.indent(text, "    "))  # indented, Markdown leaves it as it is
    elif isinstance(logger, WandbLogger):
        logger.log_hyperparams(json.loads(text))


def _identity(folder: Path) -> str:
    """A run's name at Weights & Biases, written down in its folder: another run's folder may have the same name."""
    path = folder / "wandb" / "id"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _named(kind: str, line: Mapping[str, float]) -> dict[str, float]:
    return {f"{kind}/{name}": value for name, value in line.items() if name != "step"}

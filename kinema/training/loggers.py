"""Logs of a training: files of the run, the logger `kinema`, and loggers such as TensorBoard."""

import importlib.util
import json
import logging
import shutil
import textwrap
import uuid
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, assert_never

from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from lightning_fabric.utilities.rank_zero import rank_zero_only

from kinema.errors import RecipeError
from kinema.training.progress import TrainingProgress
from kinema.training.recipe import LoggerName, Recipe
from kinema.training.recipe_json import recipe_to_json
from kinema.training.runs import Run

logger = logging.getLogger(__name__)


class TrainingLogger:
    """Logs of a training, written by the first process.

    Loggers of the recipe write to `csv/` and `tensorboard/` in the run folder. A run that resumes at step `start` logs
    the steps before it again. `progress="bar"` shows a progress bar and prints messages.
    """

    def __init__(
        self, run: Run, recipe: Recipe, *, steps: int, start: int, is_first: bool, progress: Literal["none", "bar"]
    ) -> None:
        self.run = run
        self.is_first = is_first
        self.progress = TrainingProgress(steps=steps, done=start, shown=is_first) if progress == "bar" else None
        self.loggers = [make_logger(name, run.path) for name in recipe.run.loggers] if is_first else []
        for backend in self.loggers:
            _log_recipe(backend, recipe)
            if start and not isinstance(backend, WandbLogger):  # W&B continues its own run
                for line in run.steps():
                    backend.log_metrics(_prefixed("train", line), int(line["step"]))
                for line in run.metrics():
                    backend.log_metrics(_prefixed("evaluation", line), int(line["step"]))

    def __enter__(self) -> "TrainingLogger":
        if self.progress is not None:
            self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress is not None:
            self.progress.__exit__(kind, error, trace)
        for backend in self.loggers:
            backend.finalize("success" if error is None else "failed")

    def log(self, *messages: str) -> None:
        """Log messages under the name `kinema`."""
        for message in messages if self.is_first else ():
            logger.info("%s", message)

    def log_step(self, step: int, line: Mapping[str, float], *, skipped: int) -> None:
        """Log a step, and the number of its samples that could not be read."""
        if self.is_first:
            self.run.log("steps", {"step": step, **line, **({"skipped": skipped} if skipped else {})})
        for backend in self.loggers:
            backend.log_metrics(_prefixed("train", line), step)
        if self.progress is not None:
            self.progress.step(**line)

    def log_evaluation(self, step: int, measures: Mapping[str, float]) -> None:
        """Log an evaluation."""
        if self.is_first:
            self.run.log("metrics", {"step": step, **measures})
        for backend in self.loggers:
            backend.log_metrics(_prefixed("evaluation", measures), step)

    def flush(self) -> None:
        """Write buffered lines of the loggers to disk, as with a checkpoint."""
        for backend in self.loggers:
            backend.save()


class WandbLogger(Logger):
    """Weights & Biases as a Fabric logger. A resumed run continues the same W&B run."""

    def __init__(self, folder: Path) -> None:
        import wandb

        self.folder = folder
        self._run = wandb.init(project="kinema", name=folder.name, id=_identity(folder), dir=folder, resume="allow")

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "wandb"

    @property
    def version(self) -> str:
        """Name of the run folder."""
        return self.folder.name

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics of a step."""
        self._run.log(dict(metrics), step=step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Store the recipe."""
        self._run.config.update(params, allow_val_change=True)  # type: ignore[no-untyped-call]  # without annotations

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the W&B run."""
        self._run.finish(0 if status == "success" else 1)


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Check that the packages of loggers are installed, without importing them.

    Raises:
        RecipeError: A package is not installed.
    """
    for name in names:
        spec = importlib.util.find_spec(name) if name != "csv" else None
        # Without an origin it is only a folder of that name, such as wandb makes in the working directory.
        if name != "csv" and (spec is None or spec.origin is None):
            raise RecipeError(
                f"run.loggers: {name} is not installed. Run: pip install 'kinema[{name}]'", field="run.loggers"
            )


def make_logger(name: LoggerName, folder: Path) -> Logger:
    """Return a logger that writes to a run folder. Files of an earlier part of the run are removed."""
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


def _log_recipe(backend: Logger, recipe: Recipe) -> None:
    """Store the recipe in a logger. CSV holds numbers only."""
    text = recipe_to_json(recipe)
    if isinstance(backend, TensorBoardLogger):
        backend.experiment.add_text("recipe", textwrap.indent(text, "    "))  # an indented block in Markdown
    elif isinstance(backend, WandbLogger):
        backend.log_hyperparams(json.loads(text))


def _identity(folder: Path) -> str:
    """Return the W&B id of a run, stored in its folder because folder names are not unique."""
    path = folder / "wandb" / "id"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _prefixed(kind: str, line: Mapping[str, float]) -> dict[str, float]:
    return {f"{kind}/{name}": value for name, value in line.items() if name != "step"}

"""The runs of a folder: what each is, how far it came, how good it was, and what is wrong with it."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from kinema.data.manifest import load_manifest
from kinema.errors import ManifestError, RecipeError, RunError
from kinema.evaluation.predictions import JOINT, Predictions, load_predictions
from kinema.inference.trained_model import find_description
from kinema.models.registry import MODELS
from kinema.reports.evaluation import console
from kinema.reports.results import load_result
from kinema.training.recipe import Recipe
from kinema.training.runs import Run
from kinema.training.schedule import Schedule, score

State = Literal["finished", "unfinished", "no checkpoint"]
PARTS = ("recipe.json", "steps.jsonl", "metrics.jsonl", "checkpoints", "model")
"""Each of these makes a folder a run, whole or not."""


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """What the list says of one run.

    Args:
        name: of the folder.
        model: name in the zoo; a family where the numbers are others, `own` for a network of the user's.
        data: manifest and modalities.
        step, steps: done, and planned; None where that cannot be told.
        top1: the best of all evaluations in percent; of all heads together where there are several.
        loss: of the last step.
        state: whether all planned steps are done, or where there is nothing to go on from.
        changed: when it last wrote a line, in seconds since 1970.
        faults: what is wrong with the folder, a sentence each.
    """

    name: str
    model: str
    data: str
    step: int
    steps: int | None
    top1: float | None
    loss: float | None
    state: State | None
    changed: float
    faults: tuple[str, ...]


def runs_in(folder: Path) -> list[RunLine]:
    """The runs of a folder, the oldest first; a run itself is a list of one.

    Raises:
        RunError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder. Name the folder that contains the runs.", path=folder)
    candidates = [folder] if _is_run(folder) else sorted(path for path in folder.iterdir() if not path.is_symlink())
    count = cache(samples_of)  # many runs share a manifest
    found = [run_line(path, count) for path in candidates if _is_run(path)]
    if not found:
        raise RunError(f"{folder}: contains no runs. `kinema train` creates one.", path=folder)
    return sorted(found, key=lambda line: line.changed)


def samples_of(manifest: str, split: str) -> int:
    """How many samples a split of a manifest has."""
    return len(load_manifest(manifest).positions(split))


def run_line(path: Path, count: Callable[[str, str], int] = samples_of) -> RunLine:
    """Read one run; what cannot be read is said, and stops nothing.

    Args:
        path: the run's folder.
        count: from a manifest and a split to the number of its samples.
    """
    faults: list[str] = []
    steps, metrics = (_lines(path / name, faults) for name in ("steps.jsonl", "metrics.jsonl"))
    run, planned, model, data, early = Run(path), None, "?", "?", False
    try:
        recipe = Run.open(path).recipe
    except (RunError, OSError) as error:
        faults.append(" ".join(str(error).split()))
    else:
        model, data = _model(recipe, run.path, faults), _data(recipe)
        early = _stopped_early(recipe, metrics)
        try:
            samples = count(recipe.data.manifest, recipe.data.train)
            planned = Schedule.from_recipe(recipe, samples=samples, max_steps=None).steps
        except (ManifestError, OSError) as error:
            faults.append(f"the number of its steps is not known: {error}")
    if metrics and not run.predictions.is_file():
        faults.append(f"{run.predictions}: is missing, though there was an evaluation")
    step = max((int(line["step"]) for line in (*steps, *metrics)), default=0)
    state: State | None = None
    if not (path / "checkpoints" / "last.pt").is_file():
        state = "no checkpoint"
    elif planned is not None:
        state = "finished" if step >= planned or early else "unfinished"
    there = [path / name for name in PARTS if (path / name).exists()]
    return RunLine(
        name=path.resolve().name,
        model=model,
        data=data,
        step=step,
        steps=planned,
        top1=max((score for score in map(_score, metrics) if score is not None), default=None),
        loss=next((line["loss"] for line in reversed(steps) if isinstance(line.get("loss"), float)), None),
        state=state,
        changed=max(part.stat().st_mtime for part in there),
        faults=tuple(faults),
    )


def print_runs(lines: Sequence[RunLine]) -> None:
    """A table with a line a run, and below it a line for all that is wrong."""
    table = Table(box=None, pad_edge=False)
    for column in ("run", "model", "data", "step", "best top1 %", "last loss", "state", "when"):
        table.add_column(column, justify="right" if column in ("step", "best top1 %", "last loss") else "left")
    for line in lines:
        table.add_row(
            line.name,
            line.model,
            line.data,
            f"{line.step:,}/{'?' if line.steps is None else f'{line.steps:,}'}",
            "-" if line.top1 is None else f"{line.top1:.2f}",
            "-" if line.loss is None else f"{line.loss:.3f}",
            line.state or "?",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(line.changed)),
        )
    out = console()
    out.print(table)
    for line in lines:
        for fault in line.faults:
            out.print(f"{line.name}: {fault}", soft_wrap=True)


def side_of(names: str, folder: Path) -> list[Predictions]:
    """The stored predictions of one side of a comparison.

    Args:
        names: of runs in the folder, or paths of runs, predictions files and stored results (.json); several seeds are
            joined by commas.
        folder: where names are looked for first.
    """
    found = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        path = folder / name if (folder / name).exists() else Path(name)
        found.append(load_result(path) if path.suffix == ".json" else load_predictions(path))
    return found


def _is_run(path: Path) -> bool:
    return path.is_dir() and any((path / part).exists() for part in PARTS)


def _lines(path: Path, faults: list[str]) -> list[dict[str, Any]]:
    """The lines of a log that can be read; a training that was killed may have left half of one."""
    found = []
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: cannot be read ({error})")
        return []
    for number, said in enumerate(text.splitlines(), start=1):
        try:
            line = json.loads(said)
            int(line["step"])
        except (ValueError, KeyError, TypeError):
            faults.append(f"{path.name}, line {number}: is no line of a log, perhaps cut off while it was written")
        else:
            found.append(line)
    return found


def _model(recipe: Recipe, run: Path, faults: list[str]) -> str:
    description = find_description(run)
    try:
        if description is not None and json.loads(description.read_text(encoding="utf-8"))["model"]["kind"] == "own":
            return "own"
    except (OSError, ValueError, KeyError, TypeError) as error:
        faults.append(f"{description}: cannot be read ({error})")
    named = (name for name, entry in MODELS.items() if entry.config == recipe.model)
    return next(named, recipe.model.kind)


def _data(recipe: Recipe) -> str:
    return f"{Path(recipe.data.manifest).stem or '?'} {'+'.join(recipe.clip.modalities)}"


def _stopped_early(recipe: Recipe, metrics: Sequence[dict[str, Any]]) -> bool:
    """Whether the evaluations since the best one are as many as the recipe waits for a better one."""
    if recipe.run.patience is None or not metrics:
        return False
    try:
        scores = [score(line, recipe.checkpoint.metric) for line in metrics]
    except RecipeError:  # a log that another program wrote
        return False
    return len(scores) - 1 - scores.index(max(scores)) >= recipe.run.patience


def _score(line: dict[str, Any]) -> float | None:
    """Top-1 of an evaluation; that of all heads together where there are several."""
    top1 = line.get("top1", line.get(f"{JOINT}.top1"))
    return float(top1) if isinstance(top1, int | float) else None

"""List of runs: model, data, progress, best accuracy, state and faults of each."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from kinema.data.manifest import load_manifest
from kinema.errors import ManifestError, RecipeError, RunError, one_line
from kinema.evaluation.predictions import JOINT, Predictions, load_predictions, measure
from kinema.files import parse_json, read_json
from kinema.inference.trained_model import find_description, random_start
from kinema.models.registry import MODELS
from kinema.reports.evaluation import console, samples_line
from kinema.reports.results import load_result
from kinema.training.messages import evaluation_message
from kinema.training.recipe import Recipe
from kinema.training.runs import Run
from kinema.training.schedule import Schedule, score

State = Literal["finished", "unfinished", "no checkpoint"]
PARTS = ("recipe.json", "steps.jsonl", "metrics.jsonl", "checkpoints", "model", "artefact")
"""Files and folders, any of which marks a folder as a run, even an incomplete one."""


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """One run of the list.

    Attributes:
        name: Name of the folder.
        model: Name of the model, its family if the config differs, or `own` for a user's network.
        data: Manifest and modalities.
        start: Start weights: a name, or random ones; `?` if unknown.
        step: Number of steps done.
        steps: Number of planned steps; None if unknown.
        top1: Best top-1 of all evaluations [%]; joint top-1 with several task heads.
        loss: Loss of the last step.
        state: Progress; None if unknown.
        changed: Time of the last change [s since 1970].
        faults: Problems of the folder.
        caveat: Why the accuracy may be optimistic. Empty without a known reason.
    """

    name: str
    model: str
    data: str
    start: str
    step: int
    steps: int | None
    top1: float | None
    loss: float | None
    state: State | None
    changed: float
    faults: tuple[str, ...]
    caveat: str = ""


def runs_in(folder: Path) -> list[RunLine]:
    """Return the runs of a folder, oldest first; a run folder gives a list of one.

    Raises:
        RunError: The folder does not exist or contains no run.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder. Name the folder that contains the runs.", path=folder)
    candidates = [folder] if _is_run(folder) else sorted(path for path in folder.iterdir() if not path.is_symlink())
    count = cache(samples_of)  # many runs share a manifest
    lines = [_line_or_fault(path, count) for path in candidates if _is_run(path)]
    if not lines:
        raise RunError(f"{folder}: contains no runs. `kinema train` creates one.", path=folder)
    return sorted(lines, key=lambda line: line.changed)


def samples_of(manifest: str, split: str) -> int:
    """Return the number of samples in a split of a manifest."""
    return len(load_manifest(manifest).positions(split))


def run_line(path: Path, count: Callable[[str, str], int] = samples_of) -> RunLine:
    """Read one run; its faults include files that cannot be read. `count` is `samples_of` or a cached version."""
    faults: list[str] = []
    steps, metrics = (_lines(path / name, faults) for name in ("steps.jsonl", "metrics.jsonl"))
    run, planned, model, data, early = Run(path), None, "?", "?", False
    start = "?"
    try:
        recipe = Run.open(path).recipe
    except (RunError, OSError) as error:
        faults.append(" ".join(str(error).split()))
    else:
        model = _model(recipe, run.path, faults)
        data = f"{Path(recipe.data.manifest).stem or '?'} {'+'.join(recipe.clip.modalities)}"
        start = Path(recipe.init.weights).name or ("own" if model == "own" else random_start(recipe.model))
        early = _stopped_early(recipe, metrics)
        try:
            samples = count(recipe.data.manifest, recipe.data.train)
            planned = Schedule.from_recipe(recipe, samples=samples, max_steps=None).steps
        except (ManifestError, OSError) as error:
            faults.append(f"unknown number of steps: {error}")
    if metrics and not run.predictions.is_file():
        faults.append(f"{run.predictions}: missing, although the run has evaluations")
    step = max((int(line["step"]) for line in (*steps, *metrics)), default=0)
    state: State | None = None
    if not (path / "checkpoints" / "last.pt").is_file():
        state = "no checkpoint"
    elif planned is not None:
        state = "finished" if step >= planned or early else "unfinished"
    parts = [path / name for name in PARTS if (path / name).exists()]
    return RunLine(
        name=path.resolve().name,
        model=model,
        data=data,
        start=start,
        step=step,
        steps=planned,
        top1=max((score for score in map(_score, metrics) if score is not None), default=None),
        loss=next((line["loss"] for line in reversed(steps) if isinstance(line.get("loss"), float)), None),
        state=state,
        changed=max(part.stat().st_mtime for part in parts),
        faults=tuple(faults),
        caveat=_provenance(path).get("caveat", ""),
    )


def _line_or_fault(path: Path, count: Callable[[str, str], int]) -> RunLine:
    """Return the line of a run; one without any value if its files break the reader, since others have to be listed."""
    try:
        return run_line(path, count)
    except Exception as error:
        faults = (f"cannot be read ({type(error).__name__}: {one_line(error)})",)
        name, changed = path.resolve().name, path.stat().st_mtime
        unknown = {"step": 0, "steps": None, "top1": None, "loss": None, "state": None}
        return RunLine(name=name, model="?", data="?", start="?", changed=changed, faults=faults, **unknown)  # type: ignore[arg-type]  # None


def print_runs(lines: Sequence[RunLine]) -> None:
    """Print a table of the runs, and one line per fault."""
    table = Table(box=None, pad_edge=False)
    for column in ("run", "model", "data", "start", "step", "best top1 %", "last loss", "state", "last change"):
        table.add_column(column, justify="right" if column in ("step", "best top1 %", "last loss") else "left")
    for line in lines:
        table.add_row(
            line.name,
            line.model,
            line.data,
            line.start,
            f"{line.step:,}/{'?' if line.steps is None else f'{line.steps:,}'}",
            "-" if line.top1 is None else f"{line.top1:.2f}",
            "-" if line.loss is None else f"{line.loss:.3f}",
            line.state or "?",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(line.changed)),
        )
    out = console()
    out.print(table)
    for line in lines:
        if line.caveat:
            out.print(f"{line.name}: {line.caveat}", soft_wrap=True)
        for fault in line.faults:
            out.print(f"{line.name}: {fault}", soft_wrap=True)


def shipped_message(run: Run) -> str:
    """Return the step and the metrics of a run's model, and the split that they are of, in one line."""
    predictions = load_predictions(run.predictions)
    message = evaluation_message(_provenance(run.path).get("step", 0), dict(measure(predictions)), ())
    return f"the model is of {message}; {samples_line(predictions)}"


def _provenance(run: Path) -> dict[str, Any]:
    """Return the provenance of a run's model; empty if it has none or cannot be read."""
    description = find_description(run)
    try:
        return dict(read_json(description)["provenance"]) if description is not None else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def side_of(names: str, folder: Path) -> list[Predictions]:
    """Return the stored predictions of one side of a comparison.

    Names are joined by commas: runs in the folder, or paths of runs, predictions files or stored results (.json).
    """
    side = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        path = folder / name if (folder / name).exists() else Path(name)
        side.append(load_result(path) if path.suffix == ".json" else load_predictions(path))
    return side


def _is_run(path: Path) -> bool:
    return path.is_dir() and any((path / part).exists() for part in PARTS)


def _lines(path: Path, faults: list[str]) -> list[dict[str, Any]]:
    """Return the readable lines of a log; a killed training may leave an incomplete one."""
    lines = []
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: cannot be read ({error})")
        return []
    for number, content in enumerate(text.splitlines(), start=1):
        try:
            line = parse_json(content)
            line["step"] = int(line["step"])
        except (ValueError, KeyError, TypeError, OverflowError):
            faults.append(f"{path.name}, line {number}: not a valid record; it may be incomplete")
        else:
            lines.append(line)
    return lines


def _model(recipe: Recipe, run: Path, faults: list[str]) -> str:
    description = find_description(run)
    try:
        if description is not None and read_json(description)["model"]["kind"] == "own":
            return "own"
    except (OSError, ValueError, KeyError, TypeError) as error:
        faults.append(f"{description}: cannot be read ({error})")
    named = (name for name, entry in MODELS.items() if entry.config == recipe.model)
    return next(named, recipe.model.kind)


def _stopped_early(recipe: Recipe, metrics: Sequence[dict[str, Any]]) -> bool:
    """Return whether the training stopped early: the best evaluation is `patience` evaluations ago."""
    if recipe.run.patience is None or not metrics:
        return False
    try:
        scores = [score(line, recipe.checkpoint.metric) for line in metrics]
    except RecipeError:  # the metric of the recipe is not in the log
        return False
    return len(scores) - 1 - scores.index(max(scores)) >= recipe.run.patience


def _score(line: dict[str, Any]) -> float | None:
    """Return the top-1 of an evaluation, or its joint top-1 with several task heads."""
    top1 = line.get("top1", line.get(f"{JOINT}.top1"))
    return float(top1) if isinstance(top1, int | float) else None

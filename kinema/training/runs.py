"""The run folder: the record of a training, and what it resumes from.

recipe.json  environment.json  steps.jsonl  metrics.jsonl  skipped.jsonl  checkpoints/last.pt
predictions.safetensors  model/
"""

import json
import os
import platform
import shlex
import subprocess
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from kinema import __version__
from kinema.errors import RecipeError, RunError
from kinema.files import atomic_write, sync
from kinema.training.distributed import rank
from kinema.training.recipe import Recipe
from kinema.training.recipe_json import recipe_from_json, recipe_to_json

LOGS = ("steps.jsonl", "metrics.jsonl", "skipped.jsonl")
"""Files with a line for what happened at a step; a resumed run cuts them back to its checkpoint."""

STATE = frozenset({"step", "best", "stale", "manifest_digest", "model", "optimizer", "averaged"})
"""What a checkpoint holds."""

NEWER = {"stale": 0, "averaged": None, "init_digest": ""}
"""What checkpoints of kinema's first trainings do not hold yet."""

RUNS = Path("runs")
"""Where runs go that name no folder of their own."""


class Run:
    """One training's folder. Make one with `Run.create` or `Run.open`.

    Args:
        path: the folder; of a link, the folder that it points to now.
        planned: the recipe of a run whose folder is not there yet; `begin` makes it.
    """

    def __init__(self, path: Path, *, planned: Recipe | None = None) -> None:
        # `runs/latest` may point elsewhere before this run ends, and must never point at itself.
        self.path = path.resolve() if path.is_symlink() else path
        self._planned = planned

    @property
    def model(self) -> Path:
        """Folder of the trained model; `artefact/` in runs of older versions."""
        old = self.path / "artefact"
        return old if old.is_dir() else self.path / "model"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.safetensors"

    @property
    def resumes(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self._checkpoint.is_file()

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @classmethod
    def create(cls, recipe: Recipe, *, name: str, existing: Literal["refuse", "resume"] = "refuse") -> "Run":
        """Plan the folder that the recipe names, or `runs/<name>-<time>`; nothing is written before `begin`.

        Args:
            recipe: every number of the run.
            name: of the recipe, for a folder that it does not name.
            existing: what to do where the folder holds a run of the same recipe: `refuse`, or `resume` it, as
                processes do that are started again after one of them was lost.

        Raises:
            RunError: the folder holds a run already, or one of another recipe.
        """
        path = recipe.run.out or RUNS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        if recipe.run.out is None or rank() > 0 or not (path / "recipe.json").exists():
            return cls(path, planned=recipe)  # of several processes, the first one checks
        if existing == "refuse":
            raise RunError(
                f"{path}: holds a run already; go on with --resume {shlex.quote(str(path))}, or name another --run.out"
            )
        run = cls(path)
        differing = _differing(json.loads(recipe_to_json(_anchored(recipe))), json.loads(recipe_to_json(run.recipe)))
        if differing:
            raise RunError(f"{path}: holds a run of another recipe ({differing[0]} differs); name another --run.out")
        return run

    def begin(self) -> None:
        """Make the folder of a planned run; one that is there is left as it is.

        Raises:
            RunError: it cannot be written.
        """
        if self._planned is None:
            return
        recipe, self._planned = self._planned, None
        with _writing(self.path):
            if recipe.run.out is None:
                self.path = _claimed(self.path)
            self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.path / "environment.json", json.dumps(environment(), indent=2) + "\n")
            _replace(self.path / "recipe.json", recipe_to_json(_anchored(recipe)))  # last: it makes the folder a run

    def point_latest(self) -> None:
        """Let `runs/latest` point here, for a run that lies in `runs`; to be called once it holds a model."""
        if self.path.parent.resolve() != RUNS.resolve():
            return
        link, new = RUNS / "latest", RUNS / f".latest-{os.getpid()}"
        new.unlink(missing_ok=True)
        new.symlink_to(self.path.name)
        new.replace(link)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """A run that was made before.

        Raises:
            RunError: there is none.
        """
        if not (Path(path) / "recipe.json").is_file():
            raise RunError(f"{path}: is no run (recipe.json is missing)")
        return cls(Path(path))

    @property
    def recipe(self) -> Recipe:
        try:
            return recipe_from_json((self.path / "recipe.json").read_text(encoding="utf-8"))
        except RecipeError as error:
            raise RunError(f"{self.path / 'recipe.json'}: {error}") from error

    def log_step(self, line: Mapping[str, float]) -> None:
        _append(self.path / "steps.jsonl", line)

    def log_metrics(self, line: Mapping[str, float]) -> None:
        _append(self.path / "metrics.jsonl", line)

    def log_skipped(self, line: Mapping[str, Any]) -> None:
        _append(self.path / "skipped.jsonl", line)

    def skipped(self) -> list[dict[str, Any]]:
        """The samples that training could not read: step, position in the manifest, and why."""
        return _lines(self.path / "skipped.jsonl")

    def steps(self) -> list[dict[str, float]]:
        return _lines(self.path / "steps.jsonl")

    def metrics(self) -> list[dict[str, float]]:
        return _lines(self.path / "metrics.jsonl")

    def save_checkpoint(self, state: Mapping[str, Any], *, also: Sequence[str] = ()) -> None:
        """Replace the checkpoint at once: whenever the machine stops, the old one or the new one is whole.

        Args:
            state: tensors and numbers; the logs up to its step are on the disk before it is.
            also: further names that it is kept under: `best`, `step-000500`.

        Raises:
            RunError: it cannot be written; the one before is intact.
        """
        with _writing(self._checkpoint):
            for log in LOGS:
                sync(self.path / log)
            with atomic_write(
                self._checkpoint, also=[self._checkpoint.with_name(f"{name}.pt") for name in also]
            ) as file:
                torch.save(dict(state), file)

    def load_checkpoint(self, *, logs: Literal["cut back", "leave"] = "cut back") -> dict[str, Any] | None:
        """The last checkpoint, or None where none was written yet; its first process cuts the logs back to it.

        Raises:
            RunError: it is damaged or something else; or the logs cannot be written.
        """
        state = self._checked_state() if self._checkpoint.is_file() else None
        for log in LOGS if logs == "cut back" else ():
            with _writing(self.path / log):
                _cut_back(self.path / log, 0 if state is None else int(state["step"]))
        return state

    def _checked_state(self) -> dict[str, Any]:
        try:
            with zipfile.ZipFile(self._checkpoint) as archive:
                damaged = archive.testzip()  # torch compares no checksums
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} differs")
            state: dict[str, Any] = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        except PermissionError:  # says itself what is wrong, and nothing is wrong with the file
            raise
        except Exception as error:  # where bytes are wrong, torch fails in whichever way they lead it to
            raise self._refusal("cannot be read as a checkpoint of tensors and numbers") from error
        if isinstance(state, dict):
            state = NEWER | state
        if not isinstance(state, dict) or not set(state) >= STATE:
            raise self._refusal("is no checkpoint of a training")
        return state

    def _refusal(self, reason: str) -> RunError:
        """Says what there is to go on from: the newest other checkpoint, which may be this one under a second name."""
        others = [p for p in self._checkpoint.parent.glob("*.pt") if not p.samefile(self._checkpoint)]
        newest = max(others, key=lambda path: path.stat().st_mtime, default=None)
        advice = "" if newest is None else f"copy {newest.name} over it to go on from there, or "
        return RunError(f"{self._checkpoint}: {reason}; {advice}remove it to begin anew")


def environment() -> dict[str, str]:
    """What ran, and on what: for the record, not for the machine."""
    return {
        "kinema": __version__,
        "commit": commit(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def commit() -> str:
    """The commit of the source tree, with `+` where files differ from it; `unknown` outside a checkout of kinema."""
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        answer = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
        return answer.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root.resolve():
            return "unknown"  # installed somewhere inside another project's checkout
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _claimed(path: Path) -> Path:
    """A folder that this call has made: the path, or one with a number behind it where runs start in one second."""
    candidate, number = path, 2
    while True:
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
        else:
            return candidate


def _anchored(recipe: Recipe) -> Recipe:
    """The recipe with a manifest and weights that are found from any folder; built-in names and URLs stay."""
    manifest, init = Path(recipe.data.manifest), Path(recipe.init.weights)
    if manifest.is_file():
        recipe = replace(recipe, data=replace(recipe.data, manifest=str(manifest.resolve())))
    if recipe.init.weights and init.exists():
        recipe = replace(recipe, init=replace(recipe.init, weights=str(init.resolve())))
    return recipe


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Fields in which two recipes differ, where they lie apart from."""
    found = []
    for field in {**one, **other}:
        name = f"{prefix}{field}"
        if isinstance(one.get(field), dict) and isinstance(other.get(field), dict):
            found += _differing(one[field], other[field], f"{name}.")
        elif one.get(field) != other.get(field) and name != "run.out":
            found.append(name)
    return found


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """A disk that is full or a folder that cannot be written to stops a training; what was written stays as it is."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        said: BaseException = error
        while not isinstance(said, OSError) and said.__context__ is not None:
            said = said.__context__  # torch says of a full disk that its writer is in the wrong place
        reason = " ".join(str(said).split())[:200]
        raise RunError(f"{path}: cannot be written ({reason}); what was saved before is intact") from error


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with _writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _replace(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _cut_back(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint, and a line that was cut off while being written."""
    if not path.is_file():
        return
    text, kept = path.read_text(encoding="utf-8", errors="replace"), []
    for line in text.splitlines():
        try:
            known = json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            continue
        kept += [line + "\n"] if known else []
    if not kept:
        path.unlink()
    elif "".join(kept) != text:
        _replace(path, "".join(kept))

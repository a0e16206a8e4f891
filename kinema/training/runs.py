"""Run folder: recipe, logs, checkpoints and model of a training run.

recipe.json  environment.json  steps.jsonl  metrics.jsonl  skipped.jsonl  checkpoints/last.pt
predictions.safetensors  model/  run.lock
"""

import fcntl
import json
import os
import platform
import shlex
import subprocess
import time
import weakref
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from kinema import __version__
from kinema.errors import RecipeError, RunError, one_line
from kinema.files import atomic_write, parse_json, read_bytes, sync, write_texts
from kinema.training.distributed import rank
from kinema.training.recipe import Recipe
from kinema.training.recipe_json import recipe_from_json, recipe_to_json
from kinema.training.weights import with_colors, with_initial_colors

WITHOUT_EFFECT = frozenset({"run.out", "data.read_options.isolation"})
"""Fields that change no result, so that a run may be resumed with others."""

LOGS = ("steps.jsonl", "metrics.jsonl", "skipped.jsonl")
"""Logs, one line per event. A resumed run truncates them to the step of its checkpoint."""

STATE = frozenset({"step", "best", "stale", "manifest_digest", "model", "optimizer", "averaged"})
"""Required keys of a checkpoint."""

DEFAULTS = {"stale": 0, "averaged": None, "init_digest": "", "start_weights": ""}
"""Keys missing in checkpoints of older versions, and their values."""

RUNS = Path("runs")
"""Parent of run folders without an explicit path."""


class Run:
    """Folder of a training run, made by `Run.create` or `Run.open`. A symbolic link is resolved."""

    def __init__(self, path: Path, *, planned: Recipe | None = None) -> None:
        # `runs/latest` may point elsewhere before this run ends, and must never point at itself.
        self.path = path.resolve() if path.is_symlink() else path
        self._planned = planned
        self._unlock: weakref.finalize[..., Any] | None = None

    @property
    def model(self) -> Path:
        """Folder of the trained model; `artefact/` in runs of older versions."""
        old = self.path / "artefact"
        return old if old.is_dir() else self.path / "model"

    @property
    def predictions(self) -> Path:
        """File of the shipped model's predictions on the evaluation split."""
        return self.path / "predictions.safetensors"

    @property
    def has_checkpoint(self) -> bool:
        """True if the run can be resumed."""
        return self._checkpoint.is_file()

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @classmethod
    def create(cls, recipe: Recipe, *, name: str, existing: Literal["refuse", "resume"] = "refuse") -> "Run":
        """Plan the run folder `run.out` of the recipe, or `runs/<name>-<time>`. Nothing is written before `begin`.

        If the folder holds a run of the same recipe, `existing` refuses or resumes it. Restarted
        processes resume it.

        Raises:
            RunError: The folder already holds a run, or one of another recipe.
            StartError: The initial weights do not exist or cannot be read.
        """
        path = recipe.run.out or RUNS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        if recipe.run.out is None or rank() > 0 or not (path / "recipe.json").exists():
            return cls(path, planned=with_initial_colors(recipe))  # only the first process checks an existing folder
        if existing == "refuse":
            raise RunError(
                f"{path}: already holds a run. Resume it with --resume {shlex.quote(str(path))}, or choose another "
                "--run.out.",
                path=path,
                field="run.out",
            )
        run = cls(path)
        stored = run.recipe.clip  # runs of older versions store the colors of every recipe
        recipe = with_colors(recipe, stored.mean, stored.std)
        field = _first_difference(
            json.loads(recipe_to_json(_with_absolute_paths(recipe))), json.loads(recipe_to_json(run.recipe))
        )
        if field is not None:
            raise RunError(
                f"{path}: holds a run of another recipe; {field} differs. Choose another --run.out.",
                path=path,
                field=field,
            )
        return run

    def begin(self) -> None:
        """Make the folder of a planned run, and lock it until `close`. The files of an existing run do not change.

        Raises:
            RunError: The folder cannot be written, or another process trains in it.
            RecipeError: A path of the recipe is not UTF-8.
        """
        if self._planned is None:
            self._acquire()
            return
        recipe, self._planned = self._planned, None
        text = recipe_to_json(_with_absolute_paths(recipe))
        with _writing(self.path, "Choose another --run.out."):
            if recipe.run.out is None:
                self.path = _make_unique(self.path)
            self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
            write_texts({self.path / "environment.json": json.dumps(environment(), indent=2) + "\n"})
            # Last, because it marks a run.
            write_texts({self.path / "recipe.json": text})

    def close(self) -> None:
        """Let other processes train in the folder."""
        if self._unlock is not None:
            self._unlock()

    def _acquire(self) -> None:
        path = self.path / "run.lock"
        with _writing(path):
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # Of this process alone: workers that outlive a killed one for some seconds must not hold it.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise RunError(
                f"{self.path}: another process trains in this folder. Wait for it, or choose another --run.out.",
                path=self.path,
            ) from None
        except OSError:  # a file system without locks
            pass
        self._unlock = weakref.finalize(self, os.close, lock)

    def point_latest(self) -> None:
        """Point `runs/latest` to this run if it is in `runs`. Call this once the run holds a model."""
        if self.path.parent.resolve() != RUNS.resolve():
            return
        link, new = RUNS / "latest", RUNS / f".latest-{os.getpid()}"
        new.unlink(missing_ok=True)
        new.symlink_to(self.path.name)
        new.replace(link)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open an existing run.

        Raises:
            RunError: The folder is not a run.
        """
        if not (Path(path) / "recipe.json").is_file():
            raise RunError(f"{path}: not a run folder; recipe.json is missing", path=path)
        return cls(Path(path))

    @property
    def recipe(self) -> Recipe:
        """Recipe of the run.

        Raises:
            RunError: The stored recipe is invalid.
        """
        path = self.path / "recipe.json"
        try:
            return recipe_from_json(read_bytes(path).decode())
        except RecipeError as error:
            raise RunError(f"{path}: {error}", path=path, field=error.field) from error

    def log(self, log: Literal["steps", "metrics", "skipped"], line: Mapping[str, Any]) -> None:
        """Append a line to a log.

        Raises:
            RunError: The log cannot be written.
        """
        path = self.path / f"{log}.jsonl"
        with _writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def steps(self) -> list[dict[str, float]]:
        """Return the logged steps: `step`, `loss`, `lr`, `clips_per_s`, `data_wait`."""
        return _read_lines(self.path / "steps.jsonl")

    def metrics(self) -> list[dict[str, float]]:
        """Return the logged evaluations: `step` and the metrics."""
        return _read_lines(self.path / "metrics.jsonl")

    def skipped(self) -> list[dict[str, Any]]:
        """Return the draws that could not be read: `step`, `index` (position in the manifest) and `reason`."""
        return _read_lines(self.path / "skipped.jsonl")

    def save_checkpoint(self, state: Mapping[str, Any], *, also: Sequence[str] = ()) -> None:
        """Replace the checkpoint atomically, also under further names (`best`, `step-000500`).

        After a crash, the old or the new checkpoint is complete. The logs are synced to disk first.

        Raises:
            RunError: The checkpoint cannot be written. The previous one is intact.
        """
        with _writing(self._checkpoint):
            for log in LOGS:
                sync(self.path / log)
            others = [self._checkpoint.with_name(f"{name}.pt") for name in also]
            with atomic_write(self._checkpoint, also=others) as file:
                torch.save(dict(state), file)

    def truncate_logs(self, step: int) -> None:
        """Drop the lines of all logs after a step.

        Raises:
            RunError: The logs cannot be written.
        """
        for log in LOGS:
            with _writing(self.path / log):
                _truncate(self.path / log, step)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Load the last checkpoint, or return None without one.

        Raises:
            RunError: The file is damaged or not a checkpoint.
        """
        if not self.has_checkpoint:
            return None
        try:
            with zipfile.ZipFile(self._checkpoint) as archive:
                if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                    raise zipfile.BadZipFile("torch stores tensors uncompressed")
                damaged = archive.testzip()  # torch does not compare checksums
            if damaged is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            state: dict[str, Any] = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        except PermissionError:  # the file is not damaged
            raise
        except Exception as error:  # torch raises many types for damaged files
            raise self.unusable("cannot be read as a checkpoint of tensors and numbers") from error
        if isinstance(state, dict):
            state = DEFAULTS | state
        if not isinstance(state, dict) or not set(state) >= STATE:
            raise self.unusable("not a checkpoint of a training run")
        return state

    def unusable(self, problem: str) -> RunError:
        """Return an error about the checkpoint that names the newest other one; links to the same file do not count."""
        others = [p for p in self._checkpoint.parent.glob("*.pt") if not p.samefile(self._checkpoint)]
        newest = max(others, key=lambda path: path.stat().st_mtime, default=None)
        action = "Remove it" if newest is None else f"Copy {newest.name} over it to resume from there, or remove it"
        return RunError(f"{self._checkpoint}: {problem}. {action} to start again.", path=self._checkpoint)


def environment() -> dict[str, str]:
    """Return versions and hardware, for `environment.json`."""
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
    """Return the commit of the source tree, with `+` if files differ from it, or `unknown` outside a checkout."""
    root = Path(__file__).parents[2]

    def git(*args: str) -> str:
        result = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=True)
        return result.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root.resolve():
            return "unknown"  # installed inside the checkout of another project
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _make_unique(path: Path) -> Path:
    """Make and return the folder `path`, with a number appended if it exists: runs may start in the same second."""
    candidate, number = path, 2
    while True:
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
        else:
            return candidate


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return the recipe with absolute paths of manifest and weights. Built-in names and URLs stay."""
    manifest, weights = Path(recipe.data.manifest), Path(recipe.init.weights)
    if manifest.is_file():
        recipe = replace(recipe, data=replace(recipe.data, manifest=str(manifest.resolve())))
    if recipe.init.weights and weights.exists():
        recipe = replace(recipe, init=replace(recipe.init, weights=str(weights.resolve())))
    return recipe


def _first_difference(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> str | None:
    """Return the dotted name of the first field in which two recipes differ, apart from `WITHOUT_EFFECT`."""
    for field in {**first, **second}:
        name, a, b = f"{prefix}{field}", first.get(field), second.get(field)
        if isinstance(a, dict) and isinstance(b, dict):
            if (inner := _first_difference(a, b, f"{name}.")) is not None:
                return inner
        elif a != b and name not in WITHOUT_EFFECT:
            return name
    return None


@contextmanager
def _writing(path: Path, fix: str = "Files saved before are intact.") -> Iterator[None]:
    """Turn errors of writing, such as a full disk, into a RunError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException = error
        while not isinstance(cause, OSError) and cause.__context__ is not None:
            cause = cause.__context__  # torch's own error about a full disk is misleading
        reason = one_line(cause)
        raise RunError(f"{path}: cannot be written ({reason}). {fix}", path=path) from error


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except ValueError as error:
        raise RunError(f"{path}: not JSON of one object per line ({one_line(error)})", path=path) from error


def _truncate(path: Path, step: int) -> None:
    """Drop lines logged after a step, and a line that was cut off while being written."""
    if not path.is_file():
        return
    text, lines = path.read_text(encoding="utf-8", errors="replace"), []
    for line in text.splitlines():
        try:
            is_before = parse_json(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            continue
        lines += [line + "\n"] if is_before else []
    if not lines:
        path.unlink()
    elif "".join(lines) != text:
        write_texts({path: "".join(lines)})

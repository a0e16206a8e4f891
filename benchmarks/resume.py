"""Kill and resume a training many times, and compare all losses and weights with an undisturbed training.

    python benchmarks/resume.py --out results/resume.json

`kill -9` hits the trainer and its worker while a checkpoint or a model is written (the network is large enough for
that), during an evaluation, at a random moment, and before the first step of a resumed training. After each kill the
same command resumes, as a scheduler would run it, and must make progress.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
import tyro
from measuring import machine

from kinema.data.manifest import load_manifest
from kinema.inference.trained_model import load_model
from kinema.training.runs import Run, commit

MANIFEST, EVALUATE_EVERY = "moves_cross_subject", 5
RECIPE = f"""
from kinema.models.ctn import CTNConfig
from kinema.training.recipe import Augmentation, Checkpoint, Clip, Compute, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=8, size=32, short_side=32),
    data=Data(
        manifest="{MANIFEST}",
        evaluate="test",
        batch_size=8,
        workers=1,
        augmentation=Augmentation(short_side=(32, 40), flip=0.5, color_jitter=0.2, mixup_alpha=0.4),
    ),
    model=CTNConfig(stem_kernel=3, stem_channels=4, width=384, depth=2, attention_heads=3, dropout=0.1),
    optim=Optim(optimizer="adamw", lr=1e-3, epochs=3, warmup_epochs=1, max_grad_norm=1.0, ema_decay=0.9),
    checkpoint=Checkpoint(every=1, keep="last"),
    compute=Compute(device="cpu", cpu_threads=1),
    run=RunSettings(evaluate_every_epochs=0.15),
)
"""

Moment = Literal["checkpoint", "model", "evaluation", "any", "start"]
MOMENTS: tuple[Moment, ...] = ("checkpoint", "evaluation", "checkpoint", "any", "model", "checkpoint", "start")
"""Moments of the kills, in cyclic order; `start` is followed by a moment that allows progress."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        out: JSON file to write.
        kills: Number of kills.
        seed: Seed of the moments.
    """

    out: Path | None = None
    kills: int = 20
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Kill:
    """Killed part of the training, and the files that it left.

    Args:
        aimed: Intended moment of the kill.
        seconds: Time from the start of this part [s].
        began: Step at which this part began.
        steps: Number of steps in the log.
        checkpoint: Step of the checkpoint.
        evaluating: Whether an evaluation was in progress.
        unfinished: Files that were being written.
        written: Bytes of those files.
    """

    aimed: Moment
    seconds: float
    began: int
    steps: int
    checkpoint: int
    evaluating: bool
    unfinished: str
    written: int


def main(arguments: Arguments) -> dict[str, Any]:
    rng, code = random.Random(arguments.seed), commit()
    with TemporaryDirectory() as folder:
        recipe = Path(folder) / "killed.py"
        recipe.write_text(RECIPE)
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        finish(recipe, whole)
        kills: list[Kill] = []
        while len(kills) < arguments.kills:
            kills.append(kill_once(recipe, killed, MOMENTS[len(kills) % len(MOMENTS)], rng))
            show(kills[-1], len(kills))
        finish(recipe, killed)
        one, other = Run.open(whole), Run.open(killed)
        report: dict[str, Any] = {
            "title": "training killed and resumed repeatedly, against an undisturbed one; moves is synthetic",
            "commit": code,
            "machine": machine(["kinema", "torch", "numpy"]),
            "arguments": {"kills": arguments.kills, "seed": arguments.seed},
            "data": {"manifest": MANIFEST, "digest": load_manifest(MANIFEST).digest, "train": "train", "test": "test"},
            "recipe": json.loads((whole / "recipe.json").read_text().replace(str(whole), "")),
            "checkpoint_bytes": (whole / "checkpoints" / "last.pt").stat().st_size,
            "steps": lines(whole / "steps.jsonl"),
            "kills": [asdict(kill) for kill in kills],
            "in_a_checkpoint": sum("checkpoints/" in kill.unfinished for kill in kills),
            "in_a_model": sum("model/" in kill.unfinished for kill in kills),
            "in_an_evaluation": sum(kill.evaluating for kill in kills),
            "each_came_further": all(kill.checkpoint > kill.began for kill in kills if kill.aimed != "start"),
            "same_losses": values(one, "loss") == values(other, "loss") and values(one, "lr") == values(other, "lr"),
            "same_evaluations": one.metrics() == other.metrics(),
            "same_predictions": one.predictions.read_bytes() == other.predictions.read_bytes(),
            "same_weights": load_model(whole).digest == load_model(killed).digest,
            "same_checkpoint": same(state(whole), state(killed)),
            "same_files": files(whole) == files(killed),
        }
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print({name: value for name, value in report.items() if name.startswith(("same", "each", "in_"))})
    return report


def start(recipe: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "kinema.cli", "train", str(recipe), "--run.out", str(out), "--existing", "resume"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def finish(recipe: Path, out: Path) -> None:
    if start(recipe, out).wait():
        raise SystemExit(f"{out}: training failed")


def kill_once(recipe: Path, out: Path, moment: Moment, rng: random.Random) -> Kill:
    """Start or resume, and kill at a moment; unless it is `start`, wait for another checkpoint first."""
    began, seen, since = step_of(out), stamp(out), time.time()
    process, clock = start(recipe, out), time.perf_counter()

    def wait(reached: Callable[[], object]) -> float:
        while not reached():
            if process.poll() is not None:
                raise SystemExit(f"{out}: training ended before the kill with code {process.returncode}")
            time.sleep(0.0005)
        return time.perf_counter()

    if moment == "start":
        time.sleep(rng.uniform(0, 6))
    else:
        begins = wait(lambda: "checkpoints/last.unfinished" in unfinished(out, since))
        took = wait(lambda: stamp(out) != seen) - begins
    match moment:
        case "checkpoint":
            wait(lambda: "checkpoints/last.unfinished" in unfinished(out, since))
            time.sleep(rng.uniform(0, took))
        case "model":
            wait(lambda: any(name.startswith("model/") for name in unfinished(out, since)))
            time.sleep(rng.uniform(0, took / 10))  # it is a quarter of a checkpoint, and quicker to write
        case "evaluation":
            wait(lambda: evaluating(out))
            time.sleep(rng.uniform(0, 0.3))
        case "any":
            time.sleep(rng.uniform(0, 4))
    os.killpg(process.pid, signal.SIGKILL)
    seconds = time.perf_counter() - clock
    process.wait()
    half = unfinished(out, since)
    return Kill(
        aimed=moment,
        seconds=round(seconds, 2),
        began=began,
        steps=lines(out / "steps.jsonl"),
        checkpoint=step_of(out),
        evaluating=evaluating(out),
        unfinished=", ".join(half),
        written=sum(half.values()),
    )


def unfinished(out: Path, since: float) -> dict[str, int]:
    """Return files that are being written, with their sizes, without leftovers of earlier kills."""
    found = {}
    for folder in (out, out / "checkpoints", out / "model"):
        for path in folder.glob("*.unfinished"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # finished by now
                continue
            if stat.st_mtime >= since:
                found[str(path.relative_to(out))] = stat.st_size
    return found


def show(kill: Kill, number: int) -> None:
    half = f"{kill.unfinished} ({kill.written:,} bytes)" if kill.unfinished else ""
    print(
        f"{number:>2} {kill.aimed:>10} after {kill.seconds:>5.2f} s: from step {kill.began:>3} to checkpoint "
        f"{kill.checkpoint:>3}, {kill.steps:>3} logged{', evaluating' if kill.evaluating else ''}  {half}",
        flush=True,
    )


def lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def evaluating(out: Path) -> bool:
    """Return whether the last evaluation that is due has not been logged."""
    return lines(out / "steps.jsonl") // EVALUATE_EVERY > lines(out / "metrics.jsonl")


def stamp(out: Path) -> tuple[int, int] | None:
    """Return a value that changes when a checkpoint is written."""
    file = out / "checkpoints" / "last.pt"
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def state(out: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(out / "checkpoints" / "last.pt", weights_only=True, mmap=True)
    return checkpoint


def step_of(out: Path) -> int:
    return 0 if stamp(out) is None else int(state(out)["step"])


def values(run: Run, name: str) -> list[tuple[float, float]]:
    return [(line["step"], line[name]) for line in run.steps()]


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return one == other


def files(out: Path) -> set[str]:
    """Return the names in the folder; none is unfinished after a complete run."""
    return {str(path.relative_to(out)) for path in out.rglob("*")}


if __name__ == "__main__":
    report = main(tyro.cli(Arguments))
    sys.exit(not all(value for name, value in report.items() if re.match("same_|each_", name)))

"""A training that is killed again and again, against one that is left alone: every loss and every weight the same.

    python benchmarks/resume.py --out results/resume.json

`kill -9` at random moments, most of them while a checkpoint is written, since one is written after every step.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from kinema.inference.artefact import load_artefact
from kinema.training.runs import Run

RECIPE = """
from kinema.models.ctn import CTNConfig
from kinema.training.recipe import Augmentation, Clip, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=8, size=32, short_side=32),
    data=Data(
        manifest="moves_cross_subject",
        evaluate="test",
        batch_size=8,
        workers=1,
        augmentation=Augmentation(short_side=(32, 40), flip=0.5, colour_jitter=0.2, mixup_alpha=0.4),
    ),
    model=CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3, dropout=0.1),
    optim=Optim(optimizer="adamw", lr=1e-3, epochs=3, warmup_epochs=1, clip_norm=1.0, ema_decay=0.9),
    run=RunSettings(device="cpu", evaluate_every_epochs=0.5, checkpoint_every_steps=1, cpu_threads=1),
)
"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is asked on the command line.

    Args:
        out: JSON file to write.
        kills: how often the training is killed.
        seed: of the moments.
    """

    out: Path | None = None
    kills: int = 20
    seed: int = 0


def main(arguments: Arguments) -> dict[str, object]:
    rng = random.Random(arguments.seed)
    with TemporaryDirectory() as folder:
        recipe = Path(folder) / "killed.py"
        recipe.write_text(RECIPE)
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        start(recipe, whole).wait()
        moments = []
        while len(moments) < arguments.kills and not (finished := steps(killed) == steps(whole)):
            moments.append(kill_once(recipe, killed, rng))
        start(recipe, killed).wait()
        one, other = Run.open(whole), Run.open(killed)
        same_losses = [(s["step"], s["loss"]) for s in one.steps()] == [(s["step"], s["loss"]) for s in other.steps()]
        same_weights = load_artefact(whole).digest == load_artefact(killed).digest
        same_numbers = one.metrics() == other.metrics()
        report: dict[str, object] = {
            "kills": moments,
            "finished_before_all_kills": finished if arguments.kills else False,
            "steps": steps(whole),
            "same_losses": same_losses,
            "same_weights": same_weights,
            "same_evaluations": same_numbers,
        }
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{'kill':>4} {'after, s':>9} {'steps logged':>13} {'checkpoint':>11} {'being written':>14}")
    for number, moment in enumerate(moments, 1):
        print(
            f"{number:>4} {moment['seconds']:>9.2f} {moment['steps']:>13} {moment['checkpoint']:>11} "
            f"{moment['unfinished'] or '-':>14}"
        )
    print(f"losses {same_losses}, weights {same_weights}, evaluations {same_numbers}, of {report['steps']} steps")
    return report


def start(recipe: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "kinema.cli", "train", str(recipe), "--run.out", str(out), "--existing", "resume"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def kill_once(recipe: Path, out: Path, rng: random.Random) -> dict[str, object]:
    """Start or go on, and kill at a random moment after the first new step; what then lies in the folder."""
    before, process = steps(out), start(recipe, out)
    began = time.perf_counter()
    while steps(out) <= before and process.poll() is None:
        time.sleep(0.005)
    time.sleep(rng.random() * 1.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    checkpoints = out / "checkpoints"
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "steps": steps(out),
        "checkpoint": (checkpoints / "last.pt").exists(),
        "unfinished": ", ".join(sorted(p.name for p in out.rglob("*.unfinished"))),
    }


def steps(out: Path) -> int:
    log = out / "steps.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


if __name__ == "__main__":
    answer = main(tyro.cli(Arguments))
    sys.exit(0 if answer["same_losses"] and answer["same_weights"] and answer["same_evaluations"] else 1)

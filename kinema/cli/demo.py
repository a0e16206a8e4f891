"""Command `demo`: train, evaluate and predict on the built-in dataset."""

import logging
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from kinema.cli.command import Command
from kinema.terminal import echo

RECIPE = "moves_ctn_tiny"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Train, evaluate, predict and report on the built-in dataset, in minutes.

    Attributes:
        out: Folder for summary.json, report.html and the run.
        seed: Random seed.
    """

    EXAMPLE: ClassVar = "--out demo"

    out: Path = Path("demo")
    seed: int = 0

    def run(self) -> int:
        """Train `ctn_tiny` on moves (RGB, cross-subject), evaluate it, predict one clip, and write a report.

        A previous demo in the folder is replaced.
        """
        from kinema.evaluation.evaluate import evaluate
        from kinema.inference.recognizer import Recognizer
        from kinema.reports.demo_page import print_example, print_summary, write_demo
        from kinema.training.loop import train
        from kinema.training.recipe import load_recipe
        from kinema.training.runs import Run

        began = time.perf_counter()
        folder = self.out / "run"
        if (folder / "recipe.json").is_file():
            shutil.rmtree(folder)
        recipe = load_recipe(RECIPE)
        recipe = replace(recipe, run=replace(recipe.run, out=folder, seed=self.seed))
        manifest = recipe.open_manifest()
        num_train, held_out = (len(manifest.positions(recipe.data.train)), manifest.positions(recipe.data.evaluate))
        logger.info(
            "Training %s on %d clips; testing on %d clips of unseen subjects.", RECIPE, num_train, len(held_out)
        )
        run = train(recipe, Run.create(recipe, name=RECIPE), progress="bar")
        evaluation = evaluate(
            run.path,
            manifest,
            split=recipe.data.evaluate,
            batch_size=recipe.data.batch_size,
            out=self.out / "predictions.safetensors",
        )
        recognizer = Recognizer.load(run.path)
        print_example(manifest, held_out[0], recognizer)
        seconds = time.perf_counter() - began
        print_summary(write_demo(self.out, run, manifest, evaluation, recognizer, num_train=num_train, seconds=seconds))
        echo(f"Report: {self.out / 'report.html'}; model: {run.model}")
        return 0

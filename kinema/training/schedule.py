"""When what happens in a training, in steps; and by which number its evaluations are ranked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kinema.data.manifest import Manifest
from kinema.errors import RecipeError
from kinema.evaluation.predictions import Predictions, measure
from kinema.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Steps of a training; a pass may end within a batch, so that nothing here depends on what divides what.

    Args:
        steps: of the whole training.
        last: where this call ends, at most `steps`.
        warmup_steps: with a growing rate.
        evaluate_every: steps between evaluations; the last step always evaluates.
        checkpoint_every: steps between further checkpoints; None for those of the evaluations alone.
        keep_every: steps between checkpoints that are kept for good; None for none.
        patience: evaluations without a better one that end it; None for no end.
    """

    steps: int
    last: int
    warmup_steps: int
    evaluate_every: int
    checkpoint_every: int | None
    keep_every: int | None
    patience: int | None

    @classmethod
    def of(cls, recipe: Recipe, *, samples: int, max_steps: int | None) -> "Schedule":
        """What a recipe says of so many samples."""

        def of_epochs(epochs: float) -> float:
            # In this order: 27 passes of 7 samples are 63 batches of 3, not 63.000000001 and so 64.
            return epochs * samples / recipe.data.batch_size

        steps = max(1, math.ceil(of_epochs(recipe.optim.epochs)))
        keep = recipe.run.keep_every_epochs
        return cls(
            steps=steps,
            last=steps if max_steps is None else min(steps, max_steps),
            warmup_steps=round(of_epochs(recipe.optim.warmup_epochs)),
            evaluate_every=max(1, round(of_epochs(recipe.run.evaluate_every_epochs))),
            checkpoint_every=recipe.run.checkpoint_every_steps,
            keep_every=None if keep is None else max(1, round(of_epochs(keep))),
            patience=recipe.run.patience,
        )

    def evaluates(self, step: int) -> bool:
        return step > 0 and (self.counts(step) or step == self.last)

    def counts(self, step: int) -> bool:
        """Whether an evaluation is one of the whole training, not of a call that ends early; patience counts those."""
        return step % self.evaluate_every == 0 or step == self.steps

    def saves(self, step: int) -> bool:
        return step > 0 and self.checkpoint_every is not None and step % self.checkpoint_every == 0

    def keeps(self, step: int) -> bool:
        return step > 0 and self.keep_every is not None and step % self.keep_every == 0

    def ends(self, step: int, *, stale: int) -> bool:
        """Whether the training is over: at its last step, or where it has not become better for long enough."""
        return step >= self.last or (self.patience is not None and stale >= self.patience)


def check_metric(recipe: Recipe, manifest: Manifest) -> None:
    """Look for the recipe's metric in what an evaluation of the manifest's task heads measures, before there is one.

    Raises:
        RecipeError: there is no such metric.
    """
    one_sample = Predictions(
        logits={head: np.zeros((1, classes), np.float32) for head, classes in manifest.heads.items()},
        targets={head: np.zeros(1, np.int64) for head in manifest.heads},
        index=np.zeros(1, np.int64),
        classes=manifest.classes,
        split=recipe.data.evaluate,
        declared=1,
        missing=(),
        manifest_digest="",
        weights_digest="",
    )
    score(dict(measure(one_sample)), recipe.run.metric)


def score(measures: Mapping[str, float], metric: str) -> float:
    """How good an evaluation is by the recipe's metric; of several heads, by all of them together where that is there.

    Raises:
        RecipeError: there is no such metric.
    """
    for name in (metric, f"joint.{metric}"):
        if name in measures:
            return measures[name]
    raise RecipeError(f"run.metric={metric!r} is none of what an evaluation measures: {', '.join(measures)}")

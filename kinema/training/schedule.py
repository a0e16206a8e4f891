"""Schedule of evaluations, checkpoints and the end of a training, and the metric that ranks evaluations."""

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
    """Steps of evaluations, checkpoints and the end of a training. An epoch may end within a batch.

    Attributes:
        steps: Number of steps of the whole training.
        last: Step at which this call ends, at most `steps`.
        warmup_steps: Number of warm-up steps.
        evaluate_every: Steps between evaluations. The last step is always evaluated.
        checkpoint_every: Steps between additional checkpoints. None for checkpoints at evaluations only.
        keep_every: Steps between permanent checkpoints. None for none.
        patience: Number of evaluations without improvement before training stops. None never stops early.
    """

    steps: int
    last: int
    warmup_steps: int
    evaluate_every: int
    checkpoint_every: int | None
    keep_every: int | None
    patience: int | None

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, samples: int, max_steps: int | None) -> "Schedule":
        """Return the schedule of a recipe for a number of samples."""

        def to_steps(epochs: float) -> float:
            # In this order: 27 epochs of 7 samples are 63 batches of 3, not 63.000000001 and so 64.
            return epochs * samples / recipe.data.batch_size

        steps = max(1, math.ceil(to_steps(recipe.optim.epochs)))
        keep = recipe.checkpoint.keep_every_epochs
        return cls(
            steps=steps,
            last=steps if max_steps is None else min(steps, max_steps),
            warmup_steps=round(to_steps(recipe.optim.warmup_epochs)),
            evaluate_every=max(1, round(to_steps(recipe.run.evaluate_every_epochs))),
            checkpoint_every=recipe.checkpoint.every,
            keep_every=None if keep is None else max(1, round(to_steps(keep))),
            patience=recipe.run.patience,
        )

    def should_evaluate(self, step: int) -> bool:
        """Return whether to evaluate after a number of steps."""
        return step > 0 and (self.counts(step) or step == self.last)

    def counts(self, step: int) -> bool:
        """Return whether an evaluation counts for patience; not if it is due to `max_steps` only."""
        return step % self.evaluate_every == 0 or step == self.steps

    def should_save(self, step: int) -> bool:
        """Return whether to save a checkpoint that the next one replaces."""
        return step > 0 and self.checkpoint_every is not None and step % self.checkpoint_every == 0

    def should_keep(self, step: int) -> bool:
        """Return whether to save a permanent checkpoint."""
        return step > 0 and self.keep_every is not None and step % self.keep_every == 0

    def is_over(self, step: int, *, stale: int) -> bool:
        """Return whether the training is over: at its last step, or `patience` evaluations after the best one."""
        return step >= self.last or (self.patience is not None and stale >= self.patience)


def check_metric(recipe: Recipe, manifest: Manifest) -> None:
    """Check that evaluations have the recipe's metric.

    Raises:
        RecipeError: The metric does not exist.
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
    score(dict(measure(one_sample)), recipe.checkpoint.metric)


def score(measures: Mapping[str, float], metric: str) -> float:
    """Return the metric of an evaluation: `metric`, or `joint.<metric>` with several task heads.

    Raises:
        RecipeError: The metric does not exist.
    """
    for name in (metric, f"joint.{metric}"):
        if name in measures:
            return measures[name]
    raise RecipeError(f"checkpoint.metric={metric!r}; expected one of {', '.join(measures)}", field="checkpoint.metric")

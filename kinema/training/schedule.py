"""When what happens in a training, in steps."""

import math
from dataclasses import dataclass

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
        per_epoch = samples / recipe.data.batch_size
        steps = max(1, math.ceil(recipe.optim.epochs * per_epoch))
        keep = recipe.run.keep_every_epochs
        return cls(
            steps=steps,
            last=steps if max_steps is None else min(steps, max_steps),
            warmup_steps=round(recipe.optim.warmup_epochs * per_epoch),
            evaluate_every=max(1, round(recipe.run.evaluate_every_epochs * per_epoch)),
            checkpoint_every=recipe.run.checkpoint_every_steps,
            keep_every=None if keep is None else max(1, round(keep * per_epoch)),
            patience=recipe.run.patience,
        )

    def evaluates(self, step: int) -> bool:
        return step > 0 and (step % self.evaluate_every == 0 or step == self.last)

    def saves(self, step: int) -> bool:
        return step > 0 and self.checkpoint_every is not None and step % self.checkpoint_every == 0

    def keeps(self, step: int) -> bool:
        return step > 0 and self.keep_every is not None and step % self.keep_every == 0

    def ends(self, step: int, *, stale: int) -> bool:
        """Whether the training is over: at its last step, or where it has not become better for long enough."""
        return step >= self.last or (self.patience is not None and stale >= self.patience)

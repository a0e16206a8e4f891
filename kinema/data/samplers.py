"""Order of samples per step, as pure functions of a seed, so that resuming is slicing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from torch.utils.data import Sampler


@dataclass(frozen=True, slots=True)
class Draw:
    """Request for a sample, with the random stream to augment it with.

    Attributes:
        index: Position in the manifest.
        seed: Seed of everything drawn for this sample; None in evaluation, where nothing is.
        partner: Sample that MixUp or CutMix mixes in.
    """

    index: int
    seed: tuple[int, ...] | None = None
    partner: "Draw | None" = None


class TrainingBatches(Sampler[list[Draw]]):
    """Batches of a whole training, from any step on: an endless sequence of shuffled passes, cut into equal batches.

    No sample is left out at the end of a pass: a batch may hold the end of one pass and the start of the next.

    Args:
        positions: Positions of the training samples.
        batch_size: Number of draws per batch.
        steps: Number of batches in the whole training.
        first_step: Step to resume from.
        seed: Seed of all draws.
        mixup: Whether each draw gets a partner.
        classes: Class of each position, to draw all classes equally often; None to draw all samples equally often.
    """

    def __init__(
        self,
        positions: Sequence[int],
        *,
        batch_size: int,
        steps: int,
        first_step: int = 0,
        seed: int,
        mixup: Literal["none", "partner"] = "none",
        classes: Sequence[int] | None = None,
    ) -> None:
        self.positions = list(positions)
        self.batch_size = batch_size
        self.steps = steps
        self.first_step = first_step
        self.seed = seed
        self.mixup = mixup
        self.classes = None if classes is None else np.asarray(classes)
        self._orders: dict[tuple[int, int], list[int]] = {}

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.first_step, self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[Draw]:
        """Return the draws of one step, counted from 0."""
        first = step * self.batch_size
        return [self._draw(number) for number in range(first, first + self.batch_size)]

    def _draw(self, number: int) -> Draw:
        epoch, place = divmod(number, len(self.positions))
        index = self._order(epoch, 0)[place]
        # A sample that is drawn twice in a pass must not be augmented the same way.
        repeat = () if self.classes is None else (place,)
        if self.mixup == "none":
            return Draw(index, (self.seed, epoch, index, *repeat))
        partner = self._order(epoch, 1)[place]
        return Draw(index, (self.seed, epoch, index, *repeat), Draw(partner, (self.seed, epoch, partner, 2, *repeat)))

    def _balanced(self, rng: np.random.Generator) -> Int64[ndarray, " samples"]:
        """Return as many positions as samples, equally many of each class but for a remainder that is drawn.

        All samples of a class are used before one of them is repeated.
        """
        assert self.classes is not None
        positions, names = np.asarray(self.positions), np.unique(self.classes)
        per_class, rest = divmod(len(positions), len(names))
        extra = set(rng.choice(names, rest, replace=False).tolist())
        chosen = []
        for name in names.tolist():
            members, count = positions[self.classes == name], per_class + (name in extra)
            rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
            chosen.append(np.concatenate([np.zeros(0, np.int64), *rounds])[:count])
        return np.concatenate(chosen)

    def _order(self, epoch: int, stream: int) -> list[int]:
        """Return the shuffled positions of one pass, cached for the current pass."""
        if (epoch, stream) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[0] == epoch}
            rng = np.random.default_rng((self.seed, epoch, stream))
            shuffled = rng.permutation(self.positions if self.classes is None else self._balanced(rng))
            self._orders[epoch, stream] = [int(position) for position in shuffled]
        return self._orders[epoch, stream]


def evaluation_batches(positions: Sequence[int], batch_size: int) -> list[list[Draw]]:
    """Return batches with every sample once, in order."""
    draws = [Draw(position) for position in positions]
    return [draws[i : i + batch_size] for i in range(0, len(draws), batch_size)]

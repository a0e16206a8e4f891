"""Order of samples: which are drawn in which step, as pure functions of a seed, so that resuming is slicing."""

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

    Args:
        index: position in the manifest.
        seed: seed of all that is drawn for this sample; None in evaluation, where nothing is.
        partner: the sample that MixUp or CutMix mixes in.
    """

    index: int
    seed: tuple[int, ...] | None = None
    partner: "Draw | None" = None


class TrainingBatches(Sampler[list[Draw]]):
    """Batches of a whole training, from any step on: an endless sequence of shuffled passes, cut into equal batches.

    No sample is left out at the end of a pass: a batch may hold the end of one and the start of the next.

    Args:
        positions: the training samples.
        batch_size: draws in a batch.
        steps: batches of the whole training.
        first_step: where to go on; 0 at the start.
        seed: of all draws.
        mixup: whether each draw gets a partner.
        classes: of each position, where all classes are to be drawn equally often; None for all samples equally often.
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
        # A sample that comes twice in a pass is not to come in the same way.
        again = () if self.classes is None else (place,)
        if self.mixup == "none":
            return Draw(index, (self.seed, epoch, index, *again))
        partner = self._order(epoch, 1)[place]
        return Draw(index, (self.seed, epoch, index, *again), Draw(partner, (self.seed, epoch, partner, 2, *again)))

    def _balanced(self, rng: np.random.Generator) -> Int64[ndarray, " samples"]:
        """Return as many positions as there are, equally many of every class but for a remainder that is drawn.

        A class gives all of its samples before it gives one of them again.
        """
        assert self.classes is not None
        positions, names = np.asarray(self.positions), np.unique(self.classes)
        each, rest = divmod(len(positions), len(names))
        more = set(rng.choice(names, rest, replace=False).tolist())
        chosen = []
        for name in names.tolist():
            own, wanted = positions[self.classes == name], each + (name in more)
            rounds = [rng.permutation(own) for _ in range(-(-wanted // len(own)))]
            chosen.append(np.concatenate([np.zeros(0, np.int64), *rounds])[:wanted])
        return np.concatenate(chosen)

    def _order(self, epoch: int, stream: int) -> list[int]:
        """Return the shuffled positions of one pass; kept while draws use it."""
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

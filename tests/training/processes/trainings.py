"""Trainings one after another, in one process or in each of several: `python trainings.py JOBS.json`.

A job is a recipe with a network; see `job`. In each run's folder every process leaves what it holds at the end,
`held-<number>.pt`, what it held before the processes met, `begun-<number>.pt`, and what it drew from,
`seeds-<number>.json`, so that a test can see what is alike and what is not.
"""

import json
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal
from unittest.mock import patch

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from kinema.errors import TrainingStopped
from kinema.training import loop
from kinema.training.distributed import rank
from kinema.training.learner import Learner
from kinema.training.recipe import Recipe
from kinema.training.recipe_json import recipe_from_json, recipe_to_json
from kinema.training.runs import Run


class Small(nn.Module):
    """No BatchNorm and no dropout: several processes are to give what one gives."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Conv3d(3, 16, (2, 4, 4), stride=(2, 4, 4))
        self.blocks = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])
        self.head = nn.Linear(16, 3)

    def forward(self, clip: Tensor) -> Tensor:
        places = self.embedding(clip).flatten(2).transpose(1, 2)
        for block in self.blocks:
            places = places + F.gelu(block(places))
        return self.head(F.layer_norm(places.mean(1), (16,)))


class Watched(Learner):
    """A learner that is asked, when all is over, what it holds and what it drew from in its steps."""

    last: ClassVar["Watched"]
    stop_after: ClassVar[int | None]

    def __init__(self, fabric: Fabric, model: nn.Module, recipe: Recipe) -> None:
        self.begun = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
        super().__init__(fabric, model, recipe)
        self.seeds: list[int] = []
        Watched.last = self

    def step(self) -> None:
        super().step()
        self.seeds.append(torch.initial_seed())
        if len(self.seeds) == self.stop_after and rank() == 1:
            signal.raise_signal(signal.SIGTERM)


class SlowRun(Run):
    """A run on a disk that is slow to the first process."""

    def load_checkpoint(self, *, logs: Literal["cut back", "leave"] = "cut back") -> dict[str, Any] | None:
        if logs == "cut back":
            time.sleep(0.5)
        return super().load_checkpoint(logs=logs)


def job(
    recipe: Recipe, *, small: bool, steps: int | None = None, stop_after: int | None = None, resumed: bool = False
) -> dict[str, Any]:
    """One training.

    Args:
        recipe: with the folder.
        small: whether it is of `Small`, or of the recipe's network.
        steps: of it, where those are not all.
        stop_after: the step after which one of two processes gets the signal to stop, and it alone.
        resumed: whether the folder is there already.
    """
    return {
        "recipe": recipe_to_json(recipe),
        "small": small,
        "steps": steps,
        "stop_after": stop_after,
        "resumed": resumed,
    }


def do(told: Mapping[str, Any]) -> Run:
    recipe = recipe_from_json(told["recipe"])
    assert recipe.run.out is not None
    model = None
    if told["small"]:
        # Other numbers in each process: the first one's are to count.
        torch.manual_seed(7 + rank())
        model = Small()
    Watched.stop_after = told["stop_after"]
    planned = None if told["resumed"] else recipe
    run = SlowRun(recipe.run.out, planned=planned)
    with patch.object(loop, "Learner", Watched):
        try:
            loop.train(recipe, run, model=model, max_steps=told["steps"])
        except TrainingStopped:
            assert told["stop_after"] is not None
    held = {name: tensor.cpu() for name, tensor in Watched.last.eval_model.state_dict().items()}
    torch.save(held, run.path / f"held-{rank()}.pt")
    torch.save(Watched.last.begun, run.path / f"begun-{rank()}.pt")
    (run.path / f"seeds-{rank()}.json").write_text(json.dumps(Watched.last.seeds))
    return run


if __name__ == "__main__":
    for told in json.loads(Path(sys.argv[1]).read_text()):
        do(told)

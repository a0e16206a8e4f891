"""Run trainings one after another, in one process or several: `python trainings.py JOBS.json`.

A job is a recipe with a network; see `job`. Every process writes to the run folder the weights that it evaluates at the
end (`held-<rank>.pt`), the initial weights before processes are joined (`begun-<rank>.pt`) and the seeds of its steps
(`seeds-<rank>.json`).
"""

import json
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
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
    """Network without BatchNorm and dropout, which gives the same results on one or several processes."""

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
    """Learner that records its initial weights and the seeds of its steps."""

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
    """Run on a disk that is slow for the first process."""

    def truncate_logs(self, step: int) -> None:
        time.sleep(0.5)
        super().truncate_logs(step)


def job(
    recipe: Recipe, *, small: bool, steps: int | None = None, stop_after: int | None = None, resumed: bool = False
) -> dict[str, Any]:
    """Return a job as JSON.

    Args:
        recipe: Recipe with its run folder.
        small: Train `Small` instead of the recipe's network.
        steps: Number of steps after which to stop. None for all.
        stop_after: Step after which the second process gets a signal to stop.
        resumed: Resume an existing run folder.
    """
    return {
        "recipe": recipe_to_json(recipe),
        "small": small,
        "steps": steps,
        "stop_after": stop_after,
        "resumed": resumed,
    }


def run_job(job: Mapping[str, Any]) -> Run:
    """Run a job in this process."""
    recipe = recipe_from_json(job["recipe"])
    assert recipe.run.out is not None
    model = None
    if job["small"]:
        # Weights differ between processes; those of the first one are used.
        torch.manual_seed(7 + rank())
        model = Small()
    Watched.stop_after = job["stop_after"]
    planned = None if job["resumed"] else recipe
    run = SlowRun(recipe.run.out, planned=planned)
    with patch.object(loop, "Learner", Watched):
        try:
            loop.train(recipe, run, model=model, max_steps=job["steps"])
        except TrainingStopped:
            assert job["stop_after"] is not None
    held = {name: tensor.cpu() for name, tensor in Watched.last.eval_model.state_dict().items()}
    torch.save(held, run.path / f"held-{rank()}.pt")
    torch.save(Watched.last.begun, run.path / f"begun-{rank()}.pt")
    (run.path / f"seeds-{rank()}.json").write_text(json.dumps(Watched.last.seeds))
    return run


if __name__ == "__main__":
    for content in json.loads(Path(sys.argv[1]).read_text()):
        run_job(content)

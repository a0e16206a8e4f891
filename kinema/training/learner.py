"""The network of a training, in one piece or several: as it steps, with its optimiser, its averages and its state."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricOptimizer
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor

from kinema.errors import RecipeError
from kinema.training.memory import recompute_activations
from kinema.training.optim import averaged, make_optimizer
from kinema.training.recipe import Recipe


class Learner:
    """What a step moves, and what is evaluated and shipped of it.

    Args:
        fabric: the processes and their devices.
        model: the network, with the weights that it starts from and the parts that it is to keep frozen.
        recipe: says how it is computed and how its weights move.

    Attributes:
        network: what a step calls.
        optimizer: over all weights that learn.
        shipped: what is evaluated and shipped: the averaged weights where the recipe averages, else the network's own.
            It is whole, on every process, and as of the last `gather`.

    Raises:
        RecipeError: the recipe asks for what the network cannot do.
    """

    def __init__(self, fabric: Fabric, model: nn.Module, recipe: Recipe) -> None:
        self.fabric = fabric
        self.model = model
        self._max_norm = recipe.optim.clip_norm
        if recipe.run.activations == "recompute" and not recompute_activations(model):
            raise RecipeError("run: activations=recompute needs a network with a list of blocks; this one has none")
        several = fabric.world_size > 1
        if several:  # a network of the user's own may have begun with other numbers in each process
            model.load_state_dict(fabric.broadcast(model.state_dict()))
        self._sharded = several and recipe.run.strategy == "fsdp"
        # By the names of the weights, so that a run goes on with another number of processes, one among them.
        self._named = recipe.run.strategy == "fsdp"
        # Each process's own statistics of its part of a batch are not those of the batch; torch has no other on a CPU.
        synchronised = several and fabric.device.type == "cuda"
        apart = self._sharded or synchronised
        self.averages = None
        if recipe.optim.ema_decay is not None:
            self.averages = averaged(model, recipe.optim.ema_decay).to(fabric.device)
        whole = copy.deepcopy(model).to(fabric.device) if apart and self.averages is None else model
        self.shipped: nn.Module = whole if self.averages is None else self.averages.module
        if synchronised:
            model = self.model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch's
        called = model
        if recipe.run.compiled != "no":
            called = torch.compile(model, mode=recipe.run.compiled)  # type: ignore[assignment]  # of a module it is one
        self.network = fabric.setup_module(called)
        optimizer = fabric.setup_optimizers(make_optimizer(model, recipe.optim))
        assert isinstance(optimizer, _FabricOptimizer)  # one optimiser gives one
        self.optimizer = optimizer

    def set_rate(self, rate: float) -> None:
        """The step's learning rate; each group of weights takes its share of it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)  # checkpoints of kinema's first trainings have none

    def clip(self) -> float:
        """Limit the norm of the whole gradient as the recipe says; returns what it was.

        Without a limit it is measured all the same: a gradient that is no number is to move nothing.
        """
        limit = math.inf if self._max_norm is None else self._max_norm
        norm = self.fabric.clip_gradients(self.network, self.optimizer, max_norm=limit, error_if_nonfinite=False)
        assert isinstance(norm, Tensor)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def step(self) -> None:
        """Move the weights, and let the averages follow."""
        self.optimizer.step()
        if self.averages is not None:
            self.averages.update_parameters(self.model)

    def gather(self) -> None:
        """Bring `shipped` up to date, the same on every process; all of them call this."""
        if self.fabric.world_size == 1:
            return
        for module in {id(m): m for m in (self.model, self.shipped)}.values():
            for buffer in module.buffers():  # statistics that each process has of its own: the first one's count
                torch.distributed.broadcast(buffer, 0)
        if self._sharded:
            self.shipped.load_state_dict(
                get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True))
            )
        elif self.averages is None and self.shipped is not self.model:
            self.shipped.load_state_dict(self.model.state_dict())

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it; all processes call this, and the first one's answer counts."""
        if self._named:
            options = StateDictOptions(full_state_dict=True, cpu_offload=True)
            model, optimizer = get_state_dict(self.model, self.optimizer.optimizer, options=options)
            return {"model": model, "optimizer": optimizer, "averaged": None}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": None if self.averages is None else self.averages.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        if self._named:
            set_state_dict(
                self.model,
                self.optimizer.optimizer,
                model_state_dict=state["model"],
                optim_state_dict=state["optimizer"],
                options=StateDictOptions(full_state_dict=True),
            )
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.averages is not None:
            self.averages.load_state_dict(state["averaged"])

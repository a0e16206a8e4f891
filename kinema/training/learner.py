"""Learner: network, optimizer and averaged weights of a training run, replicated or sharded."""

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
from kinema.training.activation_checkpointing import checkpoint_activations
from kinema.training.optimizer import make_ema, make_optimizer
from kinema.training.recipe import Recipe


class Learner:
    """Network and optimizer of a training run, and the network that is evaluated and shipped.

    Attributes:
        network: Network that a step calls.
        optimizer: Optimizer of all trainable weights.
        eval_model: Unsharded network with the averaged weights if the recipe sets `ema_decay`, else with the current
            weights, as of the last `sync_eval_model`.

        is_fsdp: True if states are stored by name.

    Raises:
        RecipeError: The network does not support a setting of the recipe.
    """

    def __init__(self, fabric: Fabric, model: nn.Module, recipe: Recipe) -> None:
        self.fabric = fabric
        self.model = model
        self._max_norm = recipe.optim.max_grad_norm
        if recipe.compute.activation_checkpointing and not checkpoint_activations(model):
            raise RecipeError(
                "compute.activation_checkpointing: the network has no ModuleList of blocks",
                field="compute.activation_checkpointing",
            )
        is_distributed = fabric.world_size > 1
        if is_distributed:  # a network of the user's own may differ between processes
            model.load_state_dict(fabric.broadcast(model.state_dict()))
        self._sharded = is_distributed and recipe.compute.strategy == "fsdp"
        # States of FSDP are stored by name, so that a run can resume with any number of processes.
        self.is_fsdp = recipe.compute.strategy == "fsdp"
        # BatchNorm over the whole batch; torch supports it on GPUs only.
        use_sync_batchnorm = is_distributed and fabric.device.type == "cuda"
        is_copied = self._sharded or use_sync_batchnorm
        self.averages = None
        if recipe.optim.ema_decay is not None:
            self.averages = make_ema(model, recipe.optim.ema_decay).to(fabric.device)
        replica = copy.deepcopy(model).to(fabric.device) if is_copied and self.averages is None else model
        self.eval_model: nn.Module = replica if self.averages is None else self.averages.module
        if use_sync_batchnorm:
            model = self.model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch's
        called = model
        self._is_compiled = recipe.compute.compile != "no"
        self._is_single = recipe.data.batch_size == recipe.optim.grad_accum_steps * fabric.world_size
        if self._is_compiled:
            called = torch.compile(model, mode=recipe.compute.compile)  # type: ignore[assignment]  # of a module it is one
        self.network = fabric.setup_module(called)
        optimizer = fabric.setup_optimizers(make_optimizer(model, recipe.optim))
        assert isinstance(optimizer, _FabricOptimizer)  # one optimizer gives one
        self.optimizer = optimizer

    def forward(self, inputs: Mapping[str, Tensor | None]) -> Any:
        """Return the output of the network. It is compiled once, for all sizes of a batch; a rest of 1 is not compiled.

        torch specializes a graph to a size of 1, so that a partial batch of one sample would compile it again.
        """
        clips = [clip for clip in inputs.values() if clip is not None]
        if not self._is_compiled or self._is_single:
            return self.network(**inputs)
        for clip in clips:
            torch._dynamo.maybe_mark_dynamic(clip, 0)
        with torch.compiler.set_stance("force_eager" if len(clips[0]) == 1 else "default"):
            return self.network(**inputs)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the step, scaled for each parameter group."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)  # missing in checkpoints of older versions

    def clip_gradients(self) -> float:
        """Clip the norm of the gradient, and return the norm before clipping."""
        limit = math.inf if self._max_norm is None else self._max_norm
        norm = self.fabric.clip_gradients(self.network, self.optimizer, max_norm=limit, error_if_nonfinite=False)
        assert isinstance(norm, Tensor)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def step(self) -> None:
        """Update the weights, then their averages."""
        self.optimizer.step()
        if self.averages is not None:
            self.averages.update_parameters(self.model)

    def sync_eval_model(self) -> None:
        """Update `eval_model`, the same on every process. All processes call this."""
        if self.fabric.world_size == 1:
            return
        for module in {id(m): m for m in (self.model, self.eval_model)}.values():
            for buffer in module.buffers():  # use the statistics of the first process
                torch.distributed.broadcast(buffer, 0)
        if self._sharded:
            self.eval_model.load_state_dict(
                get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True))
            )
        elif self.averages is None and self.eval_model is not self.model:
            self.eval_model.load_state_dict(self.model.state_dict())

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint. All processes call this."""
        if self.is_fsdp:
            options = StateDictOptions(full_state_dict=True, cpu_offload=True)
            model, optimizer = get_state_dict(self.model, self.optimizer.optimizer, options=options)
            return {"model": model, "optimizer": optimizer, "averaged": None}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": None if self.averages is None else self.averages.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Load the state of a checkpoint."""
        if self.is_fsdp:
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

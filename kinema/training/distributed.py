"""Training on several processes, started by torchrun or SLURM and joined by Fabric.

Each process reads its share of every batch and every evaluation. The first one writes. Processes exchange predictions
through the run folder.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import nn
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # documented, not in its __all__
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import Sampler

from kinema.data.manifest import Manifest
from kinema.data.samplers import Draw
from kinema.errors import RecipeError
from kinema.evaluation.predictions import Predictions, load_predictions, merge_predictions, save_predictions
from kinema.inference.engine import Precision, choose_device
from kinema.training.recipe import Recipe

PRECISION: dict[Precision, Literal["32-true", "bf16-mixed"]] = {"float32": "32-true", "bfloat16": "bf16-mixed"}
"""Names of precisions in kinema and in Fabric."""


def make_fabric(recipe: Recipe) -> Fabric:
    """Join the processes of a launch, with the recipe's device and precision.

    Raises:
        RecipeError: The batch size is not divisible by the number of processes and micro-batches.
        DeviceError: The recipe's device is not available.
    """
    device, count, nodes = choose_device(recipe.compute.device), world_size(), num_nodes()
    parts = count * recipe.optim.grad_accum_steps
    if recipe.data.batch_size % parts:
        raise RecipeError(
            f"data.batch_size={recipe.data.batch_size}; expected a multiple of {parts} ({count} processes, "
            f"optim.grad_accum_steps={recipe.optim.grad_accum_steps})",
            field="data.batch_size",
        )
    fabric = Fabric(
        accelerator=device.type,
        devices=count // nodes,
        num_nodes=nodes,
        strategy="auto" if count == 1 else "ddp" if recipe.compute.strategy == "ddp" else _sharding(count),
        precision=PRECISION[recipe.compute.precision],
    )
    if count > 1:
        renew_store(device)
    fabric.launch()
    return fabric


def rank() -> int:
    """Return the number of this process in the launch, from 0."""
    return int(os.environ.get("RANK") or (os.environ["SLURM_PROCID"] if SLURMEnvironment.detect() else 0))


def world_size() -> int:
    """Return the number of processes of the launch."""
    return int(os.environ.get("WORLD_SIZE") or (os.environ["SLURM_NTASKS"] if SLURMEnvironment.detect() else 1))


def num_nodes() -> int:
    """Return the number of machines of the launch."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return world_size() // int(os.environ["LOCAL_WORLD_SIZE"])
    return int(os.environ.get("SLURM_NNODES", "1")) if SLURMEnvironment.detect() else 1


def renew_store(device: torch.device) -> None:
    """Use a new prefix in torchrun's store after a restart.

    The store still holds the addresses of the previous processes, to which the new ones would connect
    (pytorch/pytorch#135712). Several machines have no common restart count and so no common prefix: set
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun there.
    """
    starts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if starts == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or num_nodes() > 1:
        return
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    torch.distributed.init_process_group(
        torch.distributed.get_default_backend_for_device(device),
        store=PrefixStore(f"start {starts}", store),
        rank=rank(),
        world_size=world_size(),
    )


def _sharding(count: int) -> ModelParallelStrategy:
    """Return FSDP2, which shards weights, gradients and optimizer states block by block."""

    def shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
        for child in model.children():
            for block in child if isinstance(child, nn.ModuleList) else ():
                fully_shard(block, mesh=mesh["data_parallel"])
        fully_shard(model, mesh=mesh["data_parallel"])
        return model

    return ModelParallelStrategy(shard, data_parallel_size=count, tensor_parallel_size=1)


class RankBatches(Sampler[list[Draw]]):
    """Share of one process in each batch: every `world_size`-th draw, starting at its rank."""

    def __init__(self, batches: Sampler[list[Draw]], *, rank: int, world_size: int) -> None:
        self.batches = batches
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]  # ours have a length

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in self.batches:
            yield batch[self.rank :: self.world_size]


def all_gather(fabric: Fabric, numbers: Sequence[float]) -> list[list[float]]:
    """Return the numbers of all processes, in the order of their ranks."""
    if fabric.world_size == 1:
        return [list(numbers)]
    mine = torch.tensor(numbers, dtype=torch.float64, device=fabric.device)
    rows = [torch.zeros_like(mine) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(rows, mine)  # Fabric's all_gather calls a function that torch deprecates
    return [row.tolist() for row in rows]


def gather_predictions(fabric: Fabric, own: Predictions | None, manifest: Manifest, folder: Path) -> Predictions:
    """Gather the predictions of all processes on every process, in the order of the manifest.

    The processes exchange files in a shared run folder. `own` is None for a process without samples.

    Raises:
        AssertionError: A sample is missing or a duplicate.
    """
    if fabric.world_size == 1:
        assert own is not None
        return own
    files = [folder / f"predictions-{number}.part" for number in range(fabric.world_size)]
    if own is not None:
        save_predictions(files[fabric.global_rank], own)
    written = all_gather(fabric, [own is not None])  # also a barrier: all files are written now
    parts = [load_predictions(file) for file, (is_written,) in zip(files, written, strict=True) if is_written]
    fabric.barrier()
    files[fabric.global_rank].unlink(missing_ok=True)
    return merge_predictions(parts, manifest)

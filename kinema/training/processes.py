"""One training on several processes: how they find each other, who reads what, and what they tell one another.

torchrun or SLURM starts the processes, and Fabric joins them. Each reads its share of every batch and of every
evaluation; the first one writes. What they exchange are numbers, and predictions through the run's folder.
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
"""Our names -> Fabric's."""


def join(recipe: Recipe) -> Fabric:
    """Device and precision of the recipe, and the processes that were started together; they meet here.

    Raises:
        RecipeError: a batch does not divide among them.
        DeviceError: the recipe's device is not there.
    """
    device, count, machines = choose_device(recipe.run.device), process_count(), machine_count()
    parts = count * recipe.optim.accumulate
    if recipe.data.batch_size % parts:
        raise RecipeError(
            f"data: batch_size={recipe.data.batch_size} does not divide into {parts} equal parts ({count} processes, "
            f"optim.accumulate={recipe.optim.accumulate})"
        )
    fabric = Fabric(
        accelerator=device.type,
        devices=count // machines,
        num_nodes=machines,
        strategy="auto" if count == 1 else "ddp" if recipe.run.strategy == "ddp" else _sharding(count),
        precision=PRECISION[recipe.run.precision],
    )
    if count > 1:
        meet_anew(device)
    fabric.launch()
    return fabric


def process_number() -> int:
    """This process among those that were started together, from 0."""
    return int(os.environ.get("RANK") or (os.environ["SLURM_PROCID"] if SLURMEnvironment.detect() else 0))


def process_count() -> int:
    """How many processes torchrun or SLURM started together."""
    return int(os.environ.get("WORLD_SIZE") or (os.environ["SLURM_NTASKS"] if SLURMEnvironment.detect() else 1))


def machine_count() -> int:
    """On how many machines they are."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return process_count() // int(os.environ["LOCAL_WORLD_SIZE"])
    return int(os.environ.get("SLURM_NNODES", "1")) if SLURMEnvironment.detect() else 1


def meet_anew(device: torch.device) -> None:
    """Where torchrun starts processes again, let them meet under another name than those before them.

    It keeps its store, and in it the addresses of processes that are gone, to which the new ones would connect
    (pytorch/pytorch#135712). On several machines each counts starts by itself, so that there is no common name:
    there torchrun is to be told TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1.
    """
    starts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if starts == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or machine_count() > 1:
        return
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    torch.distributed.init_process_group(
        torch.distributed.get_default_backend_for_device(device),
        store=PrefixStore(f"start {starts}", store),
        rank=process_number(),
        world_size=process_count(),
    )


def _sharding(count: int) -> ModelParallelStrategy:
    """FSDP2: each process holds a part of all weights, gradients and optimiser states, block by block."""

    def shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
        for child in model.children():
            for block in child if isinstance(child, nn.ModuleList) else ():
                fully_shard(block, mesh=mesh["data_parallel"])
        fully_shard(model, mesh=mesh["data_parallel"])
        return model

    return ModelParallelStrategy(shard, data_parallel_size=count, tensor_parallel_size=1)


class Share(Sampler[list[Draw]]):
    """One process's draws of each batch: every `count`-th, from its own number on."""

    def __init__(self, batches: Sampler[list[Draw]], *, process: int, count: int) -> None:
        self.batches = batches
        self.process = process
        self.count = count

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]  # ours have a length

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in self.batches:
            yield batch[self.process :: self.count]


def exchanged(fabric: Fabric, numbers: Sequence[float]) -> list[list[float]]:
    """What each process says, for all of them to know, in the order of the processes."""
    if fabric.world_size == 1:
        return [list(numbers)]
    mine = torch.tensor(numbers, dtype=torch.float64, device=fabric.device)
    everyone = [torch.zeros_like(mine) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(everyone, mine)  # Fabric's own goes by a function that torch gives up
    return [row.tolist() for row in everyone]


def together(fabric: Fabric, own: Predictions | None, manifest: Manifest, folder: Path) -> Predictions:
    """The predictions of all processes, every sample exactly once; all of them get it.

    Args:
        own: this process's; None where there were fewer samples than processes, and none for this one.
        manifest: says the order.
        folder: of the run, which all processes see.

    Raises:
        AssertionError: a sample came twice, or not at all.
    """
    if fabric.world_size == 1:
        assert own is not None
        return own
    files = [folder / f"predictions-{number}.part" for number in range(fabric.world_size)]
    if own is not None:
        save_predictions(files[fabric.global_rank], own)
    asked = exchanged(fabric, [own is not None])  # once all have said so, all files are there
    parts = [load_predictions(file) for file, (answered,) in zip(files, asked, strict=True) if answered]
    fabric.barrier()
    files[fabric.global_rank].unlink(missing_ok=True)
    return merge_predictions(parts, manifest)

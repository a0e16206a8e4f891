"""What a training will take, said before it starts."""

import copy
import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from kinema.models.complexity import macs, parameter_count

MACS_PER_STEP = 3
"""A training step costs about three forward passes: forward, and backward for inputs and weights."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes and costs of a training; time and memory are estimates.

    Args:
        parameters, learning: numbers of the network, and how many of them learn.
        macs: multiply-adds of one clip forward; None for a network that cannot be counted.
        steps, batch_size: of the whole training.
        memory: bytes of weights, gradients, optimiser, and what a batch leaves for the backward pass; None as above.
        seconds: of the steps alone, from the rate of a matrix product on this device; None as above.
    """

    parameters: int
    learning: int
    macs: int | None
    steps: int
    batch_size: int
    memory: int | None
    seconds: float | None

    def __str__(self) -> str:
        learn = f" ({self.learning:,} learn)" if self.learning < self.parameters else ""
        said = [f"{self.parameters:,} parameters{learn}"]
        if self.macs is not None:
            said.append(f"{self.macs / 1e9:.2f} GMAC a clip")
        said.append(f"{self.steps} steps of {self.batch_size} clips")
        if self.memory is not None:
            said.append(f"about {self.memory / 2**30:.2f} GiB")
        if self.seconds is not None:
            said.append(f"at least {_duration(self.seconds)} on this device")
        return ", ".join(said)


def make_plan(
    model: nn.Module,
    *,
    channels: int,
    streams: int,
    frames: int,
    size: int,
    steps: int,
    batch_size: int,
    parts: int,
    states: int,
    device: torch.device,
    activations: Literal["keep", "recompute"],
) -> Plan:
    """Count and estimate.

    Args:
        model: the network; it is looked at on the meta device and left as it is.
        channels, streams, frames, size: of the clips that it gets.
        parts: that a batch is taken in.
        states: numbers that the optimiser keeps for each that learns: 1 for SGD with momentum, 2 for AdamW.
        device: whose rate is measured, for a fraction of a second.
        activations: those that are computed again take memory that is not estimated.
    """
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    count = parameter_count(model)
    try:
        cost: int | None = macs(model, channels=channels, frames=frames, size=size) if streams == 1 else None
        kept: int | None = (
            None
            if activations == "recompute" or streams > 1
            else saved_bytes(model, channels=channels, frames=frames, size=size)
        )
    except Exception:  # a network of the user's own may not run without data
        cost = kept = None
    fixed = 4 * count + 4 * (1 + states) * learning
    return Plan(
        parameters=count,
        learning=learning,
        macs=cost,
        steps=steps,
        batch_size=batch_size,
        memory=None if kept is None else fixed + kept * -(-batch_size // parts),
        seconds=None if cost is None else MACS_PER_STEP * cost * batch_size * steps / rate(device),
    )


def saved_bytes(model: nn.Module, *, channels: int, frames: int, size: int) -> int:
    """Bytes that the forward pass of one clip keeps for the backward pass, weights apart; counted without data."""
    bare = copy.deepcopy(model).to("meta").train()
    weights = {id(p) for p in bare.parameters()}
    seen: dict[int, int] = {}
    kept: list[Tensor] = []  # alive until the end, so that no address is seen twice

    def pack(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in weights:
            seen[id(base)] = base.numel() * base.element_size()
            kept.append(base)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        bare(torch.zeros(1, channels, frames, size, size, device="meta"))
    return sum(seen.values())


def rate(device: torch.device, side: int = 1024) -> float:
    """Multiply-adds in a second, of the best of a few matrix products: what no network exceeds by much."""
    one = torch.ones(side, side, device=device)
    best = float("inf")
    for _ in range(4):
        _wait(device)
        began = time.perf_counter()
        one @ one
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

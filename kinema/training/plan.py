"""What a training will take, said before it starts."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from kinema.inference.engine import Precision
from kinema.models.complexity import Channels, example_clips, macs, parameter_count

PAIR = 2
"""Clips of which a step is counted: BatchNorm over vectors does not learn from a single one."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes and costs of a training; time and memory are estimates.

    Args:
        parameters, learning: numbers of the network, and how many of them learn.
        macs: multiply-adds of one clip forward; None for a network that cannot be counted.
        steps, batch_size: of the whole training.
        processes: among which a batch is divided; memory and time are those of one.
        memory: bytes of weights, gradients, optimiser, and what a batch leaves for the backward pass; None as above. On
            a CPU, what comes with each clip was measured at 1.1 (CTN-small) to 1.7 (CTN-tiny) times as much.
        seconds: that the steps alone take at the rate of a matrix product on this device; None as above.
    """

    parameters: int
    learning: int
    macs: int | None
    steps: int
    batch_size: int
    processes: int
    memory: int | None
    seconds: float | None

    def __str__(self) -> str:
        learn = f" ({self.learning:,} learn)" if self.learning < self.parameters else ""
        said = [f"{self.parameters:,} parameters{learn}"]
        if self.macs is not None:
            said.append(f"{self.macs / 1e9:.2f} GMAC a clip")
        among = f" ({self.batch_size // self.processes} in each of {self.processes} processes)"
        said.append(f"{self.steps} steps of {self.batch_size} clips{among if self.processes > 1 else ''}")
        if self.memory is not None:
            large = self.memory >= 2**30
            said.append(f"about {self.memory / 2**30:.2f} GiB" if large else f"about {self.memory / 2**20:.0f} MiB")
        if self.seconds is not None:
            said.append(f"at least {_duration(self.seconds)} on this device")
        return ", ".join(said)


def make_plan(
    model: nn.Module,
    *,
    channels: Channels,
    frames: int,
    size: int,
    steps: int,
    batch_size: int,
    processes: int,
    parts: int,
    states: int,
    device: torch.device,
    activations: Literal["keep", "recompute"],
    precision: Precision,
    averaged: bool,
) -> Plan:
    """Count and estimate.

    Args:
        model: the network; it is looked at on the meta device and left as it is.
        channels, frames, size: of the clips that it gets.
        processes: among which a batch is divided.
        parts: that a process takes its share in.
        states: numbers that the optimiser keeps for each that learns: 1 for SGD with momentum, 2 for AdamW.
        device: whose rate is measured, for a fraction of a second.
        activations: those that are computed again take memory that is not estimated.
        precision: of the arithmetic; memory is estimated in float32.
        averaged: whether a second set of weights follows the first.
    """
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    count = parameter_count(model)

    def counted(by: Callable[..., int]) -> int | None:
        try:
            return by(model, channels=channels, frames=frames, size=size)
        except Exception:  # a network of the user's own may not run without data
            return None

    cost, work = counted(macs), counted(step_macs)
    kept = None if activations == "recompute" else counted(saved_bytes)
    fixed = 4 * count * (1 + averaged) + 4 * (1 + states) * learning
    return Plan(
        parameters=count,
        learning=learning,
        macs=cost,
        steps=steps,
        batch_size=batch_size,
        processes=processes,
        memory=None if kept is None else fixed + kept * -(-batch_size // (processes * parts)),
        seconds=None if work is None else work * (batch_size // processes) * steps / rate(device, precision),
    )


def step_macs(model: nn.Module, *, channels: Channels, frames: int, size: int) -> int:
    """Multiply-adds of one clip in a training step, forward and backward: less where parts are frozen."""
    bare = copy.deepcopy(model).to("meta").train()
    rules = {torch.ops.aten.convolution_backward: _backward_of_convolution}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=rules) as counter:
        answer = bare(**example_clips(bare, channels=channels, frames=frames, size=size, batch=PAIR))
        heads = [answer] if isinstance(answer, Tensor) else list(answer.values())
        torch.autograd.backward([logits.sum() for logits in heads])
    return int(counter.get_total_flops()) // (2 * PAIR)


def _backward_of_convolution(output: Any, clip: Any, weight: Any, *said: Any, **_: Any) -> int:
    """The gradients of input and weight cost as much as the pass forward; torch's rule counts groups as if dense."""
    _, _, _, _, transposed, _, _, wanted = said
    one: int = conv_flop_count(clip, weight, output, transposed=transposed)
    return one * (bool(wanted[0]) + bool(wanted[1]))


def saved_bytes(model: nn.Module, *, channels: Channels, frames: int, size: int) -> int:
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
        bare(**example_clips(bare, channels=channels, frames=frames, size=size, batch=PAIR))
    return sum(seen.values()) // PAIR


def rate(device: torch.device, precision: Precision) -> float:
    """Multiply-adds in a second, of the best of a few matrix products: what no network exceeds by much."""
    side = 8192 if device.type == "cuda" else 1024  # large enough that starting it takes no part of the time
    one = torch.ones(side, side, device=device, dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32)
    best = float("inf")
    usual = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # as convolutions do
    try:
        for _ in range(4):
            _wait(device)
            began = time.perf_counter()
            one @ one
            _wait(device)
            best = min(best, time.perf_counter() - began)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = usual
    return side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

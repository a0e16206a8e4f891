"""Sizes and costs of a training, estimated before it starts."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from kinema.inference.engine import Precision
from kinema.models.complexity import Channels, example_clips, macs, parameter_count
from kinema.training.recipe import Recipe

PAIR = 2
"""Number of clips in a counted step. BatchNorm over vectors cannot train on one."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes and costs of a training. Time and memory are estimates.

    Attributes:
        parameters: Number of parameters of the network.
        trainable: Number of trainable parameters.
        macs: Multiply-adds of the forward pass of one clip. None if the network cannot be counted.
        steps: Number of steps of the whole training.
        batch_size: Clips per step.
        num_processes: Number of processes that share a batch. Memory and time are per process.
        memory: Bytes of weights, gradients, optimizer states and saved activations. None if they cannot be counted. On
            a CPU, the measured memory per clip was 1.1 (CTN-small) to 1.7 (CTN-tiny) times as much.
        seconds: Time of the steps, without data loading and evaluations, at the rate of a matrix product on this
            device. None if they cannot be counted.
    """

    parameters: int
    trainable: int
    macs: int | None
    steps: int
    batch_size: int
    num_processes: int
    memory: int | None
    seconds: float | None


def make_plan(model: nn.Module, recipe: Recipe, *, steps: int, num_processes: int, device: torch.device) -> Plan:
    """Count and estimate the costs of a training.

    A copy of the network is counted on the meta device. The rate of the device is measured in a fraction of a second.
    Memory is not estimated with activation checkpointing.
    """
    clip, optim, batch_size = recipe.clip, recipe.optim, recipe.data.batch_size
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parameters = parameter_count(model)

    def count(counter: Callable[..., int]) -> int | None:
        channels = clip.preprocessing(None).channels
        try:
            return counter(model, channels=channels, frames=clip.frames, size=clip.size)
        except Exception:  # a network of the user's own may not run on the meta device
            return None

    cost, step_cost = count(macs), count(step_macs)
    clip_bytes = None if recipe.compute.activation_checkpointing else count(saved_bytes)
    num_states = 2 if optim.optimizer == "adamw" else 1
    fixed = 4 * parameters * (1 if optim.ema_decay is None else 2) + 4 * (1 + num_states) * trainable
    clips = batch_size // (num_processes * optim.grad_accum_steps)
    return Plan(
        parameters=parameters,
        trainable=trainable,
        macs=cost,
        steps=steps,
        batch_size=batch_size,
        num_processes=num_processes,
        memory=None if clip_bytes is None else fixed + clip_bytes * clips,
        seconds=None
        if step_cost is None
        else step_cost * (batch_size // num_processes) * steps / rate(device, recipe.compute.precision),
    )


def step_macs(model: nn.Module, *, channels: Channels, frames: int, size: int) -> int:
    """Return the multiply-adds of one clip in a training step, forward and backward. Frozen parts cost less."""
    meta_model = copy.deepcopy(model).to("meta").train()
    rules = {torch.ops.aten.convolution_backward: _backward_of_convolution}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=rules) as counter:
        output = meta_model(**example_clips(meta_model, channels=channels, frames=frames, size=size, batch=PAIR))
        heads = [output] if isinstance(output, Tensor) else list(output.values())
        torch.autograd.backward([logits.sum() for logits in heads])
    return int(counter.get_total_flops()) // (2 * PAIR)


def _backward_of_convolution(output: Any, clip: Any, weight: Any, *args: Any, **_: Any) -> int:
    """Return the cost of a convolution's backward pass. torch's own rule counts groups as if dense."""
    _, _, _, _, transposed, _, _, output_mask = args
    one: int = conv_flop_count(clip, weight, output, transposed=transposed)
    return one * (bool(output_mask[0]) + bool(output_mask[1]))


def saved_bytes(model: nn.Module, *, channels: Channels, frames: int, size: int) -> int:
    """Return the bytes of activations saved for the backward pass of one clip."""
    meta_model = copy.deepcopy(model).to("meta").train()
    weights = {id(p) for p in meta_model.parameters()}
    sizes: dict[int, int] = {}
    saved: list[Tensor] = []  # keep them alive, so that no id is reused

    def pack(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in weights:
            sizes[id(base)] = base.numel() * base.element_size()
            saved.append(base)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        meta_model(**example_clips(meta_model, channels=channels, frames=frames, size=size, batch=PAIR))
    return sum(sizes.values()) // PAIR


def rate(device: torch.device, precision: Precision) -> float:
    """Return the multiply-adds per second of the fastest of four matrix products, an upper bound for networks."""
    side = 8192 if device.type == "cuda" else 1024  # large enough to hide the launch overhead
    one = torch.ones(side, side, device=device, dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32)
    best = float("inf")
    default = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # as for convolutions
    try:
        for _ in range(4):
            _synchronize(device)
            start = time.perf_counter()
            one @ one
            _synchronize(device)
            best = min(best, time.perf_counter() - start)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = default
    return side**3 / best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

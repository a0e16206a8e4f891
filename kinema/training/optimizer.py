"""Optimizer, parameter groups, averaged weights, learning rate and loss."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kinema.errors import RecipeError
from kinema.training.recipe import Optim

TABLES = ("token", "position", "table")
"""Words in the names of tables of learned vectors, which get no weight decay, like norms and biases."""


def learning_rate(step: int, *, optim: Optim, steps: int, warmup_steps: int) -> float:
    """Return the learning rate of a step: linear warm-up from `lr * lr_start`, cosine decay to `lr * lr_end`."""
    if step < warmup_steps:
        share = optim.lr_start + (1 - optim.lr_start) * step / warmup_steps
    else:
        progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
        share = optim.lr_end + (1 - optim.lr_end) * 0.5 * (1 + math.cos(math.pi * progress))
    return optim.lr * share


def make_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Return the optimizer of all trainable parameters. Learning rates are set before every step."""
    groups = parameter_groups(model, optim)
    match optim.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum)
        case "adamw":
            return torch.optim.AdamW(groups, lr=optim.lr, fused=True)


def parameter_groups(model: nn.Module, optim: Optim) -> list[dict[str, object]]:
    """Group the parameters by weight decay and by the factor on the learning rate (`lr_scale`).

    Norms, biases and tables are not decayed if `optim.decay` is `matrices`. The learning rate of a parameter is scaled
    by `optim.layer_decay` for each layer between it and the task heads (BEiT, arXiv:2106.08254).

    Raises:
        ValueError: No parameter is trainable.
        RecipeError: `optim.layer_decay` is below 1, and the network has no list of layers.
    """
    depths = layer_depths(model)
    deepest = max(depths.values(), default=0)
    if optim.layer_decay < 1 and not deepest:
        raise RecipeError(
            f"optim.layer_decay={optim.layer_decay}: the network has no ModuleList of blocks",
            field="optim.layer_decay",
        )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = optim.weight_decay if optim.decay == "all" or is_matrix(name, parameter) else 0.0
        scale = optim.layer_decay ** (deepest - depths[name])
        groups.setdefault((decay, scale), []).append(parameter)
    if not groups:
        raise ValueError("no parameter is trainable; freeze fewer parts")
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), parameters in groups.items()
    ]


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter is the weight of a linear map, not of a norm, bias or table."""
    return parameter.ndim > 1 and not any(word in name.rsplit(".", 1)[-1] for word in TABLES)


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Return the depth of each parameter, from 0 at the input. Modules count in the order of their definition.

    Every module of a ModuleList is one layer. Modules before the first list are layer 0, modules after it the last
    layer. Children that contain lists are parallel streams that start at the same depth.
    """
    depths = {name: 0 for name, _ in model.named_parameters()}
    depth = before = 0
    for part, child in model.named_children():
        if any(isinstance(inner, nn.ModuleList) for inner in child.children()) and not isinstance(child, nn.ModuleList):
            stream = layer_depths(child)
            depths |= {f"{part}.{name}": before + own for name, own in stream.items()}
            depth = max(depth, before + max(stream.values(), default=0))
            continue
        layers = child.named_children() if isinstance(child, nn.ModuleList) else [("", child)]
        for place, layer in layers:
            if depth or isinstance(child, nn.ModuleList):
                own = depth + 1
                depth += isinstance(child, nn.ModuleList)
            else:
                own = 0
            prefix = f"{part}.{place}." if place else f"{part}."
            depths |= {f"{prefix}{name}": own for name, _ in layer.named_parameters()}
        before = depth
    return depths


def make_ema(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of the weights and of the running statistics of BatchNorm.

    The decay is warmed up to `decay` by `ema_decay`, since with a constant one a short run would ship its random start.
    The number of updates is part of the average's state. Integer buffers, such as BatchNorm's counts, are copied.
    """

    @torch.no_grad()
    def update(averages: list[Tensor], current: list[Tensor], num_updates: Tensor | int) -> None:
        if averages[0].is_floating_point() or averages[0].is_complex():
            torch._foreach_lerp_(averages, current, 1 - ema_decay(int(num_updates), decay))
        else:
            torch._foreach_copy_(averages, current)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)  # type: ignore[arg-type]  # typed for any tuple


def ema_decay(num_updates: int, decay: float) -> float:
    """Return the decay of an update of the average after `num_updates` earlier ones. The first update copies."""
    return min(decay, (1 + num_updates) / (10 + num_updates)) if num_updates else 0.0


def class_weights(labels: Sequence[int], classes: int) -> Tensor:
    """Return the weight of each class in the loss: its inverse frequency, with mean 1 over the samples.

    A class without samples has weight 0.
    """
    counts = Counter(labels)
    present = len(counts)
    return torch.tensor([len(labels) / (present * counts[c]) if counts[c] else 0.0 for c in range(classes)])


def multi_head_loss(
    logits: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    label_smoothing: float,
    weights: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return the sum of the task heads' cross-entropies, in float32.

    Targets are class numbers or class probabilities. With class weights, the weighted sum over the samples is divided
    by their number, so that micro-batches add up to the gradient of the whole batch.
    """
    losses = []
    for head, head_logits in logits.items():
        weight = None if weights is None else weights[head].to(head_logits.device)
        losses.append(
            F.cross_entropy(
                head_logits.float(), targets[head], weight=weight, label_smoothing=label_smoothing, reduction="none"
            ).mean()
        )
    return torch.stack(losses).sum()

"""Optimisers, and the learning rate as a pure function of the step."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.training.recipe import Optim


def learning_rate(step: int, *, optim: Optim, steps: int, warmup_steps: int) -> float:
    """Rate for a step, counted from 0: linear from `lr_start` to 1, then half a cosine to `lr_end`, times `lr`."""
    if step < warmup_steps:
        share = optim.lr_start + (1 - optim.lr_start) * step / warmup_steps
    else:
        progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
        share = optim.lr_end + (1 - optim.lr_end) * 0.5 * (1 + math.cos(math.pi * progress))
    return optim.lr * share


def make_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """The optimiser over all parameters; the loop sets its rate before every step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    match optim.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=optim.lr, weight_decay=optim.weight_decay, fused=True)


def loss_of_heads(logits: Mapping[str, Tensor], targets: Mapping[str, Tensor], *, label_smoothing: float) -> Tensor:
    """Sum of the heads' cross-entropies, in float32; targets are class numbers or shares of classes."""
    losses = [F.cross_entropy(logits[head].float(), targets[head], label_smoothing=label_smoothing) for head in logits]
    return torch.stack(losses).sum()

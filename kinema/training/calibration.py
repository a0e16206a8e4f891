"""Calibration of BatchNorm before the first step, so that training starts from the function of the loaded weights.

CTN's depth-wise kernels start as the identity, so a block with ViT weights computes ViT's function in evaluation mode.
In training mode BatchNorm normalizes by the statistics of the batch, which changes this function. Calibration sets the
running statistics to those of training clips, and compensates with gain and bias, per channel:
gain = sqrt(variance + eps), bias = mean. In training, the output then differs from ViT's only as far as the statistics
of a batch differ from the running ones.

Outputs in evaluation mode do not change. The inputs of later layers are therefore the same before and after, and one
pass in evaluation mode calibrates all layers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kinema.data.loaders import complete, to_device
from kinema.errors import RecipeError
from kinema.layers.conv_projection import SeparableConvolution
from kinema.training.distributed import all_gather
from kinema.training.loaders import make_loaders, split_batch
from kinema.training.setup import TrainingSetup

Inputs = Mapping[str, Tensor | None]
"""Arguments of a network's `forward`."""


def calibration_inputs(setup: TrainingSetup, num_batches: int) -> Iterator[Inputs]:
    """Yield this process's share of the first training batches, augmented as in the steps.

    Raises:
        UnreadableSample: A sample cannot be read, and the recipe does not skip it.
    """
    recipe = setup.recipe
    loader, _ = make_loaders(setup, start=0, last=num_batches)
    with closing(loader):
        for loaded in loader:
            readable = complete(loaded) if recipe.data.unreadable == "stop" else loaded.batch
            if readable is None:
                continue
            batch = to_device(readable, setup.fabric.device)
            for micro_batch, _ in split_batch(batch, min(recipe.optim.grad_accum_steps, len(batch["index"]))):
                yield setup.binding(setup.preprocessing.normalize_all(micro_batch["inputs"]))


@torch.no_grad()
def calibrate(model: nn.Module, inputs: Iterable[Inputs], fabric: Fabric) -> int:
    """Calibrate BatchNorm of the network's depth-wise mappings in place, and return the number of calibrated layers.

    Layers in evaluation mode do not change. Every process passes its own inputs; statistics cover all processes.

    Raises:
        RecipeError: The network has no such BatchNorm in training mode, or no clip can be read.
    """
    norms = {
        name: part.norm
        for name, part in model.named_modules()
        if isinstance(part, SeparableConvolution) and isinstance(part.norm, nn.BatchNorm2d) and part.norm.training
    }
    if not norms:
        raise RecipeError(
            "init.calibration_batches: the network has no trainable BatchNorm in depth-wise mappings, as CTN has",
            field="init.calibration_batches",
        )
    sums = {name: torch.zeros(3, norm.num_features, dtype=torch.float64) for name, norm in norms.items()}
    modes = {module: module.training for module in model.modules()}
    others = [m for m in modes if isinstance(m, _BatchNorm) and m.training and m not in norms.values()]
    statistics = [(buffer, buffer.clone()) for norm in others for buffer in norm.buffers()]
    hooks = [norm.register_forward_pre_hook(_sum_hook(sums[name])) for name, norm in norms.items()]
    try:
        model.eval()
        for other in others:
            other.train()  # BatchNorm of the stem, which loaded weights do not include
        for arguments in inputs:
            model(**arguments)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
        for buffer, before in statistics:
            buffer.copy_(before)
    calibrated = 0
    for name, norm in norms.items():
        rows = [torch.tensor(row, dtype=torch.float64) for row in all_gather(fabric, sums[name].flatten().tolist())]
        count, total, squares = torch.stack(rows).sum(0).view(3, -1)
        if count.all():  # the last block computes queries of the class token only, without their norm
            mean = total / count
            _set_statistics(norm, mean, (squares / count - mean**2).clamp(min=0))
            calibrated += 1
    if not calibrated:
        raise RecipeError(
            "init.calibration_batches: no clip of the first batches can be read", field="init.calibration_batches"
        )
    return calibrated


def _sum_hook(sums: Float[Tensor, "3 channels"]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Return a hook that accumulates count, sum and sum of squares of each channel of a norm's input."""

    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        maps = inputs[0]
        variance, mean = (part.cpu().double() for part in torch.var_mean(maps.float(), dim=(0, 2, 3), correction=0))
        count = maps.numel() // maps.shape[1]
        sums.add_(torch.stack((torch.full_like(mean, count), count * mean, count * (variance + mean**2))))

    return add


def _set_statistics(norm: nn.BatchNorm2d, mean: Float[Tensor, " c"], variance: Float[Tensor, " c"]) -> None:
    """Set the running statistics, and adapt gain and bias so that outputs in evaluation mode stay the same."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.cpu().double() / (norm.running_var.cpu().double() + norm.eps).sqrt()
    bias = norm.bias.cpu().double() - gain * norm.running_mean.cpu().double()
    norm.weight.copy_(gain * (variance + norm.eps).sqrt())
    norm.bias.copy_(bias + gain * mean)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)

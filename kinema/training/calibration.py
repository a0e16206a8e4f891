"""Before the first step: BatchNorm that leaves loaded weights the function that they have.

CTN's depth-wise kernels start as the identity, so that a block with ViT's weights is ViT's in evaluation, where
BatchNorm does what its stored statistics say. In training it takes the statistics of the batch, and what has been
learned is undone at once. Here its statistics become those of training clips, and its gain and bias give back what they
take away: gain = sqrt(variance + eps), bias = mean, channel by channel. A batch of training then differs from ViT's
function by how far its own statistics are from those of all of them.

None of this changes the answer in evaluation. The layers behind one that is calibrated therefore see the same maps
before and after it, and all layers are calibrated in one pass, in which they themselves are in evaluation.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kinema.data.loaders import complete, to_device
from kinema.data.manifest import Manifest
from kinema.errors import RecipeError
from kinema.layers.conv_projection import SeparableConvolution
from kinema.models.binding import InputBinding
from kinema.training.loaders import own_loaders, parts_of, training_batches
from kinema.training.processes import exchanged
from kinema.training.recipe import Recipe
from kinema.transforms.preprocessing import Preprocessing

Inputs = Mapping[str, Tensor | None]
"""Arguments of a network's `forward`."""


def first_inputs(
    recipe: Recipe,
    manifest: Manifest,
    positions: list[int],
    fabric: Fabric,
    *,
    preprocessing: Preprocessing,
    binding: InputBinding,
    batches: int,
) -> Iterator[Inputs]:
    """This process's share of the first training batches, augmented, as the steps will see them again.

    Raises:
        UnreadableSample: a sample cannot be read, and the recipe does not say to skip it.
    """
    draws = training_batches(recipe, manifest, positions, start=0, last=batches)
    loader, _, _ = own_loaders(recipe, manifest, draws, [], fabric)
    for loaded in loader:
        read = complete(loaded) if recipe.data.unreadable == "stop" else loaded.batch
        if read is None:
            continue
        batch = to_device(read, fabric.device)
        for part, _ in parts_of(batch, min(recipe.optim.accumulate, len(batch["index"]))):
            yield binding(preprocessing.normalize_all(part["inputs"]))


@torch.no_grad()
def calibrate(model: nn.Module, inputs: Iterable[Inputs], fabric: Fabric) -> str:
    """Set BatchNorm of the network's depth-wise mappings by what it sees; what stays as it is in training is left.

    Args:
        model: on the device of the inputs, with the weights that it starts from.
        inputs: this process's; the statistics are those of all processes together, the same in each.
        fabric: the processes.

    Returns:
        What was done, for the log.

    Raises:
        RecipeError: there is no such BatchNorm, or no clip.
    """
    norms = {
        name: part.norm
        for name, part in model.named_modules()
        if isinstance(part, SeparableConvolution) and isinstance(part.norm, nn.BatchNorm2d) and part.norm.training
    }
    if not norms:
        raise RecipeError(
            "run: init_calibration_batches is for BatchNorm of CTN's depth-wise mapping, and the network has none that "
            "learns"
        )
    sums = {name: torch.zeros(3, norm.num_features, dtype=torch.float64) for name, norm in norms.items()}
    modes = {module: module.training for module in model.modules()}
    others = [m for m in modes if isinstance(m, _BatchNorm) and m.training and m not in norms.values()]
    statistics = [(buffer, buffer.clone()) for norm in others for buffer in norm.buffers()]
    hooks = [norm.register_forward_pre_hook(_adding_to(sums[name])) for name, norm in norms.items()]
    try:
        model.eval()
        for other in others:
            other.train()  # a stem's, which no loaded weights expect to be otherwise
        for given in inputs:
            model(**given)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
        for buffer, before in statistics:
            buffer.copy_(before)
    calibrated = 0
    for name, norm in norms.items():
        rows = [torch.tensor(row, dtype=torch.float64) for row in exchanged(fabric, sums[name].flatten().tolist())]
        count, total, squares = torch.stack(rows).sum(0).view(3, -1)
        if count.all():  # the last block asks for the class token alone, so that nothing passes its queries' norm
            mean = total / count
            _keep_the_function(norm, mean, (squares / count - mean**2).clamp(min=0))
            calibrated += 1
    if not calibrated:
        raise RecipeError("run: init_calibration_batches: no clip of these batches can be read")
    return f"calibrated: {calibrated} norms of queries, keys and values"


def _adding_to(sums: Float[Tensor, "3 channels"]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that adds number, sum and sum of squares of each channel of the maps that a norm gets."""

    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        maps = inputs[0]
        variance, mean = (part.cpu().double() for part in torch.var_mean(maps.float(), dim=(0, 2, 3), correction=0))
        count = maps.numel() // maps.shape[1]
        sums.add_(torch.stack((torch.full_like(mean, count), count * mean, count * (variance + mean**2))))

    return add


def _keep_the_function(norm: nn.BatchNorm2d, mean: Float[Tensor, " c"], variance: Float[Tensor, " c"]) -> None:
    """New statistics, and the gain and bias with which they leave the answer in evaluation as it was."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.cpu().double() / (norm.running_var.cpu().double() + norm.eps).sqrt()
    bias = norm.bias.cpu().double() - gain * norm.running_mean.cpu().double()
    norm.weight.copy_(gain * (variance + norm.eps).sqrt())
    norm.bias.copy_(bias + gain * mean)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)

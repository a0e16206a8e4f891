"""Public weights of ViT, which has learned from pictures, as weights of networks that see frames.

    file of ViT -> one form (`kinema.models.vit_file`) -> patches, class token, position, blocks, norm of the network

What fits is settled here:

- The thesis does not say which of ViT's 12 blocks the spatial encoder's are: they are the first ones unless others are
  chosen. Temporal blocks, temporal class token and positions start as they are, and so does the norm after them; ViT's
  last norm is the one of the frames' class tokens.
- Further blocks can be chosen for the temporal encoder. No file says how many attention heads there are, only their
  channels all together: in `rpe_stdt_base` the shapes agree, 768, but ViT-B's 12 heads of 64 channels are read there as
  8 heads of 96. Those of `rpe_stdt_base12` are narrower, and nothing fits.
- A clip of one channel takes the sum of the patch kernel over the colours: a grey picture gets the same answer.
- Positions of another grid are interpolated, as the network does for clips of another size. A network of relative
  position, or none, does not use them.

What the network does differently with the same weights: its LayerNorms add 1e-6 to the variance, as timm's do; those of
Hugging Face add 1e-12.

Most public ViTs saw RGB between -1 and 1: a mean of 0.5 and a standard deviation of 0.5, the default of a recipe. DeiT
saw ImageNet's mean and deviation.

Axes: n, m class token and patches, d channels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kinema.layers.transformer import AbsolutePosition
from kinema.models.baselines import ViTSpatial
from kinema.models.rpe_stdt import RPESTDT
from kinema.models.vit_file import NUMBERS, ViT, ViTError

COLOURS = 3

ViTNetwork = RPESTDT | ViTSpatial
"""Networks that can start from ViT."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """What a network calls the parts of ViT.

    Args:
        patches, class_token, norm: as ViT has them.
        position: the module of positions, or the reason why there is none.
        position_table: its tensor.
        blocks: that see the patches of a frame.
        further: blocks of the same kind that see something else.
    """

    patches: str
    class_token: str
    norm: str
    position: AbsolutePosition | str
    position_table: str
    blocks: tuple[str, ...]
    further: tuple[str, ...] = ()


LAYERS: Mapping[str, str] = {
    "norm1": "norm_attention",
    "qkv": "attention.mapping",
    "proj": "attention.out",
    "norm2": "norm_mlp",
    "fc1": "mlp.expand",
    "fc2": "mlp.contract",
}
"""A layer of ViT's block -> that of ours, in space and in time."""


@dataclass(frozen=True, kw_only=True)
class ConvertedViT:
    """What came of ViT's weights.

    Args:
        weights: names of the network's state dict -> tensors of the shapes there.
        origins: parts of the network -> which blocks they are, and what was changed on the way.
        left_over: names in the file, such as `blocks.8` and `pos_embed` -> why the network does not take them.
    """

    weights: dict[str, Tensor]
    origins: Mapping[str, str]
    left_over: Mapping[str, str]


def places_in(model: ViTNetwork) -> Places:
    """Where the network has the parts of ViT."""
    match model:
        case ViTSpatial():
            return Places(
                patches="embedding.patches",
                class_token="class_token.token",
                norm="norm",
                position=model.position,
                position_table="position.table",
                blocks=tuple(f"blocks.{block}" for block in range(model.config.depth)),
            )
        case RPESTDT():
            config = model.config
            none = "the network has relative position" if config.relative else "the network has no position"
            return Places(
                patches="embedding.patches",
                class_token="spatial_class_token.token",
                norm="spatial_norm",
                position=none if model.spatial_position is None else model.spatial_position,
                position_table="spatial_position.table",
                blocks=tuple(f"spatial_blocks.{block}" for block in range(config.spatial_layers)),
                further=tuple(f"temporal_blocks.{block}" for block in range(config.temporal_layers)),
            )
        case _:
            assert_never(model)


def from_vit(vit: ViT, model: ViTNetwork, *, blocks: Sequence[int] = ()) -> ConvertedViT:
    """The weights that a network can take from ViT. The network stays as it is.

    Args:
        vit: what `read_vit` made of the file.
        model: has the shapes.
        blocks: numbers of ViT's blocks, from 0, for the network's blocks that see patches; once there is one for each
            of them, for those that see frames. One may be named several times. Empty for the first ones, and none for
            frames.

    Raises:
        ViTError: patches, width, or another shape differ; there is no such block, or there are too few or too many of
            them; or positions are needed, and are not those of a square.
    """
    places = places_in(model)
    own = model.state_dict()
    weights: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    left_over = dict(vit.left_over)

    kernel, shape = vit.patches.weight, own[f"{places.patches}.weight"].shape
    if shape[1] == 1 and kernel.shape[1] == COLOURS:
        kernel = kernel.sum(1, keepdim=True)
        origins[places.patches] = f"the patch kernel, summed over {COLOURS} colours"
    if kernel.shape != shape:
        there = list(vit.patches.weight.shape)
        raise ViTError(f"the patch kernel does not fit: {there} there, {list(shape)} here")
    weights |= {f"{places.patches}.weight": kernel, f"{places.patches}.bias": vit.patches.bias}
    weights[places.class_token] = vit.class_token

    if isinstance(places.position, str):
        left_over[vit.naming.position] = places.position
    else:
        table, said = _on_grid(vit, places.position.built)
        weights[places.position_table] = table
        origins |= {places.position_table: said} if said else {}

    chosen = _chosen(vit, places, blocks)
    for part, number in chosen.items():
        for theirs, ours in LAYERS.items():
            layer = getattr(vit.blocks[number], theirs)
            for kind in NUMBERS:
                name, tensor = f"{part}.{ours}.{kind}", getattr(layer, kind)
                if tensor.shape != own[name].shape:
                    raise ViTError(
                        f"block {number} does not fit {part}: {theirs}.{kind} is {list(tensor.shape)} there, "
                        f"{list(own[name].shape)} here"
                    )
                weights[name] = tensor
    origins |= _in_short(chosen)
    unused = [number for number in range(len(vit.blocks)) if number not in chosen.values()]
    if unused:
        left_over[", ".join(f"{vit.naming.block}{number}" for number in unused)] = "the network takes other blocks"

    weights |= {f"{places.norm}.{kind}": getattr(vit.norm, kind) for kind in NUMBERS}
    return ConvertedViT(weights=weights, origins=origins, left_over=left_over)


def _chosen(vit: ViT, places: Places, blocks: Sequence[int]) -> dict[str, int]:
    """Blocks of the network, each with the number of ViT's."""
    least, most = len(places.blocks), len(places.blocks) + len(places.further)
    numbers = list(blocks) or list(range(least))
    if not least <= len(numbers) <= most:
        takes = f"{least}, or up to {most} with those that see frames" if most > least else str(least)
        raise ViTError(f"run.init_blocks={tuple(blocks)} names {len(numbers)} blocks; the network takes {takes}")
    for number in numbers:
        if not 0 <= number < len(vit.blocks):
            last = len(vit.blocks) - 1
            raise ViTError(
                f"there is no block {number}: the file has {len(vit.blocks)}, 0 to {last}, and the network takes "
                f"{len(numbers)}; run.init_blocks may name one several times"
            )
    return dict(zip((*places.blocks, *places.further), numbers, strict=False))


def _in_short(chosen: Mapping[str, int]) -> dict[str, str]:
    """The same, one line for all blocks of a kind."""
    lists: dict[str, list[int]] = {}
    for part, number in chosen.items():
        lists.setdefault(part.rpartition(".")[0], []).append(number)
    return {
        f"{name}.0" if len(numbers) == 1 else f"{name}.0 to {len(numbers) - 1}": (
            f"{'block' if len(numbers) == 1 else 'blocks'} {', '.join(map(str, numbers))} of the file"
        )
        for name, numbers in lists.items()
    }


def _on_grid(vit: ViT, grid: tuple[int, ...]) -> tuple[Float[Tensor, "m d"], str]:
    """Positions of the class token and of a grid of patches; and what was done to them, if anything."""
    places = len(vit.position) - 1
    side = math.isqrt(max(places, 0))
    if side == 0 or side * side != places:
        raise ViTError(
            f"{vit.naming.position} has {len(vit.position)} rows: beside the class token's there are {places}, "
            "which is no square"
        )
    if grid == (side, side):
        return vit.position, ""
    maps = vit.position[1:].T.reshape(1, -1, side, side)
    other = F.interpolate(maps, size=grid, mode="bicubic", align_corners=False).flatten(2)[0].T
    rows, columns = grid
    return torch.cat((vit.position[:1], other)), f"positions, interpolated from {side} x {side} to {rows} x {columns}"

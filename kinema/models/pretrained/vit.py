"""Public weights of ViT, which has learned from pictures, and of ViViT, as weights of our networks.

    file of ViT -> one form (`vit_file.py`) -> patches, class token, position, blocks, norm of the network

What fits is settled here:

- The thesis does not say which of ViT's 12 blocks the spatial encoder's are: they are the first ones unless others are
  chosen. Temporal blocks, temporal class token and positions start as they are, and so does the norm after them; ViT's
  last norm is the one of the frames' class tokens.
- Further blocks can be chosen for the temporal encoder. No file says how many attention heads there are, only their
  channels all together: in `rpe_stdt_base` the shapes agree, 768, but ViT-B's 12 heads of 64 channels are read there as
  8 heads of 96. Those of `rpe_stdt_base12` are narrower, and nothing fits.
- A clip of one channel takes the sum of the patch kernel over the colors: a gray picture gets the same answer.
- Positions of another grid are interpolated, as the network does for clips of another size. A network of relative
  position, or none, does not use them.
- ViViT and CTN see tubelets. ViT's patch kernel stands in the middle one of their frames, number t // 2 from 0, and the
  others are zero: so ViViT's own authors begin (scenic's central-frame initialization). Every time has the positions
  of ViT's one picture.
- CTN maps queries, keys and values apart, by point-wise layers that are ViT's; its depth-wise kernels and their
  BatchNorm have no counterpart and stay the identity that they start as, so that a block is ViT's in evaluation. In
  training BatchNorm takes the batch's own statistics, and a block is not ViT's: `init.calibration_batches` is for
  that. Its video-to-tokens module has no counterpart either, and starts as it is.
- A file of ViViT does not say how its positions are arranged. A frame's grid is taken to be the network's, and where
  the times then differ they are interpolated linearly.

What the network does differently with the same weights: its LayerNorms add 1e-6 to the variance, as timm's and ViViT's
do; those of Hugging Face's ViT add 1e-12. Its GELU is exact, as ViT's is; Hugging Face's ViViT approximates it by tanh.

Most public ViTs saw RGB between -1 and 1: a mean of 0.5 and a standard deviation of 0.5, the default of a recipe. DeiT
saw ImageNet's mean and deviation.

Axes: n, m class token and patches, d channels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from kinema.errors import ViTError
from kinema.layers.transformer import interpolated
from kinema.models.ctn import CTN, CTNConfig
from kinema.models.pretrained.vit_file import NUMBERS, ViT
from kinema.models.rpe_stdt import RPESTDT
from kinema.models.vit_spatial import ViTSpatial
from kinema.models.vivit import ViViT

COLORS = 3

ViTNetwork = CTN | RPESTDT | ViTSpatial | ViViT
"""Networks that can start from ViT."""

LAYERS: Mapping[str, tuple[str, ...]] = {
    "norm1": ("norm_attention",),
    "qkv": ("attention.mapping",),
    "proj": ("attention.out",),
    "norm2": ("norm_mlp",),
    "fc1": ("mlp.expand",),
    "fc2": ("mlp.contract",),
}
"""A layer of ViT's block -> that of ours, in space and in time; or those that share its rows."""

MAPPINGS: Mapping[str, tuple[str, ...]] = {
    "linear": tuple(f"attention.mapping.{part}" for part in ("query", "key", "value")),
    "convolution": tuple(f"attention.mapping.{part}.pointwise" for part in ("query", "key", "value")),
}
"""The same of CTN's ways to map queries, keys and values, apart in each."""


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A part of ViT that a network has not.

    Args:
        reason: why, for the report.
    """

    reason: str


@dataclass(frozen=True, kw_only=True)
class Places:
    """What a network calls the parts of ViT.

    Args:
        patches, class_token, norm: as ViT has them; the patch kernel may have time.
        grid: times, rows and columns of the places that `position` is for, or rows and columns.
        position: the table of positions.
        blocks: that see the patches of a frame, or of a clip.
        further: blocks of the same kind that see something else.
        layers: of each of these.
    """

    patches: str | Absent
    class_token: str
    norm: str
    grid: tuple[int, ...]
    position: str | Absent
    blocks: tuple[str, ...]
    further: tuple[str, ...] = ()
    layers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: LAYERS)


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


NO_POSITION = "the network has no position"


def check_ctn(config: CTNConfig) -> None:
    """Refuses a CTN of whose blocks ViT's weights would make something else than ViT's."""
    if config.norm_order == "post":
        raise ViTError(
            "with model.norm_order=post a block with ViT's weights does not compute what ViT's does; pre is ViT's order"
        )
    if config.mapping == "convolution" and config.start == "scratch":
        raise ViTError(
            "with model.start=scratch depth-wise kernels are random, and a block with ViT's weights does not compute "
            "what ViT's does; say model.start=identity"
        )


def places_in(model: ViTNetwork) -> Places:
    """Where the network has the parts of ViT."""
    match model:
        case ViTSpatial():
            return Places(
                patches="embedding.patches",
                class_token="class_token.token",
                norm="norm",
                grid=model.position.built,
                position="position.table",
                blocks=tuple(f"blocks.{block}" for block in range(model.config.depth)),
            )
        case ViViT():
            return Places(
                patches="embedding.patches",
                class_token="class_token.token",
                norm="norm",
                grid=() if model.position is None else model.position.built,
                position=Absent(reason=NO_POSITION) if model.position is None else "position.table",
                blocks=tuple(f"blocks.{block}" for block in range(model.config.depth)),
            )
        case CTN():
            check_ctn(model.config)
            tubelets, learned = model.config.embedding == "tubelets", model.config.position == "learned"
            return Places(
                patches="embedding.patches" if tubelets else Absent(reason="the network has video-to-tokens instead"),
                class_token="class_token.token",
                norm="norm",
                grid=model.built_grid,
                position="position.table" if learned else Absent(reason=NO_POSITION),
                blocks=tuple(f"blocks.{block}" for block in range(model.config.depth)),
                layers={**LAYERS, "qkv": MAPPINGS[model.config.mapping]},
            )
        case RPESTDT():
            config = model.config
            none = "the network has relative position" if config.relative else NO_POSITION
            return Places(
                patches="embedding.patches",
                class_token="spatial_class_token.token",
                norm="spatial_norm",
                grid=model.grid,
                position=Absent(reason=none) if model.spatial_position is None else "spatial_position.table",
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

    if isinstance(places.patches, Absent):
        left_over[vit.naming.patches] = places.patches.reason
    else:
        kernel, said = _with_shape(vit.patches.weight, own[f"{places.patches}.weight"].shape)
        weights |= {f"{places.patches}.weight": kernel, f"{places.patches}.bias": vit.patches.bias}
        origins |= {places.patches: said} if said else {}
    width = len(own[places.class_token])
    if len(vit.class_token) != width:
        raise ViTError(f"the width does not fit: {len(vit.class_token)} channels there, {width} here")
    weights[places.class_token] = vit.class_token

    if isinstance(places.position, Absent):
        left_over[vit.naming.position] = places.position.reason
    else:
        table, said = _on_grid(vit, places.grid) if vit.called == "ViT" else _at_times(vit, places.grid)
        weights[places.position] = table
        origins |= {places.position: said} if said else {}

    chosen = _chosen(vit, places, blocks)
    for part, number in chosen.items():
        for theirs, ours in places.layers.items():
            layer = getattr(vit.blocks[number], theirs)
            for kind in NUMBERS:
                rows = getattr(layer, kind).chunk(len(ours))
                for name, tensor in zip((f"{part}.{one}.{kind}" for one in ours), rows, strict=True):
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
        raise ViTError(f"init.blocks={tuple(blocks)} names {len(numbers)} blocks; the network takes {takes}")
    for number in numbers:
        if not 0 <= number < len(vit.blocks):
            last = len(vit.blocks) - 1
            raise ViTError(
                f"there is no block {number}: the file has {len(vit.blocks)}, 0 to {last}, and the network takes "
                f"{len(numbers)}; init.blocks may name one several times"
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


def _with_shape(kernel: Tensor, shape: torch.Size) -> tuple[Tensor, str]:
    """The patch kernel as the network has it, and what was done to it, if anything."""
    fitting, said = kernel, ""
    if shape[1] == 1 and kernel.shape[1] == COLORS:
        fitting = fitting.sum(1, keepdim=True)
        said += f", summed over {COLORS} colors"
    if len(shape) == 5 and kernel.ndim == 4:
        frames, middle = shape[2], shape[2] // 2
        flat, fitting = fitting, fitting.new_zeros(*fitting.shape[:2], frames, *fitting.shape[2:])
        fitting[:, :, middle] = flat
        said += f", in frame {middle} of 0 to {frames - 1}, zeros in the others" if frames > 1 else ""
    if fitting.shape != shape:
        raise ViTError(f"the patch kernel does not fit: {list(kernel.shape)} there, {list(shape)} here")
    return fitting, f"the patch kernel{said}" if said else ""


def _on_grid(vit: ViT, grid: tuple[int, ...]) -> tuple[Float[Tensor, "m d"], str]:
    """ViT's positions of the class token and of a grid of patches, at each of several times where the grid has any.

    And what was done to them, if anything.
    """
    places = len(vit.position) - 1
    side = math.isqrt(max(places, 0))
    if side == 0 or side * side != places:
        raise ViTError(
            f"{vit.naming.position} has {len(vit.position)} rows: beside the class token's there are {places}, "
            "which is no square"
        )
    times, rows, columns = (1, *grid)[-3:]
    said = "" if (rows, columns) == (side, side) else f", interpolated from {side} x {side} to {rows} x {columns}"
    said += f", the same at each of {times} times" if times > 1 else ""
    of_a_frame = interpolated(vit.position[1:], (side, side), (rows, columns))
    table = torch.cat((vit.position[:1], of_a_frame.repeat(times, 1)))
    return table, f"positions{said}" if said else ""


def _at_times(vit: ViT, grid: tuple[int, ...]) -> tuple[Float[Tensor, "m d"], str]:
    """ViViT's positions of the class token and of tubelets; and what was done to them, if anything."""
    times, rows, columns = grid
    stored, left = divmod(len(vit.position) - 1, rows * columns)
    if left or not stored:
        raise ViTError(
            f"{vit.naming.position} has {len(vit.position)} rows: beside the class token's there are "
            f"{len(vit.position) - 1}, which are no times of the network's {rows} x {columns} places; give it clips of "
            "the size that the file has learned from"
        )
    if stored == times:
        return vit.position, ""
    table = torch.cat((vit.position[:1], interpolated(vit.position[1:], (stored, rows, columns), grid)))
    return table, f"positions, interpolated from {stored} to {times} times of {rows} x {columns} places"

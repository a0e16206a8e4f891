"""Pretrained ViT (images) and ViViT (video) weights, converted to our networks.

    ViT file -> one form (`vit_file.py`) -> patches, class token, position, blocks, norm of the network

- The thesis does not say which of ViT's 12 blocks initialize the spatial encoder. By default the first ones do. ViT's
  last norm becomes the norm of the frames' class tokens. Temporal blocks, temporal class token, temporal positions and
  the last norm keep their initialization.
- More blocks can be chosen for the temporal encoder. Files do not store the number of attention heads: `rpe_stdt_base`
  has the shapes of ViT-B, but splits its 768 channels into 8 heads of 96 instead of 12 of 64. The temporal blocks of
  `rpe_stdt_base12` are narrower and fit no block of ViT-B.
- For clips of one channel, the patch kernel is summed over the colors, so that a gray image gets the same result.
- Positions are interpolated to the network's grid. A network with relative position, or none, does not use them.
- In ViViT and CTN with tubelets, ViT's patch kernel initializes the middle frame, t // 2 from 0, and the others are
  zero, as in ViViT (scenic's central-frame initialization). ViT's positions are repeated for every time.
- CTN's point-wise layers load ViT's query, key and value layers. Its depth-wise kernels and their BatchNorm have no
  counterpart and keep their identity initialization, so that in evaluation mode a block equals ViT's. In training mode
  it does not, because BatchNorm uses batch statistics; `init.calibration_batches` compensates. The video-to-tokens
  module also keeps its initialization.
- ViViT files do not store the grid of the positions. It is assumed to be the network's, and positions are interpolated
  linearly if the number of times differs.

Differences with the same weights: our LayerNorms use epsilon 1e-6, like timm's and ViViT's; Hugging Face's ViT uses
1e-12. Our GELU is exact, like ViT's; Hugging Face's ViViT uses the tanh approximation.

Most public ViTs expect RGB in [-1, 1], mean and standard deviation 0.5, the default of a recipe. DeiT and torchvision's
ViTs expect ImageNet's mean and standard deviation.

Axes: n, m class token and patches, d channels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from kinema.errors import ViTError
from kinema.layers.transformer import interpolate_position
from kinema.models.ctn import CTN, CTNConfig
from kinema.models.pretrained.vit_file import PARAMETERS, ViT
from kinema.models.rpe_stdt import RPESTDT
from kinema.models.vit_spatial import ViTSpatial
from kinema.models.vivit import ViViT

COLORS = 3

ViTNetwork = CTN | RPESTDT | ViTSpatial | ViViT
"""Networks that can be initialized from ViT."""

LAYERS: Mapping[str, tuple[str, ...]] = {
    "norm1": ("norm_attention",),
    "qkv": ("attention.mapping",),
    "proj": ("attention.out",),
    "norm2": ("norm_mlp",),
    "fc1": ("mlp.expand",),
    "fc2": ("mlp.contract",),
}
"""Layers of a ViT block -> our layers that their rows are split into."""

QUERY_KEY_VALUE: Mapping[str, tuple[str, ...]] = {
    "linear": tuple(f"attention.mapping.{part}" for part in ("query", "key", "value")),
    "convolution": tuple(f"attention.mapping.{part}.pointwise" for part in ("query", "key", "value")),
}
"""`CTNConfig.mapping` -> layers of CTN that the rows of `qkv` are split into."""


@dataclass(frozen=True, kw_only=True)
class NetworkParts:
    """Names of the parts of a network that load ViT weights.

    Attributes:
        patches: Patch embedding; None if the network has a different embedding.
        class_token: Class token.
        position: Position table; None if the network has none.
        no_position: Reason for `position=None`.
        grid: Grid of the position table: (rows, columns) or (times, rows, columns).
        norm: Norm after the blocks.
        blocks: Blocks that see patches.
        frame_blocks: Blocks of the same architecture that see frames.
        layers: Layers of each block, as in `LAYERS`.
    """

    patches: str | None = "embedding.patches"
    class_token: str = "class_token.token"
    position: str | None
    no_position: str = "the network has no position"
    grid: tuple[int, ...]
    norm: str = "norm"
    blocks: tuple[str, ...]
    frame_blocks: tuple[str, ...] = ()
    layers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: LAYERS)


@dataclass(frozen=True, kw_only=True)
class ConvertedViT:
    """ViT's weights for a network.

    Attributes:
        weights: Tensors by their names in the network's state dict.
        origins: Blocks of the file that each part of the network loads, and changes to its weights.
        unused: Names in the file that the network does not use, such as `blocks.8` or `pos_embed`, with the reason.
    """

    weights: dict[str, Tensor]
    origins: Mapping[str, str]
    unused: Mapping[str, str]


def from_vit(vit: ViT, model: ViTNetwork, *, blocks: Sequence[int] = ()) -> ConvertedViT:
    """Return the weights that a network can load from ViT. The network is not changed.

    Args:
        vit: Weights from `read_vit`.
        model: Network that defines names and shapes.
        blocks: Numbers of ViT's blocks, from 0, for the network's blocks that see patches, and then for those that
            see frames. A block may be repeated. Default: the first ones, and none for frames.

    Raises:
        ViTError: A shape differs, a chosen block does not exist, the number of chosen blocks is wrong, or the positions
            do not fit the grid.
    """
    parts = network_parts(model)
    own = model.state_dict()
    weights: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    unused = dict(vit.unused)

    if parts.patches is None:
        unused[vit.naming.patches] = "the network has video-to-tokens instead"
    else:
        kernel, change = _fit_kernel(vit.patches["weight"], own[f"{parts.patches}.weight"].shape)
        weights |= {f"{parts.patches}.weight": kernel, f"{parts.patches}.bias": vit.patches["bias"]}
        origins |= {parts.patches: change} if change else {}
    width = len(own[parts.class_token])
    if len(vit.class_token) != width:
        raise ViTError(
            f"width does not fit: {len(vit.class_token)} channels in the file, {width} in the network",
            field="model.width",
        )
    weights[parts.class_token] = vit.class_token

    if parts.position is None:
        unused[vit.naming.position] = parts.no_position
    else:
        table, change = (_fit_position if vit.family == "ViT" else _fit_times)(vit, parts.grid)
        weights[parts.position] = table
        origins |= {parts.position: change} if change else {}

    chosen = _choose_blocks(vit, parts, blocks)
    for part, number in chosen.items():
        weights |= _block_weights(vit, number, part, parts.layers, own)
    origins |= _block_origins(chosen)
    rest = [f"{vit.naming.block}{number}" for number in range(len(vit.blocks)) if number not in chosen.values()]
    if rest:
        unused[", ".join(rest)] = "the network loads other blocks"

    weights |= {f"{parts.norm}.{parameter}": vit.norm[parameter] for parameter in PARAMETERS}
    return ConvertedViT(weights=weights, origins=origins, unused=unused)


def network_parts(model: ViTNetwork) -> NetworkParts:
    """Return the names of the parts of a network that load ViT weights.

    Raises:
        ViTError: The blocks of a CTN are configured so that they cannot equal ViT's.
    """
    if isinstance(model, RPESTDT):
        position = "relative" if model.config.is_relative else model.config.position.replace("none", "no")
        return NetworkParts(
            class_token="spatial_class_token.token",
            position="spatial_position.table" if position == "absolute" else None,
            no_position=f"the network has {position} position",
            grid=model.grid,
            norm="spatial_norm",
            blocks=tuple(f"spatial_blocks.{block}" for block in range(model.config.spatial_layers)),
            frame_blocks=tuple(f"temporal_blocks.{block}" for block in range(model.config.temporal_layers)),
        )
    patches: str | None = "embedding.patches"
    layers = LAYERS
    if isinstance(model, CTN):
        _check_ctn(model.config)
        patches = patches if model.config.embedding == "tubelets" else None
        layers = {**LAYERS, "qkv": QUERY_KEY_VALUE[model.config.mapping]}
    return NetworkParts(
        patches=patches,
        position=None if model.position is None else "position.table",
        grid=() if model.position is None else model.position.table_grid,
        blocks=tuple(f"blocks.{block}" for block in range(model.config.depth)),
        layers=layers,
    )


def _check_ctn(config: CTNConfig) -> None:
    if config.norm_order == "post":
        raise ViTError(
            "model.norm_order=post: ViT weights are for blocks with norm_order=pre. Set model.norm_order=pre.",
            field="model.norm_order",
        )
    if config.mapping == "convolution" and config.start == "scratch":
        raise ViTError(
            "model.start=scratch: ViT weights need identity depth-wise kernels. Set model.start=identity.",
            field="model.start",
        )


def _choose_blocks(vit: ViT, parts: NetworkParts, blocks: Sequence[int]) -> dict[str, int]:
    """Return the number of ViT's block for each block of the network."""
    least, most = len(parts.blocks), len(parts.blocks) + len(parts.frame_blocks)
    numbers = list(blocks) or list(range(least))
    if not least <= len(numbers) <= most:
        expected = f"{least} to {most}; those after the first {least} see frames" if most > least else str(least)
        raise ViTError(
            f"init.blocks={tuple(blocks)}: {len(numbers)} blocks chosen; expected {expected}", field="init.blocks"
        )
    for number in numbers:
        if not 0 <= number < len(vit.blocks):
            raise ViTError(
                f"init.blocks: the file has no block {number}, only 0 to {len(vit.blocks) - 1}, and the network takes "
                f"{len(numbers)}. A block may be repeated.",
                field="init.blocks",
            )
    return dict(zip((*parts.blocks, *parts.frame_blocks), numbers, strict=False))


def _block_weights(
    vit: ViT, number: int, part: str, layers: Mapping[str, tuple[str, ...]], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return ViT's block under the names of the network's block `part`."""
    weights = {}
    for theirs, ours in layers.items():
        for parameter in PARAMETERS:
            tensors = vit.blocks[number][theirs][parameter].chunk(len(ours))
            for layer, tensor in zip(ours, tensors, strict=True):
                name = f"{part}.{layer}.{parameter}"
                if tensor.shape != own[name].shape:
                    raise ViTError(
                        f"block {number} does not fit {part}: {theirs}.{parameter} is {list(tensor.shape)} in the "
                        f"file, {list(own[name].shape)} in the network",
                        field=name,
                    )
                weights[name] = tensor
    return weights


def _block_origins(chosen: Mapping[str, int]) -> dict[str, str]:
    """Return the chosen blocks as one line per kind of block."""
    lists: dict[str, list[int]] = {}
    for part, number in chosen.items():
        lists.setdefault(part.rpartition(".")[0], []).append(number)
    return {
        f"{name}.0" if len(numbers) == 1 else f"{name}.0 to {len(numbers) - 1}": (
            f"{'block' if len(numbers) == 1 else 'blocks'} {', '.join(map(str, numbers))} of the file"
        )
        for name, numbers in lists.items()
    }


def _fit_kernel(kernel: Tensor, shape: torch.Size) -> tuple[Tensor, str]:
    """Return the patch kernel in the network's shape, and a description of the change, if any."""
    fitted, change = kernel, ""
    if shape[1] == 1 and kernel.shape[1] == COLORS:
        fitted = fitted.sum(1, keepdim=True)
        change += f", summed over {COLORS} colors"
    if len(shape) == 5 and kernel.ndim == 4:
        frames, middle = shape[2], shape[2] // 2
        image, fitted = fitted, fitted.new_zeros(*fitted.shape[:2], frames, *fitted.shape[2:])
        fitted[:, :, middle] = image
        change += f", in frame {middle} of 0 to {frames - 1}, zeros in the others" if frames > 1 else ""
    if fitted.shape != shape:
        raise ViTError(
            f"patch kernel does not fit: {list(kernel.shape)} in the file, {list(shape)} in the network",
            field="model.patch",
        )
    return fitted, f"patch kernel{change}" if change else ""


def _fit_position(vit: ViT, grid: tuple[int, ...]) -> tuple[Float[Tensor, "m d"], str]:
    """Return ViT's positions on the network's grid, repeated for each time, and a description of the change, if any."""
    places = len(vit.position) - 1
    side = math.isqrt(max(places, 0))
    if side == 0 or side * side != places:
        raise ViTError(
            f"{vit.naming.position}: {len(vit.position)} rows; expected 1 for the class token and a square number",
            field=vit.naming.position,
        )
    times, rows, columns = (1, *grid)[-3:]
    change = "" if (rows, columns) == (side, side) else f", interpolated from {side} x {side} to {rows} x {columns}"
    change += f", the same at each of {times} times" if times > 1 else ""
    frame = interpolate_position(vit.position[1:], (side, side), (rows, columns))
    return torch.cat((vit.position[:1], frame.repeat(times, 1))), f"positions{change}" if change else ""


def _fit_times(vit: ViT, grid: tuple[int, ...]) -> tuple[Float[Tensor, "m d"], str]:
    """Return ViViT's positions on the network's grid, and a description of the change, if any."""
    times, rows, columns = grid
    stored, rest = divmod(len(vit.position) - 1, rows * columns)
    if rest or not stored:
        raise ViTError(
            f"{vit.naming.position}: {len(vit.position)} rows; expected 1 for the class token and a multiple of "
            f"{rows} x {columns}. Use clips of the size that the file was trained on.",
            field=vit.naming.position,
        )
    if stored == times:
        return vit.position, ""
    table = torch.cat((vit.position[:1], interpolate_position(vit.position[1:], (stored, rows, columns), grid)))
    return table, f"positions, interpolated from {stored} to {times} times of {rows} x {columns} places"

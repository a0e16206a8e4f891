"""Reader of ViT weight files, which maps all common tensor names to one form.

Files of ViT (arXiv:2010.11929) use several namings, which `kinema.models.pretrained.vit` maps to our networks:

    timm                     blocks.0.attn.qkv.weight
    Hugging Face's hub       encoder.layer.0.attention.attention.query.weight
    transformers 5           layers.0.attention.q_proj.weight
    torchvision              encoder.layers.encoder_layer_0.self_attention.in_proj_weight

DINOv2 (arXiv:2304.07193) and DeiT III (arXiv:2204.07118) scale each channel of a branch before its residual sum
(LayerScale). The scale is folded into the branch's last layer, which gives the same sums. DINOv2 may have register
tokens (arXiv:2309.16588). Its files have timm's naming, which is Meta's, or Hugging Face's.

ViViT (arXiv:2103.15691), trained on video, is the same network over tubelets. Its files have the same names, a patch
kernel with a time axis, and a position per tubelet.

Axes: n class token and patches, d channels.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kinema.errors import ViTError

PARAMETERS = ("weight", "bias")
"""Parameters of each layer."""

Color: TypeAlias = tuple[float, float, float]
Family = Literal["ViT", "ViViT", "DINOv2", "DeiT III"]

DINOV2_PATCH = 14
"""Side of DINOv2's patches; DeiT III, which has LayerScale too, has 16."""

Layer: TypeAlias = dict[str, Tensor]
"""Weight and bias of a linear layer, a convolution or a norm."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Names of ViT's parts in a file.

    `label` is the name for messages. Tensors of a block are called `<block><number>.<layer>.weight` or `.bias`, and in
    torch's own attention `in_proj_weight`. `qkv` is one layer or three. `scales` are the full names of LayerScale after
    attention and after the MLP.
    """

    label: str
    patches: str
    class_token: str
    position: str
    norm: str
    block: str
    norm1: str
    qkv: tuple[str, ...]
    proj: str
    norm2: str
    fc1: str
    fc2: str
    registers: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()

    def block_number(self, name: str) -> int | None:
        """Return the number of the block that a tensor belongs to, or None if it is not part of a ViT block."""
        match = re.fullmatch(rf"{re.escape(self.block)}(0|[1-9]\d*)\.(.+)", name)
        layers = (self.norm1, *self.qkv, self.proj, self.norm2, self.fc1, self.fc2)
        names = [_parameter(layer, parameter) for layer in layers for parameter in PARAMETERS] + [*self.scales]
        return int(match[1]) if match is not None and match[2] in names else None

    def is_distinctive(self, name: str) -> bool:
        """Return whether the name belongs to ViT and hardly to another network. The last norm's name does not count."""
        patches = [f"{self.patches}.{parameter}" for parameter in PARAMETERS]
        others = (self.class_token, self.position, *self.registers, *patches)
        return name in others or self.block_number(name) is not None

    def includes(self, name: str) -> bool:
        """Return whether the name belongs to ViT."""
        return self.is_distinctive(name) or name in [f"{self.norm}.{parameter}" for parameter in PARAMETERS]


TIMM = Naming(
    label="timm",
    patches="patch_embed.proj",
    class_token="cls_token",
    position="pos_embed",
    norm="norm",
    block="blocks.",
    norm1="norm1",
    qkv=("attn.qkv",),
    proj="attn.proj",
    norm2="norm2",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    registers=("register_tokens", "reg_token"),
    scales=("ls1.gamma", "ls2.gamma"),
)

HUGGING_FACE = Naming(
    label="Hugging Face",
    patches="embeddings.patch_embeddings.projection",
    class_token="embeddings.cls_token",
    position="embeddings.position_embeddings",
    norm="layernorm",
    block="encoder.layer.",
    norm1="layernorm_before",
    qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    proj="attention.output.dense",
    norm2="layernorm_after",
    fc1="intermediate.dense",
    fc2="output.dense",
    registers=("embeddings.register_tokens",),
    scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
)

TRANSFORMERS_5 = replace(
    HUGGING_FACE,
    label="transformers 5",
    block="layers.",
    qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    proj="attention.o_proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
)

TORCHVISION = Naming(
    label="torchvision",
    patches="conv_proj",
    class_token="class_token",
    position="encoder.pos_embedding",
    norm="encoder.ln",
    block="encoder.layers.encoder_layer_",
    norm1="ln_1",
    qkv=("self_attention.in_proj",),
    proj="self_attention.out_proj",
    norm2="ln_2",
    fc1="mlp.0",
    fc2="mlp.3",
)

TORCHVISION_FILES = replace(TORCHVISION, label="torchvision", fc1="mlp.linear_1", fc2="mlp.linear_2")
"""Naming of the published files, which torchvision renames when it loads them."""

HUGGING_FACE_DINOV2 = replace(
    HUGGING_FACE, label="Hugging Face's DINOv2", norm1="norm1", norm2="norm2", fc1="mlp.fc1", fc2="mlp.fc2"
)

TRANSFORMERS_5_DINOV2 = replace(
    HUGGING_FACE_DINOV2, label="transformers 5's DINOv2", qkv=TRANSFORMERS_5.qkv, proj=TRANSFORMERS_5.proj
)

NAMINGS = (
    *(TIMM, HUGGING_FACE, TRANSFORMERS_5, HUGGING_FACE_DINOV2, TRANSFORMERS_5_DINOV2),
    *(TORCHVISION, TORCHVISION_FILES),
)

OTHERS: Mapping[str, tuple[str, ...]] = {
    "DINOv3, with rotary positions": ("rope_embed", "storage_tokens", "layer.0.attention.", "model.layer.0.attention."),
    "CLIP": ("visual.transformer.", "pre_layrnorm.", "vision_model.pre_layrnorm.", "embeddings.class_embedding"),
    "SigLIP": ("vision_model.head.probe", "head.probe", "attn_pool.latent"),
    "Swin": ("layers.0.blocks.", "encoder.layers.0.blocks."),
}
"""Families that are not read, and beginnings of names that only they have."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and standard deviation of RGB with values from 0 to 1, as the families were trained."""

PREFIXES = ("module.", "_orig_mod.", "vit.", "vivit.", "dinov2.", "dinov2_with_registers.")
"""Prefixes that all names may have: those of DataParallel and torch.compile, and of Hugging Face's networks with a
classifier."""

UNUSED: Mapping[str, str] = {
    "head.": "task heads are reinitialized",
    "heads.": "task heads are reinitialized",
    "head_dist.": "task heads are reinitialized",
    "classifier.": "task heads are reinitialized",
    "pooler.": "the class token is classified without a pooler",
    "pre_logits.": "the class token is classified without a pooler",
    "fc_norm.": "it normalizes the mean over patches, which is not used",
    "mask_token": "no patch is masked",
    "embeddings.mask_token": "no patch is masked",
}
"""Prefixes of other tensors in ViT files, and why no network uses them."""


@dataclass(frozen=True, kw_only=True)
class ViT:
    """Weights of a ViT file with consistent shapes, in float32.

    Attributes:
        naming: Naming of the file, for messages.
        patches: Patch kernel and bias. ViViT's kernel has frames before the rows.
        class_token: Class token.
        registers: Register tokens, which follow the class token and have no position.
        position: Positions of the class token, then of the patches row by row; ViViT's time by time.
        blocks: Layers of each encoder block by their field in `Naming`. The rows of `qkv` are those of queries, keys
            and values, each attention head by head. LayerScale is folded into `proj` and `fc2`.
        norm: Norm after the last block.
        family: Architecture of the weights.
        unused: Names in the file that no network uses, with the reason.
    """

    naming: Naming
    patches: Layer
    class_token: Float[Tensor, " d"]
    registers: Float[Tensor, "r d"]
    position: Float[Tensor, "n d"]
    blocks: tuple[dict[str, Layer], ...]
    norm: Layer
    unused: Mapping[str, str]
    family: Family


def unread_family(names: Iterable[str]) -> str | None:
    """Return the family of weights that are not read, by the names of their tensors, or None."""
    starts = [_without_prefix(name) for name in names]
    return next((family for family, own in OTHERS.items() if any(name.startswith(own) for name in starts)), None)


def color_statistics(names: Iterable[str]) -> tuple[Color, Color]:
    """Return the mean and standard deviation of RGB that weights with these names were trained with.

    DINOv2, DeiT III, distilled DeiT and torchvision's ViT take ImageNet's; other ViTs and ViViT take 0.5. DeiT without
    distillation has ViT's names, and cannot be told from it.
    """
    scales = [scale for naming in NAMINGS for scale in naming.scales]
    ends = (*scales, "dist_token", "distillation_token", TORCHVISION.position)
    return IMAGENET if any(name.endswith(ends) for name in names) else HALF


def is_vit(names: Iterable[str]) -> bool:
    """Return whether the names of tensors include a part of ViT, in any naming."""
    return any(naming.is_distinctive(_without_prefix(name)) for name in names for naming in NAMINGS)


def read_vit(tensors: Mapping[str, Tensor], *, ignore: Sequence[str] = ()) -> ViT:
    """Return the tensors of a ViT, DeiT, DINOv2 or ViViT file in one form.

    Args:
        tensors: Tensors by their names in the file.
        ignore: Prefixes of names to ignore, like `dist_token`. Classifiers and poolers are ignored anyway.

    Raises:
        ViTError: A tensor is missing, unknown, duplicate or of an inconsistent shape, or a prefix to ignore is unused.
            The weights are of a family that is not read.
    """
    names = [_without_prefix(name) for name in tensors]
    if (other := unread_family(names)) is not None:
        raise ViTError(f"weights of {other}; expected ViT, DeiT, DINOv2 or ViViT. Other families are not read")
    naming = max(NAMINGS, key=lambda naming: sum(map(naming.is_distinctive, names)))
    if not any(map(naming.is_distinctive, names)):
        raise ViTError("no ViT tensor found; expected names like blocks.0.attn.qkv.weight")
    stored: dict[str, Tensor] = {}
    others: list[str] = []
    for full_name in sorted(tensors):  # the same report for any order in the file
        name = _without_prefix(full_name)
        if not naming.includes(name):
            others.append(full_name)
        elif name in stored:
            raise ViTError(f"{name}: duplicate tensor, with different prefixes", field=name)
        else:
            stored[name] = tensors[full_name]
    unused = _unused(others, naming, ignore)

    kernel = _tensor(stored, f"{naming.patches}.weight")
    if kernel.ndim not in (4, 5):
        raise ViTError(
            f"{naming.patches}.weight: shape {list(kernel.shape)}; expected channels out and in, rows and columns, "
            "with frames before the rows in ViViT",
            field=f"{naming.patches}.weight",
        )
    width = len(kernel)
    numbers = [number for name in stored if (number := naming.block_number(name)) is not None]
    depth = max(numbers, default=0) + 1
    has_scale = any(name.endswith(naming.scales) for name in stored)
    return ViT(
        naming=naming,
        patches=_layer(stored, naming.patches, *kernel.shape),
        class_token=_tensor(stored, naming.class_token, 1, 1, width)[0, 0],
        registers=_registers(stored, naming, width),
        position=_position(stored, naming, width),
        blocks=tuple(_block(stored, naming, number, width, has_scale=has_scale) for number in range(depth)),
        norm=_layer(stored, naming.norm, width),
        unused=unused,
        family=_family(kernel, has_scale=has_scale),
    )


def _family(kernel: Tensor, *, has_scale: bool) -> Family:
    if kernel.ndim == 5:
        return "ViViT"
    if not has_scale:
        return "ViT"
    return "DINOv2" if kernel.shape[-1] == DINOV2_PATCH else "DeiT III"


def _registers(stored: Mapping[str, Tensor], naming: Naming, width: int) -> Float[Tensor, "r d"]:
    for name in naming.registers:
        if name in stored:
            return _tensor(stored, name, 1, *stored[name].shape[1:2], width)[0]
    return torch.zeros(0, width)


def _position(stored: Mapping[str, Tensor], naming: Naming, width: int) -> Float[Tensor, "n d"]:
    """Return the positions. timm's DINOv2 with registers has added that of the class token to the token itself."""
    rows = _tensor(stored, naming.position).shape[1:2]
    table = _tensor(stored, naming.position, 1, *rows, width)[0]
    is_without_class = any(name in stored for name in naming.registers) and math.isqrt(len(table)) ** 2 == len(table)
    return F.pad(table, (0, 0, 1, 0)) if is_without_class else table


def _without_prefix(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _unused(names: Sequence[str], naming: Naming, ignore: Sequence[str]) -> dict[str, str]:
    """Return the reason why each name is not used.

    Raises:
        ViTError: A name has no reason, or a prefix to ignore matches no name.
    """
    for prefix in ignore:
        if not any(_has_prefix(name, [prefix]) for name in names):
            raise ViTError(f"init.ignore: no unexpected tensor starts with {prefix}", field="init.ignore")
    reasons: dict[str, str] = {}
    for name in names:
        reason = next((reason for prefix, reason in UNUSED.items() if _has_prefix(name, [prefix])), None)
        if reason is None and _has_prefix(name, ignore):
            reason = "ignored by init.ignore"
        if reason is not None:
            reasons[name] = reason
    unknown = [name for name in names if name not in reasons]
    if unknown:
        examples = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise ViTError(
            f"{len(unknown)} unexpected tensors in {naming.label} naming: {examples}. If the network works without "
            "them, pass prefixes of their names to --init.ignore.",
            field="init.ignore",
        )
    return reasons


def _has_prefix(name: str, prefixes: Collection[str]) -> bool:
    return name.startswith(tuple(prefixes)) or _without_prefix(name).startswith(tuple(prefixes))


def _tensor(stored: Mapping[str, Tensor], name: str, *shape: int) -> Tensor:
    """Return a tensor in float32; with `shape`, check it."""
    if name not in stored:
        raise ViTError(f"{name}: missing tensor; the file is not a complete ViT", field=name)
    tensor = stored[name]
    if not tensor.is_floating_point():
        raise ViTError(f"{name}: type {tensor.dtype}; expected a floating-point type", field=name)
    if shape and tensor.shape != shape:
        raise ViTError(f"{name}: shape {list(tensor.shape)}; expected {list(shape)}", field=name)
    return tensor.float()


def _layer(stored: Mapping[str, Tensor], name: str, *shape: int) -> Layer:
    weight, bias = (_parameter(name, parameter) for parameter in PARAMETERS)
    return {"weight": _tensor(stored, weight, *shape), "bias": _tensor(stored, bias, *shape[:1])}


def _parameter(layer: str, parameter: str) -> str:
    """Return the name of a layer's parameter; torch's attention has the mapping's parameters as its own."""
    return f"{layer}{'_' if layer.endswith('in_proj') else '.'}{parameter}"


def _block(
    stored: Mapping[str, Tensor], naming: Naming, number: int, width: int, *, has_scale: bool
) -> dict[str, Layer]:
    prefix = f"{naming.block}{number}."
    rows = 3 * width // len(naming.qkv)
    qkv = [_layer(stored, prefix + name, rows, width) for name in naming.qkv]
    hidden = _tensor(stored, f"{prefix}{naming.fc1}.bias").numel()
    block = {
        "norm1": _layer(stored, prefix + naming.norm1, width),
        "qkv": {parameter: torch.cat([layer[parameter] for layer in qkv]) for parameter in PARAMETERS},
        "proj": _layer(stored, prefix + naming.proj, width, width),
        "norm2": _layer(stored, prefix + naming.norm2, width),
        "fc1": _layer(stored, prefix + naming.fc1, hidden, width),
        "fc2": _layer(stored, prefix + naming.fc2, width, hidden),
    }
    if has_scale:
        for layer, name in zip(("proj", "fc2"), naming.scales, strict=True):
            scale = _tensor(stored, prefix + name, width)
            block[layer] = {"weight": scale[:, None] * block[layer]["weight"], "bias": scale * block[layer]["bias"]}
    return block

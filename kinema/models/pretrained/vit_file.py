"""Reader of ViT weight files, which maps all common tensor names to one form.

Files of ViT (arXiv:2010.11929) use several namings, which `kinema.models.pretrained.vit` maps to our networks:

    timm                     blocks.0.attn.qkv.weight
    Hugging Face's hub       encoder.layer.0.attention.attention.query.weight
    transformers 5           layers.0.attention.q_proj.weight
    torchvision              encoder.layers.encoder_layer_0.self_attention.in_proj_weight

ViViT (arXiv:2103.15691), trained on video, is the same network over tubelets. Its files have the same names, a patch
kernel with a time axis, and a position per tubelet.

Axes: n class token and patches, d channels.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from kinema.errors import ViTError

PARAMETERS = ("weight", "bias")
"""Parameters of each layer."""

Layer: TypeAlias = dict[str, Tensor]
"""Weight and bias of a linear layer, a convolution or a norm."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Names of ViT's parts in a file.

    `label` is the name for messages. Tensors of a block are called `<block><number>.<layer>.weight` or `.bias`, and in
    torch's own attention `in_proj_weight`. `qkv` is one layer or three.
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

    def block_number(self, name: str) -> int | None:
        """Return the number of the block that a tensor belongs to, or None if it is not part of a ViT block."""
        match = re.fullmatch(rf"{re.escape(self.block)}(0|[1-9]\d*)\.(.+)", name)
        layers = (self.norm1, *self.qkv, self.proj, self.norm2, self.fc1, self.fc2)
        names = [_parameter(layer, parameter) for layer in layers for parameter in PARAMETERS]
        return int(match[1]) if match is not None and match[2] in names else None

    def is_distinctive(self, name: str) -> bool:
        """Return whether the name belongs to ViT and hardly to another network. The last norm's name does not count."""
        others = (self.class_token, self.position, *(f"{self.patches}.{parameter}" for parameter in PARAMETERS))
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

NAMINGS = (TIMM, HUGGING_FACE, TRANSFORMERS_5, TORCHVISION, TORCHVISION_FILES)

PREFIXES = ("module.", "_orig_mod.", "vit.", "vivit.")
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
}
"""Prefixes of other tensors in ViT files, and why no network uses them."""


@dataclass(frozen=True, kw_only=True)
class ViT:
    """Weights of a ViT file with consistent shapes, in float32.

    Attributes:
        naming: Naming of the file, for messages.
        patches: Patch kernel and bias. ViViT's kernel has frames before the rows.
        class_token: Class token.
        position: Positions of the class token, then of the patches row by row; ViViT's time by time.
        blocks: Layers of each encoder block by their field in `Naming`. The rows of `qkv` are those of queries, keys
            and values, each attention head by head.
        norm: Norm after the last block.
        unused: Names in the file that no network uses, with the reason.
    """

    naming: Naming
    patches: Layer
    class_token: Float[Tensor, " d"]
    position: Float[Tensor, "n d"]
    blocks: tuple[dict[str, Layer], ...]
    norm: Layer
    unused: Mapping[str, str]

    @property
    def family(self) -> Literal["ViT", "ViViT"]:
        """Architecture of the weights."""
        return "ViT" if self.patches["weight"].ndim == 4 else "ViViT"


def is_vit(names: Iterable[str]) -> bool:
    """Return whether the names of tensors include a part of ViT, in any naming."""
    return any(naming.is_distinctive(_without_prefix(name)) for name in names for naming in NAMINGS)


def read_vit(tensors: Mapping[str, Tensor], *, ignore: Sequence[str] = ()) -> ViT:
    """Return the tensors of a ViT file in one form.

    Args:
        tensors: Tensors by their names in the file.
        ignore: Prefixes of names to ignore, like `dist_token`. Classifiers and poolers are ignored anyway.

    Raises:
        ViTError: A tensor is missing, unknown, duplicate or of an inconsistent shape, or a prefix to ignore is unused.
    """
    names = [_without_prefix(name) for name in tensors]
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
    position = _tensor(stored, naming.position)
    return ViT(
        naming=naming,
        patches=_layer(stored, naming.patches, *kernel.shape),
        class_token=_tensor(stored, naming.class_token, 1, 1, width)[0, 0],
        position=_tensor(stored, naming.position, 1, *position.shape[1:2], width)[0],
        blocks=tuple(_block(stored, naming, number, width) for number in range(max(numbers, default=0) + 1)),
        norm=_layer(stored, naming.norm, width),
        unused=unused,
    )


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


def _block(stored: Mapping[str, Tensor], naming: Naming, number: int, width: int) -> dict[str, Layer]:
    prefix = f"{naming.block}{number}."
    rows = 3 * width // len(naming.qkv)
    qkv = [_layer(stored, prefix + name, rows, width) for name in naming.qkv]
    hidden = _tensor(stored, f"{prefix}{naming.fc1}.bias").numel()
    return {
        "norm1": _layer(stored, prefix + naming.norm1, width),
        "qkv": {parameter: torch.cat([layer[parameter] for layer in qkv]) for parameter in PARAMETERS},
        "proj": _layer(stored, prefix + naming.proj, width, width),
        "norm2": _layer(stored, prefix + naming.norm2, width),
        "fc1": _layer(stored, prefix + naming.fc1, hidden, width),
        "fc2": _layer(stored, prefix + naming.fc2, width, hidden),
    }

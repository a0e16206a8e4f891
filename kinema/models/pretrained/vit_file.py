"""Files of ViT, which has learned from pictures: one form for all of them, whatever they call its tensors.

ViT is Dosovitskiy et al.'s (arXiv:2010.11929). Its files come in three namings: timm's (`blocks.0.attn.qkv.weight`);
that of Hugging Face's hub, which transformers writes (`encoder.layer.0.attention.attention.query.weight`); and what
transformers 5 says in memory (`layers.0.attention.q_proj.weight`). Where a network has the same is said in
`kinema.models.pretrained.vit`.

ViViT, which has learned from video (arXiv:2103.15691), is the same network over tubelets: its files have the same
names, a kernel with time, and a position for each tubelet of a clip.

Axes: n class token and patches, d channels.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kinema.errors import ViTError

NUMBERS = ("weight", "bias")
"""Of every layer."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """What a file calls the parts of ViT; `.weight` and `.bias` follow the name of a layer.

    Args:
        called: whose naming it is, for messages.
        patches, norm: the layers outside the blocks.
        class_token, position: the tensors outside the blocks.
        block: before the number of a block; a full stop and the name of a layer follow.
        norm1, proj, norm2, fc1, fc2: layers of a block.
        qkv: one layer, or those of queries, keys and values.
    """

    called: str
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

    def number(self, name: str) -> int | None:
        """The block that a tensor belongs to; None for those outside, and for names that are not ViT's."""
        found = re.fullmatch(rf"{re.escape(self.block)}(0|[1-9]\d*)\.(.+)\.(?:{'|'.join(NUMBERS)})", name)
        layers = (self.norm1, *self.qkv, self.proj, self.norm2, self.fc1, self.fc2)
        return int(found[1]) if found is not None and found[2] in layers else None

    def tells(self, name: str) -> bool:
        """Whether the name is ViT's, and could hardly be another network's: that of the last norm could."""
        outside = (self.class_token, self.position, *(f"{self.patches}.{number}" for number in NUMBERS))
        return name in outside or self.number(name) is not None

    def knows(self, name: str) -> bool:
        """Whether the name is ViT's."""
        return self.tells(name) or name in [f"{self.norm}.{number}" for number in NUMBERS]


TIMM = Naming(
    called="timm's",
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
    called="Hugging Face's",
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

TRANSFORMERS_5 = Naming(
    called="transformers 5's",
    patches=HUGGING_FACE.patches,
    class_token=HUGGING_FACE.class_token,
    position=HUGGING_FACE.position,
    norm=HUGGING_FACE.norm,
    block="layers.",
    norm1="layernorm_before",
    qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    proj="attention.o_proj",
    norm2="layernorm_after",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
)

NAMINGS = (TIMM, HUGGING_FACE, TRANSFORMERS_5)

BEGINNINGS = ("module.", "vit.", "vivit.")
"""What may stand before all names: DataParallel's word, and those of Hugging Face's networks with a classifier."""

WITHOUT_PLACE: Mapping[str, str] = {
    "head.": "the task heads start anew",
    "head_dist.": "the task heads start anew",
    "classifier.": "the task heads start anew",
    "pooler.": "the class token is classified as it is",
    "pre_logits.": "the class token is classified as it is",
    "fc_norm.": "it belongs to a mean over patches",
}
"""How names begin that a file of ViT may have beside ViT's, and why no network takes them."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A linear layer, a convolution or a norm."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, kw_only=True)
class ViTBlock:
    """An encoder block; the rows of `qkv` are those of queries, keys and values, each attention head after head."""

    norm1: Layer
    qkv: Layer
    proj: Layer
    norm2: Layer
    fc1: Layer
    fc2: Layer


@dataclass(frozen=True, kw_only=True)
class ViT:
    """A file of ViT, its shapes in agreement, in float32.

    Args:
        naming: the file's, for messages.
        patches: the patch kernel and its bias; ViViT's has frames before the rows.
        class_token: put before the patches.
        position: of the class token, then of the patches row by row; ViViT's of one time after the other.
        blocks: in order.
        norm: after the last block.
        left_over: names in the file that no network takes, each with the reason.
    """

    naming: Naming
    patches: Layer
    class_token: Float[Tensor, " d"]
    position: Float[Tensor, "n d"]
    blocks: tuple[ViTBlock, ...]
    norm: Layer
    left_over: Mapping[str, str]

    @property
    def called(self) -> Literal["ViT", "ViViT"]:
        """Whose weights they are."""
        return "ViT" if self.patches.weight.ndim == 4 else "ViViT"


def is_vit(names: Iterable[str]) -> bool:
    """Whether there is a part of ViT among the names of tensors, in any naming."""
    return any(naming.tells(_bare(name)) for name in names for naming in NAMINGS)


def read_vit(tensors: Mapping[str, Tensor], *, ignore: Sequence[str] = ()) -> ViT:
    """One form for the tensors of a file, whatever their names.

    Args:
        tensors: by the names in the file.
        ignore: beginnings of names that are not ViT's and may be there: `dist_token`. Classifiers, and what stands
            between them and the last norm, may be there anyway.

    Raises:
        ViTError: a tensor is missing, not ViT's, there twice, or of a shape that the others do not have; or nothing
            begins as `ignore` says.
    """
    bare = [_bare(name) for name in tensors]
    naming = max(NAMINGS, key=lambda naming: sum(map(naming.tells, bare)))
    if not any(map(naming.tells, bare)):
        raise ViTError("none of the tensors has a name of ViT's, such as blocks.0.attn.qkv.weight")
    stored: dict[str, Tensor] = {}
    others: list[str] = []
    for name in sorted(tensors):  # the same report whatever the order in the file
        if not naming.knows(_bare(name)):
            others.append(name)
        elif _bare(name) in stored:
            raise ViTError(f"{_bare(name)} is there twice, with other words before it")
        else:
            stored[_bare(name)] = tensors[name]
    left_over = _left_over(others, naming, ignore)

    file = _File(stored)
    patches = file.layer(naming.patches)
    if patches.weight.ndim not in (4, 5):
        shape = list(patches.weight.shape)
        raise ViTError(
            f"{naming.patches}.weight is {shape}; a patch kernel has channels out and in, rows, columns, and ViViT's "
            "has frames before the rows"
        )
    width = len(patches.weight)
    numbers = [number for name in stored if (number := naming.number(name)) is not None]
    position = file.tensor(naming.position)
    return ViT(
        naming=naming,
        patches=file.layer(naming.patches, *patches.weight.shape),
        class_token=file.tensor(naming.class_token, 1, 1, width)[0, 0],
        position=file.tensor(naming.position, 1, *position.shape[1:2], width)[0],
        blocks=tuple(_block(file, naming, number, width) for number in range(max(numbers, default=0) + 1)),
        norm=file.layer(naming.norm, width),
        left_over=left_over,
    )


def _bare(name: str) -> str:
    for beginning in BEGINNINGS:
        name = name.removeprefix(beginning)
    return name


def _left_over(names: Sequence[str], naming: Naming, ignore: Sequence[str]) -> dict[str, str]:
    """The names, each with the reason why it is not needed."""
    for beginning in ignore:
        if not any(_begins(name, [beginning]) for name in names):
            raise ViTError(f"init.ignore: none of the names that are not ViT's begins with {beginning}")
    reasons: dict[str, str] = {}
    for name in names:
        known = next((reason for beginning, reason in WITHOUT_PLACE.items() if _begins(name, [beginning])), None)
        if known is not None:
            reasons[name] = known
        elif _begins(name, ignore):
            reasons[name] = "init.ignore lets go of it"
    unknown = [name for name in names if name not in reasons]
    if unknown:
        first = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        what = "1 name is" if len(unknown) == 1 else f"{len(unknown)} names are"
        raise ViTError(
            f"{what} not ViT's in {naming.called} naming: {first}; where the network can do without, "
            "--init.ignore takes beginnings of names"
        )
    return reasons


def _begins(name: str, beginnings: Collection[str]) -> bool:
    return name.startswith(tuple(beginnings)) or _bare(name).startswith(tuple(beginnings))


class _File:
    """Tensors by ViT's names.

    Args:
        stored: those of the file.
    """

    def __init__(self, stored: Mapping[str, Tensor]) -> None:
        self.stored = stored

    def tensor(self, name: str, *shape: int) -> Tensor:
        """One of them; where a shape is given, of that."""
        if name not in self.stored:
            raise ViTError(f"{name} is missing; without it the weights are not ViT's")
        found = self.stored[name]
        if not found.is_floating_point():
            raise ViTError(f"{name} is of {found.dtype}, and not of floating-point numbers")
        if shape and found.shape != shape:
            raise ViTError(f"{name} is {list(found.shape)}; with the others it would be {list(shape)}")
        return found.float()

    def layer(self, name: str, *shape: int) -> Layer:
        return Layer(weight=self.tensor(f"{name}.weight", *shape), bias=self.tensor(f"{name}.bias", *shape[:1]))


def _block(file: _File, naming: Naming, number: int, width: int) -> ViTBlock:
    begin = f"{naming.block}{number}."
    rows = 3 * width // len(naming.qkv)
    mappings = [file.layer(begin + name, rows, width) for name in naming.qkv]
    hidden = file.tensor(f"{begin}{naming.fc1}.bias").numel()
    return ViTBlock(
        norm1=file.layer(begin + naming.norm1, width),
        qkv=Layer(
            weight=torch.cat([mapping.weight for mapping in mappings]),
            bias=torch.cat([mapping.bias for mapping in mappings]),
        ),
        proj=file.layer(begin + naming.proj, width, width),
        norm2=file.layer(begin + naming.norm2, width),
        fc1=file.layer(begin + naming.fc1, hidden, width),
        fc2=file.layer(begin + naming.fc2, width, hidden),
    )

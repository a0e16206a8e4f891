"""k-NN self-attention and MFST's transformer layer around it (thesis section 2.3.4.1, eq. 2.8; KVT, arXiv:2106.00515).

    tokens -> norm -> k-NN attention -> + -> norm -> MLP -> +

    k-NN attention:  softmax(q k' / sqrt(d), of which each row keeps its k largest) v

A token attends only to the k keys that it is most like; each attention head finds its own. The thesis does not say how
many: k is 0.7 of the tokens, rounded down, and the widths are those of De+Recouple's public code, as in the other parts
of MFST that the thesis leaves open.

Axes: b batch, h attention heads, n tokens, d channels of one attention head, c channels of a value.

DEVIATION: eq. 2.8 has no residuals and one LayerNorm. The layer has a residual around attention and one around the MLP,
and a LayerNorm before each, as De+Recouple has: without residuals, all tokens are the same one within a few layers.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from kinema.layers.transformer import EncoderBlock

LAYER_NORM_EPS = 1e-5  # torch's default
CHUNK = 2_500_000
"""Logits that are worked on together on the CPU: few enough for its caches, enough for its threads."""

SHORT = 64
"""Tokens up to which attention to all keys is faster written out than by the fused kernel of the CPU."""


def kept_keys(n: int, share: float) -> int:
    """K for a sequence of n tokens: the share of them, rounded down, and at least one."""
    if not 0 < share <= 1:
        raise ValueError(f"share={share} is not in (0, 1]: 0.7 keeps 137 of 196 keys, 1 keeps all")
    return max(1, int(share * n))


def knn_attention(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h n d"],
    value: Float[Tensor, "b h n c"],
    *,
    share: float = 0.7,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n c"]:
    """Attention in which every row of the map keeps exactly k keys; which of equal ones, is not said.

    Logits and softmax are at least float32, under autocast too. The gradient goes through the kept logits alone.

    Args:
        query, key, value: by attention head.
        share: of the keys that a row keeps. If that is all, the result is `scaled_dot_product_attention`'s to the bit.
        dropout: probability for the attention map, whether in training or not.
    """
    n = query.shape[-2]
    kept = kept_keys(n, share)
    if kept == n:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    return _product(query, key, value, kept=kept, dropout=dropout)


def dense_attention(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h n d"],
    value: Float[Tensor, "b h n c"],
    *,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n c"]:
    """Attention to all keys, by the faster of two ways that differ in rounding."""
    n = query.shape[-2]
    if n <= SHORT and query.device.type == "cpu":
        return _product(query, key, value, kept=n, dropout=dropout)
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)


@dataclass(frozen=True, kw_only=True)
class KNNLayer:
    """What MFST's transformer layers are made of; the defaults are De+Recouple's and k-NN attention's own.

    Args:
        heads: attention heads.
        head_dim: channels of one attention head, whatever a token has.
        hidden: channels between the two layers of the MLP.
        attention: `knn`, or `dense`, to all keys: the control.
        share: of the keys that `knn` keeps, in (0, 1].
        dropout: probability for attention's output and in the MLP, in training only.
        map_dropout: probability for the attention map, in training only.
    """

    heads: int = 8
    head_dim: int = 64
    hidden: int = 768
    attention: Literal["knn", "dense"] = "knn"
    share: float = 0.7
    dropout: float = 0.0
    map_dropout: float = 0.0

    def __post_init__(self) -> None:
        kept_keys(1, self.share)  # refuses a share that keeps none, or more than there are


class KNNSelfAttention(nn.Module):
    """Multi-head self-attention to the nearest keys, MSA_knn of eq. 2.8.

    Args:
        dim: channels of a token.
        layer: of which it takes what concerns attention.
    """

    def __init__(self, dim: int, layer: KNNLayer) -> None:
        super().__init__()
        self.heads = layer.heads
        self.attention = layer.attention
        self.share = layer.share
        self.map_dropout = layer.map_dropout
        self.mapping = nn.Linear(dim, 3 * layer.heads * layer.head_dim, bias=False)
        self.out = nn.Linear(layer.heads * layer.head_dim, dim)
        self.dropout = nn.Dropout(layer.dropout)

    def forward(
        self, tokens: Float[Tensor, "b n dim"], lengths: Sequence[int] | None = None
    ) -> Float[Tensor, "b n dim"]:
        """Attention within one sequence, or within each of several, of these lengths, one behind the other."""
        mapped = rearrange(self.mapping(tokens), "b n (qkv h d) -> qkv b h n d", qkv=3, h=self.heads)
        parts = [mapped] if lengths is None else torch.split(mapped, list(lengths), dim=3)
        attended = [rearrange(self.attend(*part.unbind(0)), "b h n d -> b n (h d)") for part in parts]
        answered: Tensor = self.dropout(self.out(attended[0] if len(attended) == 1 else torch.cat(attended, dim=1)))
        return answered

    def attend(
        self, query: Float[Tensor, "b h n d"], key: Float[Tensor, "b h n d"], value: Float[Tensor, "b h n d"]
    ) -> Float[Tensor, "b h n d"]:
        rate = self.map_dropout if self.training else 0.0
        match self.attention:
            case "knn":
                return knn_attention(query, key, value, share=self.share, dropout=rate)
            case "dense":
                return dense_attention(query, key, value, dropout=rate)
            case _:
                assert_never(self.attention)


def knn_block(dim: int, layer: KNNLayer) -> EncoderBlock:
    """Return a pre-norm encoder block with k-NN attention (eq. 2.8)."""
    return EncoderBlock(
        KNNSelfAttention(dim, layer), dim=dim, hidden=layer.hidden, dropout=layer.dropout, norm_eps=LAYER_NORM_EPS
    )


def _product(query: Tensor, key: Tensor, value: Tensor, *, kept: int, dropout: float) -> Tensor:
    """Attention written out; eager on the CPU, a few sequences at a time, so that each step finds them in a cache.

    Logits are float32 at least: of bfloat16 ones many would be equal, and others the largest.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    tensors = query.to(dtype).contiguous() * query.shape[-1] ** -0.5, key.to(dtype).contiguous(), value.contiguous()
    if eager_on_cpu(query):
        chunk = max(1, CHUNK // (query.shape[1] * query.shape[2] ** 2))
        if chunk < query.shape[0]:
            parts = zip(*(torch.split(tensor, chunk) for tensor in tensors), strict=True)
            return torch.cat([_product_at_once(*part, kept=kept, dropout=dropout) for part in parts])
    return _product_at_once(*tensors, kept=kept, dropout=dropout)


def _product_at_once(query: Tensor, key: Tensor, value: Tensor, *, kept: int, dropout: float) -> Tensor:
    kind = query.device.type
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    with torch.autocast(kind, enabled=False) if autocast else contextlib.nullcontext():
        logits = query @ key.transpose(-1, -2)
    if kept < logits.shape[-1]:
        logits = _nearest(logits, kept)
    weights = logits.softmax(-1)
    if dropout:
        weights = F.dropout(weights, dropout)
    return weights.to(value.dtype) @ value


def _nearest(logits: Tensor, kept: int) -> Tensor:
    """The logits, all but the k largest of a row at minus infinity. NaN counts as large, and so is not lost.

    In eager mode they are written over behind autograd's back. That is right: the product before has no use for its
    result, and softmax hands a gradient of zero to what is at minus infinity.
    """
    if eager_on_cpu(logits):
        _drop_by_sorting(logits.detach(), kept)
        return logits
    farthest = _farthest(logits.detach(), kept)
    if _eager():
        logits.detach().scatter_(-1, farthest, -torch.inf)
        return logits
    return logits.scatter(-1, farthest, -torch.inf)


def _farthest(logits: Tensor, kept: int) -> Tensor:
    """Places of the other logits of each row."""
    return logits.topk(logits.shape[-1] - kept, largest=False, sorted=False).indices


def _drop_by_sorting(logits: Tensor, kept: int) -> None:
    """Minus infinity at `_farthest`, in place and ten times as fast: numpy sorts rows by SIMD instructions.

    Each row loses its k-th largest logit, which changes no softmax, and what is negative then is dropped. Rows where
    this would not keep exactly k, since logits are equal or not finite, are done by `_farthest`.
    """
    others = logits.shape[-1] - kept
    ordered = torch.from_numpy(np.sort(logits.numpy(), axis=-1))
    farther, nearest, largest = ordered[..., others - 1], ordered[..., others], ordered[..., -1]
    tiny = torch.finfo(logits.dtype).tiny
    unclear = ~((nearest - farther > tiny) & (largest - nearest < torch.inf))
    rows = logits[unclear]
    F.threshold(logits.sub_(nearest[..., None]), -tiny, -torch.inf, inplace=True)
    if len(rows):
        logits[unclear] = rows.scatter_(-1, _farthest(rows, kept), -torch.inf)


def eager_on_cpu(tensor: Tensor) -> bool:
    """Not under torch.compile or torch.export, where there is no numpy and shapes may be symbols."""
    return tensor.device.type == "cpu" and _eager()


def _eager() -> bool:
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]  # torch's own

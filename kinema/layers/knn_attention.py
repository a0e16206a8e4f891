"""k-NN self-attention and MFST's transformer layer (thesis section 2.3.4.1, eq. 2.8; KVT, arXiv:2106.00515).

    tokens -> norm -> k-NN attention -> + -> norm -> MLP -> +

    k-NN attention:  softmax(the k largest logits of each row of q k' / sqrt(d)) v

Each query attends to its k highest-scoring keys only, in each attention head. The thesis does not give k; the default
is 0.7 of the tokens, rounded down. Widths follow De+Recouple's public code, like other parts of MFST that the thesis
leaves open.

Axes: b batch, h attention heads, n tokens, d channels of one attention head, c channels of a value.

DEVIATION: eq. 2.8 has no residuals and one LayerNorm. Attention and MLP each have a residual and a LayerNorm before it,
as in De+Recouple: without residuals all tokens become equal within a few layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kinema.layers.transformer import EncoderBlock, without_autocast

LAYER_NORM_EPS = 1e-5
CHUNK = 2_500_000
"""Number of logits processed per block on CPU; fits the cache and keeps all threads busy."""

MAX_EXPLICIT_TOKENS = 64
"""Largest number of tokens for which explicit dense attention on CPU is faster than the fused kernel."""


def num_kept_keys(n: int, share: float) -> int:
    """Return k for a sequence of n tokens: their share, rounded down, and at least 1."""
    if not 0 < share <= 1:
        raise ValueError(f"share={share} is not in (0, 1]: 0.7 keeps 137 of 196 keys, 1 keeps all")
    return max(1, int(share * n))


def knn_attention(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h n d"],
    value: Float[Tensor, "b h n c"],
    *,
    share: float = 0.7,
) -> Float[Tensor, "b h n c"]:
    """Return k-NN attention: each query attends to exactly its k highest-scoring keys, of equal ones to the first.

    Logits and softmax are float32 or wider, also under autocast. Only kept logits get gradient. With `share=1` the
    result equals `scaled_dot_product_attention` bitwise.
    """
    n = query.shape[-2]
    k = num_kept_keys(n, share)
    if k == n:
        return F.scaled_dot_product_attention(query, key, value)
    return _attention(query, key, value, k)


def dense_attention(
    query: Float[Tensor, "b h n d"], key: Float[Tensor, "b h n d"], value: Float[Tensor, "b h n c"]
) -> Float[Tensor, "b h n c"]:
    """Return attention to all keys, by the faster of two implementations that differ in rounding."""
    n = query.shape[-2]
    if n <= MAX_EXPLICIT_TOKENS and query.device.type == "cpu":
        return _attention(query, key, value, n)
    return F.scaled_dot_product_attention(query, key, value)


@dataclass(frozen=True, kw_only=True)
class KNNLayer:
    """Settings of MFST's transformer layers. The defaults follow De+Recouple and `knn_attention`.

    Attributes:
        heads: Attention heads.
        head_dim: Channels of one attention head.
        hidden: Hidden channels of the MLP.
        attention: `knn`, or `dense` as the control.
        share: Share of the keys that `knn` keeps, in (0, 1].
        dropout: Dropout probability of the attention's output and in the MLP.
    """

    heads: int = 8
    head_dim: int = 64
    hidden: int = 768
    attention: Literal["knn", "dense"] = "knn"
    share: float = 0.7
    dropout: float = 0.0

    def __post_init__(self) -> None:
        num_kept_keys(1, self.share)  # raises ValueError for an invalid share


class KNNSelfAttention(nn.Module):
    """Multi-head k-NN self-attention, MSA_knn of eq. 2.8."""

    def __init__(self, dim: int, layer: KNNLayer) -> None:
        super().__init__()
        self.heads = layer.heads
        self.attention = layer.attention
        self.share = layer.share
        self.mapping = nn.Linear(dim, 3 * layer.heads * layer.head_dim, bias=False)
        self.out = nn.Linear(layer.heads * layer.head_dim, dim)
        self.dropout = nn.Dropout(layer.dropout)

    def forward(
        self, tokens: Float[Tensor, "b n dim"], lengths: Sequence[int] | None = None
    ) -> Float[Tensor, "b n dim"]:
        """Return the attended tokens. With `lengths`, attend within each of several concatenated sequences."""
        mapped = rearrange(self.mapping(tokens), "b n (qkv h d) -> qkv b h n d", qkv=3, h=self.heads)
        parts = [mapped] if lengths is None else torch.split(mapped, list(lengths), dim=3)
        attended = [rearrange(self.attend(*part.unbind(0)), "b h n d -> b n (h d)") for part in parts]
        output: Tensor = self.dropout(self.out(attended[0] if len(attended) == 1 else torch.cat(attended, dim=1)))
        return output

    def attend(
        self, query: Float[Tensor, "b h n d"], key: Float[Tensor, "b h n d"], value: Float[Tensor, "b h n d"]
    ) -> Float[Tensor, "b h n d"]:
        """Return the attended values of one sequence."""
        match self.attention:
            case "knn":
                return knn_attention(query, key, value, share=self.share)
            case "dense":
                return dense_attention(query, key, value)
            case _:
                assert_never(self.attention)


def knn_block(dim: int, layer: KNNLayer) -> EncoderBlock:
    """Return a pre-norm encoder block with k-NN attention (eq. 2.8)."""
    return EncoderBlock(
        KNNSelfAttention(dim, layer), dim=dim, hidden=layer.hidden, dropout=layer.dropout, norm_eps=LAYER_NORM_EPS
    )


def _attention(query: Tensor, key: Tensor, value: Tensor, k: int) -> Tensor:
    """Return explicit attention to the k highest-scoring keys; on CPU in blocks that fit the cache.

    Logits are float32 or wider: bfloat16 has many ties and ranks keys differently.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    tensors = query.to(dtype).contiguous() * query.shape[-1] ** -0.5, key.to(dtype).contiguous(), value.contiguous()
    if eager_on_cpu(query):
        chunk = max(1, CHUNK // (query.shape[1] * query.shape[2] ** 2))
        if chunk < query.shape[0]:
            parts = zip(*(torch.split(tensor, chunk) for tensor in tensors), strict=True)
            return torch.cat([_block_attention(*part, k=k) for part in parts])
    return _block_attention(*tensors, k=k)


def _block_attention(query: Tensor, key: Tensor, value: Tensor, *, k: int) -> Tensor:
    with without_autocast(query.device.type):
        logits = query @ key.transpose(-1, -2)
    if k < logits.shape[-1]:
        logits = _keep_largest(logits, k)
    return logits.softmax(-1).to(value.dtype) @ value


def _keep_largest(logits: Tensor, k: int) -> Tensor:
    """Return the logits with all but the k largest of each row set to -inf. NaN ranks as largest, so it propagates.

    Eager mode overwrites the logits in place, hidden from autograd. The gradient stays correct: the matrix product does
    not need its result for backward, and softmax passes zero gradient to logits at -inf.
    """
    if eager_on_cpu(logits):
        _drop_by_sorting(logits.detach(), k)
        return logits
    dropped = _is_dropped(logits.detach(), k)
    if _is_eager():
        logits.detach().masked_fill_(dropped, -torch.inf)
        return logits
    return logits.masked_fill(dropped, -torch.inf)


def _is_dropped(logits: Float[Tensor, "*rows n"], k: int) -> Bool[Tensor, "*rows n"]:
    """Return which logits are not among the k largest of their row. Of equal ones, the last are dropped.

    Devices order equal values of `topk` differently, so that only its values are used.
    """
    num_dropped = logits.shape[-1] - k
    largest_dropped = logits.topk(num_dropped, largest=False, sorted=False).values.amax(-1, keepdim=True)
    below, equal = logits < largest_dropped, logits == largest_dropped
    num_kept = (
        equal.sum(-1, keepdim=True, dtype=torch.int32) + below.sum(-1, keepdim=True, dtype=torch.int32) - num_dropped
    )  # of the equal ones
    return below | (equal & (equal.cumsum(-1, dtype=torch.int32) > num_kept))


def _drop_by_sorting(logits: Tensor, k: int) -> None:
    """Set the logits at `_is_dropped` to -inf in place. Ten times as fast: numpy sorts with SIMD.

    Subtracting each row's k-th largest logit does not change the softmax and makes exactly the dropped ones negative.
    Rows with ties or infinities, where this would not keep exactly k, use `_is_dropped`.
    """
    ordered = torch.from_numpy(np.sort(logits.numpy(), axis=-1))
    next_largest, kth_largest, largest = ordered[..., -k - 1], ordered[..., -k], ordered[..., -1]
    tiny = torch.finfo(logits.dtype).tiny
    is_ambiguous = ~((kth_largest - next_largest > tiny) & (largest - kth_largest < torch.inf))
    rows = logits[is_ambiguous]
    F.threshold(logits.sub_(kth_largest[..., None]), -tiny, -torch.inf, inplace=True)
    if len(rows):
        logits[is_ambiguous] = rows.masked_fill_(_is_dropped(rows, k), -torch.inf)


def eager_on_cpu(tensor: Tensor) -> bool:
    """Return whether numpy may be used: not under torch.compile or torch.export, where shapes may be symbolic."""
    return tensor.device.type == "cpu" and _is_eager()


def _is_eager() -> bool:
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]  # torch's own

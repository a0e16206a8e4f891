"""Relative position in self-attention: clusters of offsets, and their contextual bias (thesis section 3.3.3).

    e_ij = (q_i k_j + q_i p_ij) / sqrt(d),    p_ij = B[cluster of (row_i - row_j, column_i - column_j)]    eq. 3.7, 3.11

Two tokens that stand in the same relation share a learned vector p, and far relations share one, too: a function maps
an offset to a few whole numbers. `sectioned` is exact near by and logarithmic far away (eq. 3.8, 3.9); `clip` cuts off
(arXiv:1803.02155). The piecewise function, its 1 : 2 : 8 and the product of two axes are those of iRPE
(arXiv:2107.14222), which the thesis does not cite.

Axes: b batch, h attention heads, m queries, n tokens, the class token first, d channels of one attention head,
c clusters.

DEVIATION: eq. 3.10 puts the Euclidean distance of two tokens into s, which is one number and gives 2y + 2 clusters; the
text counts (2y + 1)^2 and one for the class token, 50, which only the offsets along both axes give (eq. 3.11). These
are the default; `euclid` is the other.
DEVIATION: in eq. 3.7 p has d_z channels, those of one attention head here, since queries have no more.
"""

import math
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.layers.transformer import EncoderBlock, Rows, drop_path_rates

MappingFunction = Literal["sectioned", "clip"]
Distance = Literal["axes", "euclid"]
Terms = Literal["query", "query-key", "query-key-value"]
Sharing = Literal["shared", "per-head"]
RATIOS = {1: 0.9, 2: 1.0, 3: 1.9, 4: 2.4, 5: 2.9, 6: 3.4}
"""Largest value of s -> b, with which offsets up to 13, those of 14 x 14 patches, reach every value up to it."""

LARGEST_CLIP = 13
"""Largest offset on a grid of 14 x 14."""


def sectioned(offset: Float[Tensor, "*shape"] | Int64[Tensor, "*shape"], ratio: float) -> Int64[Tensor, "*shape"]:
    """S of eq. 3.8 and 3.9 with b : y : a = 1 : 2 : 8: odd, not decreasing, 0 at 0, and at most y rounded down.

    Args:
        offset: between two tokens.
        ratio: b, up to which an offset keeps its own number; y is twice and a eight times as much.
    """
    distance = offset.abs()
    if not distance.is_floating_point():
        distance = distance.float()  # not every accelerator has float64, and no whole offset falls between two values
    far = ratio + (distance.clamp(min=ratio) / ratio).log() / math.log(8) * ratio
    near = torch.where(distance <= ratio, distance, far)
    return (near.round().clamp(max=math.floor(2 * ratio)) * offset.sign()).long()


def clipped(offset: Float[Tensor, "*shape"] | Int64[Tensor, "*shape"], limit: int) -> Int64[Tensor, "*shape"]:
    """max(-k, min(k, x)), the function that s is compared with (Table 3.2)."""
    return offset.clamp(-limit, limit).round().long()


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Which offsets share a vector.

    Args:
        count: vectors of two tokens in a frame, that of the class token among them.
        function: from an offset to a whole number in [-reach, reach].
        distance: `axes` takes rows and columns apart, `euclid` the straight line between two tokens.
    """

    count: int = 50
    function: MappingFunction = "sectioned"
    distance: Distance = "axes"

    def __post_init__(self) -> None:
        if self.count not in self.reachable:
            there = ", ".join(map(str, self.reachable))
            raise ConfigError(
                f"clusters={self.count} is not possible with function={self.function}, distance={self.distance}; "
                f"expected one of {there}",
                field="clusters",
            )

    @property
    def reachable(self) -> tuple[int, ...]:
        """Counts of this function and distance."""
        reaches = RATIOS if self.function == "sectioned" else range(1, LARGEST_CLIP + 1)
        return tuple((2 * reach + 1) ** (2 if self.distance == "axes" else 1) + 1 for reach in reaches)

    @property
    def reach(self) -> int:
        """Largest value of the function, y rounded down or k."""
        return self.reachable.index(self.count) + 1

    @property
    def count_in_time(self) -> int:
        """Vectors of two frames, that of the class token among them."""
        return 2 * self.reach + 2

    def mapped(self, offset: Float[Tensor, "*shape"] | Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
        """The function's value, raised to begin at 0."""
        match self.function:
            case "sectioned":
                return sectioned(offset, RATIOS[self.reach]) + self.reach
            case "clip":
                return clipped(offset, self.reach) + self.reach
            case _:
                assert_never(self.function)

    def between(self, rows: Int64[Tensor, "*shape"], columns: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
        """The cluster of two patches so far apart (D of eq. 3.10, the index of eq. 3.11)."""
        match self.distance:
            case "axes":
                return self.mapped(rows) * (2 * self.reach + 1) + self.mapped(columns)
            case "euclid":
                return self.mapped((rows**2 + columns**2).float().sqrt())
            case _:
                assert_never(self.distance)

    def on_grid(self, rows: int, columns: int, device: torch.device | None = None) -> Int64[Tensor, "n n"]:
        """The cluster of each pair of tokens of a frame; a pair with the class token, which is first, has the last."""
        row = torch.arange(rows, device=device).repeat_interleave(columns)
        column = torch.arange(columns, device=device).repeat(rows)
        patches = self.between(row[:, None] - row, column[:, None] - column)
        return F.pad(patches, (1, 0, 1, 0), value=self.count - 1)

    def in_time(self, times: Int64[Tensor, "*batch frames"]) -> Int64[Tensor, "*batch n n"]:
        """The same of frames, by their numbers in the clip; frames between them may have been left out."""
        patches = self.mapped(times[..., :, None] - times[..., None, :])
        return F.pad(patches, (1, 0, 1, 0), value=self.count_in_time - 1)

    def map_from(self, row: int, column: int, *, rows: int, columns: int) -> Int64[Tensor, "rows columns"]:
        """The clusters of all patches as seen from one (figure 3.5).

        Raises:
            ValueError: the patch lies outside the grid.
        """
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(f"there is no patch ({row}, {column}) on a grid of {rows} x {columns}")
        return self.on_grid(rows, columns)[1 + row * columns + column, 1:].view(rows, columns)


class RelativePosition(nn.Module):
    """The vectors of the clusters, and attention with them. At the start they are zero: attention without position.

    Args:
        clusters: how many.
        heads: attention heads.
        head_dim: channels of one.
        sharing: one table for all attention heads, or one each.
        terms: what meets a vector of its own: queries (eq. 3.7); queries and keys (eq. 3.6); values, too (eq. 3.5).
    """

    def __init__(self, clusters: int, *, heads: int, head_dim: int, sharing: Sharing, terms: Terms = "query") -> None:
        super().__init__()
        shape = (1 if sharing == "shared" else heads, clusters, head_dim)
        self.table_on_query = nn.Parameter(torch.zeros(shape))  # p of eq. 3.7, R^K of eq. 3.6
        self.table_on_key = nn.Parameter(torch.zeros(shape)) if terms != "query" else None  # R^Q of eq. 3.6
        self.table_on_value = nn.Parameter(torch.zeros(shape)) if terms == "query-key-value" else None  # R^V of eq. 3.5

    def bias(
        self,
        query: Float[Tensor, "b h m d"],
        key: Float[Tensor, "b h n d"],
        ids: Int64[Tensor, "#b #h m n"],
        scale: float = 1.0,
    ) -> Float[Tensor, "b h m n"]:
        """What position adds to the products of queries and keys, times `scale`.

        A query meets each cluster once, and its products are handed to the pairs: n x c, never n x n x d, numbers.
        """
        on_query = (self.table_on_query * scale).to(query.dtype)
        pairs = (*query.shape[:2], *ids.shape[-2:])
        added = (query @ on_query.transpose(-1, -2)).gather(-1, ids.expand(pairs))
        if self.table_on_key is not None:
            on_key = (self.table_on_key * scale).to(key.dtype)
            from_clusters = (key @ on_key.transpose(-1, -2)).transpose(-1, -2)  # b h c n
            added = added + from_clusters.gather(-2, ids.expand(pairs))
            constant = (self.table_on_query.to(key.dtype) * on_key).sum(-1)[None, :, None, :]  # R^Q R^K, one a cluster
            added = added + constant.expand(*pairs[:-1], -1).gather(-1, ids.expand(pairs))
        return added

    def values(
        self, weights: Float[Tensor, "b h m n"], value: Float[Tensor, "b h n d"], ids: Int64[Tensor, "#b #h m n"]
    ) -> Float[Tensor, "b h m d"]:
        """Sums of values by an attention map, and of the vectors that values have for their clusters (eq. 3.5)."""
        attended = weights @ value
        if self.table_on_value is None:
            return attended
        table = self.table_on_value.to(weights.dtype)
        by_cluster = weights.new_zeros(*weights.shape[:-1], table.shape[-2])
        return attended + by_cluster.scatter_add(-1, ids.expand(weights.shape), weights) @ table

    def forward(
        self,
        query: Float[Tensor, "b h m d"],
        key: Float[Tensor, "b h n d"],
        value: Float[Tensor, "b h n d"],
        ids: Int64[Tensor, "#b #h m n"],
        dropout: float = 0.0,
    ) -> Float[Tensor, "b h m d"]:
        """Attention; `ids` are the clusters of the queries' tokens and the keys'."""
        scale = query.shape[-1] ** -0.5
        if self.table_on_value is None:
            bias = self.bias(query, key, ids, scale)
            return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        weights = ((query @ key.transpose(-1, -2) + self.bias(query, key, ids)) * scale).softmax(-1)
        return self.values(F.dropout(weights, dropout), value, ids)


class RelativeSelfAttention(nn.Module):
    """Multi-head self-attention, in which queries may know where keys stand (figure 3.3, eq. 3.7).

    Args:
        dim: channels of a token.
        heads: attention heads.
        head_dim: channels of one attention head.
        clusters: number of relative positions; None for attention without position, as ViT has it.
        sharing, terms: as `RelativePosition`.
        dropout: probability for the attention map and for the output, in training only.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        head_dim: int,
        clusters: int | None = None,
        sharing: Sharing = "shared",
        terms: Terms = "query",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.inner = heads * head_dim
        self.mapping = nn.Linear(dim, 3 * self.inner)
        self.position = (
            None
            if clusters is None
            else RelativePosition(clusters, heads=heads, head_dim=head_dim, sharing=sharing, terms=terms)
        )
        self.out = nn.Linear(self.inner, dim)
        self.dropout = dropout

    def forward(
        self, tokens: Float[Tensor, "b n d"], ids: Int64[Tensor, "#b #h n n"] | None, rows: Rows = "all"
    ) -> Float[Tensor, "b m d"]:
        """All rows, or that of the class token alone."""
        if rows == "class":
            weight, bias = self.mapping.weight, self.mapping.bias
            query = self._apart(F.linear(tokens[:, :1], weight[: self.inner], bias[: self.inner]), 1)[0]
            key, value = self._apart(F.linear(tokens, weight[self.inner :], bias[self.inner :]), 2)
            ids = None if ids is None else ids[..., :1, :]
        else:
            query, key, value = self._apart(self.mapping(tokens), 3)
        rate = self.dropout if self.training else 0.0
        if self.position is None or ids is None:
            attended = F.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        else:
            attended = self.position(query, key, value, ids, rate)
        return self.answer(attended)

    def map(
        self, tokens: Float[Tensor, "b n d"], ids: Int64[Tensor, "#b #h n n"] | None
    ) -> tuple[Float[Tensor, "b h n n"], Float[Tensor, "b h n c"]]:
        """The logits of the attention map and the values, for who looks at the map before it is used."""
        query, key, value = self._apart(self.mapping(tokens), 3)
        logits = query @ key.transpose(-1, -2)
        if self.position is not None and ids is not None:
            logits = logits + self.position.bias(query, key, ids)
        return logits * query.shape[-1] ** -0.5, value

    def by_map(
        self,
        weights: Float[Tensor, "b h m n"],
        value: Float[Tensor, "b h n c"],
        ids: Int64[Tensor, "#b #h m n"] | None,
    ) -> Float[Tensor, "b m d"]:
        """The answer of some rows of the map."""
        weights = F.dropout(weights, self.dropout, self.training)
        if self.position is None or ids is None:
            return self.answer(weights @ value)
        return self.answer(self.position.values(weights, value, ids))

    def answer(self, attended: Float[Tensor, "b h m c"]) -> Float[Tensor, "b m d"]:
        return F.dropout(self.out(rearrange(attended, "b h m c -> b m (h c)")), self.dropout, self.training)

    def _apart(self, mapped: Tensor, parts: int) -> tuple[Tensor, ...]:
        return rearrange(mapped, "b n (qkv h c) -> qkv b h n c", qkv=parts, h=self.heads).unbind(0)


def vit_blocks(
    width: int, *, depth: int, heads: int, mlp_ratio: int, dropout: float, drop_path: float
) -> nn.ModuleList:
    """Return the encoder blocks of ViT: no position inside attention, drop-path that rises from the first block."""
    return nn.ModuleList(
        EncoderBlock(
            RelativeSelfAttention(width, heads=heads, head_dim=width // heads, dropout=dropout),
            dim=width,
            hidden=mlp_ratio * width,
            dropout=dropout,
            drop_path=rate,
        )
        for rate in drop_path_rates(drop_path, depth)
    )

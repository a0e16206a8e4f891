"""Contextual relative position in self-attention: clusters of offsets and their bias (thesis section 3.3.3).

    e_ij = (q_i k_j + q_i p_ij) / sqrt(d),    p_ij = B[cluster of (row_i - row_j, column_i - column_j)]    eq. 3.7, 3.11

Pairs of tokens with the same offset share a learned vector p, and so do similar large offsets: a function maps offsets
to a few integers. `sectioned` is exact nearby and logarithmic far away (eq. 3.8, 3.9); `clip` truncates
(arXiv:1803.02155). The piecewise function, its 1 : 2 : 8 and the product of two axes are iRPE's (arXiv:2107.14222),
which the thesis does not cite.

Axes: b batch, h attention heads, m queries, n tokens, the class token first, d channels of one attention head,
c clusters.

DEVIATION: eq. 3.10 applies s to the Euclidean distance of two tokens, which gives 2y + 2 clusters. The text counts
(2y + 1)^2 and one for the class token, 50, which requires the offsets along both axes (eq. 3.11), the default here.
`euclid` follows eq. 3.10; `euclid-rounded` rounds the distance before applying s, as iRPE does: of 8 clusters, (2, 3)
is in 5 with the one and in 6 with the other.
DEVIATION: 1 : 2 : 8 with 50 clusters gives y = 3 and b = 1.5 (`ratio="printed"`). The default is iRPE's b = 1.9, with
y = 3.8 rounded down: it is that of public code, and no offset is a tie. Offsets 4, 5 and 6 map to 3 with b = 1.9 and to
2 with b = 1.5, where 6 is an exact tie at 2.5, rounded to even.
DEVIATION: in eq. 3.7 p has d_z channels. Here it has those of one attention head, like the queries.
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
from kinema.layers.transformer import Rows, without_autocast

MappingFunction = Literal["sectioned", "clip"]
Ratio = Literal["irpe", "printed"]
"""Largest offset that s maps to itself: iRPE's (`RATIOS`), or half of the largest value, for b : y : a = 1 : 2 : 8."""
Distance = Literal["axes", "euclid", "euclid-rounded"]
Terms = Literal["query", "query-key", "query-key-value"]
"""Terms with a table of relative position: query (eq. 3.7), query and key (eq. 3.6), also value (eq. 3.5)."""
Sharing = Literal["shared", "per-head"]
"""One table for all attention heads, or one per head."""
RATIOS = {1: 0.9, 2: 1.0, 3: 1.9, 4: 2.4, 5: 2.9, 6: 3.4}
"""Largest value of s -> b. With these, the offsets of 14 x 14 patches reach every value."""

TIE = 1e-5
"""Margin by which a logarithm at a tie is rounded down, to even: only offset 6 with b = 1.5 is at one."""

LARGEST_CLIP = 13
"""Largest offset on a grid of 14 x 14."""


def sectioned(offset: Float[Tensor, "*shape"] | Int64[Tensor, "*shape"], ratio: float) -> Int64[Tensor, "*shape"]:
    """Return s(offset) of eq. 3.8 and 3.9 with b : y : a = 1 : 2 : 8: odd, non-decreasing, at most y rounded down.

    Args:
        offset: Offset between two tokens.
        ratio: b, the largest offset that s maps to itself.
    """
    distance = offset.abs()
    if not distance.is_floating_point():
        distance = distance.float()  # some accelerators lack float64, and no integer offset is near a tie
    far = ratio + (distance.clamp(min=ratio) / ratio).log() / math.log(8) * ratio
    near = torch.where(distance <= ratio, distance, far - TIE)
    return (near.round().clamp(max=math.floor(2 * ratio)) * offset.sign()).long()


def clipped(offset: Float[Tensor, "*shape"] | Int64[Tensor, "*shape"], limit: int) -> Int64[Tensor, "*shape"]:
    """Return max(-limit, min(limit, offset)), the baseline of Table 3.2."""
    return offset.clamp(-limit, limit).round().long()


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Assignment of token offsets to clusters that share a vector.

    Attributes:
        count: Number of clusters in a frame, including the class token's.
        function: Mapping of an offset to an integer in [-reach, reach].
        distance: Offsets along both `axes`, or the `euclid` distance of two tokens, which `euclid-rounded` rounds.
        ratio: Largest offset that `sectioned` maps to itself: `irpe`, or `printed`, exactly 1 : 2 : 8.
    """

    count: int = 50
    function: MappingFunction = "sectioned"
    distance: Distance = "axes"
    ratio: Ratio = "irpe"

    def __post_init__(self) -> None:
        if self.count not in self.possible_counts:
            raise ConfigError(
                f"clusters={self.count} is not possible with function={self.function}, distance={self.distance}; "
                f"expected one of {', '.join(map(str, self.possible_counts))}",
                field="clusters",
            )

    @property
    def possible_counts(self) -> tuple[int, ...]:
        """Counts that this function and distance can produce."""
        reaches = RATIOS if self.function == "sectioned" else range(1, LARGEST_CLIP + 1)
        return tuple((2 * reach + 1) ** (2 if self.distance == "axes" else 1) + 1 for reach in reaches)

    @property
    def reach(self) -> int:
        """Largest value of the function: y rounded down, or k."""
        return self.possible_counts.index(self.count) + 1

    @property
    def temporal_count(self) -> int:
        """Number of clusters among frames, including the class token's."""
        return 2 * self.reach + 2

    def map_offset(self, offset: Float[Tensor, "*shape"] | Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
        """Return the function's value, shifted to [0, 2 * reach]."""
        match self.function:
            case "sectioned":
                ratio = RATIOS[self.reach] if self.ratio == "irpe" else self.reach / 2
                return sectioned(offset, ratio) + self.reach
            case "clip":
                return clipped(offset, self.reach) + self.reach
            case _:
                assert_never(self.function)

    def cluster_of(self, rows: Int64[Tensor, "*shape"], columns: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
        """Return the cluster of two patches with this offset (D of eq. 3.10, the index of eq. 3.11)."""
        match self.distance:
            case "axes":
                return self.map_offset(rows) * (2 * self.reach + 1) + self.map_offset(columns)
            case "euclid":
                return self.map_offset((rows**2 + columns**2).float().sqrt())
            case "euclid-rounded":
                return self.map_offset((rows**2 + columns**2).float().sqrt().round())
            case _:
                assert_never(self.distance)

    def on_grid(
        self, rows: int, columns: int, registers: int = 0, *, device: torch.device | None = None
    ) -> Int64[Tensor, "n n"]:
        """Return the cluster of each pair of tokens of a frame.

        Pairs with the class token or one of the register tokens, which follow it, share the last one.
        """
        row = torch.arange(rows, device=device).repeat_interleave(columns)
        column = torch.arange(columns, device=device).repeat(rows)
        patches = self.cluster_of(row[:, None] - row, column[:, None] - column)
        return F.pad(patches, (1 + registers, 0, 1 + registers, 0), value=self.count - 1)

    def on_times(self, times: Int64[Tensor, "*batch frames"]) -> Int64[Tensor, "*batch n n"]:
        """Return the cluster of each pair of frames, by their numbers in the clip, and of the class token."""
        frames = self.map_offset(times[..., :, None] - times[..., None, :])
        return F.pad(frames, (1, 0, 1, 0), value=self.temporal_count - 1)

    def map_from(self, row: int, column: int, *, rows: int, columns: int) -> Int64[Tensor, "rows columns"]:
        """Return the clusters of all patches relative to one (figure 3.5).

        Raises:
            ValueError: The patch lies outside the grid.
        """
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(f"patch ({row}, {column}) is outside the grid of {rows} x {columns}")
        return self.on_grid(rows, columns)[1 + row * columns + column, 1:].view(rows, columns)


class RelativePosition(nn.Module):
    """Tables of relative position, and attention with them. Zero at initialization: attention without position."""

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
        """Return the position terms of the logits, times `scale`.

        Each query is multiplied with each cluster once, and the products are gathered: memory is n x c, not n x n x d.
        """
        on_query = (self.table_on_query * scale).to(query.dtype)
        pairs = (*query.shape[:2], *ids.shape[-2:])
        bias = (query @ on_query.transpose(-1, -2)).gather(-1, ids.expand(pairs))
        if self.table_on_key is not None:
            on_key = (self.table_on_key * scale).to(key.dtype)
            from_clusters = (key @ on_key.transpose(-1, -2)).transpose(-1, -2)  # b h c n
            bias = bias + from_clusters.gather(-2, ids.expand(pairs))
            constant = (self.table_on_query.to(key.dtype) * on_key).sum(-1)[None, :, None, :]  # R^Q R^K per cluster
            bias = bias + constant.expand(*pairs[:-1], -1).gather(-1, ids.expand(pairs))
        return bias

    def attend(
        self, weights: Float[Tensor, "b h m n"], value: Float[Tensor, "b h n d"], ids: Int64[Tensor, "#b #h m n"]
    ) -> Float[Tensor, "b h m d"]:
        """Return the weighted sums of the values and, with a value table, of its vectors (eq. 3.5)."""
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
        """Return the attended values; `ids` are the clusters of query-key pairs."""
        scale = query.shape[-1] ** -0.5
        if self.table_on_value is None:
            bias = self.bias(query, key, ids, scale)
            return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        weights = ((query @ key.transpose(-1, -2) + self.bias(query, key, ids)) * scale).softmax(-1)
        return self.attend(F.dropout(weights, dropout), value, ids)


class RelativeSelfAttention(nn.Module):
    """Multi-head self-attention with relative position (figure 3.3, eq. 3.7); plain ViT's with `clusters=None`."""

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
        """Return the attended tokens of the selected rows; `ids` are the clusters of token pairs."""
        if rows == "class":
            weight, bias = self.mapping.weight, self.mapping.bias
            query = self._split(F.linear(tokens[:, :1], weight[: self.inner], bias[: self.inner]), 1)[0]
            key, value = self._split(F.linear(tokens, weight[self.inner :], bias[self.inner :]), 2)
            ids = None if ids is None else ids[..., :1, :]
        else:
            query, key, value = self._split(self.mapping(tokens), 3)
        rate = self.dropout if self.training else 0.0
        if self.position is None or ids is None:
            attended = F.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        else:
            attended = self.position(query, key, value, ids, rate)
        return self._project(attended)

    def logits_and_values(
        self, tokens: Float[Tensor, "b n d"], ids: Int64[Tensor, "#b #h n n"] | None
    ) -> tuple[Float[Tensor, "b h n n"], Float[Tensor, "b h n c"]]:
        """Return the logits of the attention map, and the values, to inspect the map before `attend`.

        Logits are float32 or wider, also under autocast: rounded to bfloat16, they rank frames differently.
        """
        query, key, value = self._split(self.mapping(tokens), 3)
        query, key = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (query, key))
        with without_autocast(tokens.device.type):
            logits = query @ key.transpose(-1, -2)
            if self.position is not None and ids is not None:
                logits = logits + self.position.bias(query, key, ids)
        return logits * query.shape[-1] ** -0.5, value

    def attend(
        self,
        weights: Float[Tensor, "b h m n"],
        value: Float[Tensor, "b h n c"],
        ids: Int64[Tensor, "#b #h m n"] | None,
    ) -> Float[Tensor, "b m d"]:
        """Return the attended tokens for some rows of the attention map."""
        weights = F.dropout(weights, self.dropout, self.training)
        if self.position is None or ids is None:
            return self._project(weights @ value)
        return self._project(self.position.attend(weights, value, ids))

    def _project(self, attended: Float[Tensor, "b h m c"]) -> Float[Tensor, "b m d"]:
        return F.dropout(self.out(rearrange(attended, "b h m c -> b m (h c)")), self.dropout, self.training)

    def _split(self, mapped: Tensor, parts: int) -> tuple[Tensor, ...]:
        return rearrange(mapped, "b n (qkv h c) -> qkv b h n c", qkv=parts, h=self.heads).unbind(0)

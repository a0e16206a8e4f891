"""Transformer building blocks: self-attention, encoder block, patches, class token, learned position, task heads.

The thesis builds on ViT (arXiv:2010.11929) and ViViT (arXiv:2103.15691), as sections 3.3.1 (eq. 3.1) and 4.3.1 (eq.
4.1 to 4.4) describe them. Operators that the thesis proposes have their own files.

Axes: n tokens, c channels, h attention heads, d channels of one attention head.
"""

import contextlib
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, assert_never, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from kinema.errors import ClipError

Grid = tuple[int, int, int]
"""Token grid: times, rows, columns."""

Rows = Literal["all", "class"]
"""Rows of the attention map to compute."""

NormOrder = Literal["pre", "post"]
Start = Literal["vit", "scratch"]
HeadKind = Literal["linear", "mlp"]
"""Task head: one linear layer, or an MLP with a hidden layer as wide as the features."""

VIT_NORM_EPS = 1e-6
"""Epsilon of ViT's LayerNorms."""


def select_rows(tokens: Float[Tensor, "batch n dim"], rows: Rows) -> Float[Tensor, "batch m dim"]:
    """Return the tokens whose rows are computed: all, or only the class token, which is first."""
    return tokens[:, :1] if rows == "class" else tokens


class DropPath(nn.Module):
    """Stochastic depth (arXiv:1603.09382): drops a branch per sample in training and rescales the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"DropPath: rate={rate} is not in [0, 1)")
        self.rate = rate

    def forward(self, branch: Float[Tensor, " batch *rest"]) -> Float[Tensor, " batch *rest"]:
        """Return the branch, dropped for a random share of the samples."""
        if not self.training or self.rate == 0:
            return branch
        keep = 1 - self.rate
        mask = branch.new_empty(branch.shape[0], *(1 for _ in branch.shape[1:])).bernoulli_(keep)
        return branch * (mask / keep)


class MLP(nn.Module):
    """Feed-forward network of an encoder block (eq. 4.4): two linear layers with GELU between them."""

    def __init__(self, dim: int, *, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Apply the MLP to each token."""
        hidden = self.expand(tokens)
        # Without gradients, GELU runs in place and the block's largest map is allocated once: 6 % of RPE-STDT's time.
        # Not while tracing, whose check compares the results of two runs.
        traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # torch has no types for it
        hidden = F.gelu(hidden) if torch.is_grad_enabled() or traced else torch.ops.aten.gelu_(hidden)
        contracted: Tensor = self.dropout(self.contract(self.dropout(hidden)))
        return contracted


class LinearMapping(nn.Module):
    """Linear mapping of tokens to queries, keys and values, as in ViT and ViViT (figure 4.3)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))

    def forward(
        self, tokens: Float[Tensor, "batch n dim"], grid: Grid | None = None, rows: Rows = "all"
    ) -> tuple[Float[Tensor, "batch m dim"], Float[Tensor, "batch n dim"], Float[Tensor, "batch n dim"]]:
        """Return the queries of the selected rows, and all keys and values. The grid is ignored."""
        del grid
        return self.query(select_rows(tokens, rows)), self.key(tokens), self.value(tokens)


class SelfAttention(nn.Module):
    """Multi-head self-attention (eq. 4.3) over the token axis.

    DEVIATION: eq. 4.3 divides the logits by sqrt(C). Here it is the square root of one attention head's channels,
    sqrt(64) in the base models, as the ImageNet weights that the thesis starts from were trained.

    Args:
        mapping: Module (tokens, grid, rows) -> queries of these rows, keys and values of all tokens.
        dim: Channels of input and output.
        heads: Attention heads. Must divide `dim`.
        dropout: Dropout probability of the attention map and of the output.
    """

    def __init__(self, mapping: nn.Module, *, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"SelfAttention: dim={dim} is not divisible by heads={heads}")
        self.heads = heads
        self.dropout = dropout
        self.mapping = mapping
        self.out = nn.Linear(dim, dim)

    def forward(
        self, tokens: Float[Tensor, "batch n dim"], grid: Grid | None = None, rows: Rows = "all"
    ) -> Float[Tensor, "batch m dim"]:
        """Return the attended tokens of the selected rows."""
        query, key, value = (
            rearrange(mapped, "b n (h d) -> b h n d", h=self.heads) for mapped in self.mapping(tokens, grid, rows)
        )
        rate = self.dropout if self.training else 0.0  # scaled_dot_product_attention ignores .training
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        return F.dropout(self.out(rearrange(attended, "b h n d -> b n (h d)")), rate)


class EncoderBlock(nn.Module):
    """Transformer encoder block: attention, then MLP, each with LayerNorm and a residual.

    Args:
        attention: Module (tokens, context) -> tokens. With a third argument "class", it returns only that row.
        dim: Channels of a token.
        hidden: Hidden channels of the MLP.
        dropout: Dropout probability of the MLP.
        drop_path: Drop-path probability of both branches.
        norm_order: LayerNorm before the branch (`pre`, ViT's) or after the sum (`post`, eq. 4.1 and 4.2).
        norm_eps: Epsilon of LayerNorm.
    """

    def __init__(
        self,
        attention: nn.Module,
        *,
        dim: int,
        hidden: int,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        norm_order: NormOrder = "pre",
        norm_eps: float = VIT_NORM_EPS,
    ) -> None:
        super().__init__()
        self.norm_order = norm_order
        self.norm_attention = nn.LayerNorm(dim, eps=norm_eps)
        self.attention = attention
        self.norm_mlp = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = MLP(dim, hidden=hidden, dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, tokens: Float[Tensor, "batch n dim"], context: Any = None, rows: Rows = "all"
    ) -> Float[Tensor, "batch m dim"]:
        """Return the tokens of the selected rows after the block.

        Args:
            tokens: Tokens; the class token, if any, is first.
            context: Second argument of the attention: a grid, clusters of positions, or lengths of sequences.
            rows: Rows to compute.
        """
        arguments = (context,) if rows == "all" else (context, rows)
        residual = select_rows(tokens, rows)
        match self.norm_order:
            case "pre":
                tokens = residual + self.drop_path(self.attention(self.norm_attention(tokens), *arguments))
                tokens = tokens + self.drop_path(self.mlp(self.norm_mlp(tokens)))
            case "post":
                tokens = self.norm_attention(residual + self.drop_path(self.attention(tokens, *arguments)))  # eq. 4.1
                tokens = self.norm_mlp(tokens + self.drop_path(self.mlp(tokens)))  # eq. 4.2
            case _:
                assert_never(self.norm_order)
        return tokens


def run_blocks(
    blocks: nn.ModuleList, tokens: Float[Tensor, "batch n dim"], context: Any, last_block: Rows
) -> Float[Tensor, "batch m dim"]:
    """Return the tokens after all blocks. The last block may compute the class token's row only."""
    for number, block in enumerate(blocks, start=1):
        tokens = block(tokens, context, last_block if number == len(blocks) else "all")
    return tokens


def drop_path_rates(highest: float, depth: int) -> list[float]:
    """Return the drop-path rate of each block, rising linearly from 0 at the first."""
    return [highest * block / max(depth - 1, 1) for block in range(depth)]


def check_at_least(name: str, value: int, least: int = 1) -> None:
    """Raise ClipError if a clip has fewer channels, frames or pixels than `least`."""
    if value < least:
        raise ClipError(f"{name}={value}; expected at least {least}", field=name)


def check_channels(channels: int, expected: int) -> None:
    """Raise ClipError if a clip does not have the channels that the network was built for."""
    if channels != expected:
        raise ClipError(f"channels={channels}; expected {expected}, as the network was built", field="channels")


def patch_grid(patch: int, *, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of patches of a frame, or raise ClipError if it does not divide into patches."""
    return tubelet_grid((1, patch, patch), frames=1, height=height, width=width)[1:]


def tubelet_grid(tubelet: Grid, *, frames: int, height: int, width: int) -> Grid:
    """Return the times, rows and columns of tubelets, or raise ClipError if a clip does not divide into them."""
    names = ("frames", "size", "size") if height == width else ("frames", "height", "width")
    for name, length, stride in zip(names, (frames, height, width), tubelet, strict=True):
        if length < stride or length % stride:
            raise ClipError(
                f"{name}={length}; expected a multiple of {stride}: {stride}, {2 * stride}, {3 * stride}, ...",
                field=name,
            )
    times, rows, columns = tubelet
    return frames // times, height // rows, width // columns


class FrameTokens(nn.Module):
    """Patch embedding of each frame, E x of eq. 3.1."""

    def __init__(self, *, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "bt n d"]:
        """Return the tokens of each frame.

        Raises:
            ClipError: The clip has the wrong number of channels, no frames, or does not divide into patches.
        """
        check_channels(clip.shape[1], self.patches.in_channels)
        check_at_least("frames", clip.shape[2])
        patch_grid(self.patch, height=clip.shape[-2], width=clip.shape[-1])
        tokens: Tensor = rearrange(self.patches(rearrange(clip, "b c t h w -> (b t) c h w")), "bt d h w -> bt (h w) d")
        return tokens


class Tubelets(nn.Module):
    """ViViT's tubelet embedding: blocks of frames, rows and columns as tokens (arXiv:2103.15691, section 3.2)."""

    def __init__(self, *, channels: int, tubelet: Grid, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv3d(channels, width, tubelet, stride=tubelet)

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d times rows columns"]:
        """Return the tokens on their grid. Raise ClipError if the clip has the wrong number of channels."""
        check_channels(clip.shape[1], self.patches.in_channels)
        tokens: Tensor = self.patches(clip)
        return tokens


class LearnedPosition(nn.Module):
    """Learned position table for the class token and each cell of a token grid.

    The grid of the table is (times,), (rows, columns), or (times, rows, columns).
    """

    def __init__(self, table_grid: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.table_grid = table_grid
        self.table = nn.Parameter(torch.zeros(1 + math.prod(table_grid), dim))

    def forward(self, tokens: Float[Tensor, "b n d"], grid: tuple[int, ...]) -> Float[Tensor, "b n d"]:
        """Add the positions, interpolated if the grid is not that of the table."""
        if grid == self.table_grid:
            return tokens + self.table
        return tokens + torch.cat((self.table[:1], interpolate_position(self.table[1:], self.table_grid, grid)))


def sinusoidal_position(
    length: int, dim: int, *, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "{length} {dim}"]:
    """Return sinusoidal positions from 0: sines in even channels (eq. 2.9), cosines in odd ones (eq. 2.10)."""
    precise = torch.float32 if device.type == "mps" else torch.float64
    frequencies = 10000 ** (torch.arange(0, dim, 2, dtype=precise, device=device) / -dim)
    angles = torch.arange(length, dtype=precise, device=device)[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :dim].to(dtype)


class SinusoidalPosition(nn.Module):
    """Sinusoidal positions of the class token and of all others in order, as the text under eq. 3.1 describes P."""

    def forward(self, tokens: Float[Tensor, "b n d"], grid: tuple[int, ...]) -> Float[Tensor, "b n d"]:
        """Add the positions, which count from 0, the class token. The grid is ignored."""
        del grid
        return tokens + sinusoidal_position(*tokens.shape[1:], dtype=tokens.dtype, device=tokens.device)


def interpolate_position(
    table: Float[Tensor, "n d"], table_grid: tuple[int, ...], grid: tuple[int, ...], *, antialias: bool = False
) -> Float[Tensor, "m d"]:
    """Return the positions interpolated to another grid: linearly in time, then bicubically in space."""
    if len(table_grid) != 2 and table_grid[0] != grid[0]:
        times = rearrange(table, "(t n) d -> 1 (n d) t", t=table_grid[0])
        times = F.interpolate(times, size=grid[0], mode="linear", align_corners=False)
        table = rearrange(times, "1 (n d) t -> (t n) d", d=table.shape[1])
    if len(table_grid) != 1 and table_grid[-2:] != grid[-2:]:
        maps = rearrange(table, "(t h w) d -> t d h w", h=table_grid[-2], w=table_grid[-1])
        maps = F.interpolate(maps, size=grid[-2:], mode="bicubic", align_corners=False, antialias=antialias)
        table = rearrange(maps, "t d h w -> (t h w) d")
    return table


class ClassToken(nn.Module):
    """Learned class token, prepended to the others."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n+1 dim"]:
        """Prepend the class token."""
        first = self.token.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        return torch.cat((first, tokens), dim=1)


class TaskHeads(nn.Module):
    """Classifiers, one per task, such as verb and noun of Epic-Kitchens (section 4.4.2).

    DEVIATION: sections 2.3.1 and 3.3 speak of an MLP head. The default is one linear layer, as in UMDR's code and as
    ViT is fine-tuned. `mlp` has a hidden layer, whose width and GELU are ours.

    Args:
        dim: Channels of the features.
        heads: Number of classes of each task head.
        kind: `linear`, or `mlp` with a hidden layer as wide as the features.
    """

    def __init__(self, dim: int, heads: Mapping[str, int], kind: HeadKind = "linear") -> None:
        super().__init__()
        if not heads:
            raise ValueError('TaskHeads: heads is empty; expected at least one, like {"label": 48}')
        for name, classes in heads.items():
            if not name or "." in name:
                raise ValueError(f"TaskHeads: invalid name {name!r}; expected a non-empty name without a period")
            if classes < 1:
                raise ValueError(f"TaskHeads: task head {name!r} has {classes} classes; expected at least 1")
        self.names = tuple(heads)
        # The prefix allows any name for a task, even `type` or `keys`, which nn.ModuleDict reserves.
        self.classifiers = nn.ModuleDict({f"head_{name}": _classifier(dim, n, kind) for name, n in heads.items()})

    def forward(
        self, features: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch classes"] | dict[str, Float[Tensor, "batch _"]]:
        """Return the logits, or a dict of logits by name for several task heads."""
        logits = {name: self.classifiers[f"head_{name}"](features) for name in self.names}
        return logits[self.names[0]] if len(logits) == 1 else logits


def _classifier(dim: int, classes: int, kind: HeadKind) -> nn.Module:
    last = nn.Linear(dim, classes)
    return last if kind == "linear" else nn.Sequential(nn.Linear(dim, dim), nn.GELU(), last)


class RegisterTokens(nn.Module):
    """Learned tokens without position after the class token (arXiv:2309.16588); none with `count=0`."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.zeros(count, dim))

    def forward(self, tokens: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch m dim"]:
        """Insert the registers after the class token, which is first."""
        registers = self.tokens.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        return torch.cat((tokens[:, :1], registers, tokens[:, 1:]), dim=1)


@runtime_checkable
class InitializesItself(Protocol):
    """Module that initializes its own weights and those of its children."""

    def init_weights(self, start: Start) -> None:
        """Initialize the weights."""


def init_weights(module: nn.Module, start: Start) -> None:
    """Initialize all weights of a module, recursively.

    Norms and tables of relative position keep the values of their constructors.

    Args:
        module: Network or part of one.
        start: `vit` before pretrained weights are loaded; `scratch` to train on little data without.
    """
    match module:
        case InitializesItself():
            module.init_weights(start)
            return
        case nn.Linear():
            if start == "vit":
                nn.init.trunc_normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight)  # 0.02 suits 768 channels; narrower layers need more
            nn.init.zeros_(module.bias)
        case nn.Conv3d() | nn.Conv2d() | nn.Conv1d():
            nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        case ClassToken():
            nn.init.trunc_normal_(module.token, std=0.02)
        case RegisterTokens():
            nn.init.trunc_normal_(module.tokens, std=0.02)
        case LearnedPosition():
            nn.init.trunc_normal_(module.table, std=0.02)
        case _:
            pass
    for child in module.children():
        init_weights(child, start)


def without_autocast(kind: str) -> AbstractContextManager[object]:
    """Return a context that turns off autocast on a kind of device, if it is on."""
    is_on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if is_on else contextlib.nullcontext()

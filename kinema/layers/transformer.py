"""What all transformers share: self-attention, encoder block, patches, class token, learned position, task heads.

The thesis builds on ViT (arXiv:2010.11929) and ViViT (arXiv:2103.15691); equations cited here are those of its
section 4.3.1. An operator that the thesis itself proposes has a file of its own beside this one.

Axes: n tokens, c channels, h attention heads, d channels of one attention head.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, assert_never, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from kinema.errors import ClipError

Grid = tuple[int, int, int]
"""Times, rows and columns of the token maps."""

Rows = Literal["all", "class"]
"""Rows of the attention map that are computed."""

NormOrder = Literal["pre", "post"]
Start = Literal["vit", "scratch"]


VIT_NORM_EPS = 1e-6
"""Epsilon of ViT's LayerNorms."""


def select_rows(tokens: Float[Tensor, "batch n dim"], rows: Rows) -> Float[Tensor, "batch m dim"]:
    """Return the tokens whose rows are computed: all of them, or the class token, which is first."""
    return tokens[:, :1] if rows == "class" else tokens


class DropPath(nn.Module):
    """Stochastic depth (arXiv:1603.09382): in training a whole sample loses the branch; the others are scaled up.

    Args:
        rate: probability of losing the branch, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"DropPath: rate={rate} is not in [0, 1)")
        self.rate = rate

    def forward(self, branch: Float[Tensor, " batch *rest"]) -> Float[Tensor, " batch *rest"]:
        if not self.training or self.rate == 0:
            return branch
        keep = 1 - self.rate
        kept = branch.new_empty(branch.shape[0], *(1 for _ in branch.shape[1:])).bernoulli_(keep)
        return branch * (kept / keep)


class MLP(nn.Module):
    """The feed-forward network of an encoder block (eq. 4.4): two linear layers with GELU between them.

    Args:
        dim: channels in and out.
        hidden: channels between the layers.
        dropout: probability after each layer, in training only.
    """

    def __init__(self, dim: int, *, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        hidden = self.expand(tokens)
        # In place where nothing is learnt: a block's largest map is not allocated twice, 6 % of RPE-STDT's time.
        traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # torch has no types for it
        kept = torch.is_grad_enabled() or traced  # a trace that is compared with another one stays as it is
        hidden = F.gelu(hidden) if kept else torch.ops.aten.gelu_(hidden)
        contracted: Tensor = self.dropout(self.contract(self.dropout(hidden)))
        return contracted


class LinearMapping(nn.Module):
    """Queries, keys and values token by token, as in ViT and ViViT (figure 4.3)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)

    def forward(
        self, tokens: Float[Tensor, "batch n dim"], grid: Grid | None = None, rows: Rows = "all"
    ) -> tuple[Float[Tensor, "batch m dim"], Float[Tensor, "batch n dim"], Float[Tensor, "batch n dim"]]:
        del grid  # a token is mapped alone, wherever it stands
        return self.query(select_rows(tokens, rows)), self.key(tokens), self.value(tokens)


class SelfAttention(nn.Module):
    """Multi-head self-attention (eq. 4.3) over the token axis.

    DEVIATION: eq. 4.3 divides the logits by sqrt(C); here it is the square root of one attention head's channels,
    sqrt(64) in the base models, because the ImageNet weights that the thesis starts from were trained so.

    Args:
        mapping: (tokens, grid, rows) -> queries of these rows, keys and values of all tokens.
        dim: channels in and out.
        heads: attention heads; must divide `dim`.
        dropout: probability for the attention map and for the output, in training only.
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
        query, key, value = (
            rearrange(mapped, "b n (h d) -> b h n d", h=self.heads) for mapped in self.mapping(tokens, grid, rows)
        )
        rate = self.dropout if self.training else 0.0  # the fused kernel does not look at .training
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        return F.dropout(self.out(rearrange(attended, "b h n d -> b n (h d)")), rate)


class EncoderBlock(nn.Module):
    """Transformer encoder block: attention, then MLP, each with LayerNorm and a residual.

    Args:
        attention: (tokens, context) -> tokens; and with `rows="class"` as third argument, the class token's row alone.
        dim: channels of a token.
        hidden: channels between the layers of the MLP.
        dropout: of the MLP, in training.
        drop_path: probability that training drops a branch of this block.
        norm_order: LayerNorm before the branch (ViT's), or after the sum (eq. 4.1, 4.2).
        norm_eps: epsilon of LayerNorm.
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
        """Args:
        tokens: the class token first, where there is one.
        context: what the attention needs besides tokens: a grid, clusters of positions, lengths of sequences.
        rows: rows that are computed.
        """
        further = (context,) if rows == "all" else (context, rows)
        asked = select_rows(tokens, rows)
        match self.norm_order:
            case "pre":
                tokens = asked + self.drop_path(self.attention(self.norm_attention(tokens), *further))
                tokens = tokens + self.drop_path(self.mlp(self.norm_mlp(tokens)))
            case "post":
                tokens = self.norm_attention(asked + self.drop_path(self.attention(tokens, *further)))  # eq. 4.1
                tokens = self.norm_mlp(tokens + self.drop_path(self.mlp(tokens)))  # eq. 4.2
            case _:
                assert_never(self.norm_order)
        return tokens


def run_blocks(
    blocks: nn.ModuleList, tokens: Float[Tensor, "batch n dim"], context: Any, last_block: Rows
) -> Float[Tensor, "batch m dim"]:
    """Return the tokens after all blocks; the last block may compute the class token's row alone."""
    for number, block in enumerate(blocks, start=1):
        tokens = block(tokens, context, last_block if number == len(blocks) else "all")
    return tokens


def drop_path_rates(highest: float, depth: int) -> list[float]:
    """Return each block's drop-path rate: it rises linearly from 0 at the first block."""
    return [highest * block / max(depth - 1, 1) for block in range(depth)]


def check_at_least(name: str, value: int, least: int = 1) -> None:
    """Refuse clips with too few channels, frames or pixels.

    Raises:
        ClipError: `value` is below `least`.
    """
    if value < least:
        raise ClipError(f"{name} must be at least {least}; got {value}", field=name)


def grid_of(patch: int, *, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of patches of a frame.

    Raises:
        ClipError: the frame does not divide into patches.
    """
    return grid_of_tubelets((1, patch, patch), frames=1, height=height, width=width)[1:]


def grid_of_tubelets(tubelet: Grid, *, frames: int, height: int, width: int) -> Grid:
    """Return the times, rows and columns of tubelets of a clip.

    Args:
        tubelet: frames, rows and columns of the clip from one token to the next.
        frames, height, width: extent of the clip.

    Raises:
        ClipError: the clip does not divide into tubelets.
    """
    names = ("frames", "size", "size") if height == width else ("frames", "height", "width")
    for name, extent, stride in zip(names, (frames, height, width), tubelet, strict=True):
        if extent < stride or extent % stride:
            raise ClipError(
                f"{name} must be a multiple of {stride}: {stride}, {2 * stride}, {3 * stride}, ...; got {extent}",
                field=name,
            )
    times, rows, columns = tubelet
    return frames // times, height // rows, width // columns


class FrameTokens(nn.Module):
    """The patches of each frame as tokens, E x of eq. 3.1.

    Clips of other channels, without frames, or with pixels left over are refused (ValueError).
    """

    def __init__(self, *, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "bt n d"]:
        wanted, (channels, frames) = self.patches.in_channels, clip.shape[1:3]
        if channels != wanted:
            raise ClipError(f"the network takes clips of {wanted} channels; got {channels}", field="channels")
        check_at_least("frames", frames)
        grid_of(self.patch, height=clip.shape[-2], width=clip.shape[-1])
        tokens: Tensor = rearrange(self.patches(rearrange(clip, "b c t h w -> (b t) c h w")), "bt d h w -> bt (h w) d")
        return tokens


class Tubelets(nn.Module):
    """ViViT's embedding: blocks of frames, rows and columns of the clip as tokens (arXiv:2103.15691, section 3.2).

    Clips of other channels are refused (ValueError); `grid_of_tubelets` says which extents fit.
    """

    def __init__(self, *, channels: int, tubelet: Grid, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv3d(channels, width, tubelet, stride=tubelet)

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d times rows columns"]:
        wanted, channels = self.patches.in_channels, clip.shape[1]
        if channels != wanted:
            raise ClipError(f"the network takes clips of {wanted} channels; got {channels}", field="channels")
        tokens: Tensor = self.patches(clip)
        return tokens


class LearnedPosition(nn.Module):
    """A learned vector for the class token and for each place of a grid, of a row, or of a grid at several times.

    Other extents than those of the table get it interpolated: bicubic on a grid, linear in time.
    """

    def __init__(self, built: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.built = built
        places = 1
        for extent in built:
            places *= extent
        self.table = nn.Parameter(torch.zeros(1 + places, dim))

    def forward(self, tokens: Float[Tensor, "b n d"], extents: tuple[int, ...]) -> Float[Tensor, "b n d"]:
        if extents == self.built:
            return tokens + self.table
        return tokens + torch.cat((self.table[:1], interpolated(self.table[1:], self.built, extents)))


def interpolated(
    places: Float[Tensor, "n d"], built: tuple[int, ...], extents: tuple[int, ...]
) -> Float[Tensor, "m d"]:
    """Vectors for places of other extents: a row of times, a grid, or a grid at several times.

    Grids are interpolated bicubically, time linearly; the one does not see the other.
    """
    if len(built) != 2 and built[0] != extents[0]:
        times = rearrange(places, "(t n) d -> 1 (n d) t", t=built[0])
        times = F.interpolate(times, size=extents[0], mode="linear", align_corners=False)
        places = rearrange(times, "1 (n d) t -> (t n) d", d=places.shape[1])
    if len(built) != 1 and built[-2:] != extents[-2:]:
        maps = rearrange(places, "(t h w) d -> t d h w", h=built[-2], w=built[-1])
        maps = F.interpolate(maps, size=extents[-2:], mode="bicubic", align_corners=False)
        places = rearrange(maps, "t d h w -> (t h w) d")
    return places


class ClassToken(nn.Module):
    """Puts a learned token before the others; what it has gathered in the end is classified."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n+1 dim"]:
        first = self.token.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        return torch.cat((first, tokens), dim=1)


class TaskHeads(nn.Module):
    """A linear classifier for each task: a tensor of logits for one task, a dict by task for several.

    Args:
        dim: channels of the features.
        heads: name of the task -> number of its classes. Epic-Kitchens has a verb and a noun (section 4.4.2).
    """

    def __init__(self, dim: int, heads: Mapping[str, int]) -> None:
        super().__init__()
        if not heads:
            raise ValueError('TaskHeads: heads is empty; a network needs at least one, like {"label": 48}')
        for name, classes in heads.items():
            if not name or "." in name:
                raise ValueError(f"TaskHeads: a task head cannot be called {name!r}: empty, or with a full stop in it")
            if classes < 1:
                raise ValueError(f"TaskHeads: task head {name!r} has {classes} classes; it needs at least 1")
        self.names = tuple(heads)
        # The prefix lets a data set call its task anything, `type` or `keys` too, which nn.Module keeps for itself.
        self.classifiers = nn.ModuleDict({f"head_{name}": nn.Linear(dim, classes) for name, classes in heads.items()})

    def forward(
        self, features: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch classes"] | dict[str, Float[Tensor, "batch _"]]:
        logits = {name: self.classifiers[f"head_{name}"](features) for name in self.names}
        return logits[self.names[0]] if len(logits) == 1 else logits


@runtime_checkable
class InitializesItself(Protocol):
    """A module that sets its own weights at the start of a training, and those of its children."""

    def init_weights(self, start: Start) -> None: ...


def init_weights(module: nn.Module, start: Start) -> None:
    """Set all weights of a network as at the start of a training.

    Tables of relative position and norms keep what their constructors gave them.

    Args:
        module: a network or a part of one.
        start: `vit` for weights that are loaded afterwards; `scratch` for learning from little data without such.
    """
    match module:
        case InitializesItself():
            module.init_weights(start)
            return
        case nn.Linear():
            if start == "vit":
                nn.init.trunc_normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight)  # 0.02 suits 768 channels; fewer need more
            nn.init.zeros_(module.bias)
        case nn.Conv3d() | nn.Conv2d() | nn.Conv1d():
            nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        case ClassToken():
            nn.init.trunc_normal_(module.token, std=0.02)
        case LearnedPosition():
            nn.init.trunc_normal_(module.table, std=0.02)
        case _:
            pass
    for child in module.children():
        init_weights(child, start)

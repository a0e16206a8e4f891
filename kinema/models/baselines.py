"""What the thesis compares its networks with.

ViT with spatial attention alone (Table 3.3; arXiv:2010.11929): each frame is seen by itself, and the mean over the
frames of their class tokens is classified.

    clip -> patches of each frame -> class token -> position -> [ attention -> MLP ] x depth -> norm -> mean over frames
         -> task heads

ViViT with joint attention in space and time (Tables 4.3 and 4.7; arXiv:2103.15691, model 1): every tubelet of the clip
attends to every other one.

    clip -> tubelets -> class token -> position -> [ attention -> MLP ] x depth -> norm -> task heads

Position is learned in both; clips of other extents than those that a network is built for get it interpolated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from kinema.layers.transformer import (
    AbsolutePosition,
    ClassToken,
    FrameTokens,
    Grid,
    Rows,
    TaskHeads,
    Tubelets,
    grid_of,
    grid_of_tubelets,
)
from kinema.models.fields import check_fields
from kinema.models.rpe_stdt import LAYER_NORM_EPS, SpatialBlock, initialise, through


@dataclass(frozen=True, kw_only=True)
class ViTSpatialConfig:
    """ViT-B, or a narrower one.

    Args:
        patch: rows and columns of pixels in a token.
        width: channels of a token.
        depth: encoder blocks.
        attention_heads: must divide `width`.
        mlp_ratio: hidden channels of the MLP for each channel of a token.
        start: of the weights: ViT's, for weights that are loaded; `scratch` for learning from little data without.
        dropout: in attention and MLP, in training.
        drop_path: probability that training drops a branch of the last block; it rises linearly from 0 at the first.
    """

    patch: int = 16
    width: int = 768
    depth: int = 12
    attention_heads: int = 12
    mlp_ratio: int = 4
    start: Literal["vit", "scratch"] = "vit"
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        check_encoder(self)
        if self.patch < 1:
            raise ValueError(f"ViTSpatialConfig: patch={self.patch} must be at least 1")

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Refuses clips that the network cannot be built for; the message says which would fit."""
        if channels < 1:
            raise ValueError(f"channels must be at least 1; got {channels}")
        if frames < 1:
            raise ValueError(f"frames must be at least 1; got {frames}")
        grid_of(self.patch, height=size, width=size)


class ViTSpatial(nn.Module):
    """ViT frame by frame.

    Args:
        config: the architecture.
        heads: name of a task -> number of its classes; for one task the answer is a tensor, for several a dict.
        channels: of the clip.
        frames: of the clips it is built for; any number can follow.
        size: rows and columns of those clips; for others, positions are interpolated.
    """

    def __init__(
        self, config: ViTSpatialConfig, *, heads: Mapping[str, int], channels: int = 3, frames: int, size: int
    ) -> None:
        super().__init__()
        config.check_clip(channels=channels, frames=frames, size=size)
        self.config = config
        self.embedding = FrameTokens(channels=channels, patch=config.patch, width=config.width)
        self.class_token = ClassToken(config.width)
        self.position = AbsolutePosition(grid_of(config.patch, height=size, width=size), config.width)
        self.blocks = encoder_blocks(config)
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.feature_channels = config.width
        self.heads: nn.Module = TaskHeads(config.width, heads)
        initialise(self, config.start)

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b classes"] | dict[str, Float[Tensor, "b _"]]:
        logits: Tensor | dict[str, Tensor] = self.heads(self.features(clip))
        return logits

    def features(self, clip: Float[Tensor, "b c t h w"], last_block: Rows = "class") -> Float[Tensor, "b d"]:
        """The mean over the frames of their normalised class tokens.

        Args:
            clip: any number of frames, any multiple of the patch.
            last_block: rows of the last block that are computed; those of patches are not used by anyone.
        """
        grid = grid_of(self.config.patch, height=clip.shape[-2], width=clip.shape[-1])
        tokens = self.position(self.class_token(self.embedding(clip)), grid)
        tokens = through(self.blocks, tokens, None, last_block)
        features: Tensor = rearrange(self.norm(tokens[:, 0]), "(b t) d -> b t d", b=clip.shape[0]).mean(1)
        return features


@dataclass(frozen=True, kw_only=True)
class ViViTConfig:
    """ViViT-B, or a narrower one.

    Args:
        tubelet: frames, rows and columns of pixels in a token.
        position: `learned` adds a table to the tokens, ViViT's own; with `none` the order of tubelets is not seen
            (Table 4.3).
        width: channels of a token.
        depth: encoder blocks.
        attention_heads: must divide `width`.
        mlp_ratio: hidden channels of the MLP for each channel of a token.
        start: of the weights: ViT's, for weights that are loaded; `scratch` for learning from little data without.
        dropout: in attention and MLP, in training.
        drop_path: probability that training drops a branch of the last block; it rises linearly from 0 at the first.
    """

    tubelet: tuple[int, int, int] = (2, 16, 16)
    position: Literal["learned", "none"] = "learned"
    width: int = 768
    depth: int = 12
    attention_heads: int = 12
    mlp_ratio: int = 4
    start: Literal["vit", "scratch"] = "vit"
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        check_encoder(self)
        if min(self.tubelet) < 1:
            raise ValueError(f"ViViTConfig: tubelet={self.tubelet} must be at least 1 along each axis")

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Refuses clips that the network cannot be built for; the message says which would fit."""
        if channels < 1:
            raise ValueError(f"channels must be at least 1; got {channels}")
        self.grid(frames=frames, height=size, width=size)

    def grid(self, *, frames: int, height: int, width: int) -> Grid:
        """Times, rows and columns of a clip's tubelets; a clip that leaves pixels over is refused."""
        return grid_of_tubelets(self.tubelet, frames=frames, height=height, width=width)


class ViViT(nn.Module):
    """ViViT's first model: one transformer over all tubelets of a clip.

    Args:
        config: the architecture.
        heads: name of a task -> number of its classes; for one task the answer is a tensor, for several a dict.
        channels: of the clip.
        frames, size: of the clips it is built for; others that are multiples of the tubelet can follow, and positions
            are interpolated for them: bicubic in space, linear in time.
    """

    def __init__(
        self, config: ViViTConfig, *, heads: Mapping[str, int], channels: int = 3, frames: int, size: int
    ) -> None:
        super().__init__()
        config.check_clip(channels=channels, frames=frames, size=size)
        self.config = config
        self.embedding = Tubelets(channels=channels, tubelet=config.tubelet, width=config.width)
        self.class_token = ClassToken(config.width)
        grid = config.grid(frames=frames, height=size, width=size)
        self.position = AbsolutePosition(grid, config.width) if config.position == "learned" else None
        self.blocks = encoder_blocks(config)
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.feature_channels = config.width
        self.heads: nn.Module = TaskHeads(config.width, heads)
        initialise(self, config.start)

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b classes"] | dict[str, Float[Tensor, "b _"]]:
        logits: Tensor | dict[str, Tensor] = self.heads(self.features(clip))
        return logits

    def features(self, clip: Float[Tensor, "b c t h w"], last_block: Rows = "class") -> Float[Tensor, "b d"]:
        """The class token after the last block, normalised: what the task heads see.

        Args:
            clip: any multiple of the tubelet.
            last_block: rows of the last block that are computed; those of tubelets are not used by anyone.
        """
        frames, height, width = clip.shape[2:]
        grid = self.config.grid(frames=frames, height=height, width=width)
        tokens = self.class_token(rearrange(self.embedding(clip), "b d t h w -> b (t h w) d"))
        if self.position is not None:
            tokens = self.position(tokens, grid)
        tokens = through(self.blocks, tokens, None, last_block)
        features: Tensor = self.norm(tokens[:, 0])
        return features


def check_encoder(config: ViTSpatialConfig | ViViTConfig) -> None:
    """Refuses blocks that cannot be built."""
    check_fields(config)
    called = type(config).__name__
    for name in ("width", "depth", "attention_heads", "mlp_ratio"):
        if getattr(config, name) < 1:
            raise ValueError(f"{called}: {name}={getattr(config, name)} must be at least 1")
    for name in ("dropout", "drop_path"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{called}: {name}={getattr(config, name)} is not in [0, 1)")
    if config.width % config.attention_heads:
        raise ValueError(f"{called}: width={config.width} is not divisible by attention_heads={config.attention_heads}")


def encoder_blocks(config: ViTSpatialConfig | ViViTConfig) -> nn.ModuleList:
    """ViT's blocks, without position inside attention; drop-path rises from the first to the last."""
    return nn.ModuleList(
        SpatialBlock(
            config.width,
            heads=config.attention_heads,
            hidden=config.mlp_ratio * config.width,
            position=None,
            dropout=config.dropout,
            drop_path=config.drop_path * block / max(config.depth - 1, 1),
        )
        for block in range(config.depth)
    )

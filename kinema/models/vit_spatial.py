"""ViT with spatial attention alone (Table 3.3; arXiv:2010.11929), which the thesis compares RPE-STDT with.

Each frame is encoded by itself, and the mean over the frames of their class tokens is classified.

    clip -> patches of each frame -> class token -> position -> [ attention -> MLP ] x depth -> norm -> mean over frames
         -> task heads

Positions are learned; for clips of another size than the network was built for they are interpolated.
"""

from collections.abc import Mapping
from typing import Literal

from einops import rearrange
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from kinema.config import Rate, config
from kinema.errors import ConfigError
from kinema.layers.relative_position import vit_blocks
from kinema.layers.transformer import (
    VIT_NORM_EPS,
    ClassToken,
    FrameTokens,
    LearnedPosition,
    Rows,
    Start,
    TaskHeads,
    check_at_least,
    grid_of,
    init_weights,
    run_blocks,
)
from kinema.models.base import NamedModel, NetworkConfig, single_stream


@config
class ViTSpatialConfig(NetworkConfig):
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

    kind: Literal["vit-spatial"] = "vit-spatial"
    patch: PositiveInt = 16
    width: PositiveInt = 768
    depth: PositiveInt = 12
    attention_heads: PositiveInt = 12
    mlp_ratio: PositiveInt = 4
    start: Start = "vit"
    dropout: Rate = 0.0
    drop_path: Rate = 0.0

    def __post_init__(self) -> None:
        if self.width % self.attention_heads:
            raise ConfigError(
                f"width={self.width} is not divisible by attention_heads={self.attention_heads}", field="width"
            )

    def build(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> "ViTSpatial":
        return ViTSpatial(self, heads=heads, channels=single_stream("ViTSpatial", channels), frames=frames, size=size)

    @classmethod
    def named_models(cls) -> dict[str, NamedModel]:
        return {
            "vit_base_spatial": NamedModel(
                VIT_BASE_SPATIAL, 16, 224, "ViT-B on single frames, their mean: spatial attention alone (Table 3.3)"
            ),
            "vit_tiny_spatial": NamedModel(VIT_TINY_SPATIAL, 16, 112, "the same, as narrow as rpe_stdt_tiny"),
        }

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Refuse clips that the network cannot be built for (ClipError)."""
        check_at_least("channels", channels)
        check_at_least("frames", frames)
        grid_of(self.patch, height=size, width=size)


VIT_BASE_SPATIAL = ViTSpatialConfig()
VIT_TINY_SPATIAL = ViTSpatialConfig(start="scratch", width=128, depth=4, attention_heads=4)


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
        self.position = LearnedPosition(grid_of(config.patch, height=size, width=size), config.width)
        self.blocks = vit_blocks(
            config.width,
            depth=config.depth,
            heads=config.attention_heads,
            mlp_ratio=config.mlp_ratio,
            dropout=config.dropout,
            drop_path=config.drop_path,
        )
        self.norm = nn.LayerNorm(config.width, eps=VIT_NORM_EPS)
        self.feature_channels = config.width
        self.heads: nn.Module = TaskHeads(config.width, heads)
        init_weights(self, config.start)

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b classes"] | dict[str, Float[Tensor, "b _"]]:
        logits: Tensor | dict[str, Tensor] = self.heads(self.features(clip))
        return logits

    def features(self, clip: Float[Tensor, "b c t h w"], last_block: Rows = "class") -> Float[Tensor, "b d"]:
        """The mean over the frames of their normalized class tokens.

        Args:
            clip: any number of frames, any multiple of the patch.
            last_block: rows of the last block that are computed; those of patches are not used by anyone.
        """
        grid = grid_of(self.config.patch, height=clip.shape[-2], width=clip.shape[-1])
        tokens = self.position(self.class_token(self.embedding(clip)), grid)
        tokens = run_blocks(self.blocks, tokens, None, last_block)
        features: Tensor = rearrange(self.norm(tokens[:, 0]), "(b t) d -> b t d", b=clip.shape[0]).mean(1)
        return features

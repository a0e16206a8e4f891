"""ViViT with joint attention in space and time (arXiv:2103.15691, model 1), which the thesis compares CTN with.

    clip -> tubelets -> class token -> position -> [ attention -> MLP ] x depth -> norm -> task heads

Every tubelet of the clip attends to every other one (Tables 4.3 and 4.7). Positions are learned; for clips of another
extent than the network was built for they are interpolated.
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
    Grid,
    LearnedPosition,
    Rows,
    Start,
    TaskHeads,
    Tubelets,
    check_at_least,
    grid_of_tubelets,
    init_weights,
    run_blocks,
)
from kinema.models.base import NamedModel, NetworkConfig, single_stream


@config
class ViViTConfig(NetworkConfig):
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

    kind: Literal["vivit"] = "vivit"
    tubelet: tuple[PositiveInt, PositiveInt, PositiveInt] = (2, 16, 16)
    position: Literal["learned", "none"] = "learned"
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

    def build(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> "ViViT":
        return ViViT(self, heads=heads, channels=single_stream("ViViT", channels), frames=frames, size=size)

    @classmethod
    def named_models(cls) -> dict[str, NamedModel]:
        return {
            "vivit_base": NamedModel(
                VIVIT_BASE,
                8,
                224,
                "ViViT-B, joint attention in space and time: what CTN is compared with (Tables 4.3 and 4.7)",
            ),
            "vivit_tiny": NamedModel(
                VIVIT_TINY, 16, 112, "the same, as narrow as ctn_tiny and about as many multiply-adds"
            ),
        }

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Refuse clips that the network cannot be built for (ClipError)."""
        check_at_least("channels", channels)
        self.grid(frames=frames, height=size, width=size)

    def grid(self, *, frames: int, height: int, width: int) -> Grid:
        """Times, rows and columns of a clip's tubelets; a clip that leaves pixels over is refused."""
        return grid_of_tubelets(self.tubelet, frames=frames, height=height, width=width)


VIVIT_BASE = ViViTConfig()
VIVIT_TINY = ViViTConfig(tubelet=(4, 16, 16), start="scratch", width=128, depth=4, attention_heads=4)


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
        self.position = LearnedPosition(grid, config.width) if config.position == "learned" else None
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
        """The class token after the last block, normalized: what the task heads see.

        Args:
            clip: any multiple of the tubelet.
            last_block: rows of the last block that are computed; those of tubelets are not used by anyone.
        """
        frames, height, width = clip.shape[2:]
        grid = self.config.grid(frames=frames, height=height, width=width)
        tokens = self.class_token(rearrange(self.embedding(clip), "b d t h w -> b (t h w) d"))
        if self.position is not None:
            tokens = self.position(tokens, grid)
        tokens = run_blocks(self.blocks, tokens, None, last_block)
        features: Tensor = self.norm(tokens[:, 0])
        return features

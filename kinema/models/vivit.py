"""ViViT with joint space-time attention (arXiv:2103.15691, model 1), the baseline of CTN (Tables 4.3 and 4.7).

    clip -> tubelets -> class token -> position -> [ attention -> MLP ] x depth -> norm -> task heads

Every tubelet of the clip attends to every other one. Positions are learned, and interpolated for clips of other frames
or size than the network was built for.
"""

from collections.abc import Mapping
from typing import Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from kinema.config import Pixels, config
from kinema.layers.transformer import (
    VIT_NORM_EPS,
    ClassToken,
    Grid,
    LearnedPosition,
    Rows,
    Start,
    TaskHeads,
    Tubelets,
    init_weights,
    run_blocks,
)
from kinema.models.base import (
    EncoderConfig,
    NamedModel,
    SingleStreamNetwork,
    encoder_blocks,
    single_stream,
    vit_attention,
)


@config
class ViViTConfig(EncoderConfig):
    """Architecture of ViViT. The defaults are ViViT-B.

    Attributes:
        tubelet: Frames, rows and columns of a tubelet in pixels.
        position: `learned` adds a position table to the tokens, as ViViT does; `none` is the control of Table 4.3.
        start: Initial weights: `vit` before pretrained weights are loaded, `scratch` to train on little data without.
    """

    kind: Literal["vivit"] = "vivit"
    tubelet: tuple[Pixels, Pixels, Pixels] = (2, 16, 16)
    position: Literal["learned", "none"] = "learned"
    start: Start = "vit"

    def network(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> "ViViT":
        """Return the network with fresh weights, whatever its size."""
        return ViViT(self, heads=heads, channels=single_stream("ViViT", channels), frames=frames, size=size)

    @property
    def token_stride(self) -> Grid:
        """Frames, rows and columns of the clip from one token to the next."""
        return self.tubelet


VIVIT_BASE = ViViTConfig()
VIVIT_TINY = ViViTConfig(tubelet=(4, 16, 16), start="scratch", width=128, depth=4, attention_heads=4)
VIVIT_S14 = ViViTConfig(tubelet=(2, 14, 14), width=384, attention_heads=6)
MODELS = {
    "vivit_base": NamedModel(VIVIT_BASE, 8, 224, "ViViT-B, joint space-time attention (Tables 4.3 and 4.7)"),
    "vivit_s14": NamedModel(VIVIT_S14, 8, 168, "ViViT for DINOv2 ViT-S/14"),
    "vivit_tiny": NamedModel(VIVIT_TINY, 16, 112, "ViViT with the width and about the MACs of ctn_tiny"),
}


class ViViT(SingleStreamNetwork):
    """ViViT's model 1: one transformer over all tubelets.

    Frames, height and width of a clip are multiples of the tubelet. Positions are interpolated for other clip sizes.
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
        self.blocks = encoder_blocks(config, lambda: vit_attention(config))
        self.norm = nn.LayerNorm(config.width, eps=VIT_NORM_EPS)
        self.feature_channels = config.width
        self.heads = TaskHeads(config.width, heads)
        init_weights(self, config.start)

    def features(self, clip: Float[Tensor, "b c t h w"], last_block: Rows = "class") -> Float[Tensor, "b d"]:
        """Return the normalized class token after the last block. `last_block` selects its computed rows."""
        frames, height, width = clip.shape[2:]
        grid = self.config.grid(frames=frames, height=height, width=width)
        tokens = self.class_token(rearrange(self.embedding(clip), "b d t h w -> b (t h w) d"))
        if self.position is not None:
            tokens = self.position(tokens, grid)
        tokens = run_blocks(self.blocks, tokens, None, last_block)
        features: Tensor = self.norm(tokens[:, 0])
        return features

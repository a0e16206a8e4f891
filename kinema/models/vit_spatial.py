"""ViT with spatial attention only (Table 3.3; arXiv:2010.11929), the baseline of RPE-STDT.

    clip -> patches of each frame -> class token -> position -> [ attention -> MLP ] x depth -> norm -> mean over frames
         -> task heads

Each frame is encoded independently, and the mean of the class tokens is classified. Positions are learned, and
interpolated for clips of another size than the network was built for.
"""

from collections.abc import Mapping
from typing import Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from kinema.config import Pixels, Registers, config
from kinema.layers.transformer import (
    VIT_NORM_EPS,
    ClassToken,
    FrameTokens,
    Grid,
    LearnedPosition,
    RegisterTokens,
    Rows,
    Start,
    TaskHeads,
    init_weights,
    patch_grid,
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
class ViTSpatialConfig(EncoderConfig):
    """Architecture of ViT with spatial attention only. The defaults are ViT-B.

    Attributes:
        patch: Height and width of a patch in pixels.
        registers: Number of register tokens, which follow the class token, as in DINOv2 with registers.
        start: Initial weights: `vit` before pretrained weights are loaded, `scratch` to train on little data without.
    """

    kind: Literal["vit-spatial"] = "vit-spatial"
    patch: Pixels = 16
    registers: Registers = 0
    start: Start = "vit"

    def network(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> "ViTSpatial":
        """Return the network with fresh weights, whatever its size."""
        return ViTSpatial(self, heads=heads, channels=single_stream("ViTSpatial", channels), frames=frames, size=size)

    @property
    def token_stride(self) -> Grid:
        """Frames, rows and columns of the clip from one token to the next."""
        return 1, self.patch, self.patch


VIT_BASE_SPATIAL = ViTSpatialConfig()
VIT_TINY_SPATIAL = ViTSpatialConfig(start="scratch", width=128, depth=4, attention_heads=4)
VIT_S14_SPATIAL = ViTSpatialConfig(patch=14, width=384, attention_heads=6)
MODELS = {
    "vit_base_spatial": NamedModel(VIT_BASE_SPATIAL, 16, 224, "ViT-B, spatial attention only (Table 3.3)"),
    "vit_s14_spatial": NamedModel(VIT_S14_SPATIAL, 8, 168, "the same for DINOv2 ViT-S/14"),
    "vit_tiny_spatial": NamedModel(VIT_TINY_SPATIAL, 16, 112, "the same with the width of rpe_stdt_tiny"),
}


class ViTSpatial(SingleStreamNetwork):
    """ViT applied frame by frame.

    Clips may have any number of frames, and any multiple of the patch as height and width, to which positions are
    interpolated.
    """

    def __init__(
        self, config: ViTSpatialConfig, *, heads: Mapping[str, int], channels: int = 3, frames: int, size: int
    ) -> None:
        super().__init__()
        config.check_clip(channels=channels, frames=frames, size=size)
        self.config = config
        self.embedding = FrameTokens(channels=channels, patch=config.patch, width=config.width)
        self.class_token = ClassToken(config.width)
        self.position = LearnedPosition(patch_grid(config.patch, height=size, width=size), config.width)
        self.registers = RegisterTokens(config.registers, config.width) if config.registers else None
        self.blocks = encoder_blocks(config, lambda: vit_attention(config))
        self.norm = nn.LayerNorm(config.width, eps=VIT_NORM_EPS)
        self.feature_channels = config.width
        self.heads = TaskHeads(config.width, heads)
        init_weights(self, config.start)

    def features(self, clip: Float[Tensor, "b c t h w"], last_block: Rows = "class") -> Float[Tensor, "b d"]:
        """Return the mean class token of the frames. `last_block` selects the computed rows of the last block."""
        grid = patch_grid(self.config.patch, height=clip.shape[-2], width=clip.shape[-1])
        tokens = self.position(self.class_token(self.embedding(clip)), grid)
        if self.registers is not None:
            tokens = self.registers(tokens)
        tokens = run_blocks(self.blocks, tokens, None, last_block)
        features: Tensor = rearrange(self.norm(tokens[:, 0]), "(b t) d -> b t d", b=clip.shape[0]).mean(1)
        return features

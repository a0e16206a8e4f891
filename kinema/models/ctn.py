"""Convolutional Transformer Network (CTN) for fine-grained action recognition: thesis chapter 4, figure 4.2.

    clip -> video-to-tokens -> class token -> [ convolutional attention -> MLP ] x depth -> norm -> task heads

Axes: b batch, c color, t frames, h w pixels; after video-to-tokens d channels on a grid of t times, h rows, w columns.

DEVIATION: eq. 4.1 and 4.2 put LayerNorm after the sum (`norm_order="post"`). The default puts it before, as in figure
4.2b and as the ViT weights that the thesis starts from require.
DEVIATION: the printed size, 88.6 M parameters, matches only a network with a position table, which the final model
does not have (Table 4.3). Without it the network has 86.2 M.
DEVIATION: the "patch size of 16 x 16 x 2" of section 4.4.1 implies a stem without temporal stride. The stem as printed,
with stride 2 twice (Table 4.1, eq. 4.5), turns 8 frames into tokens of a single time. `time_stride` selects either.
DEVIATION: section 4.3.2 names a "linear multilayer perceptron" as head. It is one linear layer.
"""

import copy
from collections.abc import Mapping
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kinema.config import Channels, Pixels, config
from kinema.errors import ClipError, ConfigError
from kinema.layers.conv_projection import ConvolutionalMapping, Projection
from kinema.layers.transformer import (
    VIT_NORM_EPS,
    ClassToken,
    Grid,
    LearnedPosition,
    LinearMapping,
    NormOrder,
    Rows,
    SelfAttention,
    TaskHeads,
    Tubelets,
    init_weights,
    run_blocks,
)
from kinema.models.base import EncoderConfig, NamedModel, SingleStreamNetwork, encoder_blocks, single_stream


@config
class CTNConfig(EncoderConfig):
    """Architecture of CTN. The defaults are Table 4.1 and the last rows of Tables 4.3 to 4.6.

    Attributes:
        embedding: `video-to-tokens` (eq. 4.5), or ViViT's `tubelets` cut from the clip itself (Table 4.3). Tubelets
            ignore `time_stride` and all fields that begin with `stem`.
        tubelet: Frames, rows and columns of a tubelet in pixels. None takes those of the stem's tokens.
        time_stride: Temporal stride of the stem's convolution, and of its pooling. The printed value is 2.
        stem_kernel: Side of the stem's convolution kernel (Table 4.4).
        stem_channels: Channels of the stem's convolution (Table 4.4).
        stem_pool: `max` is 3 x 3 x 3 max pooling; with `none` the convolution has both strides (Table 4.4).
        stem_norm: `none` replaces BatchNorm with a bias of the convolution (Table 4.4).
        stem_activation: `relu` after the stem, before its maps become tokens; eq. 4.5 has none.
        patch: Frames, rows and columns of the stem's maps per token. A tubelet has 4 times the rows and columns.
        position: `learned` adds a position table to the tokens (Table 4.3).
        mapping: Mapping of tokens to queries, keys and values (Table 4.5).
        mapping_kernel: Side of the depth-wise kernel (Table 4.6).
        mapping_norm: BatchNorm after the depth-wise convolution, or none (Table 4.6).
        mapping_padding: Padding of the depth-wise convolution.
        mapping_projection: The `pointwise` layer alone, or an `extra` linear layer after it (section 4.3.4).
        start: Initial weights. `identity` is ViT's initialization with identity depth-wise kernels: a block with ViT's
            weights equals ViT's block. `scratch` is for training on little data without pretrained weights.
        norm_order: LayerNorm before the branch (`pre`, ViT's) or after the sum (`post`, eq. 4.1 and 4.2).
    """

    kind: Literal["ctn"] = "ctn"
    embedding: Literal["video-to-tokens", "tubelets"] = "video-to-tokens"
    tubelet: tuple[Pixels, Pixels, Pixels] | None = None
    time_stride: Literal[1, 2] = 2
    stem_kernel: Literal[3, 5, 7] = 7
    stem_channels: Channels = 32
    stem_pool: Literal["max", "none"] = "max"
    stem_norm: Literal["batch", "none"] = "batch"
    stem_activation: Literal["none", "relu"] = "none"
    patch: tuple[Pixels, Pixels, Pixels] = (2, 4, 4)
    position: Literal["none", "learned"] = "none"
    mapping: Literal["convolution", "linear"] = "convolution"
    mapping_kernel: Literal[3, 5] = 3
    mapping_norm: Literal["batch", "none"] = "batch"
    mapping_padding: Literal["zeros", "circular"] = "zeros"
    mapping_projection: Projection = "pointwise"
    start: Literal["identity", "scratch"] = "identity"
    norm_order: NormOrder = "pre"

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        if self.mapping == "linear" and self.mapping_projection == "extra":
            raise ConfigError("mapping_projection=extra needs mapping=convolution", field="mapping_projection")
        if self.tubelet is not None and self.embedding != "tubelets":
            raise ConfigError(f"tubelet={self.tubelet} needs embedding=tubelets", field="tubelet")

    def network(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> "CTN":
        """Return the network with fresh weights, whatever its size."""
        return CTN(self, heads=heads, channels=single_stream("CTN", channels), frames=frames, size=size)

    @property
    def token_stride(self) -> Grid:
        """Frames, rows and columns of the clip from one token to the next: s = 4 of eq. 4.5 times the patch."""
        if self.tubelet is not None:
            return self.tubelet
        times = self.time_stride**2 if self.embedding == "video-to-tokens" else 1
        return times * self.patch[0], 4 * self.patch[1], 4 * self.patch[2]


CTN_BASE = CTNConfig()
CTN_BASE_DENSE = CTNConfig(time_stride=1)
CTN_SMALL = CTNConfig(width=384, attention_heads=6)
CTN_S14 = CTNConfig(embedding="tubelets", tubelet=(2, 14, 14), position="learned", width=384, attention_heads=6)
CTN_TINY = CTNConfig(
    stem_kernel=5, stem_channels=16, stem_activation="relu", start="scratch", width=128, depth=4, attention_heads=4
)
MODELS = {
    "ctn_base": NamedModel(CTN_BASE, 8, 224, "CTN as printed (Table 4.1): 1 token time from 8 frames"),
    "ctn_base_dense": NamedModel(CTN_BASE_DENSE, 8, 224, "CTN with 4 token times, near the printed FLOPs"),
    "ctn_small": NamedModel(CTN_SMALL, 8, 224, "CTN with the width of ViT-S"),
    "ctn_s14": NamedModel(CTN_S14, 8, 168, "CTN's mapping on the blocks of DINOv2 ViT-S/14"),
    "ctn_tiny": NamedModel(CTN_TINY, 16, 112, "small CTN that trains from scratch in minutes on a laptop"),
}


class VideoToTokens(nn.Module):
    """MaxPool(BN(Conv(clip))) of eq. 4.5, then the patches of its maps (figure 4.2a)."""

    def __init__(self, config: CTNConfig, *, channels: int) -> None:
        super().__init__()
        time, kernel = config.time_stride, config.stem_kernel
        has_pool = config.stem_pool == "max"
        stride = (time, 2, 2) if has_pool else (time**2, 4, 4)
        self.pool = nn.MaxPool3d(3, stride=stride, padding=1) if has_pool else nn.Identity()
        bias = config.stem_norm == "none"
        self.convolution = nn.Conv3d(
            channels, config.stem_channels, kernel, stride=stride, padding=kernel // 2, bias=bias
        )
        self.norm = nn.Identity() if bias else nn.BatchNorm3d(config.stem_channels)
        self.activation = nn.ReLU() if config.stem_activation == "relu" else nn.Identity()
        self.patches = nn.Conv3d(config.stem_channels, config.width, config.patch, stride=config.patch)

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d times rows columns"]:
        """Return the tokens on their grid."""
        clip = clip.contiguous(memory_format=torch.channels_last_3d)  # speeds up convolution and pooling
        maps = self.pool(self.norm(self.convolution(clip)))  # eq. 4.5
        tokens: Tensor = self.patches(self.activation(maps))
        return tokens

    @torch.no_grad()
    def zero_temporal_mean_(self) -> None:
        """Subtract the temporal mean from the stem's kernels, so that they initially respond to change only.

        Random kernels respond mostly to the background, and a transformer on such tokens needs several times as many
        steps before it starts to learn.
        """
        self.convolution.weight -= self.convolution.weight.mean(2, keepdim=True)

    def folded(self) -> "VideoToTokens":
        """Return an equivalent module for evaluation, with BatchNorm folded into the convolution."""
        if not isinstance(self.norm, nn.BatchNorm3d):
            return self
        folded = copy.deepcopy(self).eval()
        folded.convolution = fuse_conv_bn_eval(folded.convolution, copy.deepcopy(self.norm).eval())
        folded.norm = nn.Identity()
        return folded


def convolutional_attention(config: CTNConfig) -> SelfAttention:
    """Return the self-attention of a block (eq. 4.6); with `mapping="linear"`, ViT's."""
    if config.mapping == "convolution":
        mapping: nn.Module = ConvolutionalMapping(
            config.width,
            kernel=config.mapping_kernel,
            norm=config.mapping_norm,
            padding=config.mapping_padding,
            projection=config.mapping_projection,
        )
    else:
        mapping = LinearMapping(config.width)
    return SelfAttention(mapping, dim=config.width, heads=config.attention_heads, dropout=config.dropout)


class CTN(SingleStreamNetwork):
    """Convolutional Transformer Network (figure 4.2a).

    Without a learned position, frames, height and width of a clip may be any multiples of the token stride.
    """

    def __init__(
        self, config: CTNConfig, *, heads: Mapping[str, int], channels: int = 3, frames: int, size: int
    ) -> None:
        super().__init__()
        config.check_clip(channels=channels, frames=frames, size=size)
        self.config = config
        self.built_grid = config.grid(frames=frames, height=size, width=size)
        if config.embedding == "video-to-tokens":
            self.embedding: nn.Module = VideoToTokens(config, channels=channels)
        else:
            self.embedding = Tubelets(channels=channels, tubelet=config.token_stride, width=config.width)
        self.class_token = ClassToken(config.width)
        self.position = LearnedPosition(self.built_grid, config.width) if config.position == "learned" else None
        # Blocks are those of figure 4.2b (eq. 4.1 to 4.4).
        self.blocks = encoder_blocks(config, lambda: convolutional_attention(config), norm_order=config.norm_order)
        # With `post`, the last block ends with a LayerNorm.
        self.norm = nn.LayerNorm(config.width, eps=VIT_NORM_EPS) if config.norm_order == "pre" else nn.Identity()
        self.feature_channels = config.width
        self.heads = TaskHeads(config.width, heads)
        init_weights(self, "vit" if config.start == "identity" else "scratch")
        if config.start == "scratch" and isinstance(self.embedding, VideoToTokens):
            self.embedding.zero_temporal_mean_()

    def features(self, clip: Float[Tensor, "b c t h w"], last_block: Rows = "class") -> Float[Tensor, "b d"]:
        """Return the normalized class token after the last block. `last_block` selects its computed rows."""
        grid = self.grid(clip)
        tokens = self.class_token(rearrange(self.embedding(clip), "b d t h w -> b (t h w) d"))
        if self.position is not None:
            tokens = self.position(tokens, grid)
        tokens = run_blocks(self.blocks, tokens, grid, last_block)
        features: Tensor = self.norm(tokens[:, 0])
        return features

    def grid(self, clip: Float[Tensor, "b c t h w"]) -> Grid:
        """Return the token grid (times, rows, columns) of a clip.

        Raises:
            ClipError: The clip does not divide into tokens, or has another grid than the learned position.
        """
        frames, height, width = clip.shape[2:]
        grid = self.config.grid(frames=frames, height=height, width=width)
        if self.config.position == "learned" and grid != self.built_grid:
            times, rows, columns = (n * s for n, s in zip(self.built_grid, self.config.token_stride, strict=True))
            raise ClipError(
                f"position=learned: expected clips of {times} frames of {rows} x {columns} pixels, as built; "
                f"got {frames} frames of {height} x {width}",
                field="position",
            )
        return grid

"""Convolutional Transformer Network (CTN) for fine-grained action recognition: thesis chapter 4, figure 4.2.

    clip -> video-to-tokens -> class token -> [ convolutional attention -> MLP ] x depth -> norm -> task heads

Axes: b batch, c color, t frames, h w pixels; after video-to-tokens d channels on a grid of t times, h rows, w columns.

What the thesis says differently, or not at all:

DEVIATION: eq. 4.1 and 4.2 put LayerNorm after the sum (`norm_order="post"`). The default puts it before, as figure 4.2b
draws it and as the ViT weights need it that the thesis starts from.
DEVIATION: the printed size, 88.6 M, agrees only with a position table, which the final model does not have
(Table 4.3). Without it there are 86.2 M.
DEVIATION: section 4.4.1 says "based on the patch size of 16 x 16 x 2", which means a stem that keeps all times. The
stem as printed, stride 2 and stride 2 (Table 4.1, eq. 4.5), leaves one token time of 8 frames. `time_stride` names
the two.
"""

import copy
from collections.abc import Mapping
from typing import Literal, assert_never

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kinema.config import Rate, config
from kinema.errors import ClipError, ConfigError
from kinema.layers.conv_projection import ConvolutionalMapping
from kinema.layers.transformer import (
    VIT_NORM_EPS,
    ClassToken,
    EncoderBlock,
    Grid,
    LearnedPosition,
    LinearMapping,
    NormOrder,
    Rows,
    SelfAttention,
    TaskHeads,
    Tubelets,
    check_at_least,
    drop_path_rates,
    grid_of_tubelets,
    init_weights,
    run_blocks,
)
from kinema.models.base import NamedModel, NetworkConfig, single_stream


@config
class CTNConfig(NetworkConfig):
    """What CTN is made of. The defaults are Table 4.1 and the last rows of Tables 4.3 to 4.6.

    Args:
        embedding: `video-to-tokens` (eq. 4.5), or ViViT's `tubelets`, cut from the clip itself (Table 4.3); the fields
            that begin with `stem`, and `time_stride`, then mean nothing.
        time_stride: stride in time of the stem's convolution, and again of its pooling; 2 is literal.
        stem_kernel: side of the stem's convolution (Table 4.4).
        stem_channels: its channels (Table 4.4).
        stem_pool: `max` is the 3 x 3 x 3 max-pooling; with `none` the convolution takes both strides (Table 4.4).
        stem_norm: `none` leaves BatchNorm out and gives the convolution a bias in its place (Table 4.4).
        stem_activation: `relu` cuts the stem's maps off below zero before they become tokens; eq. 4.5 has none.
        patch: frames, rows and columns of the stem's maps in a token; of a tubelet, 4 times the rows and columns.
        position: `learned` adds a table to the tokens (Table 4.3).
        mapping: how queries, keys and values are made (Table 4.5).
        mapping_kernel: side of the depth-wise convolution (Table 4.6).
        mapping_norm: BatchNorm after the depth-wise convolution (Table 4.6).
        mapping_padding: what the depth-wise convolution sees outside a map.
        start: of the weights. `identity` is ViT's, with depth-wise kernels that hand their input through, so that a
            block with ViT's weights is ViT's block; `scratch` is for learning from little data without such weights.
        norm_order: LayerNorm before the branch (ViT's) or after the sum (eq. 4.1, 4.2).
        width: channels of a token.
        depth: encoder blocks.
        attention_heads: must divide `width`.
        mlp_ratio: hidden channels of the MLP for each channel of a token.
        dropout: in attention and MLP, in training.
        drop_path: probability that training drops a branch of the last block; it rises linearly from 0 at the first.
    """

    kind: Literal["ctn"] = "ctn"
    embedding: Literal["video-to-tokens", "tubelets"] = "video-to-tokens"
    time_stride: Literal[1, 2] = 2
    stem_kernel: Literal[3, 5, 7] = 7
    stem_channels: PositiveInt = 32
    stem_pool: Literal["max", "none"] = "max"
    stem_norm: Literal["batch", "none"] = "batch"
    stem_activation: Literal["none", "relu"] = "none"
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] = (2, 4, 4)
    position: Literal["none", "learned"] = "none"
    mapping: Literal["convolution", "linear"] = "convolution"
    mapping_kernel: Literal[3, 5] = 3
    mapping_norm: Literal["batch", "none"] = "batch"
    mapping_padding: Literal["zeros", "circular"] = "zeros"
    start: Literal["identity", "scratch"] = "identity"
    norm_order: NormOrder = "pre"
    width: PositiveInt = 768
    depth: PositiveInt = 12
    attention_heads: PositiveInt = 12
    mlp_ratio: PositiveInt = 4
    dropout: Rate = 0.0
    drop_path: Rate = 0.0

    def __post_init__(self) -> None:
        if self.width % self.attention_heads:
            raise ConfigError(
                f"width={self.width} is not divisible by attention_heads={self.attention_heads}", field="width"
            )

    def build(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> "CTN":
        return CTN(self, heads=heads, channels=single_stream("CTN", channels), frames=frames, size=size)

    @classmethod
    def named_models(cls) -> dict[str, NamedModel]:
        return {
            "ctn_base": NamedModel(CTN_BASE, 8, 224, "CTN as printed (Table 4.1): one token time from 8 frames"),
            "ctn_base_dense": NamedModel(
                CTN_BASE_DENSE,
                8,
                224,
                "CTN with 4 token times from 8 frames, near the printed FLOPs",
            ),
            "ctn_small": NamedModel(CTN_SMALL, 8, 224, "CTN as narrow as ViT-S"),
            "ctn_tiny": NamedModel(CTN_TINY, 16, 112, "a small CTN that a laptop trains from scratch in minutes"),
        }

    @property
    def token_stride(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the clip from one token to the next; s = 4 of eq. 4.5 times the patch."""
        times = self.time_stride**2 if self.embedding == "video-to-tokens" else 1
        return times * self.patch[0], 4 * self.patch[1], 4 * self.patch[2]

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Refuse clips that the network cannot be built for (ClipError)."""
        check_at_least("channels", channels)
        self.grid(frames=frames, height=size, width=size)

    def grid(self, *, frames: int, height: int, width: int) -> Grid:
        """Token times, rows and columns of a clip; a clip that leaves pixels over is refused."""
        return grid_of_tubelets(self.token_stride, frames=frames, height=height, width=width)


CTN_BASE = CTNConfig()
CTN_BASE_DENSE = CTNConfig(time_stride=1)
CTN_SMALL = CTNConfig(width=384, attention_heads=6)
CTN_TINY = CTNConfig(
    stem_kernel=5,
    stem_channels=16,
    stem_activation="relu",
    start="scratch",
    width=128,
    depth=4,
    attention_heads=4,
)


class VideoToTokens(nn.Module):
    """MaxPool(BN(Conv(clip))) of eq. 4.5, then the patches of its maps (figure 4.2a)."""

    def __init__(self, config: CTNConfig, *, channels: int) -> None:
        super().__init__()
        time, kernel, bias = config.time_stride, config.stem_kernel, config.stem_norm == "none"
        match config.stem_pool:
            case "max":
                stride: tuple[int, int, int] = (time, 2, 2)
                self.pool: nn.Module = nn.MaxPool3d(3, stride=stride, padding=1)
            case "none":
                stride = (time**2, 4, 4)
                self.pool = nn.Identity()
            case _:
                assert_never(config.stem_pool)
        self.convolution = nn.Conv3d(
            channels, config.stem_channels, kernel, stride=stride, padding=kernel // 2, bias=bias
        )
        self.norm = nn.Identity() if config.stem_norm == "none" else nn.BatchNorm3d(config.stem_channels)
        self.activation = nn.ReLU() if config.stem_activation == "relu" else nn.Identity()
        self.patches = nn.Conv3d(config.stem_channels, config.width, config.patch, stride=config.patch)

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d times rows columns"]:
        clip = clip.contiguous(memory_format=torch.channels_last_3d)  # convolution and pooling are faster so
        maps = self.pool(self.norm(self.convolution(clip)))  # eq. 4.5
        tokens: Tensor = self.patches(self.activation(maps))
        return tokens

    @torch.no_grad()
    def zero_temporal_mean_(self) -> None:
        """Subtract the mean over time from the stem's kernels, so that at the start they respond to change alone.

        Random kernels see little but the background; a transformer that starts from those needs several times as
        many steps before it learns at all.
        """
        self.convolution.weight -= self.convolution.weight.mean(2, keepdim=True)

    def folded(self) -> "VideoToTokens":
        """The same with BatchNorm's statistics in the convolution."""
        if not isinstance(self.norm, nn.BatchNorm3d):
            return self
        folded = copy.deepcopy(self).eval()
        folded.convolution = fuse_conv_bn_eval(folded.convolution, copy.deepcopy(self.norm).eval())
        folded.norm = nn.Identity()
        return folded


def convolutional_attention(config: CTNConfig) -> SelfAttention:
    """Return the self-attention of a block (eq. 4.6), or of ViT with `mapping="linear"`."""
    match config.mapping:
        case "convolution":
            mapping: nn.Module = ConvolutionalMapping(
                config.width,
                kernel=config.mapping_kernel,
                norm=config.mapping_norm,
                padding=config.mapping_padding,
            )
        case "linear":
            mapping = LinearMapping(config.width)
        case _:
            assert_never(config.mapping)
    return SelfAttention(mapping, dim=config.width, heads=config.attention_heads, dropout=config.dropout)


def encoder_block(config: CTNConfig, *, drop_path: float) -> EncoderBlock:
    """Return a block of figure 4.2b (eq. 4.1 to 4.4)."""
    return EncoderBlock(
        convolutional_attention(config),
        dim=config.width,
        hidden=config.mlp_ratio * config.width,
        dropout=config.dropout,
        drop_path=drop_path,
        norm_order=config.norm_order,
    )


class CTN(nn.Module):
    """The network of figure 4.2a.

    Args:
        config: the architecture.
        heads: name of a task -> number of its classes; for one task the answer is a tensor, for several a dict.
        channels: of the clip.
        frames: of the clips it is built for. Without a learned position, clips of any fitting extent can follow.
        size: rows and columns of those clips.
    """

    def __init__(
        self, config: CTNConfig, *, heads: Mapping[str, int], channels: int = 3, frames: int, size: int
    ) -> None:
        super().__init__()
        config.check_clip(channels=channels, frames=frames, size=size)
        self.config = config
        self.built_grid = config.grid(frames=frames, height=size, width=size)
        match config.embedding:
            case "video-to-tokens":
                self.embedding: nn.Module = VideoToTokens(config, channels=channels)
            case "tubelets":
                self.embedding = Tubelets(channels=channels, tubelet=config.token_stride, width=config.width)
            case _:
                assert_never(config.embedding)
        self.class_token = ClassToken(config.width)
        self.position = LearnedPosition(self.built_grid, config.width) if config.position == "learned" else None
        rates = drop_path_rates(config.drop_path, config.depth)
        self.blocks = nn.ModuleList(encoder_block(config, drop_path=rate) for rate in rates)
        match config.norm_order:
            case "pre":
                self.norm: nn.Module = nn.LayerNorm(config.width, eps=VIT_NORM_EPS)
            case "post":
                self.norm = nn.Identity()  # the last block ends with one
            case _:
                assert_never(config.norm_order)
        self.feature_channels = config.width
        self.heads: nn.Module = TaskHeads(config.width, heads)
        init_weights(self, "vit" if config.start == "identity" else "scratch")
        if config.start == "scratch" and isinstance(self.embedding, VideoToTokens):
            self.embedding.zero_temporal_mean_()

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b classes"] | dict[str, Float[Tensor, "b _"]]:
        logits: Tensor | dict[str, Tensor] = self.heads(self.features(clip))
        return logits

    def features(self, clip: Float[Tensor, "b c t h w"], last_block: Rows = "class") -> Float[Tensor, "b d"]:
        """The class token after the last block, normalized: what the task heads see.

        Args:
            clip: of an extent that fits.
            last_block: rows of the last block that are computed; those of patches are not used by anyone.
        """
        grid = self.grid(clip)
        tokens = rearrange(self.embedding(clip), "b d t h w -> b (t h w) d")
        tokens = self.class_token(tokens)
        if self.position is not None:
            tokens = self.position(tokens, grid)
        tokens = run_blocks(self.blocks, tokens, grid, last_block)
        features: Tensor = self.norm(tokens[:, 0])
        return features

    def grid(self, clip: Float[Tensor, "b c t h w"]) -> Grid:
        """Token times, rows and columns of a clip; one that does not fit is refused."""
        frames, height, width = clip.shape[2:]
        grid = self.config.grid(frames=frames, height=height, width=width)
        if self.config.position == "learned" and grid != self.built_grid:
            times, rows, columns = (n * s for n, s in zip(self.built_grid, self.config.token_stride, strict=True))
            raise ClipError(
                f"position=learned takes clips of {times} frames of {rows} x {columns} pixels, as built; "
                f"got {frames} frames of {height} x {width}",
                field="position",
            )
        return grid

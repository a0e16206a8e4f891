"""Multi-stage Factorized Spatio-Temporal transformer (MFST), one stream of RGB-D recognition: thesis figure 2.2.

    clip -> CDC stem -> [ MSC-Trans over space -> WMS-Trans over time, + shortcut ] x stages -> mean -> norm -> heads

Axes: b batch, c color or channels, t frames, h w rows and columns; d channels of a token. After the stem,
frames are part of the batch, (b t): only the stem, WMS-Trans and `inception_pool=spatiotemporal` mix frames.

The thesis leaves widths and head sizes open. They follow public code (UMDR, which shares an author, and De+Recouple)
and reproduce the printed model sizes (32.6 and 49.7 million parameters), but other choices might, too.

DEVIATION: eq. 2.7 has a max pooling in every stage (`stage_pool="every"`); stages 3 and 4 keep their grid, as in UMDR.
DEVIATION: between eq. 2.7 and 2.8 the thesis only reshapes (`token_map="none"`); the maximum of channel pairs,
LayerNorm and Linear are UMDR's.
DEVIATION: section 2.3.4.1 has k-NN attention over space. Over time it is De+Recouple's (`temporal_attention`).
DEVIATION: the stem's second convolution is plain. Its 1 x 1 x 1 kernel has no differences: CDC-ST would scale it by
1 - theta, which BatchNorm undoes, and CDC-T would not change it.
DEVIATION: eq. 2.8 has no residuals, without which the eight layers of a stage do not train. Attention and MLP have one.
DEVIATION: the head is one linear layer; section 2.3.1 says MLP (`head="mlp"`).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from kinema.config import Channels, Count, Layers, Rate, config
from kinema.errors import ConfigError
from kinema.layers.central_difference import CentralDifferenceConv3d
from kinema.layers.central_difference import Operator as Operator
from kinema.layers.inception import ConvolutionNorm, Inception, InceptionPool, channels_last
from kinema.layers.knn_attention import KNNLayer, knn_block
from kinema.layers.multiscale_temporal import MultiScaleTemporalTransformer
from kinema.layers.transformer import HeadKind, TaskHeads, check_at_least, check_channels
from kinema.models.base import NamedModel, NetworkConfig, SingleStreamNetwork, single_stream

STEM = (64, 64, 192)
"""Channels of the stem's three convolutions."""
INCEPTIONS = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    ((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64)),
    ((128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64)),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""Channels of I3D's modules 3b 3c, 4b 4c, 4d 4e, 5b 5c, one pair per stage: 1x1 branch; reduction and output of the
middle branch; reduction and output of the small branch; pooling branch."""
STAGE_POOL = (2, 2, 1, 1)
"""Spatial pooling factor after the inception modules of each stage."""
MIN_SIZE = 32
"""Smallest height and width of a clip in pixels, at which the maps of the last stages are 1 x 1. It doubles for each
further stage that pools."""

Attention = Literal["knn", "dense"]
Part = Literal["both", "space", "time"]


@config
class MFSTConfig(NetworkConfig):
    """Architecture of MFST. The defaults are MFST-Base with the best rows of Tables 2.4 to 2.6.

    Attributes:
        stages: Number of stages: 3 for MFST-Base, 4 for MFST-Large (Table 2.3).
        widths: Token channels of each stage.
        channel_divisor: Divisor of all convolution channels, for networks smaller than the thesis's.
        stem_operator: Operator of the stem's first and third convolution. Table 2.4 finds `cdc-st` best for RGB and
            `cdc-t` best for depth, both with theta 0.6.
        stem_theta: Weight of the central differences, in [0, 1].
        stem_kernel_frames: Frames of the first convolution's kernel: 3, or I3D's 7. The printed sizes fit both.
        inception_pool: Axes of the pooling branch. `spatial` is the thesis's 1 x k x k.
        stage_pool: Stages that halve the grid: the `first-two` (UMDR), or `every` one (eq. 2.7).
        token_map: Maps to tokens: `pair-max` takes the maximum of channel pairs where the modules have twice the width,
            then LayerNorm and a linear layer; `none` only reshapes: tokens have the modules' channels, not `widths`.
        layers: Transformer layers per stage over space, and again over time.
        attention_heads: Attention heads of each layer.
        head_channels: Channels of one attention head.
        mlp_channels: Hidden channels of the MLP.
        spatial_attention: Attention over space: `knn` (section 2.3.4.1) or `dense`.
        temporal_attention: Attention over time: `knn` or `dense`.
        knn_share: Share of the keys that k-NN attention keeps, in (0, 1].
        temporal_scales: Number of frames that each scale averages into one. `(1,)` is V-Trans (Table 2.6).
        temporal_branches: One set of weights for all scales, or one per scale (section 2.3.4.2 argues against it).
        temporal_tokens: `places` runs one sequence per location of a map; `pooled` runs one sequence of spatial means
            and adds its change to all locations.
        factorization: `stage` runs space, then time in each stage (figure 2.2). `model` runs all spatial
            blocks, then all temporal blocks, with the same weights: the control for stage-wise factorization.
        shortcut: `residual` adds a stage's input to its output from the second stage on (Table 2.5).
        head: Task head: one `linear` layer, or an `mlp` with a hidden layer as wide as the features.
        dropout: Dropout probability in the transformer layers.
    """

    kind: Literal["mfst"] = "mfst"
    stages: Literal[1, 2, 3, 4] = 3
    widths: tuple[Channels, Channels, Channels, Channels] = (256, 256, 512, 512)
    channel_divisor: Literal[1, 2, 4, 8] = 1
    stem_operator: Operator = "cdc-st"
    stem_theta: Annotated[float, Field(ge=0, le=1)] = 0.6
    stem_kernel_frames: Literal[3, 7] = 3
    inception_pool: InceptionPool = "spatial"
    stage_pool: Literal["first-two", "every"] = "first-two"
    token_map: Literal["pair-max", "none"] = "pair-max"
    layers: Layers = 4
    attention_heads: Channels = 8
    head_channels: Channels = 64
    mlp_channels: Channels = 768
    spatial_attention: Attention = "knn"
    temporal_attention: Attention = "knn"
    knn_share: Annotated[float, Field(gt=0, le=1)] = 0.7
    temporal_scales: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4)
    temporal_branches: Literal["shared", "unshared"] = "shared"
    temporal_tokens: Literal["places", "pooled"] = "places"
    factorization: Literal["stage", "model"] = "stage"
    shortcut: Literal["residual", "none"] = "residual"
    head: HeadKind = "linear"
    dropout: Rate = 0.0

    def __post_init__(self) -> None:
        if len(set(self.temporal_scales)) < len(self.temporal_scales):
            raise ConfigError(f"temporal_scales={self.temporal_scales} repeats a scale", field="temporal_scales")
        if self.factorization == "model" and self.shortcut == "none" and self.stages > 1:
            raise ConfigError("factorization=model needs shortcut=residual; got shortcut=none", field="shortcut")

    def network(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> "MFST":
        """Return the network with fresh weights, whatever its size."""
        return MFST(self, heads=heads, channels=single_stream("MFST", channels), frames=frames, size=size)

    def pool_of(self, stage: int) -> int:
        """Return the spatial pooling factor after the inception modules of a stage."""
        return 2 if self.stage_pool == "every" else STAGE_POOL[stage]

    @property
    def token_channels(self) -> tuple[int, ...]:
        """Channels of the tokens of each stage."""
        if self.token_map == "pair-max":
            return self.widths
        branches = [(modules[-1][0], modules[-1][2], modules[-1][4], modules[-1][5]) for modules in INCEPTIONS]
        return tuple(sum(width // self.channel_divisor for width in widths) for widths in branches)

    def transformer_layer(self, attention: Attention) -> KNNLayer:
        """Return the settings of the transformer layers over space or over time."""
        return KNNLayer(
            heads=self.attention_heads,
            head_dim=self.head_channels,
            hidden=self.mlp_channels,
            attention=attention,
            share=self.knn_share,
            dropout=self.dropout,
        )

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Raise ClipError if the network cannot be built for such clips."""
        check_at_least("channels", channels)
        check_at_least("frames", frames)
        further = max(self.stages - 2, 0) if self.stage_pool == "every" else 0
        check_at_least("size", size, MIN_SIZE * 2**further)


MFST_BASE = MFSTConfig()
MFST_LARGE = MFSTConfig(stages=4)
MFST_BM = MFSTConfig(stages=4, stem_operator="vanilla", shortcut="none", temporal_scales=(1,))
MFST_SMALL = MFSTConfig(widths=(128, 128, 256, 256), channel_divisor=2, layers=2, attention_heads=4, mlp_channels=512)
MFST_TINY = MFSTConfig(
    widths=(64, 96, 128, 128), channel_divisor=4, layers=2, attention_heads=4, head_channels=32, mlp_channels=256
)
MFST_LARGE_DEPTH = replace(MFST_LARGE, stem_operator="cdc-t")
MFST_TINY_DEPTH = replace(MFST_TINY, stem_operator="cdc-t")
MODELS = {
    "mfst_base": NamedModel(MFST_BASE, 32, 224, "MFST with three stages (Table 2.3)"),
    "mfst_large": NamedModel(MFST_LARGE, 32, 224, "MFST with four stages (Table 2.3)"),
    "mfst_bm": NamedModel(MFST_BM, 32, 224, "base model: MFST-Large without CDC, shortcuts, scales (figure 2.6)"),
    "mfst_small": NamedModel(MFST_SMALL, 16, 112, "MFST with three stages, half as wide and half as deep"),
    "mfst_tiny": NamedModel(MFST_TINY, 16, 64, "small MFST that trains from scratch in minutes on a laptop"),
}


class Stem(nn.Module):
    """CDC stem: the first five layers of I3D with central differences, at full frame rate (eq. 2.2, section 2.3.3)."""

    def __init__(self, config: MFSTConfig, *, channels: int) -> None:
        super().__init__()
        first, second, third = (width // config.channel_divisor for width in STEM)
        frames = config.stem_kernel_frames
        operator, theta = config.stem_operator, config.stem_theta
        self.first = ConvolutionNorm(
            CentralDifferenceConv3d(
                channels,
                first,
                (frames, 7, 7),
                stride=(1, 2, 2),
                padding=(frames // 2, 3, 3),
                operator=operator,
                theta=theta,
            )
        )
        self.second = ConvolutionNorm(nn.Conv3d(first, second, 1, bias=False))
        self.third = ConvolutionNorm(
            CentralDifferenceConv3d(second, third, 3, padding=1, operator=operator, theta=theta)
        )
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t rows columns"]:
        """Return maps at an eighth of the clip's height and width."""
        maps = self.second(self.pool(self.first(channels_last(clip))))
        pooled: Tensor = self.pool(self.third(maps))
        return pooled


class MSCTransformer(nn.Module):
    """MSC-Trans: multi-scale convolutions, then k-NN attention within each frame (eq. 2.7, 2.8)."""

    def __init__(self, config: MFSTConfig, *, stage: int, channels: int) -> None:
        super().__init__()
        modules = []
        for widths in INCEPTIONS[stage]:
            divided = tuple(width // config.channel_divisor for width in widths)
            modules.append(Inception(channels, divided, pool=config.inception_pool))
            channels = modules[-1].channels
        self.inceptions = nn.ModuleList(modules)
        self.pool = config.pool_of(stage)
        width = config.token_channels[stage]
        self.has_pairs = config.token_map == "pair-max" and channels == 2 * width
        mapped = width if self.has_pairs else channels
        is_mapped = config.token_map == "pair-max"
        self.map_norm = nn.LayerNorm(mapped) if is_mapped else nn.Identity()
        self.map = nn.Linear(mapped, width) if is_mapped else nn.Identity()
        self.layers = nn.ModuleList(
            knn_block(width, config.transformer_layer(config.spatial_attention)) for _ in range(config.layers)
        )

    def forward(self, maps: Float[Tensor, "bt c h w"], frames: int) -> Float[Tensor, "bt d rows columns"]:
        """Return the stage's spatial features."""
        for inception in self.inceptions:
            maps = inception(maps, frames)
        maps = F.max_pool2d(maps, self.pool) if self.pool > 1 else maps
        rows, columns = maps.shape[2:]
        tokens = rearrange(maps, "bt c h w -> bt (h w) c")
        if self.has_pairs:  # maximum of two neighboring channels
            tokens = rearrange(tokens, "bt n (d two) -> bt n d two", two=2).amax(-1)
        tokens = self.map(self.map_norm(tokens))
        for layer in self.layers:
            tokens = layer(tokens)
        maps = rearrange(tokens, "bt (h w) d -> bt d h w", h=rows, w=columns)
        return maps


class WMSTransformer(nn.Module):
    """WMS-Trans over the frames at each location (section 2.3.4.2)."""

    def __init__(self, config: MFSTConfig, *, stage: int) -> None:
        super().__init__()
        self.tokens = config.temporal_tokens
        self.transformer = MultiScaleTemporalTransformer(
            config.token_channels[stage],
            config.transformer_layer(config.temporal_attention),
            depth=config.layers,
            scales=config.temporal_scales,
            branches=config.temporal_branches,
        )

    def forward(self, maps: Float[Tensor, "bt d h w"], frames: int) -> Float[Tensor, "bt d h w"]:
        """Return the stage's temporal features."""
        rows, columns = maps.shape[2:]
        if self.tokens == "places":
            tokens = rearrange(maps, "(b t) d h w -> (b h w) t d", t=frames)
            maps = rearrange(self.transformer(tokens), "(b h w) t d -> (b t) d h w", h=rows, w=columns)
        else:
            tokens = rearrange(maps.mean((2, 3)), "(b t) d -> b t d", t=frames)
            maps = maps + rearrange(self.transformer(tokens) - tokens, "b t d -> (b t) d 1 1")
        return maps


class Shortcut(nn.Module):
    """Residual connection around a stage, with pooling and a 1 x 1 convolution to fit its output (section 2.3.2)."""

    def __init__(self, *, pool: int, channels: int, width: int) -> None:
        super().__init__()
        self.pool = pool
        self.map = (
            nn.Identity()
            if channels == width
            else ConvolutionNorm(nn.Conv2d(channels, width, 1, bias=False), activation="none")
        )

    def forward(self, maps: Float[Tensor, "bt c h w"]) -> Float[Tensor, "bt d rows columns"]:
        """Return the residual for the output of the stage."""
        mapped: Tensor = self.map(F.max_pool2d(maps, self.pool) if self.pool > 1 else maps)
        return mapped


class Stage(nn.Module):
    """MSC-Trans over space, WMS-Trans over time, and a shortcut around both, except in the first stage."""

    def __init__(self, config: MFSTConfig, *, stage: int, channels: int) -> None:
        super().__init__()
        self.space = MSCTransformer(config, stage=stage, channels=channels)
        self.time = WMSTransformer(config, stage=stage)
        self.shortcut = (
            Shortcut(pool=config.pool_of(stage), channels=channels, width=config.token_channels[stage])
            if stage and config.shortcut == "residual"
            else None
        )

    def forward(
        self, maps: Float[Tensor, "bt c h w"], frames: int, part: Part = "both", before: Tensor | None = None
    ) -> Float[Tensor, "bt d rows columns"]:
        """Return the stage's features.

        Args:
            maps: Input of the stage; for `part="time"`, the output of `part="space"`.
            frames: Frames per clip.
            part: `space` and `time` run half of the stage, for a network that runs all space before all time.
            before: Input of the shortcut for `part="time"`.
        """
        maps = maps.contiguous(memory_format=torch.channels_last)
        if part == "time":
            if self.shortcut is not None and before is not None:
                maps = maps + self.shortcut(before.contiguous(memory_format=torch.channels_last))
            features: Tensor = self.time(maps, frames)
            return features
        features = self.space(maps, frames)
        if part == "both":
            features = self.time(features, frames)
            features = features if self.shortcut is None else features + self.shortcut(maps)
        return features


class MFST(SingleStreamNetwork):
    """Multi-stage Factorized Spatio-Temporal transformer for one modality (figure 2.2).

    Clips may have any number of frames and any size from 32 pixels.
    """

    def __init__(
        self, config: MFSTConfig, *, heads: Mapping[str, int], channels: int = 3, frames: int, size: int
    ) -> None:
        super().__init__()
        config.check_clip(channels=channels, frames=frames, size=size)
        self.config = config
        self.channels = channels
        self.stem = Stem(config, channels=channels)
        inputs = (STEM[-1] // config.channel_divisor, *config.token_channels)
        self.stages = nn.ModuleList(Stage(config, stage=n, channels=inputs[n]) for n in range(config.stages))
        self.feature_channels = config.token_channels[config.stages - 1]
        self.norm = nn.LayerNorm(self.feature_channels)
        self.heads = TaskHeads(self.feature_channels, heads, config.head)
        self.apply(init_from_scratch)

    def features(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d"]:
        """Return the normalized mean of the last stage over time and space."""
        channels, frames, height, width = clip.shape[1:]
        check_channels(channels, self.channels)
        self.config.check_clip(channels=channels, frames=frames, size=min(height, width))
        maps = rearrange(self.stem(clip), "b c t h w -> (b t) c h w")
        if self.config.factorization == "stage":
            for stage in self.stages:
                maps = stage(maps, frames)
        else:
            maps = self._space_then_time(maps, frames)
        pooled = rearrange(maps, "(b t) d h w -> b (t h w) d", t=frames).mean(1)
        features: Tensor = self.norm(pooled)
        return features

    def _space_then_time(self, maps: Tensor, frames: int) -> Tensor:
        """Run all spatial, then all temporal blocks. Shortcuts add the temporal features of the stage before."""
        spatial = []
        for stage in self.stages:
            maps = stage(maps, frames, "space")
            spatial.append(maps)
        for stage, space in zip(self.stages, spatial, strict=True):
            maps = stage(space, frames, "time", maps)  # the first stage has no shortcut and ignores `maps`
        return maps


def init_from_scratch(module: nn.Module) -> None:
    """Initialize a layer's weights to train from scratch."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

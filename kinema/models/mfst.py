"""Multimodal Fusion Spatial-Temporal transformer (MFST) for RGB-D action recognition: thesis chapter 2, figure 2.2.

    clip -> CDC stem -> [ MSC-Trans over space -> WMS-Trans over time, + shortcut ] x stages -> mean -> norm -> heads

Axes: b batch, c color or channels, t frames, h w rows and columns; d channels of a token. All maps and tokens keep
frames in the batch, (b t): nothing but the stem and WMS-Trans looks across time.

What the thesis leaves open is settled by public code of the same authors and by the printed sizes, which these widths
meet to a decimal (32.6 and 49.7 million); it is a reconstruction, not a proof.

DEVIATION: eq. 2.7 has a max-pooling in every stage; the third and fourth keep their grid (`STAGE_POOL`), as the public
code of the same authors does.
DEVIATION: eq. 2.8 has no residuals; without them eight layers a stage do not train. The layers have both.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal, assert_never

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from kinema.config import Rate, config
from kinema.errors import ClipError, ConfigError
from kinema.layers.central_difference import CentralDifferenceConv3d
from kinema.layers.central_difference import Operator as Operator
from kinema.layers.inception import ConvolutionNorm, Inception, InceptionPool, channels_last
from kinema.layers.knn_attention import KNNLayer, knn_block
from kinema.layers.multiscale_temporal import MultiScaleTemporalTransformer
from kinema.layers.transformer import TaskHeads, check_at_least
from kinema.models.base import NamedModel, NetworkConfig, single_stream

STEM = (64, 64, 192)
"""Channels of the stem's three convolutions."""
INCEPTIONS = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    ((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64)),
    ((128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64)),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""I3D's modules 3b 3c, 4b 4c, 4d 4e, 5b 5c: alone; before and in the middle branch; in the small one; after pooling."""
STAGE_POOL = (2, 2, 1, 1)
"""Rows and columns that become one behind the inception modules of a stage."""
SMALLEST = 32
"""Pixels of a clip's side, with which one place is left for the last stages."""

Attention = Literal["knn", "dense"]
Part = Literal["both", "space", "time"]


@config
class MFSTConfig(NetworkConfig):
    """What MFST is made of. The defaults are MFST-Base with the best rows of Tables 2.4 to 2.6.

    Args:
        stages: 3 is MFST-Base, 4 MFST-Large (Table 2.3).
        widths: channels of a stage's tokens.
        channel_divisor: all channels of convolutions are divided by it; for networks smaller than the thesis's.
        stem_operator: of the stem's first and third convolution. Table 2.4 finds `cdc-st` best for RGB, `cdc-t` for
            depth, both with a theta of 0.6.
        stem_theta: share of the differences, in [0, 1].
        stem_kernel_frames: of the first convolution: 3, or I3D's 7. The printed sizes do not tell which.
        inception_pool: what the pooling branch pools over; `spatial` is the thesis's 1 x k x k.
        layers: transformer layers of a stage over space, and again over time.
        attention_heads: in all of them.
        head_channels: of one attention head.
        mlp_channels: between the two layers of an MLP.
        spatial_attention, temporal_attention: `knn` (section 2.3.4.1) or `dense`.
        knn_share: of the tokens that k-NN attention keeps, in (0, 1].
        temporal_scales: times that are averaged into one; `(1,)` is V-Trans (Table 2.6).
        temporal_branches: one set of weights for all scales, or a set each (section 2.3.4.2 argues against it).
        temporal_tokens: `places` gives each place of a map its own sequence; `pooled` one sequence for all places,
            whose change is added to all of them.
        factorization: `stage` alternates space and time from stage to stage (figure 2.2); `model` does all space first
            and then all time, with the same weights: the control for what the chapter claims.
        shortcut: `residual` adds a stage's input to its output from the second stage on (Table 2.5).
        dropout: in transformer layers, in training.
    """

    kind: Literal["mfst"] = "mfst"
    stages: Literal[1, 2, 3, 4] = 3
    widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (256, 256, 512, 512)
    channel_divisor: Literal[1, 2, 4, 8] = 1
    stem_operator: Operator = "cdc-st"
    stem_theta: Annotated[float, Field(ge=0, le=1)] = 0.6
    stem_kernel_frames: Literal[3, 7] = 3
    inception_pool: InceptionPool = "spatial"
    layers: PositiveInt = 4
    attention_heads: PositiveInt = 8
    head_channels: PositiveInt = 64
    mlp_channels: PositiveInt = 768
    spatial_attention: Attention = "knn"
    temporal_attention: Attention = "knn"
    knn_share: Annotated[float, Field(gt=0, le=1)] = 0.7
    temporal_scales: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 4)
    temporal_branches: Literal["shared", "unshared"] = "shared"
    temporal_tokens: Literal["places", "pooled"] = "places"
    factorization: Literal["stage", "model"] = "stage"
    shortcut: Literal["residual", "none"] = "residual"
    dropout: Rate = 0.0

    def __post_init__(self) -> None:
        if len(set(self.temporal_scales)) < len(self.temporal_scales):
            raise ConfigError(f"temporal_scales={self.temporal_scales} repeats a scale", field="temporal_scales")
        if self.factorization == "model" and self.shortcut == "none" and self.stages > 1:
            raise ConfigError("factorization=model needs shortcut=residual, which passes time on", field="shortcut")

    def build(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> "MFST":
        return MFST(self, heads=heads, channels=single_stream("MFST", channels), frames=frames, size=size)

    @classmethod
    def named_models(cls) -> dict[str, NamedModel]:
        return {
            "mfst_base": NamedModel(MFST_BASE, 32, 224, "MFST of three stages (Table 2.3)"),
            "mfst_large": NamedModel(MFST_LARGE, 32, 224, "MFST of four stages (Table 2.3)"),
            "mfst_bm": NamedModel(
                MFST_BM,
                32,
                224,
                "MFST-Large without CDC, shortcuts and time scales (base of figure 2.6)",
            ),
            "mfst_small": NamedModel(MFST_SMALL, 16, 112, "MFST of three stages, half as wide and half as deep"),
            "mfst_tiny": NamedModel(MFST_TINY, 16, 64, "a small MFST that a laptop trains from scratch in minutes"),
        }

    def transformer_layer(self, attention: Attention) -> KNNLayer:
        """What the transformer layers are made of, over space or over time."""
        return KNNLayer(
            heads=self.attention_heads,
            head_dim=self.head_channels,
            hidden=self.mlp_channels,
            attention=attention,
            share=self.knn_share,
            dropout=self.dropout,
        )

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Refuse clips that the network cannot be built for (ClipError)."""
        check_at_least("channels", channels)
        check_at_least("frames", frames)
        check_at_least("size", size, SMALLEST)


MFST_BASE = MFSTConfig()
MFST_LARGE = MFSTConfig(stages=4)
MFST_BM = MFSTConfig(stages=4, stem_operator="vanilla", shortcut="none", temporal_scales=(1,))
MFST_SMALL = MFSTConfig(widths=(128, 128, 256, 256), channel_divisor=2, layers=2, attention_heads=4, mlp_channels=512)
MFST_TINY = MFSTConfig(
    widths=(64, 96, 128, 128),
    channel_divisor=4,
    layers=2,
    attention_heads=4,
    head_channels=32,
    mlp_channels=256,
)
MFST_LARGE_DEPTH = replace(MFST_LARGE, stem_operator="cdc-t")
MFST_TINY_DEPTH = replace(MFST_TINY, stem_operator="cdc-t")


class Stem(nn.Module):
    """The first five layers of I3D with central differences, which keep all frames (eq. 2.2, section 2.3.2)."""

    def __init__(self, config: MFSTConfig, *, channels: int) -> None:
        super().__init__()
        first, second, third = (wide // config.channel_divisor for wide in STEM)
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
        self.second = ConvolutionNorm(nn.Conv3d(first, second, 1, bias=False))  # a single tap has no differences
        self.third = ConvolutionNorm(
            CentralDifferenceConv3d(second, third, 3, padding=1, operator=operator, theta=theta)
        )
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t rows columns"]:
        maps = self.second(self.pool(self.first(channels_last(clip))))
        pooled: Tensor = self.pool(self.third(maps))
        return pooled


class MSCTransformer(nn.Module):
    """Multi-scale convolutions, then k-NN attention over the places of each frame (MSC-Trans, eq. 2.7, 2.8).

    Args:
        config: of the network.
        stage: number of the stage, from 0.
        channels: of the maps that it gets.
    """

    def __init__(self, config: MFSTConfig, *, stage: int, channels: int) -> None:
        super().__init__()
        modules = []
        for widths in INCEPTIONS[stage]:
            narrowed = tuple(wide // config.channel_divisor for wide in widths)
            modules.append(Inception(channels, narrowed, pool=config.inception_pool))
            channels = modules[-1].channels
        self.inceptions = nn.ModuleList(modules)
        self.pool = STAGE_POOL[stage]
        width = config.widths[stage]
        self.pairs: Literal["largest", "all"] = "largest" if channels == 2 * width else "all"
        self.map_norm = nn.LayerNorm(width if self.pairs == "largest" else channels)
        self.map = nn.Linear(width if self.pairs == "largest" else channels, width)
        self.layers = nn.ModuleList(
            knn_block(width, config.transformer_layer(config.spatial_attention)) for _ in range(config.layers)
        )

    def forward(self, maps: Float[Tensor, "bt c h w"], frames: int) -> Float[Tensor, "bt d rows columns"]:
        for inception in self.inceptions:
            maps = inception(maps, frames)
        maps = F.max_pool2d(maps, self.pool) if self.pool > 1 else maps
        rows, columns = maps.shape[2:]
        tokens = rearrange(maps, "bt c h w -> bt (h w) c")
        if self.pairs == "largest":  # of two neighboring channels
            tokens = rearrange(tokens, "bt n (d two) -> bt n d two", two=2).amax(-1)
        tokens = self.map(self.map_norm(tokens))
        for layer in self.layers:
            tokens = layer(tokens)
        maps = rearrange(tokens, "bt (h w) d -> bt d h w", h=rows, w=columns)
        return maps


class WMSTransformer(nn.Module):
    """Each place's sequence of frames through WMS-Trans (section 2.3.4.2)."""

    def __init__(self, config: MFSTConfig, *, stage: int) -> None:
        super().__init__()
        self.tokens = config.temporal_tokens
        self.transformer = MultiScaleTemporalTransformer(
            config.widths[stage],
            config.transformer_layer(config.temporal_attention),
            depth=config.layers,
            scales=config.temporal_scales,
            branches=config.temporal_branches,
        )

    def forward(self, maps: Float[Tensor, "bt d h w"], frames: int) -> Float[Tensor, "bt d h w"]:
        rows, columns = maps.shape[2:]
        match self.tokens:
            case "places":
                tokens = rearrange(maps, "(b t) d h w -> (b h w) t d", t=frames)
                maps = rearrange(self.transformer(tokens), "(b h w) t d -> (b t) d h w", h=rows, w=columns)
            case "pooled":
                tokens = rearrange(maps.mean((2, 3)), "(b t) d -> b t d", t=frames)
                change = self.transformer(tokens) - tokens
                maps = maps + rearrange(change, "b t d -> (b t) d 1 1")
            case _:
                assert_never(self.tokens)
        return maps


class Shortcut(nn.Module):
    """A stage's input as an addend of its output: pooled and mapped where grid or channels differ (section 2.3.1)."""

    def __init__(self, *, pool: int, channels: int, width: int) -> None:
        super().__init__()
        self.pool = pool
        self.map = (
            nn.Identity()
            if channels == width
            else ConvolutionNorm(nn.Conv2d(channels, width, 1, bias=False), activation="none")
        )

    def forward(self, maps: Float[Tensor, "bt c h w"]) -> Float[Tensor, "bt d rows columns"]:
        mapped: Tensor = self.map(F.max_pool2d(maps, self.pool) if self.pool > 1 else maps)
        return mapped


class Stage(nn.Module):
    """MSC-Trans over space, WMS-Trans over time, and the shortcut around both.

    Args:
        config: of the network.
        stage: its number, from 0; the first has no shortcut.
        channels: of the maps that it gets.
    """

    def __init__(self, config: MFSTConfig, *, stage: int, channels: int) -> None:
        super().__init__()
        width = config.widths[stage]
        self.space = MSCTransformer(config, stage=stage, channels=channels)
        self.time = WMSTransformer(config, stage=stage)
        self.shortcut = (
            Shortcut(pool=STAGE_POOL[stage], channels=channels, width=width)
            if stage and config.shortcut == "residual"
            else None
        )

    def forward(
        self, maps: Float[Tensor, "bt c h w"], frames: int, part: Part = "both", before: Tensor | None = None
    ) -> Float[Tensor, "bt d rows columns"]:
        """Args:
        maps: what the stage gets; of the part `time` what its own part `space` has made.
        frames: of a clip.
        part: `space` and `time` are for a network that does all space before all time.
        before: what the shortcut takes; the maps that the stage gets where None.
        """
        maps = maps.contiguous(memory_format=torch.channels_last)
        added = maps if before is None else before.contiguous(memory_format=torch.channels_last)
        if part in ("both", "space"):
            maps = self.space(maps, frames)
        if part == "space":
            return maps
        if self.shortcut is None:
            return self.time(maps, frames)  # type: ignore[no-any-return]  # nn.Module answers Any
        if part == "time":
            maps = maps + self.shortcut(added)
            return self.time(maps, frames)  # type: ignore[no-any-return]  # as above
        return self.time(maps, frames) + self.shortcut(added)  # type: ignore[no-any-return]  # as above


class MFST(nn.Module):
    """The network of figure 2.2, for one modality.

    Args:
        config: the architecture.
        heads: name of a task -> number of its classes; for one task the answer is a tensor, for several a dict.
        channels: of the clip.
        frames: of the clips it is meant for. Clips of any number of frames can follow.
        size: rows and columns of those clips; those of at least 32 pixels can follow.
    """

    def __init__(
        self, config: MFSTConfig, *, heads: Mapping[str, int], channels: int = 3, frames: int, size: int
    ) -> None:
        super().__init__()
        config.check_clip(channels=channels, frames=frames, size=size)
        self.config = config
        self.channels = channels
        self.stem = Stem(config, channels=channels)
        inputs = (STEM[-1] // config.channel_divisor, *config.widths)
        self.stages = nn.ModuleList(Stage(config, stage=n, channels=inputs[n]) for n in range(config.stages))
        self.feature_channels = config.widths[config.stages - 1]
        self.norm = nn.LayerNorm(self.feature_channels)
        self.heads: nn.Module = TaskHeads(self.feature_channels, heads)
        self.apply(init_from_scratch)

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b classes"] | dict[str, Float[Tensor, "b _"]]:
        logits: Tensor | dict[str, Tensor] = self.heads(self.features(clip))
        return logits

    def features(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d"]:
        """The mean over frames and places of the last stage, normalized: what the task heads see."""
        channels, frames, height, width = clip.shape[1:]
        if channels != self.channels:
            raise ClipError(f"the network takes clips of {self.channels} channels; got {channels}", field="channels")
        self.config.check_clip(channels=channels, frames=frames, size=min(height, width))
        maps = rearrange(self.stem(clip), "b c t h w -> (b t) c h w")
        match self.config.factorization:
            case "stage":
                for stage in self.stages:
                    maps = stage(maps, frames)
            case "model":
                maps = self._all_space_first(maps, frames)
            case _:
                assert_never(self.config.factorization)
        pooled = rearrange(maps, "(b t) d h w -> b (t h w) d", t=frames).mean(1)
        features: Tensor = self.norm(pooled)
        return features

    def _all_space_first(self, maps: Tensor, frames: int) -> Tensor:
        """Time gets each stage's maps when all of them are made; a stage hands on what it has found by its shortcut."""
        seen = []
        for stage in self.stages:
            maps = stage(maps, frames, "space")
            seen.append(maps)
        for stage, space in zip(self.stages, seen, strict=True):
            maps = stage(space, frames, "time", maps)  # the first has no shortcut, and takes no notice of `maps`
        return maps


def init_from_scratch(module: nn.Module) -> None:
    """Set a layer's weights as at the start of a training from scratch."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

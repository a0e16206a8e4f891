"""RPE-STDT: relative position, spatially and temporally decoupled transformer: thesis chapter 3, figure 3.2.

    clip -> patches of each frame -> class token -> [ attention with relative position -> MLP ] x L_S -> norm
         -> class tokens of the frames -> class token -> [ attention -> frame pooling -> MLP ] x L_T -> norm
         -> task heads

Axes: b batch, c color, t frames, h w pixels; n tokens, d channels.

DEVIATION: section 3.4.2 gives the spatial encoder 8 layers and calls the temporal one lighter. The sizes and costs of
Tables 3.1 and 3.3 fit only 12 spatial layers and narrower temporal ones. `rpe_stdt_base`
follows the text, `rpe_stdt_base12` the tables.
DEVIATION: `pool_place="inside"` drops only rows of the attention map. In the last layer, of which only the class
token's row is used, this has no effect: for four layers, `pool_layers=(1, 3)` equals `(1,)`. `between` drops tokens
before the layer, by the attention map of the layer before. With `pool_heads="per-head"`, the i-th token combines the
i-th frame that each attention head keeps, and so carries some temporal order.
DEVIATION: the text under eq. 3.12 ranks frames by products of q and k; the default ranks them by attention
probabilities, like gluonmm's public code, which picks per head and applies softmax to the kept rows again. On random
data the picks agree in 71 % of cases. `pool_scores`, `pool_heads` and `pool_softmax` select either. The superscript
(1,:) of eq. 3.12 is read as (1:,:), the rows below the class token's.
DEVIATION: trained from scratch, the class tokens of frames are nearly the same for all clips, and on small datasets the
network does not learn from their differences. `frame_norm="clip"` standardizes each channel over the frames of a clip.
Networks initialized from ViT do not need it.
DEVIATION: after Top-K, relative positions use the original frame numbers, which the thesis leaves open.
DEVIATION: `position="absolute"` is learned, as in ViViT, whose "original" embedding Table 3.1 compares; the text under
eq. 3.1 speaks of sinusoids, which are `sinusoidal`.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from pydantic import NonNegativeInt
from torch import Tensor, nn

from kinema.config import Channels, Layers, Pixels, Rate, Registers, config
from kinema.errors import ClipError, ConfigError
from kinema.layers.relative_position import Clusters, Distance, Ratio, RelativeSelfAttention, Terms
from kinema.layers.relative_position import MappingFunction as MappingFunction
from kinema.layers.temporal_topk import (
    FramePooling,
    attention_std,
    control_frames,
    gather_frames,
    gather_rows,
    gather_times,
    top_frames,
)
from kinema.layers.temporal_topk import Pooling as Pooling
from kinema.layers.transformer import (
    MLP,
    VIT_NORM_EPS,
    ClassToken,
    DropPath,
    EncoderBlock,
    FrameTokens,
    HeadKind,
    LearnedPosition,
    RegisterTokens,
    Rows,
    SinusoidalPosition,
    Start,
    TaskHeads,
    check_at_least,
    drop_path_rates,
    init_weights,
    patch_grid,
    run_blocks,
    without_autocast,
)
from kinema.models.base import NamedModel, NetworkConfig, SingleStreamNetwork, single_stream

FRAME_NORM_EPS = 1e-5

Position = Literal["none", "absolute", "sinusoidal", "shared", "per-head"]


@config
class RPESTDTConfig(NetworkConfig):
    """Architecture of RPE-STDT. The defaults are section 3.4.2's.

    Attributes:
        patch: Height and width of a patch in pixels.
        width: Channels of a token, in space and in time.
        spatial_layers: Layers of the spatial encoder.
        spatial_heads: Attention heads of the spatial encoder. Must divide `width`.
        spatial_mlp_channels: Hidden channels of the spatial encoder's MLP.
        temporal_layers: Layers of the temporal encoder.
        temporal_heads: Attention heads of the temporal encoder.
        temporal_head_channels: Channels of one attention head of the temporal encoder.
        temporal_mlp_channels: Hidden channels of the temporal encoder's MLP.
        position: Relative position with one table for all attention heads (`shared`) or one per head (`per-head`,
            Table 3.1); `absolute` adds learned vectors to the tokens, as ViViT does, and `sinusoidal` sinusoids; or
            `none`.
        temporal_position: Relative position in the temporal encoder: `as-space`, or `none`. In figure 3.2 only patches
            have it; according to section 3.4.2, all layers do.
        spatial_position: Position of patches: that of `position`, or also the learned table of pretrained weights
            (`absolute`).
        registers: Number of register tokens of the spatial encoder, as in DINOv2 with registers.
        position_terms: Terms with relative position: query (eq. 3.7), also key (eq. 3.6), also value (eq. 3.5).
        position_function: Mapping of offsets to integers (Table 3.2).
        position_distance: Offset along both `axes`, or `euclid` (eq. 3.10), which `euclid-rounded` rounds, like iRPE.
        position_ratio: Largest offset that `sectioned` maps to itself: `irpe`, or `printed`, exactly 1 : 2 : 8.
        clusters: Number of relative positions in a frame, including the class token's (figure 3.4).
        pool: Reduction of frames (Table 3.4). `random` and `uniform` are controls.
        pool_layers: Layers that reduce frames, from 0.
        pool_place: `inside` the layer, between attention and MLP, or `between` the layer before and this one.
        pool_heads: All attention heads keep the same frames (`shared`, by their mean), or each keeps its own.
        pool_scores: Scores whose deviation is ranked: attention probabilities, or logits.
        pool_softmax: `twice` applies softmax to the kept rows of probabilities again, like gluonmm.
        pool_kernel: Kernel of `pool=convolution`: 3 with padding 1, or 2.
        frame_norm: Normalization between the encoders. `clip` standardizes each channel over the frames of a clip.
        head: Task head: one `linear` layer, or an `mlp` with a hidden layer as wide as the features.
        start: Initial weights: `vit` before pretrained weights are loaded, `scratch` to train on little data without.
        dropout: Dropout probability in attention and MLP.
        drop_path: Drop-path probability of the last layer. Rises linearly from 0 at the first layer.
    """

    kind: Literal["rpe-stdt"] = "rpe-stdt"
    patch: Pixels = 16
    width: Channels = 768
    spatial_layers: Layers = 8
    spatial_heads: Channels = 12
    spatial_mlp_channels: Channels = 3072
    temporal_layers: Layers = 4
    temporal_heads: Channels = 8
    temporal_head_channels: Channels = 96
    temporal_mlp_channels: Channels = 3072
    position: Position = "shared"
    temporal_position: Literal["as-space", "none"] = "as-space"
    spatial_position: Literal["as-position", "absolute"] = "as-position"
    registers: Registers = 0
    position_terms: Terms = "query"
    position_function: MappingFunction = "sectioned"
    position_distance: Distance = "axes"
    position_ratio: Ratio = "irpe"
    clusters: int = 50
    pool: Pooling = "top-k"
    pool_layers: tuple[NonNegativeInt, ...] = (1, 3)
    pool_place: Literal["inside", "between"] = "inside"
    pool_heads: Literal["shared", "per-head"] = "shared"
    pool_scores: Literal["probabilities", "logits"] = "probabilities"
    pool_softmax: Literal["once", "twice"] = "once"
    pool_kernel: Literal[2, 3] = 3
    frame_norm: Literal["none", "clip"] = "none"
    head: HeadKind = "linear"
    start: Start = "vit"
    dropout: Rate = 0.0
    drop_path: Rate = 0.0

    def __post_init__(self) -> None:
        if self.width % self.spatial_heads:
            problem = f"is not divisible by spatial_heads={self.spatial_heads}"
            raise ConfigError(f"width={self.width} {problem}", field="width")
        self.spatial_clusters  # noqa: B018  # raises ConfigError for an impossible number of clusters
        layers = self.pool_layers
        if list(layers) != sorted(set(layers)) or (layers and layers[-1] >= self.temporal_layers):
            expected = f"expected increasing numbers from 0 to {self.temporal_layers - 1}"
            raise ConfigError(f"pool_layers={layers}; {expected}", field="pool_layers")
        if self.pool == "top-k" and self.pool_place == "between" and 0 in layers:
            problem = "pool_place=between uses the attention map of the layer before. Start at layer 1 or later."
            raise ConfigError(f"pool_layers={layers}; {problem}", field="pool_layers")
        if self.pool != "top-k" and (self.pool_heads, self.pool_scores) != ("shared", "probabilities"):
            raise ConfigError(f"pool={self.pool}: pool_heads and pool_scores need pool=top-k", field="pool")
        if self.pool_softmax == "twice" and (self.pool, self.pool_place) != ("top-k", "inside"):
            raise ConfigError("pool_softmax=twice needs pool=top-k and pool_place=inside", field="pool_softmax")
        if self.pool_kernel != 3 and self.pool != "convolution":
            raise ConfigError(f"pool_kernel={self.pool_kernel} needs pool=convolution", field="pool_kernel")
        if self.position_ratio != "irpe" and self.position_function != "sectioned":
            raise ConfigError("position_ratio=printed needs position_function=sectioned", field="position_ratio")
        if self.pool_heads == "per-head" and self.width % self.temporal_heads:
            problem = f"width={self.width} is not divisible by temporal_heads={self.temporal_heads}"
            raise ConfigError(f"pool_heads=per-head: {problem}", field="temporal_heads")

    def network(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> "RPESTDT":
        """Return the network with fresh weights, whatever its size."""
        return RPESTDT(self, heads=heads, channels=single_stream("RPESTDT", channels), frames=frames, size=size)

    @property
    def is_relative(self) -> bool:
        """Return whether attention uses relative position."""
        return self.position in ("shared", "per-head")

    @property
    def spatial_clusters(self) -> Clusters:
        """Clusters of offsets in a frame."""
        function, distance, ratio = self.position_function, self.position_distance, self.position_ratio
        return Clusters(count=self.clusters, function=function, distance=distance, ratio=ratio)

    def pools_at(self, layer: int) -> bool:
        """Return whether a temporal layer reduces frames."""
        return self.pool != "none" and layer in self.pool_layers

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Raise ClipError if the network cannot be built for such clips."""
        check_at_least("channels", channels)
        self.check_frames(frames)
        patch_grid(self.patch, height=size, width=size)

    def check_frames(self, frames: int) -> None:
        """Raise ClipError if a clip has too few frames for the frame normalization or the pooling layers."""
        check_at_least("frames", frames, 2 if self.frame_norm == "clip" else 1)
        floors = self.pool in ("max", "average") or (self.pool == "convolution" and self.pool_kernel == 2)
        halvings = len(self.pool_layers) if floors else 0
        if frames < 2**halvings:
            raise ClipError(
                f"frames={frames}; expected at least {2**halvings} for {halvings} layers of {self.pool} pooling",
                field="frames",
            )


RPE_STDT_BASE = RPESTDTConfig()
RPE_STDT_BASE12 = RPESTDTConfig(spatial_layers=12, temporal_head_channels=64, temporal_mlp_channels=768)


def _narrow(width: int, heads: int) -> RPESTDTConfig:
    """Return a narrower network, with as many attention heads in time as in space."""
    space = replace(RPE_STDT_BASE, width=width, spatial_heads=heads, spatial_mlp_channels=4 * width)
    return replace(space, temporal_heads=heads, temporal_head_channels=width // heads, temporal_mlp_channels=4 * width)


RPE_STDT_SMALL = _narrow(384, 6)
RPE_STDT_S14 = replace(RPE_STDT_SMALL, patch=14, spatial_layers=12, spatial_position="absolute")
RPE_STDT_TINY = replace(_narrow(128, 4), frame_norm="clip", start="scratch", spatial_layers=4)
MODELS = {
    "rpe_stdt_base": NamedModel(RPE_STDT_BASE, 16, 224, "RPE-STDT, 8 + 4 layers (section 3.4.2)"),
    "rpe_stdt_base12": NamedModel(RPE_STDT_BASE12, 16, 224, "RPE-STDT, 12 + 4 light layers (tables)"),
    "rpe_stdt_small": NamedModel(RPE_STDT_SMALL, 16, 224, "RPE-STDT with the width of ViT-S"),
    "rpe_stdt_s14": NamedModel(RPE_STDT_S14, 8, 168, "RPE-STDT on DINOv2 ViT-S/14, 12 + 4 layers"),
    "rpe_stdt_tiny": NamedModel(RPE_STDT_TINY, 16, 112, "small RPE-STDT that trains on a laptop"),
}


class TemporalBlock(nn.Module):
    """Temporal encoder block: attention among the frames of a clip, optional frame pooling, MLP."""

    def __init__(self, config: RPESTDTConfig, *, layer: int, drop_path: float) -> None:
        super().__init__()
        self.config = config
        self.clusters = config.spatial_clusters
        pools = config.pools_at(layer)
        self.pools_inside = pools and config.pool_place == "inside"
        self.pools_before = pools and config.pool_place == "between"
        self.returns_scores = config.pool == "top-k" and config.pool_place == "between" and config.pools_at(layer + 1)
        self.norm_attention = nn.LayerNorm(config.width, eps=VIT_NORM_EPS)
        self.attention = relative_attention(config, "time")
        self.pooling: nn.Module | None = None
        if pools and config.pool in ("max", "average", "convolution"):
            self.pooling = FramePooling(config.pool, config.width, kernel=config.pool_kernel)
        self.norm_mlp = nn.LayerNorm(config.width, eps=VIT_NORM_EPS)
        self.mlp = MLP(config.width, hidden=config.temporal_mlp_channels, dropout=config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        times: Int64[Tensor, "b _ t"],
        scores: Float[Tensor, "b _ t"] | None,
    ) -> tuple[Float[Tensor, "b m d"], Int64[Tensor, "b _ k"], Float[Tensor, "b _ k"] | None]:
        """Return the tokens, their frame numbers, and scores for `between` pooling in the next layer.

        Args:
            tokens: Class token and frame tokens.
            times: Frame numbers in the clip; one row, or one per attention head.
            scores: Scores from the layer before, if this layer pools by them.
        """
        if self.pools_before:
            tokens, times = self.drop_frames(tokens, times, scores)
        ids = self.clusters.on_times(times) if self.attention.position is not None else None
        normed, sigma = self.norm_attention(tokens), None
        if self.config.pool == "top-k" and (self.pools_inside or self.returns_scores):
            logits, value = self.attention.logits_and_values(normed, ids)
            weights = logits.softmax(-1)
            sigma = attention_std(weights if self.config.pool_scores == "probabilities" else logits)  # eq. 3.13
            if self.config.pool_heads == "shared":
                sigma = sigma.mean(1, keepdim=True)
            if self.pools_inside:
                frames = top_frames(sigma)  # eq. 3.12
                weights = gather_rows(weights, frames)
                weights = weights.softmax(-1) if self.config.pool_softmax == "twice" else weights
                ids = None if ids is None else gather_rows(ids, frames)
                tokens, times = gather_frames(tokens, frames), gather_times(times, frames)
            tokens = tokens + self.drop_path(self.attention.attend(weights.to(value.dtype), value, ids))
        else:
            tokens = tokens + self.drop_path(self.attention(normed, ids))
            if self.pools_inside:
                tokens, times = self.drop_frames(tokens, times, None)
        return tokens + self.drop_path(self.mlp(self.norm_mlp(tokens))), times, sigma if self.returns_scores else None

    def drop_frames(
        self, tokens: Float[Tensor, "b n d"], times: Int64[Tensor, "b _ t"], scores: Float[Tensor, "b _ t"] | None
    ) -> tuple[Float[Tensor, "b m d"], Int64[Tensor, "b _ k"]]:
        """Return half of the frames and their numbers."""
        if self.pooling is not None:
            pooled = self.pooling(tokens)
            return pooled, times[..., ::2][..., : pooled.shape[1] - 1]  # a pair keeps the number of its first frame
        if self.config.pool == "top-k":
            assert scores is not None
            frames = top_frames(scores)
        else:
            # tokens.shape[0], because len() would fix the batch of an exported network
            frames = control_frames(
                self.config.pool, tokens.shape[0], times.shape[-1], training=self.training, device=tokens.device
            )
        return gather_frames(tokens, frames), gather_times(times, frames)


def relative_attention(config: RPESTDTConfig, axis: Literal["space", "time"]) -> RelativeSelfAttention:
    """Return the attention among the tokens of a frame, or among the frames of a clip."""
    if axis == "space":
        heads, head_dim, count = config.spatial_heads, config.width // config.spatial_heads, config.clusters
    else:
        heads, head_dim = config.temporal_heads, config.temporal_head_channels
        count = config.spatial_clusters.temporal_count
    is_relative = config.is_relative and (axis == "space" or config.temporal_position == "as-space")
    return RelativeSelfAttention(
        config.width,
        heads=heads,
        head_dim=head_dim,
        clusters=count if is_relative else None,
        sharing="per-head" if config.position == "per-head" else "shared",
        terms=config.position_terms,
        dropout=config.dropout,
    )


def absolute_position(
    position: Position, grid: tuple[int, ...], width: int
) -> LearnedPosition | SinusoidalPosition | None:
    """Return the position that is added to the tokens of a grid, or None."""
    if position == "absolute":
        return LearnedPosition(grid, width)
    return SinusoidalPosition() if position == "sinusoidal" else None


class RPESTDT(SingleStreamNetwork):
    """Spatially and temporally decoupled transformer with relative position (figure 3.2).

    Clips may have any number of frames, and any multiple of the patch as height and width. An absolute position is
    interpolated for them.
    """

    spatial_ids: Tensor | None

    def __init__(
        self, config: RPESTDTConfig, *, heads: Mapping[str, int], channels: int = 3, frames: int, size: int
    ) -> None:
        super().__init__()
        config.check_clip(channels=channels, frames=frames, size=size)
        self.config = config
        self.grid = patch_grid(config.patch, height=size, width=size)
        rates = drop_path_rates(config.drop_path, config.spatial_layers + config.temporal_layers)
        self.embedding = FrameTokens(channels=channels, patch=config.patch, width=config.width)
        self.spatial_class_token = ClassToken(config.width)
        in_space: Position = "absolute" if config.spatial_position == "absolute" else config.position
        self.spatial_position = absolute_position(in_space, self.grid, config.width)
        self.spatial_registers = RegisterTokens(config.registers, config.width) if config.registers else None
        ids = config.spatial_clusters.on_grid(*self.grid, config.registers) if config.is_relative else None
        self.register_buffer("spatial_ids", ids, persistent=False)
        self.spatial_blocks = nn.ModuleList(
            EncoderBlock(
                relative_attention(config, "space"),
                dim=config.width,
                hidden=config.spatial_mlp_channels,
                dropout=config.dropout,
                drop_path=rate,
            )
            for rate in rates[: config.spatial_layers]
        )
        self.spatial_norm = nn.LayerNorm(config.width, eps=VIT_NORM_EPS)
        self.temporal_class_token = ClassToken(config.width)
        self.temporal_position = absolute_position(config.position, (frames,), config.width)
        self.temporal_blocks = nn.ModuleList(
            TemporalBlock(config, layer=layer, drop_path=rate)
            for layer, rate in enumerate(rates[config.spatial_layers :])
        )
        self.norm = nn.LayerNorm(config.width, eps=VIT_NORM_EPS)
        self.feature_channels = config.width
        self.heads = TaskHeads(config.width, heads, config.head)
        init_weights(self, config.start)

    def features(self, clip: Float[Tensor, "b c t h w"], last_block: Rows = "class") -> Float[Tensor, "b d"]:
        """Return the normalized class token. `last_block` selects the computed rows of the last spatial block."""
        tokens, _ = self.encode_time(self.encode_space(clip, last_block))
        features: Tensor = self.norm(tokens[:, 0])
        return features

    def encode_space(self, clip: Float[Tensor, "b c t h w"], last_block: Rows = "class") -> Float[Tensor, "b t d"]:
        """Return the class token of each frame, h_i of section 3.3.4."""
        if self.config.frame_norm == "none":
            return self._encode_frames(clip, last_block)
        # Rounding to bfloat16 is as large as the change between frames: training bears it, answers would depend on it.
        with contextlib.nullcontext() if self.training else without_autocast(clip.device.type):
            frames = self._encode_frames(clip, last_block)
            change = frames - frames.mean(1, keepdim=True)
            return change / (change.square().mean(1, keepdim=True) + FRAME_NORM_EPS).sqrt()

    def _encode_frames(self, clip: Float[Tensor, "b c t h w"], last_block: Rows) -> Float[Tensor, "b t d"]:
        grid = patch_grid(self.config.patch, height=clip.shape[-2], width=clip.shape[-1])
        tokens = self.spatial_class_token(self.embedding(clip))
        if self.spatial_position is not None:
            tokens = self.spatial_position(tokens, grid)
        if self.spatial_registers is not None:
            tokens = self.spatial_registers(tokens)
        tokens = run_blocks(self.spatial_blocks, tokens, self.cluster_ids(*grid), last_block)
        frames: Tensor = rearrange(self.spatial_norm(tokens[:, 0]), "(b t) d -> b t d", b=clip.shape[0])
        return frames

    def cluster_ids(self, rows: int, columns: int) -> Int64[Tensor, "1 1 n n"] | None:
        """Return the cluster of each pair of tokens of a frame, or None without relative position."""
        if self.spatial_ids is None:
            return None
        if (rows, columns) == self.grid:
            return self.spatial_ids[None, None]
        clusters, device = self.config.spatial_clusters, self.spatial_ids.device
        return clusters.on_grid(rows, columns, self.config.registers, device=device)[None, None]

    def encode_time(
        self, frames: Float[Tensor, "b t d"]
    ) -> tuple[Float[Tensor, "b m d"], dict[int, Int64[Tensor, "b _ k"]]]:
        """Return the tokens after the last temporal layer, and the frame numbers after each layer that reduces them."""
        self.config.check_frames(frames.shape[1])
        tokens = self.temporal_class_token(frames)
        if self.temporal_position is not None:
            tokens = self.temporal_position(tokens, (frames.shape[1],))
        times = torch.arange(frames.shape[1], device=frames.device).expand(frames.shape[0], 1, -1)
        sigma, kept = None, {}
        for layer, block in enumerate(self.temporal_blocks):
            tokens, times, sigma = block(tokens, times, sigma)
            if self.config.pools_at(layer):
                kept[layer] = times
        return tokens, kept

    @torch.no_grad()
    def kept_frames(self, clip: Float[Tensor, "b c t h w"]) -> dict[int, Int64[Tensor, "b _ k"]]:
        """Return the frame numbers that each layer keeps: one row, or one per attention head.

        Empty if frames are pooled. With `pool_place="inside"`, the last layer is left out: it has no effect on logits.
        """
        if self.config.pool not in ("top-k", "random", "uniform"):
            return {}
        _, kept = self.encode_time(self.encode_space(clip))
        if self.config.pool_place == "inside":
            kept.pop(self.config.temporal_layers - 1, None)
        return kept

"""RPE-STDT: relative position, spatially and temporally decoupled transformer: thesis chapter 3, figure 3.2.

    clip -> patches of each frame -> class token -> [ attention with relative position -> MLP ] x L_S -> norm
         -> the frames' class tokens -> class token -> [ attention -> MLP, fewer frames on the way ] x L_T
         -> norm -> task heads

Axes: b batch, c color, t frames, h w pixels; n tokens, d channels.

What the thesis says differently, or twice:

DEVIATION: one sentence of section 3.4.2 gives the spatial encoder 8 layers, and calls the temporal one lighter; the
sizes and costs of Tables 3.1 and 3.3 fit 12 layers and a temporal encoder of narrower layers alone. Both are here:
`rpe_stdt_base` is the sentence, `rpe_stdt_base12` the tables.
DEVIATION: Top-K drops rows of the attention map, and with `pool_place="inside"` nothing else: what the last layer drops
is not looked at by anyone, since only its class row is used. [1, 3] of four layers therefore is [1], and so it is for
every other way of leaving frames out. `between` takes the tokens away before the layer, by the map of the layer before.
With `pool_heads="per-head"` a token is put together of the frames that each attention head keeps first, second, and so
on: that alone tells the encoder something of their order.
DEVIATION: from scratch the frames' class tokens are almost the same vector for all clips, since most of what they
gather is common to all, and in the time that small data are worth the network learns nothing from the rest.
`frame_norm="clip"` leaves of each channel how it changes from frame to frame, in units of its own deviation over the
clip. The networks that start from ViT go without.
DEVIATION: after Top-K, relative positions are those of the frames' numbers in the clip, not of their places among the
kept ones, which the thesis leaves open.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from kinema.config import Rate, config
from kinema.errors import ClipError, ConfigError
from kinema.layers.relative_position import (
    Clusters,
    Distance,
    RelativeSelfAttention,
    Sharing,
    Terms,
)
from kinema.layers.relative_position import MappingFunction as MappingFunction
from kinema.layers.temporal_topk import (
    FramePooling,
    control_places,
    deviation,
    frames_at,
    gather_frames,
    most_deviating,
    rows_at,
)
from kinema.layers.temporal_topk import Pooling as Pooling
from kinema.layers.transformer import (
    MLP,
    VIT_NORM_EPS,
    ClassToken,
    DropPath,
    EncoderBlock,
    FrameTokens,
    LearnedPosition,
    Rows,
    Start,
    TaskHeads,
    check_at_least,
    drop_path_rates,
    grid_of,
    init_weights,
    run_blocks,
)
from kinema.models.base import NamedModel, NetworkConfig, single_stream

FRAME_NORM_EPS = 1e-5  # torch's for norms of other kinds

Position = Literal["none", "absolute", "shared", "per-head"]


@config
class RPESTDTConfig(NetworkConfig):
    """What RPE-STDT is made of. The defaults are section 3.4.2's.

    Args:
        patch: rows and columns of pixels in a token.
        width: channels of a token, in space and in time.
        spatial_layers, spatial_heads, spatial_mlp_channels: of the spatial encoder, whose heads share `width`.
        temporal_layers, temporal_heads, temporal_head_channels, temporal_mlp_channels: of the temporal encoder.
        position: `shared` and `per-head` are relative, with one table for all attention heads or one each (Table 3.1);
            `absolute` adds learned vectors to the tokens, as ViViT does; `none`.
        temporal_position: `as-space`, or `none`: figure 3.2 speaks of patches alone, section 3.4.2 of all layers.
        position_terms: what meets a vector of its own: the query (eq. 3.7), keys too (3.6), values too (3.5).
        position_function: from an offset to a whole number (Table 3.2).
        position_distance: `axes` or `euclid` (eq. 3.10).
        clusters: vectors of two tokens in a frame, the class token's among them (figure 3.4).
        pool: how frames are left out (Table 3.4); `random` and `uniform` are controls.
        pool_layers: where, counted from 0.
        pool_place: `inside` the layer, between its attention and its MLP; `between` that layer and the one before.
        pool_heads: all attention heads keep the same frames, by their mean, or each its own.
        pool_scores: what deviates: the attention map, or its logits.
        frame_norm: what is done to the frames' class tokens between the two encoders; `clip` makes each channel's mean
            over the frames 0 and its deviation 1.
        start: of the weights: ViT's, for weights that are loaded; `scratch` for learning from little data without.
        dropout: in attention and MLP, in training.
        drop_path: probability that training drops a branch of the last layer; it rises linearly from 0 at the first.
    """

    kind: Literal["rpe-stdt"] = "rpe-stdt"
    patch: PositiveInt = 16
    width: PositiveInt = 768
    spatial_layers: PositiveInt = 8
    spatial_heads: PositiveInt = 12
    spatial_mlp_channels: PositiveInt = 3072
    temporal_layers: PositiveInt = 4
    temporal_heads: PositiveInt = 8
    temporal_head_channels: PositiveInt = 96
    temporal_mlp_channels: PositiveInt = 3072
    position: Position = "shared"
    temporal_position: Literal["as-space", "none"] = "as-space"
    position_terms: Terms = "query"
    position_function: MappingFunction = "sectioned"
    position_distance: Distance = "axes"
    clusters: int = 50
    pool: Pooling = "top-k"
    pool_layers: tuple[NonNegativeInt, ...] = (1, 3)
    pool_place: Literal["inside", "between"] = "inside"
    pool_heads: Literal["shared", "per-head"] = "shared"
    pool_scores: Literal["probabilities", "logits"] = "probabilities"
    frame_norm: Literal["none", "clip"] = "none"
    start: Start = "vit"
    dropout: Rate = 0.0
    drop_path: Rate = 0.0

    def __post_init__(self) -> None:
        if self.width % self.spatial_heads:
            raise ConfigError(
                f"width={self.width} is not divisible by spatial_heads={self.spatial_heads}", field="width"
            )
        self.spatial_clusters  # noqa: B018  # refuses a count that cannot be reached
        layers = self.pool_layers
        if list(layers) != sorted(set(layers)) or (layers and not 0 <= layers[0] <= layers[-1] < self.temporal_layers):
            raise ConfigError(
                f"pool_layers={layers}; expected different layers from 0 to {self.temporal_layers - 1}, in order",
                field="pool_layers",
            )
        if self.pool == "top-k" and self.pool_place == "between" and layers and layers[0] == 0:
            raise ConfigError(
                "pool_layers must start at 1 or later with pool_place=between, which pools by the attention map of "
                "the layer before; got 0",
                field="pool_layers",
            )
        if self.pool != "top-k" and (self.pool_heads != "shared" or self.pool_scores != "probabilities"):
            raise ConfigError(f"pool_heads and pool_scores need pool=top-k; got pool={self.pool}", field="pool")
        if self.pool_heads == "per-head" and self.width % self.temporal_heads:
            raise ConfigError(
                f"pool_heads=per-head: width={self.width} is not divisible by temporal_heads={self.temporal_heads}",
                field="temporal_heads",
            )

    def build(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> "RPESTDT":
        return RPESTDT(self, heads=heads, channels=single_stream("RPESTDT", channels), frames=frames, size=size)

    @classmethod
    def named_models(cls) -> dict[str, NamedModel]:
        return {
            "rpe_stdt_base": NamedModel(
                RPE_STDT_BASE, 16, 224, "RPE-STDT: 8 layers in space, 4 in time (section 3.4.2)"
            ),
            "rpe_stdt_base12": NamedModel(RPE_STDT_BASE12, 16, 224, "RPE-STDT: 12 layers in space, 4 light in time"),
            "rpe_stdt_small": NamedModel(RPE_STDT_SMALL, 16, 224, "RPE-STDT as narrow as ViT-S"),
            "rpe_stdt_tiny": NamedModel(RPE_STDT_TINY, 16, 112, "a small RPE-STDT for a laptop"),
        }

    @property
    def relative(self) -> bool:
        return self.position in ("shared", "per-head")

    @property
    def sharing(self) -> Sharing:
        return "per-head" if self.position == "per-head" else "shared"

    @property
    def spatial_clusters(self) -> Clusters:
        """Which offsets of two tokens share a vector."""
        return Clusters(count=self.clusters, function=self.position_function, distance=self.position_distance)

    def pools_at(self, layer: int) -> bool:
        return self.pool != "none" and layer in self.pool_layers

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Refuse clips that the network cannot be built for (ClipError)."""
        check_at_least("channels", channels)
        check_frames(self, frames)
        grid_of(self.patch, height=size, width=size)


RPE_STDT_BASE = RPESTDTConfig()
RPE_STDT_BASE12 = RPESTDTConfig(spatial_layers=12, temporal_head_channels=64, temporal_mlp_channels=768)
RPE_STDT_SMALL = RPESTDTConfig(
    width=384,
    spatial_heads=6,
    spatial_mlp_channels=1536,
    temporal_heads=6,
    temporal_head_channels=64,
    temporal_mlp_channels=1536,
)
RPE_STDT_TINY = RPESTDTConfig(
    frame_norm="clip",
    start="scratch",
    width=128,
    spatial_layers=4,
    spatial_heads=4,
    spatial_mlp_channels=512,
    temporal_heads=4,
    temporal_head_channels=32,
    temporal_mlp_channels=512,
)


def check_frames(config: RPESTDTConfig, frames: int) -> None:
    """Refuse clips with too few frames for the frame normalization or the pooling layers (ClipError)."""
    check_at_least("frames", frames, 2 if config.frame_norm == "clip" else 1)
    halvings = len(config.pool_layers) if config.pool in ("max", "average") else 0
    if frames < 2**halvings:
        raise ClipError(
            f"frames must be at least {2**halvings} for {halvings} layers of {config.pool} pooling; got {frames}",
            field="frames",
        )


class TemporalBlock(nn.Module):
    """Attention among the frames of one clip, then MLP; a pooling layer drops half of the frames.

    Args:
        config: config of the network.
        layer: number of the layer, from 0.
        drop_path: probability that training drops a branch of this block.
    """

    def __init__(self, config: RPESTDTConfig, *, layer: int, drop_path: float) -> None:
        super().__init__()
        self.config = config
        self.clusters = config.spatial_clusters
        self.pools_inside = config.pools_at(layer) and config.pool_place == "inside"
        self.pools_before = config.pools_at(layer) and config.pool_place == "between"
        self.returns_scores = config.pool == "top-k" and config.pool_place == "between" and config.pools_at(layer + 1)
        self.norm_attention = nn.LayerNorm(config.width, eps=VIT_NORM_EPS)
        self.attention = temporal_attention(config)
        self.pooling: nn.Module | None = None
        if config.pools_at(layer) and config.pool in ("max", "average", "convolution"):
            self.pooling = FramePooling(config.pool, config.width)
        self.norm_mlp = nn.LayerNorm(config.width, eps=VIT_NORM_EPS)
        self.mlp = MLP(config.width, hidden=config.temporal_mlp_channels, dropout=config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        times: Int64[Tensor, "b _ t"],
        scores: Float[Tensor, "b _ t"] | None,
    ) -> tuple[Float[Tensor, "b m d"], Int64[Tensor, "b _ k"], Float[Tensor, "b _ k"] | None]:
        """Return tokens, the frames' numbers in the clip, and deviations for a next layer that pools before attention.

        With `pool_heads="per-head"` each attention head has its own frames, and a token is put together of several.
        """
        if self.pools_before:
            tokens, times = self.drop_frames(tokens, times, scores)
        ids = self.clusters.in_time(times) if self.attention.position is not None else None
        normed, sigma = self.norm_attention(tokens), None
        if self.config.pool == "top-k" and (self.pools_inside or self.returns_scores):
            logits, value = self.attention.map(normed, ids)
            weights = logits.softmax(-1)
            sigma = self.deviations(logits, weights)
            if self.pools_inside:
                places = most_deviating(sigma)  # eq. 3.12
                weights = rows_at(weights, places)
                ids = None if ids is None else rows_at(ids, places)
                tokens, times = gather_frames(tokens, places), frames_at(times, places)
            tokens = tokens + self.drop_path(self.attention.by_map(weights, value, ids))
        else:
            tokens = tokens + self.drop_path(self.attention(normed, ids))
            if self.pools_inside:
                tokens, times = self.drop_frames(tokens, times, None)
        return tokens + self.drop_path(self.mlp(self.norm_mlp(tokens))), times, sigma if self.returns_scores else None

    def deviations(self, logits: Float[Tensor, "b h n n"], weights: Float[Tensor, "b h n n"]) -> Float[Tensor, "b _ t"]:
        """Sigma of each attention head, or their mean (eq. 3.13)."""
        sigma = deviation(weights if self.config.pool_scores == "probabilities" else logits)
        return sigma.mean(1, keepdim=True) if self.config.pool_heads == "shared" else sigma

    def drop_frames(
        self, tokens: Float[Tensor, "b n d"], times: Int64[Tensor, "b _ t"], scores: Float[Tensor, "b _ t"] | None
    ) -> tuple[Float[Tensor, "b m d"], Int64[Tensor, "b _ k"]]:
        """Return half of the frames and their numbers."""
        if self.pooling is not None:
            pooled = self.pooling(tokens)
            return pooled, times[..., ::2][..., : pooled.shape[1] - 1]  # a pair stands where its first frame stood
        if self.config.pool == "top-k":
            assert scores is not None
            places = most_deviating(scores)
        else:
            # len() would fix the batch of an exported network
            places = control_places(
                self.config.pool, tokens.shape[0], times.shape[-1], training=self.training, device=tokens.device
            )
        return gather_frames(tokens, places), frames_at(times, places)


def spatial_attention(config: RPESTDTConfig) -> RelativeSelfAttention:
    """Return the attention among the tokens of one frame."""
    return RelativeSelfAttention(
        config.width,
        heads=config.spatial_heads,
        head_dim=config.width // config.spatial_heads,
        clusters=config.clusters if config.relative else None,
        sharing=config.sharing,
        terms=config.position_terms,
        dropout=config.dropout,
    )


def temporal_attention(config: RPESTDTConfig) -> RelativeSelfAttention:
    """Return the attention among the frames of one clip."""
    relative = config.relative and config.temporal_position == "as-space"
    return RelativeSelfAttention(
        config.width,
        heads=config.temporal_heads,
        head_dim=config.temporal_head_channels,
        clusters=config.spatial_clusters.count_in_time if relative else None,
        sharing=config.sharing,
        terms=config.position_terms,
        dropout=config.dropout,
    )


class RPESTDT(nn.Module):
    """The network of figure 3.2.

    Args:
        config: the architecture.
        heads: name of a task -> number of its classes; for one task the answer is a tensor, for several a dict.
        channels: of the clip.
        frames: of the clips it is built for; any number can follow.
        size: rows and columns of those clips; any multiple of the patch can follow. A relative position needs nothing
            for that, an absolute one is interpolated.
    """

    spatial_ids: Tensor | None

    def __init__(
        self, config: RPESTDTConfig, *, heads: Mapping[str, int], channels: int = 3, frames: int, size: int
    ) -> None:
        super().__init__()
        config.check_clip(channels=channels, frames=frames, size=size)
        self.config = config
        rates = drop_path_rates(config.drop_path, config.spatial_layers + config.temporal_layers)
        absolute = config.position == "absolute"
        self.embedding = FrameTokens(channels=channels, patch=config.patch, width=config.width)
        self.spatial_class_token = ClassToken(config.width)
        grid = grid_of(config.patch, height=size, width=size)
        self.spatial_position = LearnedPosition(grid, config.width) if absolute else None
        self.grid = grid
        ids = config.spatial_clusters.on_grid(*grid) if config.relative else None
        self.register_buffer("spatial_ids", ids, persistent=False)  # of the grid that most clips have
        self.spatial_blocks = nn.ModuleList(
            EncoderBlock(
                spatial_attention(config),
                dim=config.width,
                hidden=config.spatial_mlp_channels,
                dropout=config.dropout,
                drop_path=rate,
            )
            for rate in rates[: config.spatial_layers]
        )
        self.spatial_norm = nn.LayerNorm(config.width, eps=VIT_NORM_EPS)
        self.temporal_class_token = ClassToken(config.width)
        self.temporal_position = LearnedPosition((frames,), config.width) if absolute else None
        self.temporal_blocks = nn.ModuleList(
            TemporalBlock(config, layer=layer, drop_path=rate)
            for layer, rate in enumerate(rates[config.spatial_layers :])
        )
        self.norm = nn.LayerNorm(config.width, eps=VIT_NORM_EPS)
        self.feature_channels = config.width
        self.heads: nn.Module = TaskHeads(config.width, heads)
        init_weights(self, config.start)

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b classes"] | dict[str, Float[Tensor, "b _"]]:
        logits: Tensor | dict[str, Tensor] = self.heads(self.features(clip))
        return logits

    def features(self, clip: Float[Tensor, "b c t h w"], last_block: Rows = "class") -> Float[Tensor, "b d"]:
        """The class token after the last layer, normalized: what the task heads see.

        Args:
            clip: any number of frames, any multiple of the patch.
            last_block: rows of the last spatial block that are computed; those of patches are not used by anyone.
        """
        tokens, _ = self.in_time(self.in_space(clip, last_block))
        features: Tensor = self.norm(tokens[:, 0])
        return features

    def in_space(self, clip: Float[Tensor, "b c t h w"], last_block: Rows = "class") -> Float[Tensor, "b t d"]:
        """The class token of each frame, h_i of section 3.3.4."""
        rows, columns = grid_of(self.config.patch, height=clip.shape[-2], width=clip.shape[-1])
        tokens = self.spatial_class_token(self.embedding(clip))
        if self.spatial_position is not None:
            tokens = self.spatial_position(tokens, (rows, columns))
        tokens = run_blocks(self.spatial_blocks, tokens, self.ids_on(rows, columns), last_block)
        frames: Tensor = rearrange(self.spatial_norm(tokens[:, 0]), "(b t) d -> b t d", b=clip.shape[0])
        if self.config.frame_norm == "none":
            return frames
        change = frames - frames.mean(1, keepdim=True)
        return change / (change.square().mean(1, keepdim=True) + FRAME_NORM_EPS).sqrt()

    def ids_on(self, rows: int, columns: int) -> Int64[Tensor, "1 1 n n"] | None:
        """The cluster of each pair of tokens of a frame, of any grid."""
        if self.spatial_ids is None:
            return None
        if (rows, columns) == self.grid:
            return self.spatial_ids[None, None]
        return self.config.spatial_clusters.on_grid(rows, columns, self.spatial_ids.device)[None, None]

    def in_time(
        self, frames: Float[Tensor, "b t d"]
    ) -> tuple[Float[Tensor, "b m d"], dict[int, Int64[Tensor, "b _ k"]]]:
        """The tokens after the last temporal layer, and the frames that each layer that leaves some out has kept."""
        check_frames(self.config, frames.shape[1])
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
        """Layer -> the frames of each clip that it has kept, one row, or one for each attention head that chooses.

        What the last layer leaves out inside changes no answer, so it is not given. Empty where frames are pooled.
        """
        if self.config.pool not in ("top-k", "random", "uniform"):
            return {}
        _, kept = self.in_time(self.in_space(clip))
        if self.config.pool_place == "inside":
            kept.pop(self.config.temporal_layers - 1, None)
        return kept

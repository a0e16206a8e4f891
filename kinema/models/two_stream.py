"""Two-stream network: one network for RGB and one for depth.

The RGB-D rows of the thesis (Tables 2.1 and 2.2) come from two networks, one per modality; how it combines their
predictions is not stated. Public code that shares an author (UMDR) trains them separately and adds their logits, which
is the default of `kinema fuse`. The network here can also train both jointly, on their concatenated features.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from kinema.config import Rate, config
from kinema.errors import ConfigError, StreamError
from kinema.layers.score_fusion import ScoreFusion, mean_logits
from kinema.layers.transformer import TaskHeads
from kinema.modality import MODALITIES
from kinema.models.base import NamedModel, NetworkConfig
from kinema.models.ctn import CTN, CTNConfig
from kinema.models.mfst import MFST, MFST_LARGE, MFST_LARGE_DEPTH, MFST_TINY, MFST_TINY_DEPTH, MFSTConfig
from kinema.models.rpe_stdt import RPESTDT, RPESTDTConfig

StreamConfig = Annotated[CTNConfig | MFSTConfig | RPESTDTConfig, Field(discriminator="kind")]
Stream = CTN | MFST | RPESTDT


@config
class TwoStreamConfig(NetworkConfig):
    """Architecture of a two-stream network.

    Attributes:
        rgb: Architecture of the RGB network.
        depth: Architecture of the depth network.
        fusion: `features` trains one task head on the concatenated features; `logits` and `softmax` keep a task head
            per network and average the two predictions.
        stream_dropout: Probability of dropping one stream of a sample in training, RGB and depth equally often, so that
            each learns to classify alone. For `features` only.
    """

    kind: Literal["two-stream"] = "two-stream"
    rgb: StreamConfig
    depth: StreamConfig
    fusion: Literal["features", "logits", "softmax"] = "features"
    stream_dropout: Rate = 0.0

    def __post_init__(self) -> None:
        streams = (self.rgb, self.depth)
        if self.fusion == "features" and any(getattr(stream, "head", "linear") != "linear" for stream in streams):
            raise ConfigError("fusion=features has one linear head of its own; got head=mlp", field="fusion")
        if self.stream_dropout and self.fusion != "features":
            raise ConfigError(
                f"stream_dropout={self.stream_dropout} needs fusion=features; got fusion={self.fusion}",
                field="stream_dropout",
            )

    def network(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> "TwoStream":
        """Return the network with fresh weights, whatever its size."""
        if set(channels) != set(MODALITIES):
            raise StreamError(
                f"modalities={tuple(channels)}; TwoStream expects {' and '.join(MODALITIES)}", field="modalities"
            )
        rgb, depth = (
            stream.network(heads=heads, channels={modality: channels[modality]}, frames=frames, size=size)
            for modality, stream in (("rgb", self.rgb), ("depth", self.depth))
        )
        return TwoStream(self, rgb=rgb, depth=depth, heads=heads)

    @property
    def expects_weights(self) -> bool:
        """True if the initialization of a stream is one over which pretrained weights are loaded."""
        return self.rgb.expects_weights or self.depth.expects_weights

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Raise ClipError if one of the networks cannot be built for such clips."""
        for stream in (self.rgb, self.depth):
            stream.check_clip(channels=channels, frames=frames, size=size)


RGBD = {"rgb": 3, "depth": 1}
MFST_LARGE_RGBD = TwoStreamConfig(rgb=MFST_LARGE, depth=MFST_LARGE_DEPTH, stream_dropout=0.2)
MFST_TINY_RGBD = TwoStreamConfig(rgb=MFST_TINY, depth=MFST_TINY_DEPTH, stream_dropout=0.2)
MODELS = {
    "mfst_large_rgbd": NamedModel(
        MFST_LARGE_RGBD,
        32,
        224,
        "two MFST-Large, trained jointly: 3D-CDC-ST for RGB, 3D-CDC-T for depth",
        channels=RGBD,
    ),
    "mfst_tiny_rgbd": NamedModel(
        MFST_TINY_RGBD, 16, 64, "two MFST-tiny for RGB and depth, trained jointly", channels=RGBD
    ),
}


class TwoStream(nn.Module):
    """RGB network and depth network with combined predictions. If one clip is missing, the other is used alone.

    With `fusion="features"` the networks lose their own task heads.
    """

    def __init__(self, config: TwoStreamConfig, *, rgb: Stream, depth: Stream, heads: Mapping[str, int]) -> None:
        super().__init__()
        self.config = config
        self.rgb = rgb
        self.depth = depth
        if config.fusion == "features":
            self.heads = TaskHeads(rgb.feature_channels + depth.feature_channels, heads)
            rgb.heads = depth.heads = nn.Identity()

    def forward(
        self, rgb: Float[Tensor, "b c t h w"] | None = None, depth: Float[Tensor, "b one t h w"] | None = None
    ) -> Float[Tensor, "b classes"] | dict[str, Float[Tensor, "b _"]]:
        """Return the logits, or a dict of logits by name for several task heads.

        Raises:
            StreamError: Both clips are missing.
        """
        if rgb is None and depth is None:
            raise StreamError("TwoStream: neither rgb nor depth given; expected at least one")
        if self.config.fusion == "features":
            logits: Tensor | dict[str, Tensor] = self.heads(self.features(rgb, depth))
            return logits
        streams = ((self.rgb, rgb), (self.depth, depth))
        return mean_prediction([stream(clip) for stream, clip in streams if clip is not None], self.config.fusion)

    def features(
        self, rgb: Float[Tensor, "b c t h w"] | None, depth: Float[Tensor, "b one t h w"] | None
    ) -> Float[Tensor, "b d"]:
        """Return the concatenated features, with zeros, their normalized mean, for a missing or dropped stream."""
        by_stream = {
            stream: stream.features(clip) for stream, clip in ((self.rgb, rgb), (self.depth, depth)) if clip is not None
        }
        first = next(iter(by_stream.values()))
        parts = [
            by_stream.get(stream, first.new_zeros(len(first), stream.feature_channels))
            for stream in (self.rgb, self.depth)
        ]
        if self.training and self.config.stream_dropout and len(by_stream) == 2:
            # One number per sample drops RGB if below rate / 2, depth if between rate / 2 and rate.
            drawn = torch.rand(len(first), 1, device=first.device)
            rate = self.config.stream_dropout
            parts[0] = parts[0] * (drawn >= rate / 2)
            parts[1] = parts[1] * ((drawn < rate / 2) | (drawn >= rate))
        return torch.cat(parts, dim=1)


def mean_prediction(
    predictions: Sequence[Tensor | Mapping[str, Tensor]], score: ScoreFusion
) -> Float[Tensor, "b classes"] | dict[str, Float[Tensor, "b _"]]:
    """Return the mean of several networks' predictions as logits, per task head, as in `mean_logits`."""
    tensors = [logits for logits in predictions if isinstance(logits, Tensor)]
    if tensors:
        return mean_logits(tensors, score)
    dicts = [by_head for by_head in predictions if not isinstance(by_head, Tensor)]
    return {head: mean_logits([by_head[head] for by_head in dicts], score) for head in dicts[0]}

"""Two networks side by side, one for RGB and one for depth.

The thesis's RGB-D rows (Tables 2.1 and 2.2) come from two networks, one for each modality. It does not say how their
answers become one. Public code of the same authors trains them apart and averages their logits; that is the default of
`kinema fuse`. A network that learns from both at once, over their features, is offered beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, assert_never

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
    """Two networks side by side.

    Args:
        rgb, depth: the network of each modality.
        fusion: `features` lays the features of both side by side and learns one task head over them; `logits` and
            `softmax` leave each its own task head and take the mean of the two answers.
        stream_dropout: of `features`: probability that training takes one stream away from a sample, either as often
            as the other, so that each learns to answer alone.
    """

    kind: Literal["two-stream"] = "two-stream"
    rgb: StreamConfig
    depth: StreamConfig
    fusion: Literal["features", "logits", "softmax"] = "features"
    stream_dropout: Rate = 0.0

    def __post_init__(self) -> None:
        if self.stream_dropout and self.fusion != "features":
            raise ConfigError(
                f"stream_dropout={self.stream_dropout} needs fusion=features; got fusion={self.fusion}",
                field="stream_dropout",
            )

    def build(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> "TwoStream":
        if set(channels) != set(MODALITIES):
            raise StreamError(
                f"modalities={tuple(channels)}, but TwoStream learns from {' and '.join(MODALITIES)}",
                field="modalities",
            )
        rgb, depth = (
            stream.build(heads=heads, channels={modality: channels[modality]}, frames=frames, size=size)
            for modality, stream in (("rgb", self.rgb), ("depth", self.depth))
        )
        return TwoStream(self, rgb=rgb, depth=depth, heads=heads)

    @classmethod
    def named_models(cls) -> dict[str, NamedModel]:
        return {
            "mfst_large_rgbd": NamedModel(
                MFST_LARGE_RGBD,
                32,
                224,
                "two MFST-Large, of 3D-CDC-ST for RGB and 3D-CDC-T for depth, that learn together",
                channels=RGBD,
            ),
            "mfst_tiny_rgbd": NamedModel(
                MFST_TINY_RGBD, 16, 64, "two MFST-tiny, for RGB and depth, that learn together", channels=RGBD
            ),
        }

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Refuse clips that one of the networks cannot be built for (ClipError)."""
        for stream in (self.rgb, self.depth):
            stream.check_clip(channels=channels, frames=frames, size=size)


RGBD = {"rgb": 3, "depth": 1}
MFST_LARGE_RGBD = TwoStreamConfig(rgb=MFST_LARGE, depth=MFST_LARGE_DEPTH, stream_dropout=0.2)
MFST_TINY_RGBD = TwoStreamConfig(rgb=MFST_TINY, depth=MFST_TINY_DEPTH, stream_dropout=0.2)


class TwoStream(nn.Module):
    """RGB and depth, each through a network of its own. Where one is missing, the other answers alone.

    Args:
        config: says how the two become one.
        rgb, depth: the networks. With `features` they lose their task heads.
        heads: name of a task -> number of its classes.
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
        """Raises:
        StreamError: both clips are missing.
        """
        streams = [(self.rgb, rgb), (self.depth, depth)]
        if all(clip is None for _, clip in streams):
            raise StreamError("TwoStream got neither rgb nor depth; it needs at least one of them")
        match self.config.fusion:
            case "features":
                logits: Tensor | dict[str, Tensor] = self.heads(self.features(rgb, depth))
                return logits
            case "logits" | "softmax":
                answers = [stream(clip) for stream, clip in streams if clip is not None]
                return mean_answer(answers, self.config.fusion)
            case _:
                assert_never(self.config.fusion)

    def features(
        self, rgb: Float[Tensor, "b c t h w"] | None, depth: Float[Tensor, "b one t h w"] | None
    ) -> Float[Tensor, "b d"]:
        """The features of both side by side; those of a missing stream, or of one that is dropped, are zeros.

        Both are normalized, so that zero is the middle of what the task heads are used to.
        """
        found = {
            stream: stream.features(clip) for stream, clip in ((self.rgb, rgb), (self.depth, depth)) if clip is not None
        }
        some = next(iter(found.values()))
        sides = [
            found.get(stream, some.new_zeros(len(some), stream.feature_channels)) for stream in (self.rgb, self.depth)
        ]
        if self.training and self.config.stream_dropout and len(found) == 2:
            # One number a sample: below the rate a stream is dropped, below half of it RGB, else depth.
            drawn = torch.rand(len(some), 1, device=some.device)
            rate = self.config.stream_dropout
            sides[0] = sides[0] * (drawn >= rate / 2)
            sides[1] = sides[1] * ((drawn < rate / 2) | (drawn >= rate))
        return torch.cat(sides, dim=1)


def mean_answer(
    answers: Sequence[Tensor | Mapping[str, Tensor]], score: ScoreFusion
) -> Float[Tensor, "b classes"] | dict[str, Float[Tensor, "b _"]]:
    """The mean of several networks' logits, or of their softmaxes: then its logarithm, whose softmax it is.

    Args:
        answers: each a tensor for one task head, or one by the head's name.
        score: what is averaged, head by head.
    """
    bare = [answer for answer in answers if isinstance(answer, Tensor)]
    if bare:
        return mean_logits(bare, score)
    by_head = [answer for answer in answers if not isinstance(answer, Tensor)]
    return {head: mean_logits([answer[head] for answer in by_head], score) for head in by_head[0]}

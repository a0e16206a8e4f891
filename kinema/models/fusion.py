"""Colour and depth: which modality goes to which argument of a network's `forward`, and two networks as one.

one stream    forward(clip)          whatever the argument's name and whichever the modality
two streams   forward(rgb, depth)    a missing modality is None

The thesis's RGB-D rows (Tables 2.1 and 2.2) are of two networks, one a modality. It does not say how their answers
become one. Public code of the same authors trains them apart and takes the mean of their logits; that is the default of
`fuse` in `kinema.inference.fusing`. A network that learns from both at once, over their features, is offered beside it.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, assert_never

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kinema.layers.transformer import TaskHeads
from kinema.models.ctn import CTN, CTNConfig
from kinema.models.fields import check_fields
from kinema.models.mfst import MFST, MFSTConfig
from kinema.models.rpe_stdt import RPESTDT, RPESTDTConfig

MODALITIES = ("rgb", "depth")

ScoreFusion = Literal["logits", "softmax"]
"""What of two networks' answers is averaged."""

StreamConfig = CTNConfig | MFSTConfig | RPESTDTConfig
Stream = CTN | MFST | RPESTDT

Modality = TypeVar("Modality", bound=str)


@dataclass(frozen=True, kw_only=True)
class InputBinding:
    """Clips by modality -> keyword arguments, so that `model(**binding(inputs))` suits any network.

    Args:
        network: its name, for messages.
        arguments: the arguments of `forward` that take clips: one of any name, or the modalities.
        answers_alone: whether a network of two streams does with one of them: `forward` has defaults for both.
    """

    network: str
    arguments: tuple[str, ...]
    answers_alone: bool = False

    def __call__(self, inputs: Mapping[Modality, Tensor | None]) -> dict[str, Tensor | None]:
        for modality in inputs:
            if modality not in MODALITIES:
                raise ValueError(f"unknown modality {modality!r}; there are {' and '.join(MODALITIES)}")
        given: dict[str, Tensor] = {modality: clip for modality, clip in inputs.items() if clip is not None}
        if not given:
            raise ValueError(f"{self.network} got no modality; it needs {' or '.join(MODALITIES)}")
        if len(self.arguments) > 1:
            return {modality: given.get(modality) for modality in self.arguments}
        if len(given) > 1:
            raise ValueError(
                f"{self.network} has one stream, forward({self.arguments[0]}), but got {' and '.join(given)}; "
                f"choose one modality, or a network with forward({', '.join(MODALITIES)})"
            )
        return {self.arguments[0]: next(iter(given.values()))}


@dataclass(frozen=True, kw_only=True)
class TwoStreamConfig:
    """Two networks side by side.

    Args:
        rgb, depth: the network of each modality.
        fusion: `features` lays the features of both side by side and learns one task head over them; `logits` and
            `softmax` leave each its own task head and take the mean of the two answers.
        stream_dropout: of `features`: probability that training takes one stream away from a sample, either as often
            as the other, so that each learns to answer alone.
    """

    rgb: StreamConfig
    depth: StreamConfig
    fusion: Literal["features", "logits", "softmax"] = "features"
    stream_dropout: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.stream_dropout < 1:
            raise ValueError(f"TwoStreamConfig: stream_dropout={self.stream_dropout} is not in [0, 1)")
        if self.stream_dropout and self.fusion != "features":
            raise ValueError(
                f"TwoStreamConfig: stream_dropout={self.stream_dropout} is for fusion=features; with "
                f"fusion={self.fusion} each stream answers by itself"
            )

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Refuses clips that one of the networks cannot be built for; the message says which would fit."""
        for config in (self.rgb, self.depth):
            config.check_clip(channels=channels, frames=frames, size=size)


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
        """
        Raises:
            ValueError: both clips are missing.
        """
        streams = [(self.rgb, rgb), (self.depth, depth)]
        if all(clip is None for _, clip in streams):
            raise ValueError("TwoStream got neither rgb nor depth; it answers with one of them missing, not both")
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

        Both are normalised, so that zero is the middle of what the task heads are used to.
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


def mean_logits(answers: Sequence[Float[Tensor, "b classes"]], score: ScoreFusion) -> Float[Tensor, "b classes"]:
    """`mean_answer` of one task head."""
    if len(answers) == 1:
        return answers[0]
    match score:
        case "logits":
            return torch.stack(list(answers)).mean(0)
        case "softmax":
            return torch.stack([a.float().log_softmax(-1) for a in answers]).logsumexp(0) - math.log(len(answers))
        case _:
            assert_never(score)


def input_binding(model: nn.Module) -> InputBinding:
    """The binding that fits the signature of the network's `forward`, decided once.

    Raises:
        ValueError: `forward` takes neither one clip nor `rgb` and `depth`.
    """
    network = unwrapped(model)
    name = type(network).__name__
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(network.forward).parameters
    required = {
        parameter.name
        for parameter in parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    }
    bindable = {parameter.name for parameter in parameters.values() if parameter.kind in named}
    if set(MODALITIES) <= bindable and required <= set(MODALITIES):
        return InputBinding(network=name, arguments=MODALITIES, answers_alone=not required)
    if len(required) == 1 and required <= bindable:
        return InputBinding(network=name, arguments=tuple(required))
    raise ValueError(
        f"{name}.forward{inspect.signature(network.forward)} cannot be given clips: it must take one clip, under any "
        f"name, or {' and '.join(MODALITIES)}; further arguments need defaults"
    )


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside what torch.compile, data parallelism and Fabric put around it."""
    while True:
        inside = getattr(model, "_orig_mod", None)
        if inside is None and _passes_everything_on(model):
            inside = getattr(model, "module", None)
        if not isinstance(inside, nn.Module):
            return model
        model = inside


def _passes_everything_on(model: nn.Module) -> bool:
    parameters = inspect.signature(model.forward).parameters.values()
    return all(p.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD) for p in parameters)

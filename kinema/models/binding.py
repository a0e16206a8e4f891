"""Inputs and outputs of a network: modalities to the arguments of `forward`, and its answer to logits by task head.

one stream    forward(clip)          under any name, for any modality
two streams   forward(rgb, depth)    a missing modality is None
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from kinema.errors import StreamError, did_you_mean
from kinema.modality import MODALITIES

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
                raise StreamError(
                    f"unknown modality {modality!r}; {did_you_mean(modality, MODALITIES)}", field=modality
                )
        given: dict[str, Tensor] = {modality: clip for modality, clip in inputs.items() if clip is not None}
        if not given:
            raise StreamError(f"{self.network} got no modality; it needs {' or '.join(MODALITIES)}")
        if len(self.arguments) > 1:
            return {modality: given.get(modality) for modality in self.arguments}
        if len(given) > 1:
            raise StreamError(
                f"{self.network} has one stream, forward({self.arguments[0]}), but got {' and '.join(given)}; "
                f"choose one modality, or a network with forward({', '.join(MODALITIES)})"
            )
        return {self.arguments[0]: next(iter(given.values()))}


def input_binding(model: nn.Module) -> InputBinding:
    """The binding that fits the signature of the network's `forward`, decided once.

    Raises:
        StreamError: `forward` takes neither one clip nor `rgb` and `depth`.
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
    raise StreamError(
        f"{name}.forward{inspect.signature(network.forward)} cannot be given clips: it must take one clip, under any "
        f"name, or {' and '.join(MODALITIES)}; further arguments need defaults"
    )


def by_head(answer: Tensor | Mapping[str, Tensor], heads: Mapping[str, int]) -> dict[str, Tensor]:
    """Return a network's output as one tensor per task head; a network with one head returns a bare tensor.

    Args:
        answer: Output of the network.
        heads: Number of classes of each task head.

    Raises:
        ValueError: The output does not fit the heads.
    """
    if isinstance(answer, Tensor):
        if len(heads) != 1:
            raise ValueError(f"the model answers with one tensor, but there are heads {', '.join(heads)}")
        answer = {next(iter(heads)): answer}
    for head, classes in heads.items():
        if head not in answer or answer[head].shape[-1] != classes:
            got = {name: tuple(logits.shape) for name, logits in answer.items()}
            raise ValueError(f"the model answers {got}, but head {head!r} has {classes} classes")
    return {head: answer[head] for head in heads}


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

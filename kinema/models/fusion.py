"""Which modality goes to which argument of a network's `forward`. Only this file knows.

one stream    forward(clip)          whatever the argument's name and whichever the modality
two streams   forward(rgb, depth)    a missing modality is None
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

MODALITIES = ("rgb", "depth")

Modality = TypeVar("Modality", bound=str)


@dataclass(frozen=True, kw_only=True)
class InputBinding:
    """Clips by modality -> keyword arguments, so that `model(**binding(inputs))` suits any network.

    Args:
        network: its name, for messages.
        arguments: the arguments of `forward` that take clips: one of any name, or the modalities.
    """

    network: str
    arguments: tuple[str, ...]

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
        return InputBinding(network=name, arguments=MODALITIES)
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

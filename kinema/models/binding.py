"""Binding of modalities to the arguments of a network's `forward`, and of its output to task heads.

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

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, kw_only=True)
class InputBinding:
    """Mapping of clips by modality to keyword arguments, so that `model(**binding(inputs))` fits any network.

    Attributes:
        network: Name of the network, for messages.
        arguments: Arguments of `forward` that take clips: a single one of any name, or the modalities.
        allows_missing: Whether a two-stream network runs without one of them: `forward` has defaults for both.
    """

    network: str
    arguments: tuple[str, ...]
    allows_missing: bool = False

    def __call__(self, inputs: Mapping[Modality, Tensor | None]) -> dict[str, Tensor | None]:
        """Return the keyword arguments of `forward`.

        Raises:
            StreamError: A modality is unknown, or the modalities do not fit the network.
        """
        for modality in inputs:
            if modality not in MODALITIES:
                raise StreamError(
                    f"unknown modality {modality!r}; {did_you_mean(modality, MODALITIES)}", field=modality
                )
        clips: dict[str, Tensor] = {modality: clip for modality, clip in inputs.items() if clip is not None}
        if not clips:
            raise StreamError(f"{self.network}: no modality given; expected {' or '.join(MODALITIES)}")
        if len(self.arguments) > 1:
            return {modality: clips.get(modality) for modality in self.arguments}
        if len(clips) > 1:
            raise StreamError(
                f"{self.network}: forward({self.arguments[0]}) takes one stream; got {' and '.join(clips)}. "
                f"Choose one modality, or a network with forward({', '.join(MODALITIES)})."
            )
        return {self.arguments[0]: next(iter(clips.values()))}


def input_binding(model: nn.Module) -> InputBinding:
    """Return the binding that fits the signature of the network's `forward`.

    Raises:
        StreamError: `forward` takes neither one clip nor `rgb` and `depth`.
    """
    network = unwrap(model)
    name = type(network).__name__
    signature = inspect.signature(network.forward)
    parameters = [p for p in signature.parameters.values() if p.kind not in VARIADIC]
    required = {p.name for p in parameters if p.default is p.empty}
    bindable = {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}
    if set(MODALITIES) <= bindable and required <= set(MODALITIES):
        return InputBinding(network=name, arguments=MODALITIES, allows_missing=not required)
    if len(required) == 1 and required <= bindable:
        return InputBinding(network=name, arguments=tuple(required))
    raise StreamError(
        f"{name}.forward{signature}: unsupported signature; expected one clip under any name, or "
        f"{' and '.join(MODALITIES)}. Give other arguments defaults."
    )


def by_head(output: Tensor | Mapping[str, Tensor], heads: Mapping[str, int]) -> dict[str, Tensor]:
    """Return a network's output as one tensor per task head; with one head it may be a single tensor.

    Raises:
        ValueError: The output does not match the heads.
    """
    if isinstance(output, Tensor):
        if len(heads) != 1:
            raise ValueError(f"the model returns one tensor; expected a dict with heads {', '.join(heads)}")
        output = {next(iter(heads)): output}
    for head, classes in heads.items():
        if head not in output or output[head].shape[-1] != classes:
            shapes = {name: tuple(logits.shape) for name, logits in output.items()}
            raise ValueError(f"the model returns {shapes}; expected {classes} classes for head {head!r}")
    return {head: output[head] for head in heads}


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network without the wrappers of torch.compile, data parallelism and Fabric."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and all(p.kind in VARIADIC for p in inspect.signature(model.forward).parameters.values()):
            inner = getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner

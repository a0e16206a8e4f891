"""What the configs of all models have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from kinema.errors import StreamError


class NetworkConfig(ABC):
    """Base class of the models' configs: a config builds its network."""

    @abstractmethod
    def build(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> nn.Module:
        """Return the network with fresh weights.

        Args:
            heads: name of each task head -> number of its classes.
            channels: channels of each modality's clip.
            frames, size: frames of a clip, and its rows and columns.

        Raises:
            StreamError: the modalities do not fit the network.
            ValueError: the network cannot be built for such clips.
        """

    @abstractmethod
    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Refuse clips that the network cannot be built for (ValueError)."""

    @classmethod
    @abstractmethod
    def named_models(cls) -> dict[str, "NamedModel"]:
        """Return the named architectures of this kind."""


@dataclass(frozen=True)
class NamedModel:
    """A named architecture and the clips it is meant for.

    Args:
        config: the architecture.
        frames, size: default frames of a clip, and its rows and columns.
        summary: one line for `kinema models`.
        channels: default channels of each modality's clip.
    """

    config: NetworkConfig
    frames: int
    size: int
    summary: str
    channels: Mapping[str, int] = field(default_factory=lambda: {"rgb": 3})


def single_stream(network: str, channels: Mapping[str, int]) -> int:
    """Return the channels of the one modality that a network of one stream takes.

    Raises:
        StreamError: more or fewer than one modality.
    """
    if len(channels) != 1:
        raise StreamError(
            f"modalities={tuple(channels)}, but {network} has one stream; choose one modality", field="modalities"
        )
    return next(iter(channels.values()))

"""Base classes of all models: network config, encoder config, single-stream network, named model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from kinema.config import Channels, Layers, Rate, config
from kinema.errors import ConfigError, StreamError
from kinema.layers.relative_position import RelativeSelfAttention
from kinema.layers.transformer import (
    EncoderBlock,
    Grid,
    NormOrder,
    check_at_least,
    drop_path_rates,
    tubelet_grid,
)
from kinema.memory import check_memory, machine_memory

HUGE = 1000
"""Ratio of a field to its default from which a network may be too large for torch to count."""


class NetworkConfig(ABC):
    """Base class of the model configs. A config builds its network."""

    def build(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> nn.Module:
        """Return the network with fresh weights.

        Args:
            heads: Number of classes of each task head.
            channels: Channels of each modality's clip.
            frames: Frames of a clip.
            size: Height and width of a clip in pixels.

        Raises:
            StreamError: The modalities do not fit the network.
            ClipError: The network cannot be built for such clips.
            ConfigError: The network takes more than half of this machine's memory.
        """
        excess = {"frames": frames / 16, "size": size / 224, "channels": max(channels.values(), default=1) / 3}
        excess |= {"num_classes": max(heads.values(), default=1) / 1000} | _excess(self)
        try:
            with torch.device("meta"):  # allocates nothing
                network = self.network(heads=heads, channels=channels, frames=frames, size=size)
            tensors = [*network.parameters(), *network.buffers()]
            num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        except (RuntimeError, OverflowError, TypeError):
            if max(excess.values()) < HUGE:
                raise  # a fault of the network
            num_bytes = 2**63  # a tensor has more
        check_memory("the network", num_bytes, machine_memory() // 2, excess)
        return self.network(heads=heads, channels=channels, frames=frames, size=size)

    @abstractmethod
    def network(self, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int) -> nn.Module:
        """Return the network with fresh weights, whatever its size."""

    @abstractmethod
    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Raise ClipError if the network cannot be built for such clips."""

    @property
    def expects_weights(self) -> bool:
        """True if the initialization is one over which pretrained weights are loaded, as in chapters 3 and 4."""
        return getattr(self, "start", "scratch") != "scratch"


def _excess(config: Any, prefix: str = "") -> dict[str, float]:
    """Return the ratio of each field that counts something to its default, by dotted name in nested configs."""
    ratios: dict[str, float] = {}
    for own in fields(config):
        name, value = f"{prefix}{own.name}", getattr(config, own.name)
        if isinstance(value, NetworkConfig):
            ratios |= _excess(value, f"{name}.")
        elif isinstance(value, tuple):
            default = own.default if isinstance(own.default, tuple) else ()
            ratios[name] = sum(value) / (sum(default) or 1)
        elif type(value) is int:
            ratios[name] = value / (own.default or 1)  # type: ignore[operator]  # also an int
    return ratios


@config
class EncoderConfig(NetworkConfig):
    """Config fields shared by networks that are one stack of ViT encoder blocks.

    Attributes:
        width: Channels of a token.
        depth: Number of encoder blocks.
        attention_heads: Attention heads per block. Must divide `width`.
        mlp_ratio: Hidden channels of the MLP per channel of a token.
        dropout: Dropout probability in attention and MLP.
        drop_path: Drop-path probability of the last block. Rises linearly from 0 at the first block.
    """

    width: Channels = 768
    depth: Layers = 12
    attention_heads: Channels = 12
    mlp_ratio: Annotated[int, Field(gt=0, le=256)] = 4
    dropout: Rate = 0.0
    drop_path: Rate = 0.0

    def __post_init__(self) -> None:
        if self.width % self.attention_heads:
            raise ConfigError(
                f"width={self.width} is not divisible by attention_heads={self.attention_heads}", field="width"
            )

    @property
    @abstractmethod
    def token_stride(self) -> Grid:
        """Frames, rows and columns of the clip from one token to the next."""

    def grid(self, *, frames: int, height: int, width: int) -> Grid:
        """Return the times, rows and columns of tokens, or raise ClipError if a clip does not divide into them."""
        return tubelet_grid(self.token_stride, frames=frames, height=height, width=width)

    def check_clip(self, *, channels: int, frames: int, size: int) -> None:
        """Raise ClipError if the network cannot be built for such clips."""
        check_at_least("channels", channels)
        self.grid(frames=frames, height=size, width=size)


def encoder_blocks(
    config: EncoderConfig, attention: Callable[[], nn.Module], *, norm_order: NormOrder = "pre"
) -> nn.ModuleList:
    """Return the encoder blocks of a network; `attention` is called once per block."""
    return nn.ModuleList(
        EncoderBlock(
            attention(),
            dim=config.width,
            hidden=config.mlp_ratio * config.width,
            dropout=config.dropout,
            drop_path=rate,
            norm_order=norm_order,
        )
        for rate in drop_path_rates(config.drop_path, config.depth)
    )


def vit_attention(config: EncoderConfig) -> RelativeSelfAttention:
    """Return the self-attention of ViT, without relative position."""
    head_dim = config.width // config.attention_heads
    return RelativeSelfAttention(config.width, heads=config.attention_heads, head_dim=head_dim, dropout=config.dropout)


class SingleStreamNetwork(nn.Module, ABC):
    """Base class of the networks that classify one clip: `heads(features(clip))`.

    Subclasses are built from a config, the number of classes of each task head, and `channels`, `frames` and `size` (in
    pixels) of a clip.
    """

    feature_channels: int
    heads: nn.Module

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b classes"] | dict[str, Float[Tensor, "b _"]]:
        """Return the logits, or a dict of logits by name for several task heads."""
        logits: Tensor | dict[str, Tensor] = self.heads(self.features(clip))
        return logits

    @abstractmethod
    def features(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d"]:
        """Return the normalized features that the task heads classify."""


@dataclass(frozen=True)
class NamedModel:
    """Named architecture and the clips it is meant for.

    Attributes:
        config: Architecture.
        frames: Default number of frames per clip.
        size: Default height and width of a clip in pixels.
        summary: One line for `kinema models`.
        channels: Default channels of each modality's clip.
    """

    config: NetworkConfig
    frames: int
    size: int
    summary: str
    channels: Mapping[str, int] = field(default_factory=lambda: {"rgb": 3})


def single_stream(network: str, channels: Mapping[str, int]) -> int:
    """Return the channels of the one modality that a single-stream network takes.

    Raises:
        StreamError: More or fewer than one modality.
    """
    if len(channels) != 1:
        raise StreamError(
            f"modalities={tuple(channels)}, but {network} has one stream. Choose one modality.", field="modalities"
        )
    return next(iter(channels.values()))

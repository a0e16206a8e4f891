"""From frames to the clip that a model sees. What is drawn is drawn once for all modalities of a sample."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from kinema.data.manifest import MODALITIES, DepthFacts, Modality

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's grey (ITU-R BT.601)."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is done to every clip, in training, evaluation and use alike; part of the artefact.

    Args:
        modalities: what the model sees.
        short_side: pixels of the shorter side after resizing.
        size: pixels of the square that is cut out of it.
        mean, std: of RGB values between 0 and 1; depth uses 0.5 and 0.5.
        depth: the meaning of stored depth, from the manifest; None where depth is 8-bit video or not used.
        depth_channels: 1, or 3 with the one repeated, for networks that start from RGB weights.
    """

    modalities: tuple[Modality, ...] = ("rgb",)
    short_side: int
    size: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    depth: DepthFacts | None = None
    depth_channels: Literal[1, 3] = 1

    def __post_init__(self) -> None:
        if not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise ValueError(f"modalities={self.modalities} must name rgb, depth, or both, each once")
        if any(modality not in MODALITIES for modality in self.modalities):
            raise ValueError(f"modalities={self.modalities} must be among {', '.join(MODALITIES)}")
        if not 1 <= self.size <= self.short_side:
            raise ValueError(f"size={self.size} must be at least 1 and at most short_side={self.short_side}")
        if min(self.std) <= 0:
            raise ValueError(f"std={self.std} must be positive")

    @property
    def channels(self) -> int:
        """Channels of one stream's clip."""
        return 3 if "rgb" in self.modalities else self.depth_channels

    def normalise(
        self, modality: Modality, clip: UInt8[Tensor, "batch channels time height width"]
    ) -> Float[Tensor, "batch channels time height width"]:
        """The one place where bytes become the numbers that a model gets; on the clip's own device."""
        mean, std = (self.mean, self.std) if modality == "rgb" else ((0.5,), (0.5,))
        scale, shift = (
            torch.tensor(values, dtype=torch.float32, device=clip.device).view(1, -1, 1, 1, 1)
            for values in ([1 / (255 * s) for s in std], [m / s for m, s in zip(mean, std, strict=True)])
        )
        return clip.float() * scale - shift

    def normalise_all(self, inputs: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        return {modality: self.normalise(modality, clip) for modality, clip in inputs.items()}


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What a training draw varies. The default varies nothing but the crop's place.

    Args:
        short_side: range of pixels that the shorter side is resized to; None keeps the preprocessing's.
        flip: probability of mirroring; 0 where left and right matter.
        colour_jitter: brightness, contrast and saturation are scaled by 1 - this to 1 + this.
        colour_shuffle: probability that red, green and blue change places, so that colours as such say nothing.
        mixup_alpha: of the Beta distribution that mixes a sample with its partner; 0 for none (arXiv:1710.09412).
    """

    short_side: tuple[int, int] | None = None
    flip: float = 0.0
    colour_jitter: float = 0.0
    colour_shuffle: float = 0.0
    mixup_alpha: float = 0.0

    def __post_init__(self) -> None:
        if self.short_side is not None and not 1 <= self.short_side[0] <= self.short_side[1]:
            raise ValueError(f"augmentation: short_side={self.short_side} must be an increasing range")
        for name in ("flip", "colour_shuffle"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augmentation: {name}={getattr(self, name)} must be a probability")
        if not 0 <= self.colour_jitter < 1:
            raise ValueError(f"augmentation: colour_jitter={self.colour_jitter} must be at least 0 and below 1")
        if self.mixup_alpha < 0:
            raise ValueError(f"augmentation: mixup_alpha={self.mixup_alpha} must not be negative")


class Geometry(NamedTuple):
    """Where a clip is cut out: the same for all frames and modalities of a sample.

    Places are shares of the room that there is, so that they mean the same in pictures of another size.
    """

    short_side: int
    top: float
    left: float
    mirrored: bool


class Colour(NamedTuple):
    """Factors for the RGB stream, of which 1 changes nothing, and the places that its channels take."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    order: tuple[int, int, int] = (0, 1, 2)


def centre_geometry(preprocessing: Preprocessing) -> Geometry:
    return Geometry(preprocessing.short_side, 0.5, 0.5, mirrored=False)


def draw_geometry(augmentation: Augmentation, preprocessing: Preprocessing, rng: np.random.Generator) -> Geometry:
    low, high = augmentation.short_side or (preprocessing.short_side, preprocessing.short_side)
    short_side = max(int(rng.integers(low, high + 1)), preprocessing.size)
    return Geometry(short_side, rng.random(), rng.random(), mirrored=bool(rng.random() < augmentation.flip))


def draw_colour(augmentation: Augmentation, rng: np.random.Generator) -> Colour:
    reach = augmentation.colour_jitter
    brightness, contrast, saturation = (1 + reach * rng.uniform(-1, 1, size=3)).tolist()
    if rng.random() < augmentation.colour_shuffle:
        red, green, blue = rng.permutation(3).tolist()
        return Colour(brightness, contrast, saturation, (red, green, blue))
    return Colour(brightness, contrast, saturation)


def cut(
    frames: UInt8[Tensor, "time height width channels"], geometry: Geometry, size: int
) -> UInt8[Tensor, "channels time size size"]:
    """Resize the shorter side, cut the square out, mirror it; bytes all the way.

    Resizing is antialiased and works on the decoder's own layout: in bytes it is 3 to 10 times as fast as in float.
    """
    clip = frames.permute(0, 3, 1, 2)
    height, width = clip.shape[-2:]
    scale = geometry.short_side / min(height, width)
    wanted = (max(round(height * scale), size), max(round(width * scale), size))
    if wanted != (height, width):
        clip = F.interpolate(clip, size=wanted, mode="bilinear", antialias=True)
    top = math.floor(geometry.top * (wanted[0] - size) + 0.5)
    left = math.floor(geometry.left * (wanted[1] - size) + 0.5)
    clip = clip[:, :, top : top + size, left : left + size]
    if geometry.mirrored:
        clip = clip.flip(-1)
    return clip.permute(1, 0, 2, 3).contiguous()


def recolour(clip: UInt8[Tensor, "3 time height width"], colour: Colour) -> UInt8[Tensor, "3 time height width"]:
    """Shuffle channels, scale brightness, contrast about the clip's mean grey, saturation about each pixel's grey.

    The three factors together are one affine map of a pixel's channels, and that is how they are computed.
    """
    if colour == Colour():
        return clip
    brightness, contrast, saturation, order = colour
    pixels = clip[list(order)].float().flatten(1)
    luma = torch.tensor(LUMA)
    middle = brightness * (luma @ pixels.mean(1))
    own, shared = torch.eye(3), luma.expand(3, 3)
    mixing = brightness * contrast * (saturation * own + (1 - saturation) * shared)
    value = torch.addmm(((1 - contrast) * middle).expand(3, 1), mixing, pixels)
    return value.round_().clamp_(0, 255).to(torch.uint8).view_as(clip)

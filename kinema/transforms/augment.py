"""Augmentation: what a training draw varies, drawn once for all frames and modalities of a sample."""

import math
from typing import Annotated, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor

from kinema.config import config
from kinema.transforms.crops import Geometry, crop
from kinema.transforms.geometry import FULL_FRAME, IDENTITY, Box, rotation
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.rand_augment import Operation, RandAugment, change_colors, draw_operations, warp_of

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's gray (ITU-R BT.601)."""

Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1)]


@config
class Augmentation:
    """What a training draw varies. The default varies nothing but the crop's place.

    Args:
        short_side: range of pixels that the shorter side is resized to; None keeps the preprocessing's.
        flip: probability of mirroring; 0 where left and right matter.
        color_jitter: brightness, contrast and saturation are scaled by 1 - this to 1 + this.
        channel_shuffle: probability that red, green and blue change places, so that colors as such say nothing.
        mixup_alpha: of the Beta distribution that mixes a sample with its partner; 0 for none (arXiv:1710.09412).
        cutmix_alpha: of the Beta distribution of the share that is pasted from the partner; 0 for none
            (arXiv:1905.04899). Where both alphas are positive, each sample takes one of the two by a fair coin.
        rotation: largest angle in degrees, to either side, about the middle of the crop (thesis, MFST: 10).
        rotation_prob: probability of it.
        randaugment: operations of RandAugment, done after the others on colors.
        erasing: probability that a box is erased in all frames: noise in RGB, no reading in depth (arXiv:1708.04896).
        erasing_area, erasing_aspect: ranges of its share of the picture, and of its height over its width.
    """

    short_side: tuple[Pixels, Pixels] | None = None
    flip: Probability = 0.0
    color_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    channel_shuffle: Probability = 0.0
    mixup_alpha: Alpha = 0.0
    cutmix_alpha: Alpha = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    rotation_prob: Probability = 0.5
    randaugment: RandAugment = RandAugment()
    erasing: Probability = 0.0
    erasing_area: tuple[Share, Share] = (0.02, 0.4)
    erasing_aspect: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(ge=1, allow_inf_nan=False)]] = (
        0.3,
        1 / 0.3,
    )

    def __post_init__(self) -> None:
        for name in ("short_side", "erasing_area"):
            bounds = getattr(self, name)
            if bounds is not None and bounds[0] > bounds[1]:
                raise ValueError(f"{name}={bounds} must be an increasing range")

    @property
    def wants_partner(self) -> bool:
        """Whether samples are mixed with others."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0


class Color(NamedTuple):
    """Factors for the RGB stream, of which 1 changes nothing, and the places that its channels take."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    order: tuple[int, int, int] = (0, 1, 2)


class Erasing(NamedTuple):
    """A box of the clip, and the seed of the noise that RGB shows there."""

    box: Box
    seed: int


class AugmentParams(NamedTuple):
    """All that is drawn for one clip of a sample."""

    geometry: Geometry
    color: Color = Color()
    operations: tuple[Operation, ...] = ()
    erasing: Erasing | None = None


def draw_params(augmentation: Augmentation, preprocessing: Preprocessing, rng: np.random.Generator) -> AugmentParams:
    """Draw in a fixed order; what is off draws nothing, so that it leaves the draws of the others as they are."""
    geometry = draw_geometry(augmentation, preprocessing, rng)
    color = draw_color(augmentation, rng)
    warp, erasing = IDENTITY, None
    if augmentation.rotation > 0 and rng.random() < augmentation.rotation_prob:
        warp = rotation(rng.uniform(-augmentation.rotation, augmentation.rotation))
    operations = draw_operations(augmentation.randaugment, rng)
    if augmentation.erasing > 0 and rng.random() < augmentation.erasing:
        erasing = draw_erasing(augmentation, rng)
    return AugmentParams(geometry._replace(warp=warp.then(warp_of(operations))), color, operations, erasing)


def draw_geometry(augmentation: Augmentation, preprocessing: Preprocessing, rng: np.random.Generator) -> Geometry:
    low, high = augmentation.short_side or (preprocessing.short_side, preprocessing.short_side)
    short_side = max(int(rng.integers(low, high + 1)), preprocessing.size)
    return Geometry(short_side, rng.random(), rng.random(), mirrored=bool(rng.random() < augmentation.flip))


def draw_color(augmentation: Augmentation, rng: np.random.Generator) -> Color:
    reach = augmentation.color_jitter
    brightness, contrast, saturation = (1 + reach * rng.uniform(-1, 1, size=3)).tolist()
    if rng.random() < augmentation.channel_shuffle:
        red, green, blue = rng.permutation(3).tolist()
        return Color(brightness, contrast, saturation, (red, green, blue))
    return Color(brightness, contrast, saturation)


def draw_erasing(augmentation: Augmentation, rng: np.random.Generator) -> Erasing:
    """Area and aspect uniformly in their ranges, and the place uniformly where the box fits.

    The paper draws again until a box fits; here the aspect is drawn among those that fit.
    """
    area = rng.uniform(*augmentation.erasing_area)
    low, high = augmentation.erasing_aspect
    aspect = rng.uniform(max(low, area), min(high, 1 / area))
    height, width = math.sqrt(area * aspect), math.sqrt(area / aspect)
    top, left = (1 - height) * rng.random(), (1 - width) * rng.random()
    return Erasing(Box(top, left, top + height, left + width), int(rng.integers(2**32)))


def augment(
    frames: UInt8[Tensor, "time height width channels"], params: AugmentParams, size: int, subject: Box = FULL_FRAME
) -> UInt8[Tensor, "channels time size size"]:
    """A training draw's clip: three channels are RGB, one is depth, whose levels no operation on colors touches."""
    clip = crop(frames, params.geometry, size, subject)
    if len(clip) == 3:
        clip = change_colors(recolor(clip, params.color), params.operations)
    return clip if params.erasing is None else erase(clip, params.erasing)


def recolor(clip: UInt8[Tensor, "3 time height width"], color: Color) -> UInt8[Tensor, "3 time height width"]:
    """Shuffle channels, scale brightness, contrast about the clip's mean gray, saturation about each pixel's gray.

    The three factors together are one affine map of a pixel's channels, and that is how they are computed.
    """
    if color == Color():
        return clip
    brightness, contrast, saturation, order = color
    pixels = (clip if order == (0, 1, 2) else clip[list(order)]).flatten(2)
    luma = torch.tensor(LUMA)
    means = torch.tensor([channel.sum().item() for channel in pixels]) / pixels[0].numel()
    middle = brightness * (luma @ means)
    own, shared = torch.eye(3), luma.expand(3, 3)
    mixing = brightness * contrast * (saturation * own + (1 - saturation) * shared)
    shift = ((1 - contrast) * middle).expand(3, 1)
    # Frame by frame in two places: a frame of floats stays in the cache, a clip of them does not.
    result = torch.empty_like(pixels)
    before, after = torch.empty(2, *pixels[:, 0].shape)
    for frame in range(pixels.shape[1]):
        before.copy_(pixels[:, frame])
        torch.addmm(shift, mixing, before, out=after)
        # NumPy turns floats into bytes four times as fast.
        np.copyto(result.numpy()[:, frame], after.round_().clamp_(0, 255).numpy(), casting="unsafe")
    return result.view_as(clip)


def erase(
    clip: UInt8[Tensor, "channels time height width"], erasing: Erasing
) -> UInt8[Tensor, "channels time height width"]:
    """Noise that stands still over an RGB clip's box; no reading in that of a depth clip."""
    rows, columns = erasing.box.pixels(*clip.shape[2:])
    clip = clip.clone()
    if len(clip) == 3:
        shape = (3, 1, rows.stop - rows.start, columns.stop - columns.start)
        noise = np.random.default_rng(erasing.seed).integers(256, size=shape, dtype=np.uint8)
        clip[:, :, rows, columns] = torch.from_numpy(noise)
    else:
        clip[:, :, rows, columns] = 0
    return clip

"""Augmentation of training clips: geometry, color, RandAugment, erasing, MixUp and CutMix.

Parameters are drawn once for all frames and modalities of a sample.

To add an augmentation, add its setting to `Augmentation`, its drawn parameters to `AugmentParams`, and a step to
`draw_params` and `augment`.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field
from torch import Tensor

from kinema.config import NonNegative, Pixels, config
from kinema.modality import Modality
from kinema.transforms.geometry import FULL_FRAME, IDENTITY, Box, Geometry, Warp, crop, rotation
from kinema.transforms.preprocessing import Preprocessing
from kinema.video.pixels import SQUARE, PixelAspect

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's gray level (ITU-R BT.601)."""

ColorOp = Literal[
    "identity", "autocontrast", "equalize", "posterize", "solarize", "color", "contrast", "brightness", "sharpness"
]
WarpOp = Literal["rotate", "shear_x", "shear_y", "translate_x", "translate_y"]
OPERATIONS: tuple[ColorOp | WarpOp, ...] = (*get_args(ColorOp), *get_args(WarpOp))

MAX_MAGNITUDE = 10.0
SHEAR, TRANSLATION, DEGREES, ENHANCEMENT, BITS = 0.3, 150 / 331, 30.0, 0.9, 4
"""Effect of each kind of operation at the largest magnitude."""

Fraction = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
LargeAspect = Annotated[float, Field(ge=1, le=1e6)]


@config
class RandAugment:
    """RandAugment (arXiv:1909.13719): some of 14 operations, drawn anew for each clip and equal for all of its frames.

    Color operations take their statistics from the whole clip, so that nothing flickers, and leave depth alone.
    Geometric operations become part of the one warp that all modalities share.

    Magnitudes are those of the paper, 0 to 10 on the linear scale of AutoAugment (arXiv:1805.09501, table 6): 10 shears
    by 0.3, translates by 150 of 331 parts of the side, rotates by 30 degrees, solarizes all levels, keeps 4 of 8 bits,
    and scales color, contrast, brightness or sharpness by 0.1 or 1.9. As in later implementations, 0 changes nothing
    and directions are drawn. Identity, autocontrast and equalize ignore the magnitude.

    Attributes:
        operations: Number of operations per clip, drawn with repetition; 0 for none. The paper uses 2.
        magnitude: Strength, 0 to 10. The paper uses 9 for ImageNet.
    """

    operations: Annotated[int, Field(ge=0, le=100)] = 0
    magnitude: Annotated[float, Field(ge=0, le=MAX_MAGNITUDE)] = 9.0


@config
class Augmentation:
    """Augmentation of training clips. By default only the position of the crop varies.

    Attributes:
        short_side: Range of pixels to which the shorter side is resized; None for that of the preprocessing.
        flip: Probability of mirroring; 0 where left and right matter.
        color_jitter: Brightness, contrast and saturation are each scaled by 1 - x to 1 + x.
        channel_shuffle: Probability of permuting red, green and blue, so that colors carry no information.
        mixup_alpha: Alpha of MixUp's Beta distribution; 0 for no MixUp (arXiv:1710.09412).
        cutmix_alpha: Alpha of CutMix's Beta distribution; 0 for no CutMix (arXiv:1905.04899). If both alphas are
            positive, each sample takes one of the two with equal probability.
        rotation: Largest angle in degrees, to either side, about the center of the crop (UMDR: 10).
        rotation_prob: Probability of a rotation.
        randaugment: RandAugment operations, applied after the other color operations.
        erasing: Probability of erasing a box in all frames: noise in RGB, no reading in depth (arXiv:1708.04896).
        erasing_area: Range of the erased fraction of the picture.
        erasing_aspect: Range of the erased box's height over its width.
    """

    short_side: tuple[Pixels, Pixels] | None = None
    flip: Probability = 0.0
    color_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    channel_shuffle: Probability = 0.0
    mixup_alpha: NonNegative = 0.0
    cutmix_alpha: NonNegative = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    rotation_prob: Probability = 0.5
    randaugment: RandAugment = RandAugment()
    erasing: Probability = 0.0
    erasing_area: tuple[Fraction, Fraction] = (0.02, 0.4)
    erasing_aspect: tuple[Fraction, LargeAspect] = (0.3, 1 / 0.3)

    def __post_init__(self) -> None:
        for name in ("short_side", "erasing_area"):
            bounds = getattr(self, name)
            if bounds is not None and bounds[0] > bounds[1]:
                raise ValueError(f"{name}={bounds}; expected (low, high) with low <= high")

    @property
    def mixes_samples(self) -> bool:
        """MixUp or CutMix is on."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0


class Color(NamedTuple):
    """Factors for RGB, where 1 changes nothing, and the order of its channels."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    order: tuple[int, int, int] = (0, 1, 2)


class Operation(NamedTuple):
    """RandAugment operation with its strength, -1 to 1; the sign is the direction, where the operation has one."""

    name: ColorOp | WarpOp
    strength: float


class Erasing(NamedTuple):
    """Box to erase, and the seed of the noise that replaces RGB."""

    box: Box
    seed: int


class AugmentParams(NamedTuple):
    """Parameters drawn for one clip of a sample."""

    geometry: Geometry
    color: Color = Color()
    operations: tuple[Operation, ...] = ()
    erasing: Erasing | None = None


def draw_params(augmentation: Augmentation, preprocessing: Preprocessing, rng: np.random.Generator) -> AugmentParams:
    """Draw the parameters of one clip, in a fixed order. Rotation, RandAugment and erasing draw only if they are on."""
    geometry = draw_geometry(augmentation, preprocessing, rng)
    color = draw_color(augmentation, rng)
    warp, erasing = IDENTITY, None
    if augmentation.rotation > 0 and rng.random() < augmentation.rotation_prob:
        warp = rotation(rng.uniform(-augmentation.rotation, augmentation.rotation))
    operations = draw_operations(augmentation.randaugment, rng)
    if augmentation.erasing > 0 and rng.random() < augmentation.erasing:
        erasing = draw_erasing(augmentation, rng)
    return AugmentParams(geometry._replace(warp=warp.then(combined_warp(operations))), color, operations, erasing)


def augment(
    frames: UInt8[Tensor, "time height width channels"],
    params: AugmentParams,
    size: int,
    subject: Box = FULL_FRAME,
    pixel_aspect: PixelAspect = SQUARE,
) -> UInt8[Tensor, "channels time size size"]:
    """Return the augmented clip. Three channels are RGB; one is depth, which color operations leave alone."""
    clip = crop(frames, params.geometry, size, subject, pixel_aspect)
    if len(clip) == 3:
        clip = apply_color_operations(recolor(clip, params.color), params.operations)
    return clip if params.erasing is None else erase(clip, params.erasing)


def draw_geometry(augmentation: Augmentation, preprocessing: Preprocessing, rng: np.random.Generator) -> Geometry:
    """Draw scale, position and mirroring of the crop."""
    low, high = augmentation.short_side or (preprocessing.short_side, preprocessing.short_side)
    short_side = max(int(rng.integers(low, high + 1)), preprocessing.size)
    top, left, mirrored = rng.random(), rng.random(), bool(rng.random() < augmentation.flip)
    return Geometry(short_side, top, left, mirrored=mirrored, rounding=preprocessing.rounding)


def draw_color(augmentation: Augmentation, rng: np.random.Generator) -> Color:
    """Draw the color factors and the order of the channels."""
    brightness, contrast, saturation = (1 + augmentation.color_jitter * rng.uniform(-1, 1, size=3)).tolist()
    red, green, blue = rng.permutation(3).tolist() if rng.random() < augmentation.channel_shuffle else (0, 1, 2)
    return Color(brightness, contrast, saturation, (red, green, blue))


def recolor(clip: UInt8[Tensor, "3 time height width"], color: Color) -> UInt8[Tensor, "3 time height width"]:
    """Shuffle channels, then scale brightness, contrast about the clip's mean gray, saturation about each pixel's gray.

    The three factors are computed as one affine map of a pixel's channels.
    """
    if color == Color():
        return clip
    brightness, contrast, saturation, order = color
    pixels = (clip if order == (0, 1, 2) else clip[list(order)]).flatten(2)
    luma = torch.tensor(LUMA)
    means = torch.tensor([channel.sum().item() for channel in pixels]) / pixels[0].numel()
    gray = brightness * (luma @ means)
    mixing = brightness * contrast * (saturation * torch.eye(3) + (1 - saturation) * luma.expand(3, 3))
    shift = ((1 - contrast) * gray).expand(3, 1)
    # Frame by frame in two buffers: the floats of a frame fit the cache, those of a clip do not.
    result = torch.empty_like(pixels)
    before, after = torch.empty(2, *pixels[:, 0].shape)
    for frame in range(pixels.shape[1]):
        before.copy_(pixels[:, frame])
        torch.addmm(shift, mixing, before, out=after)
        # NumPy converts floats to bytes four times as fast.
        np.copyto(result.numpy()[:, frame], after.round_().clamp_(0, 255).numpy(), casting="unsafe")
    return result.view_as(clip)


def draw_operations(randaugment: RandAugment, rng: np.random.Generator) -> tuple[Operation, ...]:
    """Draw the RandAugment operations of a clip."""
    return tuple(
        Operation(
            OPERATIONS[int(rng.integers(len(OPERATIONS)))],
            float(rng.choice((-1, 1))) * randaugment.magnitude / MAX_MAGNITUDE,
        )
        for _ in range(randaugment.operations)
    )


def combined_warp(operations: tuple[Operation, ...]) -> Warp:
    """Return the geometric operations as one warp."""
    warp = IDENTITY
    for name, strength in operations:
        warps = {
            "rotate": rotation(DEGREES * strength),
            "shear_x": Warp(xy=SHEAR * strength),
            "shear_y": Warp(yx=SHEAR * strength),
            "translate_x": Warp(x0=TRANSLATION * strength),
            "translate_y": Warp(y0=TRANSLATION * strength),
        }
        warp = warp.then(warps.get(name, IDENTITY))
    return warp


def apply_color_operations(
    clip: UInt8[Tensor, "3 time height width"], operations: tuple[Operation, ...]
) -> UInt8[Tensor, "3 time height width"]:
    """Apply the color operations in their order."""
    color_operations = [operation for operation in operations if operation.name in get_args(ColorOp)]
    if not color_operations:
        return clip
    time, height, width = clip.shape[1:]
    # All frames stacked into one picture: its histogram and mean are those of the clip.
    stack = Image.fromarray(clip.permute(1, 2, 3, 0).reshape(time * height, width, 3).numpy())
    for operation in color_operations:
        stack = _apply_color_operation(stack, operation, height)
    return torch.from_numpy(np.array(stack)).view(time, height, width, 3).permute(3, 0, 1, 2).contiguous()


def _apply_color_operation(stack: Image.Image, operation: Operation, height: int) -> Image.Image:
    strength = abs(operation.strength)
    factor = 1 + ENHANCEMENT * operation.strength
    match operation.name:
        case "autocontrast":
            return ImageOps.autocontrast(stack)
        case "equalize":
            return ImageOps.equalize(stack)
        case "posterize":
            return ImageOps.posterize(stack, 8 - round(BITS * strength))
        case "solarize":
            return ImageOps.solarize(stack, 256 - round(256 * strength))
        case "color":
            return ImageEnhance.Color(stack).enhance(factor)
        case "contrast":
            return ImageEnhance.Contrast(stack).enhance(factor)
        case "brightness":
            return ImageEnhance.Brightness(stack).enhance(factor)
        case "sharpness":  # frame by frame, since the filter would reach across the seams
            for top in range(0, stack.height, height):
                frame = stack.crop((0, top, stack.width, top + height))
                stack.paste(ImageEnhance.Sharpness(frame).enhance(factor), (0, top))
    return stack


def draw_erasing(augmentation: Augmentation, rng: np.random.Generator) -> Erasing:
    """Draw area and aspect uniformly from their ranges, and the position uniformly where the box fits.

    The paper draws again until a box fits; here the aspect is drawn among those that fit.
    """
    area = rng.uniform(*augmentation.erasing_area)
    low, high = augmentation.erasing_aspect
    aspect = rng.uniform(max(low, area), min(high, 1 / area))
    height, width = math.sqrt(area * aspect), math.sqrt(area / aspect)
    top, left = (1 - height) * rng.random(), (1 - width) * rng.random()
    return Erasing(Box(top, left, top + height, left + width), int(rng.integers(2**32)))


def erase(
    clip: UInt8[Tensor, "channels time height width"], erasing: Erasing
) -> UInt8[Tensor, "channels time height width"]:
    """Replace the box by noise, the same in all frames, in RGB, and by 0, no reading, in depth."""
    rows, columns = erasing.box.pixels(*clip.shape[2:])
    clip = clip.clone()
    if len(clip) == 3:
        shape = (3, 1, rows.stop - rows.start, columns.stop - columns.start)
        noise = np.random.default_rng(erasing.seed).integers(256, size=shape, dtype=np.uint8)
        clip[:, :, rows, columns] = torch.from_numpy(noise)
    else:
        clip[:, :, rows, columns] = 0
    return clip


Clips = Mapping[Modality, Tensor]


def mix(
    clips: Clips, partner: Clips, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[dict[Modality, Tensor], float]:
    """Mix two samples by MixUp or CutMix, alike in all modalities.

    Returns:
        The mixed clips, uint8, and the weight of the first sample's label.
    """
    if augmentation.mixup_alpha > 0 and (augmentation.cutmix_alpha == 0 or rng.random() < 0.5):
        return mixup(clips, partner, float(rng.beta(augmentation.mixup_alpha, augmentation.mixup_alpha)))
    weight = float(rng.beta(augmentation.cutmix_alpha, augmentation.cutmix_alpha))
    return cutmix(clips, partner, draw_cutmix_box(1 - weight, rng))


def mixup(clips: Clips, partner: Clips, weight: float) -> tuple[dict[Modality, Tensor], float]:
    """Return the weighted mean of two samples, and the weight of the first.

    Depth is mixed like RGB, also where a pixel has no reading. Level 0 then counts as the lowest level, as the network
    sees it: normalization is affine, so this is the mean of the normalized clips, rounded to half a level. JET colors
    are made of the mixed levels.
    """
    mixed = {
        modality: torch.lerp(partner[modality].float(), clip.float(), weight).round_().to(torch.uint8)
        for modality, clip in clips.items()
    }
    return mixed, weight


def draw_cutmix_box(area: float, rng: np.random.Generator) -> Box:
    """Draw the center of a square that covers this fraction of the picture, and clip it to the picture."""
    half = math.sqrt(area) / 2
    row, column = rng.random(2).tolist()
    return Box(max(row - half, 0.0), max(column - half, 0.0), min(row + half, 1.0), min(column + half, 1.0))


def cutmix(clips: Clips, partner: Clips, box: Box) -> tuple[dict[Modality, Tensor], float]:
    """Paste the partner's box into all frames; return the clips and the fraction of pixels left of the first."""
    mixed: dict[Modality, Tensor] = {}
    weight = 1.0
    for modality, clip in clips.items():
        height, width = clip.shape[-2:]
        rows, columns = box.pixels(height, width)
        mixed[modality] = clip.clone()
        mixed[modality][..., rows, columns] = partner[modality][..., rows, columns]
        weight = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return mixed, weight

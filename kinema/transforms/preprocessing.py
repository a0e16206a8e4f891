"""From frames to the clip that a model sees. What is drawn is drawn once for all frames and modalities of a sample."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy import ndarray
from pydantic import Field
from torch import Tensor

from kinema.config import config
from kinema.modality import DepthFacts, Modality
from kinema.transforms.geometry import STRAIGHT, WHOLE, Box, Warp, turned, warped
from kinema.transforms.rand_augment import Operation, RandAugment, change_colours, draw_operations, warp_of
from kinema.transforms.resize import Window, resized
from kinema.transforms.subject_crop import SubjectCrop

DepthColours = Literal["grey", "jet"]
Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's grey (ITU-R BT.601)."""


@config
class Preprocessing:
    """What is done to every clip, in training, evaluation and use alike; part of the artefact.

    Args:
        modalities: what the model sees.
        short_side: pixels of the shorter side after resizing.
        size: pixels of the square that is cut out of it.
        mean, std: of RGB values between 0 and 1; depth uses 0.5 and 0.5.
        depth: the meaning of stored depth, from the manifest; None where depth is 8-bit video or not used.
        depth_channels: 1, or 3, for networks that start from RGB weights.
        depth_colours: what three channels of depth are: `grey`, the one repeated, or `jet`, its level's colour in the
            JET map, red first (thesis, MFST: the legacy form).
        crops: squares that are cut out at test time: the middle one, or the two ends of the longer side and the middle.
        subject: cuts all modalities to the person that masked depth shows, before anything else; None for the whole
            picture. Depth is read for it even where the model does not see depth.
    """

    modalities: Annotated[tuple[Modality, ...], Field(min_length=1)] = ("rgb",)
    short_side: Pixels
    size: Pixels
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)
    depth: DepthFacts | None = None
    depth_channels: Literal[1, 3] = 1
    depth_colours: DepthColours = "grey"
    crops: Literal[1, 3] = 1
    subject: SubjectCrop | None = None

    def __post_init__(self) -> None:
        if len(set(self.modalities)) != len(self.modalities):
            raise ValueError(f"modalities={self.modalities} must name each modality once")
        if self.size > self.short_side:
            raise ValueError(f"size={self.size} must be at most short_side={self.short_side}")
        if self.depth_colours == "jet" and self.depth_channels != 3:
            raise ValueError(
                f"depth_colours='jet' makes three channels, but depth_channels={self.depth_channels}; "
                "set depth_channels=3, or depth_colours='grey'"
            )
        if self.subject is not None and self.depth is not None and self.depth.coverage != "masked":
            raise ValueError(f"subject: the person is found in masked depth, but coverage={self.depth.coverage!r}")

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each modality's clip."""
        return {modality: 3 if modality == "rgb" else self.depth_channels for modality in self.modalities}

    @property
    def files(self) -> tuple[Modality, ...]:
        """The modalities whose files are read: those of the model, and depth where it shows the person."""
        return self.modalities if self.subject is None or "depth" in self.modalities else (*self.modalities, "depth")

    def normalise(
        self, modality: Modality, clip: UInt8[Tensor, "batch channels time height width"]
    ) -> Float[Tensor, "batch channels time height width"]:
        """The one place where bytes become the numbers that a model gets; on the clip's own device."""
        mean, std = (self.mean, self.std) if modality == "rgb" else ((0.5,), (0.5,))
        scale, shift = (
            torch.tensor(values, dtype=torch.float32, device=clip.device).view(1, -1, 1, 1, 1)
            for values in ([1 / (255 * s) for s in std], [m / s for m, s in zip(mean, std, strict=True)])
        )
        if clip.device.type != "cpu":
            return clip.float().mul_(scale).sub_(shift)
        # New memory costs more than the arithmetic. NumPy asks for it in large pages, where the system has them, and
        # all else is done in place: together a sixth of the time.
        numbers = torch.from_numpy(np.empty(clip.shape, np.float32))
        return numbers.copy_(clip).mul_(scale).sub_(shift)

    def normalise_all(self, inputs: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        return {modality: self.normalise(modality, clip) for modality, clip in inputs.items()}


@config
class Augmentation:
    """What a training draw varies. The default varies nothing but the crop's place.

    Args:
        short_side: range of pixels that the shorter side is resized to; None keeps the preprocessing's.
        flip: probability of mirroring; 0 where left and right matter.
        colour_jitter: brightness, contrast and saturation are scaled by 1 - this to 1 + this.
        colour_shuffle: probability that red, green and blue change places, so that colours as such say nothing.
        mixup_alpha: of the Beta distribution that mixes a sample with its partner; 0 for none (arXiv:1710.09412).
        cutmix_alpha: of the Beta distribution of the share that is pasted from the partner; 0 for none
            (arXiv:1905.04899). Where both alphas are positive, each sample takes one of the two by a fair coin.
        rotation: largest angle in degrees, to either side, about the middle of the crop (thesis, MFST: 10).
        rotation_share: probability of it.
        randaugment: operations of RandAugment, done after the others on colours.
        erasing: probability that a box is erased in all frames: noise in RGB, no reading in depth (arXiv:1708.04896).
        erasing_area, erasing_aspect: ranges of its share of the picture, and of its height over its width.
    """

    short_side: tuple[Pixels, Pixels] | None = None
    flip: Probability = 0.0
    colour_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    colour_shuffle: Probability = 0.0
    mixup_alpha: Alpha = 0.0
    cutmix_alpha: Alpha = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    rotation_share: Probability = 0.5
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


class Geometry(NamedTuple):
    """Where a clip is cut out: the same for all frames and modalities of a sample.

    Places are shares of the room that there is, so that they mean the same in pictures of another size.
    """

    short_side: int
    top: float
    left: float
    mirrored: bool
    warp: Warp = STRAIGHT


class Colour(NamedTuple):
    """Factors for the RGB stream, of which 1 changes nothing, and the places that its channels take."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    order: tuple[int, int, int] = (0, 1, 2)


class Erasing(NamedTuple):
    """A box of the clip, and the seed of the noise that RGB shows there."""

    box: Box
    seed: int


class Variation(NamedTuple):
    """All that is drawn for one clip of a sample."""

    geometry: Geometry
    colour: Colour = Colour()
    operations: tuple[Operation, ...] = ()
    erasing: Erasing | None = None


def centre_geometry(preprocessing: Preprocessing) -> Geometry:
    return Geometry(preprocessing.short_side, 0.5, 0.5, mirrored=False)


def draw_variation(augmentation: Augmentation, preprocessing: Preprocessing, rng: np.random.Generator) -> Variation:
    """Draw in a fixed order; what is off draws nothing, so that it leaves the draws of the others as they are."""
    geometry = draw_geometry(augmentation, preprocessing, rng)
    colour = draw_colour(augmentation, rng)
    warp, erasing = STRAIGHT, None
    if augmentation.rotation > 0 and rng.random() < augmentation.rotation_share:
        warp = turned(rng.uniform(-augmentation.rotation, augmentation.rotation))
    operations = draw_operations(augmentation.randaugment, rng)
    if augmentation.erasing > 0 and rng.random() < augmentation.erasing:
        erasing = draw_erasing(augmentation, rng)
    return Variation(geometry._replace(warp=warp.then(warp_of(operations))), colour, operations, erasing)


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


def varied_clip(
    frames: UInt8[Tensor, "time height width channels"], variation: Variation, size: int, subject: Box = WHOLE
) -> UInt8[Tensor, "channels time size size"]:
    """A training draw's clip: three channels are RGB, one is depth, whose levels no operation on colours touches."""
    clip = cut(frames, variation.geometry, size, subject)
    if len(clip) == 3:
        clip = change_colours(recolour(clip, variation.colour), variation.operations)
    return clip if variation.erasing is None else erased(clip, variation.erasing)


def cut(
    frames: UInt8[Tensor, "time height width channels"], geometry: Geometry, size: int, subject: Box = WHOLE
) -> UInt8[Tensor, "channels time size size"]:
    """Resize the shorter side of the subject's box, cut the square out, warp it, mirror it; bytes all the way."""
    wanted = _wanted_size(frames, geometry.short_side, size, subject)
    top = math.floor(geometry.top * (wanted[0] - size) + 0.5)
    left = math.floor(geometry.left * (wanted[1] - size) + 0.5)
    if geometry.warp == STRAIGHT:
        clip = resized(frames, wanted, Window(top, left, size, size), subject)
    else:
        whole = resized(frames, wanted, Window(0, 0, *wanted), subject)
        clip = warped(whole, geometry.warp, top=top, left=left, size=size)
    if geometry.mirrored:
        clip = clip.flip(-1)
    return clip.permute(1, 0, 2, 3).contiguous()


def view_clips(
    frames: UInt8[Tensor, "time height width channels"],
    places: Int64[ndarray, "clips frames"],
    preprocessing: Preprocessing,
    subject: Box = WHOLE,
) -> UInt8[Tensor, "views channels frames size size"]:
    """The views of a test: for each clip its crops, from frames that are resized once.

    Args:
        frames: all that any clip needs, each once.
        places: of each clip's frames among them.
    """
    size = preprocessing.size
    height, width = _wanted_size(frames, preprocessing.short_side, size, subject)
    ends = (0.0, 0.5, 1.0) if preprocessing.crops == 3 else (0.5,)
    corners = [
        (math.floor(down * (height - size) + 0.5), math.floor(across * (width - size) + 0.5))
        for down, across in ((end, 0.5) if height > width else (0.5, end) for end in ends)
    ]
    (top, left), (bottom, right) = corners[0], corners[-1]
    window = Window(top, left, bottom + size - top, right + size - left)
    small = resized(frames, (height, width), window, subject)
    views = [
        small[clip, :, down - top : down - top + size, across - left : across - left + size]
        for clip in torch.from_numpy(places)
        for down, across in corners
    ]
    return torch.stack(views).transpose(1, 2).contiguous()


def _wanted_size(frames: Tensor, short_side: int, size: int, subject: Box) -> tuple[int, int]:
    height, width = subject.height(frames.shape[1]), subject.width(frames.shape[2])
    scale = short_side / min(height, width)
    return max(round(height * scale), size), max(round(width * scale), size)


def recolour(clip: UInt8[Tensor, "3 time height width"], colour: Colour) -> UInt8[Tensor, "3 time height width"]:
    """Shuffle channels, scale brightness, contrast about the clip's mean grey, saturation about each pixel's grey.

    The three factors together are one affine map of a pixel's channels, and that is how they are computed.
    """
    if colour == Colour():
        return clip
    brightness, contrast, saturation, order = colour
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


def erased(
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

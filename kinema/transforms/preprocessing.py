"""Preprocessing of every clip, part of the model folder: depth to 8 bits, the subject's box, channels, normalization.

Depth of 16 bits becomes levels: 0 for no reading, 1 for the near end of the range, 255 for the far end.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8, UInt16
from numpy import ndarray
from pydantic import Field
from torch import Tensor

from kinema.config import NonNegative, Pixels, Positive, config
from kinema.errors import UnreadableVideo
from kinema.modality import DepthEncoding, DepthFacts, Modality, ReadAs
from kinema.transforms.geometry import FULL_FRAME, Box, Rounding
from kinema.video.gray import jet_colors
from kinema.video.pixels import SQUARE, PixelAspect
from kinema.video.read_options import Deinterlace

DepthColors = Literal["gray", "jet"]
StoredDepth = UInt16[ndarray, "frames height width"] | UInt8[ndarray, "frames height width"]

NOISE_SHARE = 0.01
"""Rows and columns with readings in a smaller fraction of their pixels, or in a single pixel, count as noise."""


@config
class SubjectCrop:
    """Crop of all modalities to the person before anything else, as in public code for NTU RGB+D (UMDR).

    The box is a fraction of the picture, which is correct where RGB and depth show the same. RGB of a sample with its
    own `rgb_box` is cropped to that instead.

    Attributes:
        margin: Enlargement of the person's box on each side, as a fraction of its height and width.
    """

    margin: NonNegative = 0.1


@config
class Preprocessing:
    """Preprocessing of every clip, in training, evaluation and use alike.

    Attributes:
        modalities: Modalities that the model takes.
        short_side: Shorter side of the resized frame in pixels.
        size: Side of the square crop in pixels.
        mean: Mean of RGB values between 0 and 1; depth uses 0.5.
        std: Standard deviation of RGB values.
        depth_std: Standard deviation of depth values: 0.5 for (x - 127.5) / 127.5, 128 / 255 for UMDR's
            (x - 127.5) / 128.
        depth: Meaning of stored depth, from the manifest; None for 8-bit depth video or no depth.
        depth_encoding: Encoding of depth in a color format, from the manifest: `gray8` for brightness, `jet` for colors
            of the JET map. None refuses depth in color.
        depth_channels: 1, or 3 for networks that start from RGB weights.
        depth_colors: Content of three depth channels: `gray` repeats the one channel, `jet` maps it by the JET map, red
            first, as in public code (De+Recouple, UMDR).
        crops: Number of crops at test time: 1 for the center, or 3 at the center and both ends of the longer side.
        subject: Crop of all modalities to the person in masked depth; None for the full frame. It requires depth files
            even where the model does not take depth.
        deinterlace: Treatment of interlaced color frames in training, which `ReadOptions.deinterlace` overrides.
        rounding: Rounding of the resized frame's longer side and of the crop's edges: `half-up`, or `torchvision` for
            weights that were trained with its Resize and CenterCrop.
    """

    modalities: Annotated[tuple[Modality, ...], Field(min_length=1)] = ("rgb",)
    short_side: Pixels
    size: Pixels
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)
    depth_std: Positive = 0.5
    depth: DepthFacts | None = None
    depth_encoding: DepthEncoding | None = None
    depth_channels: Literal[1, 3] = 1
    depth_colors: DepthColors = "gray"
    crops: Literal[1, 3] = 1
    subject: SubjectCrop | None = None
    deinterlace: Deinterlace = "none"
    rounding: Rounding = "half-up"

    def __post_init__(self) -> None:
        if len(set(self.modalities)) != len(self.modalities):
            raise ValueError(f"modalities={self.modalities} must name each modality once")
        if self.size > self.short_side:
            raise ValueError(f"size={self.size} must be at most short_side={self.short_side}")
        if self.depth_colors == "jet" and self.depth_channels != 3:
            raise ValueError(
                f"depth_colors='jet' requires depth_channels=3, got depth_channels={self.depth_channels}; "
                "set depth_channels=3 or depth_colors='gray'"
            )
        if self.subject is not None and self.depth is not None and self.depth.coverage != "masked":
            raise ValueError(f"subject: the crop requires masked depth, got coverage={self.depth.coverage!r}")

    @property
    def channels(self) -> dict[str, int]:
        """Number of channels of each modality's clip."""
        return {modality: 3 if modality == "rgb" else self.depth_channels for modality in self.modalities}

    @property
    def files(self) -> tuple[Modality, ...]:
        """Modalities whose files are read: those of the model, and depth for the crop to the subject."""
        return self.modalities if self.subject is None or "depth" in self.modalities else (*self.modalities, "depth")

    def read_as(self, modality: Modality) -> ReadAs:
        """Return what the file of a modality contains."""
        return "rgb" if modality == "rgb" else self.depth_encoding or "depth"

    def to_channels(self, modality: Modality, clip: Tensor) -> Tensor:
        """Return depth with the channels that the network takes: its one channel repeated, or colors.

        Call it last: until then one channel tells depth from RGB. Channels are the fourth axis from the end.
        """
        if modality == "rgb":
            return clip
        if self.depth_colors == "jet":
            return jet(clip)
        return clip.expand(*clip.shape[:-4], self.depth_channels, -1, -1, -1)

    def normalize(
        self, modality: Modality, clip: UInt8[Tensor, "batch channels time height width"]
    ) -> Float[Tensor, "batch channels time height width"]:
        """Return the clip as floats, on its own device; the one place where bytes become the model's input."""
        mean, std = (self.mean, self.std) if modality == "rgb" else ((0.5,), (self.depth_std,))
        scale, shift = (
            torch.tensor(values, dtype=torch.float32, device=clip.device).view(1, -1, 1, 1, 1)
            for values in ([1 / (255 * s) for s in std], [m / s for m, s in zip(mean, std, strict=True)])
        )
        if clip.device.type != "cpu":
            return clip.float().mul_(scale).sub_(shift)
        # Allocation costs more than the arithmetic. NumPy allocates in large pages, where the system has them, and the
        # rest is done in place: together a sixth of the time.
        numbers = torch.from_numpy(np.empty(clip.shape, np.float32))
        return numbers.copy_(clip).mul_(scale).sub_(shift)

    def normalize_all(self, inputs: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Return the normalized clip of each modality."""
        return {modality: self.normalize(modality, clip) for modality, clip in inputs.items()}


def depth_levels(stored: StoredDepth, facts: DepthFacts | None, path: str) -> UInt8[ndarray, "frames height width"]:
    """Return depth frames as 8-bit levels.

    Args:
        stored: Frames as `read_gray` returns them.
        facts: Range of the stored values; None for 8-bit depth, which is returned unchanged.
        path: File of the frames, for the message.

    Raises:
        UnreadableVideo: Depth of 16 bits has no facts.
    """
    if facts is not None:
        return depth_to_uint8(stored, facts)
    if stored.dtype != np.uint8:
        raise UnreadableVideo(
            f"{path}: 16-bit depth requires depth_range, which the manifest's JSON lacks. Prepare the dataset again "
            "with --depth-range.",
            path=path,
            field="depth_range",
        )
    return stored


def depth_to_uint8(
    stored: UInt16[ndarray, "*shape"] | UInt8[ndarray, "*shape"], facts: DepthFacts
) -> UInt8[ndarray, "*shape"]:
    """Map the range [near, far] linearly to 1..255; values outside are clipped to it, 0 stays no reading."""
    share = (stored.astype(np.float32) - facts.near) / (facts.far - facts.near)
    level = 1 + np.rint(np.clip(share, 0, 1) * 254)
    return np.where(stored > 0, level, 0).astype(np.uint8)


def jet(levels: UInt8[Tensor, "*views 1 time height width"]) -> UInt8[Tensor, "*views 3 time height width"]:
    """Return depth levels as colors of the JET map: the near end is dark blue, the far end dark red.

    Level 0, no reading, has the color of the lowest level, dark blue (0, 0, 128), as in public code (UMDR). It is hard
    to tell from the near end, (0, 0, 132). A mean of two colors is the color of another depth or of none, so this comes
    after everything that moves, resizes or erases pixels.
    """
    places = levels.squeeze(-4).numpy()
    return torch.from_numpy(np.stack([np.take(channel, places) for channel in jet_colors().T], axis=-4))


class Extent(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right` of a depth frame, half open."""

    top: int
    bottom: int
    left: int
    right: int


def subject_extent(depth: StoredDepth) -> Extent | None:
    """Return the extent of the readings of all frames, ignoring noise; None if no frame has any."""
    height, width = depth.shape[1:]
    readings = depth != 0
    rows = np.flatnonzero(readings.sum(2).max(0) >= max(NOISE_SHARE * width, 2))
    columns = np.flatnonzero(readings.sum(1).max(0) >= max(NOISE_SHARE * height, 2))
    if not len(rows) or not len(columns):
        return None
    return Extent(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def subject_box(depth: StoredDepth, crop: SubjectCrop, pixel_aspect: PixelAspect = SQUARE) -> Box:
    """Return one box for a clip, inside the frame: the readings of all frames and the margin.

    The shorter side is extended to the longer one, as far as the frame allows, since a model sees a square: cropped
    from a standing person's narrow box, the square would show the waist. Frames without readings change nothing. If no
    frame has any, the box is the full frame.
    """
    extent = subject_extent(depth)
    if extent is None:
        return FULL_FRAME
    height, width = depth.shape[1:]
    top, bottom = _enlarge(extent.top, extent.bottom, crop.margin)
    left, right = _enlarge(extent.left, extent.right, crop.margin)
    side = max(pixel_aspect.displayed(bottom - top, right - left))
    top, bottom = fit_range(top, bottom, round(side / pixel_aspect.height), height)
    left, right = fit_range(left, right, round(side / pixel_aspect.width), width)
    return Box(top / height, left / width, bottom / height, right / width)


def _enlarge(start: int, stop: int, margin: float) -> tuple[int, int]:
    more = round(margin * (stop - start))
    return start - more, stop + more


def fit_range(start: int, stop: int, length: int, size: int) -> tuple[int, int]:
    """Return a range of this length about the same center, moved into [0, size); all of it if the length exceeds it."""
    length = min(length, size)
    first = min(max((start + stop - length) // 2, 0), size - length)
    return first, first + length

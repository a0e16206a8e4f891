"""Preprocessing settings of a model, and normalization: the one place where bytes become floats."""

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from kinema.config import config
from kinema.modality import DepthFacts, Modality
from kinema.transforms.subject_crop import SubjectCrop

DepthColors = Literal["gray", "jet"]
Pixels = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@config
class Preprocessing:
    """What is done to every clip, in training, evaluation and use alike; part of the model folder.

    Args:
        modalities: what the model sees.
        short_side: pixels of the shorter side after resizing.
        size: pixels of the square that is cut out of it.
        mean, std: of RGB values between 0 and 1; depth uses 0.5 and 0.5.
        depth: the meaning of stored depth, from the manifest; None where depth is 8-bit video or not used.
        depth_channels: 1, or 3, for networks that start from RGB weights.
        depth_colors: what three channels of depth are: `gray`, the one repeated, or `jet`, its level's color in the
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
    depth_colors: DepthColors = "gray"
    crops: Literal[1, 3] = 1
    subject: SubjectCrop | None = None

    def __post_init__(self) -> None:
        if len(set(self.modalities)) != len(self.modalities):
            raise ValueError(f"modalities={self.modalities} must name each modality once")
        if self.size > self.short_side:
            raise ValueError(f"size={self.size} must be at most short_side={self.short_side}")
        if self.depth_colors == "jet" and self.depth_channels != 3:
            raise ValueError(
                f"depth_colors='jet' makes three channels, but depth_channels={self.depth_channels}; "
                "set depth_channels=3, or depth_colors='gray'"
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

    def normalize(
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

    def normalize_all(self, inputs: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        return {modality: self.normalize(modality, clip) for modality, clip in inputs.items()}

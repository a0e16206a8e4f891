"""Two samples made one, alike in all modalities: MixUp (arXiv:1710.09412) and CutMix (arXiv:1905.04899)."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from kinema.modality import Modality
from kinema.transforms.augment import Augmentation
from kinema.transforms.geometry import Box

Clips = Mapping[Modality, Tensor]


def mix(
    own: Clips, partner: Clips, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[dict[Modality, Tensor], float]:
    """The mixture's clips, bytes as before, and the share that the sample's own label keeps."""
    if augmentation.mixup_alpha > 0 and (augmentation.cutmix_alpha == 0 or rng.random() < 0.5):
        return mixup(own, partner, float(rng.beta(augmentation.mixup_alpha, augmentation.mixup_alpha)))
    share = float(rng.beta(augmentation.cutmix_alpha, augmentation.cutmix_alpha))
    return cutmix(own, partner, draw_box(1 - share, rng))


def mixup(own: Clips, partner: Clips, weight: float) -> tuple[dict[Modality, Tensor], float]:
    """The weighted mean of both clips.

    In depth 0 is no reading, and no number to take a mean with: where only one of the two has a reading, it stays as it
    is. So two masked people stand in one picture, each as far away as before, and full depth is mixed like RGB.
    """
    clips: dict[Modality, Tensor] = {}
    for modality, clip in own.items():
        other = partner[modality]
        mean = torch.lerp(other.float(), clip.float(), weight).round_().to(torch.uint8)
        if modality == "depth":
            mean = torch.where(clip == 0, other, torch.where(other == 0, clip, mean))
        clips[modality] = mean
    return clips, weight


def draw_box(area: float, rng: np.random.Generator) -> Box:
    """A square of that share of the picture about a drawn middle; what hangs over the edge is cut off."""
    half = math.sqrt(area) / 2
    row, column = rng.random(2).tolist()
    return Box(max(row - half, 0.0), max(column - half, 0.0), min(row + half, 1.0), min(column + half, 1.0))


def cutmix(own: Clips, partner: Clips, box: Box) -> tuple[dict[Modality, Tensor], float]:
    """The partner's box pasted into all frames; what is left of the own picture, in pixels, is the own share."""
    clips: dict[Modality, Tensor] = {}
    share = 1.0
    for modality, clip in own.items():
        height, width = clip.shape[-2:]
        rows, columns = box.pixels(height, width)
        pasted = clip.clone()
        pasted[..., rows, columns] = partner[modality][..., rows, columns]
        clips[modality] = pasted
        share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return clips, share

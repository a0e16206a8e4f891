"""RandAugment (arXiv:1909.13719): some of 14 operations, drawn anew for each clip and done alike to all of its frames.

Operations on colors take their statistics from the whole clip, so that nothing flickers, and leave depth alone. Those
on places are maps for the one warp that all modalities share.

Magnitudes are those of the paper, 0 to 10 on the linear scale of AutoAugment (arXiv:1805.09501, table 6): 10 shears by
0.3, moves by 150 of 331 parts of the side, turns by 30 degrees, solarizes all levels, keeps 4 of 8 bits, and scales
color, contrast, brightness or sharpness by 0.1 or 1.9. Here 0 changes nothing and directions are drawn, as in later
implementations; magnitude means nothing to identity, autocontrast and equalize.
"""

from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field
from torch import Tensor

from kinema.config import config
from kinema.transforms.geometry import IDENTITY, Warp, rotation

ColorName = Literal[
    "identity",
    "autocontrast",
    "equalize",
    "posterize",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
]
PlaceName = Literal["rotate", "shear_x", "shear_y", "translate_x", "translate_y"]
OPERATIONS: tuple[ColorName | PlaceName, ...] = (*get_args(ColorName), *get_args(PlaceName))

STRONGEST = 10.0
SHEAR, TRANSLATION, DEGREES, ENHANCEMENT, BITS = 0.3, 150 / 331, 30.0, 0.9, 4
"""What each kind of operation does at the strongest magnitude."""


@config
class RandAugment:
    """How many operations, and how strong.

    Args:
        operations: drawn for each clip, one after the other and with repetition; 0 for none. The paper takes 2.
        magnitude: from 0, nothing, to 10. The paper takes 9 for ImageNet.
    """

    operations: Annotated[int, Field(ge=0)] = 0
    magnitude: Annotated[float, Field(ge=0, le=STRONGEST)] = 9.0


class Operation(NamedTuple):
    """One of the 14.

    Args:
        strength: from -1 to 1; the sign is the direction, and means nothing to operations that have none.
    """

    name: ColorName | PlaceName
    strength: float


def draw_operations(randaugment: RandAugment, rng: np.random.Generator) -> tuple[Operation, ...]:
    return tuple(
        Operation(
            OPERATIONS[int(rng.integers(len(OPERATIONS)))],
            float(rng.choice((-1, 1))) * randaugment.magnitude / STRONGEST,
        )
        for _ in range(randaugment.operations)
    )


def warp_of(operations: tuple[Operation, ...]) -> Warp:
    """The operations on places as one map."""
    warp = IDENTITY
    for name, strength in operations:
        match name:
            case "rotate":
                warp = warp.then(rotation(DEGREES * strength))
            case "shear_x":
                warp = warp.then(Warp(xy=SHEAR * strength))
            case "shear_y":
                warp = warp.then(Warp(yx=SHEAR * strength))
            case "translate_x":
                warp = warp.then(Warp(x0=TRANSLATION * strength))
            case "translate_y":
                warp = warp.then(Warp(y0=TRANSLATION * strength))
            case _:
                pass  # it works on colors
    return warp


def change_colors(
    clip: UInt8[Tensor, "3 time height width"], operations: tuple[Operation, ...]
) -> UInt8[Tensor, "3 time height width"]:
    """Do the operations on colors, in their order."""
    wanted = [operation for operation in operations if operation.name in get_args(ColorName)]
    if not wanted:
        return clip
    time, height, width = clip.shape[1:]
    # All frames below one another are one picture: its histogram and its mean are those of the clip.
    tall = Image.fromarray(clip.permute(1, 2, 3, 0).reshape(time * height, width, 3).numpy())
    for operation in wanted:
        tall = _changed(tall, operation, height)
    return torch.from_numpy(np.array(tall)).view(time, height, width, 3).permute(3, 0, 1, 2).contiguous()


def _changed(tall: Image.Image, operation: Operation, height: int) -> Image.Image:
    strength = abs(operation.strength)
    factor = 1 + ENHANCEMENT * operation.strength
    match operation.name:
        case "autocontrast":
            return ImageOps.autocontrast(tall)
        case "equalize":
            return ImageOps.equalize(tall)
        case "posterize":
            return ImageOps.posterize(tall, 8 - round(BITS * strength))
        case "solarize":
            return ImageOps.solarize(tall, 256 - round(256 * strength))
        case "color":
            return ImageEnhance.Color(tall).enhance(factor)
        case "contrast":
            return ImageEnhance.Contrast(tall).enhance(factor)
        case "brightness":
            return ImageEnhance.Brightness(tall).enhance(factor)
        case "sharpness":
            return _sharpened(tall, factor, height)
        case _:
            return tall


def _sharpened(tall: Image.Image, factor: float, height: int) -> Image.Image:
    """Frame by frame, since its filter would reach over the seam from one to the next."""
    result = Image.new("RGB", tall.size)
    for top in range(0, tall.height, height):
        frame = tall.crop((0, top, tall.width, top + height))
        result.paste(ImageEnhance.Sharpness(frame).enhance(factor), (0, top))
    return result

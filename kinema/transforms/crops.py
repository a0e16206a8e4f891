"""Crops: the square that is cut out of a video's frames in training, and those of a test's views."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Int64, UInt8
from numpy import ndarray
from torch import Tensor

from kinema.transforms.geometry import FULL_FRAME, IDENTITY, Box, Warp, warp
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.resize import Window, resize


class Geometry(NamedTuple):
    """Place of a clip's crop: the same for all frames and modalities of a sample.

    `top` and `left` are fractions of the free room, so that they mean the same in frames of another size.
    """

    short_side: int
    top: float
    left: float
    mirrored: bool
    warp: Warp = IDENTITY


def center_geometry(preprocessing: Preprocessing) -> Geometry:
    """Return the crop in the middle."""
    return Geometry(preprocessing.short_side, 0.5, 0.5, mirrored=False)


def crop(
    frames: UInt8[Tensor, "time height width channels"], geometry: Geometry, size: int, subject: Box = FULL_FRAME
) -> UInt8[Tensor, "channels time size size"]:
    """Resize the shorter side of the subject's box, cut the square out, warp it, mirror it; bytes all the way."""
    shape = _resized_shape(frames, geometry.short_side, size, subject)
    top = math.floor(geometry.top * (shape[0] - size) + 0.5)
    left = math.floor(geometry.left * (shape[1] - size) + 0.5)
    if geometry.warp == IDENTITY:
        clip = resize(frames, shape, Window(top, left, size, size), subject)
    else:
        whole = resize(frames, shape, Window(0, 0, *shape), subject)
        clip = warp(whole, geometry.warp, top=top, left=left, size=size)
    if geometry.mirrored:
        clip = clip.flip(-1)
    return clip.permute(1, 0, 2, 3).contiguous()


def view_clips(
    frames: UInt8[Tensor, "time height width channels"],
    places: Int64[ndarray, "clips frames"],
    preprocessing: Preprocessing,
    subject: Box = FULL_FRAME,
) -> UInt8[Tensor, "views channels frames size size"]:
    """The views of a test: for each clip its crops, from frames that are resized once.

    Args:
        frames: all that any clip needs, each once.
        places: of each clip's frames among them.
    """
    size = preprocessing.size
    height, width = _resized_shape(frames, preprocessing.short_side, size, subject)
    ends = (0.0, 0.5, 1.0) if preprocessing.crops == 3 else (0.5,)
    corners = [
        (math.floor(down * (height - size) + 0.5), math.floor(across * (width - size) + 0.5))
        for down, across in ((end, 0.5) if height > width else (0.5, end) for end in ends)
    ]
    (top, left), (bottom, right) = corners[0], corners[-1]
    window = Window(top, left, bottom + size - top, right + size - left)
    small = resize(frames, (height, width), window, subject)
    views = [
        small[clip, :, down - top : down - top + size, across - left : across - left + size]
        for clip in torch.from_numpy(places)
        for down, across in corners
    ]
    return torch.stack(views).transpose(1, 2).contiguous()


def _resized_shape(frames: Tensor, short_side: int, size: int, subject: Box) -> tuple[int, int]:
    height, width = subject.height(frames.shape[1]), subject.width(frames.shape[2])
    scale = short_side / min(height, width)
    return max(round(height * scale), size), max(round(width * scale), size)

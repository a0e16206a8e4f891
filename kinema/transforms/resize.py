"""Resizing: antialiased, in bytes, and in depth without mixing readings with what is none."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image
from scipy.sparse import csr_array
from torch import Tensor

from kinema.transforms.geometry import FULL_FRAME, Box

CACHED_PIXELS = 100_000
"""Pixels of depth that are resized at once; their floats stay in a processor's cache."""


class Window(NamedTuple):
    """Rows and columns of the resized picture that are wanted."""

    top: int
    left: int
    height: int
    width: int


def resize(
    frames: UInt8[Tensor, "time height width channels"], size: tuple[int, int], window: Window, box: Box = FULL_FRAME
) -> UInt8[Tensor, "time channels rows columns"]:
    """A box of the frames, resized, and of that a window.

    Each pixel is the mean under a triangle (bilinear, antialiased). Three channels are RGB. One channel is depth, in
    which 0 is no reading: its mean is taken over the readings alone, and is 0 where they are less than half of the
    weight.

    Args:
        size: height and width of the whole resized box.
        window: inside of `size`.
        box: the part of the frames that is resized; its edges may lie between pixels, so that it shows the same in
            frames of another size.
    """
    height, width, channels = frames.shape[1:]
    top, left, rows, columns = window
    if channels == 1 and not frames.numpy().all():
        return _readings(frames.squeeze(-1).numpy(), size, window, box).unsqueeze(1)
    if box != FULL_FRAME:
        return _part(frames.numpy(), size, window, box)
    clip = frames.permute(0, 3, 1, 2)
    if size != (height, width):
        # On the decoder's own layout and in bytes this is 3 to 10 times as fast as in float.
        clip = F.interpolate(clip, size=size, mode="bilinear", antialias=True)
    return clip[:, :, top : top + rows, left : left + columns]


def _part(
    frames: UInt8[ndarray, "time height width channels"], size: tuple[int, int], window: Window, box: Box
) -> UInt8[Tensor, "time channels rows columns"]:
    """Pillow resizes from edges between pixels, and then only what is wanted."""
    height, width, channels = frames.shape[1:]
    down, across = box.height(height) / size[0], box.width(width) / size[1]
    top, left = box.top * height + window.top * down, box.left * width + window.left * across
    bottom, right = top + window.height * down, left + window.width * across
    edges = (left, top, min(right, width), min(bottom, height))
    result = np.empty((len(frames), window.height, window.width, channels), np.uint8)
    for number, frame in enumerate(frames):
        picture = Image.fromarray(np.ascontiguousarray(frame if channels == 3 else frame[..., 0]))
        small = picture.resize((window.width, window.height), Image.Resampling.BILINEAR, box=edges)
        result[number] = np.asarray(small).reshape(window.height, window.width, channels)
    return torch.from_numpy(result).permute(0, 3, 1, 2)


def _readings(
    depth: UInt8[ndarray, "time height width"], size: tuple[int, int], window: Window, box: Box
) -> UInt8[Tensor, "time rows columns"]:
    """Resize level and mask by the same weights and divide.

    The weights are sparse, and only the pixels that the window needs are multiplied, in float32: two to three times the
    time of `interpolate` in bytes, which on top of its own rounding would lose up to four levels at the edges.
    """
    height, width = depth.shape[1:]
    down, rows = _weights(height, box.top * height, box.height(height) / size[0], window.top, window.height)
    across, columns = _weights(width, box.left * width, box.width(width) / size[1], window.left, window.width)
    needed = depth[:, rows, columns]
    result = torch.empty(len(depth), window.height, window.width, dtype=torch.uint8)
    together = max(CACHED_PIXELS // needed[0].size, 1)
    for first in range(0, len(depth), together):
        # Rows first, then (level and mask, time, columns), so that a product runs over long rows.
        upright = needed[first : first + together].transpose(1, 0, 2)
        height, time, width = upright.shape
        both = np.empty((height, 2, time, width), np.float32)
        both[:, 0] = upright
        np.not_equal(upright, 0, out=both[:, 1])
        lowered = (down @ both.reshape(height, -1)).reshape(window.height, 2 * time, width)
        small = across @ np.ascontiguousarray(lowered.transpose(2, 0, 1)).reshape(width, -1)
        level, weight = torch.from_numpy(small).view(window.width, window.height, 2, time).unbind(2)
        # Where half of the weight is readings, rounding puts it a little above or below the half.
        mean = level.div(weight.clamp_min(0.25)).mul_(weight > 0.5 - 1e-5)
        result[first : first + time] = mean.round_().to(torch.uint8).permute(2, 1, 0)
    return result


def _weights(extent: int, start: float, scale: float, first: int, count: int) -> tuple[csr_array, slice]:
    """Share of each pixel in each of `count` resized ones, a triangle as wide as two of the wider kind; and the pixels
    that have any, for which alone there are columns.

    Args:
        extent: pixels there are.
        start: where the first resized pixel begins.
        scale: pixels in a resized one.
        first, count: the resized pixels that are wanted.
    """
    middles = start + (np.arange(first, first + count)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(extent) + 0.5 - middles) / max(scale, 1.0)
    weights = np.clip(1 - distance, 0, None)
    used = np.flatnonzero(weights.any(0))
    needed = slice(int(used[0]), int(used[-1]) + 1)
    return csr_array((weights / weights.sum(1, keepdims=True)).astype(np.float32)[:, needed]), needed

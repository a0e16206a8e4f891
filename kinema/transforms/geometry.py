"""Spatial transforms of frames: boxes, affine warps, antialiased resizing and crops."""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from numpy import ndarray
from PIL import Image
from scipy.sparse import csr_array
from torch import Tensor

from kinema.video.pixels import SQUARE, PixelAspect

GRAY = 128
"""RGB level of pixels that a warp takes from beyond the frame."""

Rounding = Literal["half-up", "torchvision"]
"""Rounding of a resized frame's longer side and of a crop's edges.

`torchvision` truncates the longer side and rounds edges half to even, like its Resize and CenterCrop: of 240 x 320
pixels at a short side of 256, a center crop of 224 begins at column 58, and at 59 with `half-up`.
"""

CACHED_PIXELS = 100_000
"""Number of depth pixels resized per block; their floats fit the processor's cache."""


class Box(NamedTuple):
    """Part of a frame, as fractions of its height and width; the same at any resolution."""

    top: float = 0.0
    left: float = 0.0
    bottom: float = 1.0
    right: float = 1.0

    def pixels(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and columns, with edges rounded to the nearest pixel; at least one of each."""
        return _span(self.top, self.bottom, height), _span(self.left, self.right, width)

    def size(self, height: int, width: int) -> tuple[float, float]:
        """Return the height and width of the box in pixels of a frame of this size."""
        return (self.bottom - self.top) * height, (self.right - self.left) * width


FULL_FRAME = Box()


def _span(start: float, stop: float, size: int) -> slice:
    first = min(math.floor(start * size + 0.5), size - 1)
    return slice(first, max(math.floor(stop * size + 0.5), first + 1))


class Warp(NamedTuple):
    """Affine map of a square about its center: from each place of the result to the place it is sampled from.

    A place is (x, y) in fractions of the square's side, (0, 0) in the center, y downwards:
    (x, y) -> (xx * x + xy * y + x0, yx * x + yy * y + y0).
    """

    xx: float = 1.0
    xy: float = 0.0
    x0: float = 0.0
    yx: float = 0.0
    yy: float = 1.0
    y0: float = 0.0

    def then(self, other: "Warp") -> "Warp":
        """Return the warp that applies this one first and the other to its result."""
        first, second = (np.array([[w.xx, w.xy, w.x0], [w.yx, w.yy, w.y0], [0, 0, 1]]) for w in (self, other))
        return Warp(*(first @ second)[:2].ravel().tolist())


IDENTITY = Warp()


def rotation(degrees: float) -> Warp:
    """Return the warp that rotates the picture counterclockwise."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return Warp(xx=cosine, xy=-sine, yx=sine, yy=cosine)


def warp(
    frames: UInt8[Tensor, "time channels height width"], warp: Warp, *, top: int, left: int, size: int
) -> UInt8[Tensor, "time channels size size"]:
    """Crop a square and warp it about its center, in one resampling.

    Corners show what the frame has there. Beyond the frame, RGB is gray and depth is 0, no reading. RGB is interpolated
    bilinearly. Depth takes the nearest pixel, since the mean of two depths is a place where nothing is.

    Args:
        frames: RGB, or depth with one channel.
        warp: Affine map of the square.
        top: First row of the square, before the warp.
        left: First column of the square.
        size: Side of the square in pixels.
    """
    center_x, center_y = left + size / 2, top + size / 2
    affine = (
        warp.xx,
        warp.xy,
        center_x + size * warp.x0 - (warp.xx + warp.xy) * size / 2,
        warp.yx,
        warp.yy,
        center_y + size * warp.y0 - (warp.yx + warp.yy) * size / 2,
    )
    is_depth = frames.shape[1] == 1
    images = frames[:, 0] if is_depth else frames.permute(0, 2, 3, 1)
    result = np.empty((len(frames), size, size, *images.shape[3:]), np.uint8)
    for number, image in enumerate(images.numpy()):
        result[number] = Image.fromarray(np.ascontiguousarray(image)).transform(
            (size, size),
            Image.Transform.AFFINE,
            affine,
            resample=Image.Resampling.NEAREST if is_depth else Image.Resampling.BILINEAR,
            fillcolor=0 if is_depth else (GRAY, GRAY, GRAY),
        )
    warped = torch.from_numpy(result)
    return warped.unsqueeze(1) if is_depth else warped.permute(0, 3, 1, 2)


class Window(NamedTuple):
    """Rows and columns of a resized frame to compute."""

    top: int
    left: int
    height: int
    width: int


def resize(
    frames: UInt8[Tensor, "time height width channels"], size: tuple[int, int], window: Window, box: Box = FULL_FRAME
) -> UInt8[Tensor, "time channels rows columns"]:
    """Resize a box of the frames and return a window of the result.

    Each pixel is the mean under a triangle (bilinear, antialiased). Three channels are RGB. One channel is depth, where
    0 is no reading: the mean is taken over the readings alone, and is 0 where they have less than half of the weight.

    Args:
        frames: RGB or depth frames.
        size: Height and width of the whole resized box.
        window: Part of the resized box to return.
        box: Part of the frames to resize. Its edges may lie between pixels, so that it shows the same in frames of
            another size.
    """
    height, width, channels = frames.shape[1:]
    top, left, rows, columns = window
    if channels == 1 and not frames.numpy().all():
        return _resize_readings(frames.squeeze(-1).numpy(), size, window, box).unsqueeze(1)
    if box != FULL_FRAME:
        return _resize_box(frames.numpy(), size, window, box)
    clip = frames.permute(0, 3, 1, 2)
    if size != (height, width):
        # On the decoder's own layout and in bytes this is 3 to 10 times as fast as in float.
        clip = F.interpolate(clip, size=size, mode="bilinear", antialias=True)
    return clip[:, :, top : top + rows, left : left + columns]


def _resize_box(
    frames: UInt8[ndarray, "time height width channels"], size: tuple[int, int], window: Window, box: Box
) -> UInt8[Tensor, "time channels rows columns"]:
    """Resize by Pillow, which accepts edges between pixels and computes no more than the window."""
    height, width, channels = frames.shape[1:]
    box_height, box_width = box.size(height, width)
    down, across = box_height / size[0], box_width / size[1]
    top, left = box.top * height + window.top * down, box.left * width + window.left * across
    bottom, right = top + window.height * down, left + window.width * across
    edges = (left, top, min(right, width), min(bottom, height))
    result = np.empty((len(frames), window.height, window.width, channels), np.uint8)
    for number, frame in enumerate(frames):
        image = Image.fromarray(np.ascontiguousarray(frame if channels == 3 else frame[..., 0]))
        small = image.resize((window.width, window.height), Image.Resampling.BILINEAR, box=edges)
        result[number] = np.asarray(small).reshape(window.height, window.width, channels)
    return torch.from_numpy(result).permute(0, 3, 1, 2)


def _resize_readings(
    depth: UInt8[ndarray, "time height width"], size: tuple[int, int], window: Window, box: Box
) -> UInt8[Tensor, "time rows columns"]:
    """Resize levels and mask by the same weights and divide.

    The weights are sparse, and only the pixels that the window needs are multiplied, in float32. This takes two to
    three times as long as `interpolate` in bytes, whose own rounding would lose up to four levels at the edges.
    """
    height, width = depth.shape[1:]
    box_height, box_width = box.size(height, width)
    down, rows = _triangle_weights(height, box.top * height, box_height / size[0], window.top, window.height)
    across, columns = _triangle_weights(width, box.left * width, box_width / size[1], window.left, window.width)
    needed = depth[:, rows, columns]
    result = torch.empty(len(depth), window.height, window.width, dtype=torch.uint8)
    block = max(CACHED_PIXELS // needed[0].size, 1)
    for first in range(0, len(depth), block):
        # Rows first, then (level and mask, time, columns), so that a product runs over long rows.
        levels = needed[first : first + block].transpose(1, 0, 2)
        height, time, width = levels.shape
        both = np.empty((height, 2, time, width), np.float32)
        both[:, 0] = levels
        np.not_equal(levels, 0, out=both[:, 1])
        lowered = (down @ both.reshape(height, -1)).reshape(window.height, 2 * time, width)
        small = across @ np.ascontiguousarray(lowered.transpose(2, 0, 1)).reshape(width, -1)
        level, weight = torch.from_numpy(small).view(window.width, window.height, 2, time).unbind(2)
        # Where exactly half of the weight is readings, rounding may put it a little below the half.
        mean = level.div(weight.clamp_min(0.25)).mul_(weight > 0.5 - 1e-5)
        result[first : first + time] = mean.round_().to(torch.uint8).permute(2, 1, 0)
    return result


def _triangle_weights(num_pixels: int, start: float, scale: float, first: int, count: int) -> tuple[csr_array, slice]:
    """Return the weight of each source pixel in each resized one, and the source pixels with any weight.

    Args:
        num_pixels: Number of source pixels along this axis.
        start: Position where the first resized pixel begins, in source pixels.
        scale: Number of source pixels per resized pixel.
        first: First resized pixel to compute.
        count: Number of resized pixels to compute.
    """
    centers = start + (np.arange(first, first + count)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(num_pixels) + 0.5 - centers) / max(scale, 1.0)
    weights = np.clip(1 - distance, 0, None)
    used = np.flatnonzero(weights.any(0))
    needed = slice(int(used[0]), int(used[-1]) + 1)
    return csr_array((weights / weights.sum(1, keepdims=True)).astype(np.float32)[:, needed]), needed


class Geometry(NamedTuple):
    """Crop of a clip, the same for all frames and modalities of a sample; by default the center crop.

    Attributes:
        short_side: Shorter side of the resized frame in pixels.
        top: Position of the crop, as a fraction of the free rows, so that it means the same in frames of another size.
        left: Position of the crop, as a fraction of the free columns.
        mirrored: Whether left and right are exchanged.
        warp: Affine map of the crop.
        rounding: Rounding of the resized frame's longer side and of the crop's edges.
    """

    short_side: int
    top: float = 0.5
    left: float = 0.5
    mirrored: bool = False
    warp: Warp = IDENTITY
    rounding: Rounding = "half-up"


def crop(
    frames: UInt8[Tensor, "time height width channels"],
    geometry: Geometry,
    size: int,
    subject: Box = FULL_FRAME,
    pixel_aspect: PixelAspect = SQUARE,
) -> UInt8[Tensor, "channels time size size"]:
    """Resize the shorter side of the subject's box as displayed, crop a square, warp and mirror it."""
    shape = _resized_shape(frames, geometry.short_side, size, subject, pixel_aspect, geometry.rounding)
    top = _edge(geometry.top, shape[0] - size, geometry.rounding)
    left = _edge(geometry.left, shape[1] - size, geometry.rounding)
    if geometry.warp == IDENTITY:
        clip = resize(frames, shape, Window(top, left, size, size), subject)
    else:
        resized = resize(frames, shape, Window(0, 0, *shape), subject)
        clip = warp(resized, geometry.warp, top=top, left=left, size=size)
    if geometry.mirrored:
        clip = clip.flip(-1)
    return clip.permute(1, 0, 2, 3).contiguous()


def view_clips(
    frames: UInt8[Tensor, "time height width channels"],
    places: Int64[ndarray, "clips frames"],
    *,
    short_side: int,
    size: int,
    num_crops: int,
    subject: Box = FULL_FRAME,
    pixel_aspect: PixelAspect = SQUARE,
    rounding: Rounding = "half-up",
) -> UInt8[Tensor, "views channels frames size size"]:
    """Return the views of a test: the crops of each clip, from frames that are resized once.

    Args:
        frames: Frames needed by any clip, each once.
        places: Positions of each clip's frames among them.
        short_side: Shorter side of the resized frame in pixels.
        size: Side of the crops in pixels.
        num_crops: 1 for the center, or 3 along the longer side.
        subject: Part of the frames to resize.
        pixel_aspect: Displayed shape of the frames' pixels.
        rounding: Rounding of the resized frame's longer side and of the crops' edges.
    """
    height, width = _resized_shape(frames, short_side, size, subject, pixel_aspect, rounding)
    ends = (0.0, 0.5, 1.0) if num_crops == 3 else (0.5,)
    corners = [
        (_edge(down, height - size, rounding), _edge(across, width - size, rounding))
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


def resized_bytes(frames: UInt8[Tensor, "time height width channels"], short_side: int, aspect: PixelAspect) -> int:
    """Return the bytes that frames take when their shorter side is resized; thin frames take many."""
    height, width = _resized_shape(frames, short_side, 1, FULL_FRAME, aspect, "half-up")
    return len(frames) * height * width * frames.shape[-1]


def _resized_shape(
    frames: Tensor, short_side: int, size: int, subject: Box, pixel_aspect: PixelAspect, rounding: Rounding
) -> tuple[int, int]:
    height, width = subject.size(*frames.shape[1:3])
    height, width = height * pixel_aspect.height, width * pixel_aspect.width
    shortest = min(height, width)
    if rounding == "torchvision":
        return max(int(short_side * height / shortest), size), max(int(short_side * width / shortest), size)
    scale = short_side / shortest
    return max(round(height * scale), size), max(round(width * scale), size)


def _edge(share: float, free: int, rounding: Rounding) -> int:
    """Return the first row or column of a crop that leaves `free` rows or columns, a share of them before it."""
    return round(share * free) if rounding == "torchvision" else math.floor(share * free + 0.5)

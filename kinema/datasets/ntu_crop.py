"""Crop boxes around the person in RGB frames of NTU RGB+D, from masked depth and the geometry of Kinect v2.

RGB (1920 x 1080) and depth (512 x 424) come from two cameras with different focal lengths beside each other: depth
covers columns 219 to 1,704 of RGB and slightly more than all of its rows.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kinema.data.manifest import PixelBox
from kinema.datasets.prepared import examples
from kinema.errors import ManifestError, UnreadableVideo
from kinema.transforms.preprocessing import Extent, fit_range, subject_extent
from kinema.video.container import open_video
from kinema.video.read_options import READ_OPTIONS
from kinema.video.source import count_frames, read_gray

RGB_SIZE, DEPTH_SIZE = (1920, 1080), (512, 424)
"""Width and height of a frame [px]."""
SCALE, SHIFT_X, SHIFT_Y = 2.9, 219.0, -52.0
"""Depth pixel (x, y) is RGB pixel (2.9 x + 219, 2.9 y - 52): the mean of the affine maps that a user fitted to 10,000
joints of the official skeletons for each camera of setup 1 (shahroudy/NTURGB-D, issue 39: scales 2.88 to 2.91). In the
middle of the frame the three maps differ from it by up to 13 px across and 17 px down, since devices differ. Kinect
v2's focal lengths, 1,081 and 365 px, have the ratio 2.96 (OpenKinect/libfreenect2, issue 41). The 52 mm between its two
cameras shift a person at 2.5 m by 6 px more than one at 3.5 m, which is neglected. Other setups are not checked."""
NUM_FRAMES = 8
"""Frames of a sample, equally spaced, in which the person is located."""


@dataclass(frozen=True, kw_only=True)
class SubjectBox:
    """Crop box of one sample.

    Args:
        box: Box in RGB frames; None for full frames.
        reason: Why there is no box; empty if there is one.
        is_too_small: Whether the person is larger than the box.
    """

    box: PixelBox | None = None
    reason: str = ""
    is_too_small: bool = False


def check_crop_size(size: tuple[int, int]) -> None:
    """Raise if a box is larger than an RGB frame."""
    if not (0 < size[0] <= RGB_SIZE[0] and 0 < size[1] <= RGB_SIZE[1]):
        problem = (
            f"rgb_crop_size: expected at most {_described(RGB_SIZE)} px and at least 1 x 1, got {_described(size)}"
        )
        raise ManifestError(problem, field="rgb_crop_size")


def rgb_box(extent: Extent, size: tuple[int, int]) -> SubjectBox:
    """Return the box in RGB around the middle of the person, shifted into the frame.

    Args:
        extent: Extent of the person in depth frames.
        size: Width and height of the box [px].
    """
    left, right = (round(SCALE * column + SHIFT_X) for column in (extent.left, extent.right))
    top, bottom = (round(SCALE * row + SHIFT_Y) for row in (extent.top, extent.bottom))
    first_x, last_x = fit_range(left, right, size[0], RGB_SIZE[0])
    first_y, last_y = fit_range(top, bottom, size[1], RGB_SIZE[1])
    box = PixelBox(left=first_x, top=first_y, right=last_x, bottom=last_y)
    return SubjectBox(box=box, is_too_small=right - left > size[0] or bottom - top > size[1])


def find_boxes(pairs: Mapping[str, tuple[Path, Path]], size: tuple[int, int]) -> dict[str, SubjectBox]:
    """Return the box of each sample, in parallel.

    Args:
        pairs: RGB file and folder of masked depth of each sample.
        size: Width and height of the boxes [px].
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return dict(zip(pairs, pool.map(lambda pair: _find_box(pair[0], pair[1], size), pairs.values()), strict=True))


def crop_notes(found: Mapping[str, SubjectBox], size: tuple[int, int]) -> list[str]:
    """Return notes on the boxes."""
    boxed = [name for name, one in found.items() if one.box is not None]
    notes = [f"RGB of {len(boxed)} samples is cropped to {_described(size)} px around the person in masked depth"]
    larger = [name for name in boxed if found[name].is_too_small]
    if larger:
        notes.append(
            f"in {len(larger)} of them the person is larger than the box: {examples(larger)}. Use a larger "
            "--rgb-crop-size"
        )
    reasons: dict[str, list[str]] = {}
    for name, one in found.items():
        if one.box is None:
            reasons.setdefault(one.reason, []).append(name)
    for reason, names in sorted(reasons.items()):
        notes.append(f"{len(names)} samples keep full RGB frames: {reason}: {examples(names)}")
    return notes


def _find_box(rgb: Path, depth: Path, size: tuple[int, int]) -> SubjectBox:
    try:
        with open_video(str(rgb), READ_OPTIONS.limits) as (_, stream):
            rgb_size = stream.codec_context.width, stream.codec_context.height
        frames = read_gray(str(depth), _spread(count_frames(str(depth))))
    except UnreadableVideo:  # counting frames reports which and why
        return SubjectBox(reason="RGB or depth cannot be read")
    depth_size = frames.shape[2], frames.shape[1]
    for name, size_found, wanted in (("RGB", rgb_size, RGB_SIZE), ("masked depth", depth_size, DEPTH_SIZE)):
        if size_found != wanted:
            return SubjectBox(reason=f"{name} is {_described(size_found)}, expected {_described(wanted)}")
    extent = subject_extent(frames)
    return SubjectBox(reason="no person in masked depth") if extent is None else rgb_box(extent, size)


def _described(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _spread(count: int) -> Sequence[int]:
    indices: list[int] = np.linspace(0, count - 1, min(NUM_FRAMES, count)).round().astype(int).tolist()
    return indices

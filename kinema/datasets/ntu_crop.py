"""Crop boxes around the person in RGB frames of NTU RGB+D, from masked depth and the geometry of Kinect v2.

RGB (1920 x 1080) and depth (512 x 424) come from two cameras with different focal lengths beside each other: depth
covers columns 219 to 1,704 of RGB and slightly more than all of its rows.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kinema.data.pixel_box import PixelBox
from kinema.datasets.prepared import note_names
from kinema.errors import ManifestError, UnreadableVideo, examples
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
"""Number of equally spaced frames of a sample in which the person is located."""


@dataclass(frozen=True, kw_only=True)
class SubjectBox:
    """Crop box of a sample.

    Attributes:
        box: Box in RGB frames; None for full frames.
        reason: Why there is no box; empty if there is one.
        is_too_small: Whether the person is larger than the box.
    """

    box: PixelBox | None = None
    reason: str = ""
    is_too_small: bool = False


def check_crop_size(size: tuple[int, int]) -> None:
    """Raise ManifestError if a box is empty or larger than an RGB frame."""
    if not (0 < size[0] <= RGB_SIZE[0] and 0 < size[1] <= RGB_SIZE[1]):
        limits = f"1 x 1 to {_describe(RGB_SIZE)} px"
        raise ManifestError(f"rgb_crop_size: expected {limits}, got {_describe(size)}", field="rgb_crop_size")


def rgb_box(extent: tuple[int, int, int, int], size: tuple[int, int]) -> SubjectBox:
    """Return the box in RGB around the middle of the person, shifted into the frame.

    Args:
        extent: Rows `top` to `bottom` and columns `left` to `right` of the person in depth frames, half open.
        size: Width and height of the box [px].
    """
    from kinema.transforms.preprocessing import fit_range  # imports torch, which `kinema prepare --help` does without

    top, bottom = (round(SCALE * row + SHIFT_Y) for row in extent[:2])
    left, right = (round(SCALE * column + SHIFT_X) for column in extent[2:])
    first_x, last_x = fit_range(left, right, size[0], RGB_SIZE[0])
    first_y, last_y = fit_range(top, bottom, size[1], RGB_SIZE[1])
    box = PixelBox(left=first_x, top=first_y, right=last_x, bottom=last_y)
    return SubjectBox(box=box, is_too_small=right - left > size[0] or bottom - top > size[1])


def find_boxes(pairs: Mapping[str, tuple[Path, Path]], size: tuple[int, int]) -> dict[str, SubjectBox]:
    """Return the box of each sample by its RGB file and folder of masked depth; samples are read in parallel."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return dict(zip(pairs, pool.map(lambda pair: _find_box(pair[0], pair[1], size), pairs.values()), strict=True))


def box_notes(boxes: Mapping[str, SubjectBox], size: tuple[int, int]) -> list[str]:
    """Return notes on the boxes of the samples."""
    reasons: dict[str, list[str]] = {}
    for name, box in boxes.items():
        reasons.setdefault(box.reason, []).append(name)
    boxed = reasons.pop("", [])
    notes = [f"RGB of {len(boxed)} samples is cropped to {_describe(size)} px around the person in masked depth"]
    larger = [name for name in boxed if boxes[name].is_too_small]
    if larger:
        problem = f"in {len(larger)} of them the person is larger than the box: {examples(larger)}"
        notes.append(f"{problem}. Use a larger --rgb-crop-size")
    for reason, names in sorted(reasons.items()):
        notes += note_names(names, f"samples keep full RGB frames: {reason}")
    return notes


def _find_box(rgb: Path, depth: Path, size: tuple[int, int]) -> SubjectBox:
    from kinema.transforms.preprocessing import subject_extent

    try:
        with open_video(str(rgb), READ_OPTIONS.limits) as (_, stream):
            rgb_size = stream.codec_context.width, stream.codec_context.height
        count = count_frames(str(depth))
        indices: list[int] = np.linspace(0, count - 1, min(NUM_FRAMES, count)).round().astype(int).tolist()
        frames = read_gray(str(depth), indices)
    except UnreadableVideo:  # counting frames reports the file
        return SubjectBox(reason="RGB or depth cannot be read")
    depth_size = frames.shape[2], frames.shape[1]
    for name, actual, expected in (("RGB", rgb_size, RGB_SIZE), ("masked depth", depth_size, DEPTH_SIZE)):
        if actual != expected:
            return SubjectBox(reason=f"{name} is {_describe(actual)}, expected {_describe(expected)}")
    extent = subject_extent(frames)
    return SubjectBox(reason="no person in masked depth") if extent is None else rgb_box(extent, size)


def _describe(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"

"""The person's part of NTU RGB+D's colour pictures, found in masked depth through the geometry of Kinect v2.

RGB (1920 x 1080) and depth (512 x 424) come from two cameras of other focal lengths beside each other, so that a share
of the one picture is another share of the other: depth sees the columns from 219 to 1,704 of RGB, and a little more
than all of its rows.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kinema.datasets.prepared import examples
from kinema.errors import ManifestError, UnreadableVideo
from kinema.transforms.pixel_box import PixelBox
from kinema.transforms.subject_crop import Extent, inside, subject_extent
from kinema.video.container import open_video
from kinema.video.read_options import READ_OPTIONS
from kinema.video.source import count_frames, read_gray

RGB_SIZE, DEPTH_SIZE = (1920, 1080), (512, 424)
"""Width and height."""
SCALE, SHIFT_X, SHIFT_Y = 2.9, 219.0, -52.0
"""A place (x, y) of depth is (2.9 x + 219, 2.9 y - 52) of RGB: the mean of the affine maps that a user fitted to 10,000
joints of the official skeletons for each camera of setup 1 (shahroudy/NTURGB-D, issue 39: scales 2.88 to 2.91). In the
middle of the picture the three lie up to 13 pixels across and 17 down from it, since devices differ. Kinect v2's own
focal lengths, 1,081 and 365 pixels, have the ratio 2.96 (OpenKinect/libfreenect2, issue 41). The 52 mm between its two
cameras move a person at 2.5 m by 6 pixels more than one at 3.5 m, which is left out. Other setups are not checked."""
FRAMES = 8
"""Of a sample, at equal distances, in which the person is looked for."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found for one sample.

    Args:
        box: of RGB; None for the whole picture.
        reason: why there is none; empty where there is one.
        larger: whether the person is larger than the box.
    """

    box: PixelBox | None = None
    reason: str = ""
    larger: bool = False


def check_crop_size(size: tuple[int, int]) -> None:
    """Refuse a box that a picture of the size of RGB cannot hold."""
    if not (0 < size[0] <= RGB_SIZE[0] and 0 < size[1] <= RGB_SIZE[1]):
        raise ManifestError(f"a box of {_described(size)} cannot be cut out of pictures of {_described(RGB_SIZE)}")


def rgb_box(extent: Extent, size: tuple[int, int]) -> Found:
    """A box of that width and height of RGB about the middle of what depth shows, moved into the picture.

    Args:
        extent: of the person in pictures of depth.
        size: width and height.
    """
    left, right = (round(SCALE * column + SHIFT_X) for column in (extent.left, extent.right))
    top, bottom = (round(SCALE * row + SHIFT_Y) for row in (extent.top, extent.bottom))
    first_x, last_x = inside(left, right, size[0], RGB_SIZE[0])
    first_y, last_y = inside(top, bottom, size[1], RGB_SIZE[1])
    box = PixelBox(left=first_x, top=first_y, right=last_x, bottom=last_y)
    return Found(box=box, larger=right - left > size[0] or bottom - top > size[1])


def find_boxes(pairs: Mapping[str, tuple[Path, Path]], size: tuple[int, int]) -> dict[str, Found]:
    """The box of each sample, in parallel.

    Args:
        pairs: file of RGB and folder of masked depth of each sample.
        size: width and height of the boxes.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return dict(zip(pairs, pool.map(lambda pair: _found(pair[0], pair[1], size), pairs.values()), strict=True))


def crop_notes(found: Mapping[str, Found], size: tuple[int, int]) -> list[str]:
    """What is to be said of the boxes."""
    boxed = [name for name, one in found.items() if one.box is not None]
    notes = [f"RGB of {len(boxed)} samples is cut to {_described(size)} pixels about the person of masked depth"]
    larger = [name for name in boxed if found[name].larger]
    if larger:
        notes.append(
            f"in {len(larger)} of them the person is larger than the box, and parts lie outside: {examples(larger)}; "
            "--rgb-crop-size WIDTH HEIGHT takes more"
        )
    reasons: dict[str, list[str]] = {}
    for name, one in found.items():
        if one.box is None:
            reasons.setdefault(one.reason, []).append(name)
    for reason, names in sorted(reasons.items()):
        notes.append(f"{len(names)} samples keep the whole picture of RGB, since {reason}: {examples(names)}")
    return notes


def _found(rgb: Path, depth: Path, size: tuple[int, int]) -> Found:
    try:
        with open_video(str(rgb), READ_OPTIONS.limits) as (_, stream):
            rgb_size = stream.codec_context.width, stream.codec_context.height
        frames = read_gray(str(depth), _spread(count_frames(str(depth))))
    except UnreadableVideo:  # counting says which and why
        return Found(reason="RGB or depth cannot be read")
    depth_size = frames.shape[2], frames.shape[1]
    for name, size_there, wanted in (("RGB", rgb_size, RGB_SIZE), ("masked depth", depth_size, DEPTH_SIZE)):
        if size_there != wanted:
            return Found(reason=f"{name} is of {_described(size_there)}, not of {_described(wanted)}")
    extent = subject_extent(frames)
    return Found(reason="masked depth shows nobody") if extent is None else rgb_box(extent, size)


def _described(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _spread(count: int) -> Sequence[int]:
    places: list[int] = np.linspace(0, count - 1, min(FRAMES, count)).round().astype(int).tolist()
    return places

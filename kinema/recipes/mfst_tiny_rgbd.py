"""MFST-tiny on your own RGB-D videos, from scratch: two streams trained together, with a head over both.

    kinema prepare csv --root table.csv --columns rgb=color,depth=depth --depth-range 500 4500 --out mine.csv
    kinema train mfst_tiny_rgbd --data.manifest mine.csv
    kinema predict runs/latest new_rgb.mp4 --depth new_depth.mkv

Training drops one stream from every fifth sample, so that the model also works with one of them.

Ours: the settings of `moves_mfst_tiny_rgbd`, with the clips of `mfst_tiny_depth`. They were not tuned for other data.
"""

from dataclasses import replace

from kinema.recipes.mfst_tiny_depth import RECIPE as DEPTH
from kinema.recipes.moves_mfst_tiny_rgbd import RECIPE as MOVES

COLOR = replace(DEPTH.data.augmentation, color_jitter=0.4, channel_shuffle=0.2)

RECIPE = replace(
    DEPTH,
    clip=replace(DEPTH.clip, modalities=("rgb", "depth")),
    data=replace(DEPTH.data, augmentation=COLOR),
    model=MOVES.model,
)

"""MFST-tiny on the built-in moves, RGB and depth: two streams trained together, with a head over the features of both.

    kinema train moves_mfst_tiny_rgbd

Same as `moves_mfst_tiny`. Training drops one stream from every fifth sample, so that each works alone:
`kinema evaluate RUN --manifest moves_cross_subject --modalities rgb`.
"""

from dataclasses import replace

from kinema.models.two_stream import MFST_TINY_RGBD
from kinema.recipes.moves_mfst_tiny import RECIPE as RGB

RECIPE = replace(RGB, clip=replace(RGB.clip, modalities=("rgb", "depth")), model=MFST_TINY_RGBD)

"""MFST-tiny on the built-in moves, RGB and depth: two networks that learn together, over the features of both.

kinema train moves_mfst_tiny_rgbd

As `moves_mfst_tiny`. From every fifth sample training takes one of the two streams away, so that either can answer
alone: `kinema evaluate RUN --manifest moves_cross_subject --modalities rgb`.
"""

from dataclasses import replace

from kinema.models.two_stream import MFST_TINY_RGBD
from kinema.recipes.moves_mfst_tiny import RECIPE as RGB

RECIPE = replace(RGB, clip=replace(RGB.clip, modalities=("rgb", "depth")), model=MFST_TINY_RGBD)

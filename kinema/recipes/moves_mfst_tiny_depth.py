"""MFST-tiny on the built-in moves, depth. Same as `moves_mfst_tiny`, with 3D-CDC-T.

kinema train moves_mfst_tiny_depth
"""

from dataclasses import replace

from kinema.models.mfst import MFST_TINY_DEPTH
from kinema.recipes.moves_mfst_tiny import RECIPE as RGB

RECIPE = replace(RGB, clip=replace(RGB.clip, modalities=("depth",)), model=MFST_TINY_DEPTH)

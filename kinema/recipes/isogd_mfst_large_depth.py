"""MFST-Large on ChaLearn IsoGD, depth, from a network trained on NTU RGB+D (Table 2.2: 61.29 %). Not run.

kinema prepare isogd --root IsoGD --out isogd.csv
kinema train isogd_mfst_large_depth --data.manifest isogd.csv --init runs/ntu60_mfst_large_depth

As `isogd_mfst_large`, with 3D-CDC-T, which Table 2.4 finds best for depth. Depth is the gray video of 8 bits as it
comes, its one channel three times; it is not masked, so that nothing is cut to the person and nothing colored.
"""

from dataclasses import replace

from kinema.models.mfst import MFST_LARGE_DEPTH
from kinema.recipes.isogd_mfst_large import RECIPE as RGB

RECIPE = replace(RGB, clip=replace(RGB.clip, modalities=("depth",), depth_channels=3), model=MFST_LARGE_DEPTH)

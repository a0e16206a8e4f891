"""MFST-Large on ChaLearn IsoGD, depth, starting from NTU RGB+D weights (Table 2.2: 61.29 % top-1). Not trained yet.

    kinema prepare isogd --root IsoGD --out isogd.csv
    kinema train isogd_mfst_large_depth --data.manifest isogd.csv --init runs/ntu60_mfst_large_depth

Same as `isogd_mfst_large`, with 3D-CDC-T, the best stem for depth in Table 2.4. Depth is the 8-bit gray video with its
channel repeated three times, normalized like RGB. It is not masked, so it is neither cropped to the person nor colored.
"""

from dataclasses import replace

from kinema.models.mfst import MFST_LARGE_DEPTH
from kinema.recipes.isogd_mfst_large import RECIPE as RGB

RECIPE = replace(
    RGB, clip=replace(RGB.clip, modalities=("depth",), depth_channels=3, depth_std=128 / 255), model=MFST_LARGE_DEPTH
)

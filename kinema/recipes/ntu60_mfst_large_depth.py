"""MFST-Large on NTU RGB+D 60, depth, cross-subject (Table 2.1: 93.8 %). Not run.

kinema train ntu60_mfst_large_depth --data.manifest ntu60_cross_subject.csv

As `ntu60_mfst_large`, with what Table 2.4 finds best for depth, 3D-CDC-T. The thesis cuts masked depth to the person
and colours it by the JET map, as here; how much room it leaves around the person it does not say.
"""

from dataclasses import replace

from kinema.models.zoo import MFST_LARGE_DEPTH
from kinema.training.recipe import load_recipe

RGB = load_recipe("ntu60_mfst_large")
RECIPE = replace(
    RGB,
    clip=replace(RGB.clip, modalities=("depth",), depth_channels=3, depth_colours="jet", subject_margin=0.1),
    model=MFST_LARGE_DEPTH,
)

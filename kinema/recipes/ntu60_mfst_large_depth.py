"""MFST-Large on NTU RGB+D 60, depth, cross-subject (Table 2.1: 93.8 %). Not run.

kinema prepare ntu60 --root DIR --depth-coverage masked --out ntu60_cross_subject.csv
kinema train ntu60_mfst_large_depth --data.manifest ntu60_cross_subject.csv

Cross-view (Table 2.1: 97.3 %) is the same with another manifest: `--split cross_view --out ntu60_cross_view.csv`.
RGB and depth together, by the mean of both (94.6 and 98.2 %): `kinema evaluate RUN --manifest ... --fuse RUN2`.

As `ntu60_mfst_large`, with what Table 2.4 finds best for depth, 3D-CDC-T. The thesis cuts masked depth to the person
and colors it by the JET map, as here; how much room it leaves around the person it does not say.
"""

from dataclasses import replace

from kinema.models.mfst import MFST_LARGE_DEPTH
from kinema.recipes.ntu60_mfst_large import RECIPE as RGB

RECIPE = replace(
    RGB,
    clip=replace(RGB.clip, modalities=("depth",), depth_channels=3, depth_colors="jet", subject_margin=0.1),
    model=MFST_LARGE_DEPTH,
)

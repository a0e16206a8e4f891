"""MFST-Large on NTU RGB+D 60, depth, cross-subject (Table 2.1: 93.8 % top-1). Not trained yet.

    kinema prepare ntu60 --root DIR --depth-coverage masked --out ntu60_cross_subject.csv
    kinema train ntu60_mfst_large_depth --data.manifest ntu60_cross_subject.csv

For cross-view (Table 2.1: 97.3 %), prepare with `--split cross_view --out ntu60_cross_view.csv`. For RGB and depth
fused (94.6 and 98.2 %): `kinema evaluate RUN --manifest ... --fuse RUN2`.

Same as `ntu60_mfst_large`, with 3D-CDC-T, the best stem for depth in Table 2.4. The thesis does not describe its depth
frames. From public code (UMDR, De+Recouple): masked depth, cut to the person, colored by the JET map, and normalized
like RGB. The margin around the person is ours; UMDR cuts 320 x 240 of every frame.
"""

from dataclasses import replace

from kinema.models.mfst import MFST_LARGE_DEPTH
from kinema.recipes.ntu60_mfst_large import RECIPE as RGB

RECIPE = replace(
    RGB,
    clip=replace(
        RGB.clip,
        modalities=("depth",),
        depth_channels=3,
        depth_colors="jet",
        depth_std=128 / 255,
        subject_margin=0.1,
    ),
    model=MFST_LARGE_DEPTH,
)

"""Table 2.4: convolution of the MFST stem and its theta; NTU RGB+D 60, cross-subject. Not trained yet.

    kinema train table_2_4/rgb_cdc_st_0.6 --data.manifest ntu60_cross_subject.csv

Printed, RGB and depth in percent:

    vanilla          90.4  91.2
    3D-CDC-ST, 0.6   92.1  91.6
    3D-CDC-T, 0.6    89.6  93.8
    3D-CDC-ST, 0.8   91.0  91.0
    3D-CDC-T, 0.8    89.9  92.4
"""

from dataclasses import replace

from kinema.models.mfst import MFST_LARGE, Operator
from kinema.recipes.ntu60_mfst_large import RECIPE as RGB
from kinema.recipes.ntu60_mfst_large_depth import RECIPE as DEPTH

STEMS: dict[str, tuple[Operator, float]] = {
    "vanilla": ("vanilla", 0.0),
    "cdc_st_0.6": ("cdc-st", 0.6),
    "cdc_t_0.6": ("cdc-t", 0.6),
    "cdc_st_0.8": ("cdc-st", 0.8),
    "cdc_t_0.8": ("cdc-t", 0.8),
}

RECIPES = {
    f"{modality}_{stem}": replace(recipe, model=replace(MFST_LARGE, stem_operator=operator, stem_theta=theta))
    for modality, recipe in (("rgb", RGB), ("depth", DEPTH))
    for stem, (operator, theta) in STEMS.items()
}

"""Table 2.6: MFST with one temporal scale (V-Trans) and three (WMS-Trans); NTU RGB+D 60. Not trained yet.

    kinema train table_2_6/rgb_v_trans --data.manifest ntu60_cross_subject.csv

Printed, cross-subject, RGB and depth in percent: V-Trans 91.0, 92.2; WMS-Trans 92.1, 93.8. Both have the same number of
parameters.
"""

from dataclasses import replace

from kinema.models.mfst import MFST_LARGE, MFST_LARGE_DEPTH
from kinema.recipes.ntu60_mfst_large import RECIPE as RGB
from kinema.recipes.ntu60_mfst_large_depth import RECIPE as DEPTH

RECIPES = {
    "rgb_v_trans": replace(RGB, model=replace(MFST_LARGE, temporal_scales=(1,))),
    "depth_v_trans": replace(DEPTH, model=replace(MFST_LARGE_DEPTH, temporal_scales=(1,))),
    "rgb_wms_trans": RGB,
    "depth_wms_trans": DEPTH,
}

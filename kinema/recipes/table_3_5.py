"""Table 3.5: Top-K pooling of RPE-STDT without relative position; UCF-101. Not trained yet.

    kinema train table_3_5/absolute_top_k --data.manifest ucf101_1.csv --init hf:google/vit-base-patch16-224-in21k

Printed: baseline 96.5 %, with Top-K 97.0 %. "Without RPE" may mean absolute position or no position; both are here.
Without position, the temporal encoder does not know the order of the frames.
"""

from dataclasses import replace

from kinema.models.rpe_stdt import RPE_STDT_BASE12
from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as UCF101

ABSOLUTE = replace(RPE_STDT_BASE12, position="absolute")
NONE = replace(RPE_STDT_BASE12, position="none")

RECIPES = {
    "absolute": replace(UCF101, model=replace(ABSOLUTE, pool="none")),
    "absolute_top_k": replace(UCF101, model=ABSOLUTE),
    "none": replace(UCF101, model=replace(NONE, pool="none")),
    "none_top_k": replace(UCF101, model=NONE),
}

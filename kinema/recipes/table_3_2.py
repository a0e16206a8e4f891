"""Table 3.2: mapping of offsets to clusters in RPE-STDT, clipped or sectioned; HMDB-51, UCF-101. Not trained yet.

    kinema train table_3_2/hmdb51_clip --data.manifest hmdb51_1.csv --init hf:google/vit-base-patch16-224-in21k

Printed, HMDB-51 and UCF-101 in percent: clip 78.6, 97.2; sectioned 79.3, 97.7. Both have 50 clusters.
"""

from dataclasses import replace

from kinema.models.rpe_stdt import RPE_STDT_BASE12, MappingFunction
from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as BASE  # the same for HMDB-51

FUNCTIONS: tuple[MappingFunction, ...] = ("clip", "sectioned")

RECIPES = {
    f"{dataset}_{function}": replace(BASE, model=replace(RPE_STDT_BASE12, position_function=function))
    for dataset in ("hmdb51", "ucf101")
    for function in FUNCTIONS
}

"""Table 3.2: from an offset to a cluster, by the sectioned function or by cutting off; HMDB-51, UCF-101. Not run.

kinema train table_3_2/hmdb51_clip --data.manifest hmdb51_1.csv --init vit_b_16.safetensors

Printed, HMDB-51 and UCF-101 in percent: clip 78.6, 97.2; sectioned 79.3, 97.7. Both have 50 clusters.
"""

from dataclasses import replace

from kinema.models.rpe_stdt import RPE_STDT_BASE12, MappingFunction
from kinema.recipes.hmdb51_rpe_stdt_base12 import RECIPE as HMDB51
from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as UCF101

DATASETS = {"hmdb51": HMDB51, "ucf101": UCF101}
FUNCTIONS: tuple[MappingFunction, ...] = ("clip", "sectioned")

RECIPES = {
    f"{dataset}_{function}": replace(recipe, model=replace(RPE_STDT_BASE12, position_function=function))
    for dataset, recipe in DATASETS.items()
    for function in FUNCTIONS
}

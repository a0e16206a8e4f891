"""Table 3.1: position in RPE-STDT; UCF-101, HMDB-51, Diving48. Not run.

kinema train table_3_1/hmdb51_shared --data.manifest hmdb51_1.csv --init vit_b_16.safetensors

Printed, UCF-101, HMDB-51, Diving48 in percent: absolute 96.26, 78.08, 79.82; relative, shared by the attention heads
97.53, 79.12, 81.60; one table for each 97.61, 79.25, 81.82. `none` is a control that the table lacks.
"""

from dataclasses import replace

from kinema.models.rpe_stdt import RPE_STDT_BASE12, Position
from kinema.recipes.diving48_rpe_stdt_base12 import RECIPE as DIVING48
from kinema.recipes.hmdb51_rpe_stdt_base12 import RECIPE as HMDB51
from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as UCF101

DATASETS = {"ucf101": UCF101, "hmdb51": HMDB51, "diving48": DIVING48}
POSITIONS: dict[str, Position] = {
    "absolute": "absolute",
    "shared": "shared",
    "per_head": "per-head",
    "none": "none",
}

RECIPES = {
    f"{dataset}_{name}": replace(recipe, model=replace(RPE_STDT_BASE12, position=position))
    for dataset, recipe in DATASETS.items()
    for name, position in POSITIONS.items()
}

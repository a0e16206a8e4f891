"""Table 4.6: the kernel and BatchNorm of the convolutional mapping; EPIC-Kitchens-100 and Diving48. Not run.

kinema train table_4_6/diving48_3_batch --data.manifest diving48_v2.csv --init vit_b_16.safetensors

Printed, actions of EPIC-Kitchens and Diving48 in percent: 3 x 3 43.1, 75.8, with BatchNorm 45.9, 78.2; 5 x 5 43.6,
76.1, with BatchNorm 45.6, 77.7. The text promises strides, too; the table has none.
"""

from dataclasses import replace

from kinema.models.ctn import CTN_BASE
from kinema.recipes.diving48_ctn_base import RECIPE as DIVING48
from kinema.recipes.epic_kitchens_ctn_base import RECIPE as EPIC_KITCHENS

MAPPINGS = {
    "3_none": replace(CTN_BASE, mapping_kernel=3, mapping_norm="none"),
    "3_batch": CTN_BASE,
    "5_none": replace(CTN_BASE, mapping_kernel=5, mapping_norm="none"),
    "5_batch": replace(CTN_BASE, mapping_kernel=5),
}

DATASETS = {"epic_kitchens": EPIC_KITCHENS, "diving48": DIVING48}
RECIPES = {
    f"{dataset}_{mapping}": replace(recipe, model=network)
    for dataset, recipe in DATASETS.items()
    for mapping, network in MAPPINGS.items()
}

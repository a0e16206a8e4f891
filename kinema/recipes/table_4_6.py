"""Table 4.6: kernel and BatchNorm of CTN's convolutional mapping; EPIC-KITCHENS-100, Diving48. Not trained yet.

    kinema train table_4_6/diving48_3_batch --data.manifest diving48_v2.csv --init hf:google/vit-base-patch16-224-in21k

Printed, actions of EPIC-KITCHENS and Diving48 in percent: 3 x 3 43.1, 75.8, with BatchNorm 45.9, 78.2; 5 x 5 43.6,
76.1, with BatchNorm 45.6, 77.7. The text announces strides as well; the table has none.
"""

from dataclasses import replace

from kinema.models.ctn import CTN_BASE
from kinema.recipes.diving48_ctn_base import RECIPE as DIVING48
from kinema.recipes.epic_kitchens_ctn_base import RECIPE as EPIC_KITCHENS

MAPPINGS = {
    f"{kernel}_{norm}": replace(CTN_BASE, mapping_kernel=kernel, mapping_norm=norm)
    for kernel in (3, 5)
    for norm in ("none", "batch")
}

RECIPES = {
    f"{dataset}_{mapping}": replace(recipe, model=network)
    for dataset, recipe in {"epic_kitchens": EPIC_KITCHENS, "diving48": DIVING48}.items()
    for mapping, network in MAPPINGS.items()
}

r"""Table 4.4: stem of CTN's video-to-tokens; EPIC-KITCHENS-100, Diving48. Not trained yet.

    kinema train table_4_4/diving48_7_max_batch --data.manifest diving48_v2.csv \
        --init hf:google/vit-base-patch16-224-in21k

Printed, actions of EPIC-KITCHENS and Diving48 in percent:

    7 x 7 x 7, stride 4, 64 channels                          41.9  75.6
    5 x 5 x 5, stride 4, 64 channels                          41.6  75.2
    7 x 7 x 7, stride 2, 32 channels, max pooling             43.6  76.2
    7 x 7 x 7, stride 2, 32 channels, max pooling, BatchNorm  45.9  78.2
"""

from dataclasses import replace

from kinema.models.ctn import CTN_BASE
from kinema.recipes.diving48_ctn_base import RECIPE as DIVING48
from kinema.recipes.epic_kitchens_ctn_base import RECIPE as EPIC_KITCHENS

STRIDE_4 = replace(CTN_BASE, stem_channels=64, stem_pool="none", stem_norm="none")
STEMS = {
    "7_none_none": replace(STRIDE_4, stem_kernel=7),
    "5_none_none": replace(STRIDE_4, stem_kernel=5),
    "7_max_none": replace(CTN_BASE, stem_norm="none"),
    "7_max_batch": CTN_BASE,
}

RECIPES = {
    f"{dataset}_{stem}": replace(recipe, model=network)
    for dataset, recipe in {"epic_kitchens": EPIC_KITCHENS, "diving48": DIVING48}.items()
    for stem, network in STEMS.items()
}

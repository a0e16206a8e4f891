"""Table 4.4: the stem of video-to-tokens; EPIC-Kitchens-100 and Diving48. Not run.

kinema train table_4_4/diving48_7_max_batch --data.manifest diving48_v2.csv --init vit_b_16.safetensors

Printed, actions of EPIC-Kitchens and Diving48 in percent: a kernel of 7 x 7 x 7, stride 4, 64 channels, without pooling
and BatchNorm 41.9, 75.6; the same of 5 x 5 x 5 41.6, 75.2; 7 x 7 x 7, stride 2, 32 channels, with pooling 43.6, 76.2;
and with BatchNorm 45.9, 78.2.
"""

from dataclasses import replace

from kinema.models.ctn import CTN_BASE
from kinema.recipes.diving48_ctn_base import RECIPE as DIVING48
from kinema.recipes.epic_kitchens_ctn_base import RECIPE as EPIC_KITCHENS

STEMS = {
    "7_none_none": replace(CTN_BASE, stem_kernel=7, stem_channels=64, stem_pool="none", stem_norm="none"),
    "5_none_none": replace(CTN_BASE, stem_kernel=5, stem_channels=64, stem_pool="none", stem_norm="none"),
    "7_max_none": replace(CTN_BASE, stem_norm="none"),
    "7_max_batch": CTN_BASE,
}

DATASETS = {"epic_kitchens": EPIC_KITCHENS, "diving48": DIVING48}
RECIPES = {
    f"{dataset}_{stem}": replace(recipe, model=network)
    for dataset, recipe in DATASETS.items()
    for stem, network in STEMS.items()
}

"""Table 4.5: linear or convolutional queries, keys and values in CTN; EPIC-KITCHENS-100, Diving48. Not trained yet.

    kinema train table_4_5/diving48_linear --data.manifest diving48_v2.csv --init hf:google/vit-base-patch16-224-in21k

Printed, actions of EPIC-KITCHENS and Diving48 in percent: linear 44.1, 77.3; convolution 45.9, 78.2. The text of
section 4.4.3 gives 43.1 and 75.8 for linear, which is the row of Table 4.6 without BatchNorm.
"""

from dataclasses import replace

from kinema.models.ctn import CTN_BASE
from kinema.recipes.diving48_ctn_base import RECIPE as DIVING48
from kinema.recipes.epic_kitchens_ctn_base import RECIPE as EPIC_KITCHENS

RECIPES = {
    f"{dataset}_{mapping}": replace(recipe, model=network)
    for dataset, recipe in {"epic_kitchens": EPIC_KITCHENS, "diving48": DIVING48}.items()
    for mapping, network in {"linear": replace(CTN_BASE, mapping="linear"), "convolution": CTN_BASE}.items()
}

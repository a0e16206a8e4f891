"""Figure 3.4: the number of clusters; UCF-101, HMDB-51, Diving48. Not run.

kinema train figure_3_4/hmdb51_26 --data.manifest hmdb51_1.csv --init vit_b_16.safetensors

The figure's numbers are not printed; the text says that nothing is gained beyond 50 clusters.
"""

from dataclasses import replace

from kinema.models.rpe_stdt import RPE_STDT_BASE12
from kinema.recipes.diving48_rpe_stdt_base12 import RECIPE as DIVING48
from kinema.recipes.hmdb51_rpe_stdt_base12 import RECIPE as HMDB51
from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as UCF101

DATASETS = {"ucf101": UCF101, "hmdb51": HMDB51, "diving48": DIVING48}
COUNTS = (10, 26, 50, 82, 122, 170)

RECIPES = {
    f"{dataset}_{count}": replace(recipe, model=replace(RPE_STDT_BASE12, clusters=count))
    for dataset, recipe in DATASETS.items()
    for count in COUNTS
}

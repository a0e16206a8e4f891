"""Figure 3.4: number of clusters in RPE-STDT; UCF-101, HMDB-51, Diving48. Not trained yet.

    kinema train figure_3_4/hmdb51_26 --data.manifest hmdb51_1.csv --init hf:google/vit-base-patch16-224-in21k

The thesis does not print the values; its text states no gain beyond 50 clusters.
"""

from dataclasses import replace

from kinema.models.rpe_stdt import RPE_STDT_BASE12
from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as BASE  # the same for HMDB-51 and Diving48

RECIPES = {
    f"{dataset}_{count}": replace(BASE, model=replace(RPE_STDT_BASE12, clusters=count))
    for dataset in ("ucf101", "hmdb51", "diving48")
    for count in (10, 26, 50, 82, 122, 170)
}

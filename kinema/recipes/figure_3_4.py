"""Figure 3.4: the number of clusters; UCF-101, HMDB-51, Diving48. Not run.

kinema train figure_3_4/hmdb51_26 --data.manifest hmdb51_1.csv --init vit_b_16.safetensors

The figure's numbers are not printed; the text says that nothing is gained beyond 50 clusters.
"""

from dataclasses import replace

from kinema.models.rpe_stdt import RPE_STDT_BASE12
from kinema.training.recipe import load_recipe

CORPORA = ("ucf101", "hmdb51", "diving48")
COUNTS = (10, 26, 50, 82, 122, 170)

RECIPES = {
    f"{corpus}_{count}": replace(
        load_recipe(f"{corpus}_rpe_stdt_base12"), model=replace(RPE_STDT_BASE12, clusters=count)
    )
    for corpus in CORPORA
    for count in COUNTS
}

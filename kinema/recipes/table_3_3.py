"""Table 3.3: spatial attention alone against RPE-STDT; HMDB-51, UCF-101, Diving48. Not run.

kinema train table_3_3/hmdb51_vit --data.manifest hmdb51_1.csv --init vit_b_16.safetensors

Printed, HMDB-51, UCF-101, Diving48 in percent: ViT 75.6, 95.5, 78.5, at 269 G; RPE-STDT 79.3, 97.6, 81.8, at 273 G.
"""

from dataclasses import replace

from kinema.models.registry import ModelConfig
from kinema.models.rpe_stdt import RPE_STDT_BASE12
from kinema.models.vit_spatial import VIT_BASE_SPATIAL
from kinema.recipes.diving48_rpe_stdt_base12 import RECIPE as DIVING48
from kinema.recipes.hmdb51_rpe_stdt_base12 import RECIPE as HMDB51
from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as UCF101

DATASETS = {"hmdb51": HMDB51, "ucf101": UCF101, "diving48": DIVING48}
NETWORKS: dict[str, ModelConfig] = {"vit": VIT_BASE_SPATIAL, "rpe_stdt": RPE_STDT_BASE12}

RECIPES = {
    f"{dataset}_{name}": replace(recipe, model=network)
    for dataset, recipe in DATASETS.items()
    for name, network in NETWORKS.items()
}

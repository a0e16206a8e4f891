"""Table 3.3: spatial attention alone against RPE-STDT; HMDB-51, UCF-101, Diving48. Not run.

kinema train table_3_3/hmdb51_vit --data.manifest hmdb51_1.csv --init vit_b_16.safetensors

Printed, HMDB-51, UCF-101, Diving48 in percent: ViT 75.6, 95.5, 78.5, at 269 G; RPE-STDT 79.3, 97.6, 81.8, at 273 G.
"""

from dataclasses import replace

from kinema.models.registry import ModelConfig
from kinema.models.rpe_stdt import RPE_STDT_BASE12
from kinema.models.vit_spatial import VIT_BASE_SPATIAL
from kinema.training.recipe import load_recipe

CORPORA = ("hmdb51", "ucf101", "diving48")
NETWORKS: dict[str, ModelConfig] = {"vit": VIT_BASE_SPATIAL, "rpe_stdt": RPE_STDT_BASE12}

RECIPES = {
    f"{corpus}_{name}": replace(load_recipe(f"{corpus}_rpe_stdt_base12"), model=network)
    for corpus in CORPORA
    for name, network in NETWORKS.items()
}

"""Table 3.3: spatial attention only (ViT) against RPE-STDT; HMDB-51, UCF-101, Diving48. Not trained yet.

    kinema train table_3_3/hmdb51_vit --data.manifest hmdb51_1.csv --init hf:google/vit-base-patch16-224-in21k

Printed, HMDB-51, UCF-101 and Diving48 in percent: ViT 75.6, 95.5, 78.5 (269 G); RPE-STDT 79.3, 97.6, 81.8 (273 G).
"""

from dataclasses import replace

from kinema.models.vit_spatial import VIT_BASE_SPATIAL
from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as BASE  # the same for HMDB-51 and Diving48

RECIPES = {
    f"{dataset}_{name}": recipe
    for dataset in ("ucf101", "hmdb51", "diving48")
    for name, recipe in {"vit": replace(BASE, model=VIT_BASE_SPATIAL), "rpe_stdt": BASE}.items()
}

"""Table 3.4: how frames are left out, and where; HMDB-51, UCF-101, Diving48. Not run.

kinema train table_3_4/hmdb51_top_k_1_3 --data.manifest hmdb51_1.csv --init vit_b_16.safetensors

Printed, HMDB-51, UCF-101, Diving48 in percent: max 76.2, 96.1, 78.3; average 76.3, 96.3, 78.8; convolution 78.6, 96.6,
79.0; Top-K in layers 0 and 2 78.6, 96.5, 79.7; in layers 1 and 3 79.3, 97.6, 81.8.

The first three stand where Top-K's best are. What the last layer leaves out inside is not looked at
(`kinema/models/rpe_stdt.py`); rows that end in `between` leave it out before the layer. `random`, `uniform` and `none`
are controls that the table lacks.
"""

from dataclasses import replace

from kinema.models.rpe_stdt import RPE_STDT_BASE12, Pooling
from kinema.recipes.diving48_rpe_stdt_base12 import RECIPE as DIVING48
from kinema.recipes.hmdb51_rpe_stdt_base12 import RECIPE as HMDB51
from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as UCF101

DATASETS = {"hmdb51": HMDB51, "ucf101": UCF101, "diving48": DIVING48}
POOLINGS: dict[str, tuple[Pooling, tuple[int, ...]]] = {
    "max": ("max", (1, 3)),
    "average": ("average", (1, 3)),
    "convolution": ("convolution", (1, 3)),
    "top_k_1_3": ("top-k", (1, 3)),
    "random": ("random", (1, 3)),
    "uniform": ("uniform", (1, 3)),
}
INSIDE = {
    name: replace(RPE_STDT_BASE12, pool=pool, pool_layers=layers)
    for name, (pool, layers) in {**POOLINGS, "top_k_0_2": ("top-k", (0, 2)), "none": ("none", (1, 3))}.items()
}
BETWEEN = {f"{name}_between": replace(INSIDE[name], pool_place="between") for name in POOLINGS}

RECIPES = {
    f"{dataset}_{name}": replace(recipe, model=network)
    for dataset, recipe in DATASETS.items()
    for name, network in {**INSIDE, **BETWEEN}.items()
}

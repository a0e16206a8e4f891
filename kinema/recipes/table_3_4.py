"""Table 3.4: pooling of frames in RPE-STDT, method and layers; HMDB-51, UCF-101, Diving48. Not trained yet.

    kinema train table_3_4/hmdb51_top_k_1_3 --data.manifest hmdb51_1.csv --init hf:google/vit-base-patch16-224-in21k

Printed, HMDB-51, UCF-101 and Diving48 in percent:

    max                    76.2  96.1  78.3
    average                76.3  96.3  78.8
    convolution            78.6  96.6  79.0
    Top-K, layers 0 and 2  78.6  96.5  79.7
    Top-K, layers 1 and 3  79.3  97.6  81.8

The first three pool in the best layers of Top-K. Frames dropped inside the last layer do not affect the output
(`kinema/models/rpe_stdt.py`); rows that end in `between` drop them before the layer. `random`, `uniform` and `none` are
additional controls.
"""

from dataclasses import replace

from kinema.models.rpe_stdt import RPE_STDT_BASE12, Pooling
from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as BASE  # the same for HMDB-51 and Diving48

POOLINGS: dict[str, Pooling] = {
    "max": "max",
    "average": "average",
    "convolution": "convolution",
    "top_k_1_3": "top-k",
    "random": "random",
    "uniform": "uniform",
}
INSIDE = {name: replace(RPE_STDT_BASE12, pool=pool, pool_layers=(1, 3)) for name, pool in POOLINGS.items()}
NETWORKS = {
    **INSIDE,
    "top_k_0_2": replace(RPE_STDT_BASE12, pool="top-k", pool_layers=(0, 2)),
    "none": replace(RPE_STDT_BASE12, pool="none", pool_layers=(1, 3)),
    **{f"{name}_between": replace(network, pool_place="between") for name, network in INSIDE.items()},
}

RECIPES = {
    f"{dataset}_{name}": replace(BASE, model=network)
    for dataset in ("ucf101", "hmdb51", "diving48")
    for name, network in NETWORKS.items()
}

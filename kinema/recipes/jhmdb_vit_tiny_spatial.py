"""ViT-tiny on J-HMDB, from scratch, averaged over single frames: the baseline of RPE-STDT-tiny.

    kinema train jhmdb_vit_tiny_spatial --data.manifest jhmdb.csv

Same as `jhmdb_rpe_stdt_tiny`: 13 to 19 CPU-minutes on one core.

Results, seeds 0, 1, 2 (results/jhmdb_vit_tiny_spatial_seed*.json): 12.1, 15.0, 8.1 % top-1 on the source-disjoint val
split; chance 4.8 %.
"""

from dataclasses import replace

from kinema.models.vit_spatial import VIT_TINY_SPATIAL
from kinema.recipes.jhmdb_rpe_stdt_tiny import RECIPE as BASE

RECIPE = replace(BASE, model=VIT_TINY_SPATIAL)

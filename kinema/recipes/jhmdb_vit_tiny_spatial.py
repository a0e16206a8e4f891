"""ViT-tiny on J-HMDB, from scratch, the mean of single frames: what RPE-STDT-tiny is compared with.

kinema train jhmdb_vit_tiny_spatial --data.manifest jhmdb.csv

As `jhmdb_rpe_stdt_tiny`.
"""

from dataclasses import replace

from kinema.models.zoo import VIT_TINY_SPATIAL
from kinema.training.recipe import load_recipe

RECIPE = replace(load_recipe("jhmdb_rpe_stdt_tiny"), model=VIT_TINY_SPATIAL)

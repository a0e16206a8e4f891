"""CTN-tiny on J-HMDB (21 actions, real footage), from scratch: 13 CPU-minutes, ten minutes on two idle cores.

    kinema prepare csv --root jhmdb/annotations.csv --columns rgb=path,group=source_video --out jhmdb.csv
    kinema train jhmdb_ctn_tiny --data.manifest jhmdb.csv

Results, seed 0 (results/jhmdb_ctn_tiny_seed0.json): 20.8 % top-1 on the source-disjoint val split, 99.6 % on train;
ridge regression on motion energy 13.9 %, chance 4.8 %.
"""

from dataclasses import replace

from kinema.recipes.ctn_tiny import RECIPE as TINY
from kinema.training.recipe import Checkpoint, Compute, RunSettings

RECIPE = replace(
    TINY,
    optim=replace(TINY.optim, decay="all", epochs=45),
    checkpoint=Checkpoint(keep="last"),
    compute=Compute(cpu_threads=1),
    run=RunSettings(evaluate_every_epochs=9),
)

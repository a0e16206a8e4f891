"""CTN-tiny on J-HMDB (21 actions in real footage), from scratch: 13 CPU-minutes, ten minutes on two quiet cores.

kinema prepare csv --root jhmdb/annotations.csv --columns rgb=path,group=source_video --out jhmdb.csv
kinema train jhmdb_ctn_tiny --data.manifest jhmdb.csv

Ours, seed 0 (results/jhmdb_ctn_tiny_seed0.json): 20.8 % top-1 on the source-disjoint val split, 99.6 % on train; chance
4.8 %, ridge regression on motion energy 13.9 %.
"""

from kinema.models.ctn import CTN_TINY
from kinema.training.recipe import Augmentation, Checkpoint, Clip, Compute, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=16, size=112, short_side=120),
    data=Data(
        batch_size=8,
        augmentation=Augmentation(short_side=(112, 144), flip=0.5, color_jitter=0.4, channel_shuffle=0.2),
    ),
    model=CTN_TINY,
    optim=Optim(
        optimizer="adamw",
        lr=1e-3,
        lr_start=0.0,
        weight_decay=0.5,
        decay="all",
        epochs=45,
        warmup_epochs=2,
        max_grad_norm=1.0,
        label_smoothing=0.1,
    ),
    checkpoint=Checkpoint(keep="last"),
    compute=Compute(cpu_threads=1),
    run=RunSettings(evaluate_every_epochs=9),
)

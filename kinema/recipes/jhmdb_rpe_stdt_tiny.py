"""RPE-STDT-tiny on J-HMDB (21 actions in real footage), from scratch.

kinema prepare jhmdb --root DIR --out jhmdb.csv
kinema train jhmdb_rpe_stdt_tiny --data.manifest jhmdb.csv
"""

from dataclasses import replace

from kinema.models.zoo import RPE_STDT_TINY
from kinema.training.recipe import Augmentation, Clip, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=16, size=112, short_side=120),
    data=Data(
        workers=0,
        augmentation=Augmentation(short_side=(112, 144), flip=0.5, colour_jitter=0.4, colour_shuffle=0.2),
    ),
    model=replace(RPE_STDT_TINY, frame_norm="none"),
    optim=Optim(
        optimizer="adamw",
        lr=5e-4,
        lr_start=0.0,
        weight_decay=0.05,
        epochs=30,
        warmup_epochs=5,
        clip_norm=1.0,
        label_smoothing=0.1,
    ),
    run=RunSettings(precision="bfloat16", evaluate_every_epochs=15, keep="last", cpu_threads=1),
)

"""MFST-tiny on MSR-Action3D (20 actions in depth), from scratch.

kinema prepare msr_action3d --root DIR --out msr.csv
kinema train msr_action3d_mfst_tiny --data.manifest msr.csv
"""

from kinema.models.zoo import MFST_TINY_DEPTH
from kinema.training.recipe import Augmentation, Clip, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=16, size=96, short_side=96, modalities=("depth",), subject_margin=0.1),
    data=Data(batch_size=8, workers=0, augmentation=Augmentation(short_side=(96, 114), rotation=10.0)),
    model=MFST_TINY_DEPTH,
    optim=Optim(
        optimizer="adamw",
        lr=7e-4,
        lr_start=0.0,
        weight_decay=0.05,
        epochs=80,
        warmup_epochs=5,
        clip_norm=1.0,
        label_smoothing=0.1,
    ),
    run=RunSettings(precision="bfloat16", evaluate_every_epochs=20, keep="last", cpu_threads=1),
)

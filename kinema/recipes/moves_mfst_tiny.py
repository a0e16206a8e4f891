"""MFST-tiny on the built-in moves, RGB.

    kinema train moves_mfst_tiny
    kinema train moves_mfst_tiny --data.manifest moves_cross_view

Rendered people, 15 actions. Cross-subject trains on subjects s1 to s3 and tests on s4 and s5; cross-view trains on two
cameras and tests on the third. `moves_mfst_tiny_depth` takes depth, `moves_mfst_tiny_rgbd` both. `kinema fuse` joins
two models that were trained separately.
"""

from kinema.models.mfst import MFST_TINY
from kinema.training.recipe import Augmentation, Checkpoint, Clip, Compute, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=16, size=80, short_side=80),
    data=Data(
        manifest="moves_cross_subject",
        evaluate="test",
        batch_size=8,
        workers=0,
        augmentation=Augmentation(short_side=(80, 92), flip=0.5, color_jitter=0.4, channel_shuffle=1.0),
    ),
    model=MFST_TINY,
    optim=Optim(
        optimizer="adamw",
        lr=7e-4,
        lr_start=0.0,
        weight_decay=0.05,
        epochs=30,
        warmup_epochs=3,
        max_grad_norm=1.0,
        label_smoothing=0.1,
    ),
    checkpoint=Checkpoint(keep="last"),
    compute=Compute(precision="bfloat16", cpu_threads=1),
    run=RunSettings(evaluate_every_epochs=10),
)

"""CTN-tiny on the built-in moves, cross-subject, RGB: the recipe of `kinema demo`.

    kinema train moves_ctn_tiny

Rendered people, 15 actions; learns from the bodies s1 to s3 and is asked about s4 and s5. The model is that of the
last step: choosing the best one on the only held-out bodies would flatter it.

Ours, seeds 0, 1, 2 (results/moves_ctn_tiny_seed*.json; synthetic): 88.9, 88.9, 94.4 % top-1; chance 6.7 %.
"""

from kinema.models.ctn import CTN_TINY
from kinema.training.recipe import Augmentation, Checkpoint, Clip, Compute, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=16, size=80, short_side=80),
    data=Data(
        manifest="moves_cross_subject",
        evaluate="test",
        batch_size=8,
        workers=1,
        augmentation=Augmentation(short_side=(80, 92), flip=0.5, color_jitter=0.4, channel_shuffle=1.0),
    ),
    model=CTN_TINY,
    optim=Optim(
        optimizer="adamw",
        lr=1e-3,
        lr_start=0.0,
        weight_decay=0.5,
        decay="all",
        epochs=50,
        warmup_epochs=2,
        max_grad_norm=1.0,
        label_smoothing=0.1,
    ),
    checkpoint=Checkpoint(keep="last"),
    compute=Compute(cpu_threads=1),
    run=RunSettings(evaluate_every_epochs=10),
)

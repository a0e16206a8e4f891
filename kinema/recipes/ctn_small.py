"""CTN-small on your own videos, from scratch.

    kinema train ctn_small --data.manifest mine.csv

8 frames of 224 pixels; made for a GPU, slow but right on a CPU. The stem and the start of the weights are CTN-tiny's,
without which a CTN hardly learns from little data.
"""

from dataclasses import replace

from kinema.models.ctn import CTN_SMALL
from kinema.training.recipe import Augmentation, Clip, Data, Optim, Recipe

RECIPE = Recipe(
    clip=Clip(frames=8, size=224, short_side=256),
    data=Data(augmentation=Augmentation(short_side=(256, 320), flip=0.5, color_jitter=0.4, channel_shuffle=0.2)),
    model=replace(CTN_SMALL, start="scratch", stem_activation="relu"),
    optim=Optim(
        optimizer="adamw",
        lr=5e-4,
        lr_start=0.0,
        weight_decay=0.5,
        epochs=50,
        warmup_epochs=2,
        max_grad_norm=1.0,
        label_smoothing=0.1,
    ),
)

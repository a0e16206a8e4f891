"""CTN-tiny on your own videos, from scratch, on a laptop.

kinema train ctn_tiny --data.manifest mine.csv
"""

from kinema.models.ctn import CTN_TINY
from kinema.training.recipe import Augmentation, Clip, Data, Optim, Recipe

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
        epochs=50,
        warmup_epochs=2,
        max_grad_norm=1.0,
        label_smoothing=0.1,
    ),
)

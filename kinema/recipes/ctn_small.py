"""CTN-small on your own videos, from scratch.

    kinema train ctn_small --data.manifest mine.csv

8 frames of 224 pixels; made for a GPU, slow but right on a CPU.
"""

from kinema.models.zoo import MODELS
from kinema.training.recipe import Augmentation, Clip, Data, Optim, Recipe

RECIPE = Recipe(
    clip=Clip(frames=8, size=224, short_side=256),
    data=Data(augmentation=Augmentation(short_side=(256, 320), flip=0.5, colour_jitter=0.4)),
    model=MODELS["ctn_small"].config,
    optim=Optim(optimizer="adamw", lr=5e-4, weight_decay=0.05, epochs=50, warmup_epochs=2.5, clip_norm=1.0),
)

"""CTN-tiny on your own videos, from scratch, on a laptop.

kinema train ctn_tiny --data.manifest mine.csv
"""

from kinema.models.zoo import MODELS
from kinema.training.recipe import Augmentation, Clip, Data, Optim, Recipe

RECIPE = Recipe(
    clip=Clip(frames=16, size=112, short_side=120),
    data=Data(augmentation=Augmentation(short_side=(112, 144), flip=0.5, colour_jitter=0.4)),
    model=MODELS["ctn_tiny"].config,
    optim=Optim(optimizer="adamw", lr=1e-3, weight_decay=0.05, epochs=50, warmup_epochs=2.5, clip_norm=1.0),
)

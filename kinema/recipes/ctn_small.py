"""CTN-small on your own videos, from scratch.

    kinema train ctn_small --data.manifest mine.csv

Needs a GPU to be fast; it also runs on a CPU. Uses the stem activation and initialization of CTN-tiny, without which
CTN hardly learns from small datasets.
"""

from dataclasses import replace

from kinema.models.ctn import CTN_SMALL
from kinema.recipes.ctn_tiny import RECIPE as TINY
from kinema.training.recipe import Augmentation, Clip, Data

RECIPE = replace(
    TINY,
    clip=Clip(frames=8, size=224, short_side=256),
    data=Data(augmentation=Augmentation(short_side=(256, 320), flip=0.5, color_jitter=0.4, channel_shuffle=0.2)),
    model=replace(CTN_SMALL, start="scratch", stem_activation="relu"),
    optim=replace(TINY.optim, lr=5e-4),
)

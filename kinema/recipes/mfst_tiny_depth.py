"""MFST-tiny on your own depth videos, from scratch, on a laptop.

    kinema prepare folder --root depth --depth '{label}/{name}.mkv' --depth-range 500 4500 --out mine.csv
    kinema train mfst_tiny_depth --data.manifest mine.csv

Depth is one channel. `--clip.subject-margin 0.1` crops to the person where depth is masked (`--depth-coverage masked`).

Ours: the settings of `moves_mfst_tiny_depth`, at the size that was best of 64, 96 and 128 pixels on MSR-Action3D. They
were not tuned for other data.
"""

from dataclasses import replace

from kinema.recipes.moves_mfst_tiny_depth import RECIPE as MOVES
from kinema.training.recipe import Augmentation, Clip, Data, Recipe

RECIPE = Recipe(
    clip=Clip(frames=16, size=96, short_side=96, modalities=("depth",)),
    data=Data(batch_size=8, augmentation=Augmentation(short_side=(96, 112), flip=0.5)),
    model=MOVES.model,
    optim=replace(MOVES.optim, epochs=50),
)

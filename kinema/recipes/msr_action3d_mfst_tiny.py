"""MFST-tiny on MSR-Action3D (20 actions, depth), from scratch: 33 CPU-minutes on one core.

    kinema prepare msr_action3d --root DIR --out msr.csv
    kinema train msr_action3d_mfst_tiny --data.manifest msr.csv

All settings but the length were chosen on two of the training split's subjects (113 clips), training on the rest, one
seed each: 16 frames of 96 pixels, cropped to the person, 60 epochs, 75.2 %; 64 pixels 63.7; 128 pixels 64.6; 32 frames
in the same time 69.0; MixUp 71.7; averaged weights 69.0; JET colors 43.4; batch size 4 at most 69.9. Differences below
10 points mean little.

Results, seeds 0, 1, 2 (results/msr_action3d_mfst_tiny_seed*.json): 92.9, 94.2, 93.5 % top-1 on the val subjects; the
mean is 11.0 points above ridge regression on motion energy (82.5 %), 95 % interval over clips 5.4 to 17.1; chance 5 %.
Half as many epochs: 90.9, 92.9, 92.9 % (results/msr_action3d_mfst_tiny_80_passes_seed*.json).
"""

from dataclasses import replace

from kinema.models.mfst import MFST_TINY_DEPTH
from kinema.recipes.msr_action3d_ctn_small import RECIPE as CTN
from kinema.training.recipe import RunSettings

RECIPE = replace(
    CTN,
    clip=replace(CTN.clip, frames=16, size=96, short_side=96),
    data=replace(CTN.data, augmentation=replace(CTN.data.augmentation, short_side=(96, 114))),
    model=MFST_TINY_DEPTH,
    optim=replace(CTN.optim, epochs=160),
    run=RunSettings(evaluate_every_epochs=40),
)

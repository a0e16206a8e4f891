"""CTN-tiny on the built-in moves, RGB, cross-subject: the recipe of `kinema demo`.

    kinema train moves_ctn_tiny

Rendered people, 15 actions; subjects s1 to s3 for training, s4 and s5 for testing. Ships the weights of the last step:
choosing the best ones on the test subjects would flatter them.

Results, seeds 0, 1, 2 (results/moves_ctn_tiny_seed*.json; synthetic): 88.9, 88.9, 94.4 % top-1; chance 6.7 %.
"""

from dataclasses import replace

from kinema.recipes.ctn_tiny import RECIPE as TINY
from kinema.training.recipe import Augmentation, Checkpoint, Clip, Compute, Data, RunSettings

RECIPE = replace(
    TINY,
    clip=Clip(frames=16, size=80, short_side=80),
    data=Data(
        manifest="moves_cross_subject",
        evaluate="test",
        batch_size=8,
        augmentation=Augmentation(short_side=(80, 92), flip=0.5, color_jitter=0.4, channel_shuffle=1.0),
    ),
    optim=replace(TINY.optim, decay="all"),
    checkpoint=Checkpoint(keep="last"),
    compute=Compute(cpu_threads=1),
    run=RunSettings(evaluate_every_epochs=10),
)

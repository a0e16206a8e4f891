"""CTN on Diving48 (Table 4.7: 78.2 %). Not run.

kinema prepare diving48 --root DIVING --out diving48_v2.csv
kinema train diving48_ctn_base --data.manifest diving48_v2.csv --init vit_b_16.safetensors

The thesis says: 8 frames of 224 x 224; random crops, mirroring, jittered colors; SGD with a momentum of 0.9, a rate of
0.005, batches of 16, 2.5 passes of linear warm-up, a cosine, 100 passes (Table 4.2); weights of ImageNet; version 2 of
the labels.

It leaves open what stands here: a frame of each eighth of the clip; the shorter side between 256 and 320, and 256 at
test time; colors by up to 0.4; no weight decay; one view, the middle. Values of (x - 0.5) / 0.5 suit ImageNet-21k
weights. Gradients cut at a norm of 1 and bfloat16 are ours. The stem is the one that is printed: 8 frames leave one
token time. Rows of Table 4.3 that end in `dense` keep four.
"""

from kinema.models.ctn import CTN_BASE
from kinema.training.recipe import Augmentation, Checkpoint, Clip, Compute, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=8, size=224, short_side=256),
    data=Data(
        evaluate="test",
        workers=8,
        augmentation=Augmentation(short_side=(256, 320), flip=0.5, color_jitter=0.4),
    ),
    model=CTN_BASE,
    optim=Optim(optimizer="sgd", lr=0.005, epochs=100, warmup_epochs=2.5, max_grad_norm=1.0),
    checkpoint=Checkpoint(keep="last"),
    compute=Compute(precision="bfloat16"),
    run=RunSettings(evaluate_every_epochs=5),
)

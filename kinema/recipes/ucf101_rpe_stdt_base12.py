"""RPE-STDT of 12 + 4 layers on UCF-101, split 1 (Table 3.6: 97.6 %). Not run.

kinema prepare ucf101 --root UCF --out ucf101_1.csv
kinema train ucf101_rpe_stdt_base12 --data.manifest ucf101_1.csv --init vit_b_16.safetensors

Table 3.6 is of split 1 alone. For splits 2 and 3: `kinema prepare ucf101 --root UCF --split 2 --out ucf101_2.csv`, and
the same training on that manifest.

The thesis says: 16 frames at equal distances, at most 32 apart; the shorter side between 256 and 320, 224 x 224 of it,
the middle at test time; half of the clips mirrored; SGD with a momentum of 0.9, linear warm-up, a cosine, 100 passes;
ViT-B's weights in space, and a temporal encoder from scratch.

It leaves open what stands here after the thesis's chapter 4: a rate of 0.005, batches of 16, 2.5 passes of warm-up, no
weight decay. Values of (x - 0.5) / 0.5 suit ImageNet-21k weights. Gradients cut at a norm of 1 and bfloat16 are ours.
Of its two sizes, this is the one that its tables have (`kinema/models/rpe_stdt.py`).
"""

from kinema.models.rpe_stdt import RPE_STDT_BASE12
from kinema.training.recipe import Augmentation, Checkpoint, Clip, Compute, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=16, size=224, short_side=256, sampling="uniform", interval=32),
    data=Data(evaluate="test", workers=8, augmentation=Augmentation(short_side=(256, 320), flip=0.5)),
    model=RPE_STDT_BASE12,
    optim=Optim(optimizer="sgd", lr=0.005, epochs=100, warmup_epochs=2.5, max_grad_norm=1.0),
    checkpoint=Checkpoint(keep="last"),
    compute=Compute(precision="bfloat16"),
    run=RunSettings(evaluate_every_epochs=5),
)

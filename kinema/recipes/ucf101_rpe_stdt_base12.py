"""RPE-STDT with 12 + 4 layers on UCF-101, split 1 (Table 3.6: 97.6 % top-1). Not trained yet.

    kinema prepare ucf101 --root UCF --out ucf101_1.csv
    kinema train ucf101_rpe_stdt_base12 --data.manifest ucf101_1.csv --init vit_b_16.safetensors

Table 3.6 covers split 1 only. For splits 2 and 3, prepare with `--split 2 --out ucf101_2.csv` and train on that
manifest.

From the thesis: 16 evenly spaced frames, at most 32 apart; shorter side 256 to 320, random 224 x 224 crops, center crop
at test time; mirroring of half of the clips; SGD, momentum 0.9, linear warm-up, cosine decay, 100 epochs; ViT-B weights
in the spatial encoder, temporal encoder from scratch. Of its two sizes, this is the one in its tables
(`kinema/models/rpe_stdt.py`).

Not in the thesis, taken from its chapter 4: learning rate 0.005, batch size 16, 2.5 warm-up epochs, no weight decay.
Mean and standard deviation 0.5 suit ImageNet-21k weights. Gradient clipping at norm 1 and bfloat16 are ours.
"""

from dataclasses import replace

from kinema.models.rpe_stdt import RPE_STDT_BASE12
from kinema.recipes.diving48_ctn_base import RECIPE as CTN
from kinema.training.recipe import Augmentation, Clip, Data

RECIPE = replace(
    CTN,
    clip=Clip(frames=16, size=224, short_side=256, sampling="uniform", interval=32),
    data=Data(evaluate="test", workers=8, augmentation=Augmentation(short_side=(256, 320), flip=0.5)),
    model=RPE_STDT_BASE12,
)

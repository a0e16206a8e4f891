"""RPE-STDT with 12 + 4 layers on UCF-101, split 1 (Table 3.6: 97.6 % top-1). Not trained yet.

    kinema prepare ucf101 --root UCF --out ucf101_1.csv
    kinema train ucf101_rpe_stdt_base12 --data.manifest ucf101_1.csv --init hf:google/vit-base-patch16-224-in21k

Table 3.6 covers split 1 only. For splits 2 and 3, prepare with `--split 2 --out ucf101_2.csv` and train on that
manifest.

From the thesis (section 3.4.2): frames sampled uniformly with intervals set to 32; sides of 256 to 320, random
224 x 224 crops, center crop at test time; mirroring of half of the clips; SGD, momentum 0.9, linear warm-up, cosine
decay, 100 epochs; ViT-B weights in the spatial encoder, temporal encoder from scratch. 16 frames and ImageNet are in
Table 3.6. Of the two sizes, this is the one in the tables (`kinema/models/rpe_stdt.py`).

Not in chapter 3, from its sister network (Table 4.2): learning rate 0.005, batch size 16, 2.5 warm-up epochs.

Ours: intervals shrink where a video has fewer than 481 frames (`uniform_indices`), the shorter side is the one that is
resized, no weight decay, gradient clipping at norm 1, bfloat16, mean and standard deviation 0.5, which suit
ImageNet-21k weights. Without `--init` the network starts from random weights, which is not the thesis's setting.
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

"""MFST-Large on NTU RGB+D 60, RGB, cross-subject (Table 2.1: 92.1 % top-1). Not trained yet.

    kinema prepare ntu60 --root DIR --out ntu60_cross_subject.csv
    kinema train ntu60_mfst_large --data.manifest ntu60_cross_subject.csv

For cross-view (Table 2.1: 95.8 %), prepare with `--split cross_view --out ntu60_cross_view.csv`.

From the thesis (section 2.4.1, Table 2.3): 32 frames; random crops of 224 x 224, center crops at test time; SGD,
momentum 0.9, learning rate 0.01 after 3 epochs of linear warm-up, cosine decay, 100 epochs, weight decay 3e-4; MixUp;
4 GPUs. No initial weights are named.

Not in the thesis, from public code (UMDR; De+Recouple is alike): one frame from each of 32 equal parts of the video,
the middle one at test time; 640 x 480 around the person, halved to frames of 320 x 240; mirroring; rotation of every
second clip by up to 10 degrees; 16 clips per GPU; normalization (x - 127.5) / 128; MixUp alpha 0.8; label smoothing
0.1; gradient clipping at norm 5; learning rates at the start and the end; one clip per video at test time. That code
also drops videos of 16 frames or fewer, from the test split too; here all are kept.

Ours: bfloat16, and one box per video: `prepare` finds the person in masked depth and crops 640 x 480 of 1920 x 1080.
UMDR's page says 640 x 480 as well; its code cuts 960 x 540, anew in every frame. Without masked depth the whole frame
is used, at 427 x 240.
"""

from kinema.models.mfst import MFST_LARGE
from kinema.training.recipe import Augmentation, Checkpoint, Clip, Compute, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=32, size=224, short_side=240, std=(128 / 255, 128 / 255, 128 / 255)),
    data=Data(
        evaluate="test",
        batch_size=64,
        workers=8,
        augmentation=Augmentation(flip=0.5, rotation=10.0, mixup_alpha=0.8),
    ),
    model=MFST_LARGE,
    optim=Optim(
        optimizer="sgd",
        lr=0.01,
        lr_start=1e-4,
        lr_end=1e-3,
        weight_decay=3e-4,
        decay="all",
        epochs=100,
        warmup_epochs=3,
        max_grad_norm=5.0,
        label_smoothing=0.1,
    ),
    checkpoint=Checkpoint(keep="last"),
    compute=Compute(precision="bfloat16"),
    run=RunSettings(evaluate_every_epochs=5),
)

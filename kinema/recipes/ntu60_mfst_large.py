"""MFST-Large on NTU RGB+D 60, RGB, cross-subject (Table 2.1: 92.1 % top-1). Not trained yet.

    kinema prepare ntu60 --root DIR --out ntu60_cross_subject.csv
    kinema train ntu60_mfst_large --data.manifest ntu60_cross_subject.csv

For cross-view (Table 2.1: 95.8 %), prepare with `--split cross_view --out ntu60_cross_view.csv`.

From the thesis: 32 frames, one from each of 32 equal parts of the video; frames of 320 x 240, cropped to 224 x 224;
mirroring and rotation by up to 10 degrees; SGD, learning rate 0.01 after 3 warm-up epochs, cosine decay, 100 epochs,
weight decay 3e-4, 16 clips on each of 4 GPUs, MixUp; no initial weights.

`prepare` crops 640 x 480 of 1920 x 1080 around the person found in masked depth; the short side of 240 halves that.
Without masked depth the whole frame is used, at 427 x 240, unlike the thesis.

Not in the thesis, taken from public code of the same authors: normalization (x - 127.5) / 128, MixUp alpha 0.8, label
smoothing 0.1, gradient clipping at norm 5, learning rates at the start and the end, rotation of every second clip, one
center view at test time. bfloat16 is ours.
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

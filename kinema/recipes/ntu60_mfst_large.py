"""MFST-Large on NTU RGB+D 60, RGB, cross-subject (Table 2.1: 92.1 %). Not run.

kinema prepare ntu60 --root DIR --out ntu60_cross_subject.csv
kinema train ntu60_mfst_large --data.manifest ntu60_cross_subject.csv

Cross-view (Table 2.1: 95.8 %) is the same with another manifest: `--split cross_view --out ntu60_cross_view.csv`.

The thesis says: 32 frames, one from each of 32 equal parts of the video; pictures of 320 x 240, of which 224 x 224;
flips and turns of up to 10 degrees; SGD, a rate of 0.01 after 3 passes of warm-up, half a cosine, 100 passes, weight
decay 3e-4, 16 clips on each of 4 GPUs, MixUp.

The picture of 320 x 240 is what `prepare` cuts about the person whom masked depth shows, 640 x 480 of 1920 x 1080, and
the short side of 240 halves; without masked depth it is the whole picture, of 427 x 240 then, and not the thesis's.

It leaves open what stands here after public code of the same authors: values of (x - 127.5) / 128, MixUp's alpha 0.8, a
share of 0.1 smoothed, gradients cut at a norm of 5, where the rate begins and ends, every second clip turned, one view
in the middle at test time. The network learns from scratch. bfloat16 is ours.
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

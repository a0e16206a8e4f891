"""CTN-Base on Diving48 (Table 4.7: 78.2 % top-1). Not trained yet.

    kinema prepare diving48 --root DIVING --out diving48_v2.csv
    kinema train diving48_ctn_base --data.manifest diving48_v2.csv --init hf:google/vit-base-patch16-224-in21k

From the thesis (section 4.4.1, Table 4.2): 8 frames of 224 x 224; random crops, mirroring and color jitter; SGD,
momentum 0.9, learning rate 0.005, batch size 16, linear warm-up of 2.5 epochs, cosine decay, 100 epochs; ImageNet
weights; labels V2 (section 4.4.2).

Ours, since the chapter is silent: one frame from each eighth of the clip; mirroring of half of the clips; shorter side
256 to 320 (256 at test time); color jitter 0.4; no weight decay; one center view; mean and standard deviation 0.5,
which suit ImageNet-21k weights; gradient clipping at norm 1; bfloat16. Without `--init` the network starts from random
weights, which is not the thesis's setting.

The stem is the printed one: 8 frames leave one token in time. The rows of Table 4.3 that end in `dense` keep four.
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

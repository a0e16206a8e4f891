"""CTN-tiny on J-HMDB (21 actions in real footage), from scratch: ten minutes on two cores.

kinema prepare csv --root jhmdb/annotations.csv --columns rgb=path,group=source_video --out jhmdb.csv
kinema train jhmdb_ctn_tiny --data.manifest jhmdb.csv
"""

from kinema.models.zoo import MODELS
from kinema.training.recipe import Augmentation, Clip, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=16, size=112, short_side=120),
    data=Data(
        batch_size=16,
        augmentation=Augmentation(short_side=(112, 144), flip=0.5, colour_jitter=0.4),
    ),
    model=MODELS["ctn_tiny"].config,
    optim=Optim(optimizer="adamw", lr=1e-3, weight_decay=0.05, epochs=30, warmup_epochs=3, clip_norm=1.0),
    run=RunSettings(evaluate_every_epochs=10, keep="last"),
)

"""MFST-Large on ChaLearn IsoGD, RGB, starting from NTU RGB+D weights (Table 2.2: 61.26 % top-1). Not trained yet.

    kinema prepare isogd --root IsoGD --out isogd.csv
    kinema train isogd_mfst_large --data.manifest isogd.csv --init runs/ntu60_mfst_large

For RGB and depth fused (68.47 %, the mean of the logits of both networks), train `isogd_mfst_large_depth` too:
`kinema evaluate RUN --manifest isogd.csv --split val --fuse DEPTH_RUN`.

Same as `ntu60_mfst_large`: the thesis describes one training for both datasets (section 2.4.1), and names neither
initial weights nor the split of IsoGD. From public code (UMDR): NTU RGB+D weights, no mirroring (gestures have a side),
frames of 256, and the validation split, since the public test list has no labels. That code squeezes 320 x 240 to
256 x 256. Here the shorter side is 256 and the crop 224 x 224, so hands keep their shape. Videos shorter than 32 frames
are kept in both splits.
"""

from dataclasses import replace

from kinema.recipes.ntu60_mfst_large import RECIPE as NTU

RECIPE = replace(
    NTU,
    clip=replace(NTU.clip, short_side=256),
    data=replace(NTU.data, evaluate="val", augmentation=replace(NTU.data.augmentation, flip=0.0)),
)

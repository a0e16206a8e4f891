"""MFST-Large on ChaLearn IsoGD, RGB, from a network trained on NTU RGB+D (Table 2.2: 61.26 %). Not run.

kinema prepare isogd --root IsoGD --out isogd.csv
kinema train isogd_mfst_large --data.manifest isogd.csv --init runs/ntu60_mfst_large

Color and depth together (Table 2.2: 68.47 %) are the mean of two networks' logits, this one's and that of
`isogd_mfst_large_depth`: kinema evaluate RUN --manifest isogd.csv --split val --fuse DEPTH_RUN

The thesis says of IsoGD only the numbers of the table, and neither how it trained nor on which split. As on NTU RGB+D
(`ntu60_mfst_large`), which says what is open there; after public code of the same authors: weights of NTU RGB+D to
start from, no mirroring (gestures have a side), pictures of 256, and the validation split, since the test list that is
public has no labels. That code squeezes 320 x 240 pixels to 256 x 256; here the shorter side is 256 and 224 x 224 are
cut from it, so that hands keep their shape. Shorter videos than 32 frames stay, in training and in the evaluation.
"""

from dataclasses import replace

from kinema.recipes.ntu60_mfst_large import RECIPE as NTU

RECIPE = replace(
    NTU,
    clip=replace(NTU.clip, short_side=256),
    data=replace(NTU.data, evaluate="val", augmentation=replace(NTU.data.augmentation, flip=0.0)),
)

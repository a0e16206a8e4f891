"""Figure 2.6: confusion matrices of the base model MFST-BM and MFST-Large; NTU RGB+D 60, RGB. Not trained yet.

    kinema train figure_2_6/bm --data.manifest ntu60_cross_subject.csv
    kinema evaluate RUN --manifest ntu60_cross_subject.csv --json bm.json

MFST-BM is MFST-Large without central differences, shortcuts and time scales (section 2.4.1), 49,577,532 parameters with
60 classes. The thesis prints no number for it; its text names the pairs of actions that it confuses (section 2.4.3.5):
A010 and A034, A025 and A042, A030 and A012. Only what section 2.4.1 names is removed: k-NN attention stays.
"""

from dataclasses import replace

from kinema.models.mfst import MFST_BM
from kinema.recipes.ntu60_mfst_large import RECIPE as LARGE

RECIPES = {"bm": replace(LARGE, model=MFST_BM), "large": LARGE}

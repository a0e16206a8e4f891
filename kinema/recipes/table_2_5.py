"""Table 2.5: MFST without and with a shortcut around each stage; NTU RGB+D 60, RGB, cross-subject. Not trained yet.

    kinema train table_2_5/large_without --data.manifest ntu60_cross_subject.csv

Printed: without it Base 90.2 %, Large 91.1 %; with it 90.5 and 92.1 %.
"""

from dataclasses import replace

from kinema.models.mfst import MFST_BASE, MFST_LARGE
from kinema.recipes.ntu60_mfst_large import RECIPE as LARGE

RECIPES = {
    "base_without": replace(LARGE, model=replace(MFST_BASE, shortcut="none")),
    "large_without": replace(LARGE, model=replace(MFST_LARGE, shortcut="none")),
    "base_with": replace(LARGE, model=MFST_BASE),
    "large_with": LARGE,
}

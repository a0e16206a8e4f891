"""Table 2.3: MFST with three and four stages; NTU RGB+D 60, RGB, cross-subject. Not trained yet.

    kinema train table_2_3/base --data.manifest ntu60_cross_subject.csv

Printed: Base 90.5 %, 32.6 million parameters; Large 92.1 %, 49.7 million. Both take 32 frames.
"""

from dataclasses import replace

from kinema.models.mfst import MFST_BASE
from kinema.recipes.ntu60_mfst_large import RECIPE as LARGE

RECIPES = {"base": replace(LARGE, model=MFST_BASE), "large": LARGE}

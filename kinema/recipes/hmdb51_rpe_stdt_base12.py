"""RPE-STDT with 12 + 4 layers on HMDB-51, split 1 (Table 3.6: 79.3 % top-1). Not trained yet.

    kinema prepare hmdb51 --root HMDB --out hmdb51_1.csv
    kinema train hmdb51_rpe_stdt_base12 --data.manifest hmdb51_1.csv --init hf:google/vit-base-patch16-224-in21k

Same as `ucf101_rpe_stdt_base12`. Table 3.6 covers split 1 only. For splits 2 and 3, prepare with
`--split 2 --out hmdb51_2.csv` and train on that manifest.
"""

from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as RECIPE

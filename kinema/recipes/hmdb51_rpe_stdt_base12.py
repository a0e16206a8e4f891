"""RPE-STDT of 12 + 4 layers on HMDB-51, split 1 (Table 3.6: 79.3 %). Not run.

kinema prepare hmdb51 --root HMDB --out hmdb51_1.csv
kinema train hmdb51_rpe_stdt_base12 --data.manifest hmdb51_1.csv --init vit_b_16.safetensors

Table 3.6 is of split 1 alone. For splits 2 and 3: `kinema prepare hmdb51 --root HMDB --split 2 --out hmdb51_2.csv`, and
the same training on that manifest.

As on UCF-101 (`ucf101_rpe_stdt_base12`), which says what the thesis leaves open.
"""

from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as RECIPE

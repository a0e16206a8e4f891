"""RPE-STDT of 12 + 4 layers on HMDB-51, split 1 (Table 3.6: 79.3 %). Not run.

kinema train hmdb51_rpe_stdt_base12 --data.manifest hmdb51_1.csv --init vit_b_16.safetensors

As on UCF-101 (`ucf101_rpe_stdt_base12`), which says what the thesis leaves open.
"""

from kinema.training.recipe import load_recipe

RECIPE = load_recipe("ucf101_rpe_stdt_base12")

"""RPE-STDT of 12 + 4 layers on Diving48 (Table 3.6: 81.8 %). Not run.

kinema prepare diving48 --root DIVING --out diving48_v2.csv
kinema train diving48_rpe_stdt_base12 --data.manifest diving48_v2.csv --init vit_b_16.safetensors

As on UCF-101 (`ucf101_rpe_stdt_base12`), which says what the thesis leaves open. The thesis mirrors half of these clips
too. It says "v2", and gives the counts of V1: 16,067 and 2,337 clips; those of V2 are 15,027 and 1,970.
`kinema prepare` takes V2 where its lists are there, and every evaluation prints which it was.
"""

from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as RECIPE

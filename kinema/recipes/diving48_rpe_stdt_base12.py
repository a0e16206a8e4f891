"""RPE-STDT with 12 + 4 layers on Diving48 (Table 3.6: 81.8 % top-1). Not trained yet.

    kinema prepare diving48 --root DIVING --out diving48_v2.csv
    kinema train diving48_rpe_stdt_base12 --data.manifest diving48_v2.csv --init hf:google/vit-base-patch16-224-in21k

Same as `ucf101_rpe_stdt_base12`; section 3.4.2 mirrors half of the clips of all datasets. Section 3.4.1 states labels
V2 but gives the clip counts of V1: 16,067 and 2,337. V2 has 15,027 and 1,970. `kinema prepare` uses V2 if its lists are
in the folder, and every evaluation prints the version.
"""

from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as RECIPE

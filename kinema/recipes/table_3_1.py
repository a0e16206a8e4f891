"""Table 3.1: position encodings of RPE-STDT; UCF-101, HMDB-51, Diving48. Not trained yet.

    kinema train table_3_1/hmdb51_shared --data.manifest hmdb51_1.csv --init hf:google/vit-base-patch16-224-in21k

Printed, UCF-101, HMDB-51 and Diving48 in percent:

    absolute                            96.26  78.08  79.82
    relative, shared by all heads       97.53  79.12  81.60
    relative, one table per head        97.61  79.25  81.82

"Absolute" is learned, as in ViViT; `sinusoidal` is the other reading (text under eq. 3.1). `none` is an additional
control.
"""

from dataclasses import replace

from kinema.models.rpe_stdt import RPE_STDT_BASE12, Position
from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as BASE  # the same for HMDB-51 and Diving48

POSITIONS: tuple[Position, ...] = ("absolute", "sinusoidal", "shared", "per-head", "none")

RECIPES = {
    f"{dataset}_{position.replace('-', '_')}": replace(BASE, model=replace(RPE_STDT_BASE12, position=position))
    for dataset in ("ucf101", "hmdb51", "diving48")
    for position in POSITIONS
}

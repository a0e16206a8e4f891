"""Table 3.5: Top-K without relative position; UCF-101. Not run.

kinema train table_3_5/absolute_top_k --data.manifest ucf101_1.csv --init vit_b_16.safetensors

Printed: the baseline 96.5 %, with Top-K 97.0 %. "Without RPE" may mean the absolute position of what it starts from, or
none at all: both are here. With none, nothing tells the temporal encoder the order of the frames.
"""

from dataclasses import replace

from kinema.models.rpe_stdt import RPE_STDT_BASE12, Position
from kinema.recipes.ucf101_rpe_stdt_base12 import RECIPE as UCF101

POSITIONS: tuple[Position, ...] = ("absolute", "none")

RECIPES = {
    name: replace(UCF101, model=network)
    for position in POSITIONS
    for name, network in (
        (position, replace(RPE_STDT_BASE12, position=position, pool="none")),
        (f"{position}_top_k", replace(RPE_STDT_BASE12, position=position)),
    )
}

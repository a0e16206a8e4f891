r"""Table 4.3: token embedding and position of CTN and ViViT; EPIC-KITCHENS-100, Diving48. Not trained yet.

    kinema train table_4_3/diving48_ctn_video_to_tokens_none --data.manifest diving48_v2.csv \
        --init hf:google/vit-base-patch16-224-in21k

Printed, actions of EPIC-KITCHENS and Diving48 in percent:

    ViViT-B, tubelets, position     43.1  77.1
    ViViT-B, tubelets               42.0  76.2
    CTN, tubelets, position         43.9  77.1
    CTN, video-to-tokens, position  44.5  77.7
    CTN, video-to-tokens            45.9  78.2

The thesis does not state the number of tokens in time. The printed stem leaves one of 8 frames; rows that end in
`dense` keep four, closer to the printed multiply-adds.
"""

from dataclasses import replace

from kinema.models.ctn import CTN_BASE, CTN_BASE_DENSE, CTNConfig
from kinema.models.vivit import VIVIT_BASE, ViViTConfig
from kinema.recipes.diving48_ctn_base import RECIPE as DIVING48
from kinema.recipes.epic_kitchens_ctn_base import RECIPE as EPIC_KITCHENS

NETWORKS: dict[str, CTNConfig | ViViTConfig] = {
    "vivit_tubelets_learned": VIVIT_BASE,
    "vivit_tubelets_none": replace(VIVIT_BASE, position="none"),
    "ctn_tubelets_learned": replace(CTN_BASE, embedding="tubelets", position="learned"),
    "ctn_video_to_tokens_learned": replace(CTN_BASE, position="learned"),
    "ctn_video_to_tokens_none": CTN_BASE,
    "ctn_video_to_tokens_learned_dense": replace(CTN_BASE_DENSE, position="learned"),
    "ctn_video_to_tokens_none_dense": CTN_BASE_DENSE,
}

RECIPES = {
    f"{dataset}_{name}": replace(recipe, model=network)
    for dataset, recipe in {"epic_kitchens": EPIC_KITCHENS, "diving48": DIVING48}.items()
    for name, network in NETWORKS.items()
}

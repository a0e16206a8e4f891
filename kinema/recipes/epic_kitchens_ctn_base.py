"""CTN-Base on EPIC-KITCHENS-100, actions as verb and noun (Table 4.7: 45.9 % top-1). Not trained yet.

    kinema prepare epic_kitchens --root EPIC --out epic_kitchens.csv
    kinema train epic_kitchens_ctn_base --data.manifest epic_kitchens.csv --init hf:google/vit-base-patch16-224-in21k

Same as `diving48_ctn_base`. Two task heads (97 verbs, 300 nouns) read one class token, and their losses are added. An
action is correct if both are.
"""

from dataclasses import replace

from kinema.recipes.diving48_ctn_base import RECIPE as DIVING48

RECIPE = replace(DIVING48, data=replace(DIVING48.data, evaluate="val"))

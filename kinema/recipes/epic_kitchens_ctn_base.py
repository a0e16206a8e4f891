"""CTN on EPIC-Kitchens-100: a verb and a noun, and by both an action (Table 4.7: 45.9 % of the actions). Not run.

kinema prepare epic_kitchens --root EPIC --out epic_kitchens.csv
kinema train epic_kitchens_ctn_base --data.manifest epic_kitchens.csv --init vit_b_16.safetensors

As on Diving48 (`diving48_ctn_base`), which says what the thesis leaves open; and of two task heads that read one class
token, 97 verbs and 300 nouns, the losses are added. An action is right where both are.
"""

from dataclasses import replace

from kinema.recipes.diving48_ctn_base import RECIPE as DIVING48

RECIPE = replace(DIVING48, data=replace(DIVING48.data, evaluate="val"))

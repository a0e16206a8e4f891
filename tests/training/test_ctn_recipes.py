"""Tests of the recipes of tables: every row has its changes, and runs at a small size."""

from dataclasses import replace

import pytest

from kinema.models.ctn import CTNConfig
from kinema.models.vivit import ViViTConfig
from kinema.training.recipe import load_recipe, recipe_names

ROWS = [name for name in recipe_names() if name.startswith("table_4_")]
STRIDE_4 = {"stem_channels": 64, "stem_pool": "none", "stem_norm": "none"}
ROW_NETWORKS = {
    "table_4_3": {
        "vivit_tubelets_learned": ViViTConfig(),
        "vivit_tubelets_none": ViViTConfig(position="none"),
        "ctn_tubelets_learned": CTNConfig(embedding="tubelets", position="learned"),
        "ctn_video_to_tokens_learned": CTNConfig(position="learned"),
        "ctn_video_to_tokens_none": CTNConfig(),
        "ctn_video_to_tokens_learned_dense": CTNConfig(position="learned", time_stride=1),
        "ctn_video_to_tokens_none_dense": CTNConfig(time_stride=1),
    },
    "table_4_4": {
        "7_none_none": CTNConfig(**STRIDE_4),
        "5_none_none": CTNConfig(stem_kernel=5, **STRIDE_4),
        "7_max_none": CTNConfig(stem_norm="none"),
        "7_max_batch": CTNConfig(),
    },
    "table_4_5": {"linear": CTNConfig(mapping="linear"), "convolution": CTNConfig()},
    "table_4_6": {
        "3_none": CTNConfig(mapping_norm="none"),
        "3_batch": CTNConfig(),
        "5_none": CTNConfig(mapping_kernel=5, mapping_norm="none"),
        "5_batch": CTNConfig(mapping_kernel=5),
    },
}
"""Network of each row: the changes to that of Table 4.1."""

NETWORKS = {
    f"{table}/{dataset}_{row}": network
    for table, rows in ROW_NETWORKS.items()
    for dataset in ("epic_kitchens", "diving48")
    for row, network in rows.items()
}


def test_the_rows_are_those_of_the_tables():
    assert sorted(NETWORKS) == ROWS


@pytest.mark.parametrize("name", ROWS)
def test_a_row_changes_only_its_own_setting(name):
    recipe = load_recipe(name)
    assert recipe.model == NETWORKS[name]
    dataset = "epic_kitchens" if "epic" in name else "diving48"
    assert replace(recipe, model=CTNConfig()) == load_recipe(f"{dataset}_ctn_base")


def test_the_recipe_is_that_of_table_4_2():
    recipe = load_recipe("epic_kitchens_ctn_base")
    clip, augmentation, optim = recipe.clip, recipe.data.augmentation, recipe.optim
    assert (clip.frames, clip.size, clip.short_side, clip.clips, clip.crops) == (8, 224, 256, 1, 1)
    assert (augmentation.short_side, augmentation.flip, augmentation.color_jitter) == ((256, 320), 0.5, 0.4)
    assert (optim.optimizer, optim.momentum, optim.lr, optim.weight_decay) == ("sgd", 0.9, 0.005, 0)
    assert (optim.epochs, optim.warmup_epochs, recipe.data.batch_size) == (100, 2.5, 16)
    assert (recipe.data.evaluate, load_recipe("diving48_ctn_base").data.evaluate) == ("val", "test")


@pytest.mark.long
@pytest.mark.parametrize("name", ROWS)
def test_a_row_runs_from_end_to_end(name, runs_small, few_moves, few_verbs_and_nouns):
    """Train, ship and evaluate the row with a network of 24 channels on three rendered actions."""
    row = load_recipe(name)
    recipe = replace(
        row,
        clip=replace(row.clip, size=48, short_side=48),
        data=replace(row.data, augmentation=replace(row.data.augmentation, short_side=(48, 60))),
        model=replace(row.model, width=24, depth=2, attention_heads=2),
        optim=replace(row.optim, epochs=2, warmup_epochs=1),
    )
    run = runs_small(recipe, few_verbs_and_nouns if "epic" in name else few_moves)
    assert len(run.steps()) == 4
    heads = {"verb.top1", "noun.top1", "joint.top1"} if "epic" in name else {"top1"}
    assert heads <= set(run.metrics()[-1])

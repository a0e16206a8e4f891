"""Tests of the recipes of tables: every row has its changes, and runs at a small size."""

from dataclasses import replace

import pytest

from kinema.errors import RecipeError
from kinema.models.rpe_stdt import RPESTDTConfig
from kinema.models.vit_spatial import ViTSpatialConfig
from kinema.training.recipe import load_recipe, recipe_names

ROWS = [name for name in recipe_names() if name.startswith(("table_3_", "figure_3_"))]
THREE = ("ucf101", "hmdb51", "diving48")
BASE12 = RPESTDTConfig(spatial_layers=12, temporal_head_channels=64, temporal_mlp_channels=768)
BETWEEN = {"pool_place": "between"}
POOLS = {
    "max": {"pool": "max"},
    "average": {"pool": "average"},
    "convolution": {"pool": "convolution"},
    "top_k_1_3": {"pool": "top-k"},
    "random": {"pool": "random"},
    "uniform": {"pool": "uniform"},
}

ROW_CHANGES = {
    **{
        f"table_3_1/{dataset}_{name}": {"position": position}
        for dataset in THREE
        for name, position in (
            ("absolute", "absolute"),
            ("sinusoidal", "sinusoidal"),
            ("shared", "shared"),
            ("per_head", "per-head"),
            ("none", "none"),
        )
    },
    **{
        f"table_3_2/{dataset}_{function}": {"position_function": function}
        for dataset in ("hmdb51", "ucf101")
        for function in ("clip", "sectioned")
    },
    **{f"table_3_3/{dataset}_rpe_stdt": {} for dataset in THREE},
    **{f"table_3_4/{dataset}_{name}": pool for dataset in THREE for name, pool in POOLS.items()},
    **{f"table_3_4/{dataset}_{name}_between": pool | BETWEEN for dataset in THREE for name, pool in POOLS.items()},
    **{f"table_3_4/{dataset}_top_k_0_2": {"pool_layers": (0, 2)} for dataset in THREE},
    **{f"table_3_4/{dataset}_none": {"pool": "none"} for dataset in THREE},
    "table_3_5/absolute": {"position": "absolute", "pool": "none"},
    "table_3_5/absolute_top_k": {"position": "absolute"},
    "table_3_5/none": {"position": "none", "pool": "none"},
    "table_3_5/none_top_k": {"position": "none"},
    **{
        f"figure_3_4/{dataset}_{count}": {"clusters": count}
        for dataset in THREE
        for count in (10, 26, 50, 82, 122, 170)
    },
}
"""Changes of each row to the network of 12 + 4 layers with 50 shared clusters and Top-K at 1 and 3."""

VIT = [f"table_3_3/{dataset}_vit" for dataset in THREE]


def test_the_rows_are_those_of_the_tables():
    assert sorted([*ROW_CHANGES, *VIT]) == ROWS


@pytest.mark.parametrize("name", ROWS)
def test_a_row_changes_only_its_own_setting(name):
    recipe = load_recipe(name)
    assert recipe.model == (ViTSpatialConfig() if name in VIT else replace(BASE12, **ROW_CHANGES[name]))
    dataset = "ucf101" if name.startswith("table_3_5/") else name.partition("/")[2].partition("_")[0]
    assert replace(recipe, model=BASE12) == load_recipe(f"{dataset}_rpe_stdt_base12")


def test_the_recipe_has_the_numbers_of_the_thesis_and_of_its_sister_chapter():
    recipe = load_recipe("ucf101_rpe_stdt_base12")
    clip, optim = recipe.clip, recipe.optim
    assert (clip.frames, clip.size, clip.short_side, clip.sampling, clip.interval) == (16, 224, 256, "uniform", 32)
    assert (recipe.data.augmentation.short_side, recipe.data.augmentation.flip) == ((256, 320), 0.5)
    assert (optim.optimizer, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 0.005, 0.9, 0)
    assert (optim.epochs, optim.warmup_epochs, recipe.data.batch_size) == (100, 2.5, 16)


def test_a_table_without_a_row_lists_its_rows(raises):
    with raises(RecipeError, "table_3_5/absolute, table_3_5/absolute_top_k", field="recipe"):
        load_recipe("table_3_5")


def small(model: RPESTDTConfig | ViTSpatialConfig) -> RPESTDTConfig | ViTSpatialConfig:
    if isinstance(model, ViTSpatialConfig):
        return replace(model, width=24, depth=2, attention_heads=2)
    return replace(
        model,
        width=24,
        spatial_layers=2,
        spatial_heads=2,
        spatial_mlp_channels=48,
        temporal_heads=2,
        temporal_head_channels=8,
        temporal_mlp_channels=24,
    )


@pytest.mark.long
@pytest.mark.parametrize("name", ROWS)
def test_a_row_runs_end_to_end(name, runs_small):
    """Train, ship and evaluate the row with a network of 24 channels on three rendered actions."""
    row = load_recipe(name)
    recipe = replace(
        row,
        clip=replace(row.clip, frames=8, size=48, short_side=48),
        data=replace(row.data, augmentation=replace(row.data.augmentation, short_side=(48, 60))),
        model=small(row.model),
        optim=replace(row.optim, epochs=2, warmup_epochs=1),
    )
    assert len(runs_small(recipe).steps()) == 4

"""Every row of Tables 3.1 to 3.5 and of figure 3.4 is a recipe that says what the row says, and runs, in small."""

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

SAID = {
    **{
        f"table_3_1/{corpus}_{name}": {"position": position}
        for corpus in THREE
        for name, position in (
            ("absolute", "absolute"),
            ("shared", "shared"),
            ("per_head", "per-head"),
            ("none", "none"),
        )
    },
    **{
        f"table_3_2/{corpus}_{function}": {"position_function": function}
        for corpus in ("hmdb51", "ucf101")
        for function in ("clip", "sectioned")
    },
    **{f"table_3_3/{corpus}_rpe_stdt": {} for corpus in THREE},
    **{f"table_3_4/{corpus}_{name}": pool for corpus in THREE for name, pool in POOLS.items()},
    **{f"table_3_4/{corpus}_{name}_between": pool | BETWEEN for corpus in THREE for name, pool in POOLS.items()},
    **{f"table_3_4/{corpus}_top_k_0_2": {"pool_layers": (0, 2)} for corpus in THREE},
    **{f"table_3_4/{corpus}_none": {"pool": "none"} for corpus in THREE},
    "table_3_5/absolute": {"position": "absolute", "pool": "none"},
    "table_3_5/absolute_top_k": {"position": "absolute"},
    "table_3_5/none": {"position": "none", "pool": "none"},
    "table_3_5/none_top_k": {"position": "none"},
    **{f"figure_3_4/{corpus}_{count}": {"clusters": count} for corpus in THREE for count in (10, 26, 50, 82, 122, 170)},
}
"""What the thesis varies in a row, over the network of 12 + 4 layers with 50 shared clusters and Top-K at 1 and 3."""

VIT = [f"table_3_3/{corpus}_vit" for corpus in THREE]


def test_the_rows_are_those_of_the_tables():
    assert sorted([*SAID, *VIT]) == ROWS


@pytest.mark.parametrize("name", ROWS)
def test_a_row_differs_from_its_table_by_what_it_says_alone(name):
    recipe = load_recipe(name)
    assert recipe.model == (ViTSpatialConfig() if name in VIT else replace(BASE12, **SAID[name]))
    corpus = "ucf101" if name.startswith("table_3_5/") else name.partition("/")[2].partition("_")[0]
    assert replace(recipe, model=BASE12) == load_recipe(f"{corpus}_rpe_stdt_base12")


def test_the_recipe_is_that_of_the_thesis():
    recipe = load_recipe("ucf101_rpe_stdt_base12")
    clip, optim = recipe.clip, recipe.optim
    assert (clip.frames, clip.size, clip.short_side, clip.sampling, clip.interval) == (16, 224, 256, "uniform", 32)
    assert (recipe.data.augmentation.short_side, recipe.data.augmentation.flip) == ((256, 320), 0.5)
    assert (optim.optimizer, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 0.005, 0.9, 0)
    assert (optim.epochs, optim.warmup_epochs, recipe.data.batch_size) == (100, 2.5, 16)


def test_a_table_without_a_row_lists_its_rows():
    with pytest.raises(RecipeError, match=r"table_3_5 has several rows; name one of table_3_5/absolute, table_3_5/abs"):
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
def test_a_row_runs_from_end_to_end(name, runs_small):
    """The row's recipe with a network of 24 channels, on three rendered actions: trained, shipped, evaluated."""
    row = load_recipe(name)
    recipe = replace(
        row,
        clip=replace(row.clip, frames=8, size=48, short_side=48),
        data=replace(row.data, augmentation=replace(row.data.augmentation, short_side=(48, 60))),
        model=small(row.model),
        optim=replace(row.optim, epochs=2, warmup_epochs=1),
    )
    assert len(runs_small(recipe).steps()) == 4

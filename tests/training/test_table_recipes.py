"""Tests of the recipes of tables: every row has its changes, and runs at a small size."""

from dataclasses import replace

import pytest

from kinema.errors import RecipeError
from kinema.models.mfst import MFSTConfig
from kinema.training.recipe import load_recipe, recipe_names

ROWS = [name for name in recipe_names() if name.startswith("table_2_")]

ROW_CHANGES = {
    "table_2_3/base": {"stages": 3},
    "table_2_3/large": {"stages": 4},
    **{
        f"table_2_4/{modality}_{name}": {"stem_operator": operator, "stem_theta": theta}
        for modality in ("rgb", "depth")
        for name, operator, theta in (
            ("vanilla", "vanilla", 0.0),
            ("cdc_st_0.6", "cdc-st", 0.6),
            ("cdc_t_0.6", "cdc-t", 0.6),
            ("cdc_st_0.8", "cdc-st", 0.8),
            ("cdc_t_0.8", "cdc-t", 0.8),
        )
    },
    "table_2_5/base_without": {"stages": 3, "shortcut": "none"},
    "table_2_5/large_without": {"stages": 4, "shortcut": "none"},
    "table_2_5/base_with": {"stages": 3, "shortcut": "residual"},
    "table_2_5/large_with": {"stages": 4, "shortcut": "residual"},
    "table_2_6/rgb_v_trans": {"temporal_scales": (1,), "stem_operator": "cdc-st"},
    "table_2_6/depth_v_trans": {"temporal_scales": (1,), "stem_operator": "cdc-t"},
    "table_2_6/rgb_wms_trans": {"temporal_scales": (1, 2, 4), "stem_operator": "cdc-st"},
    "table_2_6/depth_wms_trans": {"temporal_scales": (1, 2, 4), "stem_operator": "cdc-t"},
}
"""Changes of each row to MFST-Large."""


def test_the_rows_are_those_of_the_tables():
    assert sorted(ROW_CHANGES) == ROWS


@pytest.mark.parametrize("name", ROWS)
def test_a_row_changes_only_its_own_setting(name):
    recipe = load_recipe(name)
    expected = MFSTConfig(stages=4) if "depth" not in name else MFSTConfig(stages=4, stem_operator="cdc-t")
    assert recipe.model == replace(expected, **ROW_CHANGES[name])
    assert recipe.clip.modalities == (("depth",) if "depth" in name else ("rgb",))
    assert replace(recipe, model=expected) == load_recipe(
        "ntu60_mfst_large_depth" if "depth" in name else "ntu60_mfst_large"
    )


def test_the_recipe_is_that_of_the_thesis():
    recipe = load_recipe("ntu60_mfst_large")
    assert (recipe.clip.frames, recipe.clip.size, recipe.clip.sampling) == (32, 224, "segments")
    optim = recipe.optim
    assert (optim.optimizer, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 0.01, 0.9, 3e-4)
    assert (optim.epochs, optim.warmup_epochs, recipe.data.batch_size) == (100, 3, 64)
    assert load_recipe("ntu60_mfst_large_depth").clip.preprocessing(None).channels == {"depth": 3}


def test_an_unknown_row_suggests_the_nearest(raises):
    with raises(RecipeError, "'table_2_6/rgb_vtrans'", "'table_2_6/rgb_v_trans'", field="recipe"):
        load_recipe("table_2_6/rgb_vtrans")


@pytest.mark.long
@pytest.mark.parametrize("name", ROWS)
def test_a_row_runs_from_end_to_end(name, runs_small):
    """Train, ship and evaluate the row with a network an eighth as wide on three rendered actions."""
    row = load_recipe(name)
    model = replace(
        row.model,
        widths=(16, 16, 24, 24),
        channel_divisor=8,
        layers=1,
        attention_heads=2,
        head_channels=8,
        mlp_channels=16,
    )
    recipe = replace(
        row,
        clip=replace(row.clip, frames=4, size=32, short_side=36),
        model=model,
        optim=replace(row.optim, epochs=4, warmup_epochs=1),
    )
    assert len(runs_small(recipe).steps()) == 8

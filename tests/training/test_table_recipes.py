"""Every row of Tables 2.3 to 2.6 is a recipe that says what the row says, and runs from end to end, in small."""

from dataclasses import replace

import pytest

from kinema.errors import RecipeError
from kinema.models.mfst import MFSTConfig
from kinema.training.recipe import load_recipe, recipe_names

ROWS = [name for name in recipe_names() if name.startswith("table_2_")]

SAID = {
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
"""What the thesis varies in a row, over MFST-Large of four stages unless it says otherwise."""


def test_the_rows_are_those_of_the_tables():
    assert sorted(SAID) == ROWS


@pytest.mark.parametrize("name", ROWS)
def test_a_row_differs_from_its_table_by_what_it_says_alone(name):
    recipe = load_recipe(name)
    expected = MFSTConfig(stages=4) if "depth" not in name else MFSTConfig(stages=4, stem_operator="cdc-t")
    assert recipe.model == replace(expected, **SAID[name])
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


def test_a_row_that_is_none_is_answered_with_the_nearest():
    with pytest.raises(
        RecipeError, match=r"unknown recipe 'table_2_6/rgb_vtrans'; did you mean 'table_2_6/rgb_v_trans'"
    ):
        load_recipe("table_2_6/rgb_vtrans")


@pytest.mark.long
@pytest.mark.parametrize("name", ROWS)
def test_a_row_runs_from_end_to_end(name, runs_small):
    """The row's recipe with a network an eighth as wide, on three rendered actions: trained, shipped, evaluated."""
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

"""Tests of the recipes of tables: every row has its changes, and runs at a small size."""

from dataclasses import replace

import pytest

from kinema.errors import RecipeError
from kinema.models.mfst import MFSTConfig
from kinema.training.recipe import load_recipe, recipe_names

ROWS = [name for name in recipe_names() if name.startswith(("table_2_", "figure_2_"))]

ROW_CHANGES = {
    "figure_2_6/bm": {"stem_operator": "vanilla", "shortcut": "none", "temporal_scales": (1,)},
    "figure_2_6/large": {},
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


def test_the_recipe_has_the_numbers_of_the_thesis():
    """Section 2.4.1; the frames are in Table 2.3."""
    recipe = load_recipe("ntu60_mfst_large")
    assert (recipe.clip.frames, recipe.clip.size) == (32, 224)
    optim = recipe.optim
    assert (optim.optimizer, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 0.01, 0.9, 3e-4)
    assert (optim.epochs, optim.warmup_epochs, recipe.init.weights) == (100, 3, "")
    assert recipe.data.augmentation.mixup_alpha > 0


def test_the_recipe_has_the_numbers_of_public_code():
    """UMDR: on all of this the thesis is silent."""
    recipe, depth = load_recipe("ntu60_mfst_large"), load_recipe("ntu60_mfst_large_depth")
    assert (recipe.clip.sampling, recipe.clip.test_frame, recipe.clip.short_side) == ("segments", "mean", 240)
    augmentation, optim = recipe.data.augmentation, recipe.optim
    assert (augmentation.flip, augmentation.rotation, augmentation.rotation_prob) == (0.5, 10.0, 0.5)
    assert (augmentation.mixup_alpha, optim.label_smoothing, optim.max_grad_norm) == (0.8, 0.1, 5.0)
    assert recipe.data.batch_size == 4 * 16
    assert recipe.clip.std == (128 / 255,) * 3
    assert (depth.clip.depth_std, depth.clip.depth_colors) == (128 / 255, "jet")
    assert depth.clip.preprocessing(None).channels == {"depth": 3}
    assert load_recipe("isogd_mfst_large_depth").clip.depth_std == 128 / 255


def test_an_unknown_row_suggests_the_nearest(raises):
    with raises(RecipeError, "'table_2_6/rgb_vtrans'", "'table_2_6/rgb_v_trans'", field="recipe"):
        load_recipe("table_2_6/rgb_vtrans")


@pytest.mark.long
@pytest.mark.parametrize("name", ROWS)
def test_a_row_runs_end_to_end(name, runs_small):
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

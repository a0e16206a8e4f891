"""A recipe holds every number, refuses what cannot be, and comes back from JSON as it was."""

from dataclasses import replace
from pathlib import Path

import pytest

from kinema.data.manifest import load_manifest, write_manifest
from kinema.models.ctn import CTNConfig
from kinema.training.recipe import (
    Clip,
    Data,
    Optim,
    Recipe,
    RecipeError,
    load_recipe,
    recipe_from_json,
    recipe_names,
    recipe_to_json,
)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_and_comes_back_from_json(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe_from_json(recipe_to_json(recipe)) == recipe


def test_fields_of_every_kind_come_back_from_json(tiny_recipe: Recipe) -> None:
    assert recipe_from_json(recipe_to_json(tiny_recipe)) == tiny_recipe


def test_json_of_something_else_is_refused() -> None:
    with pytest.raises(RecipeError, match="no recipe of this kinema"):
        recipe_from_json('{"clip": {"frames": 8}}')


def test_a_clip_that_does_not_fit_the_model_is_refused_when_the_recipe_is_built(tiny_recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=r"frames must be a multiple of 8: 8, 16, 24, \.\.\.; got 12"):
        replace(tiny_recipe, clip=Clip(frames=12, size=32, short_side=32))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (lambda: Optim(lr=0.0, epochs=1), "lr=0 would learn nothing"),
        (lambda: Optim(lr=float("inf"), epochs=1), "lr=inf must be finite and not negative"),
        (lambda: Optim(lr=0.1, epochs=float("nan")), "epochs=nan must be finite"),
        (lambda: Optim(lr=0.1, epochs=1, momentum=5), "momentum=5 must be below 1"),
        (lambda: Optim(lr=0.1, epochs=1, weight_decay=-1), "weight_decay=-1 must be finite and not negative"),
        (lambda: Optim(lr=0.1, epochs=1, warmup_epochs=2), "warmup_epochs=2 must lie between 0 and epochs=1"),
        (lambda: Optim(lr=0.1, epochs=1, clip_norm=0), "clip_norm=0 must be positive"),
        (lambda: Data(batch_size=0), "batch_size=0 must be at least 1"),
        (lambda: Data(train="a", evaluate="a"), "train and evaluate are the same split, 'a'"),
    ],
)
def test_impossible_sections_cannot_be_built(section, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        section()


def test_a_misspelt_recipe_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match="unknown recipe 'moves_ctn_tinny'; did you mean 'moves_ctn_tiny'"):
        load_recipe("moves_ctn_tinny")


def test_a_recipe_can_be_a_file_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from kinema.training.recipe import load_recipe\nRECIPE = load_recipe('moves_ctn_tiny')\n")
    assert load_recipe(path) == load_recipe("moves_ctn_tiny")
    path.write_text("WRONG = 1\n")
    with pytest.raises(RecipeError, match="holds no constant RECIPE"):
        load_recipe(path)
    path.write_text("RECIPE = (\n")
    with pytest.raises(RecipeError, match=r"mine\.py, line 1: SyntaxError"):
        load_recipe(path)
    path.write_text("x = 1\nRECIPE = nothing\n")
    with pytest.raises(RecipeError, match=r"mine\.py, line 2: NameError: name 'nothing' is not defined"):
        load_recipe(path)
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe(tmp_path / "other.py")


def test_a_modality_that_the_manifest_lacks_is_refused(tiny_recipe: Recipe, few_moves, tmp_path: Path) -> None:
    table = "\n".join(",".join(line.split(",")[1:]) for line in few_moves.path.read_text().splitlines())
    (tmp_path / "depth.csv").write_text(table.replace("../", str(few_moves.path.parent) + "/../"))
    (tmp_path / "depth.json").write_text(few_moves.path.with_suffix(".json").read_text())
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, manifest=str(tmp_path / "depth.csv")))
    with pytest.raises(RecipeError, match=r"wants rgb, but .*depth\.csv has only depth"):
        recipe.open_manifest()


def test_a_recipe_without_a_manifest_says_how_to_get_one() -> None:
    recipe = Recipe(
        clip=Clip(frames=8, size=32, short_side=32),
        data=Data(),
        model=CTNConfig(width=24, depth=1, attention_heads=3),
        optim=Optim(lr=0.1, epochs=1),
    )
    with pytest.raises(RecipeError, match=r"--data\.manifest mine\.csv"):
        recipe.open_manifest()


def test_a_crop_to_the_subject_wants_depth_before_the_first_sample(tiny_recipe: Recipe, tmp_path: Path) -> None:
    source = load_manifest(tiny_recipe.data.manifest)
    entries = [replace(entry, depth="", rgb=source.locate(entry.rgb)) for entry in source.entries]
    bare = write_manifest(
        tmp_path / "rgb.csv", entries=entries, classes=source.classes, corpus="rgb", version="1", depth=None
    )
    clip = replace(tiny_recipe.clip, subject_margin=0.1)
    recipe = replace(tiny_recipe, clip=clip, data=replace(tiny_recipe.data, manifest=str(bare.path)))
    with pytest.raises(RecipeError, match=r"clip\.subject_margin wants depth, but .*rgb\.csv has only rgb"):
        recipe.open_manifest()

"""A recipe holds every number, refuses what cannot be, and comes back from JSON as it was."""

import json
import math
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from kinema.data.manifest import load_manifest, write_manifest
from kinema.errors import RecipeError
from kinema.models.ctn import CTNConfig
from kinema.training.recipe import (
    Clip,
    Data,
    Optim,
    Recipe,
    RunSettings,
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


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        *[("optim", "layer_decay", value) for value in (0.0, -0.5, 1.01, math.nan)],
        *[("optim", "accumulate", value) for value in (0, -2)],
        *[("optim", "ema_decay", value) for value in (0.0, 1.0, -0.1, math.nan)],
        *[("optim", "clip_norm", value) for value in (0.0, -1.0, math.nan)],
        *[("optim", "lr_end", value) for value in (-0.1, math.inf)],
        *[("optim", "label_smoothing", value) for value in (1.0, -0.1, math.nan)],
        *[("run", "evaluate_every_epochs", value) for value in (0.0, -1.0, math.inf, math.nan)],
        *[("run", "keep_every_epochs", value) for value in (0.0, -1.0, math.inf, math.nan)],
        *[("run", "patience", value) for value in (0, -1)],
        *[("run", "checkpoint_every_steps", value) for value in (0, -1)],
        *[("run", "cpu_threads", value) for value in (0, -1)],
        *[("run", "seed", value) for value in (-1, 2**32)],
        ("run", "loggers", ("csv", "tensorboard", "csv")),
        ("data", "workers", -1),
    ],
)
def test_impossible_values_are_refused_by_section_and_field(
    tiny_recipe: Recipe, section: str, name: str, value: object
) -> None:
    with pytest.raises(RecipeError) as refusal:
        replace(getattr(tiny_recipe, section), **{name: value})
    assert str(refusal.value).startswith(f"{section}: {name}={value}")


def test_the_edges_of_what_is_possible_are(tiny_recipe: Recipe) -> None:
    """One further is refused above; a rule that is too strict is wrong as well."""
    optim = replace(
        tiny_recipe.optim, layer_decay=1.0, accumulate=1, ema_decay=0.999, lr_start=0.0, label_smoothing=0.0
    )
    run = replace(
        tiny_recipe.run, patience=1, checkpoint_every_steps=1, keep_every_epochs=0.01, seed=2**32 - 1, cpu_threads=1
    )
    built = replace(tiny_recipe, optim=optim, run=run)
    assert recipe_from_json(recipe_to_json(built)) == built


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim": {"accumulate": 3}}, r"data: batch_size=4 does not divide into optim\.accumulate=3 equal parts"),
        ({"optim": {"ema_decay": 0.9}, "run": {"strategy": "fsdp"}}, r"strategy=fsdp goes without optim\.ema_decay"),
        ({"run": {"strategy": "fsdp", "compiled": "default"}}, r"strategy=fsdp goes without .* run\.compiled"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(
    tiny_recipe: Recipe, changes: dict[str, dict[str, object]], message: str
) -> None:
    sections = {name: replace(getattr(tiny_recipe, name), **values) for name, values in changes.items()}
    with pytest.raises(RecipeError, match=message):
        replace(tiny_recipe, **sections)


SET = {
    "data": {"balance": "sampler", "unreadable": "skip"},
    "optim": {
        "optimizer": "adamw",
        "decay": "all",
        "layer_decay": 0.75,
        "accumulate": 2,
        "ema_decay": 0.99,
        "clip_norm": 2.0,
    },
    "run": {
        "metric": "mean_class",
        "patience": 3,
        "checkpoint_every_steps": 100,
        "keep_every_epochs": 2.5,
        "init": "some/weights.safetensors",
        "init_unmatched": "allow",
        "freeze": ("embedding", "blocks.0"),
        "activations": "recompute",
        "compiled": "default",
        "strategy": "ddp",
        "loggers": ("csv", "wandb"),
    },
}
"""Every field that came with the second version of the training, set; `strategy` has no other value beside these."""


def test_a_recipe_with_every_new_field_set_comes_back_from_json(tiny_recipe: Recipe) -> None:
    recipe = replace(tiny_recipe, **{name: replace(getattr(tiny_recipe, name), **SET[name]) for name in SET})
    back = recipe_from_json(recipe_to_json(recipe))
    assert back == recipe
    for section, values in SET.items():
        for name, value in values.items():
            assert getattr(getattr(back, section), name) == value
    assert isinstance(back.run.freeze, tuple)
    assert isinstance(back.run.loggers, tuple)


def test_a_recipe_of_before_the_new_fields_loads_with_their_defaults(tiny_recipe: Recipe) -> None:
    """So that a run of an older version can be read, listed and evaluated."""
    old = json.loads(recipe_to_json(tiny_recipe))
    new = {"data": ["balance"], "optim": ["decay", *list(SET["optim"])[2:5]], "run": [*SET["run"]]}
    for section, names in new.items():
        for name in names:
            del old[section][name]
    loaded = recipe_from_json(json.dumps(old))
    assert loaded.clip == tiny_recipe.clip
    for section, kind in (("data", Data), ("optim", Optim), ("run", RunSettings)):
        defaults = {field.name: field.default for field in fields(kind)}
        for name, value in vars(getattr(loaded, section)).items():
            if name not in new[section]:
                assert value == getattr(getattr(tiny_recipe, section), name)
            else:
                assert value == ("all" if name == "decay" else defaults[name])  # everything was decayed then


def test_the_colours_of_depth_come_back_from_json(tiny_recipe: Recipe) -> None:
    clip = replace(tiny_recipe.clip, modalities=("depth",), depth_channels=3, depth_colours="jet")
    recipe = replace(tiny_recipe, clip=clip)
    back = recipe_from_json(recipe_to_json(recipe))
    assert back == recipe
    assert back.clip.depth_colours == back.clip.preprocessing(None).depth_colours == "jet"
    old = json.loads(recipe_to_json(recipe))
    del old["clip"]["depth_colours"]
    assert recipe_from_json(json.dumps(old)).clip == replace(clip, depth_colours="grey")


def test_colours_of_depth_without_their_channels_are_refused(tiny_recipe: Recipe) -> None:
    message = r"clip: .*depth_colours='jet'.*depth_channels=1"
    with pytest.raises(RecipeError, match=message):
        replace(tiny_recipe, clip=replace(tiny_recipe.clip, modalities=("depth",), depth_colours="jet"))


WRONG = [
    *[("Data", name, "al") for name in ("unreadable", "balance")],
    *[("Optim", name, "al") for name in ("optimizer", "decay")],
    *[
        ("RunSettings", name, "al")
        for name in ("keep", "init_unmatched", "activations", "compiled", "strategy", "precision", "device")
    ],
    ("Clip", "sampling", "al"),
    ("Clip", "depth_colours", "al"),
    ("RunSettings", "loggers", ["al"]),
    ("RunSettings", "loggers", "csv"),
    ("RunSettings", "freeze", "backbone"),
    ("RunSettings", "metric", 1),
    ("RunSettings", "patience", 2.5),
    ("Optim", "accumulate", 1.5),
    ("Data", "batch_size", True),
]

ASK = """
import json, sys
from kinema.training import recipe

usual = {"Clip": {"frames": 8, "size": 32, "short_side": 32}, "Optim": {"lr": 0.1, "epochs": 1}}
for kind, name, value in json.load(sys.stdin):
    given = tuple(value) if isinstance(value, list) else value
    try:
        getattr(recipe, kind)(**usual.get(kind, {}), **{name: given})
        print("accepted")
    except recipe.RecipeError as error:
        print(error)
"""


def test_misspelt_choices_and_other_types_are_refused_by_their_fields() -> None:
    """Whatever is not `all` would pass for `matrices`. In a process without the tests' own type checks."""
    done = subprocess.run(
        [sys.executable, "-c", ASK], input=json.dumps(WRONG), capture_output=True, text=True, check=True
    )
    answers = done.stdout.splitlines()
    for (kind, name, value), answer in zip(WRONG, answers, strict=True):
        given = tuple(value) if isinstance(value, list) else value
        assert answer.startswith(f"{kind}: {name}={given!r} is not "), (name, answer)


def test_a_misspelt_choice_in_json_is_refused_by_its_field(tiny_recipe: Recipe) -> None:
    said = json.loads(recipe_to_json(tiny_recipe))
    said["optim"]["decay"] = "al"
    with pytest.raises(RecipeError, match=r"al not in literal .*'matrices', 'all'.*recipe\.optim\.decay"):
        recipe_from_json(json.dumps(said))


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("optim", "ema_decay", 2.0, r"optim: ema_decay=2\.0 must lie between 0 and 1"),
        ("run", "patience", 0, "run: patience=0 must be at least 1"),
        ("run", "what", 1, r"extra fields found \(what\) @ recipe\.run"),
    ],
)
def test_json_that_is_refused_says_which_field(
    tiny_recipe: Recipe, section: str, name: str, value: object, message: str
) -> None:
    said = json.loads(recipe_to_json(tiny_recipe))
    said[section][name] = value
    with pytest.raises(RecipeError, match=message):
        recipe_from_json(json.dumps(said))

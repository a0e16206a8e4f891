"""Tests of recipes: validation, loading, and JSON round trips."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from kinema.data.manifest import load_manifest, write_manifest
from kinema.errors import ConfigError, RecipeError
from kinema.models.ctn import CTNConfig
from kinema.training.recipe import (
    Checkpoint,
    Clip,
    Compute,
    Data,
    Init,
    Optim,
    Recipe,
    RunSettings,
    load_recipe,
    recipe_names,
)
from kinema.training.recipe_json import recipe_from_json, recipe_to_json

STORED = Path(__file__).parents[1] / "stored"


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_and_survives_json(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe_from_json(recipe_to_json(recipe)) == recipe


def test_fields_of_every_kind_survive_json(tiny_recipe: Recipe) -> None:
    assert recipe_from_json(recipe_to_json(tiny_recipe)) == tiny_recipe


def test_json_of_something_else_is_refused(raises) -> None:
    for text in ('{"clip": {"frames": 8}}', "[]", "{", '{"format": 3}'):
        with raises(RecipeError, "not a recipe"):
            recipe_from_json(text)


def test_a_clip_that_does_not_fit_the_model_is_refused_when_the_recipe_is_built(tiny_recipe: Recipe, raises) -> None:
    with raises(ConfigError, "multiple of 8", "frames=12"):
        replace(tiny_recipe, clip=Clip(frames=12, size=32, short_side=32))


def test_a_misspelled_recipe_suggests_the_nearest_name(raises) -> None:
    with raises(RecipeError, "'moves_ctn_tiny'"):
        load_recipe("moves_ctn_tinny")


def test_a_recipe_can_be_a_python_file(tmp_path: Path, raises) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from kinema.training.recipe import load_recipe\nRECIPE = load_recipe('moves_ctn_tiny')\n")
    assert load_recipe(path) == load_recipe("moves_ctn_tiny")
    path.write_text("WRONG = 1\n")
    with raises(RecipeError, "RECIPE", path=path):
        load_recipe(path)
    path.write_text("RECIPE = (\n")
    with raises(RecipeError, "SyntaxError", path=path, line=1):
        load_recipe(path)
    path.write_text("x = 1\nRECIPE = nothing\n")
    with raises(RecipeError, "name 'nothing' is not defined", path=path, line=2):
        load_recipe(path)
    with raises(RecipeError, path="other.py"):
        load_recipe(tmp_path / "other.py")


WRONG = {
    "data=replace(BASE.data, augmentation=replace(BASE.data.augmentation, randaugment=2))": "randaugment",
    "data=replace(BASE.data, augmentation=replace(BASE.data.augmentation, flip='yes'))": "flip",
    "optim=dict(lr=0.1, epochs=1)": "optim",
    "optim=BASE.clip": "optim",
    "model='ctn_tiny'": "model",
    "model=BASE.model.__class__": "model",
    "clip=replace(BASE.clip, mean=[0.5, 0.5, 0.5])": "mean",
    "clip=replace(BASE.clip, modalities='rgb')": "modalities",
    "optm=BASE.optim": "optm",
    "run=replace(BASE.run, seed=1.5)": "seed",
}


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_value_in_a_recipe_file_is_refused_with_file_and_line(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start = "from dataclasses import replace\nfrom kinema.recipes.ctn_tiny import RECIPE as BASE\n\n"
    Path("mine.py").write_text(f"{start}RECIPE = replace(\n    BASE,\n    {change},\n)\n")
    with pytest.raises(RecipeError) as refusal:
        load_recipe("mine.py")
    error = refusal.value
    assert (error.path, error.field) == ("mine.py", WRONG[change])
    assert error.line == (6 if "replace(" in change else 4)
    assert len(str(error)) < 200


@pytest.mark.parametrize(
    ("text", "line"),
    [("RECIPE = dict()\n", 1), ("x = 1\nRECIPE: object = 3\n", 2), ("WRONG = 1\n", None), ("", None), ("a\0b", None)],
)
def test_a_file_without_a_recipe_is_refused(text: str, line: int | None, tmp_path: Path, raises) -> None:
    (tmp_path / "mine.py").write_text(text)
    with raises(RecipeError, path=tmp_path / "mine.py", line=line):
        load_recipe(tmp_path / "mine.py")


def test_a_modality_that_the_manifest_lacks_is_refused(tiny_recipe: Recipe, few_moves, tmp_path: Path, raises) -> None:
    table = "\n".join(",".join(line.split(",")[1:]) for line in few_moves.path.read_text().splitlines())
    (tmp_path / "depth.csv").write_text(table.replace("../", str(few_moves.path.parent) + "/../"))
    (tmp_path / "depth.json").write_text(few_moves.path.with_suffix(".json").read_text())
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, manifest=str(tmp_path / "depth.csv")))
    with raises(RecipeError, "has depth", path="depth.csv", field="clip.modalities"):
        recipe.open_manifest()


def test_a_recipe_without_a_manifest_tells_how_to_make_one(raises) -> None:
    recipe = Recipe(
        clip=Clip(frames=8, size=32, short_side=32),
        data=Data(),
        model=CTNConfig(width=24, depth=1, attention_heads=3),
        optim=Optim(lr=0.1, epochs=1),
    )
    with raises(RecipeError, "--data.manifest mine.csv", field="data.manifest"):
        recipe.open_manifest()


def test_a_crop_to_the_subject_needs_depth(tiny_recipe: Recipe, tmp_path: Path, raises) -> None:
    source = load_manifest(tiny_recipe.data.manifest)
    entries = [replace(entry, depth="", rgb=source.locate(entry.rgb)) for entry in source.entries]
    bare = write_manifest(
        tmp_path / "rgb.csv", entries=entries, classes=source.classes, dataset="rgb", version="1", depth=None
    )
    clip = replace(tiny_recipe.clip, subject_margin=0.1)
    recipe = replace(tiny_recipe, clip=clip, data=replace(tiny_recipe.data, manifest=str(bare.path)))
    with raises(RecipeError, "has rgb", path="rgb.csv", field="clip.subject_margin"):
        recipe.open_manifest()


INF, NAN = math.inf, math.nan
IMPOSSIBLE: dict[str, tuple[object, ...]] = {
    "clip.sampling": ("al",),
    "clip.depth_colors": ("al",),
    "data.batch_size": (0, -1, True, 1.5, "4"),
    "data.workers": (-1,),
    "data.unreadable": ("al",),
    "data.balance": ("al",),
    "optim.optimizer": ("al",),
    "optim.lr": (0.0, -0.1, INF, NAN, True, "0.1"),
    "optim.lr_start": (-0.1, INF),
    "optim.lr_end": (-0.1, INF),
    "optim.momentum": (1.0, 5, -0.1),
    "optim.weight_decay": (-1, INF),
    "optim.decay": ("al",),
    "optim.layer_decay": (0.0, -0.5, 1.01, NAN),
    "optim.grad_accum_steps": (0, -2, 1.5),
    "optim.ema_decay": (0.0, 1.0, -0.1, NAN),
    "optim.epochs": (0.0, -1.0, INF, NAN),
    "optim.warmup_epochs": (-1.0, 5.0, NAN),
    "optim.max_grad_norm": (0.0, -1.0, NAN),
    "optim.label_smoothing": (1.0, -0.1, NAN),
    "init.unmatched": ("al",),
    "init.calibration_batches": (0,),
    "init.freeze": ("backbone",),
    "checkpoint.every": (0, -1),
    "checkpoint.keep_every_epochs": (0.0, -1.0, INF, NAN),
    "checkpoint.keep": ("al",),
    "checkpoint.metric": (1,),
    "compute.device": ("al",),
    "compute.precision": ("al",),
    "compute.cpu_threads": (0, -1),
    "compute.activation_checkpointing": ("keep", 1),
    "compute.compile": ("al", True),
    "compute.strategy": ("al",),
    "run.evaluate_every_epochs": (0.0, -1.0, INF, NAN),
    "run.patience": (0, -1, 2.5),
    "run.seed": (-1, 2**32, True, 1.0),
    "run.out": ("a string",),
    "run.loggers": ("csv", ("al",), ("csv", "tensorboard", "csv")),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_values_are_refused_by_section_and_field(tiny_recipe: Recipe, name: str) -> None:
    section, field = name.split(".")
    for value in IMPOSSIBLE[name]:
        with pytest.raises(ConfigError) as refusal:
            replace(getattr(tiny_recipe, section), **{field: value})
        error = refusal.value
        assert (error.field or "").split(".")[0] == field
        wrong = value[0] if value == ("al",) else value
        assert f"={wrong!r}" in str(error).replace(f"={value}", f"={value!r}"), error
        assert "\n" not in str(error)


def test_elements_of_tuples_are_checked(raises) -> None:
    with raises(ConfigError, "-1", field="blocks.1"):
        Init(blocks=(0, -1))
    with raises(ConfigError, field="ignore.0"):
        Init(ignore=("",))  # a prefix of every name


def test_an_unknown_field_suggests_the_nearest_one(raises) -> None:
    with raises(ConfigError, "did you mean 'epochs'", field="epoch"):
        Optim(lr=0.1, epochs=1, epoch=2)  # type: ignore[call-arg]


def test_values_at_the_limits_are_accepted(tiny_recipe: Recipe) -> None:
    """Values at the limits are valid."""
    built = replace(
        tiny_recipe,
        optim=replace(
            tiny_recipe.optim,
            lr=1,
            layer_decay=1.0,
            grad_accum_steps=1,
            ema_decay=0.999,
            lr_start=0.0,
            label_smoothing=0.0,
            warmup_epochs=4,
            max_grad_norm=INF,
        ),
        checkpoint=Checkpoint(every=1, keep_every_epochs=0.01),
        compute=replace(tiny_recipe.compute, cpu_threads=1),
        run=replace(tiny_recipe.run, patience=1, seed=2**32 - 1),
    )
    assert built.optim.lr == 1.0
    assert (
        recipe_from_json(recipe_to_json(replace(built, optim=replace(built.optim, max_grad_norm=None)))).run
        == built.run
    )


@pytest.mark.parametrize(
    ("changes", "field", "word"),
    [
        ({"data": {"train": "test"}}, "evaluate", "'test'"),
        ({"optim": {"grad_accum_steps": 3}}, "data.batch_size", "optim.grad_accum_steps=3"),
        ({"optim": {"ema_decay": 0.9}, "compute": {"strategy": "fsdp"}}, "compute.strategy", "optim.ema_decay"),
        ({"compute": {"strategy": "fsdp", "compile": "default"}}, "compute.strategy", "compute.compile"),
        ({"clip": {"modalities": ("depth",), "depth_colors": "jet"}}, "", "depth_channels=1"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(
    tiny_recipe: Recipe, raises, changes: dict[str, dict[str, object]], field: str, word: str
) -> None:
    with raises(ConfigError, word, field=field):
        replace(
            tiny_recipe, **{name: replace(getattr(tiny_recipe, name), **values) for name, values in changes.items()}
        )


def test_depth_colors_survive_json(tiny_recipe: Recipe) -> None:
    clip = replace(tiny_recipe.clip, modalities=("depth",), depth_channels=3, depth_colors="jet")
    recipe = replace(tiny_recipe, clip=clip)
    back = recipe_from_json(recipe_to_json(recipe))
    assert back == recipe
    assert back.clip.preprocessing(None).depth_colors == "jet"


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("optim.decay", "al", "'matrices'"),
        ("optim.ema_decay", 2.0, "below 1"),
        ("run.patience", 0, "above 0"),
        ("run.what", 1, "unknown field"),
    ],
)
def test_json_that_is_refused_names_the_field(tiny_recipe: Recipe, raises, name: str, value: object, word: str) -> None:
    data = json.loads(recipe_to_json(tiny_recipe))
    section, field = name.split(".")
    data[section][field] = value
    with raises(RecipeError, word, field=name):
        recipe_from_json(json.dumps(data))


# -- stored recipes of format 1 ----------------------------------------------------------------------------------------


def test_a_recipe_of_format_1_loads_with_every_field_in_its_new_place() -> None:
    recipe = recipe_from_json((STORED / "recipe_format1.json").read_text())
    assert recipe.clip == Clip(
        frames=8,
        size=32,
        short_side=36,
        modalities=("rgb", "depth"),
        depth_channels=3,
        depth_colors="jet",
        sampling="dense",
        interval=2,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        clips=2,
        crops=3,
        subject_margin=0.1,
    )
    augmentation = recipe.data.augmentation
    assert (augmentation.short_side, augmentation.rotation, augmentation.randaugment.operations) == ((36, 40), 10.0, 2)
    assert (augmentation.color_jitter, augmentation.channel_shuffle, augmentation.rotation_prob) == (0.2, 0.1, 0.25)
    assert (recipe.data.read_options.isolation, recipe.data.read_options.limits.frames) == ("process", 1000)
    assert (recipe.optim.grad_accum_steps, recipe.optim.max_grad_norm, recipe.optim.decay) == (2, 2.0, "all")
    assert recipe.init == Init(
        weights="some/weights.safetensors",
        unmatched="allow",
        blocks=(0, 1),
        ignore=("dist_token",),
        calibration_batches=2,
        freeze=("embedding",),
    )
    assert recipe.checkpoint == Checkpoint(every=100, keep_every_epochs=2.5, keep="last", metric="mean_class")
    assert recipe.compute == Compute(
        device="cpu", precision="bfloat16", cpu_threads=1, activation_checkpointing=True, compile="default"
    )
    assert recipe.run == RunSettings(
        out=Path("runs/mine"), seed=3, evaluate_every_epochs=2, patience=3, loggers=("csv", "wandb")
    )
    assert recipe_from_json(recipe_to_json(recipe)) == recipe


def test_a_recipe_without_a_newer_field_loads_with_its_default() -> None:
    """Runs of older versions can be read, listed and evaluated."""
    old = json.loads((STORED / "recipe_format1.json").read_text())
    for section, names in {
        "clip": ["depth_colours", "depth_channels"],
        "data": ["balance", "reading"],
        "optim": ["decay", "layer_decay", "accumulate", "ema_decay"],
        "run": [name for name in old["run"] if name not in ("out", "seed", "device")],
    }.items():
        for name in names:
            del old[section][name]
    loaded = recipe_from_json(json.dumps(old))
    assert loaded.optim.decay == "all"  # older versions decayed all parameters
    assert (loaded.optim.layer_decay, loaded.optim.grad_accum_steps, loaded.optim.ema_decay) == (1.0, 1, None)
    assert loaded.data.balance == "none"
    assert loaded.data.read_options == Data().read_options
    assert (loaded.clip.depth_channels, loaded.clip.depth_colors) == (1, "gray")
    assert (loaded.init, loaded.checkpoint) == (Init(), Checkpoint())
    assert loaded.compute == Compute(device="cpu")
    assert loaded.run == RunSettings(out=Path("runs/mine"), seed=3)


def test_an_unknown_field_of_format_1_is_refused(raises) -> None:
    old = json.loads((STORED / "recipe_format1.json").read_text())
    old["run"]["what"] = 1
    with raises(RecipeError, field="run.what"):
        recipe_from_json(json.dumps(old))

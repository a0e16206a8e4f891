"""Recipes as JSON (`recipe.json` of a run), in the current format and older ones."""

import json
from typing import Any

from kinema.config import from_json, rename_fields, to_json
from kinema.data.names import is_unicode
from kinema.errors import RecipeError
from kinema.files import parse_json
from kinema.models.registry import flatten_config
from kinema.training.recipe import Recipe

FORMAT = 3
"""Version of recipe.json. Version 1 has no number, and the fields of `init`, `checkpoint` and `compute` in `run`."""


def recipe_to_json(recipe: Recipe) -> str:
    """Return the text of recipe.json.

    Raises:
        RecipeError: A path is not UTF-8, so that the recipe could not be read back.
    """
    fields = {"format": FORMAT} | to_json(recipe)
    if not is_unicode(json.dumps(fields, ensure_ascii=False)):
        paths = (recipe.data.manifest, recipe.init.weights, str(recipe.run.out))
        path = next((path for path in paths if not is_unicode(path)), None)
        raise RecipeError(
            f"{path}: not UTF-8, so that no recipe can store it. Rename the file or its folder.", path=path
        )
    return json.dumps(fields, indent=2) + "\n"


def recipe_from_json(text: str) -> Recipe:
    """Parse the text of recipe.json, in the current format or an older one.

    Raises:
        RecipeError: The text is not a recipe.
    """
    try:
        data = parse_json(text)
        version = data.pop("format", 1)
        if version not in range(1, FORMAT + 1):
            raise ValueError(f"format {version}; expected at most {FORMAT}, update kinema")
        if version == 1:
            data = _from_format1(data)
        return from_json(Recipe, _from_format2(data) if version < 3 else data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(f"not a recipe ({error})", field=getattr(error, "field", None)) from error


FORMAT1 = {
    "data.reading": "data.read_options",
    "optim.accumulate": "optim.grad_accum_steps",
    "optim.clip_norm": "optim.max_grad_norm",
    "run.init": "init.weights",
    "run.init_unmatched": "init.unmatched",
    "run.init_blocks": "init.blocks",
    "run.init_ignore": "init.ignore",
    "run.init_calibration_batches": "init.calibration_batches",
    "run.freeze": "init.freeze",
    "run.checkpoint_every_steps": "checkpoint.every",
    "run.keep_every_epochs": "checkpoint.keep_every_epochs",
    "run.keep": "checkpoint.keep",
    "run.metric": "checkpoint.metric",
    "run.device": "compute.device",
    "run.precision": "compute.precision",
    "run.cpu_threads": "compute.cpu_threads",
    "run.activations": "compute.activation_checkpointing",
    "run.compiled": "compute.compile",
    "run.strategy": "compute.strategy",
}
"""Fields of format 1 -> their names in format 2."""

FORMAT2 = {
    "clip.depth_colours": "clip.depth_colors",
    "data.augmentation.colour_jitter": "data.augmentation.color_jitter",
    "data.augmentation.colour_shuffle": "data.augmentation.channel_shuffle",
    "data.augmentation.rotation_share": "data.augmentation.rotation_prob",
}
"""Fields of formats 1 and 2 -> their names in format 3."""


def _from_format1(data: dict[str, Any]) -> dict[str, Any]:
    data["optim"].setdefault("decay", "all")  # runs from before this field decayed all parameters
    if "activations" in data["run"]:
        data["run"]["activations"] = {"keep": False, "recompute": True}[data["run"]["activations"]]
    return rename_fields(data, FORMAT1)


def _from_format2(data: dict[str, Any]) -> dict[str, Any]:
    data["model"] = flatten_config(data["model"])
    rename_fields(data, FORMAT2)
    if data["clip"].get("depth_colors") == "grey":
        data["clip"]["depth_colors"] = "gray"
    return data

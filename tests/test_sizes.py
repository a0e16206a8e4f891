"""What a network, a model folder or a recipe asks for is computed, and refused, before it is allocated."""

import json
from dataclasses import replace

import pytest

from kinema import create_model
from kinema.cli.train import override
from kinema.errors import ConfigError, ModelError, RecipeError
from kinema.evaluation.evaluate import evaluate
from kinema.inference.trained_model import load_model, save_model
from kinema.models.registry import MODELS
from kinema.training.loop import train
from kinema.training.recipe import load_recipe

WIDE = replace(MODELS["mfst_tiny"].config, head_channels=2**16, attention_heads=64)


@pytest.fixture(autouse=True)
def little_room(memory_limit, alarm):
    memory_limit(10**9)
    alarm(20)


@pytest.mark.parametrize(
    ("name", "fields", "guilty"),
    [
        ("ctn_tiny", {"mlp_ratio": 10**9}, "mlp_ratio"),
        ("ctn_base", {"mlp_ratio": 256, "width": 12288}, "mlp_ratio"),
        ("vit_tiny_spatial", {"width": 2**16, "attention_heads": 1}, "width"),
        ("ctn_tiny", {"depth": 10**9}, "depth"),
        ("ctn_tiny", {"patch": (2, 4096, 4096), "width": 2**16, "size": 16384}, "patch"),
        ("rpe_stdt_tiny", {"size": 16384}, "size"),
        ("vivit_tiny", {"frames": 10**9}, "frames"),
        ("vivit_tiny", {"frames": 2**60}, "frames"),
        ("ctn_tiny", {"channels": 2**70}, "channels"),
        ("ctn_tiny", {"num_classes": 10**12}, "num_classes"),
        ("mfst_tiny", {"head_channels": 2**16, "attention_heads": 2**16}, "attention_heads"),
        (
            "mfst_tiny_rgbd",
            {"rgb": replace(MODELS["mfst_tiny"].config, head_channels=2**16, attention_heads=64)},
            "rgb.head_channels",
        ),
    ],
)
def test_networks_larger_than_the_memory(raises, name, fields, guilty):
    with raises(ConfigError, field=guilty):
        create_model(name, **{"num_classes": 5} | fields)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model.mlp_ratio", 10**9),
        ("model.mlp_ratio", 256),
        ("model.width", 24 * 1024),
        ("model.depth", 20),
        ("model.patch", [2, 4096, 4096]),
        ("sampling.frames", 10**9),
        ("sampling.clips", 10**9),
        ("preprocessing.short_side", 10**5),
        ("preprocessing.short_side", 1e5),
        ("preprocessing.size", 10**5),
        ("preprocessing.std", [1e-400, 0, 0]),
        ("sampling.interval", 2**70),
        ("sampling.rate", 10**400),
        ("model.dropout", float("nan")),
    ],
)
def test_models_that_ask_for_more_than_their_weights(tmp_path, raises, tiny_ctn, make_trained_model, place, value):
    save_model(tmp_path, make_trained_model(tiny_ctn()))
    stored = json.loads((tmp_path / "model.json").read_text())
    section, field = place.split(".")
    stored[section][field] = value
    stored["preprocessing"]["short_side"] = max(stored["preprocessing"]["short_side"], stored["preprocessing"]["size"])
    (tmp_path / "model.json").write_text(json.dumps(stored))
    with raises(ModelError):
        load_model(tmp_path)


def test_clips_larger_than_the_memory(raises, data_set, tiny_ctn, make_trained_model):
    trained = make_trained_model(tiny_ctn())
    for change in ({"frames": 2**16, "size": 1024}, {"size": 10**5}, {"frames": -1}):
        with raises(ModelError):
            trained.with_clip(**change)
    huge = replace(trained, sampling=replace(trained.sampling, frames=2**16, clips=1000))
    with raises(ConfigError, field="frames"):
        evaluate(huge, data_set, device="cpu")


OVERRIDES = {
    "--model.mlp-ratio 1000000000": "mlp_ratio",
    "--clip.frames 1000000000": "frames",
    "--clip.short-side 100000": "short_side",
    "--clip.clips 1000000000": "clips",
    "--data.batch-size 1000000000": "batch_size",
    "--data.workers 1000000000": "workers",
    "--data.augmentation.randaugment.operations 1000000000": "operations",
    "--data.augmentation.short-side 100000 100000": "short_side.0",
}


@pytest.mark.parametrize("args", OVERRIDES)
def test_overrides_that_ask_for_terabytes(raises, args):
    with raises(ConfigError, field=OVERRIDES[args]):
        override(load_recipe("moves_ctn_tiny"), args.split(), "kinema train")


@pytest.mark.parametrize(
    ("args", "guilty"),
    [
        ("--model.mlp-ratio 256 --model.width 49152", "model.width"),
        ("--clip.frames 65536 --clip.short-side 4096 --clip.size 1024", "clip.frames"),
        ("--clip.frames 1024 --clip.short-side 16384", "clip.short_side"),
        ("--clip.clips 1000 --clip.frames 2048", "clip.clips"),
        ("--data.batch-size 1048576", "data.batch_size"),
    ],
)
def test_a_training_larger_than_the_memory_does_not_begin(raises, tmp_path, args, guilty):
    recipe = override(load_recipe("moves_ctn_tiny"), f"--run.out {tmp_path / 'run'} {args}".split(), "kinema train")
    with raises(RecipeError, field=guilty):
        train(recipe)

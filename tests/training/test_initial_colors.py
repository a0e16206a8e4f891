"""RGB is normalized as the initial weights were trained, and the model folder says so."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from kinema.errors import StartError
from kinema.inference.trained_model import load_model
from kinema.models.pretrained.vit_file import IMAGENET
from kinema.models.rpe_stdt import RPESTDTConfig
from kinema.models.vit_spatial import ViTSpatialConfig
from kinema.training.loop import train
from kinema.training.recipe import Init
from kinema.training.runs import Run
from kinema.training.weights import load_weights, with_initial_colors

WIDTH = 16


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    """A DINOv2 file of one block, with Meta's names."""
    torch.manual_seed(0)
    shapes = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, 5, WIDTH), "mask_token": (1, WIDTH)}
    shapes |= {"patch_embed.proj.weight": (WIDTH, 3, 14, 14), "patch_embed.proj.bias": (WIDTH,)}
    shapes |= {f"norm.{kind}": (WIDTH,) for kind in ("weight", "bias")}
    for layer, rows, columns in (("attn.qkv", 48, WIDTH), ("attn.proj", WIDTH, WIDTH), ("mlp.fc1", 32, WIDTH)):
        shapes |= {f"blocks.0.{layer}.weight": (rows, columns), f"blocks.0.{layer}.bias": (rows,)}
    shapes |= {"blocks.0.mlp.fc2.weight": (WIDTH, 32), "blocks.0.mlp.fc2.bias": (WIDTH,)}
    for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
        shapes[f"blocks.0.{name}"] = (WIDTH,)
    path = tmp_path_factory.mktemp("weights") / "dinov2.safetensors"
    save_file({name: torch.randn(shape) for name, shape in shapes.items()}, path)
    return path


@pytest.fixture
def recipe(tiny_recipe, dinov2):
    model = ViTSpatialConfig(patch=14, width=WIDTH, depth=1, attention_heads=2, mlp_ratio=2)
    clip = replace(tiny_recipe.clip, size=28, short_side=32)
    return replace(tiny_recipe, clip=clip, model=model, init=Init(weights=str(dinov2)))


def colors(clip):
    return clip.mean, clip.std


def test_colors_of_the_weights_are_stored(recipe, dinov2):
    run = train(recipe, max_steps=2)
    assert colors(run.recipe.clip) == IMAGENET
    assert colors(load_model(run.path).preprocessing) == IMAGENET
    # Fine-tuning that model takes its colors over.
    assert colors(with_initial_colors(replace(recipe, init=Init(weights=str(run.path)))).clip) == IMAGENET
    network = recipe.model.build(heads={"label": 2}, channels={"rgb": 3}, frames=recipe.clip.frames, size=28)
    report = load_weights(network, dinov2, classes={})
    assert report.family == "DINOv2"
    assert "mask_token: no patch is masked" in report.unexpected_keys


def test_a_run_resumes_without_its_initial_weights(recipe, tmp_path, dinov2):
    weights = tmp_path / "moved.safetensors"
    weights.write_bytes(dinov2.read_bytes())
    run = train(replace(recipe, init=Init(weights=str(weights))), max_steps=1)
    weights.unlink()
    resumed = train(run.recipe, Run.open(run.path), max_steps=2)
    assert colors(load_model(resumed.path).preprocessing) == IMAGENET


def test_colors_of_the_recipe_win(recipe):
    own = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    run = train(replace(recipe, clip=replace(recipe.clip, mean=own[0], std=own[1])), max_steps=1)
    assert colors(run.recipe.clip) == own


@pytest.mark.parametrize(
    ("names", "family"), [(["vision_model.pre_layrnorm.weight"], "CLIP"), (["rope_embed.periods"], "DINOv3")]
)
def test_weights_of_other_families_are_refused_by_name(recipe, tmp_path, raises, names, family):
    file = tmp_path / "other.safetensors"
    save_file({name: torch.zeros(2) for name in names}, file)
    with raises(StartError, family, path=file):
        train(replace(recipe, init=Init(weights=str(file))), max_steps=1)


@pytest.mark.parametrize("keep", [8, 1000, 0])
def test_a_truncated_file_is_refused(recipe, tmp_path, dinov2, raises, keep):
    file = tmp_path / "short.safetensors"
    file.write_bytes(dinov2.read_bytes()[:keep])
    with raises(StartError, path=file):
        train(replace(recipe, init=Init(weights=str(file))), max_steps=1)


def test_frozen_tensors_that_the_file_lacks_are_named(recipe, caplog):
    small = {"width": WIDTH, "spatial_layers": 1, "spatial_heads": 2, "spatial_mlp_channels": 32, "temporal_layers": 1}
    small |= {"temporal_heads": 2, "temporal_head_channels": 8, "temporal_mlp_channels": 32, "pool_layers": (0,)}
    model = RPESTDTConfig(patch=14, clusters=10, **small)
    caplog.set_level("INFO", logger="kinema")
    train(replace(recipe, model=model, init=replace(recipe.init, freeze=("backbone",))), max_steps=1)
    line = next(line for line in caplog.text.splitlines() if "stay random" in line)
    assert "temporal_blocks" in line
    assert "spatial_norm" not in line

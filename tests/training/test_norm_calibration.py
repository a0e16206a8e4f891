"""Tests of the calibration of BatchNorm: training starts from the function of the loaded weights."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from processes.trainings import job
from safetensors.torch import save_file
from torch import nn
from transformers import ViTConfig, ViTModel

from kinema.errors import RecipeError
from kinema.inference.trained_model import load_model
from kinema.layers.conv_projection import SeparableConvolution
from kinema.models.ctn import CTN, CTNConfig
from kinema.models.pretrained.vit import from_vit
from kinema.models.pretrained.vit_file import read_vit
from kinema.training import initialize
from kinema.training.calibration import calibrate
from kinema.training.loop import train
from kinema.training.recipe import Init, Recipe
from kinema.training.recipe_json import recipe_from_json, recipe_to_json
from kinema.training.runs import Run

WIDTH, LAYERS = 24, 3
TINY = CTNConfig(
    embedding="tubelets", patch=(2, 2, 2), position="learned", width=WIDTH, depth=LAYERS, attention_heads=3, dropout=0.1
)
ONE = Fabric(accelerator="cpu", devices=1)


@pytest.fixture(scope="module")
def vit():
    """Return a ViT of transformers whose queries, keys and values are far from mean 0 and variance 1."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=3,
        intermediate_size=4 * WIDTH,
        image_size=32,
        patch_size=8,
        layer_norm_eps=1e-6,
    )
    model = ViTModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=0.6 if "layernorm" in name and "weight" in name else 0.0, std=0.3)
    return model


def ctn(vit, *, frames=2, **changes):
    torch.manual_seed(1)
    model = CTN(replace(TINY, **changes), heads={"label": 3}, frames=frames, size=32)
    model.load_state_dict(from_vit(read_vit(vit.state_dict()), model).weights, strict=False)
    return model


def clips(count=3, batch=6, frames=2):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(batch, 3, frames, 32, 32, generator=generator) for _ in range(count)]


def mappings(model) -> dict[str, SeparableConvolution]:
    """Return the mappings whose norms are used; the last block maps only the class token to queries."""
    last = f"blocks.{len(model.blocks) - 1}.attention.mapping.query"
    found = {name: part for name, part in model.named_modules() if isinstance(part, SeparableConvolution)}
    return {name: part for name, part in found.items() if name != last}


@torch.no_grad()
def in_training(model, clip):
    """Return features as in a training step, without dropout."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for block in model.blocks:
        block.attention.dropout = 0.0
    return model.features(clip)


# -- the function ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_calibration_keeps_the_network_close_to_vit_in_training_mode(vit):
    """The remaining difference comes from the statistics of a batch against those of all three."""
    batches = clips(batch=32)
    calibrated, as_loaded = ctn(vit), ctn(vit)
    calibrate(calibrated, [{"clip": clip} for clip in batches], ONE)
    for clip in batches:
        expected = vit(clip[:, :, 1]).last_hidden_state[:, 0]
        near, far = ((in_training(model, clip) - expected).norm() for model in (calibrated, as_loaded))
        assert near < 0.08 * expected.norm()
        assert far > 0.5 * expected.norm()


@torch.no_grad()
def test_on_the_calibration_batch_training_mode_equals_vit(vit):
    model, clip = ctn(vit), clips(count=1)[0]
    calibrate(model, [{"clip": clip}], ONE)
    expected = vit(clip[:, :, 1]).last_hidden_state[:, 0]
    torch.testing.assert_close(in_training(model, clip), expected, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"embedding": "video-to-tokens", "position": "none", "frames": 8}], ids=str)
def test_outputs_in_evaluation_do_not_change(vit, changes):
    frames = changes.get("frames", 2)
    model = ctn(vit, **changes)
    for part in mappings(model).values():  # arbitrary statistics, gain and bias, as after a training
        for tensor in (part.norm.weight, part.norm.bias, part.norm.running_mean, part.norm.running_var):
            tensor += 0.5 * torch.rand(tensor.shape)
    before, names = model.eval()(clips(frames=frames)[0]), model.train().state_dict().keys()
    old = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calibrate(model, [{"clip": clip} for clip in clips(frames=frames)], ONE)
    torch.testing.assert_close(model.eval()(clips(frames=frames)[0]), before, rtol=1e-4, atol=1e-5)
    of_norms = {name for name in names if re.search(r"mapping\.\w+\.norm\.(?!num)", name)}
    of_norms = {name for name in of_norms if name.partition(".norm.")[0] in mappings(model)}
    assert {name for name in names if not torch.equal(model.state_dict()[name], old[name])} == of_norms


@torch.no_grad()
def test_statistics_are_those_of_all_maps_of_all_batches(vit):
    model, batches = ctn(vit), clips(count=2, batch=3)
    batches[1] = batches[1][:2]  # batches of different sizes
    maps_of: dict[str, list[torch.Tensor]] = {name: [] for name in mappings(model)}
    hooks = [
        part.depthwise.register_forward_hook(lambda _, __, maps, name=name: maps_of[name].append(maps))
        for name, part in mappings(model).items()
    ]
    model.eval()
    for clip in batches:
        model(clip)
    for hook in hooks:
        hook.remove()
    assert calibrate(model.train(), [{"clip": clip} for clip in batches], ONE) == 3 * LAYERS - 1
    for name, part in mappings(model).items():
        values = torch.cat(maps_of[name]).double().transpose(0, 1).flatten(1)
        assert values.shape == (WIDTH, 5 * 16)
        mean, variance = values.mean(1), values.var(1, correction=0)
        assert mean.abs().max() > 0.1
        gain = (variance + part.norm.eps).sqrt()
        for found, expected in (
            (part.norm.running_mean, mean),
            (part.norm.running_var, variance),
            (part.norm.weight, gain),
            (part.norm.bias, mean),
        ):
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_stem_normalizes_as_in_training(vit):
    """The random stem has no statistics yet, so it normalizes by the batch."""
    model = ctn(vit, embedding="video-to-tokens", position="none", frames=8)
    model.embedding.convolution.weight *= 30
    clip = clips(count=1, frames=8)[0]
    calibrate(model, [{"clip": clip}], ONE)
    model.eval()
    model.embedding.train()
    expected = model.features(clip)
    found = in_training(model, clip)  # on the batch of the calibration, training mode equals evaluation mode
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_each_module_is_in_training_or_evaluation_as_before(vit):
    model = ctn(vit)
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    calibrate(model, [{"clip": clip} for clip in clips(1)], ONE)
    assert [module.training for module in model.modules()] == modes


def test_frozen_blocks_stay_as_they_are(vit):
    model = ctn(vit)
    model.blocks[0].eval()  # as `init.freeze` leaves it
    before = {name: tensor.clone() for name, tensor in model.blocks[0].state_dict().items()}
    assert calibrate(model, [{"clip": clip} for clip in clips(1)], ONE) == 3 * (LAYERS - 1) - 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.blocks[0].state_dict().items())


@torch.no_grad()
def test_a_constant_channel_keeps_its_value(vit):
    model = ctn(vit, depth=1)
    nn.init.zeros_(model.blocks[0].norm_attention.weight)
    before = model.eval().features(clips(1)[0])
    calibrate(model.train(), [{"clip": clip} for clip in clips(1)], ONE)
    torch.testing.assert_close(in_training(model, clips(1)[0]), before, rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", [{"mapping": "linear"}, {"mapping_norm": "none"}], ids=str)
def test_networks_without_such_norms_are_refused(vit, changes, raises):
    with raises(RecipeError, "BatchNorm", field="init.calibration_batches"):
        calibrate(ctn(vit, **changes), [], ONE)


def test_calibration_without_clips_is_refused(vit, raises):
    with raises(RecipeError, "no clip", field="init.calibration_batches"):
        calibrate(ctn(vit), [], ONE)


# -- in a recipe -------------------------------------------------------------------------------------------------------


@pytest.fixture
def vit_recipe(tiny_recipe: Recipe, vit: ViTModel, tmp_path: Path) -> Recipe:
    """Return a recipe with a tiny learning rate, whose final weights show the initial ones."""
    save_file(dict(vit.state_dict()), tmp_path / "vit.safetensors")
    return replace(
        tiny_recipe,
        model=TINY,
        optim=replace(tiny_recipe.optim, lr=1e-12),
        init=replace(tiny_recipe.init, weights=str(tmp_path / "vit.safetensors"), calibration_batches=2),
        checkpoint=replace(tiny_recipe.checkpoint, keep="last"),
    )


def norms(run: Run) -> dict[str, torch.Tensor]:
    """Return the shipped gains and biases of the mappings' norms, without the unused one of the last queries."""
    state = load_model(run.path).model.state_dict()
    last = f"blocks.{LAYERS - 1}.attention.mapping.query"
    found = {name: tensor for name, tensor in state.items() if re.search(r"mapping\.\w+\.norm\.(weight|bias)$", name)}
    return {name: tensor for name, tensor in found.items() if not name.startswith(last)}


def test_it_is_off_by_default(vit_recipe: Recipe) -> None:
    assert Init().calibration_batches is None
    off = replace(vit_recipe, init=replace(vit_recipe.init, calibration_batches=None))
    for name, tensor in norms(train(off, max_steps=1)).items():
        expected = torch.full_like(tensor, (1 + 1e-5) ** 0.5 if name.endswith("weight") else 0.0)
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)


def test_a_training_calibrates_once_and_logs_it(
    vit_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, messages: Callable[[], list[str]]
) -> None:
    message = f"calibrated: {3 * LAYERS - 1} BatchNorm layers of queries, keys and values"
    run = train(vit_recipe, max_steps=1)
    assert message in messages()
    first = norms(run)
    biases = [tensor for name, tensor in first.items() if name.endswith("bias")]
    assert len(biases) == 3 * LAYERS - 1
    assert min(bias.abs().max() for bias in biases) > 0.05
    monkeypatch.delattr(initialize, "calibrate")
    train(run.recipe, Run.open(run.path), max_steps=2)
    assert message not in messages()
    for name, tensor in norms(run).items():
        torch.testing.assert_close(tensor, first[name], rtol=0, atol=1e-6)


@pytest.mark.long
def test_calibration_does_not_depend_on_workers_and_micro_batches(vit_recipe: Recipe, tmp_path: Path) -> None:
    """The statistics come from the first training batches, which the steps use again."""
    found = []
    for number, (workers, accumulate) in enumerate([(0, 1), (1, 1), (0, 2)]):
        recipe = replace(
            vit_recipe,
            data=replace(vit_recipe.data, workers=workers),
            optim=replace(vit_recipe.optim, grad_accum_steps=accumulate),
            run=replace(vit_recipe.run, out=tmp_path / str(number)),
        )
        found.append(norms(train(recipe, max_steps=1)))
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[2][name], tensor, rtol=1e-4, atol=1e-5)


def test_averaged_weights_start_calibrated(vit_recipe: Recipe) -> None:
    plain = norms(train(vit_recipe, max_steps=1))
    recipe = replace(vit_recipe, optim=replace(vit_recipe.optim, ema_decay=0.9), run=replace(vit_recipe.run, out=None))
    recipe = replace(recipe, run=replace(recipe.run, out=vit_recipe.run.out.with_name("averaged")))  # type: ignore[union-attr]
    for name, tensor in norms(train(recipe, max_steps=1)).items():
        torch.testing.assert_close(tensor, plain[name], rtol=0, atol=1e-6)


@pytest.mark.long
def test_two_processes_have_the_statistics_of_all_their_clips(vit_recipe: Recipe, tmp_path: Path) -> None:
    alone = train(replace(vit_recipe, run=replace(vit_recipe.run, out=tmp_path / "alone")), max_steps=1)
    (tmp_path / "jobs.json").write_text(json.dumps([job(vit_recipe, small=False, steps=1)]))
    trainings = Path(__file__).parent / "processes" / "trainings.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(trainings)]
    command = [*command, str(tmp_path / "jobs.json")]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert vit_recipe.run.out is not None
    one, other = (torch.load(vit_recipe.run.out / f"begun-{number}.pt", weights_only=True) for number in range(2))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    for name, tensor in norms(alone).items():
        torch.testing.assert_close(one[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_setting_survives_json_and_is_off_in_older_recipes(vit_recipe: Recipe) -> None:
    assert recipe_from_json(recipe_to_json(vit_recipe)) == vit_recipe
    old = json.loads(recipe_to_json(vit_recipe))
    del old["init"]["calibration_batches"]
    assert recipe_from_json(json.dumps(old)).init.calibration_batches is None


def test_calibration_needs_weights_and_trainable_norms(vit_recipe: Recipe, raises) -> None:
    bare = replace(vit_recipe, init=replace(vit_recipe.init, weights=""))
    with raises(RecipeError, "init.weights", field="init.calibration_batches"):
        train(bare, max_steps=1)
    frozen = replace(vit_recipe, init=replace(vit_recipe.init, freeze=("backbone",)))
    with raises(RecipeError, "BatchNorm", field="init.calibration_batches"):
        train(frozen, max_steps=1)

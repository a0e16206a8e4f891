"""BatchNorm of CTN's mapping set before the first step: training begins with the function of the loaded weights."""

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
    """transformers' ViT, whose queries, keys and values are far from having mean 0 and variance 1."""
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
    """Those whose maps are computed: of the last block the class token alone is asked for, which stands on no map."""
    last = f"blocks.{len(model.blocks) - 1}.attention.mapping.query"
    found = {name: part for name, part in model.named_modules() if isinstance(part, SeparableConvolution)}
    return {name: part for name, part in found.items() if name != last}


@torch.no_grad()
def in_training(model, clip):
    """Features as a step computes them, but for dropout, which is another matter."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for block in model.blocks:
        block.attention.dropout = 0.0
    return model.features(clip)


# -- the function ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_in_training_the_network_is_near_vit_and_without_calibration_it_is_not(vit):
    """What is left is how far the statistics of a batch are from those of all three."""
    given = clips(batch=32)
    calibrated, as_loaded = ctn(vit), ctn(vit)
    calibrate(calibrated, [{"clip": clip} for clip in given], ONE)
    for clip in given:
        expected = vit(clip[:, :, 1]).last_hidden_state[:, 0]
        near, far = ((in_training(model, clip) - expected).norm() for model in (calibrated, as_loaded))
        assert near < 0.08 * expected.norm()
        assert far > 0.5 * expected.norm()


@torch.no_grad()
def test_on_the_batch_that_it_was_calibrated_on_training_is_vit(vit):
    model, clip = ctn(vit), clips(count=1)[0]
    calibrate(model, [{"clip": clip}], ONE)
    expected = vit(clip[:, :, 1]).last_hidden_state[:, 0]
    torch.testing.assert_close(in_training(model, clip), expected, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"embedding": "video-to-tokens", "position": "none", "frames": 8}], ids=str)
def test_the_answer_in_evaluation_stays_as_it_was(vit, changes):
    frames = changes.get("frames", 2)
    model = ctn(vit, **changes)
    for part in mappings(model).values():  # as after a training: statistics, gain and bias of all kinds
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
    model, given = ctn(vit), clips(count=2, batch=3)
    given[1] = given[1][:2]  # batches need not be of one size
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in mappings(model)}
    hooks = [
        part.depthwise.register_forward_hook(lambda _, __, maps, name=name: seen[name].append(maps))
        for name, part in mappings(model).items()
    ]
    model.eval()
    for clip in given:
        model(clip)
    for hook in hooks:
        hook.remove()
    assert calibrate(model.train(), [{"clip": clip} for clip in given], ONE) == 3 * LAYERS - 1
    for name, part in mappings(model).items():
        values = torch.cat(seen[name]).double().transpose(0, 1).flatten(1)
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
def test_a_stem_is_seen_as_training_sees_it(vit):
    """Its random weights have no stored statistics yet: in training, tokens are those of the batch's own."""
    model = ctn(vit, embedding="video-to-tokens", position="none", frames=8)
    model.embedding.convolution.weight *= 30
    clip = clips(count=1, frames=8)[0]
    calibrate(model, [{"clip": clip}], ONE)
    model.eval()
    model.embedding.train()
    expected = model.features(clip)
    found = in_training(model, clip)  # on the one batch of the calibration, all is as in evaluation
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
def test_a_channel_that_never_changes_keeps_its_value(vit):
    model = ctn(vit, depth=1)
    nn.init.zeros_(model.blocks[0].norm_attention.weight)
    before = model.eval().features(clips(1)[0])
    calibrate(model.train(), [{"clip": clip} for clip in clips(1)], ONE)
    torch.testing.assert_close(in_training(model, clips(1)[0]), before, rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", [{"mapping": "linear"}, {"mapping_norm": "none"}], ids=str)
def test_networks_that_have_no_such_norm_are_refused(vit, changes, raises):
    with raises(RecipeError, "has none", field="init.calibration_batches"):
        calibrate(ctn(vit, **changes), [], ONE)


def test_no_clip_at_all_is_refused(vit, raises):
    with raises(RecipeError, "no clip", field="init.calibration_batches"):
        calibrate(ctn(vit), [], ONE)


# -- in a recipe -------------------------------------------------------------------------------------------------------


@pytest.fixture
def of_vit(tiny_recipe: Recipe, vit: ViTModel, tmp_path: Path) -> Recipe:
    """A training whose weights hardly move, so that its end shows its start."""
    save_file(dict(vit.state_dict()), tmp_path / "vit.safetensors")
    return replace(
        tiny_recipe,
        model=TINY,
        optim=replace(tiny_recipe.optim, lr=1e-12),
        init=replace(tiny_recipe.init, weights=str(tmp_path / "vit.safetensors"), calibration_batches=2),
        checkpoint=replace(tiny_recipe.checkpoint, keep="last"),
    )


def norms(run: Run) -> dict[str, torch.Tensor]:
    """Gains and biases of the mapping's norms, as shipped; but for the last block's of queries, which no map passes."""
    state = load_model(run.path).model.state_dict()
    last = f"blocks.{LAYERS - 1}.attention.mapping.query"
    found = {name: tensor for name, tensor in state.items() if re.search(r"mapping\.\w+\.norm\.(weight|bias)$", name)}
    return {name: tensor for name, tensor in found.items() if not name.startswith(last)}


def test_it_is_off_unless_it_is_asked_for(of_vit: Recipe) -> None:
    assert Init().calibration_batches is None
    off = replace(of_vit, init=replace(of_vit.init, calibration_batches=None))
    for name, tensor in norms(train(off, max_steps=1)).items():
        expected = torch.full_like(tensor, (1 + 1e-5) ** 0.5 if name.endswith("weight") else 0.0)
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)


def test_a_training_calibrates_once_says_so_and_does_not_when_it_goes_on(
    of_vit: Recipe, monkeypatch: pytest.MonkeyPatch, messages: Callable[[], list[str]]
) -> None:
    said = f"calibrated: {3 * LAYERS - 1} norms of queries, keys and values, on 2 batches"
    run = train(of_vit, max_steps=1)
    assert said in messages()
    first = norms(run)
    biases = [tensor for name, tensor in first.items() if name.endswith("bias")]
    assert len(biases) == 3 * LAYERS - 1
    assert min(bias.abs().max() for bias in biases) > 0.05
    monkeypatch.delattr(initialize, "calibrate")
    train(run.recipe, Run.open(run.path), max_steps=2)
    assert said not in messages()
    for name, tensor in norms(run).items():
        torch.testing.assert_close(tensor, first[name], rtol=0, atol=1e-6)


def test_the_same_seed_calibrates_the_same_whoever_reads_and_in_however_many_parts(
    of_vit: Recipe, tmp_path: Path
) -> None:
    """The statistics are those of the first training batches: the steps see the same ones once more."""
    found = []
    for number, (workers, accumulate) in enumerate([(0, 1), (1, 1), (0, 2)]):
        recipe = replace(
            of_vit,
            data=replace(of_vit.data, workers=workers),
            optim=replace(of_vit.optim, grad_accum_steps=accumulate),
            run=replace(of_vit.run, out=tmp_path / str(number)),
        )
        found.append(norms(train(recipe, max_steps=1)))
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[2][name], tensor, rtol=1e-4, atol=1e-5)


def test_averaged_weights_begin_calibrated_too(of_vit: Recipe) -> None:
    plain = norms(train(of_vit, max_steps=1))
    recipe = replace(of_vit, optim=replace(of_vit.optim, ema_decay=0.9), run=replace(of_vit.run, out=None))
    recipe = replace(recipe, run=replace(recipe.run, out=of_vit.run.out.with_name("averaged")))  # type: ignore[union-attr]
    for name, tensor in norms(train(recipe, max_steps=1)).items():
        torch.testing.assert_close(tensor, plain[name], rtol=0, atol=1e-6)


@pytest.mark.long
def test_two_processes_have_the_statistics_of_all_their_clips(of_vit: Recipe, tmp_path: Path) -> None:
    alone = train(replace(of_vit, run=replace(of_vit.run, out=tmp_path / "alone")), max_steps=1)
    (tmp_path / "jobs.json").write_text(json.dumps([job(of_vit, small=False, steps=1)]))
    trainings = Path(__file__).parent / "processes" / "trainings.py"
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(trainings)]
    words = [*words, str(tmp_path / "jobs.json")]
    subprocess.run(words, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert of_vit.run.out is not None
    one, other = (torch.load(of_vit.run.out / f"begun-{number}.pt", weights_only=True) for number in range(2))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    for name, tensor in norms(alone).items():
        torch.testing.assert_close(one[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_choice_comes_back_from_json_and_older_recipes_have_none(of_vit: Recipe) -> None:
    assert recipe_from_json(recipe_to_json(of_vit)) == of_vit
    old = json.loads(recipe_to_json(of_vit))
    del old["init"]["calibration_batches"]
    assert recipe_from_json(json.dumps(old)).init.calibration_batches is None


def test_no_weights_are_refused(of_vit: Recipe, raises) -> None:
    bare = replace(of_vit, init=replace(of_vit.init, weights=""))
    with raises(RecipeError, "init.weights", field="init.calibration_batches"):
        train(bare, max_steps=1)
    frozen = replace(of_vit, init=replace(of_vit.init, freeze=("backbone",)))
    with raises(RecipeError, "has none", field="init.calibration_batches"):
        train(frozen, max_steps=1)

"""Tests of activation checkpointing: it changes only the memory of a step."""

import copy
from dataclasses import replace

import pytest
import torch

from kinema.layers.folding import evaluation_copy
from kinema.models.mfst import MFST_TINY
from kinema.models.registry import create_model
from kinema.models.two_stream import MFST_TINY_RGBD
from kinema.training.activation_checkpointing import checkpoint_activations
from kinema.training.plan import saved_bytes


@pytest.fixture
def pair():
    """Return two copies of a small CTN, the second with activation checkpointing."""
    torch.manual_seed(0)
    model = create_model(
        "ctn_tiny", num_classes=3, frames=8, size=32, depth=3, width=24, attention_heads=3, dropout=0.2
    )
    other = copy.deepcopy(model)
    assert checkpoint_activations(other) == 3
    return model, other


def test_the_stages_of_both_streams_are_computed_again():
    torch.manual_seed(0)
    fields = {"layers": 1, "widths": (16, 16, 24, 24), "channel_divisor": 8}
    config = replace(
        MFST_TINY_RGBD, rgb=replace(MFST_TINY, **fields), depth=replace(MFST_TINY, **fields), stream_dropout=0.0
    )
    model = config.build(heads={"label": 3}, channels={"rgb": 3, "depth": 1}, frames=4, size=32)
    other = copy.deepcopy(model)
    assert checkpoint_activations(other) == 24  # two inception modules and two transformer layers in each of six stages
    assert_equal_steps(model, other, (3, 1))


@pytest.mark.parametrize("factorization", ["stage", "model"])
def test_the_stages_of_mfst_are_computed_again_in_either_order(factorization):
    torch.manual_seed(0)
    model = create_model("mfst_tiny", num_classes=3, frames=4, size=32, layers=1, factorization=factorization)
    other = copy.deepcopy(model)
    assert checkpoint_activations(other) == 12
    assert saved_bytes(other, channels=3, frames=4, size=32) < 0.6 * saved_bytes(model, channels=3, frames=4, size=32)
    assert_equal_steps(model, other, (3,))


def assert_equal_steps(model, other, channels):
    generator = torch.Generator().manual_seed(2)
    clips = [torch.randn(2, count, 4, 32, 32, generator=generator) for count in channels]
    for network in (model, other):
        torch.nn.functional.cross_entropy(network(*clips), torch.tensor([0, 2])).backward()
    for (name, kept), again in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(again.grad, kept.grad, rtol=0, atol=0, msg=name)
    assert all(torch.equal(one, two) for one, two in zip(model.buffers(), other.buffers(), strict=True))


def step(model):
    torch.manual_seed(1)
    clips = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(2))
    torch.nn.functional.cross_entropy(model(clips), torch.tensor([0, 2])).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_gradients_and_running_statistics_are_the_same(pair):
    kept, again = (step(model) for model in pair)
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, rtol=0, atol=0, msg=name)
    one, other = (model.state_dict() for model in pair)
    assert one.keys() == other.keys()
    assert any("running_mean" in name for name in one)
    for name, value in one.items():
        assert torch.equal(other[name], value), name


def test_blocks_are_computed_twice_in_training_and_once_in_evaluation(pair):
    calls = []
    for block in pair[1].blocks:
        block.attention.register_forward_hook(lambda *_: calls.append(1))
    step(pair[1])
    assert len(calls) == 6
    calls.clear()
    pair[1].eval()(torch.zeros(1, 3, 8, 32, 32))
    assert len(calls) == 3


def test_a_copy_computes_with_its_own_weights(pair):
    copied = evaluation_copy(pair[1])
    clips = torch.randn(1, 3, 8, 32, 32)
    before = copied(clips)
    with torch.no_grad():
        for parameter in pair[1].parameters():
            parameter.zero_()
    assert torch.equal(copied(clips), before)


def test_saved_activations_are_counted():
    """Two linear layers save their inputs, and ReLU between them its output."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 10), torch.nn.ReLU(), torch.nn.Linear(10, 3))
    counted = saved_bytes(model, channels=3, frames=2, size=2)
    assert counted == 4 * (24 + 10)


def test_more_depth_keeps_more():
    small, large = (create_model("ctn_tiny", num_classes=3, frames=8, size=32, depth=depth) for depth in (2, 4))
    assert saved_bytes(large, channels=3, frames=8, size=32) > 1.3 * saved_bytes(small, channels=3, frames=8, size=32)

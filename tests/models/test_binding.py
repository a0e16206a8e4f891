"""Modalities are bound to the arguments of `forward`, or refused."""

import pytest
import torch
from torch import nn

from kinema.errors import StreamError
from kinema.models.binding import input_binding
from kinema.models.registry import create_model

RGB, DEPTH = torch.zeros(1, 3, 8, 32, 32), torch.zeros(1, 1, 8, 32, 32)


class OneStream(nn.Module):
    def forward(self, my_video, mask=None):
        return my_video if mask is None else my_video * mask


class TwoStream(nn.Module):
    def forward(self, rgb, depth=None):
        return rgb, depth


class Compiled(nn.Module):
    """Stand-in for torch.compile's wrapper."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


@pytest.mark.parametrize("inputs", [{"rgb": RGB}, {"depth": DEPTH}, {"rgb": None, "depth": DEPTH}])
def test_one_stream_takes_any_modality_under_any_argument_name(inputs):
    clip = next(clip for clip in inputs.values() if clip is not None)
    model = OneStream()
    assert model(**input_binding(model)(inputs)) is clip


def test_two_streams_take_their_modalities_and_none_for_a_missing_one():
    model = TwoStream()
    binding = input_binding(model)
    assert model(**binding({"depth": DEPTH, "rgb": RGB})) == (RGB, DEPTH)
    assert model(**binding({"rgb": RGB})) == (RGB, None)
    assert model(**binding({"depth": DEPTH})) == (None, DEPTH)


def test_our_own_models_take_one_clip():
    model = create_model("ctn_tiny", num_classes=2, depth=1, frames=8, size=32)
    assert model(**input_binding(model)({"rgb": RGB})).shape == (1, 2)


def test_wrappers_are_unwrapped():
    model = Wrapper(Wrapper(TwoStream()))
    assert model(**input_binding(model)({"rgb": RGB})) == (RGB, None)
    assert list(input_binding(Wrapper(Compiled(OneStream())))({"rgb": RGB})) == ["my_video"]


@pytest.mark.parametrize(
    ("inputs", "word"),
    [({"rgb": RGB, "depth": DEPTH}, "rgb and depth"), ({"flow": RGB}, "'flow'"), ({}, "no"), ({"rgb": None}, "no")],
    ids=["both", "unknown", "none", "only None"],
)
def test_inputs_that_cannot_be_bound_are_refused(raises, inputs, word):
    with raises(StreamError, "OneStream" if word != "'flow'" else "", word):
        input_binding(OneStream())(inputs)


def test_an_unsupported_forward_signature_is_refused(raises):
    class Strange(nn.Module):
        def forward(self, frames, flow):
            return frames + flow

    with raises(StreamError, "Strange.forward(frames, flow)"):
        input_binding(Strange())

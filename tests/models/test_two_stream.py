"""Two-stream networks: arithmetic of the fusion, missing streams, invalid configs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kinema.config import to_json
from kinema.errors import ConfigError, StreamError, UnknownField
from kinema.layers.score_fusion import mean_logits
from kinema.models.binding import input_binding
from kinema.models.complexity import macs, parameter_count
from kinema.models.ctn import CTN_TINY
from kinema.models.mfst import MFST_TINY
from kinema.models.registry import config_from_json, create_model
from kinema.models.two_stream import TwoStream, TwoStreamConfig

SMALL = replace(MFST_TINY, widths=(16, 16, 24, 24), channel_divisor=8, layers=1, attention_heads=2, head_channels=8)
NARROW = replace(CTN_TINY, width=24, depth=1, attention_heads=3, stem_channels=4)
HEADS = {"verb": 3, "noun": 4}


def two(fusion="features", heads=None, **changes):
    torch.manual_seed(0)
    config = TwoStreamConfig(rgb=SMALL, depth=replace(SMALL, stem_operator="cdc-t"), fusion=fusion, **changes)
    return config.build(heads=heads or {"label": 5}, channels={"rgb": 3, "depth": 1}, frames=4, size=32)


def clips(batch=2):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(batch, channels, 4, 32, 32, generator=generator) for channels in (3, 1))


def test_features_of_both_streams_are_concatenated():
    model = two().eval()
    rgb, depth = clips()
    sides = [model.rgb.features(rgb), model.depth.features(depth)]
    torch.testing.assert_close(model(rgb, depth), model.heads(torch.cat(sides, 1)))


def test_the_features_of_a_missing_stream_are_zeros():
    model = two().eval()
    rgb, depth = clips()
    color, range_ = model.rgb.features(rgb), model.depth.features(depth)
    torch.testing.assert_close(model(rgb, None), model.heads(torch.cat([color, torch.zeros_like(range_)], 1)))
    torch.testing.assert_close(model(depth=depth), model.heads(torch.cat([torch.zeros_like(color), range_], 1)))


@pytest.mark.parametrize("score", ["logits", "softmax"])
@pytest.mark.parametrize("heads", [{"label": 5}, HEADS])
def test_scores_are_averaged_per_task_head(score, heads):
    model = two(score, heads).eval()
    rgb, depth = clips()
    answers = [model.rgb(rgb), model.depth(depth)]
    fused = model(rgb, depth)
    for head in heads:
        one, other = (a[head] if len(heads) > 1 else a for a in answers)
        ours = fused[head] if len(heads) > 1 else fused
        if score == "logits":
            torch.testing.assert_close(ours, (one + other) / 2)
        else:
            torch.testing.assert_close(ours.softmax(-1), (one.softmax(-1) + other.softmax(-1)) / 2)


def test_fusion_of_logits_by_hand():
    """The mean of logits and the mean of softmaxes rank different classes first."""
    one, other = torch.tensor([[4.0, 3.9, 0.0]]), torch.tensor([[-6.0, 0.0, 1.0]])
    assert mean_logits([one, other], "logits").tolist() == [[-1.0, pytest.approx(1.95), 0.5]]
    shares = np.exp([[4.0, 3.9, 0.0]]) / np.exp([4.0, 3.9, 0.0]).sum()
    shares = (shares + np.exp([[-6.0, 0.0, 1.0]]) / np.exp([-6.0, 0.0, 1.0]).sum()) / 2
    np.testing.assert_allclose(mean_logits([one, other], "softmax").exp().numpy(), shares, rtol=1e-6)


@pytest.mark.parametrize("score", ["logits", "softmax"])
def test_a_single_prediction_is_returned_unchanged(score):
    model = two(score).eval()
    rgb, depth = clips()
    assert torch.equal(model(rgb=rgb), model.rgb(rgb))
    assert torch.equal(model(depth=depth), model.depth(depth))


@pytest.mark.parametrize("fusion", ["features", "logits", "softmax"])
def test_two_missing_clips_are_refused(raises, fusion):
    with raises(StreamError, "neither"):
        two(fusion)()


def test_streams_are_dropped_at_the_given_rate():
    model = two(stream_dropout=0.4).train()
    for stream in (model.rgb, model.depth):
        stream.eval()
    rgb, depth = clips()
    rgb, depth = rgb[:1].expand(2000, -1, -1, -1, -1), depth[:1].expand(2000, -1, -1, -1, -1)
    whole = torch.cat([model.rgb.features(rgb[:1]), model.depth.features(depth[:1])], 1)
    width = model.rgb.feature_channels
    model.rgb.features = lambda clip: whole[:, :width].expand(len(clip), -1)
    model.depth.features = lambda clip: whole[:, width:].expand(len(clip), -1)
    seen = model.features(rgb, depth)
    gone = torch.stack([(part == 0).all(1) for part in seen.split(width, 1)])
    assert not gone.all(0).any()  # never both
    assert gone.float().mean(1).tolist() == pytest.approx([0.2, 0.2], abs=0.03)
    kept = ~gone
    assert torch.equal(seen[kept.all(0)], whole.expand(int(kept.all(0).sum()), -1))
    model.eval()
    assert torch.equal(model.features(rgb, depth), whole.expand(2000, -1))


@pytest.mark.parametrize("fusion", ["features", "logits", "softmax"])
def test_every_parameter_gets_a_gradient(fusion):
    model = two(fusion)
    F.cross_entropy(model(*clips(4)), torch.arange(4)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9] == []


def test_parameters_are_those_of_both_and_one_task_head():
    config = replace(SMALL, stem_operator="vanilla")
    single = config.build(heads={"label": 5}, channels={"rgb": 3}, frames=4, size=32)
    depth = config.build(heads={"label": 5}, channels={"depth": 1}, frames=4, size=32)
    apart = parameter_count(single) + parameter_count(depth)
    assert parameter_count(two("logits")) == apart
    heads = sum(parameter_count(net.heads) for net in (single, depth))
    assert parameter_count(two()) == apart - heads + 5 * (2 * 24 + 1)
    sizes = {"frames": 4, "size": 32}
    assert macs(two("logits"), channels={"rgb": 3, "depth": 1}, **sizes) == macs(single, channels=3, **sizes) + macs(
        depth, channels=1, **sizes
    )


def test_streams_may_be_of_different_kinds_and_survive_json():
    config = TwoStreamConfig(rgb=NARROW, depth=SMALL, stream_dropout=0.1)
    stored = json.loads(json.dumps(to_json(config)))
    assert stored["rgb"]["kind"] == "ctn"
    again = config_from_json(stored)
    assert again == config
    model = again.build(heads={"label": 2}, channels={"rgb": 3, "depth": 1}, frames=8, size=32)
    rgb, depth = torch.zeros(1, 3, 8, 32, 32), torch.zeros(1, 1, 8, 32, 32)
    assert model.eval()(rgb, depth).shape == (1, 2)


@pytest.mark.parametrize(
    ("stream", "field"),
    [(3, "rgb"), ({}, "rgb.kind"), ({"kind": "mfst", "config": 3}, "rgb.config"), ({"kind": "mfts"}, "rgb")],
)
def test_an_invalid_stored_stream_is_refused(raises, stream, field):
    with raises(ConfigError, field=field):
        config_from_json({"kind": "two-stream", "rgb": stream, "depth": {"kind": "mfst"}})


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"stream_dropout": 1.0}, "below 1"), ({"stream_dropout": 0.1, "fusion": "logits"}, "features")],
)
def test_invalid_values_are_refused(raises, changes, word):
    with raises(ConfigError, word, field="stream_dropout"):
        TwoStreamConfig(rgb=SMALL, depth=SMALL, **changes)


def test_modalities_that_do_not_fit_are_refused(raises):
    config = TwoStreamConfig(rgb=SMALL, depth=SMALL)
    sizes = {"heads": {"label": 2}, "frames": 4, "size": 32}
    with raises(StreamError, "rgb and depth", field="modalities"):
        config.build(channels={"rgb": 3}, **sizes)
    with raises(StreamError, "one stream", field="modalities"):
        SMALL.build(channels={"rgb": 3, "depth": 1}, **sizes)


def test_create_model_sets_the_channels_of_each_stream(raises):
    model = create_model(
        "mfst_tiny_rgbd", num_classes=3, frames=2, size=32, depth_channels=3, fusion="softmax", stream_dropout=0.0
    )
    assert isinstance(model, TwoStream)
    assert (model.rgb.channels, model.depth.channels) == (3, 3)
    assert (model.rgb.config.stem_operator, model.depth.config.stem_operator) == ("cdc-st", "cdc-t")
    with raises(UnknownField, "mfst_tiny", field="depth_channels"):
        create_model("mfst_tiny", num_classes=3, depth_channels=3)


def test_a_missing_stream_is_allowed():
    assert input_binding(two()).allows_missing
    assert not input_binding(create_model("mfst_tiny", num_classes=2)).allows_missing

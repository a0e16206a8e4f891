"""MFST follows chapter 2."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kinema.errors import ClipError, ConfigError
from kinema.layers.folding import evaluation_copy
from kinema.layers.knn_attention import KNNSelfAttention
from kinema.models.complexity import macs, parameter_count
from kinema.models.mfst import INCEPTIONS, MFST, STAGE_POOL, Inception, MFSTConfig, Stem
from kinema.models.registry import create_model

TINY = MFSTConfig(
    widths=(16, 16, 24, 24),
    channel_divisor=8,
    layers=1,
    attention_heads=2,
    head_channels=8,
    mlp_channels=24,
)
NTU = {"label": 60}
ISOGD = {"label": 249}
BM = MFSTConfig(stages=4, stem_operator="vanilla", shortcut="none", temporal_scales=(1,))


def tiny(heads=None, frames=5, size=48, channels=3, **changes):
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, **changes)
    return MFST(config, heads=heads or {"label": 5}, channels=channels, frames=frames, size=size)


def clip(batch=2, frames=5, size=48, channels=3):
    return torch.randn(batch, channels, frames, size, size, generator=torch.Generator().manual_seed(0))


def shake(model):
    """Perturb every parameter, so that equal outputs mean equal arithmetic."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.running_mean += 0.3 * torch.randn(module.running_mean.shape, generator=generator)
                module.running_var += torch.rand(module.running_var.shape, generator=generator)
    return model


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "heads", "expected"),
    [
        (MFSTConfig(), NTU, 32_593_500),
        (MFSTConfig(stages=4), NTU, 49_709_628),
        (MFSTConfig(), ISOGD, 32_690_457),
        (MFSTConfig(stages=4), ISOGD, 49_806_585),
        (MFSTConfig(stem_kernel_frames=7), NTU, 32_631_132),
        (MFSTConfig(stages=4, stem_kernel_frames=7), NTU, 49_747_260),
        (BM, NTU, 49_577_532),
        (MFSTConfig(factorization="model"), NTU, 32_593_500),
        (MFSTConfig(stages=4, temporal_scales=(1,)), NTU, 49_709_628),
        (MFSTConfig(stages=4, stem_operator="cdc-t", stem_theta=0.8), NTU, 49_709_628),
    ],
)
def test_exact_parameter_counts(config, heads, expected):
    with torch.device("meta"):
        model = MFST(config, heads=heads, frames=32, size=224)
    assert parameter_count(model) == expected


def test_exact_parameter_counts_of_the_parts():
    with torch.device("meta"):
        model = MFST(MFSTConfig(stages=4), heads=NTU, frames=32, size=224)
    assert parameter_count(model.stem) == 364_736
    assert [parameter_count(stage) for stage in model.stages] == [7_978_656, 8_132_080, 16_086_224, 17_116_128]
    assert parameter_count(model.norm) + parameter_count(model.heads) == 31_804
    first, third = model.stages[0], model.stages[2]
    assert parameter_count(first.space.inceptions) == 496_096
    assert parameter_count(first.space.map_norm) + parameter_count(first.space.map) == 124_096
    assert parameter_count(first.space.layers) == parameter_count(first.time) == 3_679_232
    assert parameter_count(third.space.inceptions) == 971_440
    assert parameter_count(third.space.map_norm) + parameter_count(third.space.map) == 271_904
    assert parameter_count(third.space.layers) == parameter_count(third.time) == 7_355_392
    assert parameter_count(third.shortcut) == 132_096


def macs_by_hand(config, *, channels, frames, size):
    """Return the multiply-adds from the shapes of convolutions, mappings and attention."""
    side, total = math.ceil(size / 2), 0
    first, second, third = (wide // config.channel_divisor for wide in (64, 64, 192))
    total += frames * side**2 * first * channels * config.stem_kernel_frames * 49
    side = math.ceil(side / 2)
    total += frames * side**2 * (second * first + third * second * 27)
    side, inside = math.ceil(side / 2), third
    inner, hidden = config.attention_heads * config.head_channels, config.mlp_channels
    for stage in range(config.stages):
        width, given = config.widths[stage], inside
        for widths in INCEPTIONS[stage]:
            alone, middle_in, middle, small_in, small, pooled = (w // config.channel_divisor for w in widths)
            single = inside * (alone + middle_in + small_in + pooled)
            total += frames * side**2 * (single + 9 * (middle_in * middle + small_in * small))
            inside = alone + middle + small + pooled
        side //= STAGE_POOL[stage]
        places = side**2
        total += frames * places * width * (width if inside == 2 * width else inside)
        layer = 3 * width * inner + inner * width + 2 * width * hidden  # for each token
        total += config.layers * frames * (places * layer + 2 * places**2 * inner)
        lengths = [math.ceil(frames / scale) for scale in config.temporal_scales]
        total += config.layers * places * sum(t * layer + 2 * t**2 * inner for t in lengths)
        if stage and config.shortcut == "residual" and given != width:
            total += frames * places * given * width
        inside = width
    return total + inside * 60


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MFSTConfig(), 182.9e9),
        (MFSTConfig(stages=4), 218.9e9),
        (MFSTConfig(temporal_scales=(1,)), 152.3e9),
        (MFSTConfig(stages=4, temporal_scales=(1,)), 179.6e9),
    ],
)
def test_macs_counted_two_ways(config, expected):
    with torch.device("meta"):
        model = MFST(config, heads=NTU, frames=32, size=224)
    counted = macs(model, channels=3, frames=32, size=224)
    assert counted == pytest.approx(macs_by_hand(config, channels=3, frames=32, size=224), rel=1e-4)
    assert counted == pytest.approx(expected, rel=5e-4)


# -- the figure --------------------------------------------------------------------------------------------------------


def test_maps_have_the_shapes_of_the_table():
    config = MFSTConfig(stages=4)
    with torch.device("meta"):
        model = MFST(config, heads=NTU, frames=32, size=224)
        maps = model.stem(torch.empty(1, 3, 32, 224, 224))
    assert maps.shape == (1, 192, 32, 28, 28)
    maps = maps[0].transpose(0, 1)
    for stage, expected in zip(model.stages, [(256, 14), (256, 7), (512, 7), (512, 7)], strict=True):
        maps = stage(maps, 32)
        assert maps.shape == (32, expected[0], expected[1], expected[1])


@pytest.mark.parametrize("pool", ["spatial", "spatiotemporal"])
def test_an_inception_module_equals_its_separate_branches(pool):
    """The merged convolution against four branches, each with its own part of the weights."""
    torch.manual_seed(0)
    module = shake(Inception(6, (4, 3, 5, 2, 3, 2), pool=pool)).eval()
    maps = torch.randn(6, 6, 7, 7)

    def part(unit, rows):
        convolution, norm = unit.convolution, unit.norm
        out = F.conv2d(maps, convolution.weight[rows])
        out = (out - norm.running_mean[rows, None, None]) / (norm.running_var[rows, None, None] + norm.eps).sqrt()
        return F.relu(out * norm.weight[rows, None, None] + norm.bias[rows, None, None])

    alone, middle, small = (part(module.single, rows) for rows in (slice(0, 4), slice(4, 7), slice(7, 9)))
    if pool == "spatial":
        around = F.max_pool2d(maps, 3, stride=1, padding=1)
    else:
        volume = maps.view(2, 3, 6, 7, 7).transpose(1, 2)
        around = F.max_pool3d(volume, 3, stride=1, padding=1).transpose(1, 2).reshape(6, 6, 7, 7)
    expected = torch.cat((alone, module.middle(middle), module.small(small), module.pooled(around)), 1)
    torch.testing.assert_close(module(maps, 3), expected, rtol=1e-5, atol=1e-5)


def test_channel_pairs_are_reduced_by_their_maximum():
    """I3D's 4c has 512 channels for 256 of a token; here an eighth of both."""
    model = shake(tiny(widths=(16, 32, 24, 24))).eval()
    space = model.stages[1].space
    assert (model.stages[0].space.has_pairs, space.has_pairs) == (False, True)
    space.layers = nn.ModuleList()
    maps = torch.randn(5, 16, 4, 4)
    made = maps
    for inception in space.inceptions:
        made = inception(made, 5)
    pooled = F.max_pool2d(made, 2)
    largest = torch.stack([torch.maximum(pooled[:, 2 * c], pooled[:, 2 * c + 1]) for c in range(32)], dim=-1)
    expected = space.map(space.map_norm(largest)).permute(0, 3, 1, 2)
    torch.testing.assert_close(space(maps, 5), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operator", ["vanilla", "cdc-st", "cdc-t"])
def test_stem_convolutions_larger_than_1x1x1_use_the_operator(operator):
    stem = tiny(stem_operator=operator, stem_theta=0.3).stem
    for unit in (stem.first, stem.third):
        assert (unit.convolution.operator, unit.convolution.theta) == (operator, 0.3)
    assert type(stem.second.convolution) is nn.Conv3d


def test_spatial_blocks_do_not_mix_frames():
    """One frame does not affect another in MSC-Trans."""
    model = shake(tiny()).eval()
    maps = torch.randn(5, 24, 8, 8)
    changed = maps.clone()
    changed[2] += 1
    before, after = (model.stages[0].space(m, 5) for m in (maps, changed))
    assert torch.equal(before[[0, 1, 3, 4]], after[[0, 1, 3, 4]])
    assert not torch.equal(before[2], after[2])


def test_temporal_blocks_do_not_mix_locations():
    model = shake(tiny()).eval()
    maps = torch.randn(5, 16, 4, 4)
    changed = maps.clone()
    changed[3, :, 1, 2] = torch.randn(16)
    before, after = (model.stages[0].time(m, 5) for m in (maps, changed))
    others = torch.ones(4, 4, dtype=torch.bool)
    others[1, 2] = False
    torch.testing.assert_close(before[:, :, others], after[:, :, others], rtol=0, atol=1e-6)
    touched = (before[:, :, 1, 2] - after[:, :, 1, 2]).abs().amax(1) > 1e-3
    assert touched.sum() > 1  # other frames of that place too, as far as they are among the nearest


def test_clips_of_a_batch_do_not_mix():
    model = shake(tiny()).eval()
    both = clip(batch=2)
    alone = torch.cat([model(both[:1]), model(both[1:])])
    torch.testing.assert_close(model(both), alone, rtol=1e-4, atol=1e-5)


def test_the_shortcut_adds_the_stages_input():
    stage = shake(tiny()).eval().stages[1]
    maps = torch.randn(10, 16, 6, 6)
    around = stage.time(stage.space(maps, 5), 5)
    torch.testing.assert_close(stage(maps, 5), around + F.max_pool2d(maps, 2))


def test_the_first_stage_and_a_network_without_residuals_have_no_shortcut():
    assert tiny().stages[0].shortcut is None
    assert all(stage.shortcut is None for stage in tiny(shortcut="none").stages)


def test_factorization_by_model_runs_space_before_time():
    """Factorization by model: the same parts in the other order; shortcuts pass the temporal features."""
    model = shake(tiny(factorization="model")).eval()
    one, two, three = model.stages
    maps = model.stem(clip()).transpose(1, 2).flatten(0, 1)
    space_1 = one.space(maps, 5)
    space_2 = two.space(space_1, 5)
    space_3 = three.space(space_2, 5)
    time_1 = one.time(space_1, 5)
    time_2 = two.time(space_2 + two.shortcut(time_1), 5)
    time_3 = three.time(space_3 + three.shortcut(time_2), 5)
    expected = model.norm(time_3.view(2, 5, 24, -1).mean((1, 3)))
    torch.testing.assert_close(model.features(clip()), expected, rtol=1e-4, atol=1e-5)
    other = tiny(factorization="stage")
    other.load_state_dict(model.state_dict())
    assert not torch.allclose(other.eval()(clip()), model(clip()), atol=1e-3)


def test_pooled_sequences_change_all_locations_equally():
    time = shake(tiny(temporal_tokens="pooled")).eval().stages[0].time
    maps = torch.randn(5, 16, 4, 4)
    change = time(maps, 5) - maps
    torch.testing.assert_close(change, change.mean((2, 3), keepdim=True).expand_as(change), rtol=0, atol=1e-5)
    tokens = maps.mean((2, 3))[None]
    torch.testing.assert_close(change.mean((2, 3))[None], time.transformer(tokens) - tokens, rtol=0, atol=1e-5)


@pytest.mark.parametrize("where", ["spatial", "temporal"])
def test_spatial_and_temporal_attention_are_configured_separately(where):
    model = tiny(**{f"{where}_attention": "dense", "temporal_scales": (1,)})
    kinds = {"space": set(), "time": set()}
    for name, module in model.named_modules():
        if isinstance(module, KNNSelfAttention):
            kinds["space" if ".space." in name else "time"].add(module.attention)
    own, other = ("space", "time") if where == "spatial" else ("time", "space")
    assert kinds[own] == {"dense"}
    assert kinds[other] == {"knn"}


# -- what it can be given ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 32, 32), (2, 33, 47), (7, 64, 40), (9, 32, 56)])
@pytest.mark.parametrize("stages", [3, 4])
def test_any_number_of_frames_and_any_size_from_32_pixels(frames, height, width, stages):
    model = tiny(stages=stages).eval()
    answer = model(torch.randn(1, 3, frames, height, width))
    assert answer.shape == (1, 5)
    assert answer.isfinite().all()


@pytest.mark.parametrize("extent", [(31, 40), (40, 16)])
def test_smaller_sides_are_refused(raises, extent):
    with raises(ClipError, 32, field="size"):
        tiny()(torch.zeros(1, 3, 5, *extent))


@pytest.mark.parametrize(
    ("clip_of", "field"),
    [
        ({"channels": 0, "frames": 5, "size": 48}, "channels"),
        ({"channels": 3, "frames": 0, "size": 48}, "frames"),
        ({"channels": 3, "frames": 5, "size": 31}, "size"),
    ],
)
def test_a_network_for_impossible_clips_is_refused(raises, clip_of, field):
    with raises(ClipError, f"{field}={clip_of[field]}", field=field):
        MFST(TINY, heads=NTU, **clip_of)


def test_zero_depth_gives_finite_logits_and_nan_propagates():
    model = tiny(channels=1)
    assert model(torch.zeros(2, 1, 5, 48, 48)).isfinite().all()
    broken = torch.zeros(2, 1, 5, 48, 48)
    broken[1, 0, 2, 10, 10] = math.nan
    answer = model.eval()(broken)
    assert answer[0].isfinite().all()
    assert answer[1].isnan().all()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"knn_share": 0.0}, "knn_share"),
        ({"knn_share": 1.1}, "knn_share"),
        ({"stem_theta": -0.1}, "stem_theta"),
        ({"stem_theta": 1.1}, "stem_theta"),
        *(({name: 0}, name) for name in ("layers", "attention_heads", "head_channels", "mlp_channels")),
        ({"widths": (16, 0, 16, 16)}, "widths.1"),
        ({"dropout": 1.0}, "dropout"),
        ({"temporal_scales": ()}, "temporal_scales"),
        ({"temporal_scales": (1, 1)}, "temporal_scales"),
        ({"temporal_scales": (0, 1)}, "temporal_scales.0"),
        ({"factorization": "model", "shortcut": "none"}, "shortcut"),
    ],
    ids=str,
)
def test_invalid_values_are_refused(raises, changes, field):
    with raises(ConfigError, field=field):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize("change", [{"stages": 5}, {"channel_divisor": 3}, {"stem_operator": "cdc"}])
def test_a_misspelt_choice_is_refused_by_name(raises, change):
    (name,) = change
    with raises(ConfigError, " or ", field=name):
        create_model("mfst_tiny", num_classes=3, **change)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_clip_with_other_channels_is_refused(raises, channels):
    with raises(ClipError, f"channels={channels}", field="channels"):
        tiny()(torch.zeros(1, channels, 5, 48, 48))


def test_several_task_heads_return_a_dict():
    answers = tiny(heads={"verb": 3, "noun": 4}).eval()(clip())
    assert {name: logits.shape for name, logits in answers.items()} == {"verb": (2, 3), "noun": (2, 4)}


# -- learning and evaluation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"factorization": "model"},
        {"temporal_branches": "unshared"},
        {"shortcut": "none"},
        {"stem_operator": "cdc-t"},
    ],
)
def test_every_parameter_gets_a_gradient(changes):
    model = shake(tiny(**changes))
    F.cross_entropy(model(clip(batch=4)), torch.tensor([0, 1, 2, 3])).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9]
    assert still == []


def test_the_evaluation_copy_merges_layers_and_gives_the_same_logits():
    model = shake(tiny()).eval()
    copied = evaluation_copy(model)
    assert not any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d) for m in copied.modules())
    torch.testing.assert_close(copied(clip()), model(clip()), rtol=1e-4, atol=1e-4)
    assert any(isinstance(m, nn.BatchNorm3d) for m in model.modules())


@pytest.mark.parametrize("channels", [1, pytest.param(3, marks=pytest.mark.long)])
def test_the_evaluation_copy_can_be_exported_with_a_dynamic_batch(channels):
    copied = evaluation_copy(shake(tiny(channels=channels, frames=4, size=32, stages=1)))
    batch = torch.export.Dim("batch", min=1, max=8)
    given = clip(batch=2, channels=channels, frames=4, size=32)
    exported = torch.export.export(copied, (given,), dynamic_shapes={"clip": {0: batch}}).module()
    others = clip(batch=3, channels=channels, frames=4, size=32)
    torch.testing.assert_close(exported(others), copied(others))


def test_evaluation_does_not_depend_on_the_batch():
    model = shake(tiny(dropout=0.3)).eval()
    torch.testing.assert_close(model(clip(batch=3))[:1], model(clip(batch=3)[:1]), rtol=1e-4, atol=1e-5)


def test_central_differences_differ_from_plain_convolutions():
    plain, differences = (tiny(stem_operator=operator).eval() for operator in ("vanilla", "cdc-st"))
    differences.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(clip()), differences(clip()), atol=1e-4)


def test_a_constant_clip_is_zero_to_a_stem_of_differences_only():
    """With theta 1, 3D-CDC-ST sees differences only: inside the border, a gray clip's response is BN's of 0."""
    torch.manual_seed(0)
    stem = Stem(dataclasses.replace(TINY, stem_theta=1.0), channels=3).eval()
    gray = stem.first.convolution(torch.full((1, 3, 5, 48, 48), 0.7))
    assert gray[:, :, 1:-1, 2:-2, 2:-2].abs().max() < 1e-5


def test_bfloat16_logits_are_close():
    model = shake(tiny()).eval()
    with torch.autocast("cpu", torch.bfloat16):
        low = model(clip())
    torch.testing.assert_close(low.float(), model(clip()), rtol=0.2, atol=0.3)


def test_copies_are_independent():
    model = tiny().eval()
    copied = copy.deepcopy(model)
    before = copied(clip())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(copied(clip()), before)

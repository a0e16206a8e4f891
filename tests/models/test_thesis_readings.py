"""Readings of the thesis that are named choices equal literal loops, and change the parameters as counted by hand."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from small_rpe_stdt import clip, shake, tiny

from kinema.errors import ClipError, ConfigError
from kinema.layers.central_difference import CentralDifferenceConv3d
from kinema.layers.conv_projection import ConvolutionalMapping
from kinema.layers.folding import evaluation_copy
from kinema.layers.relative_position import Clusters, sectioned
from kinema.layers.temporal_topk import FramePooling
from kinema.layers.transformer import init_weights
from kinema.models.complexity import parameter_count
from kinema.models.ctn import CTNConfig
from kinema.models.mfst import INCEPTIONS, MFST, MFST_LARGE_DEPTH, MFST_TINY, MFSTConfig
from kinema.models.registry import create_model
from kinema.models.rpe_stdt import RPE_STDT_BASE12, RPESTDT, RPESTDTConfig
from kinema.models.two_stream import TwoStreamConfig

PRINTED = [0, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3]
"""s(0), ..., s(13) with b = 1.5, y = 3, a = 12, by hand: 6 is an exact tie at 2.5."""


def count(config, heads, *, frames, size=224):
    with torch.device("meta"):
        return parameter_count(config.build(heads=heads, channels={"rgb": 3}, frames=frames, size=size))


# -- clusters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_the_printed_ratio_by_hand(dtype):
    offsets = torch.arange(-13, 14).to(dtype)
    assert sectioned(offsets, 1.5).tolist() == [math.copysign(1, x) * PRINTED[abs(x)] for x in range(-13, 14)]


@pytest.mark.parametrize("reach", [1, 2, 3, 4, 5, 6])
def test_the_printed_ratio_is_exactly_1_2_8(reach):
    """A number is rounded up where x > b 8^((m + 1/2) / b - 1), compared without a logarithm."""
    b = reach / 2
    clusters = Clusters(count=(2 * reach + 1) ** 2 + 1, ratio="printed")
    for x in range(14):
        halves = [m + 0.5 for m in range(reach) if m + 0.5 > b and x > b * 8 ** ((m + 0.5) / b - 1) + 1e-9]
        expected = x if x <= b else math.ceil(max([b, *halves]))
        assert clusters.map_offset(torch.tensor(x)).item() == expected + reach, x


def test_offsets_4_to_6_tell_the_ratios_apart():
    irpe, printed = Clusters(), Clusters(ratio="printed")
    for x in range(14):
        offset = torch.tensor(x)
        assert (irpe.map_offset(offset) - printed.map_offset(offset)).item() == (x in (4, 5, 6)), x
    assert printed.on_grid(14, 14).unique().tolist() == list(range(50))


def test_rounding_the_distance_first_as_irpe_does():
    """(2, 3) of 8 clusters is in 5 here and in 6 there."""
    plain, rounded = (Clusters(count=8, distance=distance) for distance in ("euclid", "euclid-rounded"))
    two, three = torch.tensor(2), torch.tensor(3)
    assert (plain.cluster_of(two, three).item(), rounded.cluster_of(two, three).item()) == (5, 6)
    for row in range(-6, 7):
        for column in range(-6, 7):
            x, b = round(math.sqrt(row * row + column * column)), 1.9
            s = x if x <= b else min(3, round(b + math.log(x / b) / math.log(8) * b))
            assert rounded.cluster_of(torch.tensor(row), torch.tensor(column)).item() == s + 3
    times = torch.arange(6)
    assert torch.equal(plain.on_times(times), rounded.on_times(times))


@pytest.mark.parametrize("changes", [{"position_ratio": "printed"}, {"position_distance": "euclid-rounded"}], ids=str)
def test_a_network_takes_its_clusters_from_the_config(changes):
    few = {"clusters": 8} if "position_distance" in changes else {}
    model, other = tiny(**changes, **few), tiny(**({"position_distance": "euclid"} if few else {}), **few)
    assert parameter_count(model) == parameter_count(other)
    wide = model.config.spatial_clusters.on_grid(8, 8)
    assert not torch.equal(wide, other.config.spatial_clusters.on_grid(8, 8))
    assert torch.equal(model.cluster_ids(8, 8)[0, 0], wide)


# -- positions ---------------------------------------------------------------------------------------------------------


def waves(length, dim):
    """Return eq. 2.9 and 2.10, those of [19], as a loop."""
    table = np.zeros((length, dim))
    for position in range(length):
        for i in range(0, dim, 2):
            table[position, i] = math.sin(position / 10000 ** (i / dim))
            table[position, i + 1] = math.cos(position / 10000 ** (i / dim))
    return torch.from_numpy(table)


def test_sinusoidal_positions_equal_a_table_of_sines_and_cosines():
    """P of eq. 3.1 has N + 1 rows: the class token's is the first."""
    model = shake(tiny(position="sinusoidal", frames=8)).double().eval()
    learned = tiny(position="absolute", frames=8).double().eval()
    report = learned.load_state_dict(model.state_dict(), strict=False)
    assert report.missing_keys == ["spatial_position.table", "temporal_position.table"]
    with torch.no_grad():
        learned.spatial_position.table.copy_(waves(1 + 16, 16))
        learned.temporal_position.table.copy_(waves(1 + 8, 16))
    x = clip(dtype=torch.float64)
    torch.testing.assert_close(model(x), learned(x), rtol=0, atol=1e-12)
    bare = tiny(position="none", frames=8).double().eval()
    bare.load_state_dict(model.state_dict())
    assert (bare(x) - model(x)).abs().max() > 1e-3


def test_sinusoidal_positions_fit_other_lengths_and_sizes():
    model = tiny(position="sinusoidal", frames=8).eval()
    assert model(clip(frames=5, height=24, width=40)).shape == (2, 5)


# -- pooling of frames -------------------------------------------------------------------------------------------------


def softmax(row):
    exps = [math.exp(x - max(row)) for x in row]
    return [x / sum(exps) for x in exps]


def test_a_second_softmax_equals_a_loop_over_rows():
    """The attention of a block that pools, per head: probabilities, the kept rows, softmax again, the sum of values."""
    model = shake(tiny(position="none", pool_softmax="twice", pool_heads="per-head", pool_layers=(0,)), 0.5)
    block = model.double().eval().temporal_blocks[0]
    tokens = torch.randn(1, 7, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    times = torch.arange(6).expand(1, 1, -1)
    seen = []
    block.attention.out.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    _, kept, _ = block(tokens, times, None)
    query, key, value = block.attention._split(block.attention.mapping(block.norm_attention(tokens)), 3)
    for head in range(2):
        q, k, v = (part[0, head].tolist() for part in (query, key, value))
        products = [[sum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(6) for y in k] for x in q]
        rows = [softmax(row) for row in products]
        spread = [float(np.std(row)) for row in rows[1:]]
        frames = sorted(sorted(range(6), key=lambda frame: -spread[frame])[:3])
        assert kept[0, head].tolist() == frames
        for place, row in enumerate([rows[0], *(rows[1 + frame] for frame in frames)]):
            again = softmax(row)
            expected = [sum(w * x[c] for w, x in zip(again, v, strict=True)) for c in range(6)]
            got = seen[0][0, place, 6 * head : 6 * head + 6].tolist()
            assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("kernel", "kept"), [(2, 3), (3, 4)])
def test_a_strided_convolution_of_each_kernel_equals_a_loop(kernel, kept):
    torch.manual_seed(0)
    pooling = FramePooling("convolution", 4, kernel=kernel).double()
    tokens = torch.randn(1, 8, 4, dtype=torch.float64)  # a class token and 7 frames
    weight, bias = pooling.convolution.weight, pooling.convolution.bias
    got = pooling(tokens)
    assert got.shape == (1, 1 + kept, 4)
    assert torch.equal(got[:, 0], tokens[:, 0])
    for place in range(kept):
        for out in range(4):
            total = bias[out].item()
            for tap in range(kernel):
                frame = 2 * place + tap - (kernel == 3)
                if 0 <= frame < 7:
                    total += sum((weight[out, c, tap] * tokens[0, 1 + frame, c]).item() for c in range(4))
            assert got[0, 1 + place, out].item() == pytest.approx(total, abs=1e-12)


def test_the_readings_of_pooling_have_the_parameters_of_their_kernels():
    heads, by_kernel = {"label": 101}, {}
    for kernel in (2, 3):
        config = dataclasses.replace(RPE_STDT_BASE12, pool="convolution", pool_kernel=kernel)
        by_kernel[kernel] = count(config, heads, frames=16)
    assert count(RPE_STDT_BASE12, heads, frames=16) == 96_805_477
    assert by_kernel == {n: 96_805_477 + 2 * (n * 768 * 768 + 768) for n in (2, 3)}
    twice = dataclasses.replace(RPE_STDT_BASE12, pool_softmax="twice", pool_scores="logits")
    assert count(twice, heads, frames=16) == 96_805_477


# -- heads and maps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "classes", "frames", "expected"),
    [
        (MFSTConfig(), 60, 32, 32_593_500),
        (MFSTConfig(head="mlp"), 60, 32, 32_593_500 + 512 * 512 + 512),
        (RPESTDTConfig(), 101, 16, 85_756_005),
        (RPESTDTConfig(head="mlp"), 101, 16, 85_756_005 + 768 * 768 + 768),
        (RPESTDTConfig(position="sinusoidal"), 101, 16, 85_727_333),
        (RPESTDTConfig(position_ratio="printed"), 101, 16, 85_756_005),
    ],
    ids=str,
)
def test_exact_parameter_counts_of_the_readings(config, classes, frames, expected):
    assert count(config, {"label": classes}, frames=frames) == expected


def test_an_mlp_head_equals_a_loop():
    model = shake(tiny(heads={"verb": 3, "noun": 4}, head="mlp")).double().eval()
    x = clip(dtype=torch.float64)
    features, logits = model.features(x).tolist(), model(x)
    for head, classes in (("verb", 3), ("noun", 4)):
        first, _, last = model.heads.classifiers[f"head_{head}"]
        for row, sample in enumerate(features):
            hidden = []
            for weight, bias in zip(first.weight.tolist(), first.bias.tolist(), strict=True):
                total = sum(w * f for w, f in zip(weight, sample, strict=True)) + bias
                hidden.append(total * 0.5 * (1 + math.erf(total / math.sqrt(2))))
            for number in range(classes):
                weight, bias = last.weight[number].tolist(), last.bias[number].item()
                expected = sum(w * h for w, h in zip(weight, hidden, strict=True)) + bias
                assert logits[head][row, number].item() == pytest.approx(expected, abs=1e-10)


def test_two_streams_with_one_head_of_their_own_refuse_an_mlp_head(raises):
    mlp = dataclasses.replace(MFST_TINY, head="mlp")
    with raises(ConfigError, "mlp", field="fusion"):
        TwoStreamConfig(rgb=mlp, depth=MFST_TINY)
    assert TwoStreamConfig(rgb=mlp, depth=MFST_TINY, fusion="logits").rgb.head == "mlp"


def test_a_map_without_layers_only_reshapes():
    config = dataclasses.replace(MFST_TINY, token_map="none", channel_divisor=8, layers=1)
    torch.manual_seed(0)
    model = MFST(config, heads={"label": 5}, frames=3, size=32).double().eval()
    space, seen = model.stages[1].space, []
    space.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    maps = torch.rand(3, 480 // 8, 4, 4, dtype=torch.float64)
    space(maps, 3)
    through = maps
    for inception in space.inceptions:
        through = inception(through, 3)
    for frame in range(3):
        for row in range(2):
            for column in range(2):
                block = through[frame, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                largest = [max(values.flatten().tolist()) for values in block]
                assert seen[0][frame, 2 * row + column].tolist() == largest
    assert model(torch.randn(2, 3, 3, 32, 32, dtype=torch.float64)).shape == (2, 5)


def test_exact_parameter_count_of_a_map_without_layers():
    """Tokens have 480, 512, 528 and 1,024 channels; all stages but the first need a convolution in the shortcut."""
    config = dataclasses.replace(MFST_LARGE_DEPTH, token_map="none")
    total, inside, widths = 364_736, 192, []
    for modules in INCEPTIONS:
        for alone, middle_in, middle, small_in, small, pooled in modules:
            convolutions = inside * (alone + middle_in + small_in + pooled) + 9 * (
                middle_in * middle + small_in * small
            )
            outputs = alone + middle_in + middle + small_in + small + pooled
            total += convolutions + 2 * outputs
            inside = alone + middle + small + pooled
        widths.append(inside)
    assert widths == [480, 512, 528, 1024]
    for stage, d in enumerate(widths):
        layer = 4 * d + 3 * 512 * d + 512 * d + d + 2 * 768 * d + 768 + d
        total += 8 * layer
        if stage:
            total += widths[stage - 1] * d + 2 * d
    total += 2 * 1024 + 1024 * 60 + 60
    assert count(config, {"label": 60}, frames=32) == total


@pytest.mark.parametrize(("operator", "scale"), [("cdc-st", 1 - 0.6), ("cdc-t", 1.0)])
def test_central_differences_of_the_second_convolution_vanish_in_its_norm(operator, scale):
    """The reason why the stem's 1 x 1 x 1 convolution is plain: CDC scales it, and BatchNorm divides by the scale."""
    torch.manual_seed(0)
    plain, norm = torch.nn.Conv3d(4, 6, 1, bias=False), torch.nn.BatchNorm3d(6, eps=1e-12)
    cdc = CentralDifferenceConv3d(4, 6, 1, operator=operator, theta=0.6)
    cdc.weight.data.copy_(plain.weight)
    plain, norm, cdc = plain.double(), norm.double(), cdc.double()
    clip_ = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(cdc(clip_), scale * plain(clip_), rtol=0, atol=1e-12)
    torch.testing.assert_close(norm(cdc(clip_)), norm(plain(clip_)), rtol=0, atol=1e-9)


# -- CTN and the grid of MFST ------------------------------------------------------------------------------------------


def test_an_extra_projection_is_one_more_linear_layer():
    """86,218,000 parameters and 12 x 3 layers of 768 x 768 with bias; a ViT's function stays, until it is trained."""
    assert count(CTNConfig(), {"label": 48}, frames=8) == 86_218_000
    extra = CTNConfig(mapping_projection="extra")
    assert count(extra, {"label": 48}, frames=8) == 86_218_000 + 12 * 3 * (768 * 768 + 768)
    torch.manual_seed(0)
    mapping = ConvolutionalMapping(8, kernel=3, norm="batch", padding="zeros", projection="extra").double().eval()
    init_weights(mapping, "vit")
    tokens = torch.randn(2, 1 + 2 * 9, 8, dtype=torch.float64)
    for part, mapped in zip((mapping.query, mapping.key, mapping.value), mapping(tokens, (2, 3, 3)), strict=True):
        torch.testing.assert_close(mapped, part.pointwise(tokens), rtol=0, atol=1e-12)
    shake(mapping)
    for rows in ("all", "class"):
        exact, folded = mapping(tokens, (2, 3, 3), rows), mapping.folded()(tokens, (2, 3, 3), rows)
        for part, ours, fast in zip((mapping.query, mapping.key, mapping.value), exact, folded, strict=True):
            torch.testing.assert_close(fast, ours, rtol=0, atol=1e-12)
            first, second = part.pointwise, part.projection
            vector = tokens[0, 0].tolist()
            hidden = [sum(w * x for w, x in zip(row, vector, strict=True)) for row in first.weight.tolist()]
            hidden = [h + b for h, b in zip(hidden, first.bias.tolist(), strict=True)]
            for number, row in enumerate(second.weight.tolist()):
                expected = sum(w * h for w, h in zip(row, hidden, strict=True)) + second.bias[number].item()
                assert ours[0, 0, number].item() == pytest.approx(expected, abs=1e-12)


def test_a_network_with_an_extra_projection_has_gradients_and_folds():
    torch.manual_seed(0)
    model = CTNConfig(
        stem_kernel=3, stem_channels=4, width=24, depth=2, attention_heads=3, mapping_projection="extra"
    ).build(heads={"label": 5}, channels={"rgb": 3}, frames=8, size=32)
    model(torch.randn(2, 3, 8, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    x = torch.randn(1, 3, 8, 32, 32)
    torch.testing.assert_close(evaluation_copy(model)(x), model.eval()(x), rtol=0, atol=1e-4)


def test_pooling_in_every_stage_halves_the_grid_four_times(raises):
    config = dataclasses.replace(MFST_TINY, stages=4, stage_pool="every", channel_divisor=8, layers=1)
    assert count(config, {"label": 5}, frames=4, size=128) == count(
        dataclasses.replace(config, stage_pool="first-two"), {"label": 5}, frames=4, size=128
    )
    torch.manual_seed(0)
    model = MFST(config, heads={"label": 5}, frames=2, size=128).eval()
    grids = []
    for stage in model.stages:
        stage.register_forward_hook(lambda _, __, maps: grids.append(tuple(maps.shape[2:])))
    assert model(torch.randn(1, 3, 2, 128, 160)).shape == (1, 5)
    assert grids == [(8, 10), (4, 5), (2, 2), (1, 1)]
    with raises(ClipError, "128", field="size"):
        config.check_clip(channels=3, frames=2, size=127)
    assert MFSTConfig(stage_pool="every").check_clip(channels=3, frames=2, size=64) is None


# -- what cannot be combined -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"pool_softmax": "twice", "pool": "max"}, "pool_softmax"),
        ({"pool_softmax": "twice", "pool_place": "between"}, "pool_softmax"),
        ({"pool_kernel": 2}, "pool_kernel"),
        ({"position_ratio": "printed", "position_function": "clip"}, "position_ratio"),
    ],
    ids=str,
)
def test_readings_that_exclude_each_other_are_refused(raises, changes, field):
    with raises(ConfigError, field=field):
        RPESTDTConfig(**changes)


def test_a_linear_mapping_refuses_an_extra_projection(raises):
    with raises(ConfigError, "convolution", field="mapping_projection"):
        CTNConfig(mapping="linear", mapping_projection="extra")
    with raises(ConfigError, field="width"):
        CTNConfig(width=25)


def test_create_model_takes_the_readings():
    model = create_model("rpe_stdt_tiny", num_classes=3, head="mlp", position="sinusoidal", pool_softmax="twice")
    assert isinstance(model, RPESTDT)
    assert model.eval()(torch.randn(1, 3, 4, 32, 32)).shape == (1, 3)

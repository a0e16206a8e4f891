"""RPE-STDT's temporal encoder equals loops over clips, attention heads and pairs of frames."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import small_rpe_stdt
import torch
from small_rpe_stdt import shake
from torch import nn

from kinema.errors import ClipError
from kinema.layers.temporal_topk import random_frames
from kinema.models.rpe_stdt import RPESTDT

TINY = dataclasses.replace(small_rpe_stdt.TINY, spatial_layers=1)
BETWEEN = {"pool_place": "between"}
APART = {"pool_heads": "per-head"}
LOGITS = {"pool_scores": "logits"}
EVERY_TERM = {"position_terms": "query-key-value"}
POOLS = ("top-k", "max", "average", "convolution", "random", "uniform")
TOP_KS = [
    {},
    APART,
    LOGITS,
    BETWEEN,
    {**APART, **LOGITS},
    {**APART, **BETWEEN},
    {**LOGITS, **BETWEEN},
    {**APART, **LOGITS, **BETWEEN},
]


def tiny(frames=8, **changes):
    """Return a float64 network with perturbed parameters: tables start at zero, attention nearly flat."""
    torch.manual_seed(0)
    model = RPESTDT(dataclasses.replace(TINY, **changes), heads={"label": 5}, frames=frames, size=16).double().eval()
    return shake(model, by=0.5)


def some_frames(count=9, *, clips=2):
    """Return random outputs of the spatial encoder."""
    generator = torch.Generator().manual_seed(count)
    return torch.randn(clips, count, TINY.width, dtype=torch.float64, generator=generator)


def features(model, frames):
    return model.norm(model.encode_time(frames)[0][:, 0])


# -- as one reads it ---------------------------------------------------------------------------------------------------

CLASS = None
"""Frame number of the class token."""


def cluster(config, i, j):
    """Return the cluster of two frame numbers; 50 clusters in space are 7 + 1 in time."""
    if i is CLASS or j is CLASS:
        return 7
    if config.position_function == "clip":
        return max(-3, min(3, i - j)) + 3
    return int(math.copysign((0, 1, 2, 2, 3)[min(abs(i - j), 4)], i - j)) + 3


def normed(x, norm):
    mean, deviation = x.mean(-1, keepdims=True), np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return (x - mean) / deviation * norm.weight.numpy() + norm.bias.numpy()


def linear(x, layer):
    return x @ layer.weight.numpy().T + layer.bias.numpy()


def mlp(x, block):
    hidden = linear(normed(x, block.norm_mlp), block.mlp.expand)
    return linear(hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2, block.mlp.contract)


def attend(config, block, x, numbers):
    """Return logits, map and output rows of each attention head by eq. 3.5 and 3.6, pair by pair."""
    attention, n, d = block.attention, len(x), config.temporal_head_channels
    mapped = linear(normed(x, block.norm_attention), attention.mapping).reshape(n, 3, config.temporal_heads, d)
    logits, attended = np.zeros((config.temporal_heads, n, n)), np.zeros((n, config.temporal_heads, d))
    weights = np.zeros_like(logits)
    for head in range(config.temporal_heads):

        def vector(name, i, j, head=head):
            table = getattr(attention.position, f"table_on_{name}", None)
            if table is None:
                return np.zeros(d)
            own = table[head] if config.position == "per-head" else table[0]
            return own[cluster(config, numbers[head][i], numbers[head][j])].numpy()

        query, key, value = mapped[:, 0, head], mapped[:, 1, head], mapped[:, 2, head]
        for i in range(n):
            for j in range(n):
                meeting = (query[i] + vector("key", i, j)) @ (key[j] + vector("query", i, j))
                logits[head, i, j] = meeting / math.sqrt(d)
            weights[head, i] = np.exp(logits[head, i]) / np.exp(logits[head, i]).sum()
            for j in range(n):
                attended[i, head] += weights[head, i, j] * (value[j] + vector("value", i, j))
    return logits, weights, attended.reshape(n, -1)


def chosen(config, logits, weights):
    """Return the frames with the largest deviation per attention head, in temporal order (eq. 3.12 to 3.14)."""
    scores = weights if config.pool_scores == "probabilities" else logits
    sigma = np.array([[np.std(row) for row in head[1:]] for head in scores])
    if config.pool_heads == "shared":
        sigma = np.repeat(sigma.mean(0, keepdims=True), len(sigma), axis=0)
    return [sorted(sorted(range(len(s)), key=lambda place, s=s: -s[place])[: max(1, len(s) // 2)]) for s in sigma]


def gathered(config, x, places):
    """Return the rows of the class token and the selected frames; per head for its channels, if the heads differ."""
    if config.pool_heads == "shared":
        return x[[0, *(1 + place for place in places[0])]]
    shares = np.split(x, len(places), axis=1)
    return np.concatenate([s[[0, *(1 + p for p in own)]] for s, own in zip(shares, places, strict=True)], axis=1)


def at(numbers, places):
    return [[CLASS, *(own[1 + place] for place in kept)] for own, kept in zip(numbers, places, strict=True)]


def reduce_frames(config, block, x, numbers, selected):
    """Return half of the frames of one clip, by each method of Table 3.4 and the controls."""
    first, frames = x[:1], x[1:]
    kept = max(1, len(frames) // 2)
    match config.pool:
        case "top-k":
            places = selected
        case "random":
            places = [random_frames(1, len(frames), training=False)[0].tolist()] * config.temporal_heads
        case "uniform":
            places = [[math.floor((part + 0.5) * len(frames) / kept) for part in range(kept)]] * config.temporal_heads
        case "convolution":
            convolution = block.pooling.convolution
            weight, bias, pooled = convolution.weight.numpy(), convolution.bias.numpy(), []
            for t in range(0, len(frames), 2):
                near = [(tap, t + tap - 1) for tap in range(3) if 0 <= t + tap - 1 < len(frames)]
                pooled.append(bias + sum(weight[:, :, tap] @ frames[when] for tap, when in near))
            firsts = [list(range(0, len(frames), 2))] * config.temporal_heads
            return np.concatenate((first, np.stack(pooled))), at(numbers, firsts)
        case _:
            of_two = np.maximum if config.pool == "max" else lambda one, two: (one + two) / 2
            pooled = [of_two(frames[t], frames[t + 1]) for t in range(0, 2 * kept, 2)]
            return np.concatenate((first, np.stack(pooled))), at(
                numbers, [range(0, 2 * kept, 2)] * config.temporal_heads
            )
    return gathered(config, x, places), at(numbers, places)


@torch.no_grad()
def reference_encoder(model, frames):
    """Return the tokens of one clip after the last layer, and the frames that each pooling layer keeps."""
    config = model.config
    x = np.concatenate((model.temporal_class_token.token[None].numpy(), frames.numpy()))
    if config.position == "absolute":
        x = x + model.temporal_position((torch.zeros(1, *x.shape, dtype=torch.float64)), (len(frames),))[0].numpy()
    numbers, selected, kept = [[CLASS, *range(len(frames))]] * config.temporal_heads, None, {}
    for layer, block in enumerate(model.temporal_blocks):
        pools = config.pool != "none" and layer in config.pool_layers
        if pools and config.pool_place == "between":
            x, numbers = reduce_frames(config, block, x, numbers, selected)
        logits, weights, attended = attend(config, block, x, numbers)
        selected = chosen(config, logits, weights)
        if pools and config.pool_place == "inside" and config.pool == "top-k":
            rows = [[0, *(1 + place for place in own)] for own in selected]
            heads = np.split(attended, config.temporal_heads, axis=1)
            attended = np.concatenate([head[own] for head, own in zip(heads, rows, strict=True)], axis=1)
            x, numbers = gathered(config, x, selected), at(numbers, selected)
        x = x + linear(attended, block.attention.out)
        if pools and config.pool_place == "inside" and config.pool != "top-k":
            x, numbers = reduce_frames(config, block, x, numbers, selected)
        x = x + mlp(x, block)
        if pools:
            kept[layer] = [own[1:] for own in numbers]
    return x, kept


@pytest.mark.parametrize(
    ("frames", "changes"),
    [
        *((9, changes) for changes in TOP_KS),
        *((count, changes) for count in (1, 2, 3, 5, 16) for changes in ({}, {**APART, **BETWEEN})),
        *((9, {"position": position}) for position in ("none", "absolute", "per-head")),
        *((9, {"position_terms": "query-key", **changes}) for changes in ({}, BETWEEN)),
        *((9, {**EVERY_TERM, **changes}) for changes in TOP_KS),
        (9, {**EVERY_TERM, **APART, "position": "per-head"}),
        (9, {"temporal_position": "none"}),
        (9, {"position_function": "clip"}),
        (9, {"position_distance": "euclid", "clusters": 8}),
        *((9, {"pool_layers": layers}) for layers in ((), (0, 2), (2,), (0, 1, 2, 3))),
        (9, {"pool_layers": (0, 1, 2), **APART, **EVERY_TERM}),
        *((16, {"pool_layers": layers, **BETWEEN, **APART}) for layers in ((1, 2), (2, 3), (1, 2, 3))),
        *((count, {"pool": pool, **place}) for pool in POOLS[1:] for place in ({}, BETWEEN) for count in (8, 9)),
        *((9, {"pool": pool, "pool_layers": (0, 1), **EVERY_TERM}) for pool in POOLS[1:]),
        *((1, {"pool": pool, **place}) for pool in ("convolution", "random", "uniform") for place in ({}, BETWEEN)),
        (9, {"pool": "none"}),
    ],
    ids=str,
)
def test_the_temporal_encoder_equals_the_reference(frames, changes):
    model, given = tiny(**changes), some_frames(frames)
    tokens, kept = model.encode_time(given)
    for sample, own in enumerate(given):
        expected, numbers = reference_encoder(model, own)
        torch.testing.assert_close(tokens[sample].detach(), torch.from_numpy(expected), rtol=1e-10, atol=1e-10)
        assert list(kept) == list(numbers)
        for layer, of_heads in numbers.items():
            assert kept[layer][sample].expand(2, -1).tolist() == of_heads


def test_selections_of_these_tests_differ_between_clips_and_heads():
    """Selections differ between clips and heads and skip early frames, so that indices and frame numbers differ."""
    _, kept = tiny(pool_heads="per-head").encode_time(some_frames(9))
    firsts = kept[1].flatten(0, 1)
    assert len({tuple(own) for own in firsts.tolist()}) > 2
    assert (firsts != torch.arange(4)).any(1).all()


# -- what is kept ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, {1: 4}),
        ({"pool_layers": (0, 2)}, {0: 4, 2: 2}),
        ({"pool_layers": (0, 1, 2, 3)}, {0: 4, 1: 2, 2: 1}),
        ({"pool_layers": (3,)}, {}),
        ({"pool_layers": ()}, {}),
        (BETWEEN, {1: 4, 3: 2}),
        ({"pool": "random"}, {1: 4}),
        ({"pool": "uniform", **BETWEEN}, {1: 4, 3: 2}),
        *(({"pool": pool, **place}, {}) for pool in ("max", "average", "convolution") for place in ({}, BETWEEN)),
        ({"pool": "none"}, {}),
    ],
    ids=str,
)
def test_kept_frames_omits_layers_without_effect(changes, counts):
    clip = torch.randn(2, 3, 9, 16, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = tiny(**changes)
    kept = model.kept_frames(clip)
    assert {layer: frames.shape[-1] for layer, frames in kept.items()} == counts
    _, all_kept = model.encode_time(model.encode_space(clip))
    for layer, frames in kept.items():
        assert frames.shape[:2] == (2, 1)
        assert (frames.diff() > 0).all()
        assert frames.min() >= 0
        assert frames.max() < 9
        assert torch.equal(frames, all_kept[layer])


def test_kept_frames_of_each_attention_head_are_returned():
    kept = tiny(pool_heads="per-head").kept_frames(torch.randn(2, 3, 9, 16, 16, dtype=torch.float64))
    assert kept[1].shape == (2, 2, 4)


def test_later_layers_keep_a_subset_of_the_frames():
    _, kept = tiny(pool_layers=(0, 2)).encode_time(some_frames(16, clips=20))
    for earlier, later in zip(kept[0][:, 0].tolist(), kept[2][:, 0].tolist(), strict=True):
        assert set(later) < set(earlier)


def output_and_gradient(model, frames):
    given = frames.clone().requires_grad_()
    model.zero_grad()
    answer = features(model, given)
    answer.logsumexp(1).square().sum().backward()
    return answer, given.grad, {name: p.grad for name, p in model.temporal_blocks.named_parameters()}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("frames", [4, 9, 16])
def test_frames_dropped_inside_the_last_layer_change_nothing(pool, frames):
    """[1, 3] of four layers equals [1] in output and gradient; the last convolution gets no gradient."""
    both, first = tiny(pool=pool), tiny(pool=pool, pool_layers=(1,))
    first.load_state_dict({k: v for k, v in both.state_dict().items() if "temporal_blocks.3.pooling" not in k})
    (ours, ours_given, ours_learned), (theirs, given, learned) = (
        output_and_gradient(model, some_frames(frames)) for model in (both, first)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
    torch.testing.assert_close(ours_given, given, rtol=0, atol=1e-11)
    for name, gradient in learned.items():
        torch.testing.assert_close(ours_learned.pop(name), gradient, rtol=0, atol=1e-11)
    assert set(ours_learned) == (
        {f"3.pooling.convolution.{n}" for n in ("weight", "bias")} if pool == "convolution" else set()
    )
    assert not any(gradient.any() for gradient in ours_learned.values())


@pytest.mark.parametrize("pool", POOLS)
def test_frames_dropped_by_another_layer_change_the_logits(pool):
    """[0, 2] is not [0], and before the last layer [1, 3] is not [1]."""
    for two, one, place in (((0, 2), (0,), {}), ((1, 3), (1,), BETWEEN)):
        both, first = tiny(pool=pool, pool_layers=two, **place), tiny(pool=pool, pool_layers=one, **place)
        first.load_state_dict(both.state_dict(), strict=False)
        assert (features(both, some_frames()) - features(first, some_frames())).abs().max() > 1e-3


@pytest.mark.parametrize("changes", [{}, APART, LOGITS, BETWEEN, {"pool": "none"}], ids=str)
def test_pooling_options_give_different_logits(changes):
    model = tiny()
    other = tiny(**changes)
    other.load_state_dict(model.state_dict())
    difference = (features(model, some_frames(16)) - features(other, some_frames(16))).abs().max()
    assert (difference > 1e-3) == bool(changes)


def test_sigma_is_computed_before_dropout():
    model = tiny(pool_layers=(0,), dropout=0.5)
    _, expected = model.encode_time(some_frames(16))
    _, kept = model.train().encode_time(some_frames(16))
    assert torch.equal(kept[0], expected[0])


@pytest.mark.parametrize("changes", TOP_KS, ids=str)
@pytest.mark.parametrize("frames", [4, 7, 16])
def test_half_of_identical_frames_are_kept_in_order(changes, frames):
    model = tiny(**changes, temporal_position="none")
    tokens, kept = model.encode_time(some_frames(1).expand(2, frames, -1))
    assert tokens.isfinite().all()
    assert kept[1].shape[-1] == frames // 2
    assert (kept[1].diff() > 0).all()


@pytest.mark.parametrize("place", ["inside", "between"])
def test_random_frames_change_in_training_and_are_fixed_in_evaluation(place):
    model = tiny(pool="random", pool_place=place).train()
    torch.manual_seed(0)
    (_, first), (_, second) = (model.encode_time(some_frames(16, clips=20)) for _ in range(2))
    assert len({tuple(own) for own in first[1][:, 0].tolist()}) > 15
    assert not torch.equal(first[1], second[1])
    model.eval()
    (_, first), (_, second) = (model.encode_time(some_frames(16, clips=20)) for _ in range(2))
    for layer in (1, 3):
        assert torch.equal(first[layer], first[layer][:1].expand(20, -1, -1))
        assert torch.equal(first[layer], second[layer])


def test_uniform_frames_of_16():
    _, kept = tiny(pool="uniform").encode_time(some_frames(16))
    assert kept[1][0, 0].tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    assert kept[3][0, 0].tolist() == [3, 7, 11, 15]


# -- the order of time -------------------------------------------------------------------------------------------------

ORDER = torch.tensor([6, 2, 8, 0, 3, 7, 1, 5, 4])
UNORDERED = [{"position": "none"}, {"temporal_position": "none"}, {"temporal_position": "none", **EVERY_TERM}]


@pytest.mark.parametrize("pool", [{"pool": "none"}, {}, LOGITS, BETWEEN, {**LOGITS, **BETWEEN}], ids=str)
@pytest.mark.parametrize("changes", UNORDERED, ids=str)
def test_without_temporal_position_frame_order_does_not_matter(changes, pool):
    """The same frames are kept in any order."""
    model, given = tiny(**changes, **pool), some_frames()
    torch.testing.assert_close(features(model, given[:, ORDER]), features(model, given), rtol=0, atol=1e-11)
    (_, moved), (_, kept) = model.encode_time(given[:, ORDER]), model.encode_time(given)
    for layer, frames in kept.items():
        assert torch.equal(ORDER[moved[layer]].sort(-1).values, frames)


def test_without_temporal_position_the_frame_order_of_a_clip_does_not_matter():
    given, order = torch.randn(2, 3, 9, 16, 24, dtype=torch.float64), ORDER
    for changes, same in (({"position": "none"}, True), ({"temporal_position": "none"}, True), ({}, False)):
        model = tiny(**changes)
        assert torch.allclose(model(given[:, :, order]), model(given), rtol=0, atol=1e-11) == same


@pytest.mark.parametrize("place", [{}, BETWEEN], ids=str)
def test_per_head_selection_depends_on_frame_order(place):
    """The first frames that two heads keep share one token, so order matters without position."""
    model, given = tiny(position="none", **APART, **place), some_frames()
    (_, moved), (_, kept) = model.encode_time(given[:, ORDER]), model.encode_time(given)
    assert torch.equal(ORDER[moved[1]].sort(-1).values, kept[1])
    assert (features(model, given[:, ORDER]) - features(model, given)).abs().max() > 1e-3


@pytest.mark.parametrize("pool", ["none", "top-k"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"position": "per-head"}, {"position": "absolute"}, EVERY_TERM, {"position_function": "clip"}],
    ids=str,
)
def test_with_trained_temporal_position_frame_order_matters(changes, pool):
    model, given = tiny(pool=pool, frames=9, **changes), some_frames()
    assert (features(model, given[:, ORDER]) - features(model, given)).abs().max() > 1e-3
    for name, parameter in model.named_parameters():
        if "position" in name:
            nn.init.zeros_(parameter)
    torch.testing.assert_close(features(model, given[:, ORDER]), features(model, given), rtol=0, atol=1e-11)


def test_the_temporal_encoder_does_not_mix_clips():
    for changes in (*TOP_KS, *({"pool": pool} for pool in POOLS[1:])):
        model, given = tiny(**changes), some_frames(9, clips=3)
        together, alone = model.encode_time(given)[0], torch.cat([model.encode_time(own[None])[0] for own in given])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-11)


def test_selection_passes_gradient_to_kept_frames_only():
    """Finite differences with steps small enough that the same frames are kept."""
    for changes in ({}, {**APART, **BETWEEN}, {"pool": "max"}, {"pool": "uniform", **EVERY_TERM}):
        model = tiny(**changes)
        given = some_frames(5, clips=1).requires_grad_()
        assert torch.autograd.gradcheck(lambda frames, m=model: features(m, frames), (given,), fast_mode=True)


def test_the_temporal_encoder_refuses_clips_too_short_to_halve(raises):
    with raises(ClipError, 4, field="frames"):
        tiny(pool="average").encode_time(some_frames(3))
    for frames, pool in itertools.product((1, 2, 3), ("top-k", "convolution", "random", "uniform", "none")):
        assert tiny(pool=pool).encode_time(some_frames(frames))[0].isfinite().all()

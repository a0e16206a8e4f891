"""Temporal subsampling equals loops over rows of an attention map and numpy's standard deviation."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from kinema.layers.temporal_topk import (
    FramePooling,
    attention_std,
    gather_frames,
    gather_rows,
    gather_times,
    num_kept,
    random_frames,
    top_frames,
    uniform_frames,
)


def maps(frames=7, *, b=3, h=2, dtype=torch.float64):
    """Return attention maps with sharp and flat rows."""
    generator = torch.Generator().manual_seed(frames)
    sharpness = 4 * torch.rand(b, h, frames + 1, 1, dtype=torch.float64, generator=generator)
    logits = torch.randn(b, h, frames + 1, frames + 1, dtype=torch.float64, generator=generator)
    return (sharpness * logits).softmax(-1).to(dtype)


def tokens(frames=7, *, b=3, dim=6, dtype=torch.float64):
    return torch.randn(b, frames + 1, dim, dtype=dtype, generator=torch.Generator().manual_seed(frames))


def some_places(*shape, frames=7):
    """Return frames in temporal order that differ between clips and heads."""
    *outer, kept = shape
    drawn = torch.rand(*outer, frames, generator=torch.Generator().manual_seed(5))
    return drawn.argsort(-1)[..., :kept].sort(-1).values


def eq_3_13(row):
    """Return eq. 3.13 and 3.14 of one row as a loop, with 1/T outside the root as in the thesis."""
    mean = sum(row) / len(row)
    return math.sqrt(sum((entry - mean) ** 2 for entry in row)) / len(row)


# -- which frames deviate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "kept"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (16, 8), (17, 8), (64, 32)])
def test_half_of_the_frames_are_kept_rounded_down_and_at_least_one(frames, kept):
    assert num_kept(frames) == kept
    assert top_frames(torch.rand(2, 3, frames)).shape == (2, 3, kept)
    assert uniform_frames(frames).shape == (kept,)
    for training in (True, False):
        assert random_frames(5, frames, training=training).shape == (5, kept)


@pytest.mark.parametrize("frames", [1, 2, 7, 16])
def test_sigma_is_the_standard_deviation_of_the_rows_of_frames_only(frames):
    """Rows include the column of the class token."""
    scores = maps(frames)
    sigma = attention_std(scores)
    assert sigma.shape == (3, 2, frames)
    np.testing.assert_allclose(sigma.numpy(), np.std(scores.numpy(), axis=-1)[..., 1:], rtol=0, atol=1e-12)


def test_sigma_ranks_as_the_loop_of_eq_3_13_does():
    """Eq. 3.13 differs by a constant factor, the root of the number of tokens."""
    scores = maps(16)
    sigma, kept = attention_std(scores), top_frames(attention_std(scores))
    for clip, head in itertools.product(range(3), range(2)):
        literal = [eq_3_13(row) for row in scores[clip, head, 1:].tolist()]
        np.testing.assert_allclose(sigma[clip, head].numpy(), np.array(literal) * math.sqrt(17), rtol=0, atol=1e-12)
        ranked = sorted(range(16), key=lambda frame, of=literal: -of[frame])
        assert kept[clip, head].tolist() == sorted(ranked[:8])


@pytest.mark.parametrize(
    ("given", "answered"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_sigma_has_float32_at_least(given, answered):
    scores = maps(16, dtype=given)
    sigma = attention_std(scores)
    assert sigma.dtype == answered
    expected = np.std(scores.to(torch.float64).numpy(), axis=-1)[..., 1:]
    np.testing.assert_allclose(sigma.numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("factor", [1 / 17, 17**-0.5, 16**-0.5, 3.0, 1e4])
def test_kept_frames_do_not_depend_on_a_positive_factor(factor):
    scores = maps(16)
    expected = top_frames(attention_std(scores))
    assert torch.equal(top_frames(factor * attention_std(scores)), expected)
    assert torch.equal(top_frames(attention_std(factor * scores)), expected)


def test_frames_with_uniform_attention_are_dropped():
    scores = torch.full((1, 1, 5, 5), 0.2)
    scores[0, 0, 0] = torch.tensor([1.0, 0, 0, 0, 0])  # the class token is no candidate
    scores[0, 0, 4] = torch.tensor([0.6, 0.1, 0.1, 0.1, 0.1])  # is sharp by the class token's column alone
    scores[0, 0, 2] = torch.tensor([0.2, 0.2, 0.5, 0.1, 0.0])
    assert top_frames(attention_std(scores)).tolist() == [[[1, 3]]]


def test_the_same_frames_are_kept_in_any_order():
    scores, order = maps(16), torch.randperm(16, generator=torch.Generator().manual_seed(0))
    index = torch.cat((torch.zeros(1).long(), order + 1))
    moved = top_frames(attention_std(scores[..., index, :][..., index]))
    assert torch.equal(order[moved].sort(-1).values, top_frames(attention_std(scores)))


@pytest.mark.parametrize("frames", [1, 2, 5, 16, 33])
def test_kept_frames_have_the_largest_sigma_in_temporal_order(frames):
    sigma = torch.rand(4, 3, frames, generator=torch.Generator().manual_seed(frames))
    kept = top_frames(sigma)
    assert kept.dtype == torch.int64
    for clip, head in itertools.product(range(4), range(3)):
        row = sigma[clip, head].tolist()
        expected = sorted(range(frames), key=lambda frame, of=row: -of[frame])[: num_kept(frames)]
        assert kept[clip, head].tolist() == sorted(expected)


@pytest.mark.parametrize(
    ("sigma", "kept"),
    [
        ([1.0] * 8, [0, 1, 2, 3]),
        ([0.0] * 8, [0, 1, 2, 3]),
        ([2, 1, 1, 1, 1, 1, 1, 2], [0, 1, 2, 7]),
        ([0, 1, 1, 0, 0, 1, 1, 0], [1, 2, 5, 6]),
        ([0, 0, 0, 0, 1, 1, 1, 1], [4, 5, 6, 7]),
        ([0, 0, 2, 2, 1, 1, 1, 1], [2, 3, 4, 5]),
        ([0, math.nan, 0, 0], [0, 1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("rounding", [0.0, 1e-8])
def test_of_equal_sigma_the_first_frames_are_kept(sigma, kept, rounding):
    """Up to rounding, of which each copy of the row has its own."""
    noise = torch.randn(200, len(sigma), generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    rows = torch.tensor(sigma) / 10 + rounding * noise
    assert top_frames(rows).tolist() == [kept] * 200


def test_frames_that_differ_by_more_than_rounding_are_ranked():
    assert top_frames(torch.tensor([0.1, 0.1 + 1e-6, 0.1 + 2e-6, 0.0])).tolist() == [1, 2]


# -- keeping them ------------------------------------------------------------------------------------------------------


def test_frames_shared_by_all_heads_are_selected_by_index():
    x, places = tokens(), some_places(3, 1, 4)
    kept = gather_frames(x, places)
    for clip in range(3):
        assert torch.equal(kept[clip], x[clip, [0, *(places[clip, 0] + 1).tolist()]])


@pytest.mark.parametrize("heads", [2, 3, 6])
def test_each_head_selects_frames_for_its_channels(heads):
    x, places, width = tokens(), some_places(3, heads, 4), 6 // heads
    kept = gather_frames(x, places)
    assert kept.shape == (3, 5, 6)
    for clip, head in itertools.product(range(3), range(heads)):
        channels = slice(head * width, (head + 1) * width)
        assert torch.equal(kept[clip, 0, channels], x[clip, 0, channels])
        for number, frame in enumerate(places[clip, head].tolist(), start=1):
            assert torch.equal(kept[clip, number, channels], x[clip, 1 + frame, channels])


@pytest.mark.parametrize("heads", [1, 2])
def test_the_class_token_comes_first_and_is_always_kept(heads):
    x = tokens()
    assert torch.equal(gather_frames(x, some_places(3, heads, 3))[:, 0], x[:, 0])
    assert torch.equal(gather_frames(x, torch.arange(7).expand(3, heads, -1)), x)


@pytest.mark.parametrize("heads", [1, 2])
def test_only_kept_frames_get_a_gradient(heads):
    x, places = tokens().requires_grad_(), some_places(3, heads, 3)
    gather_frames(x, places).sum().backward()
    expected = torch.zeros(3, 8, 6, dtype=torch.float64)
    for clip, head in itertools.product(range(3), range(heads)):
        channels = slice(head * 6 // heads, (head + 1) * 6 // heads)
        expected[clip, [0, *(places[clip, head] + 1).tolist()], channels] = 1
    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize(("of_table", "of_places"), [(1, 1), (1, 3), (3, 1), (3, 3)])
@pytest.mark.parametrize("numbers", ["weights", "ids"])
def test_gathered_rows_are_those_of_the_class_token_and_the_frames(of_table, of_places, numbers):
    table, places = maps(h=of_table), some_places(3, of_places, 4)
    if numbers == "ids":
        table = (1e6 * table).long()
    rows = gather_rows(table, places)
    assert rows.dtype == table.dtype
    assert rows.shape == (3, max(of_table, of_places), 5, 8)
    for clip, head in itertools.product(range(3), range(rows.shape[1])):
        own = table[clip, head if of_table > 1 else 0]
        kept = places[clip, head if of_places > 1 else 0].tolist()
        assert torch.equal(rows[clip, head], torch.stack([own[0], *(own[1 + place] for place in kept)]))


@pytest.mark.parametrize(("of_times", "of_places"), [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_gathered_times_are_those_of_the_frames(of_times, of_places):
    times, places = some_places(3, of_times, 7, frames=32), some_places(3, of_places, 4)
    kept = gather_times(times, places)
    assert kept.shape == (3, max(of_times, of_places), 4)
    for clip, head in itertools.product(range(3), range(kept.shape[1])):
        own = times[clip, head if of_times > 1 else 0].tolist()
        assert kept[clip, head].tolist() == [own[p] for p in places[clip, head if of_places > 1 else 0].tolist()]


def test_frame_numbers_of_the_clip_survive_two_selections():
    times = torch.arange(16).expand(3, 1, -1)
    first, second = some_places(3, 1, 8, frames=16), some_places(3, 1, 4, frames=8)
    kept = gather_times(gather_times(times, first), second)
    assert torch.equal(kept, first.gather(-1, second))
    assert (kept.diff() > 0).all()


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 7, 16])
def test_attention_of_the_kept_rows_equals_those_of_full_attention(heads, frames):
    """The reference is eq. 3.12 as a loop: full attention, numpy's deviation, a sorted list, rows of the output."""
    weights = maps(frames)
    value = torch.randn(3, 2, frames + 1, 5, dtype=torch.float64)
    sigma = attention_std(weights) if heads == 2 else attention_std(weights).mean(1, keepdim=True)
    ours = gather_rows(weights, top_frames(sigma)) @ value

    literal = np.std(weights.numpy(), axis=-1)[..., 1:]
    for clip, head in itertools.product(range(3), range(2)):
        row = literal[clip, head] if heads == 2 else literal[clip].mean(0)
        kept = sorted(sorted(range(frames), key=lambda frame, of=row: -of[frame])[: max(1, frames // 2)])
        whole = weights[clip, head] @ value[clip, head]
        expected = torch.stack([whole[0], *(whole[1 + frame] for frame in kept)])
        torch.testing.assert_close(ours[clip, head], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 2])
def test_tokens_rows_and_frame_numbers_are_selected_consistently(heads):
    """Tokens that hold their own number show where they come from."""
    places = some_places(3, heads, 4)
    numbered = torch.arange(-1.0, 7)[None, :, None].expand(3, -1, 2)
    times = gather_times(torch.arange(7).expand(3, 1, -1), places)
    assert torch.equal(gather_frames(numbered, places)[:, 1:].mT.expand(-1, 2, -1), times.float().expand(-1, 2, -1))
    rows = gather_rows(torch.arange(-1, 7)[:, None].expand(3, 1, 8, 8), places)
    assert torch.equal(rows[:, :, 1:, 0], times)


# -- controls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", range(1, 41))
def test_uniform_frames_are_the_middles_of_equal_parts(frames):
    kept = max(1, frames // 2)
    places = uniform_frames(frames).tolist()
    assert places == [math.floor((part + 0.5) * frames / kept) for part in range(kept)]
    assert places == sorted(set(places))
    assert 0 <= places[0] <= places[-1] < frames


@pytest.mark.parametrize(
    ("frames", "places"), [(1, [0]), (2, [1]), (3, [1]), (5, [1, 3]), (8, [1, 3, 5, 7]), (9, [1, 3, 5, 7])]
)
def test_uniform_frames_of_short_clips(frames, places):
    assert uniform_frames(frames).tolist() == places


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frames", [1, 2, 3, 16, 33])
def test_random_frames_are_distinct_and_in_temporal_order(frames, training):
    places = random_frames(50, frames, training=training)
    assert places.dtype == torch.int64
    assert (places.diff() > 0).all()
    assert places.min() >= 0
    assert places.max() < frames


def test_random_frames_in_training_differ_and_follow_the_seed():
    torch.manual_seed(0)
    first, second = (random_frames(50, 16, training=True) for _ in range(2))
    assert len({tuple(places) for places in first.tolist()}) > 45
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(random_frames(50, 16, training=True), first)
    torch.manual_seed(1)
    assert not torch.equal(random_frames(50, 16, training=True), first)


def test_random_frames_in_training_are_uniform():
    torch.manual_seed(0)
    often = random_frames(20_000, 7, training=True).flatten().bincount(minlength=7) / 20_000
    torch.testing.assert_close(often, torch.full((7,), 3 / 7), rtol=0, atol=0.015)


def test_random_frames_in_evaluation_are_fixed():
    """They do not touch the global random state."""
    torch.manual_seed(0)
    first = random_frames(50, 16, training=False)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    again = random_frames(3, 16, training=False)
    assert torch.equal(first, first[:1].expand(50, -1))
    assert torch.equal(again, first[:3])
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn)
    assert not torch.equal(first[0], uniform_frames(16))
    assert not torch.equal(first[0], torch.arange(8))


# -- the same for every frame ------------------------------------------------------------------------------------------


def pooling(kind, *, dim=6):
    torch.manual_seed(0)
    made = FramePooling(kind, dim).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


def reference_pooling(made, x):
    """Return the pooled tokens, frame by frame."""
    first, *frames = x
    pooled = [first]
    match made.kind:
        case "max":
            pooled += [torch.maximum(*frames[t : t + 2]) for t in range(0, len(frames) - 1, 2)]
        case "average":
            pooled += [(frames[t] + frames[t + 1]) / 2 for t in range(0, len(frames) - 1, 2)]
        case "convolution":
            weight, bias = made.convolution.weight, made.convolution.bias
            for t in range(0, len(frames), 2):
                near = [(tap, t + tap - 1) for tap in range(3) if 0 <= t + tap - 1 < len(frames)]
                pooled.append(sum((weight[:, :, tap] @ frames[at] for tap, at in near), bias))
    return torch.stack(pooled)


@pytest.mark.parametrize(
    ("kind", "frames", "kept"),
    [(kind, frames, frames // 2) for kind in ("max", "average") for frames in (2, 3, 7, 8, 16)]
    + [("convolution", frames, (frames + 1) // 2) for frames in (1, 2, 3, 7, 8, 16)],
)
def test_pooling_equals_a_loop_over_pairs_or_windows_of_frames(kind, frames, kept):
    """The last of an odd number of frames is dropped, except by the convolution, which pads."""
    made, x = pooling(kind), tokens(frames)
    pooled = made(x)
    assert pooled.shape == (3, 1 + kept, 6)
    for ours, clip in zip(pooled, x, strict=True):
        torch.testing.assert_close(ours, reference_pooling(made, clip), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["max", "average", "convolution"])
def test_pooling_does_not_touch_the_class_token(kind):
    made, x = pooling(kind), tokens()
    moved = x.clone()
    moved[:, 0] += 100
    assert torch.equal(made(x)[:, 0], x[:, 0])
    assert torch.equal(made(moved)[:, 0], moved[:, 0])
    assert torch.equal(made(moved)[:, 1:], made(x)[:, 1:])


@pytest.mark.parametrize("kind", ["max", "average"])
def test_max_and_average_pooling_refuse_a_single_frame(kind):
    with pytest.raises(ValueError, match=kind):
        pooling(kind)(tokens(1))


@pytest.mark.parametrize("kind", ["max", "average", "convolution"])
def test_only_the_convolution_has_parameters(kind):
    made, x = FramePooling(kind, 6), tokens(dtype=torch.float32).requires_grad_()
    shapes = {name: tuple(parameter.shape) for name, parameter in made.named_parameters()}
    assert shapes == ({"convolution.weight": (6, 6, 3), "convolution.bias": (6,)} if kind == "convolution" else {})
    made(x).logsumexp(-1).sum().backward()
    assert x.grad.any()
    assert all(parameter.grad.any() for parameter in made.parameters())


# -- other ways to run it ----------------------------------------------------------------------------------------------


class HalfOfTheFrames(nn.Module):
    """Return rows, tokens and frame numbers of the frames with the largest deviation."""

    def forward(self, weights, x, times):
        places = top_frames(attention_std(weights))
        return gather_rows(weights, places), gather_frames(x, places), gather_times(times, places)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_compile_gives_one_graph_and_the_same_results():
    given = (maps(), tokens(), torch.arange(7).expand(3, 1, -1))
    torch.compiler.reset()  # what other tests compiled does not count against this one
    compiled = torch.compile(HalfOfTheFrames(), backend="eager", fullgraph=True)
    assert all(itertools.starmap(torch.equal, zip(compiled(*given), HalfOfTheFrames()(*given), strict=True)))


@pytest.mark.usefixtures("unchecked")
def test_export_supports_a_dynamic_batch():
    batch = torch.export.Dim("batch")
    exported = torch.export.export(
        HalfOfTheFrames(),
        (maps(), tokens(), torch.arange(7).expand(3, 1, -1)),
        dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
    ).module()
    given = (maps(b=5), tokens(b=5), torch.arange(7).expand(5, 1, -1))
    assert all(itertools.starmap(torch.equal, zip(exported(*given), HalfOfTheFrames()(*given), strict=True)))

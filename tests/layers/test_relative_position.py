"""Clusters of offsets and attention with their vectors, held against loops over the pairs of tokens."""

import copy
import itertools
import math

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from kinema.layers.relative_position import (
    RATIOS,
    Clusters,
    RelativePosition,
    RelativeSelfAttention,
    clipped,
    sectioned,
    written_out,
)

TERMS = ("query", "query-key", "query-key-value")
TABLES = {"query": 1, "query-key": 2, "query-key-value": 3}
SHARINGS = ("shared", "per-head")
COUNTS = {1: 10, 2: 26, 3: 50, 4: 82, 5: 122, 6: 170}
FROM_THE_CORNER = {
    1: [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    3: [0, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3],
}
"""s(0), s(1), ..., s(13), worked out by hand from eq. 3.8 and 3.9."""


def literal_s(x, ratio):
    """Eq. 3.8 and 3.9 with b : y : a = 1 : 2 : 8, number by number; y, which need not be whole, is cut off."""
    b, y, a = ratio, 2 * ratio, 8 * ratio
    if abs(x) <= b:
        return round(x)
    return int(math.copysign(min(y, round(b + math.log(abs(x) / b) / math.log(a / b) * (y - b))), x))


def literal_id(i, j, *, columns, s, reach):
    """The index of eq. 3.11 for two tokens, of which number 0 is the class token."""
    if i == 0 or j == 0:
        return (2 * reach + 1) ** 2
    (row, column), (other_row, other_column) = divmod(i - 1, columns), divmod(j - 1, columns)
    return (s(row - other_row) + reach) * (2 * reach + 1) + s(column - other_column) + reach


def random_position(terms, sharing, *, clusters=10, heads=2, d=4, seed=0):
    """Tables whose every number differs from zero, where they start."""
    torch.manual_seed(seed)
    position = RelativePosition(clusters, heads=heads, head_dim=d, sharing=sharing, terms=terms).double()
    for table in position.parameters():
        nn.init.normal_(table)
    return position


def queries_keys_values(*, b=2, h=2, m=5, n=5, d=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n)
    return tuple(torch.randn(b, h, size, d, dtype=dtype, generator=generator) for size in (m, n, n))


def random_ids(*shape, clusters=10):
    return torch.randint(clusters, shape, generator=torch.Generator().manual_seed(3))


def by_pairs(position, query, key, value, ids):
    """Eq. 3.5 and 3.6 with a tensor of vectors for each pair of tokens, R[b, h, i, j, :]."""
    heads = query.shape[1]

    def vectors(table):
        if table is None:
            return torch.zeros(*ids.shape, query.shape[-1], dtype=query.dtype)
        return torch.stack([table[head % len(table)][ids[:, head]] for head in range(heads)], dim=1)

    on_query, on_key, on_value = map(vectors, (position.table_on_key, position.table_on_query, position.table_on_value))
    logits = torch.einsum("bhijd,bhijd->bhij", query[:, :, :, None] + on_query, key[:, :, None] + on_key)
    weights = (logits / query.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("bhij,bhijd->bhid", weights, value[:, :, None] + on_value)


def trained(position, *, dim=6, heads=2, d=4, dropout=0.0):
    """Attention whose every number differs from where it started."""
    torch.manual_seed(1)
    attention = RelativeSelfAttention(dim, heads=heads, head_dim=d, position=None, dropout=dropout).double().eval()
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    attention.position = copy.deepcopy(position)
    return attention


def tokens(n=5, *, b=2, dim=6):
    return torch.randn(b, n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


@pytest.fixture(params=[None, *itertools.product(TERMS, SHARINGS)], ids=str)
def position(request):
    """No position, and each form of it."""
    return None if request.param is None else random_position(*request.param)


# -- from an offset to a whole number ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("reach", "values"), FROM_THE_CORNER.items())
def test_the_sectioned_function_has_the_values_that_one_works_out_by_hand(reach, values):
    assert sectioned(torch.arange(14), RATIOS[reach]).tolist() == values


@pytest.mark.parametrize("ratio", RATIOS.values())
def test_the_sectioned_function_is_eq_3_8_and_3_9_number_by_number(ratio):
    whole = torch.arange(-200, 201)
    broken = torch.linspace(-40, 40, 3201, dtype=torch.float64)  # 0.5 and 1.5 among them
    for offsets in (whole, broken, broken.float()):
        ours = sectioned(offsets, ratio)
        assert ours.dtype == torch.int64
        assert ours.tolist() == [literal_s(x, ratio) for x in offsets.tolist()]


@pytest.mark.parametrize("ratio", RATIOS.values())
@pytest.mark.parametrize("offsets", [torch.arange(-300, 301), torch.linspace(-300, 300, 4801)], ids=["whole", "broken"])
def test_the_sectioned_function_is_odd_never_falls_and_ends_at_y_rounded_down(ratio, offsets):
    values = sectioned(offsets, ratio)
    assert torch.equal(values, -sectioned(-offsets, ratio))
    assert values.diff().min() == 0
    assert (values.min(), values.max()) == (-int(2 * ratio), int(2 * ratio))
    assert sectioned(torch.zeros(1), ratio).item() == sectioned(torch.zeros(1).long(), ratio).item() == 0


@pytest.mark.parametrize(("reach", "ratio"), RATIOS.items())
def test_offsets_of_a_grid_of_14_reach_every_value_of_the_sectioned_function(reach, ratio):
    assert sectioned(torch.arange(-13, 14), ratio).unique().tolist() == list(range(-reach, reach + 1))


def test_offsets_keep_their_shape_and_are_rounded_to_the_even_number():
    offsets = torch.tensor([[0.5, 1.5, -1.5], [2.5, -0.5, 0.49]])
    assert sectioned(offsets, 3.4).tolist() == [[0, 2, -2], [2, 0, 0]]
    assert sectioned(torch.tensor(5), 1.9).shape == ()


@pytest.mark.parametrize("limit", [1, 3, 13])
def test_the_clipped_function_cuts_off(limit):
    offsets = torch.arange(-20, 21)
    expected = [max(-limit, min(limit, x)) for x in offsets.tolist()]
    for given in (offsets, offsets.float(), offsets + 0.3, offsets - 0.3):
        assert clipped(given, limit).dtype == torch.int64
        assert clipped(given, limit).tolist() == expected


# -- which tokens share a vector ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "s"), [("sectioned", lambda x: literal_s(x, 1.9)), ("clip", lambda x: max(-3, min(3, x)))]
)
def test_clusters_of_a_frame_are_those_of_a_loop_over_197_x_197_tokens(function, s):
    s = {offset: s(offset) for offset in range(-13, 14)}.__getitem__
    expected = [[literal_id(i, j, columns=14, s=s, reach=3) for j in range(197)] for i in range(197)]
    ids = Clusters(function=function).on_grid(14, 14)
    assert ids.dtype == torch.int64
    assert ids.tolist() == expected


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 6), (6, 1), (2, 5), (5, 2), (20, 3)])
@pytest.mark.parametrize("reach", [1, 3, 6])
def test_clusters_are_those_of_the_loop_on_any_grid(rows, columns, reach):
    """A patch to the right of another and one below it must not be mixed up, which a square would not show."""
    n = rows * columns + 1

    def s(offset):
        return literal_s(offset, RATIOS[reach])

    expected = [[literal_id(i, j, columns=columns, s=s, reach=reach) for j in range(n)] for i in range(n)]
    assert Clusters(count=COUNTS[reach]).on_grid(rows, columns).tolist() == expected


def test_a_single_patch_has_the_offset_zero_to_itself():
    assert Clusters().on_grid(1, 1).tolist() == [[49, 49], [49, 24]]


@pytest.mark.parametrize("function", ["sectioned", "clip"])
@pytest.mark.parametrize(("reach", "count"), COUNTS.items())
def test_every_cluster_is_met_on_14_x_14_patches(function, reach, count):
    clusters = Clusters(count=count, function=function)
    assert clusters.reach == reach
    assert clusters.on_grid(14, 14).unique().tolist() == list(range(count))


def test_the_middle_patch_sees_49_clusters_and_that_of_the_class_token():
    seen = Clusters().on_grid(14, 14)[1 + 7 * 14 + 7]
    assert seen[1:].unique().tolist() == list(range(49))
    assert seen[0] == 49


@pytest.mark.parametrize("clusters", [Clusters(), Clusters(function="clip"), Clusters(count=8, distance="euclid")])
def test_all_pairs_with_the_class_token_have_the_last_cluster_and_no_other_pair_has(clusters):
    last = torch.zeros(13, 13, dtype=torch.bool)
    last[0], last[:, 0] = True, True
    assert torch.equal(clusters.on_grid(3, 4) == clusters.count - 1, last)
    last = torch.zeros(7, 7, dtype=torch.bool)
    last[0], last[:, 0] = True, True
    assert torch.equal(clusters.in_time(torch.arange(6)) == clusters.count_in_time - 1, last)


def test_there_and_back_are_opposite_clusters():
    """p of (j, i) is at the mirrored place of the table, so an offset is the query's place less the key's."""
    ids = Clusters().on_grid(5, 6)[1:, 1:]
    assert torch.equal(ids + ids.T, torch.full_like(ids, 48))
    assert ids[0, 1] == 3 * 7 + 2  # a key to the right is one column less
    assert ids[0, 6] == 2 * 7 + 3  # a key below is one row less


# -- the straight line -------------------------------------------------------------------------------------------------


def test_by_the_straight_line_there_are_eight_clusters_and_five_are_met():
    clusters = Clusters(count=8, distance="euclid")
    assert (clusters.reach, clusters.count_in_time) == (3, 8)
    assert clusters.on_grid(14, 14).unique().tolist() == [3, 4, 5, 6, 7]
    assert clusters.map_from(7, 7, rows=14, columns=14).unique().tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("function", ["sectioned", "clip"])
def test_by_the_straight_line_a_cluster_is_s_of_eq_3_10(function):
    rows, columns = 5, 7
    ids = Clusters(count=8, function=function, distance="euclid").on_grid(rows, columns)
    places = list(itertools.product(range(rows), range(columns)))
    for (i, (y, x)), (j, (v, u)) in itertools.product(enumerate(places), repeat=2):
        line = math.sqrt((x - u) ** 2 + (y - v) ** 2)
        assert ids[1 + i, 1 + j] == 3 + (literal_s(line, 1.9) if function == "sectioned" else min(3, round(line)))


@pytest.mark.parametrize("reach", RATIOS)
def test_by_the_straight_line_clusters_rise_with_the_distance_and_are_the_same_there_and_back(reach):
    ids = Clusters(count=2 * reach + 2, distance="euclid").on_grid(14, 14)
    assert torch.equal(ids, ids.T)
    row, column = torch.arange(196) // 14, torch.arange(196) % 14
    squares = (row[:, None] - row) ** 2 + (column[:, None] - column) ** 2
    assert ids[1:, 1:].flatten()[squares.flatten().argsort()].diff().min() == 0
    assert ids[1:, 1:].min() == reach


# -- counts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "there"),
    [
        ({"count": 51}, "10, 26, 50, 82, 122, 170"),
        ({"count": 0}, "10, 26, 50, 82, 122, 170"),
        ({"count": 8}, "10, 26, 50, 82, 122, 170"),
        ({"count": 226}, "10, 26, 50, 82, 122, 170"),
        ({"distance": "euclid"}, "4, 6, 8, 10, 12, 14"),
        ({"count": 51, "function": "clip"}, "10, 26, 50, 82, 122, 170, 226, 290, 362, 442, 530, 626, 730"),
        ({"function": "clip", "distance": "euclid"}, "4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28"),
    ],
)
def test_a_count_that_cannot_be_reached_is_refused_with_those_that_can(choices, there):
    whole = {"count": 50, "function": "sectioned", "distance": "axes"} | choices
    expected = (
        rf"^clusters={whole['count']} cannot be reached by function={whole['function']}, "
        rf"distance={whole['distance']}; there are {there}$"
    )
    with pytest.raises(ValueError, match=expected):
        Clusters(**choices)


@pytest.mark.parametrize("function", ["sectioned", "clip"])
@pytest.mark.parametrize("distance", ["axes", "euclid"])
def test_each_count_is_one_more_than_the_values_and_its_clusters_stay_below_it(function, distance):
    smallest = Clusters(count=10 if distance == "axes" else 4, function=function, distance=distance)
    for reach, count in enumerate(smallest.reachable, start=1):
        clusters = Clusters(count=count, function=function, distance=distance)
        assert clusters.reach == reach
        assert count == (2 * reach + 1) ** (2 if distance == "axes" else 1) + 1
        assert clusters.count_in_time == 2 * reach + 2
        for ids, below in (
            (clusters.on_grid(30, 2), count),
            (clusters.in_time(torch.arange(64)), clusters.count_in_time),
        ):
            assert ids.min() >= 0
            assert ids.max() == below - 1


# -- frames ------------------------------------------------------------------------------------------------------------


def literal_times(times, s, reach):
    """The clusters of frames with these numbers."""
    n = len(times) + 1
    return [
        [2 * reach + 1 if 0 in (i, j) else s(times[i - 1] - times[j - 1]) + reach for j in range(n)] for i in range(n)
    ]


@pytest.mark.parametrize(
    ("function", "s"), [("sectioned", lambda x: literal_s(x, 1.9)), ("clip", lambda x: max(-3, min(3, x)))]
)
@pytest.mark.parametrize("times", [list(range(16)), [1, 2, 5, 9, 11, 12, 15], [4], [0, 63]])
def test_clusters_of_frames_are_those_of_their_numbers_in_the_clip(function, s, times):
    ids = Clusters(function=function).in_time(torch.tensor(times))
    assert ids.dtype == torch.int64
    assert ids.tolist() == literal_times(times, s, 3)


def test_each_clip_and_attention_head_may_have_other_frames():
    clusters = Clusters(count=26)
    times = torch.rand(3, 2, 16, generator=torch.Generator().manual_seed(0)).argsort(-1)[..., :5].sort(-1).values
    ids = clusters.in_time(times)
    assert ids.shape == (3, 2, 6, 6)
    for clip, head in itertools.product(range(3), range(2)):
        assert ids[clip, head].tolist() == literal_times(times[clip, head].tolist(), lambda x: literal_s(x, 1.0), 2)
    assert torch.equal(clusters.in_time(times[:, 0]), ids[:, 0])


def test_frames_left_out_do_not_move_the_others_together():
    every = Clusters().in_time(torch.arange(16))
    kept = torch.tensor([0, 1, 6, 15])
    some = torch.cat((torch.zeros(1).long(), kept + 1))
    assert torch.equal(Clusters().in_time(kept), every[some][:, some])
    assert not torch.equal(Clusters().in_time(kept), Clusters().in_time(torch.arange(4)))


# -- figure 3.5 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "column", "rows", "columns"), [(7, 7, 14, 14), (0, 0, 3, 8), (2, 7, 3, 8), (1, 3, 3, 8)]
)
def test_the_map_from_one_patch_is_that_of_a_loop_over_the_others(row, column, rows, columns):
    ours = Clusters().map_from(row, column, rows=rows, columns=columns)
    expected = [
        [(literal_s(row - r, 1.9) + 3) * 7 + literal_s(column - c, 1.9) + 3 for c in range(columns)]
        for r in range(rows)
    ]
    assert ours.tolist() == expected


@pytest.mark.parametrize(("row", "column"), [(3, 0), (0, 8), (-1, 0), (0, -1), (8, 3)])
def test_a_patch_outside_the_grid_has_no_map(row, column):
    with pytest.raises(ValueError, match=rf"there is no patch \({row}, {column}\) on a grid of 3 x 8"):
        Clusters().map_from(row, column, rows=3, columns=8)


# -- attention with the vectors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize(("sharing", "tables"), [("shared", 1), ("per-head", 3)])
def test_there_is_a_table_for_each_term_and_it_starts_at_zero(terms, sharing, tables):
    position = RelativePosition(50, heads=3, head_dim=8, sharing=sharing, terms=terms)
    assert [tuple(table.shape) for table in position.parameters()] == [(tables, 50, 8)] * TABLES[terms]
    assert not any(table.any() for table in position.parameters())


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize(("b", "h", "m", "n"), [(2, 3, 5, 5), (1, 1, 1, 1), (2, 2, 3, 6)])
def test_the_loop_over_pairs_is_the_sum_over_a_vector_for_each_pair(terms, sharing, b, h, m, n):
    position = random_position(terms, sharing, heads=h)
    given = (*queries_keys_values(b=b, h=h, m=m, n=n), random_ids(b, h, m, n))
    torch.testing.assert_close(written_out(position, *given), by_pairs(position, *given), rtol=0, atol=1e-12)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize(("ids_b", "ids_h"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_attention_is_the_loop_over_pairs(terms, sharing, ids_b, ids_h):
    """With clusters of all clips and attention heads, and with others for each."""
    position = random_position(terms, sharing, heads=3)
    given, ids = queries_keys_values(h=3), random_ids(ids_b, ids_h, 5, 5)
    expected = written_out(position, *given, ids.expand(2, 3, -1, -1))
    torch.testing.assert_close(position(*given, ids), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_its_gradients_are_those_of_a_vector_for_each_pair(terms, sharing):
    position = random_position(terms, sharing)
    given, ids = [tensor.requires_grad_() for tensor in queries_keys_values()], random_ids(2, 2, 5, 5)
    towards = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    learned = [*given, *position.parameters()]
    ours = torch.autograd.grad(position(*given, ids), learned, towards)
    theirs = torch.autograd.grad(by_pairs(position, *given, ids), learned, towards)
    for fast, literal in zip(ours, theirs, strict=True):
        torch.testing.assert_close(fast, literal, rtol=0, atol=1e-12)
    assert all(gradient.any() for gradient in ours)


def test_the_logits_of_eq_3_7_are_those_of_its_loop():
    position, (query, key, _) = random_position("query", "per-head", heads=3), queries_keys_values(h=3)
    ids = Clusters(count=10).on_grid(2, 2)
    logits = (query @ key.mT + position.bias(query, key, ids[None, None])) / 2
    for b, h, i, j in itertools.product(range(2), range(3), range(5), range(5)):
        q, k, p = query[b, h, i], key[b, h, j], position.table_on_query[h, ids[i, j]]
        assert logits[b, h, i, j].item() == pytest.approx(((q @ k + q @ p) / math.sqrt(4)).item(), abs=1e-12)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_the_gradient_is_that_of_finite_differences_for_tables_too(terms, sharing):
    position = random_position(terms, sharing, clusters=4, d=3)
    ids, names = random_ids(1, 1, 3, 4, clusters=4), [name for name, _ in position.named_parameters()]

    def attend(query, key, value, *tables):
        return functional_call(position, dict(zip(names, tables, strict=True)), (query, key, value, ids))

    given = [tensor.requires_grad_() for tensor in queries_keys_values(b=1, m=3, n=4, d=3)]
    assert torch.autograd.gradcheck(attend, (*given, *position.parameters()))


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_at_the_start_it_is_attention_without_position(terms, sharing):
    position = RelativePosition(10, heads=2, head_dim=4, sharing=sharing, terms=terms).double()
    given = queries_keys_values()
    expected = F.scaled_dot_product_attention(*given)
    torch.testing.assert_close(position(*given, random_ids(1, 1, 5, 5)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("terms", TERMS)
def test_a_shared_table_is_the_same_one_for_each_attention_head(terms):
    shared, apart = random_position(terms, "shared", heads=3), random_position(terms, "per-head", heads=3, seed=1)
    given, ids = queries_keys_values(h=3), random_ids(2, 3, 5, 5)
    assert (shared(*given, ids) - apart(*given, ids)).abs().max() > 1e-2
    apart.load_state_dict({name: table.repeat(3, 1, 1) for name, table in shared.state_dict().items()})
    torch.testing.assert_close(shared(*given, ids), apart(*given, ids), rtol=0, atol=1e-12)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("rows", [[0], [0, 3, 4], [2, 1]])
def test_some_queries_get_the_answers_that_they_get_among_all(terms, rows):
    position, (query, key, value), ids = (
        random_position(terms, "per-head"),
        queries_keys_values(),
        random_ids(1, 2, 5, 5),
    )
    some = position(query[:, :, rows], key, value, ids[:, :, rows])
    torch.testing.assert_close(some, position(query, key, value, ids)[:, :, rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("sharing", SHARINGS)
def test_vectors_that_are_all_equal_change_nothing_for_queries(sharing):
    """All logits of a row rise by the same number, which softmax cancels."""
    position, given = random_position("query", sharing), queries_keys_values()
    with torch.no_grad():
        position.table_on_query.copy_(position.table_on_query[:, :1].expand_as(position.table_on_query))
    expected = F.scaled_dot_product_attention(*given)
    torch.testing.assert_close(position(*given, random_ids(1, 1, 5, 5)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("terms", TERMS)
def test_each_term_changes_the_answer(terms):
    position, given, ids = random_position(terms, "shared"), queries_keys_values(), random_ids(1, 1, 5, 5)
    whole = position(*given, ids)
    for table in position.parameters():
        before = table.detach().clone()
        nn.init.zeros_(table)
        assert (position(*given, ids) - whole).abs().max() > 1e-2
        with torch.no_grad():
            table.copy_(before)


@pytest.mark.parametrize("terms", TERMS)
def test_a_vector_learns_only_if_its_cluster_occurs(terms):
    position, given, ids = random_position(terms, "shared"), queries_keys_values(), random_ids(1, 1, 5, 5, clusters=7)
    position(*given, ids).logsumexp(-1).sum().backward()
    for table in position.parameters():
        assert torch.equal(table.grad[0].any(-1).nonzero().flatten(), ids.unique())


@pytest.mark.parametrize("terms", TERMS)
def test_dropout_leaves_out_pairs_and_scales_the_others(terms):
    """With unit vectors for values the answer is the map itself, plus what the vectors on values bring."""
    position, n = random_position(terms, "shared", clusters=4, heads=8, d=64), 64
    query, key, _ = queries_keys_values(b=1, h=8, m=n, n=n, d=64)
    value, ids = torch.eye(n, dtype=torch.float64).expand(1, 8, n, n), random_ids(1, 1, n, n, clusters=4)
    if position.table_on_value is not None:
        nn.init.zeros_(position.table_on_value)
    torch.manual_seed(0)
    whole, left = position(query, key, value, ids), position(query, key, value, ids, 0.25)
    assert ((left != 0).sum() / left.numel()).item() == pytest.approx(0.75, abs=0.02)
    torch.testing.assert_close(left[left != 0], whole[left != 0] / 0.75)


class LargestAnswer(TorchDispatchMode):
    """How many numbers the largest tensor has that any operation answers."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        del types
        answer = operation(*args, **(kwargs or {}))
        for tensor in answer if isinstance(answer, tuple | list) else (answer,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return answer


@pytest.mark.parametrize("terms", TERMS)
def test_there_is_never_a_vector_for_each_pair(terms):
    position, n = random_position(terms, "per-head", clusters=50, heads=2, d=64), 197
    given = [tensor.requires_grad_() for tensor in queries_keys_values(b=1, m=n, n=n, d=64)]
    ids = Clusters().on_grid(14, 14)[None, None]
    with LargestAnswer() as watched:
        position(*given, ids).sum().backward()
    assert watched.numbers == 2 * n * n  # those of the map; vectors would be 64 times as many
    with LargestAnswer() as watched:
        by_pairs(position, *given, ids.expand(1, 2, -1, -1))
    assert watched.numbers == 2 * n * n * 64


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("tables", [torch.float32, torch.bfloat16])
def test_of_bfloat16_the_answer_is_nearly_the_same(terms, tables):
    position, given = random_position(terms, "per-head", clusters=50, d=16), queries_keys_values(m=50, n=50, d=16)
    ids = Clusters().on_grid(7, 7)[None, None]
    expected = position(*given, ids)
    answer = position.to(tables)(*(tensor.bfloat16() for tensor in given), ids)
    assert answer.dtype == torch.bfloat16
    assert (answer - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("terms", TERMS)
def test_under_bfloat16_autocast_attention_is_nearly_the_same(terms):
    attention, ids = trained(random_position(terms, "per-head")).float(), random_ids(1, 1, 20, 20)
    x = tokens(20).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = attention(x, ids)
        logits, value = attention.map(x, ids)
        by_map = attention.by_map(logits.softmax(-1), value, ids)
        cast.sum().backward()
    expected = attention(x, ids)
    for answer in (cast, by_map):
        assert (answer - expected).norm() < 0.05 * expected.norm()


# -- multi-head self-attention -----------------------------------------------------------------------------------------


def test_without_position_it_is_the_attention_of_vit():
    """With these heads of four channels; the layer gives queries, keys, values in this order, head by head."""
    attention, x = trained(None), tokens()
    expected = torch.zeros(2, 5, 6, dtype=torch.float64)
    weight, bias = attention.mapping.weight, attention.mapping.bias
    for b in range(2):
        heads = []
        for h in range(2):
            query, key, value = (
                x[b] @ weight[first : first + 4].T + bias[first : first + 4] for first in (4 * h, 8 + 4 * h, 16 + 4 * h)
            )
            heads.append(torch.softmax(query @ key.T / math.sqrt(4), dim=-1) @ value)
        expected[b] = torch.cat(heads, dim=-1) @ attention.out.weight.T + attention.out.bias
    torch.testing.assert_close(attention(x, None), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(attention(x, random_ids(1, 1, 5, 5)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize(("ids_b", "ids_h"), [(1, 1), (2, 1), (2, 2)])
def test_with_position_it_is_the_loop_over_pairs_between_two_linear_layers(terms, sharing, ids_b, ids_h):
    attention, x, ids = trained(random_position(terms, sharing)), tokens(), random_ids(ids_b, ids_h, 5, 5)
    query, key, value = (part.reshape(2, 5, 2, 4).transpose(1, 2) for part in attention.mapping(x).split(8, dim=-1))
    attended = written_out(attention.position, query, key, value, ids.expand(2, 2, -1, -1))
    expected = attended.transpose(1, 2).reshape(2, 5, 8) @ attention.out.weight.T + attention.out.bias
    torch.testing.assert_close(attention(x, ids), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", ["all", "class"])
def test_without_clusters_the_vectors_are_not_used(rows):
    attention, plain = trained(random_position("query-key-value", "shared")), trained(None)
    assert torch.equal(attention(tokens(), None, rows), plain(tokens(), None, rows))


def test_the_row_of_the_class_token_alone_is_the_first_of_all_in_output_and_gradient(position):
    attention, ids, results = trained(position), random_ids(1, 1, 5, 5), []
    for rows in ("class", "all"):
        x = tokens().requires_grad_()
        attention.zero_grad()
        answer = attention(x, ids, rows)
        assert answer.shape == (2, 1 if rows == "class" else 5, 6)
        answer[:, :1].logsumexp(-1).sum().backward()
        results.append([answer[:, :1], x.grad, *(parameter.grad.clone() for parameter in attention.parameters())])
    for alone, among in zip(*results, strict=True):
        torch.testing.assert_close(alone, among, rtol=0, atol=1e-12)


def test_the_class_token_learns_nothing_from_the_vectors_on_its_query():
    """All its pairs have one cluster, which softmax cancels: of a last layer these vectors change nothing."""
    attention, x = trained(random_position("query", "shared")), tokens()
    ids = Clusters(count=10).on_grid(2, 2)[None, None]
    answer = attention(x, ids, "class")
    torch.testing.assert_close(answer, attention(x, None, "class"), rtol=0, atol=1e-12)
    answer.logsumexp(-1).sum().backward()
    assert attention.position.table_on_query.grad.abs().max() < 1e-12
    assert not torch.allclose(attention(x, ids)[:, 1:], attention(x, None)[:, 1:], atol=1e-2)


@pytest.mark.parametrize(("ids_b", "ids_h"), [(1, 1), (2, 2)])
def test_the_map_and_the_answer_by_it_are_the_layer(position, ids_b, ids_h):
    attention, ids = trained(position), random_ids(ids_b, ids_h, 5, 5)
    expected = attention(tokens(), ids)
    logits, value = attention.map(tokens(), ids)
    assert (logits.shape, value.shape) == ((2, 2, 5, 5), (2, 2, 5, 4))
    weights = logits.softmax(-1)
    torch.testing.assert_close(attention.by_map(weights, value, ids), expected, rtol=0, atol=1e-12)
    some = attention.by_map(weights[:, :, [0, 2]], value, ids[:, :, [0, 2]])
    torch.testing.assert_close(some, expected[:, [0, 2]], rtol=0, atol=1e-12)


def test_samples_do_not_see_each_other(position):
    attention, ids = trained(position), random_ids(2, 1, 5, 5)
    apart = [attention(x[None], own[None]) for x, own in zip(tokens(), ids, strict=True)]
    torch.testing.assert_close(attention(tokens(), ids), torch.cat(apart), rtol=0, atol=1e-12)


def test_only_the_clusters_tell_the_order_of_tokens(position):
    attention, ids, order = trained(position), random_ids(1, 1, 5, 5), torch.tensor([0, 3, 1, 4, 2])
    moved = attention(tokens()[:, order], ids[..., order, :][..., order])
    torch.testing.assert_close(moved, attention(tokens(), ids)[:, order], rtol=0, atol=1e-12)
    still = attention(tokens()[:, order], ids)
    assert torch.allclose(still, moved, atol=1e-6) == (position is None)


def ways_of(attention, x, ids):
    """The answers of the layer, of its class row, and of who takes its map apart."""
    logits, value = attention.map(x, ids)
    return attention(x, ids), attention(x, ids, "class"), attention.by_map(logits.softmax(-1), value, ids)


def test_chance_is_for_training_only(position):
    attention, x, ids = trained(position, dropout=0.5), tokens(), random_ids(1, 1, 5, 5)
    plain = ways_of(trained(position), x, ids)
    for first, again, without in zip(ways_of(attention, x, ids), ways_of(attention, x, ids), plain, strict=True):
        assert torch.equal(first, again)
        assert torch.equal(first, without)
    attention.train()
    for first, again in zip(ways_of(attention, x, ids), ways_of(attention, x, ids), strict=True):
        assert not torch.equal(first, again)
    for first, without in zip(ways_of(trained(position).train(), x, ids), plain, strict=True):
        assert torch.equal(first, without)


def test_dropout_is_on_the_map_and_on_the_output_and_right_on_average(position):
    """Numbers of the output that are left are not all alike: the map has lost some of its own."""
    attention, ids, draws = trained(position, dropout=0.25).train(), random_ids(1, 1, 5, 5), 8000
    torch.manual_seed(0)
    answers = ways_of(attention, tokens(b=1).expand(draws, -1, -1), ids)
    for answer, expected in zip(answers, ways_of(attention.eval(), tokens(b=1), ids), strict=True):
        assert (answer == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
        assert answer[:, 0, 0].unique().numel() > 10
        assert ((answer.mean(0) - expected[0]).abs() < 5 * answer.std(0) / draws**0.5).all()


def test_every_parameter_learns(position):
    attention = trained(position)
    attention(tokens(), random_ids(1, 1, 5, 5)).logsumexp(-1).sum().backward()
    dead = {name for name, p in attention.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9}
    assert not dead


# -- other ways to run it ----------------------------------------------------------------------------------------------


@pytest.fixture
def unchecked(monkeypatch):
    """Shapes are checked in Python that the compiler cannot read."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("rows", ["all", "class"])
@pytest.mark.parametrize("terms", TERMS)
def test_compiled_it_is_the_same_in_one_graph(terms, rows):
    attention, ids = trained(random_position(terms, "per-head")), random_ids(1, 1, 5, 5)
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    plain, ours = (tokens().requires_grad_() for _ in range(2))
    expected, answer = attention(plain, ids, rows), compiled(ours, ids, rows)
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-12)
    expected.logsumexp(-1).sum().backward()
    answer.logsumexp(-1).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("rows", ["all", "class"])
@pytest.mark.parametrize("terms", TERMS)
def test_exported_it_is_the_same_for_any_number_of_clips(terms, rows):
    attention, ids, batch = trained(random_position(terms, "shared")), random_ids(1, 1, 5, 5), torch.export.Dim("batch")
    exported = torch.export.export(
        attention, (tokens(b=3), ids, rows), dynamic_shapes={"tokens": {0: batch}, "ids": None, "rows": None}
    ).module()
    torch.testing.assert_close(exported(tokens(b=5), ids, rows), attention(tokens(b=5), ids, rows), rtol=0, atol=1e-12)


class OnGrid(nn.Module):
    """Attention that asks for the clusters of its tokens itself."""

    def __init__(self, rows, columns):
        super().__init__()
        self.rows, self.columns = rows, columns
        self.attention = trained(random_position("query", "shared", clusters=122))

    def forward(self, x):
        return self.attention(x, Clusters(count=122).on_grid(self.rows, self.columns)[None, None])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("first", "rows", "columns"), [("predicted", 1, 4), ("exported", 4, 1), ("on no device", 2, 2)], ids=str
)
def test_clusters_first_asked_for_in_another_mode_are_still_numbers_that_train(first, rows, columns):
    """No other test asks for these clusters on these grids, so that this one is the first."""
    network, x = OnGrid(rows, columns), tokens()
    pairs = itertools.product(range(5), repeat=2)
    ids = [literal_id(i, j, columns=columns, s=lambda offset: literal_s(offset, 2.9), reach=5) for i, j in pairs]
    expected = network.attention(x, torch.tensor(ids).view(1, 1, 5, 5))
    match first:
        case "predicted":
            with torch.inference_mode():
                network(x)
        case "exported":
            torch.export.export(network, (x,))
        case "on no device":
            with torch.device("meta"):
                Clusters(count=122).on_grid(rows, columns)
    answer = network(x)
    assert type(answer) is torch.Tensor
    assert torch.equal(answer, expected)
    answer.sum().backward()


def test_the_state_holds_the_tables_and_nothing_that_depends_on_the_grid():
    names = set(trained(random_position("query-key-value", "shared")).state_dict())
    tables = {"position.table_on_query", "position.table_on_key", "position.table_on_value"}
    assert names == tables | {"mapping.weight", "mapping.bias", "out.weight", "out.bias"}

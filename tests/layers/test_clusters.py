"""Clusters of offsets equal loops over pairs of tokens."""

import itertools
import math

import pytest
import torch

from kinema.errors import ConfigError
from kinema.layers.relative_position import RATIOS, Clusters, clipped, sectioned

COUNTS = {1: 10, 2: 26, 3: 50, 4: 82, 5: 122, 6: 170}
FROM_THE_CORNER = {
    1: [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    3: [0, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3],
}
"""s(0), s(1), ..., s(13), computed by hand from eq. 3.8 and 3.9."""


def reference_s(x, ratio):
    """Return s of eq. 3.8 and 3.9 with b : y : a = 1 : 2 : 8 for one number, y rounded down."""
    b, y, a = ratio, 2 * ratio, 8 * ratio
    if abs(x) <= b:
        return round(x)
    return int(math.copysign(min(y, round(b + math.log(abs(x) / b) / math.log(a / b) * (y - b))), x))


def reference_id(i, j, *, columns, s, reach):
    """Return the index of eq. 3.11 for two tokens; token 0 is the class token."""
    if i == 0 or j == 0:
        return (2 * reach + 1) ** 2
    (row, column), (other_row, other_column) = divmod(i - 1, columns), divmod(j - 1, columns)
    return (s(row - other_row) + reach) * (2 * reach + 1) + s(column - other_column) + reach


# -- from an offset to a whole number ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("reach", "values"), FROM_THE_CORNER.items())
def test_the_sectioned_function_by_hand(reach, values):
    assert sectioned(torch.arange(14), RATIOS[reach]).tolist() == values


@pytest.mark.parametrize("ratio", RATIOS.values())
def test_the_sectioned_function_equals_eq_3_8_and_3_9(ratio):
    whole = torch.arange(-200, 201)
    broken = torch.linspace(-40, 40, 3201, dtype=torch.float64)  # 0.5 and 1.5 among them
    for offsets in (whole, broken, broken.float()):
        ours = sectioned(offsets, ratio)
        assert ours.dtype == torch.int64
        assert ours.tolist() == [reference_s(x, ratio) for x in offsets.tolist()]


@pytest.mark.parametrize("ratio", RATIOS.values())
@pytest.mark.parametrize("offsets", [torch.arange(-300, 301), torch.linspace(-300, 300, 4801)], ids=["whole", "broken"])
def test_the_sectioned_function_is_odd_non_decreasing_and_bounded(ratio, offsets):
    values = sectioned(offsets, ratio)
    assert torch.equal(values, -sectioned(-offsets, ratio))
    assert values.diff().min() == 0
    assert (values.min(), values.max()) == (-int(2 * ratio), int(2 * ratio))
    assert sectioned(torch.zeros(1), ratio).item() == sectioned(torch.zeros(1).long(), ratio).item() == 0


@pytest.mark.parametrize(("reach", "ratio"), RATIOS.items())
def test_offsets_of_a_grid_of_14_reach_every_value_of_the_sectioned_function(reach, ratio):
    assert sectioned(torch.arange(-13, 14), ratio).unique().tolist() == list(range(-reach, reach + 1))


def test_offsets_keep_their_shape_and_are_rounded_half_to_even():
    offsets = torch.tensor([[0.5, 1.5, -1.5], [2.5, -0.5, 0.49]])
    assert sectioned(offsets, 3.4).tolist() == [[0, 2, -2], [2, 0, 0]]
    assert sectioned(torch.tensor(5), 1.9).shape == ()


@pytest.mark.parametrize("limit", [1, 3, 13])
def test_the_clipped_function_truncates(limit):
    offsets = torch.arange(-20, 21)
    expected = [max(-limit, min(limit, x)) for x in offsets.tolist()]
    for given in (offsets, offsets.float(), offsets + 0.3, offsets - 0.3):
        assert clipped(given, limit).dtype == torch.int64
        assert clipped(given, limit).tolist() == expected


# -- which tokens share a vector ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "s"), [("sectioned", lambda x: reference_s(x, 1.9)), ("clip", lambda x: max(-3, min(3, x)))]
)
def test_clusters_of_a_frame_equal_a_loop_over_197_x_197_tokens(function, s):
    s = {offset: s(offset) for offset in range(-13, 14)}.__getitem__
    expected = [[reference_id(i, j, columns=14, s=s, reach=3) for j in range(197)] for i in range(197)]
    ids = Clusters(function=function).on_grid(14, 14)
    assert ids.dtype == torch.int64
    assert ids.tolist() == expected


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 6), (6, 1), (2, 5), (5, 2), (20, 3)])
@pytest.mark.parametrize("reach", [1, 3, 6])
def test_clusters_equal_the_loop_on_any_grid(rows, columns, reach):
    """A grid that is not square shows whether rows and columns are swapped."""
    n = rows * columns + 1

    def s(offset):
        return reference_s(offset, RATIOS[reach])

    expected = [[reference_id(i, j, columns=columns, s=s, reach=reach) for j in range(n)] for i in range(n)]
    assert Clusters(count=COUNTS[reach]).on_grid(rows, columns).tolist() == expected


def test_a_single_patch_has_offset_zero():
    assert Clusters().on_grid(1, 1).tolist() == [[49, 49], [49, 24]]


@pytest.mark.parametrize("function", ["sectioned", "clip"])
@pytest.mark.parametrize(("reach", "count"), COUNTS.items())
def test_every_cluster_occurs_on_14_x_14_patches(function, reach, count):
    clusters = Clusters(count=count, function=function)
    assert clusters.reach == reach
    assert clusters.on_grid(14, 14).unique().tolist() == list(range(count))


def test_the_middle_patch_sees_49_clusters_and_that_of_the_class_token():
    seen = Clusters().on_grid(14, 14)[1 + 7 * 14 + 7]
    assert seen[1:].unique().tolist() == list(range(49))
    assert seen[0] == 49


@pytest.mark.parametrize("clusters", [Clusters(), Clusters(function="clip"), Clusters(count=8, distance="euclid")])
def test_only_pairs_with_the_class_token_have_the_last_cluster(clusters):
    last = torch.zeros(13, 13, dtype=torch.bool)
    last[0], last[:, 0] = True, True
    assert torch.equal(clusters.on_grid(3, 4) == clusters.count - 1, last)
    last = torch.zeros(7, 7, dtype=torch.bool)
    last[0], last[:, 0] = True, True
    assert torch.equal(clusters.on_times(torch.arange(6)) == clusters.temporal_count - 1, last)


def test_opposite_offsets_have_mirrored_clusters():
    """p of (j, i) is at the mirrored index, so an offset is the query's location minus the key's."""
    ids = Clusters().on_grid(5, 6)[1:, 1:]
    assert torch.equal(ids + ids.T, torch.full_like(ids, 48))
    assert ids[0, 1] == 3 * 7 + 2  # a key to the right is one column less
    assert ids[0, 6] == 2 * 7 + 3  # a key below is one row less


# -- the straight line -------------------------------------------------------------------------------------------------


def test_euclid_has_eight_clusters_of_which_five_occur():
    clusters = Clusters(count=8, distance="euclid")
    assert (clusters.reach, clusters.temporal_count) == (3, 8)
    assert clusters.on_grid(14, 14).unique().tolist() == [3, 4, 5, 6, 7]
    assert clusters.map_from(7, 7, rows=14, columns=14).unique().tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("function", ["sectioned", "clip"])
def test_euclid_clusters_equal_eq_3_10(function):
    rows, columns = 5, 7
    ids = Clusters(count=8, function=function, distance="euclid").on_grid(rows, columns)
    places = list(itertools.product(range(rows), range(columns)))
    for (i, (y, x)), (j, (v, u)) in itertools.product(enumerate(places), repeat=2):
        line = math.sqrt((x - u) ** 2 + (y - v) ** 2)
        assert ids[1 + i, 1 + j] == 3 + (reference_s(line, 1.9) if function == "sectioned" else min(3, round(line)))


@pytest.mark.parametrize("reach", RATIOS)
def test_euclid_clusters_are_symmetric_and_rise_with_distance(reach):
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
def test_an_impossible_count_is_refused_with_the_possible_ones(raises, choices, there):
    with raises(ConfigError, f"clusters={choices.get('count', 50)}", f"one of {there}", field="clusters"):
        Clusters(**choices)


@pytest.mark.parametrize("function", ["sectioned", "clip"])
@pytest.mark.parametrize("distance", ["axes", "euclid"])
def test_each_count_is_one_more_than_the_values_and_its_clusters_stay_below_it(function, distance):
    smallest = Clusters(count=10 if distance == "axes" else 4, function=function, distance=distance)
    for reach, count in enumerate(smallest.possible_counts, start=1):
        clusters = Clusters(count=count, function=function, distance=distance)
        assert clusters.reach == reach
        assert count == (2 * reach + 1) ** (2 if distance == "axes" else 1) + 1
        assert clusters.temporal_count == 2 * reach + 2
        for ids, below in (
            (clusters.on_grid(30, 2), count),
            (clusters.on_times(torch.arange(64)), clusters.temporal_count),
        ):
            assert ids.min() >= 0
            assert ids.max() == below - 1


# -- frames ------------------------------------------------------------------------------------------------------------


def reference_times(times, s, reach):
    """Return the clusters of frames with these numbers."""
    n = len(times) + 1
    return [
        [2 * reach + 1 if 0 in (i, j) else s(times[i - 1] - times[j - 1]) + reach for j in range(n)] for i in range(n)
    ]


@pytest.mark.parametrize(
    ("function", "s"), [("sectioned", lambda x: reference_s(x, 1.9)), ("clip", lambda x: max(-3, min(3, x)))]
)
@pytest.mark.parametrize("times", [list(range(16)), [1, 2, 5, 9, 11, 12, 15], [4], [0, 63]])
def test_clusters_of_frames_use_frame_numbers(function, s, times):
    ids = Clusters(function=function).on_times(torch.tensor(times))
    assert ids.dtype == torch.int64
    assert ids.tolist() == reference_times(times, s, 3)


def test_each_clip_and_attention_head_may_have_other_frames():
    clusters = Clusters(count=26)
    times = torch.rand(3, 2, 16, generator=torch.Generator().manual_seed(0)).argsort(-1)[..., :5].sort(-1).values
    ids = clusters.on_times(times)
    assert ids.shape == (3, 2, 6, 6)
    for clip, head in itertools.product(range(3), range(2)):
        assert ids[clip, head].tolist() == reference_times(times[clip, head].tolist(), lambda x: reference_s(x, 1.0), 2)
    assert torch.equal(clusters.on_times(times[:, 0]), ids[:, 0])


def test_dropped_frames_do_not_change_the_offsets_of_others():
    every = Clusters().on_times(torch.arange(16))
    kept = torch.tensor([0, 1, 6, 15])
    some = torch.cat((torch.zeros(1).long(), kept + 1))
    assert torch.equal(Clusters().on_times(kept), every[some][:, some])
    assert not torch.equal(Clusters().on_times(kept), Clusters().on_times(torch.arange(4)))


# -- figure 3.5 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "column", "rows", "columns"), [(7, 7, 14, 14), (0, 0, 3, 8), (2, 7, 3, 8), (1, 3, 3, 8)]
)
def test_the_map_from_one_patch_equals_a_loop_over_the_others(row, column, rows, columns):
    ours = Clusters().map_from(row, column, rows=rows, columns=columns)
    expected = [
        [(reference_s(row - r, 1.9) + 3) * 7 + reference_s(column - c, 1.9) + 3 for c in range(columns)]
        for r in range(rows)
    ]
    assert ours.tolist() == expected


@pytest.mark.parametrize(("row", "column"), [(3, 0), (0, 8), (-1, 0), (0, -1), (8, 3)])
def test_a_patch_outside_the_grid_has_no_map(row, column):
    with pytest.raises(ValueError, match=rf"\({row}, {column}\)"):
        Clusters().map_from(row, column, rows=3, columns=8)

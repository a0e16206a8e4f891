import math
from fractions import Fraction

import numpy as np
import pytest

from kinema.cli import main
from kinema.errors import ConfigError
from kinema.transforms.sampling import Sampling, segment_edges, segment_indices

LENGTHS = range(1, 201)
CLIPS = [1, 4, 8, 16, 32]


def edges_by_hand(num_frames, clip_frames):
    for i in range(clip_frames):
        first = (num_frames * i) // clip_frames
        yield first, max(first + 1, (num_frames * (i + 1)) // clip_frames)


@pytest.mark.parametrize("clip_frames", CLIPS)
def test_segments_are_those_of_the_formula(clip_frames):
    for num_frames in LENGTHS:
        first, stop = segment_edges(num_frames, clip_frames)
        assert list(zip(first.tolist(), stop.tolist(), strict=True)) == list(edges_by_hand(num_frames, clip_frames))


@pytest.mark.parametrize("clip_frames", CLIPS)
def test_segments_leave_no_frame_out(clip_frames):
    for num_frames in LENGTHS:
        held = {n for first, stop in edges_by_hand(num_frames, clip_frames) for n in range(first, stop)}
        drawn = segment_edges(num_frames, clip_frames)
        assert {n for first, stop in zip(*drawn, strict=True) for n in range(first, stop)} == held
        if num_frames >= clip_frames:
            assert held == set(range(num_frames))


@pytest.mark.parametrize("clip_frames", CLIPS)
def test_an_evaluation_takes_the_middle_of_each_segment(clip_frames):
    for num_frames in LENGTHS:
        middle = [(first + stop - 1) // 2 for first, stop in edges_by_hand(num_frames, clip_frames)]
        assert segment_indices(num_frames, clip_frames, None).tolist() == middle


@pytest.mark.parametrize("clip_frames", CLIPS)
@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)], ids=["evaluation", "training"])
def test_frames_are_inside_the_video_and_in_order(clip_frames, rng):
    for num_frames in LENGTHS:
        indices = segment_indices(num_frames, clip_frames, rng)
        assert len(indices) == clip_frames
        assert (np.diff(indices) >= 0).all()
        assert indices.min() >= 0
        assert indices.max() < num_frames


@pytest.mark.parametrize("num_frames", [3, 8, 37])
def test_draws_reach_every_frame_of_each_segment_and_no_other(num_frames):
    rng = np.random.default_rng(0)
    drawn = np.stack([segment_indices(num_frames, 8, rng) for _ in range(300)])
    for column, (first, stop) in zip(drawn.T, edges_by_hand(num_frames, 8), strict=True):
        assert set(column.tolist()) == set(range(first, stop))


def test_the_rule_of_a_model_is_the_segments():
    sampling = Sampling(frames=8)
    assert sampling.indices(50, None).tolist() == segment_indices(50, 8, None).tolist()
    drawn = sampling.indices(50, np.random.default_rng(3))
    assert drawn.tolist() == segment_indices(50, 8, np.random.default_rng(3)).tolist()


def test_a_video_without_frames_is_refused():
    with pytest.raises(ValueError, match="video of 0"):
        segment_indices(0, 8, None)


def test_a_clip_without_frames_is_refused(raises):
    with raises(ConfigError, field="frames"):
        Sampling(frames=0)


# -- equal distances ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_frames", [1, 2, 8, 16])
@pytest.mark.parametrize("interval", [1, 4, 32])
def test_uniform_frames_are_the_formulas(clip_frames, interval):
    """spec: interval = min(largest, (n - 1) / (T - 1)), the middle of the video, halves rounded up."""
    for num_frames in (1, 2, 7, 16, 31, 100, 511, 512, 700):
        got = Sampling(rule="uniform", frames=clip_frames, interval=interval).indices(num_frames, None)
        distance = min(Fraction(interval), Fraction(num_frames - 1, max(clip_frames - 1, 1)))
        span = distance * (clip_frames - 1)
        first = (num_frames - 1 - span) // 2
        assert got.tolist() == [int(first + math.floor(i * distance + Fraction(1, 2))) for i in range(clip_frames)]


@pytest.mark.parametrize("rule", ["uniform", "dense"])
def test_draws_at_equal_distances_stay_inside_and_reach_both_ends(rule):
    sampling = Sampling(rule=rule, frames=4, interval=3)
    rng = np.random.default_rng(0)
    drawn = np.stack([sampling.indices(20, rng) for _ in range(300)])
    assert (np.diff(drawn) == 3).all()
    assert (drawn.min(), drawn.max()) == (0, 19)
    for num_frames in (1, 2, 5, 9):
        short = np.stack([sampling.indices(num_frames, rng) for _ in range(50)])
        assert short.min() >= 0
        assert short.max() < num_frames
        assert (np.diff(short) >= 0).all()


def test_a_video_that_is_too_short_shrinks_the_uniform_interval_and_repeats_the_last_dense_frame():
    assert Sampling(rule="uniform", frames=4, interval=32).indices(7, None).tolist() == [0, 2, 4, 6]
    assert Sampling(rule="dense", frames=4, interval=3).indices(7, None).tolist() == [0, 3, 6, 6]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"rule": "uniform", "frames": 8}, ""),
        ({"rule": "dense", "frames": 8, "interval": 0}, "interval"),
        ({"frames": 8, "interval": 2}, ""),
    ],
)
def test_an_interval_goes_with_the_rules_that_have_one(fields, field, raises):
    with raises(ConfigError, "interval", field=field):
        Sampling(**fields)


# -- views of a test ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clips", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("clip_frames", [1, 8, 16])
def test_a_view_takes_its_share_of_each_segment(clips, clip_frames):
    """The frame that holds the point (2v + 1) / 2V of the segment; a point between two frames is the earlier one's."""
    for num_frames in (1, 5, 16, 37, 160, 200):
        views = Sampling(frames=clip_frames, clips=clips).views(num_frames)
        assert views.shape == (clips, clip_frames)
        for number, view in enumerate(views.tolist()):
            share = Fraction(2 * number + 1, 2 * clips)
            edges = edges_by_hand(num_frames, clip_frames)
            assert view == [first + math.ceil((stop - first) * share) - 1 for first, stop in edges]


@pytest.mark.parametrize("clips", [2, 3, 5, 10])
@pytest.mark.parametrize("rule", ["uniform", "dense"])
def test_views_at_equal_distances_start_from_the_first_place_to_the_last(rule, clips):
    for num_frames in (1, 4, 10, 11, 25, 100):
        views = Sampling(rule=rule, frames=4, interval=3, clips=clips).views(num_frames)
        last = max(num_frames - 10, 0)
        wanted = [math.floor(Fraction(last * number, clips - 1) + Fraction(1, 2)) for number in range(clips)]
        assert views[:, 0].tolist() == wanted
        assert views.max() == num_frames - 1
        only = Sampling(rule=rule, frames=4, interval=3).indices(num_frames, None)
        assert (np.diff(views) == np.diff(only)).all()


@pytest.mark.parametrize("rule", ["segments", "uniform", "dense"])
def test_the_only_view_is_the_middle(rule):
    sampling = Sampling(rule=rule, frames=4, interval=None if rule == "segments" else 3)
    for num_frames in LENGTHS:
        (only,) = sampling.views(num_frames).tolist()
        assert only == sampling.indices(num_frames, None).tolist()


@pytest.mark.parametrize("rule", ["segments", "uniform", "dense"])
def test_training_draws_do_not_know_of_views(rule):
    interval = None if rule == "segments" else 3
    one, many = (Sampling(rule=rule, frames=4, interval=interval, clips=clips) for clips in (1, 10))
    for seed in range(20):
        drawn = [sampling.indices(50, np.random.default_rng(seed)).tolist() for sampling in (one, many)]
        assert drawn[0] == drawn[1]


def test_a_test_has_at_least_one_view(raises):
    with raises(ConfigError, field="clips"):
        Sampling(frames=8, clips=0)


def test_the_command_prints_the_frames_of_every_view(tmp_path, capsys):
    (tmp_path / "views.py").write_text(
        "from dataclasses import replace\n"
        "from kinema.recipes.moves_ctn_tiny import RECIPE as MOVES\n"
        "RECIPE = replace(MOVES, clip=replace(MOVES.clip, clips=2, crops=3))\n"
    )
    main(["sampling", "moves_cross_subject", "--index", "2", "--recipe", str(tmp_path / "views.py"), "--draws", "1"])
    head, first, second, draw = capsys.readouterr().out.splitlines()
    assert "crops per clip: 3" in head
    assert first == "evaluation 1: " + " ".join(str(2 * i) for i in range(16))
    assert second == "evaluation 2: " + " ".join(str(2 * i + 1) for i in range(16))
    assert draw.startswith("draw 0:")


def test_the_rule_of_tsn_rounds_the_middle_of_equal_parts_down():
    """TSN's public code: int(n / T / 2 + n / T * i), here in exact fractions."""
    later = set()
    for clip_frames in CLIPS:
        for num_frames in LENGTHS:
            part = Fraction(num_frames, clip_frames)
            expected = [math.floor(part / 2 + part * i) for i in range(clip_frames)]
            got = Sampling(frames=clip_frames, test_frame="tsn").indices(num_frames, None).tolist()
            assert got == expected
            ours = Sampling(frames=clip_frames).indices(num_frames, None)
            later |= set((np.array(got) - ours).tolist()) if num_frames >= clip_frames else set()
    assert later == {0, 1}
    assert Sampling(frames=1, test_frame="tsn").indices(2, None).tolist() == [1]
    assert Sampling(frames=1).indices(2, None).tolist() == [0]


def test_the_rule_of_tsn_places_each_view_in_its_part_of_a_segment():
    sampling = Sampling(frames=4, clips=3, test_frame="tsn")
    for num_frames in LENGTHS:
        part = Fraction(num_frames, 4)
        expected = [[math.floor(part * (i + Fraction(2 * v + 1, 6))) for i in range(4)] for v in range(3)]
        assert sampling.views(num_frames).tolist() == expected


def test_the_rule_of_tsn_needs_segments(raises):
    with raises(ConfigError, "segments"):
        Sampling(rule="uniform", frames=8, interval=2, test_frame="tsn")


@pytest.mark.parametrize(("rule", "interval"), [("segments", None), ("uniform", 2), ("dense", 2)])
def test_training_clips_are_drawn_or_as_tested(rule, interval):
    drawn, tested = (Sampling(rule=rule, frames=4, interval=interval, train_frames=t) for t in ("drawn", "as-tested"))
    clips = {tuple(drawn.indices(40, np.random.default_rng(seed))) for seed in range(20)}
    assert len(clips) > 1
    for seed in range(20):
        assert tested.indices(40, np.random.default_rng(seed)).tolist() == drawn.indices(40, None).tolist()


def test_uniform_clips_of_16_at_32_are_drawn_from_482_frames_on():
    sampling = Sampling(rule="uniform", frames=16, interval=32)
    starts = {n: {int(sampling.indices(n, np.random.default_rng(seed))[0]) for seed in range(20)} for n in (481, 482)}
    assert starts == {481: {0}, 482: {0, 1}}

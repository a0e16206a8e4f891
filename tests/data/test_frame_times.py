"""Files of other, uneven and unknown frame rates: the frames taken are those at the right times."""

import dataclasses

import av
import numpy as np
import pytest
from PIL import Image

from kinema.data.dataset import read_clips, read_views
from kinema.data.manifest import Entry
from kinema.errors import ConfigError, UnreadableVideo
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import UNEVEN_SHARE, FrameTimes, Sampling, group_rates, pair_frames, rhythm
from kinema.video.read_options import ReadOptions
from kinema.video.video_file import VideoFile

WHOLE = Preprocessing(short_side=48, size=48)
DENSE = Sampling(rule="dense", frames=8, interval=4, rate=30)


@pytest.fixture
def taken(read_stamps):
    """Return the numbers of the frames that a rule takes: from the stamped pictures of a view or a draw."""

    def numbers(entry, sampling, seed=None, **options):
        wide = Preprocessing(short_side=48, size=48, crops=3)
        if seed is None:
            clip = read_views(entry, locate=str, sampling=sampling, preprocessing=wide, **options)["rgb"]
            left, _, right = clip.permute(0, 2, 3, 4, 1).numpy()
            return read_stamps(np.concatenate([left[:, :, :32], right[:, :, 16:]], 2))
        rng = np.random.default_rng(seed)
        return read_clips(entry, locate=str, sampling=sampling, preprocessing=WHOLE, rng=rng, **options)

    return numbers


@pytest.fixture
def film(tmp_path, write_video, stamp):
    """Return a function that writes stamped frames at these times, or at a rate."""

    def write(name, count, *, times=None, rate=25, **options):
        return write_video(tmp_path / name, [stamp(n) for n in range(count)], times=times, rate=rate, **options)

    return write


def seconds(path, numbers):
    timeline = VideoFile(path).timeline
    return (np.array(timeline.stamps)[numbers] - timeline.stamps[0]) / timeline.second


@pytest.mark.parametrize("manifest", ["with the rate", "without"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_one_action_at_30_and_60_frames_per_second_spans_the_same_time(film, taken, suffix, manifest):
    codec = {"avi": {"codec": "mpeg4", "options": {"b": "900000"}}}.get(suffix, {})
    found = {}
    for rate in (30, 60):
        path = film(f"{rate}.{suffix}", 2 * rate, rate=rate, **codec)
        entry = Entry(rgb=path, frames=2 * rate, rate=float(rate) if manifest == "with the rate" else None)
        found[rate] = taken(entry, DENSE)
    assert found[30] == list(range(15, 44, 4))
    assert np.diff(found[60]).tolist() == [8] * 7
    assert abs(found[60][0] - 2 * found[30][0]) <= 1
    assert taken(Entry(rgb=path, frames=120), dataclasses.replace(DENSE, rate=None)) == list(range(45, 74, 4))


@pytest.mark.parametrize("rate", [15, 24, 25, 50, 59.94, 120])
def test_an_interval_in_seconds_fits_any_rate(film, taken, rate):
    path = film("a.mkv", round(2 * rate) + 1, times=np.arange(round(2 * rate) + 1) / rate)
    for sampling in (DENSE, Sampling(rule="dense", frames=8, interval_s=4 / 30)):
        numbers = taken(Entry(rgb=path), sampling)
        assert seconds(path, numbers)[[0, -1]].tolist() == pytest.approx([0.5, 0.5 + 28 / 30], abs=0.08)
        np.testing.assert_allclose(np.diff(seconds(path, numbers)), 4 / 30, atol=1.1 / rate)


def uneven_times(kind):
    """Return times [s] in whole milliseconds whose rate varies, and the share of the first third of the time."""
    if kind == "30 then 5":
        return np.concatenate([np.arange(30) / 30, 1 + np.arange(10) / 5])
    if kind == "25 then 30 by and by":
        return np.cumsum(np.linspace(1 / 20, 1 / 40, 100))
    if kind == "one frame per 2 s, then a burst":
        return np.concatenate([2.0 * np.arange(20), 40 + np.arange(60) / 30])
    if kind == "a pause of 5 s":
        return np.arange(100) / 30 + 5 * (np.arange(100) >= 50)
    return np.delete(np.arange(120) / 30, np.arange(60, 90, 2))  # every other frame of a second is lost


KINDS = ("30 then 5", "25 then 30 by and by", "one frame per 2 s, then a burst", "a pause of 5 s", "lost frames")


@pytest.mark.parametrize("kind", KINDS)
def test_segments_are_equal_in_time_where_the_rate_varies(film, taken, kind):
    times = uneven_times(kind)
    path = film("a.mkv", len(times), times=times)
    numbers = taken(Entry(rgb=path, frames=len(times)), Sampling(frames=8))
    total = times[-1] + times[-1] / (len(times) - 1)
    wanted = total * (np.arange(8) + 0.5) / 8
    displayed = np.searchsorted(times, wanted + 0.02, side="right") - 1
    assert np.abs(np.array(numbers) - displayed).max() <= 2
    assert np.abs(np.searchsorted(times, wanted + 0.06, side="right") - 1 - numbers).min() <= 1


def test_30_then_5_frames_per_second(film, taken):
    path = film("a.mp4", 40, times=uneven_times("30 then 5"))
    numbers = taken(Entry(rgb=path, frames=40), Sampling(frames=8))
    assert sum(number < 30 for number in numbers) in (2, 3)
    assert np.diff(seconds(path, numbers)).tolist() == pytest.approx([0.36] * 7, abs=0.2)
    for seed in range(3):
        clip = taken(Entry(rgb=path, frames=40), Sampling(frames=8), seed)["rgb"]
        assert clip.shape[1] == 8
    part = Entry(rgb=path, start_s=0.5, stop_s=2.0)
    assert sum(number < 30 for number in taken(part, Sampling(frames=9))) in (3, 4)
    dense = taken(Entry(rgb=path), Sampling(rule="dense", frames=8, interval=6, rate=30))
    behind = seconds(path, dense)[0] + 0.2 * np.arange(8) - seconds(path, dense)
    assert -0.01 < behind.min() <= behind.max() < 0.2  # the frame that a player shows then


@pytest.mark.parametrize(
    "times",
    [
        np.arange(90) / 29.97,
        np.arange(90) / 29.97 + np.random.default_rng(0).uniform(-0.001, 0.001, 90),
        np.delete(np.arange(90) / 30, 50),
        np.arange(90) / 1000,
    ],
    ids=["rounded", "jitter of 1 ms", "one lost frame", "coarse ticks"],
)
def test_an_even_rate_keeps_the_frames_of_every_rule(times):
    stamps = np.round(1000 * times).astype(np.int64)
    frames = FrameTimes.stamped(5, stamps, 1000.0)
    assert frames.stamps is None
    for sampling in (Sampling(frames=8), dataclasses.replace(DENSE, rate=frames.rate)):
        rule, grid = sampling.on(frames)
        assert grid.num_places == len(times)
        assert (
            grid.frames(rule.indices(grid.num_places, None)).tolist() == (5 + rule.indices(len(times), None)).tolist()
        )


@pytest.mark.parametrize("kind", KINDS)
def test_these_rates_vary(kind):
    assert rhythm(np.round(1000 * uneven_times(kind)).astype(np.int64), 1000.0)[1] > UNEVEN_SHARE


@pytest.mark.parametrize("rule", ["segments", "uniform", "dense"])
def test_hostile_stamps_give_frames_of_the_file(rule):
    sampling = Sampling(rule=rule, frames=8, interval=None if rule == "segments" else 4, rate=30)
    for stamps in ([0, 1], [0, 1, 10**15], [-5, 0, 10**9, 10**9 + 1], [0, 10**12]):
        rule_in_places, grid = sampling.on(FrameTimes.stamped(3, np.array(stamps), 1e6))
        numbers = grid.frames(rule_in_places.views(grid.num_places))
        assert numbers.min() >= 3
        assert numbers.max() < 3 + len(stamps)
        assert (np.diff(numbers) >= 0).all()


def test_files_without_stamps_count_frames_unless_the_manifest_has_a_rate(tmp_path, stamp, taken, raises):
    (tmp_path / "png").mkdir()
    for number in range(60):
        Image.fromarray(stamp(number)).save(tmp_path / "png" / f"{number}.png")
    folder = str(tmp_path / "png")
    assert taken(Entry(rgb=folder), DENSE) == list(range(15, 44, 4))
    assert np.diff(taken(Entry(rgb=folder, rate=60.0), DENSE)).tolist() == [8] * 7
    with raises(UnreadableVideo, path="png", field="interval_s"):
        taken(Entry(rgb=folder), Sampling(rule="dense", frames=8, interval_s=0.1))
    assert len(taken(Entry(rgb=folder, rate=30.0), Sampling(rule="dense", frames=8, interval_s=0.1))) == 8


def test_an_avi_of_reordered_frames_has_a_rate(tmp_path, stamp, taken):
    """AVI stores no times of display; its frames are counted, and have a rate."""
    path = str(tmp_path / "a.avi")
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=60, options={"bf": "2", "b": "900000"})
        stream.height, stream.width = stamp(0).shape[:2]
        for number in range(120):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stamp(number), format="rgb24")))
        container.mux(stream.encode())
    assert VideoFile(path).timeline.stamps == ()
    assert np.diff(taken(Entry(rgb=path), DENSE)).tolist() == [8] * 7


def test_a_sandbox_takes_the_same_frames(film, taken):
    path = film("a.mkv", 40, times=uneven_times("30 then 5"))
    inside = taken(Entry(rgb=path), Sampling(frames=8), read_options=ReadOptions(isolation="process"))
    assert inside == taken(Entry(rgb=path), Sampling(frames=8))


@pytest.mark.parametrize(
    "given",
    [{}, {"interval": 4, "interval_s": 0.1}, {"interval_s": 0.0}, {"interval": 4, "rate": 0.0}],
    ids=str,
)
def test_one_interval_is_given(given):
    with pytest.raises(ConfigError):
        Sampling(rule="dense", frames=8, **given)


def test_rates_are_counted_with_those_that_are_the_same():
    assert group_rates([29.97, 30.0, 30.0, 60.0, 59.94, 59.94, 25.0]) == {25.0: 1, 30.0: 3, 59.94: 3}


# -- RGB and depth -----------------------------------------------------------------------------------------------------


def test_frames_of_equal_number_belong_together_where_times_say_nothing_else():
    even = np.arange(40) / 30
    for other in (even, even + 0.008, np.rint(1000 * even) / 1000):
        assert pair_frames(even, other) is None
    for other in (even + 0.01, even + np.random.default_rng(0).uniform(-0.012, 0.012, 40)):
        pairing = pair_frames(even, other)
        assert pairing.numbers.tolist() == list(range(40))
        assert (pairing.start, pairing.stop) == (0, 40)
    assert pair_frames(even, np.arange(40) / 25) is None
    assert pair_frames(even, even + 1000).numbers.tolist() == list(range(40))
    assert pair_frames(even, np.arange(20) / 15).numbers.tolist() == [n // 2 for n in range(40)]
    assert pair_frames(np.arange(20) / 15, even).numbers.tolist() == [2 * n for n in range(20)]


@pytest.mark.parametrize("late", [6, -6])
def test_depth_that_starts_earlier_or_later_is_paired_by_time(late):
    pairing = pair_frames(np.arange(60) / 30 + 1, np.arange(60) / 30 + 1 + late / 30)
    assert (pairing.start, pairing.stop) == ((6, 60) if late > 0 else (0, 54))
    inside = np.arange(pairing.start, pairing.stop)
    assert pairing.numbers[inside].tolist() == (inside - late).tolist()

"""Frames read by either way equal a plain decoding of the whole file, and errors name the file."""

import inspect
import os
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from kinema.errors import UnreadableVideo
from kinema.video import container, video_file
from kinema.video.container import TAG_OPTIONS, open_video, orientation_of
from kinema.video.read_options import Limits
from kinema.video.source import count_frames, frame_range, read_gray, read_rgb
from kinema.video.video_file import VideoFile

LIMITS = Limits()


def decode_all(path):
    with av.open(str(path), **TAG_OPTIONS) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def assert_both_ways_agree(path, rng, draws=2):
    """Compare counts, and frames at random numbers, with the whole file decoded in order."""
    every = decode_all(path)
    assert count_frames(str(path)) == len(every)
    timeline = VideoFile(str(path)).timeline
    for _ in range(draws):
        wanted = sorted(set(rng.integers(0, len(every), size=8).tolist()))
        ways = []
        for keyframes in ((), timeline.keyframes):
            if keyframes or not ways:
                with open_video(str(path), LIMITS) as (container, stream):
                    file = VideoFile(str(path))
                    if keyframes:
                        found = file._decode_by_stamp(container, stream, wanted, timeline)
                    else:
                        found = file._decode_in_order(container, stream, wanted)
                    pictures = {}
                    for number, frame in found:
                        pictures[number] = orientation_of(frame).apply(frame.to_ndarray(format="rgb24"))
                    ways.append(pictures)
        for pictures in ways:
            assert list(pictures) == wanted
            for number, picture in pictures.items():
                np.testing.assert_array_equal(picture, every[number])


def test_the_video_of_these_tests_has_reordered_frames_and_keyframes(numbered):
    timeline = VideoFile(numbered).timeline
    assert len(timeline.stamps) == 200
    assert len(timeline.keyframes) == 17
    with av.open(numbered) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert stamps != sorted(stamps)


def test_frames_are_numbered_as_they_are_shown(numbered, read_stamps):
    assert read_stamps(read_rgb(numbered, range(200))) == list(range(200))


@pytest.mark.parametrize(
    "indices",
    [[199], [100, 197, 198, 199], [0, 70, 71, 199], [66, 67, 68, 140, 141], [0, 0, 99, 99, 99, 180], [11, 12, 90, 91]],
    ids=str,
)
def test_frames_across_wide_gaps_are_those_wanted(numbered, read_stamps, monkeypatch, indices):
    monkeypatch.setattr(VideoFile, "_decode_in_order", None)  # the way with jumps must be the one taken
    frames = read_rgb(numbered, indices)
    assert frames.dtype == np.uint8
    assert frames.shape == (len(indices), 48, 64, 3)
    assert read_stamps(frames) == indices


def test_jumping_gives_the_frames_of_a_full_decoding(numbered):
    rng = np.random.default_rng(0)
    assert_both_ways_agree(numbered, rng, draws=20)


def test_jumping_skips_what_is_not_wanted(numbered, monkeypatch):
    decoded = []
    plain = video_file.decode_frames
    monkeypatch.setattr(
        video_file, "decode_frames", lambda *given: (decoded.append(1) or frame for frame in plain(*given))
    )
    read_rgb(numbered, [0, 190])
    assert len(decoded) < 30


@pytest.mark.parametrize("indices", [[0, 1, 1, 1, 5], [3, 3], [60, 62]], ids=str)
def test_near_frames_are_those_wanted_whether_they_are_known_by_stamps_or_counted(
    numbered, read_stamps, monkeypatch, indices
):
    assert read_stamps(read_rgb(numbered, indices)) == indices
    monkeypatch.setattr(container, "SEEKABLE", frozenset())
    assert read_stamps(read_rgb(numbered, indices)) == indices


@pytest.mark.parametrize("indices", [[], [3, 2], [-1, 4]], ids=str)
def test_numbers_that_are_no_row_of_frames_are_refused(numbered, indices):
    with pytest.raises(ValueError, match="non-decreasing"):
        read_rgb(numbered, indices)


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("mkv", "libx264", None),
        ("mov", "libx264", None),
        ("avi", "mpeg4", {"g": "12", "bf": "2", "b_strategy": "0", "qscale": "2"}),
        ("avi", "mpeg4", {"g": "12", "bf": "0"}),
        ("mp4", "mpeg4", {"g": "300"}),
        ("mp4", "libx264", {"g": "1"}),
        ("webm", "libvpx", {"g": "20", "b": "1000000", "deadline": "realtime", "cpu-used": "8"}),
        ("ts", "libx264", None),
        ("mpg", "mpeg2video", {"g": "12", "bf": "2", "b_strategy": "0"}),
        ("wmv", "wmv2", {"g": "12"}),
        ("flv", "flv", {"g": "12"}),
    ],
    ids=[
        "mkv",
        "mov",
        "avi reordered",
        "avi in order",
        "one keyframe",
        "all keyframes",
        "webm",
        "ts",
        "mpg",
        "wmv",
        "flv",
    ],
)
def test_both_ways_agree_in_every_container(tmp_path, write_video, stamp, suffix, codec, options):
    path = write_video(tmp_path / f"video.{suffix}", [stamp(n) for n in range(100)], codec=codec, options=options)
    assert_both_ways_agree(path, np.random.default_rng(1), draws=4)


def test_an_avi_with_reordered_frames_is_not_trusted_in_its_times(tmp_path, write_video, stamp, read_stamps):
    options = {"g": "12", "bf": "2", "b_strategy": "0", "qscale": "2"}
    path = write_video(tmp_path / "video.avi", [stamp(n) for n in range(100)], codec="mpeg4", options=options)
    assert VideoFile(path).timeline.stamps == ()
    assert read_stamps(read_rgb(path, [0, 90, 99])) == [0, 90, 99]


@pytest.mark.long
def test_real_files_of_many_makers_agree_both_ways(real_data):
    paths = sorted(p for p in (real_data / "format_samples").rglob("*") if p.suffix in (".avi", ".mp4"))
    assert len(paths) > 20
    rng = np.random.default_rng(0)
    for path in paths:
        if "S001C001P001R001A001" not in path.name:  # 1920 x 1080, below
            assert_both_ways_agree(path, rng, draws=1)


@pytest.mark.long
def test_a_real_file_in_full_high_definition_agrees(real_data):
    (path,) = (real_data / "format_samples").rglob("S001C001P001R001A001_rgb.avi")
    assert_both_ways_agree(path, np.random.default_rng(0), draws=1)


@pytest.mark.long
def test_real_small_clips_agree_both_ways(real_data):
    rng = np.random.default_rng(0)
    jhmdb = sorted((real_data / "jhmdb" / "videos").rglob("*.mp4"))
    isogd = sorted((real_data / "isogd_rgbd" / "train").rglob("*.avi"))
    for path in [*rng.choice(jhmdb, 20, replace=False), *rng.choice(isogd, 6, replace=False)]:
        assert_both_ways_agree(path, rng)


def test_a_header_that_announces_a_frame_too_many_is_not_believed(real_data, raises):
    """HMDB-51; the encoding of this file's title is invalid, too."""
    (path,) = (real_data / "format_samples").rglob("hmdb51_Turnk*.avi")
    with av.open(str(path), **TAG_OPTIONS) as container:
        announced = container.streams.video[0].frames
    assert count_frames(str(path)) == announced - 1 == len(decode_all(path))
    if TAG_OPTIONS:
        with pytest.raises(UnicodeDecodeError):
            av.open(str(path))
    with raises(UnreadableVideo, f"frame {announced - 1} ", f"{announced - 1} frames", path=path):
        read_rgb(str(path), [announced - 1])


def test_a_frame_past_the_end_is_an_error_with_both_numbers(numbered, monkeypatch, raises):
    with raises(UnreadableVideo, "frame 200 ", "200 frames", path=numbered):
        read_rgb(numbered, [200])
    monkeypatch.setattr(container, "SEEKABLE", frozenset())
    with raises(UnreadableVideo, "frame 200 ", "200 frames", path=numbered):
        read_rgb(numbered, [40, 100, 160, 200])


@pytest.mark.parametrize(
    "read",
    [lambda p: VideoFile(p).num_frames, lambda p: VideoFile(p).read_rgb([0]), lambda p: VideoFile(p).timeline],
    ids=["count", "read", "timeline"],
)
class TestNamesFileAndReason:
    def test_where_there_is_none(self, tmp_path, read, raises):
        with raises(UnreadableVideo, "gone.mp4: no such file", path="gone.mp4"):
            read(str(tmp_path / "gone.mp4"))

    def test_where_it_is_text(self, tmp_path, read, raises):
        path = tmp_path / "text.mp4"
        path.write_text("this is no video\n" * 100)
        with raises(UnreadableVideo, "not a readable video (", path="text.mp4"):
            read(str(path))

    def test_where_it_is_empty(self, tmp_path, read, raises):
        path = tmp_path / "nothing.mp4"
        path.touch()
        with raises(UnreadableVideo, "not a readable video (", path="nothing.mp4"):
            read(str(path))

    @pytest.mark.parametrize(("suffix", "codec"), [("m4a", "aac"), ("wav", "pcm_s16le"), ("mp4", "aac")])
    def test_where_it_has_sound_alone(self, tmp_path, write_sound, read, suffix, codec, raises):
        path = write_sound(tmp_path / f"sound.{suffix}", codec=codec)
        with raises(UnreadableVideo, "no video stream", path=f"sound.{suffix}"):
            read(path)

    def test_where_it_is_a_folder(self, tmp_path, read, raises):
        with raises(UnreadableVideo, "folder", path=tmp_path):
            read(str(tmp_path))


@pytest.mark.parametrize("indices", [[5, 180], [*range(0, 181, 60)]], ids=["jumping", "in order"])
def test_a_file_that_breaks_off_gives_what_is_there_and_names_what_is_not(
    tmp_path, write_video, stamp, read_stamps, indices, raises
):
    whole = write_video(tmp_path / "whole.mkv", [stamp(number) for number in range(200)])
    path = tmp_path / "torn.mkv"
    content = Path(whole).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert read_stamps(read_rgb(str(path), [0, 10, 20])) == [0, 10, 20]
    assert 40 < count_frames(str(path)) < 160
    with raises(UnreadableVideo, "frame ", path="torn.mkv"):
        read_rgb(str(path), indices)


def test_a_file_that_lost_its_index_is_named(tmp_path, numbered, raises):
    path = tmp_path / "torn.mp4"
    path.write_bytes(Path(numbered).read_bytes()[:5000])
    with raises(UnreadableVideo, "not a readable video", path="torn.mp4"):
        count_frames(str(path))


def test_an_indexed_file_that_breaks_off_is_never_filled_up(tmp_path, numbered, raises):
    """The index at the front lists all frames, but the packets are missing."""
    path = tmp_path / "front.mp4"
    with av.open(numbered) as source, av.open(str(path), "w", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    path.write_bytes(path.read_bytes()[: -(path.stat().st_size // 3)])
    for indices in ([199], [0, 60, 120, 180, 199]):
        with raises(UnreadableVideo, path="front.mp4"):
            read_rgb(str(path), indices)


def test_a_stream_that_was_cut_at_the_front_starts_with_its_first_keyframe(tmp_path, write_video, stamp, read_stamps):
    whole = Path(write_video(tmp_path / "whole.ts", [stamp(number) for number in range(200)]))
    path, packets = tmp_path / "cut.ts", whole.stat().st_size // 188
    path.write_bytes(whole.read_bytes()[188 * (packets // 5) :])
    every = decode_all(path)
    assert len(every) < 180
    assert count_frames(str(path)) == len(every)
    first, last = read_stamps([every[0], every[-1]])
    assert last == 199
    assert first > 0
    assert first % 12 == 0
    assert frame_range(str(path), 1.0, 2.0) == (25, 50)
    assert read_stamps(read_rgb(str(path), [0, 100])) == [first, first + 100]


def test_sound_beside_the_picture_changes_nothing(tmp_path, numbered, write_sound, with_sound, read_stamps):
    path = with_sound(tmp_path / "both.mp4", numbered, write_sound(tmp_path / "sound.m4a", codec="aac"))
    assert count_frames(path) == 200
    assert read_stamps(read_rgb(path, [0, 130, 199])) == [0, 130, 199]


def test_seconds_count_from_the_first_frame(numbered):
    assert frame_range(numbered, 0.0, 8.0) == (0, 200)
    assert frame_range(numbered, 1.0, 2.0) == (25, 50)
    assert frame_range(numbered, 1.01, 2.01) == (26, 51)
    assert frame_range(numbered, 0.0, 0.04) == (0, 1)
    assert frame_range(numbered, 7.5, 8.05) == (188, 200)


def test_seconds_follow_a_rate_that_varies(tmp_path, write_video, stamp, read_stamps):
    times = [0.1 * n if n < 20 else 2 + 0.5 * (n - 20) for n in range(30)]
    path = write_video(tmp_path / "varies.mkv", [stamp(n) for n in range(30)], times=[5 + t for t in times])
    for start, stop in [(0.0, 1.0), (1.95, 2.6), (0.3, 5.0), (2.0, 6.6)]:
        shown = [n for n, t in enumerate(times) if start <= t < stop]
        assert frame_range(path, start, stop) == (shown[0], shown[-1] + 1)
    first, stop = frame_range(path, 2.4, 3.6)
    assert read_stamps(read_rgb(path, range(first, stop))) == [21, 22, 23]


def test_seconds_after_the_end_are_an_error_that_says_where_the_end_is(numbered, raises):
    with raises(UnreadableVideo, "9.0 s and 10.0 s", "7.960 s", path=numbered):
        frame_range(numbered, 9.0, 10.0)


def test_a_segment_that_goes_on_behind_the_end_is_not_shortened(numbered, raises):
    with raises(UnreadableVideo, "8.000 s", "1000.0 s", path=numbered):
        frame_range(numbered, 7.5, 1000.0)


def test_seconds_need_time_stamps(tmp_path, write_video, stamp, raises):
    options = {"g": "12", "bf": "2", "b_strategy": "0"}
    path = write_video(tmp_path / "video.avi", [stamp(n) for n in range(50)], codec="mpeg4", options=options)
    with raises(UnreadableVideo, "time stamps", path="video.avi"):
        frame_range(path, 0.0, 1.0)


def test_gray_frames_of_eight_bits_stay_eight_bits(tmp_path, write_video):
    pictures = np.arange(6, dtype=np.uint8)[:, None, None].repeat(48, 1).repeat(64, 2) * 40
    path = write_video(tmp_path / "gray.mkv", pictures, codec="ffv1", pixel_format="gray", options={})
    read = read_gray(path, [0, 2, 5])
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pictures[[0, 2, 5]])


@pytest.fixture
def threaded(monkeypatch):
    """Pretend that the process has two threads and that all frames are large."""
    monkeypatch.setattr(video_file, "THREADED_PIXELS", 0)
    monkeypatch.setattr(video_file, "threads_here", lambda: 2)


@pytest.fixture
def opened(monkeypatch):
    """List the number of threads of each read."""
    seen = []
    plain = VideoFile._read

    def watched(video, indices, color, threads):
        seen.append(threads)
        return plain(video, indices, color, threads)

    monkeypatch.setattr(VideoFile, "_read", watched)
    return seen


@pytest.mark.usefixtures("threaded")
def test_frames_decoded_beside_each_other_are_the_same(numbered, read_stamps, real_data, opened):
    assert read_stamps(read_rgb(numbered, [0, 3, 100, 199])) == [0, 3, 100, 199]
    assert opened == [2]
    opened.clear()
    rng = np.random.default_rng(0)
    clips = sorted(p for p in (real_data / "format_samples").rglob("*") if p.suffix in (".avi", ".mp4"))
    clips = [p for p in clips if p.stat().st_size < 700_000] + sorted((real_data / "jhmdb").rglob("*.mp4"))[::60]
    for path in clips:
        indices = sorted(rng.integers(0, count_frames(str(path)), 6).tolist())
        beside = read_rgb(str(path), indices)
        alone = VideoFile(str(path))._read(indices, "rgb", 1)
        np.testing.assert_array_equal(beside, alone, err_msg=str(path))
    assert opened.count(2) > 20
    assert opened.count(2) == opened.count(1), "nothing was read again"


@pytest.mark.usefixtures("threaded")
def test_what_is_wrong_with_a_file_is_what_one_thread_says(tmp_path, numbered, opened, monkeypatch):
    content = bytearray(Path(numbered).read_bytes())
    for seed in range(12):
        damaged = bytearray(content)
        at = 2000 + seed * (len(content) - 6000) // 12
        damaged[at : at + 40] = np.random.default_rng(seed).bytes(40)
        path = tmp_path / f"{seed}.mp4"
        path.write_bytes(damaged)
        answers = []
        for threads in (2, 1):
            monkeypatch.setattr(video_file, "threads_here", lambda threads=threads: threads)
            try:
                answers.append(read_rgb(str(path), [0, 40, 80, 120, 160, 199]).tobytes())
            except UnreadableVideo as error:
                answers.append(str(error))
        assert answers[0] == answers[1]
    assert opened.count(1) > 12, "some were read again"


def test_a_frame_that_is_made_from_a_damaged_one_is_refused():
    class Frame(NamedTuple):
        pts: int
        key_frame: bool
        is_corrupt: bool

    frames = [Frame(n, n in (0, 3), n == 1) for n in range(5)]
    followed = iter(frames)
    damaged = [False]
    for frame in frames:
        damaged.append(inspect.unwrap(video_file._advance)(followed, frame.pts, damaged[-1])[1])
    assert damaged[1:] == [False, True, True, False, False]


def _threads_of_a_worker(queue):
    queue.put(video_file.threads_here())


def test_a_worker_decodes_with_one_thread_and_the_program_with_its_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert video_file.threads_here() == 3
    for method in ("fork", "spawn"):
        context = get_context(method)
        queue = context.SimpleQueue()
        worker = context.Process(target=_threads_of_a_worker, args=(queue,))
        worker.start()
        assert queue.get() == 1
        worker.join()

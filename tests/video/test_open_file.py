"""An open file returns the same in any order of calls as for each call alone."""

from contextlib import closing
from fractions import Fraction

import numpy as np
import pytest

from kinema.video.container import open_video
from kinema.video.source import count_frames, frame_range, read_gray, read_rgb
from kinema.video.video_file import VideoFile, decode_frames


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_calls_do_not_disturb_each_other(tmp_path, write_video, stamp, suffix):
    options = {"g": "12", "bf": "2", "b_strategy": "0"} if suffix != "avi" else {"g": "12", "bf": "0"}
    path = write_video(
        tmp_path / f"a.{suffix}", [stamp(n) for n in range(50)], codec="libx264", options=options, rate=Fraction(25)
    )
    calls = {
        "far": (lambda video: video.read_rgb([2, 40]), read_rgb(path, [2, 40])),
        "count": (lambda video: video.num_frames, count_frames(path)),
        "near": (lambda video: video.read_rgb([0, 1, 5]), read_rgb(path, [0, 1, 5])),
        "gray": (lambda video: video.read_gray([49]), read_gray(path, [49])),
        "range": (lambda video: video.frame_range(0.4, 1.2), frame_range(path, 0.4, 1.2)),
        "size": (lambda video: video.size, (64, 48)),
        "iter": (lambda video: np.stack([*video.iter_frames(range(20, 24), "rgb")]), read_rgb(path, range(20, 24))),
    }
    assert calls["count"][1] == 50
    for order in ([*calls], [*reversed(calls)], ["near", "far", "near", "iter", "gray", "count", "size", "far"]):
        with closing(VideoFile(path)) as video:
            for name in order:
                call, wanted = calls[name]
                np.testing.assert_array_equal(call(video), wanted, err_msg=f"{name} of {order}")


def test_a_sample_of_a_video_opens_it_once(numbered, monkeypatch):
    opened = []

    def watched(path, *options):
        opened.append(path)
        return open_video(path, *options)

    monkeypatch.setattr("kinema.video.video_file.open_video", watched)
    with closing(VideoFile(numbered)) as video:
        start, stop = video.frame_range(1.0, 3.0)
        video.read_gray([start, stop - 1])
        assert video.num_frames == 200
        video.read_rgb([start])
    assert opened == [numbered]


def test_frames_that_were_skipped_once_are_decoded_the_next_time(numbered):
    with open_video(numbered) as (container, stream):
        decoded = decode_frames(numbered, container, stream, stamps=frozenset())
        assert next(decoded).pts == 0
        assert stream.codec_context.skip_frame == "NONREF"
        container.seek(0, stream=stream, backward=True)
        assert len([*decode_frames(numbered, container, stream)]) == 200

"""Tests of the lengths of samples."""

import pytest

from kinema.data.lengths import longest
from kinema.data.manifest import Entry

FILE = Entry(rgb="a.mp4", frames=50, rate=25.0)
UNKNOWN = Entry(rgb="b.mp4")
SECONDS = Entry(rgb="c.mp4", start_s=1.0, stop_s=4.5, frames=900, rate=25.0)
FRAMES = Entry(rgb="d.mp4", start_frame=10, stop_frame=90, frames=900)
UNTIMED = Entry(rgb="e", frames=70, rate=0.0)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], {}),
        ([UNKNOWN], {}),
        ([FILE, UNKNOWN], {"longest_frames": 50, "longest_s": 2.0}),
        ([FILE, SECONDS], {"longest_frames": 50, "longest_s": 3.5}),
        ([FRAMES, UNTIMED], {"longest_frames": 80}),
    ],
)
def test_the_longest_sample_is_found_in_frames_and_seconds(entries, expected) -> None:
    assert longest(entries) == expected

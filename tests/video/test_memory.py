"""Reading ten thousand clips takes no more memory than reading a few, and leaves no file open.

Resident memory is what Linux says in /proc; the tests are skipped where there is none.
"""

import gc
import os
import shutil
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest

from kinema.data.dataset import VideoDataset
from kinema.data.loaders import make_loader
from kinema.data.samplers import Draw, evaluation_batches
from kinema.errors import UnreadableVideo
from kinema.transforms.augment import Augmentation
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling
from kinema.video.source import count_frames, frame_range, read_gray, read_rgb

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc, which Linux has, is not here")

MEGABYTE = 2**20
GROWTH = 1.0
"""Megabytes in 1,000 clips. A frame of the videos here has 9 kB: one kept in each clip would be nine megabytes."""


def resident(process="self"):
    """Return the memory of a process in megabytes, shared memory included."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


def children():
    """Return the child processes of this one, such as the workers of a loader."""
    threads = Path("/proc/self/task").iterdir()
    return sorted({int(word) for thread in threads for word in (thread / "children").read_text().split()})


def growth_per_thousand(held):
    """Megabytes in 1,000 clips between equal steps, the first third left to warm up and the largest step left out.

    Python's table of names doubles now and then, at once by some megabytes; what leaks grows in every step.
    """
    clips, megabytes = np.array(held)[len(held) // 3 :].T
    steps = np.sort(np.diff(megabytes))[:-1]
    return float(steps.sum() / np.diff(clips)[:-1].sum() * 1000)


@pytest.fixture(scope="module")
def varied(data_set):
    return VideoDataset(
        data_set,
        sampling=Sampling(frames=8),
        preprocessing=Preprocessing(modalities=("rgb", "depth"), short_side=36, size=32, depth=data_set.depth),
        augmentation=Augmentation(short_side=(32, 44), flip=0.5, color_jitter=0.3),
    )


def load(dataset, number, workers):
    """Load clips and yield the memory of each process after every 20th."""
    draws = [Draw(i % len(dataset), (0, i)) for i in range(number)]
    batches = [draws[i : i + 10] for i in range(0, number, 10)]
    before = set(children())
    held = {}
    done = 0
    for loaded in make_loader(dataset, batches, workers=workers, pin_memory=False):
        assert not loaded.failures
        done += len(loaded.batch["index"])
        if done % (number // 20) < 10:
            for process in ("self", *(set(children()) - before)):
                held.setdefault(process, []).append((done, resident(process)))
    assert done == number
    assert len(held) == 1 + workers
    return held


def assert_level(held):
    growth = {process: growth_per_thousand(values) for process, values in held.items()}
    print(*(f"{process}: {value:+.2f} MB in 1,000 clips" for process, value in growth.items()), sep="\n")
    assert max(growth.values()) < GROWTH, growth


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_fifteen_hundred_clips_through_the_loader_hold_no_memory(varied, workers):
    assert_level(load(varied, 1500, workers))


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_ten_thousand_clips_through_the_loader_hold_no_memory(varied, workers):
    assert_level(load(varied, 10_000, workers))


def measured(read, number):
    held = []
    gc.collect()
    for done in range(1, number + 1):
        read(done)
        if done % (number // 20) == 0:
            held.append((done, resident()))
    return {"self": held}


@pytest.mark.parametrize(
    "number", [600, pytest.param(3000, marks=pytest.mark.long)], ids=["a few", "three thousand times"]
)
@pytest.mark.parametrize(
    "what",
    ["rgb near", *(pytest.param(what, marks=pytest.mark.long) for what in ("rgb far", "depth", "count", "range"))],
)
def test_reading_in_a_loop_holds_no_memory(data_set, numbered, what, number):
    depth = data_set.locate(data_set.entries[0].depth)
    ways = {
        "rgb near": lambda _: read_rgb(numbered, [0, 5, 10]),
        "rgb far": lambda i: read_rgb(numbered, [i % 100, 190]),
        "depth": lambda _: read_gray(depth, [0, 9]),
        "count": lambda _: count_frames(numbered),
        "range": lambda _: frame_range(numbered, 1.0, 2.0),
    }
    assert_level(measured(ways[what], number))


@pytest.fixture
def broken(tmp_path, numbered, data_set):
    """Files that fail when opened, when decoded, and when a frame is missing."""
    content = Path(numbered).read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video\n" * 300)
    (tmp_path / "torn.mp4").write_bytes(content[:5000])
    (tmp_path / "text.png").mkdir()
    (tmp_path / "text.png" / "0.png").write_text("no picture")
    (tmp_path / "text.npz").write_text("no array")
    (tmp_path / "text.mat").write_text("no array\n" * 100)
    damaged = bytearray(content)
    for place in range(0, len(content) // 2, 100):
        damaged[place + 60 : place + 70] = bytes(10)
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    shutil.copy(data_set.locate(data_set.entries[0].rgb), tmp_path / "short.mp4")
    return [str(path) for path in sorted(tmp_path.iterdir())] + [str(tmp_path / "gone.mp4")]


@pytest.mark.parametrize("number", [450, pytest.param(2000, marks=pytest.mark.long)], ids=["a few", "two thousand"])
def test_files_that_cannot_be_read_leave_nothing_open_and_hold_no_memory(broken, number):
    def refused(path):
        with pytest.raises(UnreadableVideo):
            read_rgb(path, [0, 150])

    def opened():
        return len(os.listdir("/proc/self/fd"))

    for path in broken:
        refused(path)
    before = opened()
    paths = cycle(broken)
    assert_level(measured(lambda _: refused(next(paths)), number))
    assert opened() == before


def test_a_reading_that_is_given_up_on_the_way_leaves_nothing_open(numbered):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        read_rgb(numbered, [3])
        read_rgb(numbered, [3, 120])
        with pytest.raises(UnreadableVideo):
            read_rgb(numbered, [3, 500])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_that_cannot_be_read_hold_no_memory_in_the_loader(varied, data_set, workers):
    """Every fourth file is missing and becomes a failure; no sample is lost."""
    entries = tuple(
        replace(entry, rgb="gone.mp4") if position % 4 == 0 else entry
        for position, entry in enumerate(data_set.entries)
    )
    dataset = VideoDataset(
        replace(data_set, entries=entries), sampling=varied.sampling, preprocessing=varied.preprocessing
    )
    positions = list(islice(cycle(range(12)), 240))
    failed = read = 0
    for loaded in make_loader(dataset, evaluation_batches(positions, 10), workers=workers, pin_memory=False):
        failed += len(loaded.failures)
        read += 0 if loaded.batch is None else len(loaded.batch["index"])
    assert (failed, read) == (60, 180)

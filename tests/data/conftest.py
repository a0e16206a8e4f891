"""Folders of a user's own, as they lie on a disk."""

import shutil

import av
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def short(tmp_path_factory, write_video, stamp):
    """A video of nine frames."""
    return write_video(tmp_path_factory.mktemp("short") / "short.mp4", [stamp(n) for n in range(9)])


@pytest.fixture(scope="session")
def shorter(tmp_path_factory, write_video, stamp):
    """A video of seven frames."""
    return write_video(tmp_path_factory.mktemp("shorter") / "shorter.mp4", [stamp(n) for n in range(7)])


@pytest.fixture(scope="session")
def with_sound():
    """The stream of a video and that of a sound in one file."""

    def join(path, video, sound):
        with av.open(video) as seen_in, av.open(sound) as heard_in, av.open(str(path), "w") as target:
            heard = target.add_stream_from_template(heard_in.streams.audio[0])
            seen = target.add_stream_from_template(seen_in.streams.video[0])
            for packet in (*seen_in.demux(video=0), *heard_in.demux(audio=0)):
                if packet.size:
                    packet.stream = heard if packet.stream.type == "audio" else seen
                    target.mux(packet)
        return str(path)

    return join


@pytest.fixture
def fill(short):
    """Copies of the short video under these names."""

    def fill(root, *names):
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(short, path)
        return root

    return fill


@pytest.fixture
def fill_pictures():
    """Folders of so many small pictures: 8-bit RGB, or 16-bit depth."""

    def fill(root, *names, count=3, kind="rgb", suffix=".png"):
        for name in names:
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                colour = np.full((6, 8, 3), 20 * number, np.uint8)
                picture = colour if kind == "rgb" else np.full((6, 8), 500 + 300 * number, np.uint16)
                Image.fromarray(picture).save(root / name / f"{number}{suffix}")
        return root

    return fill


@pytest.fixture
def fill_arrays():
    """Arrays of five frames in npz files: RGB or depth."""

    def fill(root, *names, kind="depth"):
        shape = (5, 6, 8) if kind == "depth" else (5, 6, 8, 3)
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            np.savez(root / name, **{kind: np.full(shape, 100, np.uint16 if kind == "depth" else np.uint8)})
        return root

    return fill

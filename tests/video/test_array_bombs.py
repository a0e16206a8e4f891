"""Arrays that announce, or unpack to, more than their limits: refused before memory is taken."""

import io
import struct
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from kinema.errors import UnreadableVideo
from kinema.video.read_options import Limits, ReadOptions
from kinema.video.source import count_frames, open_source, read_gray

HERE = ReadOptions(isolation="none")
SMALL = ReadOptions(isolation="none", limits=Limits(clip_bytes=10**6, frames=200))
ROOM = 10**8
"""Bytes that a test may take beyond those of the process."""


@pytest.fixture(autouse=True)
def little_room(memory_limit):
    memory_limit(ROOM)


def header(shape, kind="<u2", length=None, version=1):
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def pack(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return str(path)


HEADERS = {
    "terabytes": header("(1000, 100000, 10000)"),
    "overflow": header(f"({2**40}, {2**40}, {2**40})"),
    "digits": header("(" + "9" * 3000 + ", 1, 1)"),
    "negative": header("(-1, -1000000, 1000000)"),
    "zero of many": header(f"({2**62}, 0, 5)"),
    "wide text": header("(2, 2, 2)", kind="<U500000000"),
    "within the limits, without bytes": header("(1000, 1000, 4000)"),
    "long header": header("(2, 2, 2)", length=2**31, version=2) + bytes(20_000),
    "half a length": b"\x93NUMPY\x02\x00\x01",
    "objects": header("(2, 2, 2)", kind="|O"),
    "nested": header("(" * 3000 + ")" * 3000),
    "strings": header("(2, 2, 2)", kind="<U3") + bytes(96),
    "complex": header("(2, 2, 2)", kind="<c16") + bytes(128),
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("name", ["depth", "depth_000000", "times_s"])
def test_what_a_header_announces_is_not_taken(tmp_path, raises, content, name):
    members = {name: content}
    if name == "times_s":
        frames = io.BytesIO()
        np.save(frames, np.ones((2, 4, 4), np.uint16))
        members["depth"] = frames.getvalue()
    path = pack(tmp_path / "a.npz", members)
    with raises(UnreadableVideo, path=path):
        read_gray(path, [0], HERE)
        with open_source(path, HERE) as source:
            assert source.timeline is None


def test_arrays_that_unpack_to_more_than_the_limit(tmp_path, raises):
    path = pack(tmp_path / "a.npz", {"depth": header("(100, 1000, 100)") + bytes(2 * 10**7)})
    with raises(UnreadableVideo, path=path, field="clip_bytes"):
        read_gray(path, [0], SMALL)


def test_numbers_are_converted_frame_by_frame(tmp_path):
    frames = b"".join(np.full((700, 700), number).tobytes() for number in range(10))  # 39 megabytes
    path = pack(tmp_path / "a.npz", {"depth": header("(10, 700, 700)", kind="<i8") + frames}, zipfile.ZIP_STORED)
    del frames
    assert read_gray(path, [3], HERE).max() == 3


def test_many_members_are_counted_before_they_are_listed(tmp_path, raises):
    path = pack(tmp_path / "a.npz", {f"depth_{number:06d}": b"" for number in range(600)}, zipfile.ZIP_STORED)
    with raises(UnreadableVideo, path=path, field="frames"):
        count_frames(path, SMALL)
    path = pack(tmp_path / "b.npz", {f"depth_{number:06d}": header("(2, 2)") + bytes(8) for number in range(150)})
    assert count_frames(path, SMALL) == 150


def test_mat_files_that_announce_terabytes(tmp_path, raises):
    savemat(tmp_path / "a.mat", {"depth": np.ones((4, 4, 3), np.uint8)})
    whole = (tmp_path / "a.mat").read_bytes()
    for old, new in (((4, 4, 3), (10**5, 10**5, 1000)), ((4, 4, 3), (-4, -4, 3)), ((4, 4, 3), (2**31 - 1, 0, 1))):
        path = tmp_path / "b.mat"
        assert struct.pack("<3i", *old) in whole
        path.write_bytes(whole.replace(struct.pack("<3i", *old), struct.pack("<3i", *new)))
        with raises(UnreadableVideo, path=path):
            read_gray(str(path), [0], HERE)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_limit_of_frames_is_not_one_of_pixels(tmp_path, save, raises):
    frames = np.zeros((20, 100, 150, 3), np.uint8)
    save(tmp_path / "a.npz", frames)
    with open_source(str(tmp_path / "a.npz"), ReadOptions(limits=Limits(frames=20))) as source:
        assert source.read_rgb([19]).shape == (1, *frames.shape[1:])
    with raises(UnreadableVideo, path="a.npz", field="frames"):
        count_frames(str(tmp_path / "a.npz"), ReadOptions(limits=Limits(frames=19)))

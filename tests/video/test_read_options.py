"""Limits are checked before memory is allocated, and every backend gives the same frames."""

import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinema.errors import BackendError, ConfigError, UnreadableVideo
from kinema.video.read_options import Limits, ReadOptions
from kinema.video.source import count_frames, frame_range, read_gray, read_rgb


def within(**limits):
    return ReadOptions(limits=Limits(**limits))


@pytest.mark.parametrize("name", ["file_bytes", "frames", "seconds", "pixels", "clip_bytes"])
def test_a_limit_of_nothing_is_refused(name, raises):
    with raises(ConfigError, field=name):
        Limits(**{name: 0})


def test_a_time_limit_of_nothing_is_refused(raises):
    with raises(ConfigError, field="timeout_s"):
        ReadOptions(timeout_s=0)


class TestAVideoIsRefused:
    def test_where_its_file_is_too_large(self, numbered, raises):
        with raises(UnreadableVideo, " 100 ", path=numbered, field="file_bytes"):
            count_frames(numbered, within(file_bytes=100))

    def test_where_it_announces_and_has_too_many_frames(self, numbered, raises):
        for read in (count_frames, lambda path, read_options: read_rgb(path, [0], read_options)):
            with raises(UnreadableVideo, " 199 ", path=numbered, field="frames"):
                read(numbered, within(frames=199))
        assert count_frames(numbered, within(frames=200)) == 200

    def test_where_it_has_too_many_frames_without_announcing_them(self, tmp_path, write_video, stamp, raises):
        path = write_video(tmp_path / "quiet.ts", [stamp(n) for n in range(40)])
        for limit in (20, 39):
            with raises(UnreadableVideo, f" {limit} ", path="quiet.ts", field="frames"):
                count_frames(path, within(frames=limit))
        assert count_frames(path, within(frames=40)) == 40

    def test_where_it_lasts_too_long(self, numbered, raises):
        with raises(UnreadableVideo, " 5", path=numbered, field="seconds"):
            frame_range(numbered, 0, 1, within(seconds=5))

    def test_where_its_frames_are_too_large(self, numbered, raises):
        with raises(UnreadableVideo, "64 x 48", path=numbered, field="pixels"):
            read_rgb(numbered, [0], within(pixels=64 * 48 - 1))
        assert read_rgb(numbered, [0], within(pixels=64 * 64)).shape == (1, 48, 64, 3)

    def test_where_the_requested_frames_take_too_much_memory(self, numbered, raises):
        size = 5 * 64 * 48 * 3
        with raises(UnreadableVideo, "5 frames", f"{size:,} bytes", path=numbered, field="clip_bytes"):
            read_rgb(numbered, range(5), within(clip_bytes=size - 1))
        assert len(read_rgb(numbered, range(5), within(clip_bytes=size))) == 5
        with raises(UnreadableVideo, "50 frames", path=numbered, field="clip_bytes"):
            read_rgb(numbered, [3] * 50, within(clip_bytes=size))


class TestAnArrayIsRefused:
    def test_that_announces_more_than_it_has(self, tmp_path, raises):
        """A header of a few bytes declares a terabyte."""
        path = tmp_path / "bomb.npz"
        header = (
            str({"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**3, 10**3)}).encode().ljust(117) + b"\n"
        )
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(100)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("depth.npy", content)
        tracemalloc.start()
        with raises(UnreadableVideo, "1,000,000,000,000 bytes", path="bomb.npz", field="clip_bytes"):
            count_frames(str(path))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20

    def test_that_is_larger_than_a_clip_may_be(self, tmp_path, raises):
        np.savez_compressed(tmp_path / "large.npz", np.zeros((100, 100, 100), np.uint16))
        with raises(UnreadableVideo, "2,000,000 bytes", path="large.npz", field="clip_bytes"):
            read_gray(str(tmp_path / "large.npz"), [0], within(clip_bytes=10**6))


class TestAFolderIsRefused:
    def test_whose_pictures_are_too_large(self, tmp_path, raises):
        Image.new("L", (50, 50)).save(tmp_path / "0.png")
        with raises(UnreadableVideo, "50 x 50", "2,000", path="0.png", field="pixels"):
            read_rgb(str(tmp_path), [0], within(pixels=2000))

    def test_whose_pictures_take_too_much_together(self, tmp_path, raises):
        for number in range(4):
            Image.new("RGB", (50, 50)).save(tmp_path / f"{number}.png")
        with raises(UnreadableVideo, "20,000", path=tmp_path, field="clip_bytes"):
            read_rgb(str(tmp_path), [0, 1, 2, 3], within(clip_bytes=20000))
        assert len(read_rgb(str(tmp_path), [0, 1], within(clip_bytes=20000))) == 2


# -- the same frames, whatever they come through -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def forms(tmp_path_factory, write_video):
    """Lossless clip of noise as a video, a folder of images and an npz."""
    folder = tmp_path_factory.mktemp("forms")
    pictures = np.random.default_rng(0).integers(0, 256, (12, 24, 32, 3), dtype=np.uint8)
    write_video(folder / "clip.mkv", pictures, codec="ffv1", pixel_format="bgr0", options={})
    (folder / "clip").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / "clip" / f"{number}.png")
    np.savez(folder / "clip.npz", pictures)
    return folder, pictures


@pytest.mark.parametrize("name", ["clip.mkv", "clip", "clip.npz"])
@pytest.mark.parametrize("isolation", ["none", "process"])
@pytest.mark.parametrize("indices", [[0, 3, 3, 11], [5]], ids=str)
def test_every_form_gives_the_same_frames(forms, name, isolation, indices):
    folder, pictures = forms
    got = read_rgb(str(folder / name), indices, ReadOptions(isolation=isolation))
    np.testing.assert_array_equal(got, pictures[indices])
    assert count_frames(str(folder / name), ReadOptions(isolation=isolation)) == 12


torchcodec = pytest.mark.system
"""Mark of tests for torchcodec, which needs the FFmpeg of the operating system."""


@pytest.fixture(scope="module")
def through_torchcodec():
    pytest.importorskip(
        "torchcodec", reason="torchcodec is not installed here; `make long` installs it", exc_type=Exception
    )
    return ReadOptions(backend="torchcodec")


@torchcodec
@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("mp4", "libx264", None),
        ("mkv", "libx264", None),
        ("mov", "libx264", None),
        ("avi", "mpeg4", {"g": "12", "bf": "2", "b_strategy": "0", "qscale": "2"}),
        ("mp4", "mpeg4", {"g": "300"}),
        ("webm", "libvpx", {"g": "20", "b": "1000000", "deadline": "realtime", "cpu-used": "8"}),
        ("ts", "libx264", None),
        ("mpg", "mpeg2video", {"g": "12", "bf": "2", "b_strategy": "0"}),
    ],
)
def test_torchcodec_gives_the_same_frames(
    tmp_path, write_video, stamp, read_stamps, through_torchcodec, suffix, codec, options
):
    path = write_video(tmp_path / f"video.{suffix}", [stamp(n) for n in range(100)], codec=codec, options=options)
    for indices in ([0, 1, 50, 98, 99], [7, 7, 80]):
        got = read_rgb(path, indices, through_torchcodec)
        np.testing.assert_array_equal(got, read_rgb(path, indices))
        assert read_stamps(got) == indices


@torchcodec
def test_torchcodec_gives_the_same_frames_of_real_files(real_data, through_torchcodec, raises):
    rng = np.random.default_rng(0)
    samples = sorted(p for p in (real_data / "format_samples").rglob("*") if p.suffix in (".avi", ".mp4"))
    clips = sorted((real_data / "jhmdb" / "videos").rglob("*.mp4")) + sorted(
        (real_data / "isogd_rgbd").rglob("M_*.avi")
    )
    for path in [*samples, *rng.choice(clips, 40, replace=False)]:
        count = count_frames(str(path))
        indices = sorted(rng.integers(0, count, 6).tolist())
        np.testing.assert_array_equal(
            read_rgb(str(path), indices, through_torchcodec), read_rgb(str(path), indices), err_msg=str(path)
        )
        with raises(UnreadableVideo, f"frame {count} ", path=path):
            read_rgb(str(path), [count], through_torchcodec)


@torchcodec
def test_torchcodec_names_an_unreadable_file(tmp_path, through_torchcodec, raises):
    (tmp_path / "text.mp4").write_text("no video")
    with raises(UnreadableVideo, "not a readable video", path="text.mp4"):
        read_rgb(str(tmp_path / "text.mp4"), [0], through_torchcodec)


@torchcodec
def test_torchcodec_turns_and_mirrors_as_pyav_does(tmp_path, write_video, through_torchcodec):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16, :32] = 255
    for a, b, c, d in ((-1, 0, 0, 1), (0, 1, -1, 0), (0, 1, 1, 0)):
        path = Path(write_video(tmp_path / "turned.mp4", [picture] * 3))
        content = bytearray(path.read_bytes())
        matrix = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
        struct.pack_into(">9i", content, matrix, a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        path.write_bytes(content)
        np.testing.assert_array_equal(read_rgb(str(path), [0, 2], through_torchcodec), read_rgb(str(path), [0, 2]))


def test_a_backend_that_does_not_load_says_what_to_do(monkeypatch, numbered, raises):
    import sys

    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with raises(BackendError, "pip install torchcodec", field="backend"):
        read_rgb(numbered, [0], ReadOptions(backend="torchcodec"))

"""Files that break decoders: every reader gives the error of an unreadable file, with its path."""

import contextlib
import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from kinema.cli import main
from kinema.curation.inspect import inspect
from kinema.curation.pack_source import PackSource, Part, write_part
from kinema.data.dataset import Failure, VideoDataset
from kinema.data.manifest import class_lists, load_manifest, write_manifest
from kinema.data.samplers import Draw
from kinema.errors import UnreadableVideo
from kinema.inference.trained_model import save_model
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling
from kinema.video.encode import Encoding
from kinema.video.read_options import Limits, ReadOptions
from kinema.video.source import count_frames, open_source, read_gray, read_rgb
from kinema.video.video_file import VideoFile

HOSTILE = Path(os.environ.get("KINEMA_DATA", "../shared/data")) / "hostile"
needs_files = pytest.mark.skipif(not HOSTILE.is_dir(), reason=f"{HOSTILE} is not here")


def read_all(path, color):
    with open_source(path) as source:
        return list(source.iter_frames(range(source.num_frames), color))


READERS = {
    "count": count_frames,
    "rgb": lambda path: read_rgb(path, [0, count_frames(path) - 1]),
    "gray": lambda path: read_gray(path, [0, count_frames(path) - 1]),
    "in order": partial(read_all, color="rgb"),
}


@needs_files
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["eperm.mp4", "index_mpeg2.ts", "size.webm"])
def test_damaged_videos_are_read_or_refused_by_name(name, reader):
    path = str(HOSTILE / name)
    with contextlib.suppress(UnreadableVideo):
        READERS[reader](path)
    inspect(path, "rgb", ReadOptions(isolation="none"))


@needs_files
def test_a_palette_is_not_lost():
    """FFmpeg passes it with the first packet alone."""
    path = str(HOSTILE / "pal2.avi")
    frames = read_all(path, "rgb")
    assert all(frame.max() > 100 for frame in frames)
    for number in (0, 7, len(frames) - 1):
        np.testing.assert_array_equal(read_rgb(path, [number])[0], frames[number])


@needs_files
def test_a_mat_file_that_crashes_scipy_is_unreadable(raises):
    with raises(UnreadableVideo, path=HOSTILE / "crash.mat"):
        read_gray(str(HOSTILE / "crash.mat"), [0])


@needs_files
@pytest.mark.parametrize("seed", [None, (1,)])
def test_thin_frames_are_not_resized_past_the_limits(tmp_path, seed):
    built_in = load_manifest("moves_cross_subject")
    entries = [replace(e, rgb=built_in.locate(e.rgb), depth="") for e in built_in.entries[:2]]
    entries = [replace(entries[0], rgb=str((HOSTILE / "thin.mkv").resolve())), *entries[1:]]
    facts = {"classes": class_lists(entries), "dataset": "thin", "version": "1", "depth": None}
    manifest = write_manifest(tmp_path / "thin.csv", entries=entries, **facts)
    sampling, preprocessing = Sampling(frames=8), Preprocessing(short_side=224, size=224)
    dataset = VideoDataset(manifest, sampling=sampling, preprocessing=preprocessing)
    read = dataset[Draw(0, seed)]
    assert isinstance(read, Failure)
    assert read.path.endswith("thin.mkv")
    assert "clip_bytes" in read.message


def test_only_named_formats_of_images_are_decoded(tmp_path, raises):
    for number in range(3):
        Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF")
    with raises(UnreadableVideo, "1.png"):
        read_rgb(str(tmp_path), [0, 1, 2])


# -- pipes, names and permissions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "a.mp4", "zero.npz", "images"])
def test_pipes_and_devices_are_refused(tmp_path, raises, name):
    here = ReadOptions(isolation="none")
    path = tmp_path / name
    if name == "images":
        path.mkdir()
        path /= "0.png"
    if name == "zero.npz":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)
    with raises(UnreadableVideo, path=path):
        read_rgb(str(tmp_path / name), [0], here)


def test_a_broken_link_among_images_is_not_left_out(tmp_path, raises):
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(tmp_path / "0.png")
    (tmp_path / "1.png").symlink_to("nowhere.png")
    assert count_frames(str(tmp_path)) == 2
    with raises(UnreadableVideo, path=tmp_path / "1.png"):
        read_rgb(str(tmp_path), [0, 1])


@contextlib.contextmanager
def without_rights(folder):
    """Take all rights to a folder away, from root too."""
    folder.chmod(0)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.mark.parametrize("name", [".", "a.mp4", "a.npz", "a.mat", "images", "missing.mp4", "a.mp4#depth", "file:"])
def test_a_folder_without_permission_is_unreadable(tmp_path, raises, name):
    folder = tmp_path / "folder"
    (folder / "images").mkdir(parents=True)
    for file in ("a.mp4", "a.npz", "a.mat", "images/0.png"):
        (folder / file).write_bytes(b"content")
    path = f"file://{folder}/a.mp4" if name == "file:" else str(folder / name)
    with without_rights(folder):
        for kind in ("rgb", "depth"):
            assert "denied" in inspect(path, kind, ReadOptions(isolation="none")).reason
        with raises(UnreadableVideo, "denied", path=path):
            count_frames(path, ReadOptions(isolation="none"))


def test_names_that_no_file_can_have_are_unreadable(tmp_path, raises):
    link = tmp_path / "loop.mp4"
    link.symlink_to(link)
    names = ("x" * 300 + ".mp4", "x" * 300 + ".npz", "x" * 300, "a\0b.mp4", "a\0b.npz", "a\udcff.mp4", "loop.mp4/a.mp4")
    for name in (*names, "loop.mp4", "x" * 300 + ".mp4#depth"):
        path = f"{tmp_path}/{name}"
        with raises(UnreadableVideo, path=path):
            count_frames(path, ReadOptions(isolation="none"))


# -- arrays and archives -----------------------------------------------------------------------------------------------


def header(shape, descr="|u1"):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive(place=0, value=0, **arrays):
    """Return an npz file, one byte of whose directory is replaced."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    content = bytearray(stream.getvalue())
    if value:
        content[content.index(b"PK\1\2") + place] = value
    return bytes(content)


FRAMES = np.zeros((3, 4, 4), np.uint8)
ARRAYS = {
    "another zip version": archive(6, 99, depth=FRAMES),
    "another compression": archive(10, 99, depth=FRAMES),
    "encrypted": archive(8, 1, depth=FRAMES),
    "cut": archive(depth=FRAMES)[:200],
    "empty": b"",
    "strings": archive(depth=np.array([[["a", "b"]]])),
    "dates": archive(depth=FRAMES.astype("M8[s]")),
    "fields": archive(depth=np.zeros((3, 4, 4), [("a", "u1")])),
    "complex": archive(depth=FRAMES * 1j),
    "not numbers": archive(depth=np.full((3, 4, 4), np.nan)),
    "no rows": archive(depth=FRAMES[:0]),
    "no columns": archive(depth=FRAMES[:, :, :0]),
    "no images": archive(depth_000000=FRAMES[:0, 0], depth_000001=FRAMES[:0, 0]),
    "times of text": archive(depth=FRAMES, times_s=np.array(["a", "b", "c"])),
    "no times": archive(depth=FRAMES, times_s=np.array([])),
}
HEADERS = {"negative": header((-1, 4, 4)), "huge": header((10**30, 4, 4)), "nested": header("(" * 3000)}


@pytest.mark.parametrize("name", [*ARRAYS, *HEADERS])
def test_damaged_archives_are_unreadable(tmp_path, raises, name):
    path = tmp_path / "a.npz"
    if name in ARRAYS:
        path.write_bytes(ARRAYS[name])
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("depth.npy", HEADERS[name])
    with raises(UnreadableVideo, path=path), open_source(str(path)) as source:
        source.read_gray([0])
        assert source.timeline
    assert inspect(str(path), "depth", ReadOptions(isolation="none")).problem


@pytest.mark.parametrize("kind", [np.float16, bool, np.float64, np.int64, ">u2"])
def test_arrays_of_any_numbers_are_read(tmp_path, kind):
    np.savez(tmp_path / "a.npz", depth=np.ones((3, 4, 4), kind))
    assert (read_gray(str(tmp_path / "a.npz"), [0, 2]) == 1).all()


@pytest.mark.parametrize("url", ["zip://a.mp4::file://{}", "tar://a.mp4::file://{}", "zip://a.mp4::{}.missing"])
def test_a_bad_archive_behind_a_url_is_unreadable(tmp_path, raises, url):
    (tmp_path / "bad.zip").write_bytes(b"PK\3\4 and nothing")
    path = url.format(tmp_path / "bad.zip")
    with raises(UnreadableVideo, path=path):
        count_frames(path, ReadOptions(cache=tmp_path / "cache"))


@pytest.mark.long
def test_every_command_reads_the_others(tmp_path, data_set, make_trained_model, tiny_ctn, capsys):
    save_model(tmp_path / "model", make_trained_model(tiny_ctn()))
    good = data_set.locate(data_set.entries[6].rgb)
    shutil.copy(good, tmp_path / "good.mp4")
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    (tmp_path / "a.npz").write_bytes(ARRAYS["another zip version"])
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    bad = ["x" * 300 + ".mp4", f"zip://a.mp4::file://{tmp_path}/bad.zip", "a.npz", "loop.mp4"]
    facts = {"corpus": "x", "version": "1", "classes": {"label": ["dim", "gray", "bright"]}, "declared": {"test": 5}}
    (tmp_path / "table.json").write_text(json.dumps(facts))
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["rgb,split,label", *(f"{name},test,dim" for name in bad), "good.mp4,test,gray"]) + "\n")
    options = ["--device", "cpu"]
    where = ["--manifest", str(table), "--out", str(tmp_path / "p.safetensors")]
    main(["evaluate", str(tmp_path / "model"), *where, "--allow-missing", "--workers", "0", *options])
    told = capsys.readouterr().out
    assert [f"table.csv, line {number}: " in told for number in range(2, 7)] == [True] * 4 + [False]
    assert "coverage 20.00 %" in told
    main(["prepare", "csv", "--root", str(table), "--out", str(tmp_path / "new.csv")])
    assert "4 files cannot be read" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["pack", str(table), "--out", str(tmp_path / "packed"), "--short-side", "32"])
    assert stop.value.code == 1
    assert "4 files cannot be packed" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(tmp_path / "model"), *bad, str(tmp_path / "good.mp4"), *options])
    assert stop.value.code == 2
    assert str(tmp_path / "good.mp4") in capsys.readouterr().out


# -- palettes ----------------------------------------------------------------------------------------------------------

COLORS = np.random.default_rng(0).integers(60, 256, (14, 8, 3), dtype=np.uint8)
"""Palettes of 14 frames."""


def write_palettes(path, codec, container, is_fixed):
    """Write frames whose palettes change, or not; return them in RGB."""
    pictures = []
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        for number in range(14):
            colors = COLORS[0 if is_fixed else number]
            places = np.tile((np.arange(64) // 8 + number) % 8, (48, 1)).astype(np.uint8)
            frame = av.VideoFrame(64, 48, "pal8")
            rows = np.zeros((48, frame.planes[0].line_size), np.uint8)
            rows[:, :64] = places
            palette = np.zeros((256, 4), np.uint8)
            palette[:8, :3], palette[:, 3] = colors[:, ::-1], 255
            frame.planes[0].update(rows.tobytes())
            frame.planes[1].update(palette.tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 10)
            file.mux(stream.encode(frame))
            pictures.append(colors[places])
        file.mux(stream.encode(None))
    return np.stack(pictures)


PALETTES = [
    ("rawvideo", "avi", False),
    ("rawvideo", "mov", True),
    ("rawvideo", "nut", False),
    ("msrle", "avi", False),
    ("msrle", "mov", True),
    ("smc", "mov", True),
    ("gif", "gif", False),
    ("gif", "mov", False),
    ("png", "avi", False),
    ("apng", "apng", True),
    ("zmbv", "avi", False),
    ("targa", "mov", False),
    ("tiff", "mov", False),
]


@pytest.mark.parametrize(("codec", "container", "is_fixed"), PALETTES)
def test_palettes_are_right_in_order_and_by_seeking(tmp_path, codec, container, is_fixed):
    path = tmp_path / f"a.{container}"
    try:
        expected = write_palettes(path, codec, container, is_fixed)
    except (ValueError, av.FFmpegError, LookupError) as error:
        pytest.skip(f"this FFmpeg does not write it: {error}")
    if container == "apng":  # its encoder takes another order of colors
        expected = np.stack(read_all(str(path), "rgb"))
    np.testing.assert_array_equal(read_all(str(path), "rgb"), expected)
    # A wrong header has the packets counted before.
    with open_source(str(path), ReadOptions(limits=Limits(seconds=1.35))) as source:
        for numbers in ([9], [2], [11, 13], [5]):
            np.testing.assert_array_equal(source.read_rgb(numbers), expected[numbers])
        assert source.timeline is not None
        assert source.num_frames == 14
        np.testing.assert_array_equal(source.read_rgb([1, 8]), expected[[1, 8]])


def test_palettes_are_packed(tmp_path):
    path = tmp_path / "a.avi"
    expected = write_palettes(path, "rawvideo", "avi", is_fixed=False)
    part, source = Part("rgb", str(path), 3, 11), PackSource(str(path), ReadOptions(), "rgb")
    (tmp_path / "out" / "rgb").mkdir(parents=True)
    record = write_part(part, source, (), tmp_path / "out", Encoding(short_side=48, crf=1), lambda: False)
    source.close()
    packed = read_rgb(str(tmp_path / "out" / record.file), list(range(8))).astype(int)
    assert np.abs(packed - expected[3:11]).mean() < 12


def test_a_palette_that_was_not_stored_is_an_error(tmp_path, raises):
    """The alternative is black."""
    write_palettes(tmp_path / "a.asf", "msrle", "asf", is_fixed=True)
    with raises(UnreadableVideo, "palette", path=tmp_path / "a.asf"):
        read_rgb(str(tmp_path / "a.asf"), [0])


# -- images and frames -------------------------------------------------------------------------------------------------


def png(values, bits, color):
    """Return a PNG file; Pillow does not write 16 bits of several channels."""
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in values)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], len(values), bits, color, 0, 0, 0))]
    parts += [(b"PLTE", bytes(37 * n % 256 for n in range(768)))] if color == 3 else []
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("channels", "color"), [(2, 4), (3, 2), (4, 6)])
def test_depth_of_16_bits_in_several_channels_is_not_cut(tmp_path, raises, channels, color):
    depth = np.full((8, 8, channels), 40_000)
    (tmp_path / "0.png").write_bytes(png(depth, 16, color))
    with raises(UnreadableVideo, "16", path=tmp_path / "0.png"):
        read_gray(str(tmp_path), [0])
    if channels == 2:
        with raises(UnreadableVideo, "depth", path=tmp_path / "0.png"):
            read_rgb(str(tmp_path), [0])
    else:
        assert (read_rgb(str(tmp_path), [0])[0, 0, 0] // 10 == (15 if channels == 3 else 9)).all()


def test_a_colored_palette_and_a_tiff_are_no_depth(tmp_path, raises):
    (tmp_path / "0.png").write_bytes(png(np.arange(64).reshape(8, 8), 8, 3))
    with raises(UnreadableVideo, "color", path=tmp_path / "0.png"):
        read_gray(str(tmp_path), [0])
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(tmp_path / "0.png", "TIFF")
    with raises(UnreadableVideo, path=tmp_path / "0.png"):
        read_gray(str(tmp_path), [0])


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_frames_with_exif_are_upright(tmp_path, turn):
    """PyAV 18 does not know this kind of side data."""
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 200
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    with av.open(str(tmp_path / "a.mov"), "w") as file:
        stored = np.rot90(upright, turns)
        stream = file.add_stream("mjpeg", rate=10)
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = "yuvj444p"
        for number in range(3):
            content = io.BytesIO()
            Image.fromarray(stored).save(content, "JPEG", exif=exif, subsampling=0)
            packet = av.Packet(content.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
            file.mux(packet)
    read = read_rgb(str(tmp_path / "a.mov"), [0, 2])
    assert np.abs(read.astype(int) - upright).max() < 20


# -- durations ---------------------------------------------------------------------------------------------------------


class Pipe(io.RawIOBase):
    """File that cannot be sought in, so that no duration is written."""

    def __init__(self, path):
        self._file = path.open("wb")

    def writable(self):
        return True

    def write(self, content):
        return self._file.write(content)

    def close(self):
        self._file.close()


@pytest.mark.parametrize("container", ["matroska", "mjpeg", "apng", "h264"])
def test_seconds_are_limited_without_an_announced_duration(tmp_path, raises, container):
    path = tmp_path / "a.video"
    codec = {"apng": "apng", "h264": "libx264"}.get(container, "mjpeg")
    with contextlib.closing(Pipe(path)) as pipe, av.open(pipe, "w", format=container) as file:
        stream = file.add_stream(codec, rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = {"apng": "rgb24", "h264": "yuv420p"}.get(container, "yuvj420p")
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * number, np.uint8))
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with av.open(str(path)) as file:
        assert file.duration is None
    assert count_frames(str(path), ReadOptions(limits=Limits(seconds=3))) == 30
    short = ReadOptions(limits=Limits(seconds=1))
    for read in (VideoFile(str(path), short).iter_frames(range(9), "rgb"), map(count_frames, [str(path)], [short])):
        with raises(UnreadableVideo, path=path, field="seconds"):
            next(read)
    assert "seconds" in inspect(str(path), "rgb", replace(short, isolation="none")).reason

"""The stream that is meant is read, whatever stands beside it, and its stored values are kept."""

import contextlib
import unicodedata
from dataclasses import replace
from fractions import Fraction
from zipfile import ZipFile

import av
import numpy as np
import pytest
from PIL import Image

from kinema.config import from_json, to_json
from kinema.curation.check import check
from kinema.curation.inspect import inspect
from kinema.curation.pack import pack
from kinema.data.dataset import read_views
from kinema.data.manifest import Entry, load_manifest, write_manifest
from kinema.datasets.registry import get_dataset
from kinema.errors import UnreadableVideo
from kinema.modality import DepthFacts
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling
from kinema.video.encode import Encoding
from kinema.video.gray import jet_colors
from kinema.video.read_options import ReadOptions
from kinema.video.source import count_frames, frame_range, open_source, read_gray, read_rgb

SIZE = (48, 64)
RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def color_frames(color, count=10):
    return [np.broadcast_to(np.uint8(color), (*SIZE, 3)).copy() for _ in range(count)]


def depth_frames(first=1000, count=10):
    """Return frames of one depth each, from `first` on."""
    return [np.full(SIZE, first + number, np.uint16) for number in range(count)]


@pytest.fixture(scope="module")
def write_streams():
    """Return a function that writes several video streams, each as (codec, pixel format, frames, title, default)."""

    def write(path, *streams, rate=25, late_s=(), sound=None):
        with av.open(str(path), "w") as container:
            made = []
            for codec, pixel_format, frames, title, is_default in streams:
                stream = container.add_stream(codec, rate=rate)
                stream.height, stream.width, stream.pix_fmt = *SIZE, pixel_format
                stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
                if title:
                    stream.metadata["title"] = title
                stream.disposition = int(is_default)
                made.append((stream, frames))
            silence = container.add_stream(sound, rate=16000, layout="mono") if sound else None
            for number, (stream, frames) in enumerate(made):
                late = late_s[number] if number < len(late_s) else 0
                for place, picture in enumerate(frames):
                    form = stream.pix_fmt if picture.ndim == 2 else "rgb24"
                    frame = av.VideoFrame.from_ndarray(picture, format=form)
                    frame.pts, frame.time_base = round(1000 * (late + place / rate)), Fraction(1, 1000)
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
            for part in range(64 if silence else 0):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.int16), format="s16", layout="mono")
                samples.sample_rate, samples.pts = 16000, 1000 * part
                container.mux(silence.encode(samples))
            if silence:
                container.mux(silence.encode())
        return str(path)

    return write


def mean_color(path, **options):
    with open_source(path, **options) as source:
        return source.read_rgb([0])[0].mean((0, 1))


def is_color(path, color, **options):
    return bool(np.abs(mean_color(path, **options) - color).max() < 12)


# -- stored bits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixel_format", "bits"),
    [
        *(("gray9le", 9), ("gray10le", 10), ("gray12le", 12), ("gray14le", 14), ("gray16le", 16)),
        *(("yuv420p10le", 10), ("yuv422p12le", 12), ("yuv444p16le", 16), ("gbrp12le", 12), ("gbrp16le", 16)),
    ],
)
def test_depth_keeps_its_stored_values(tmp_path, pixel_format, bits):
    value = min(1000, 2**bits - 10)
    path = tmp_path / "depth.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, pixel_format
        frame = av.VideoFrame(SIZE[1], SIZE[0], pixel_format)
        for number, plane in enumerate(frame.planes):
            is_chroma = number > 0 and pixel_format.startswith("yuv")
            plane.update(np.full(plane.buffer_size // 2, 2 ** (bits - 1) if is_chroma else value, "<u2"))
        for number in range(3):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    read = read_gray(str(path), [0, 2])
    assert read.dtype == np.uint16
    assert (read == value).all()
    if pixel_format == "gray12le":
        assert (read_gray(str(path), [1], ReadOptions(isolation="process")) == value).all()


def test_pack_keeps_bits_and_values(tmp_path, write_streams):
    path = write_streams(tmp_path / "depth.mkv", ("ffv1", "gray12le", depth_frames(), "", True))
    facts = DepthFacts(unit_mm=1.0, near=500.0, far=4000.0, coverage="full")
    entries = [Entry(depth=path, split="train", frames=10, labels={"label": label}) for label in ("a", "b")]
    manifest = write_manifest(
        tmp_path / "m.csv",
        entries=entries,
        classes={"label": ("a", "b")},
        dataset="d",
        version="1",
        depth=facts,
    )
    packed = pack(manifest, tmp_path / "packed", encoding=Encoding(short_side=32)).manifest
    read = read_gray(packed.locate(packed.entries[0].depth), range(10))
    assert read.dtype == np.uint16
    assert read[:, 0, 0].tolist() == list(range(1000, 1010))


# -- names and choice --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kinect(tmp_path_factory, write_streams):
    """Return a recording as of a Kinect: color, depth and infrared light in one file."""
    return write_streams(
        tmp_path_factory.mktemp("kinect") / "rec.mkv",
        ("libx264", "yuv420p", color_frames(GREEN), "COLOR", True),
        ("ffv1", "gray16le", depth_frames(), "DEPTH", False),
        ("ffv1", "gray16le", depth_frames(5000), "IR", False),
    )


def test_each_modality_finds_its_stream(kinect):
    assert read_gray(kinect, [3])[0, 0, 0] == 1003
    assert is_color(kinect, GREEN)
    with open_source(kinect) as source:
        assert source.read_gray([3])[0, 0, 0] == 1003
        assert source.num_frames == 10
    with open_source(kinect, ReadOptions(isolation="process"), "depth") as source:
        assert source.read_gray([4])[0, 0, 0] == 1004


@pytest.mark.parametrize("name", ["depth", "Depth", "DEPTH", "1"])
def test_a_stream_is_named_by_title_or_index(kinect, name):
    assert read_gray(f"{kinect}#{name}", [2])[0, 0, 0] == 1002
    assert count_frames(f"{kinect}#{name}") == 10
    assert frame_range(f"{kinect}#{name}", 0.08, 0.2) == (2, 5)
    assert read_gray(f"file://{kinect}#{name}", [2])[0, 0, 0] == 1002


def test_a_stream_in_an_archive_is_named(kinect, tmp_path):
    with ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(kinect, "rec.mkv")
    options = ReadOptions(cache=tmp_path / "cache")
    for url in (f"zip://rec.mkv::{tmp_path}/all.zip#ir", f"zip://rec.mkv#ir::{tmp_path}/all.zip"):
        assert read_gray(url, [2], options)[0, 0, 0] == 5002


def test_a_name_that_no_stream_has_is_an_error_that_lists_them(kinect, raises):
    with raises(UnreadableVideo, "COLOR", path=f"{kinect}#left"):
        read_rgb(f"{kinect}#left", [0])
    with raises(UnreadableVideo, "names", path=f"{kinect[:-8]}#1"):
        read_rgb(f"{kinect[:-8]}#1", [0])


def test_a_file_whose_name_has_the_mark_is_itself(tmp_path, write_streams):
    plain = ("libx264", "yuv420p", color_frames(RED), "", True)
    assert is_color(write_streams(tmp_path / "take#1.mkv", plain), RED)
    (tmp_path / "day#2").mkdir()
    path = write_streams(tmp_path / "day#2" / "x.mkv", plain, ("ffv1", "gray12le", depth_frames(), "", False))
    assert is_color(path, RED)
    assert read_gray(f"{path}#1", [1])[0, 0, 0] == 1001


def test_equal_streams_of_depth_are_an_error_that_lists_them(tmp_path, write_streams, raises):
    gray = [("ffv1", "gray16le", depth_frames(first), "", False) for first in (1000, 2000)]
    path = write_streams(tmp_path / "two.mkv", *gray)
    with raises(UnreadableVideo, "#1", path=path):
        read_gray(path, [0])
    assert read_gray(f"{path}#1", [0])[0, 0, 0] == 2000


@pytest.mark.parametrize("suffix", ["mkv", "mov", "mp4"])
def test_a_picture_or_thumbnails_before_the_video_are_not_it(tmp_path, write_streams, suffix):
    cover = ("mjpeg", "yuvj420p", color_frames(RED, 1), "", False)
    thumbnails = ("mjpeg", "yuvj420p", color_frames(BLUE, 2), "", False)
    video = ("libx264", "yuv420p", color_frames(GREEN), "", True)
    for number, beside in enumerate(((cover,), (thumbnails,), (cover, thumbnails))):
        path = write_streams(tmp_path / f"{number}.{suffix}", *beside, video)
        assert count_frames(path) == 10
        assert is_color(path, GREEN)
        assert is_color(path, GREEN, options=ReadOptions(isolation="process"))
    assert inspect(path, "rgb").frames == 10


def test_equal_streams_of_color_are_listed(tmp_path, write_streams):
    path = write_streams(
        tmp_path / "two.mkv",
        ("libx264", "yuv420p", color_frames(RED), "", False),
        ("libx264", "yuv420p", color_frames(GREEN), "", True),
    )
    assert is_color(path, GREEN)
    with open_source(path) as source:
        ((kind, detail),) = source.remarks
    assert kind == "several streams"
    assert detail.startswith("#1 of #0")
    assert [remark.kind for remark in inspect(path, "rgb").remarks] == ["several streams"]
    assert inspect(f"{path}#1", "rgb").remarks == ()


# -- encodings of depth ------------------------------------------------------------------------------------------------


def jet_frames(levels):
    return [np.broadcast_to(jet_colors()[level], (*SIZE, 3)).copy() for level in levels]


def test_color_is_no_depth_unless_its_encoding_is_named(tmp_path, write_streams, raises):
    levels = [0, 40, 100, 128, 200, 255]
    path = write_streams(tmp_path / "jet.mkv", ("ffv1", "bgr0", jet_frames(levels), "", True))
    for named in (path, f"{path}#0"):
        with raises(UnreadableVideo, "--depth-encoding", path=named):
            read_gray(named, [0])
    assert read_gray(path, range(6), read_as="jet")[:, 0, 0].tolist() == levels
    lossy = write_streams(tmp_path / "lossy.mp4", ("libx264", "yuv420p", jet_frames(levels), "", True))
    assert np.abs(read_gray(lossy, range(6), read_as="jet")[:, 0, 0].astype(int) - levels).max() <= 4
    assert read_gray(path, [1], read_as="gray8").dtype == np.uint8
    hue = write_streams(tmp_path / "hue.mkv", ("ffv1", "bgr0", color_frames((255, 0, 255)), "", True))
    with raises(UnreadableVideo, "JET", path=hue):
        read_gray(hue, [0], read_as="jet")


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv444p"])
def test_a_gray_picture_in_a_color_format_is_depth(tmp_path, write_streams, pixel_format):
    codec = "mjpeg" if pixel_format == "yuvj420p" else "libx264"
    path = write_streams(tmp_path / "K.mkv", (codec, pixel_format, color_frames((90, 90, 90)), "", True))
    assert np.abs(read_gray(path, [0]).astype(int) - 90).max() <= 1
    assert inspect(path, "depth").problem == ""


def test_pictures_and_arrays_in_color_are_no_depth(tmp_path, raises):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, picture in enumerate(jet_frames([60, 90])):
        Image.fromarray(picture).save(folder / f"{number}.png")
    np.savez(tmp_path / "jet.npz", depth=np.stack(jet_frames([60, 90])))
    for path in (str(folder), str(tmp_path / "jet.npz")):
        with raises(UnreadableVideo, path=str(folder / "0.png") if path == str(folder) else path):
            read_gray(path, [0])
        assert read_gray(path, [0, 1], read_as="jet")[:, 0, 0].tolist() == [60, 90]


def test_prepare_names_streams_and_encodings(tmp_path, write_streams, kinect):
    jet = write_streams(tmp_path / "jet.mkv", ("ffv1", "bgr0", jet_frames([60] * 10), "", True))
    rows = [f"{kinect},{kinect}#depth,a", f"{kinect}#0,{kinect}#1,b", f"{kinect},{jet},a", f"{kinect},{jet},b"]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["rgb,depth,label", *rows]) + "\n", encoding="utf-8")
    dataset = get_dataset("csv")
    out = tmp_path / "sub" / "m.csv"
    refused = dataset.prepare(dataset.options(root=table, out=out))
    assert len(refused.unreadable) == 1
    assert "--depth-encoding" in refused.unreadable[0]
    prepared = dataset.prepare(dataset.options(root=table, out=out, depth_encoding="jet"))
    assert prepared.unreadable == ()
    manifest = load_manifest(out)
    assert manifest.depth_encoding == "jet"
    first = manifest.entries[0]
    assert first.depth.endswith("rec.mkv#depth")
    assert read_gray(manifest.locate(first.depth), [0], read_as=manifest.read_as("depth"))[0, 0, 0] == 1000
    checked = check(manifest, journal=tmp_path / "journal.jsonl")
    assert not [finding for finding in checked.faults if finding.kind in ("missing", "unreadable", "broken")]
    packed = pack(manifest, tmp_path / "packed", encoding=Encoding(short_side=32)).manifest
    for entry, value in zip(packed.entries, (1000, 1000, 60, 60), strict=True):
        assert read_gray(packed.locate(entry.depth), [0], read_as=packed.read_as("depth"))[0, 0, 0] == value
        assert is_color(packed.locate(entry.rgb), GREEN)


# -- seconds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "sound"), [("mp4", "aac"), ("mov", "aac"), ("mkv", "aac"), ("ts", "mp2")])
def test_seconds_are_those_of_a_player(tmp_path, write_streams, suffix, sound):
    video = ("libx264", "yuv420p", color_frames(GREEN, 75), "", True)
    path = write_streams(tmp_path / f"late.{suffix}", video, late_s=(0.8,), sound=sound)
    assert frame_range(path, 2.0, 2.4) == (30, 40)
    assert frame_range(path, 2.0, 2.4, ReadOptions(isolation="process")) == (30, 40)
    with open_source(path) as source:
        assert source.timeline.seconds[0] == pytest.approx(0.8, abs=0.04)
    inspection = inspect(path, "rgb")
    assert inspection.seconds == pytest.approx(3.8, abs=0.05)
    assert inspection.lost_s < 0.3


def test_a_stream_that_starts_late_counts_from_the_first_of_its_file(tmp_path, write_streams):
    streams = [("libx264", "yuv420p", color_frames(color, 20), "", color == RED) for color in (RED, GREEN)]
    path = write_streams(tmp_path / "two.mkv", *streams, late_s=(0.0, 0.4))
    assert frame_range(f"{path}#0", 0.4, 0.6) == (10, 15)
    assert frame_range(f"{path}#1", 0.4, 0.6) == (0, 5)


def test_templates_name_streams_of_one_file(tmp_path, write_streams):
    for label in ("run", "walk"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for number in range(2):
            write_streams(
                tmp_path / "in" / label / f"{number}.mkv",
                ("ffv1", "gray16le", depth_frames(), "depth", False),
                ("libx264", "yuv420p", color_frames(GREEN), "color", True),
            )
    dataset = get_dataset("folder")
    file, out = "{label}/{name}.mkv", tmp_path / "m.csv"
    for rgb, depth in ((f"{file}#color", f"{file}#depth"), (f"{file}#1", f"{file}#0"), (file, f"{file}#depth")):
        options = dataset.options(root=tmp_path / "in", out=out, rgb=rgb, depth=depth)
        prepared = dataset.prepare(options)
        assert prepared.unreadable == ()
        manifest = prepared.manifest
        assert len(manifest.entries) == 4
        assert read_gray(manifest.locate(manifest.entries[0].depth), [1])[0, 0, 0] == 1001
        assert is_color(manifest.locate(manifest.entries[0].rgb), GREEN)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi"])
def test_seeking_in_one_of_several_streams_begins_at_its_own_keyframe(tmp_path, write_streams, suffix):
    codec = "png" if suffix == "mp4" else "ffv1"
    pixel_format = "gray16be" if suffix == "mp4" else "gray16le"
    path = write_streams(
        tmp_path / f"two.{suffix}",
        (codec, pixel_format, depth_frames(count=60), "depth", False),
        ("libx264" if suffix != "avi" else "mpeg4", "yuv420p", color_frames(GREEN, 60), "color", True),
        late_s=(0.0, 0.4) if suffix != "avi" else (),
    )
    for numbers in ([40], [5, 59], [17, 18, 44]):
        assert read_gray(path, numbers)[:, 0, 0].tolist() == [1000 + number for number in numbers]
    with open_source(path, read_as="depth") as source:
        assert source.num_frames == 60


@pytest.mark.parametrize("title", ["Tiefe", "Profondeur", "深度", "depth (mm)", "Глубина"])
def test_titles_in_other_languages_name_depth(tmp_path, write_streams, title):
    path = write_streams(
        tmp_path / "two.mkv",
        ("ffv1", "gray16le", depth_frames(5000), "Infrared", False),
        ("ffv1", "gray16le", depth_frames(1000), unicodedata.normalize("NFD", title), False),
        ("libx264", "yuv420p", color_frames(GREEN), "", False),
    )
    assert read_gray(path, [1])[0, 0, 0] == 1001
    assert read_gray(f"{path}#{title.upper()}", [1])[0, 0, 0] == 1001
    assert is_color(path, GREEN)


def test_a_model_reads_depth_by_its_encoding(tmp_path, write_streams, raises):
    path = write_streams(tmp_path / "jet.mkv", ("ffv1", "bgr0", jet_frames([60] * 8), "", True))
    plain = Preprocessing(modalities=("depth",), short_side=32, size=32)
    options = {"locate": str, "sampling": Sampling(frames=4)}
    with raises(UnreadableVideo, path=path):
        read_views(Entry(depth=path), preprocessing=plain, **options)
    stored = to_json(replace(plain, depth_encoding="jet"))
    named = from_json(Preprocessing, stored)
    assert (read_views(Entry(depth=path), preprocessing=named, **options)["depth"] == 60).all()
    assert from_json(Preprocessing, to_json(plain) | {"depth_encoding": None}) == plain
    older = {name: value for name, value in to_json(plain).items() if name != "depth_encoding"}
    assert from_json(Preprocessing, older) == plain


def test_a_cut_by_an_edit_list_shifts_no_frame(tmp_path):
    """Frames from the keyframe to the cut are decoded and not shown; sound starts at the cut."""
    source, cut = str(tmp_path / "source.mp4"), str(tmp_path / "cut.mp4")
    with av.open(source, "w") as container:
        video = container.add_stream("libx264", rate=20, options={"g": "15", "bf": "0"})
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=48000)
        sound.layout = "mono"
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 4 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 20)
            container.mux(video.encode(frame))
            for part in range(3):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.time_base = 48000, Fraction(1, 48000)
                silence.pts = (3 * number + part) * 800
                container.mux(sound.encode(silence))
        container.mux(video.encode())
        container.mux(sound.encode())
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(source) as container, av.open(cut, "w", options=options) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is None:
                continue
            offset = int(Fraction(1, 2) / packet.time_base)
            if packet.stream.type == "audio" and packet.pts < offset:
                continue
            packet.pts, packet.dts, packet.stream = (
                packet.pts - offset,
                packet.dts - offset,
                streams[packet.stream.index],
            )
            target.mux(packet)
    with av.open(cut) as container:
        frames = [(float(f.time), f.to_ndarray(format="rgb24").mean()) for f in container.decode(video=0)]
    with open_source(cut) as opened:
        assert len(opened.timeline.stamps) == opened.num_frames == len(frames)
        levels = opened.read_rgb(range(*opened.frame_range(1.0, 1.5))).mean((1, 2, 3))
    np.testing.assert_allclose(levels, [level for time, level in frames if 1.0 <= time < 1.5])


def test_damaged_parameters_of_h264_raise_no_other_error(tmp_path, write_video):
    path = tmp_path / "a.mp4"
    write_video(path, np.zeros((8, 32, 32, 3), np.uint8))
    content = bytearray(path.read_bytes())
    start = content.find(b"avcC") + 4
    content[start + 12 : start + 44] = b"\xa8" + bytes(17) + b"\x01" + bytes(13)
    path.write_bytes(content)
    with contextlib.suppress(UnreadableVideo):
        count_frames(str(path))

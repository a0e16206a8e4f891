"""Tests of packing: same frames, times, labels and depth in files that read faster."""

import dataclasses
import struct
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from kinema.cli import main
from kinema.curation.pack import pack
from kinema.data.dataset import frames_of, read_views
from kinema.data.manifest import Entry, PixelBox, load_manifest, write_manifest
from kinema.errors import UnreadableVideo
from kinema.modality import DepthFacts
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling
from kinema.video.encode import Encoding, fitted_depth, fitted_size
from kinema.video.source import count_frames, frame_range, read_gray, read_rgb
from kinema.video.video_file import VideoFile

SIDE = 48
FAR_KEYFRAMES = {"g": "250", "bf": "3", "crf": "12", "preset": "veryfast", "sc_threshold": "0", "b_strategy": "0"}
FACTS = DepthFacts(unit_mm=1.0, near=500.0, far=4500.0, coverage="full")


def manifest_of(folder, entries, *, depth=None, name="set.csv", **declared):
    """Write a manifest of two classes, or of the task heads that the entries name."""
    entries = [
        entry if entry.labels else dataclasses.replace(entry, labels={"label": "ab"[i % 2]})
        for i, entry in enumerate(entries)
    ]
    classes = {head: tuple(sorted({e.labels[head] for e in entries}, reverse=True)) for head in entries[0].labels}
    return write_manifest(
        folder / name,
        entries=entries,
        classes=classes,
        dataset="own",
        version="3",
        depth=depth,
        declared=declared or None,
    )


def packed(manifest, out, **fields):
    fields = {"short_side": SIDE, **fields}
    return pack(manifest, out, encoding=Encoding(**fields), workers=2)


def files_of(result, kind="rgb"):
    return [result.manifest.locate(entry.source(kind)) for entry in result.manifest.entries]


def psnr(one, other):
    return 10 * np.log10(255**2 / max(np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2), 1e-9))


@pytest.fixture
def scene():
    """Return a function that makes smooth moving frames with strong colors."""

    def pictures(count, height, width):
        y, x = np.mgrid[0:height, 0:width] / max(height, width)
        made = []
        for number in range(count):
            channels = [np.sin(5 * x + 0.3 * number + k) * np.cos(4 * y - 0.1 * number * k) for k in (0.0, 1.3, 2.6)]
            made.append(np.rint(127.5 + 110 * np.stack(channels, 2)).astype(np.uint8))
        return made

    return pictures


# -- numbers and times -------------------------------------------------------------------------------------------------


def times_of(kind, count):
    """Return the time of each frame [s], in whole milliseconds."""
    rng = np.random.default_rng(1)
    steps = {"even": [40], "variable": [16, 17, 33, 120, 250]}[kind]
    return np.concatenate([[0], np.cumsum(rng.choice(steps, count - 1))]) / 1000


@pytest.mark.parametrize("kind", ["even", "variable"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_same_frame_is_shown_at_the_same_time(tmp_path, write_video, stamp, read_stamps, kind, suffix):
    """For a whole file, and for segments in seconds whose bounds are on and between frames."""
    times = times_of(kind, 60)
    path = write_video(tmp_path / f"a.{suffix}", [stamp(n) for n in range(60)], times=times, options=FAR_KEYFRAMES)
    cuts = [(0, times[1]), (times[7], times[30]), (times[7] + 0.004, times[41] - 0.004), (times[50], times[59] + 0.01)]
    entries = [Entry(rgb=path, frames=60), *(Entry(rgb=path, start_s=a, stop_s=b, frames=60) for a, b in cuts)]
    result = packed(manifest_of(tmp_path, entries), tmp_path / "out")
    assert result.unreadable == ()
    for old, new, file in zip(entries, result.manifest.entries, files_of(result), strict=True):
        start, stop = frames_of(old, VideoFile(path))
        assert frames_of(new, VideoFile(file)) == (0, stop - start)
        assert count_frames(file) == new.frames == stop - start
        assert read_stamps(read_rgb(file, range(stop - start))) == list(range(start, stop))
        timeline = VideoFile(file).timeline
        seconds = (np.array(timeline.stamps) - timeline.stamps[0]) / timeline.second
        np.testing.assert_allclose(seconds, times[start:stop] - times[start], atol=1e-9)
    whole = files_of(result)[0]
    assert all(frame_range(whole, a, b) == frame_range(path, a, b) for a, b in cuts)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(90), Fraction(1000, 33)])
def test_odd_rates_are_kept_to_the_tick(tmp_path, write_video, stamp, read_stamps, rate):
    path = write_video(tmp_path / "a.mp4", [stamp(n) for n in range(50)], rate=rate, options=FAR_KEYFRAMES)
    file = files_of(packed(manifest_of(tmp_path, [Entry(rgb=path)] * 2), tmp_path / "out"))[0]
    assert read_stamps(read_rgb(file, range(50))) == list(range(50))
    with av.open(file) as container:
        base = container.streams.video[0].time_base
        shown = sorted(packet.pts * base for packet in container.demux(video=0) if packet.size)
    assert [time - shown[0] for time in shown] == [n / rate for n in range(50)]
    for n in (1, 13, 49):
        assert frame_range(file, 0, float(n / rate)) == frame_range(path, 0, float(n / rate)) == (0, n)


def test_each_segment_becomes_a_file_and_equal_segments_share_one(tmp_path, numbered, read_stamps):
    spans = [(0, 10), (90, 140), (100, 150), (90, 140), (199, 200)]
    entries = [Entry(rgb=numbered, start_frame=a, stop_frame=b, frames=200) for a, b in spans]
    result = packed(manifest_of(tmp_path, entries), tmp_path / "out")
    for (start, stop), new, file in zip(spans, result.manifest.entries, files_of(result), strict=True):
        assert (new.start_frame, new.stop_frame, new.frames) == (None, None, stop - start)
        assert count_frames(file) == stop - start
        assert read_stamps(read_rgb(file, range(stop - start))) == list(range(start, stop))
    assert result.files == len({*files_of(result)}) == len(list((tmp_path / "out" / "rgb").iterdir())) == 4


def test_keyframes_are_at_the_requested_interval(tmp_path, write_video, stamp):
    path = write_video(tmp_path / "a.mp4", [stamp(n * 5 % 256) for n in range(50)], options=FAR_KEYFRAMES)
    for every in (8, 5):
        result = packed(manifest_of(tmp_path, [Entry(rgb=path)] * 2), tmp_path / f"out {every}", keyframe_every=every)
        timeline = VideoFile(files_of(result)[0]).timeline
        assert [timeline.stamps.index(key) for key in timeline.keyframes] == list(range(0, 50, every))


# -- pictures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((1080, 1920), 256, (256, 456)),
        ((240, 320), 256, (240, 320)),
        ((256, 341), 256, (256, 340)),
        ((341, 257), 128, (170, 128)),
        ((63, 49), 64, (62, 48)),
        ((500, 100), 16, (80, 16)),
    ],
)
def test_sizes_are_even_and_never_larger(tmp_path, scene, size, short_side, expected):
    assert fitted_size(*size, Encoding(short_side=short_side)) == expected
    if size == (63, 49):
        pictures = scene(20, *size)
        np.savez(tmp_path / "a.npz", np.stack(pictures))
        write_colored(tmp_path / "a.mp4", pictures, form="yuv444p")
        for name in ("a.npz", "a.mp4"):
            result = packed(manifest_of(tmp_path, [Entry(rgb=name)] * 2), tmp_path / name[2:], short_side=short_side)
            cut = read_rgb(str(tmp_path / name), range(20))[:, :62, :48]
            assert psnr(read_rgb(files_of(result)[0], range(20)), cut) > 32


SOURCES = {
    "untagged": {},
    "bt709": {"color": (1, 1)},
    "bt601 full range": {"color": (5, 2)},
    "4:2:2": {"form": "yuv422p", "color": (5, 1)},
    "4:4:4": {"form": "yuv444p", "color": (1, 1)},
    "10 bits": {"form": "yuv420p10le", "color": (1, 1)},
}


def write_colored(path, pictures, *, color=None, form="yuv420p"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=FAR_KEYFRAMES)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], form
        to = {}
        if color is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = color
            to = {"dst_colorspace": color[0], "dst_color_range": color[1]}
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=form, **to)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_packed_frame_is_the_resized_original_up_to_codec_noise(tmp_path, scene, kind):
    path = write_colored(tmp_path / "a.mp4", scene(20, 96, 128), **SOURCES[kind])
    file = files_of(packed(manifest_of(tmp_path, [Entry(rgb=path)] * 2), tmp_path / "out"))[0]
    expected = [
        np.asarray(Image.fromarray(picture).resize((64, 48), Image.Resampling.BILINEAR))
        for picture in read_rgb(path, range(20))
    ]
    got = read_rgb(file, range(20))
    assert got.shape == (20, 48, 64, 3)
    assert psnr(got, expected) > (35 if kind == "4:4:4" else 37)  # 4:2:0 halves the resolution of its colors
    shift = (got.astype(float) - expected).mean((0, 1, 2))
    assert np.abs(shift).max() < 1, shift


def test_rotated_and_mirrored_recordings_are_packed_upright(tmp_path, scene):
    content = bytearray(Path(write_colored(tmp_path / "a.mp4", scene(20, 96, 128))).read_bytes())
    for name, rows in {"turned": (0, 1, -1, 0), "mirrored": (-1, 0, 0, 1)}.items():
        a, b, c, d = rows
        struct.pack_into(
            ">9i", content, content.index(b"tkhd") + 44, a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30
        )
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(content)
        result = packed(manifest_of(tmp_path, [Entry(rgb=str(path))] * 2), tmp_path / f"out {name}", short_side=96)
        got, expected = read_rgb(files_of(result)[0], range(20)), read_rgb(str(path), range(20))
        assert got.shape == expected.shape == ((20, 128, 96, 3) if name == "turned" else (20, 96, 128, 3))
        assert psnr(got, expected) > 35


def test_folders_and_arrays_of_images_become_videos(tmp_path, scene):
    pictures = scene(40, 60, 80)
    (tmp_path / "frames").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "frames" / f"frame_{number + 1:010}.png")
    np.savez(tmp_path / "a.npz", rgb=np.stack(pictures))
    entries = [Entry(rgb=name, start_frame=3, stop_frame=38) for name in ("frames", "a.npz")]
    result = packed(manifest_of(tmp_path, entries), tmp_path / "out")
    for new, file in zip(result.manifest.entries, files_of(result), strict=True):
        assert (new.frames, new.start_frame) == (35, None)
        expected = [np.asarray(Image.fromarray(p).resize((64, 48), Image.Resampling.BILINEAR)) for p in pictures[3:38]]
        assert psnr(read_rgb(file, range(35)), expected) > 37


def test_an_rgb_box_is_cropped_and_removed(tmp_path, write_video, scene):
    """The offsets are odd, at which the chroma planes of H.264 cannot be cut."""
    path = write_video(tmp_path / "a.mp4", scene(20, 96, 160), options={"crf": "4"})
    box = PixelBox(left=31, top=7, right=131, bottom=81)
    entries = [Entry(rgb=path, rgb_box=box), Entry(rgb=path)]
    manifest = manifest_of(tmp_path, entries)
    result = packed(manifest, tmp_path / "out")
    assert [entry.rgb_box for entry in result.manifest.entries] == [None, None]
    cut, whole = files_of(result)
    assert (read_rgb(cut, [0]).shape, read_rgb(whole, [0]).shape) == ((1, 48, 64, 3), (1, 48, 80, 3))
    before, after = (views(m, m.entries[0], "rgb", short_side=48, size=48) for m in (manifest, result.manifest))
    assert psnr(before, after) > 30
    outside = manifest_of(
        tmp_path, [Entry(rgb=path, rgb_box=dataclasses.replace(box, right=161)), entries[1]], name="b.csv"
    )
    failed = packed(outside, tmp_path / "other")
    (reason,) = failed.unreadable
    assert reason.startswith(f"{path}: ")
    assert "rgb_box=31 7 161 81" in reason
    assert "160 x 96" in reason
    assert failed.manifest.entries[0].rgb_box is not None


def test_a_small_video_with_close_keyframes_is_copied_byte_by_byte(tmp_path, write_video, scene):
    near = write_video(tmp_path / "near.mp4", scene(30, 48, 64))
    large = write_video(tmp_path / "large.mp4", scene(30, 50, 64))
    far = write_video(tmp_path / "far.mp4", scene(30, 48, 64), options=FAR_KEYFRAMES)
    entries = [Entry(rgb=path) for path in (near, large, far)] + [Entry(rgb=near, start_frame=0, stop_frame=30)]
    result = packed(manifest_of(tmp_path, entries), tmp_path / "out")
    copies = [
        Path(new).read_bytes() == Path(old.rgb).read_bytes() for old, new in zip(entries, files_of(result), strict=True)
    ]
    assert copies == [True, False, False, False]
    assert [entry.frames for entry in result.manifest.entries] == [30] * 4
    assert any(note.startswith("1 files copied") for note in result.notes)


def test_a_video_without_time_stamps_keeps_its_frames(tmp_path, write_video, stamp, read_stamps):
    """An AVI with reordered frames has unknown keyframes and is always encoded."""
    options = {"g": "12", "bf": "2", "b_strategy": "0", "b": "4000000"}
    path = write_video(tmp_path / "a.avi", [stamp(n) for n in range(40)], codec="mpeg4", options=options)
    assert VideoFile(path).timeline.stamps == ()
    entries = [Entry(rgb=path), Entry(rgb=path, start_frame=7, stop_frame=31)]
    result = packed(manifest_of(tmp_path, entries), tmp_path / "out")
    whole, part = files_of(result)
    assert VideoFile(whole).timeline.stamps != ()
    assert read_stamps(read_rgb(whole, range(40))) == list(range(40))
    assert read_stamps(read_rgb(part, range(24))) == list(range(7, 31))


# -- depth -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def depth():
    return np.random.default_rng(0).integers(0, 65536, (14, 50, 60), dtype=np.uint16)


def test_depth_is_packed_without_loss(tmp_path, write_video, depth):
    (tmp_path / "png").mkdir()
    for number, picture in enumerate(depth):
        Image.fromarray(picture).save(tmp_path / "png" / f"{number}.png")
    np.savez_compressed(tmp_path / "d.npz", depth=depth)
    savemat(tmp_path / "d.mat", {"depth": np.moveaxis(depth, 0, -1)})
    write_video(tmp_path / "d.mkv", depth, codec="ffv1", pixel_format="gray16le", options={})
    names = ("png", "d.npz", "d.mat", "d.mkv")
    entries = [Entry(depth=name, frames=14) for name in names]
    entries += [Entry(depth=name, start_frame=2, stop_frame=9) for name in names]
    result = packed(manifest_of(tmp_path, entries, depth=FACTS), tmp_path / "out", short_side=16)
    assert result.manifest.depth == FACTS
    for new, file in zip(result.manifest.entries, files_of(result, "depth"), strict=True):
        expected = depth if new.frames == 14 else depth[2:9]
        got = read_gray(file, range(new.frames))
        assert got.dtype == np.uint16
        assert (got == expected).all()
        assert count_frames(file) == len(expected)
        assert (read_gray(file, [1, 1, 6]) == expected[[1, 1, 6]]).all()


def test_8_bit_depth_in_a_video_is_copied_and_its_segments_are_lossless(tmp_path, write_video):
    gray = np.random.default_rng(0).integers(0, 256, (20, 48, 64), dtype=np.uint8)
    path = write_video(
        tmp_path / "K_00001.avi", gray[..., None].repeat(3, 3), codec="mpeg4", options={"g": "250", "b": "900000"}
    )
    entries = [Entry(depth=path), Entry(depth=path, start_frame=4, stop_frame=17)]
    result = packed(manifest_of(tmp_path, entries), tmp_path / "out", short_side=16)
    whole, part = files_of(result, "depth")
    assert Path(whole).read_bytes() == Path(path).read_bytes()
    assert read_gray(part, range(13)).dtype == np.uint8
    assert (read_gray(part, range(13)) == read_gray(path, range(4, 17))).all()


def test_resized_depth_contains_only_original_values(tmp_path, depth):
    np.savez(tmp_path / "d.npz", depth=depth)
    result = packed(manifest_of(tmp_path, [Entry(depth="d.npz")] * 2), tmp_path / "out", depth_short_side=25)
    got = read_gray(files_of(result, "depth")[0], range(14))
    assert got.shape == (14, 25, 30)
    assert (got == depth[:, 1::2, 1::2]).all()
    odd = fitted_depth(depth[0], Encoding(short_side=16, depth_short_side=33))
    assert odd.shape == (33, 40)
    assert set(odd.ravel()) <= set(depth[0].ravel())


def test_depth_is_cut_by_the_frames_of_its_rgb(tmp_path, write_video, stamp, depth, read_stamps):
    """A note reports that its own time stamps differ."""
    rgb = write_video(tmp_path / "a.mp4", [stamp(n) for n in range(14)], rate=10)
    write_video(tmp_path / "d.mkv", depth, codec="ffv1", pixel_format="gray16le", options={}, rate=20)
    entries = [Entry(rgb=rgb, depth="d.mkv", start_s=0.3, stop_s=0.6, frames=14)] * 2
    result = packed(manifest_of(tmp_path, entries), tmp_path / "out")
    assert (read_gray(files_of(result, "depth")[0], range(3)) == depth[3:6]).all()
    assert read_stamps(read_rgb(files_of(result)[0], range(3))) == [3, 4, 5]
    assert any(note.startswith("1 depth files") for note in result.notes)


# -- the manifest ------------------------------------------------------------------------------------------------------


def test_all_other_columns_are_unchanged(tmp_path, numbered, depth):
    np.savez(tmp_path / "d.npz", depth=depth)
    columns = {"group": "g1", "subject": "s1", "camera": "c1", "sample": "P01_0"}
    entries = [
        Entry(rgb=numbered, split="train", labels={"verb": "cut", "noun": "leek"}, frames=200, **columns),
        Entry(depth="d.npz", split="val", labels={"verb": "wash", "noun": "pan"}, frames=14, subject="s2"),
    ]
    old = manifest_of(tmp_path, entries, depth=FACTS, train=5, val=1)
    new = packed(old, tmp_path / "out").manifest
    paths = {"rgb": "", "depth": "x", "line": 0}
    assert [dataclasses.replace(e, **paths) for e in new.entries] == [
        dataclasses.replace(e, **paths) for e in old.entries
    ]
    assert (new.classes, new.dataset, new.declared, new.depth) == (old.classes, "own", {"train": 5, "val": 1}, FACTS)
    assert list(new.classes["noun"]) == ["pan", "leek"]
    assert new.version == "3, packed 48"
    assert not Path(new.entries[0].rgb).is_absolute()


def test_samples_that_cannot_be_packed_keep_their_files_and_are_named(tmp_path, numbered, fill_arrays, capsys):
    fill_arrays(tmp_path, "d.npz")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    entries = [
        Entry(rgb=numbered, depth="d.npz", start_frame=0, stop_frame=5, frames=200),
        Entry(rgb=numbered, depth="d.npz", start_frame=3, stop_frame=9, frames=200),  # depth has five frames
        Entry(rgb="broken.mp4", frames=7),
        Entry(rgb="gone.mp4"),
    ]
    old = manifest_of(tmp_path, entries)
    with pytest.raises(SystemExit) as stop:
        main(["pack", str(old.path), "--short-side", "48", "--out", str(tmp_path / "out")])
    assert stop.value.code == 1
    output = capsys.readouterr()
    lines = output.out.splitlines()
    unreadable = {line.split(": ")[2] for line in output.err.splitlines() if "unreadable: " in line}
    assert unreadable == {str(tmp_path / name) for name in ("d.npz", "broken.mp4", "gone.mp4")}
    assert "3 files cannot be packed, 3 samples" in lines[-1]
    new = load_manifest(tmp_path / "out" / "set.csv")
    assert [entry.rgb.startswith("rgb/") for entry in new.entries] == [True, False, False, False]
    assert [new.locate(e.rgb) for e in new.entries[1:]] == [old.locate(e.rgb) for e in old.entries[1:]]
    assert new.locate(new.entries[1].depth) == str(tmp_path / "d.npz")
    assert (new.entries[1].start_frame, new.entries[1].stop_frame) == (3, 9)
    assert [entry.frames for entry in new.entries] == [5, None, None, None]


def test_sources_behind_urls_are_packed(tmp_path, numbered, monkeypatch, read_stamps):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(numbered, "numbered.mp4")
    url = f"zip://numbered.mp4::file://{tmp_path}/a.zip"
    entries = [Entry(rgb=url, start_frame=20, stop_frame=40), Entry(rgb=f"zip://no.mp4::file://{tmp_path}/a.zip")]
    result = packed(manifest_of(tmp_path, entries), tmp_path / "out")
    assert read_stamps(read_rgb(files_of(result)[0], range(20))) == list(range(20, 40))
    assert result.manifest.entries[1].rgb == entries[1].rgb
    assert len(result.unreadable) == 1
    assert result.unreadable[0].startswith("zip://no.mp4")


def test_a_second_manifest_of_the_same_videos_packs_only_new_parts(tmp_path, numbered):
    spans = [Entry(rgb=numbered, start_frame=10 * i, stop_frame=10 * i + 10) for i in range(4)]
    first = packed(manifest_of(tmp_path, spans[:3]), tmp_path / "out")
    second = packed(manifest_of(tmp_path, spans[1:], name="other.csv"), tmp_path / "out")
    assert (first.num_cached, second.num_cached) == (0, 2)
    assert files_of(second)[:2] == files_of(first)[1:]
    assert load_manifest(tmp_path / "out" / "set.csv").digest == first.manifest.digest


def test_a_depth_file_of_unequal_frames_is_refused_by_name(tmp_path):
    for size in (8, 9):
        (tmp_path / "png").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((size, 8), np.uint16)).save(tmp_path / "png" / f"{size}.png")
    result = packed(manifest_of(tmp_path, [Entry(depth="png")] * 2), tmp_path / "out")
    assert "9.png: expected 8 x 8 pixels of 16 bits" in result.unreadable[0]


# -- what a training sees ----------------------------------------------------------------------------------------------


def views(manifest, entry, modality, *, depth=None, short_side=256, size=224):
    return read_views(
        entry,
        locate=manifest.locate,
        sampling=Sampling(frames=16),
        preprocessing=Preprocessing(modalities=(modality,), short_side=short_side, size=size, depth=depth),
    )[modality].numpy()


def test_evaluation_clips_of_real_videos_differ_by_codec_noise(tmp_path, real_data):
    samples = real_data / "format_samples"
    names = (
        "ucf101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",  # 320x240, no time stamps
        "mmaction2/S001C001P001R001A001_rgb.avi",  # NTU RGB+D, 1920x1080
        "torchvision_0.14.1/SOX5yA1l24A.mp4",
    )
    old = manifest_of(tmp_path, [Entry(rgb=str(samples / name), start_frame=3, stop_frame=35) for name in names])
    result = packed(old, tmp_path / "out", short_side=256)
    assert result.unreadable == ()
    for before, after in zip(old.entries, result.manifest.entries, strict=True):
        assert after.frames == 32
        expected, got = views(old, before, "rgb"), views(result.manifest, after, "rgb")
        assert psnr(got, expected) > 32, before.rgb
        assert np.abs((got.astype(float) - expected).mean((0, 2, 3, 4))).max() < 1


def test_clips_of_real_depth_are_the_same_to_the_bit(tmp_path, real_data):
    msr = sorted((real_data / "msr_action3d" / "depth160").glob("*.npz"))[:3]
    isogd = sorted((real_data / "isogd_rgbd" / "train").rglob("K_*.avi"))[:2]
    old = manifest_of(tmp_path, [Entry(depth=str(path)) for path in (*msr, *isogd)])
    result = packed(old, tmp_path / "out")
    assert result.unreadable == ()
    facts = DepthFacts(unit_mm=None, near=1.0, far=700.0, coverage="masked")
    for before, after in zip(old.entries, result.manifest.entries, strict=True):
        cut = {"depth": facts, "short_side": 112, "size": 112}
        assert (views(old, before, "depth", **cut) == views(result.manifest, after, "depth", **cut)).all()


def test_a_damaged_npz_of_frames_is_refused_by_name(tmp_path, depth, raises):
    """The array reader also validates packed files."""
    good = {f"depth_{number:06d}": picture for number, picture in enumerate(depth)}
    np.savez(tmp_path / "a.npz", **{**good, "depth_000003": depth[3][:4]})
    assert (read_gray(str(tmp_path / "a.npz"), [2]) == depth[2]).all()
    with raises(UnreadableVideo, "a.npz", "depth_000003.npy"):
        read_gray(str(tmp_path / "a.npz"), [2, 3])
    np.savez(tmp_path / "b.npz", **{**good, "depth_000003": np.array([[object()]])})
    with raises(UnreadableVideo, "b.npz", "depth_000003.npy"):
        read_gray(str(tmp_path / "b.npz"), [3])
    del good["depth_000003"]
    np.savez(tmp_path / "c.npz", **good)
    with raises(UnreadableVideo, "c.npz"):
        read_gray(str(tmp_path / "c.npz"), [0])
    with raises(UnreadableVideo, "a.npz", "frame 14", "14 frames"):
        read_gray(str(tmp_path / "a.npz"), [14])


# -- pixels ------------------------------------------------------------------------------------------------------------


def write_interlaced(path, count=20):
    """Write H.264 that is marked as interlaced, of a bar whose fields are far apart."""
    with av.open(str(path), "w") as container:
        options = {"flags": "+ildct+ilme", "x264-params": "tff=1", "g": "40", "bf": "2"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for number in range(count):
            image = np.full((64, 96, 3), 30, np.uint8)
            image[0::2, 10 + number : 30 + number] = 220
            image[1::2, 40 + number : 60 + number] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def is_combed(path):
    image = read_rgb(path, [8])[0, ..., 0].astype(int)
    return np.abs(np.diff(image, axis=0)).mean() > 20


def test_interlaced_files_are_noted_or_deinterlaced(tmp_path):
    for name in ("a", "b"):
        write_interlaced(tmp_path / f"{name}.mp4")
    manifest = manifest_of(tmp_path, [Entry(rgb=f"{name}.mp4", frames=20) for name in ("a", "b")])
    plain = packed(manifest, tmp_path / "plain", short_side=64)
    assert [note for note in plain.notes if note.startswith("2 interlaced files")]
    assert is_combed(files_of(plain)[0])
    smooth = packed(manifest, tmp_path / "smooth", short_side=64, deinterlace="spatial")
    assert not any("interlaced" in note for note in smooth.notes)
    assert not is_combed(files_of(smooth)[0])


def test_files_packed_by_older_rules_are_packed_again_where_these_differ(tmp_path, write_video, scene):
    write_video(tmp_path / "a.mp4", scene(20, 96, 128), options=FAR_KEYFRAMES)
    write_interlaced(tmp_path / "b.mp4")
    manifest = manifest_of(tmp_path, [Entry(rgb=f"{name}.mp4", frames=20) for name in ("a", "b")])
    packed(manifest, tmp_path / "out")
    journal = tmp_path / "out" / "pack.jsonl"
    journal.write_text(
        journal.read_text().replace(', "interlaced": false, "pixels": 2', "").replace('"pixels": 2', '"pixels": 1')
    )
    description = tmp_path / "out" / "pack.json"
    description.write_text(description.read_text().replace(',\n  "deinterlace": "none"', ""))
    assert packed(manifest, tmp_path / "out").num_cached == 1
    assert packed(manifest, tmp_path / "out").num_cached == 2

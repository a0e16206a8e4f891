"""RGB and depth of other starts, rates and lengths: paired by time, packed with their times, and reported."""

import av
import numpy as np
import pytest
from PIL import Image

from kinema.curation.check import check
from kinema.curation.pack import pack
from kinema.data.dataset import read_clips, read_views
from kinema.data.manifest import Entry, load_manifest, write_manifest
from kinema.errors import ManifestError, UnreadableVideo
from kinema.modality import DepthFacts
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling
from kinema.video.encode import Encoding
from kinema.video.read_options import ReadOptions

FACTS = DepthFacts(unit_mm=1.0, near=1.0, far=255.0, coverage="full")
BOTH = Preprocessing(modalities=("rgb", "depth"), short_side=48, size=48, depth=FACTS)


@pytest.fixture
def pair(tmp_path, write_video):
    """Return a function that writes RGB and depth whose brightness is their time in units of 1/80 s, and an entry."""

    def write(rgb, depth, *, suffixes=("mkv", "mkv"), **entry):
        names = []
        for name, times, suffix in (("rgb", rgb, suffixes[0]), ("depth", depth, suffixes[1])):
            level = np.rint(80 * np.asarray(times)).astype(int) + 1
            path = tmp_path / f"{name}.{suffix}"
            if name == "rgb":
                pictures = [np.full((48, 64, 3), n, np.uint8) for n in level]
                write_video(path, pictures, times=times)
            elif suffix == "npz":
                images = np.repeat(level, 48 * 64).reshape(-1, 48, 64).astype(np.uint16)
                np.savez(path, depth=images, times_s=np.asarray(times))
            else:
                pictures = [np.full((48, 64), n, np.uint16) for n in level]
                write_video(path, pictures, codec="ffv1", pixel_format="gray16le", options={}, times=times)
            names.append(str(path))
        return Entry(rgb=names[0], depth=names[1], labels={"label": "a"}, **entry)

    return write


def shown(entry, sampling, *, locate=str, seed=None, preprocessing=BOTH):
    """Return the times [s] that RGB and depth of a clip show."""
    rng = None if seed is None else np.random.default_rng(seed)
    clips = read_clips(entry, locate=locate, sampling=sampling, preprocessing=preprocessing, rng=rng)
    levels = {m: clip[:, :, 20, 20].float().mean(0).numpy() for m, clip in clips.items()}
    low, high = FACTS.near, FACTS.far
    return {
        m: ((level if m == "rgb" else low + (level - 1) * (high - low) / 254) - 1) / 80 for m, level in levels.items()
    }


def manifest_of(tmp_path, *entries):
    return write_manifest(
        tmp_path / "m.csv", entries=entries, classes={"label": ("a", "b")}, dataset="own", version="1", depth=FACTS
    )


SHIFTS = {
    "equal": (np.arange(60) / 30, np.arange(60) / 30),
    "depth 0.2 s later": (np.arange(60) / 30, 0.2 + np.arange(60) / 30),
    "rgb 0.2 s later": (0.2 + np.arange(60) / 30, np.arange(60) / 30),
    "depth at 15/s": (np.arange(60) / 30, np.arange(30) / 15),
    "rgb at 15/s": (np.arange(30) / 15, np.arange(60) / 30),
    "depth loses frames": (np.arange(60) / 30, np.delete(np.arange(60) / 30, [20, 21, 22, 40])),
    "both vary": (np.r_[np.arange(30) / 30, 1 + np.arange(10) / 5], np.r_[np.arange(15) / 15, 1 + np.arange(30) / 15]),
}


@pytest.mark.parametrize("suffixes", [("mkv", "mkv"), ("mp4", "mkv"), ("mkv", "npz")], ids="-".join)
@pytest.mark.parametrize("kind", SHIFTS)
def test_depth_is_that_of_the_same_time(pair, kind, suffixes):
    rgb, depth = SHIFTS[kind]
    entry = pair(rgb, depth, suffixes=suffixes)
    slack = 0.11 if kind == "depth loses frames" else 0.1 if kind == "both vary" else 0.05
    for sampling in (Sampling(frames=8), Sampling(rule="dense", frames=8, interval=4, rate=30)):
        for seed in (None, 0, 1):
            times = shown(entry, sampling, seed=seed)
            assert np.abs(times["rgb"] - times["depth"]).max() <= slack
            if kind in ("equal", "depth 0.2 s later", "rgb 0.2 s later"):
                assert np.abs(times["rgb"] - times["depth"]).max() < 0.02
            if kind == "equal" and seed is None and sampling.rule == "segments":
                expected = Sampling(frames=8).indices(60, None) / 30
                np.testing.assert_allclose(times["rgb"], expected, atol=0.02)


def test_the_views_of_a_test_are_paired_by_time(pair):
    entry = pair(*SHIFTS["depth 0.2 s later"])
    views = read_views(entry, locate=str, sampling=Sampling(frames=4, clips=3), preprocessing=BOTH)
    rgb, depth = (views[m][:, :, :, 20, 20].float().mean(1) for m in ("rgb", "depth"))
    assert (rgb - depth).abs().max() < 3


def test_an_mpeg_ts_starts_anywhere(pair):
    entry = pair(np.arange(60) / 30, np.arange(60) / 30, suffixes=("ts", "mkv"))
    with av.open(entry.rgb) as container:
        assert container.start_time > 1_000_000 / 30
    times = shown(entry, Sampling(frames=8))
    assert np.abs(times["rgb"] - times["depth"]).max() < 0.02


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.mp4", {"movflags": "frag_keyframe+empty_moov"}), ("a.mp4", {"use_editlist": "0"}), ("a.flv", {})],
    ids=["fragments", "no edit list", "flv"],
)
def test_a_delay_of_reordered_frames_is_no_offset(tmp_path, pair, name, options):
    entry = pair(np.arange(60) / 30, np.arange(60) / 30)
    path = str(tmp_path / name)
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "3", "b_strategy": "0", "crf": "4"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(60):
            level = round(80 * number / 30) + 1
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(path) as container:
        assert container.streams.video[0].start_time > 0
    times = shown(Entry(rgb=path, depth=entry.depth), Sampling(frames=8))
    assert np.abs(times["rgb"] - times["depth"]).max() < 0.02


def test_depth_that_ends_too_early_is_an_error(pair, raises):
    entry = pair(np.arange(60) / 30, np.arange(40) / 30)
    with raises(UnreadableVideo, path="depth.mkv"):
        shown(entry, Sampling(frames=8))
    part = pair(np.arange(60) / 30, np.arange(40) / 30, start_s=0.0, stop_s=1.3)
    assert np.abs(shown(part, Sampling(frames=8))["depth"] - shown(part, Sampling(frames=8))["rgb"]).max() < 0.02


def test_equally_many_frames_of_another_rate_are_paired_by_number(pair):
    entry = pair(np.arange(60) / 30, np.arange(60) / 25)
    times = shown(entry, Sampling(frames=8))
    np.testing.assert_allclose(times["depth"] * 25, times["rgb"] * 30, atol=0.6)


def test_depth_alone_is_read_at_its_own_rate(pair):
    alone = Preprocessing(modalities=("depth",), short_side=48, size=48, depth=FACTS)
    for cut in ({}, {"start_frame": 20, "stop_frame": 60}):
        entry = pair(*SHIFTS["depth at 15/s"], frames=60, rate=30.0, **cut)
        times = shown(entry, Sampling(frames=4), preprocessing=alone)["depth"]
        first, last = (0.0, 2.0) if not cut else (2 / 3, 2.0)
        np.testing.assert_allclose(times, first + (last - first) * (np.arange(4) + 0.5) / 4, atol=0.1)


@pytest.mark.parametrize(
    "kind",
    ["depth 0.2 s later", *(pytest.param(k, marks=pytest.mark.long) for k in SHIFTS if k != "depth 0.2 s later")],
)
def test_packed_pairs_are_the_same(tmp_path, pair, kind):
    rgb, depth = SHIFTS[kind]
    cuts = [{}, {"start_s": 0.5, "stop_s": 1.5}, {"start_frame": 7, "stop_frame": 22}]
    entries = [pair(rgb, depth, **cut) for cut in cuts] + [pair(rgb, depth, sample="again")]
    manifest = manifest_of(tmp_path, *entries)
    packed = pack(manifest, tmp_path / "out", encoding=Encoding(short_side=48))
    assert packed.unreadable == ()
    for before, after in zip(manifest.entries, packed.manifest.entries, strict=True):
        for sampling in (Sampling(frames=8), Sampling(rule="dense", frames=4, interval=4, rate=30)):
            for seed in (None, 0):
                old = shown(before, sampling, locate=manifest.locate, seed=seed)
                new = shown(after, sampling, locate=packed.manifest.locate, seed=seed)
                for modality in ("rgb", "depth"):
                    np.testing.assert_allclose(new[modality], old[modality], atol=0.02)


def test_images_without_times_stay_without_times_when_packed(tmp_path, pair):
    entry = pair(np.arange(60) / 30, np.arange(60) / 30)
    (tmp_path / "png").mkdir()
    for number in range(60):
        Image.fromarray(np.full((48, 64, 3), 2 * number + 1, np.uint8)).save(tmp_path / "png" / f"{number}.png")
    folder = Entry(rgb=str(tmp_path / "png"), depth=entry.depth, labels=entry.labels)
    manifest = manifest_of(tmp_path, folder)
    packed = pack(manifest, tmp_path / "out", encoding=Encoding(short_side=48)).manifest
    assert packed.entries[0].rate == 0
    sampling = Sampling(rule="dense", frames=8, interval=4, rate=60)
    old, new = shown(folder, sampling), shown(packed.entries[0], sampling, locate=packed.locate)
    assert np.diff(old["rgb"]).tolist() == pytest.approx([0.1] * 7, abs=0.02)
    for modality in ("rgb", "depth"):
        np.testing.assert_allclose(new[modality], old[modality], atol=0.02)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("equal", []),
        ("depth 0.2 s later", [("pair offset", "200 ms later")]),
        ("rgb 0.2 s later", [("pair offset", "200 ms earlier")]),
        ("depth at 15/s", [("pair rates", "15 frames per second")]),
        ("depth loses frames", []),
    ],
)
def test_check_reports_offsets_and_rates(tmp_path, pair, kind, expected):
    manifest = manifest_of(tmp_path, pair(*SHIFTS[kind]))
    result = check(manifest, journal=tmp_path / "j.jsonl", read_options=ReadOptions())
    found = [f for f in result.findings if f.kind in ("pair offset", "pair rates", "unequal lengths", "truncated")]
    assert [f.kind for f in found] == [kind for kind, _ in expected]
    assert all(words in f.sentence for f, (_, words) in zip(found, expected, strict=True))
    assert all(f.severity == "note" for f in found)


@pytest.mark.parametrize("times", [[0.0, 0.1], [0.0, 0.2, 0.1], [0.0, np.nan, 1.0]], ids=str)
def test_wrong_times_of_an_array_are_refused(tmp_path, times, raises):
    np.savez(tmp_path / "d.npz", depth=np.zeros((3, 4, 4), np.uint16), times_s=np.array(times))
    with raises(UnreadableVideo, "times_s", path="d.npz"):
        shown(
            Entry(depth=str(tmp_path / "d.npz")),
            Sampling(frames=2),
            preprocessing=Preprocessing(modalities=("depth",), short_side=48, size=48, depth=FACTS),
        )


def test_the_rate_of_a_manifest_is_a_number(tmp_path, pair, raises):
    manifest = manifest_of(tmp_path, pair(*SHIFTS["equal"], rate=29.97))
    assert load_manifest(manifest.path).entries[0].rate == 29.97
    text = manifest.path.read_text()
    manifest.path.write_text(text.replace("29.97", "-1"))
    with raises(ManifestError, line=2, field="rate"):
        load_manifest(manifest.path)

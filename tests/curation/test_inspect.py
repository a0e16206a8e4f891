"""Tests of inspections: properties and problems of files, whatever their headers claim."""

import struct
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from kinema.curation.check_files import inspection_findings
from kinema.curation.inspect import inspect
from kinema.video.read_options import Limits, ReadOptions


@pytest.fixture(scope="module")
def front(tmp_path_factory, numbered):
    """Return the video of 200 frames with its index at the front, so that it opens without its end."""
    path = tmp_path_factory.mktemp("front") / "front.mp4"
    with av.open(numbered) as source, av.open(str(path), "w", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return path


def cut(path, target, share):
    content = Path(path).read_bytes()
    target.write_bytes(content[: int(share * len(content))])
    return str(target)


def kinds(inspection, kind="rgb"):
    """Return the kinds of findings in the file."""
    return [name for name, _ in inspection_findings(inspection, kind, clip_frames=16)]


def test_properties_of_an_intact_video(numbered):
    inspection = inspect(numbered, "rgb")
    assert (inspection.form, inspection.problem, inspection.reason) == ("video", "", "")
    assert (inspection.frames, inspection.announced_frames, inspection.damaged) == (200, 200, 0)
    assert (inspection.width, inspection.height, inspection.codec, inspection.pixel_format, inspection.bits) == (
        64,
        48,
        "h264",
        "yuv420p",
        8,
    )
    assert inspection.seconds == pytest.approx(8.0)
    assert inspection.rate == pytest.approx(25.0)
    assert (inspection.uneven, inspection.rotation, inspection.lost_s) == (0, 0, 0)
    assert 0 < inspection.blank < 0.02  # the stamps of 0 and of 255 would be of one color
    assert inspection.signature
    assert kinds(inspection) == []


def test_a_truncated_file_is_found_by_its_frame_count(tmp_path, front):
    inspection = inspect(cut(front, tmp_path / "truncated.mp4", 0.6), "rgb")
    assert inspection.announced_frames == 200
    assert 50 < inspection.frames < 170
    assert kinds(inspection) in (["truncated"], ["truncated", "damaged"], ["broken"])
    assert inspection.lost_s == pytest.approx(8 - inspection.frames / 25, abs=0.3)


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [("mkv", "libx264", None), ("webm", "libvpx", {"g": "20", "b": "1000000", "deadline": "realtime"})],
)
def test_a_truncated_file_without_a_frame_count_is_found_by_its_duration(
    tmp_path, write_video, stamp, suffix, codec, options
):
    pictures = [stamp(n) for n in range(100)]
    whole = write_video(tmp_path / f"whole.{suffix}", pictures, codec=codec, options=options)
    assert inspect(whole, "rgb").announced_frames == 0
    assert kinds(inspect(whole, "rgb")) == []
    truncated = inspect(cut(whole, tmp_path / f"truncated.{suffix}", 0.7), "rgb")
    assert 30 < truncated.frames < 95
    assert truncated.lost_s == pytest.approx(4 - truncated.frames / 25, abs=0.15)
    assert "truncated" in kinds(truncated) or truncated.problem == "broken"


def test_sound_that_outlasts_the_video_is_not_truncation(tmp_path, write_video, write_sound, with_sound, stamp):
    video = write_video(tmp_path / "inspection.mkv", [stamp(n) for n in range(10)])
    path = with_sound(tmp_path / "both.mkv", video, write_sound(tmp_path / "heard.m4a", codec="aac"))
    inspection = inspect(str(path), "rgb")
    assert inspection.seconds == pytest.approx(0.4)
    assert kinds(inspection) == ["shorter than a clip"]


def test_frames_marked_as_not_displayed_are_not_lost(tmp_path, numbered):
    """A cut without re-encoding stores frames before the first displayed one, and marks them."""
    path = tmp_path / "cut.mp4"
    with av.open(numbered) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts -= 6 * 512
                packet.dts -= 6 * 512
                packet.stream = stream
                target.mux(packet)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 200
    inspection = inspect(str(path), "rgb")
    assert inspection.frames == inspection.announced_frames < 200
    assert kinds(inspection) == []


def test_frames_missing_from_the_file_are_lost(tmp_path, write_video, stamp):
    path = Path(write_video(tmp_path / "a.avi", [stamp(n) for n in range(100)], codec="mpeg4", options={"g": "1"}))
    content = bytearray(path.read_bytes())
    start = content.index(b"movi")
    places, place = [], start + 4
    while content[place : place + 4] == b"00dc":
        places.append(place)
        place += 8 + (struct.unpack_from("<I", content, place + 4)[0] + 1) // 2 * 2
    assert len(places) == 100
    truncated = tmp_path / "truncated.avi"
    junk = bytearray(content)
    for hit in places[40:45]:
        junk[hit : hit + 4] = b"JUNK"
    truncated.write_bytes(junk)
    shifted = inspect(str(truncated), "rgb")
    assert (shifted.problem, kinds(shifted)) == ("broken", ["broken"])
    assert "index" in shifted.reason
    path.write_bytes(content[: places[40]] + content[places[45] : place])  # without an index
    inspection = inspect(str(path), "rgb")
    assert inspection.announced_frames == 100
    assert inspection.frames == 95
    assert kinds(inspection) == ["broken"]
    assert "100" in inspection.reason
    assert "95" in inspection.reason


def test_damaged_frames_are_counted(tmp_path, write_video):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(30)]
    path = Path(write_video(tmp_path / "a.avi", noise, codec="mpeg4", options={"g": "10", "qscale": "2"}))
    content = bytearray(path.read_bytes())
    middle = content.index(b"00dc", len(content) // 2)
    content[middle + 400 : middle + 500] = bytes(100)
    path.write_bytes(content)
    inspection = inspect(str(path), "rgb")
    assert inspection.frames == 30
    assert inspection.damaged >= 1
    assert kinds(inspection) == ["damaged"]


def test_problems_are_distinguished(tmp_path, write_sound, write_video, stamp):
    assert inspect(str(tmp_path / "gone.mp4"), "rgb").problem == "missing"
    assert inspect(str(tmp_path / "gone.npz"), "depth").problem == "missing"
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    inspection = inspect(str(tmp_path / "text.mp4"), "rgb")
    assert inspection.problem == "unreadable"
    assert "text.mp4" not in inspection.reason
    assert inspect(write_sound(tmp_path / "sound.mp4", codec="aac"), "rgb").problem == "no_video"
    (tmp_path / "empty").mkdir()
    assert inspect(str(tmp_path / "empty"), "rgb").problem == "unreadable"
    one, other = (tmp_path / "one.ts", tmp_path / "other.ts")
    write_video(one, [stamp(n) for n in range(20)])
    write_video(other, [np.zeros((96, 128, 3), np.uint8)] * 20)
    (tmp_path / "both.ts").write_bytes(one.read_bytes() + other.read_bytes())
    both = inspect(str(tmp_path / "both.ts"), "rgb")
    assert both.problem == "broken"
    assert both.frames == 20
    assert all(part in both.reason for part in ("64 x 48", "128 x 96", "20 frames"))
    assert both.signature == ""


def test_a_broken_file_gives_the_number_of_frames_before_the_error(tmp_path, front):
    content = bytearray(front.read_bytes())
    middle = int(0.6 * len(content))
    content[middle : middle + 600] = bytes(600)
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    inspection = inspect(str(path), "rgb")
    assert inspection.problem == "broken"
    assert 40 < inspection.frames < 190
    assert f"{inspection.frames} frames" in inspection.reason
    assert kinds(inspection) == ["broken"]


def test_a_variable_rate_is_found_but_not_in_rounded_stamps(tmp_path, write_video, stamp):
    pictures = [stamp(n) for n in range(40)]
    varies = write_video(tmp_path / "varies.mkv", pictures, times=[0.04 * n + 0.1 * (n // 5) for n in range(40)])
    inspection = inspect(varies, "rgb")
    assert inspection.uneven == pytest.approx(7 / 39)
    assert kinds(inspection) == ["variable rate"]
    film = write_video(tmp_path / "film.mkv", pictures, times=[n / 29.97 for n in range(40)])
    with av.open(film) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert len(set(np.diff(stamps))) > 1  # 33 and 34 milliseconds
    assert inspect(film, "rgb").uneven == 0
    one_gap = write_video(tmp_path / "gap.mkv", pictures * 2, times=[0.04 * (n + (n > 30)) for n in range(80)])
    assert kinds(inspect(one_gap, "rgb")) == []


def test_a_rotated_file_has_its_displayed_size(tmp_path, write_video, stamp):
    path = Path(write_video(tmp_path / "turned.mp4", [stamp(n) for n in range(16)]))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    struct.pack_into(">9i", content, matrix, 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    inspection = inspect(str(path), "rgb")
    assert (inspection.width, inspection.height) == (48, 64)
    assert inspection.rotation in (90, 270)
    assert kinds(inspection) == ["rotated"]
    struct.pack_into(">9i", content, matrix, -1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    assert inspect(str(path), "rgb").rotation == -1


def test_images_and_arrays_are_inspected(tmp_path):
    rng = np.random.default_rng(0)
    depth = rng.integers(500, 4500, (20, 24, 32), dtype=np.uint16)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, picture in enumerate(depth):
        Image.fromarray(picture).save(folder / f"{number}.png")
    np.savez(tmp_path / "d.npz", depth=depth)
    savemat(tmp_path / "d.mat", {"depth": np.moveaxis(depth, 0, -1)})
    found = [inspect(str(tmp_path / name), "depth") for name in ("frames", "d.npz", "d.mat")]
    for inspection in found:
        assert (inspection.frames, inspection.width, inspection.height, inspection.bits, inspection.problem) == (
            20,
            32,
            24,
            16,
            "",
        )
        assert inspection.seconds is None
        assert kinds(inspection, "depth") == []
    assert [inspection.form for inspection in found] == ["folder", "array", "array"]
    assert found[0].signature == found[1].signature == found[2].signature != ""
    assert inspect(str(tmp_path / "d.npz"), "rgb").problem == "unreadable"


def test_a_folder_with_a_broken_or_different_image_is_broken(tmp_path, fill_pictures):
    fill_pictures(tmp_path, "a", "b", count=12)
    (tmp_path / "a" / "7.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(tmp_path / "b" / "9.png")
    truncated, other = inspect(str(tmp_path / "a"), "rgb"), inspect(str(tmp_path / "b"), "rgb")
    assert (truncated.problem, truncated.frames) == ("broken", 7)
    assert "7.png" in truncated.reason
    assert (other.problem, other.frames) == ("broken", 9)
    assert all(part in other.reason for part in ("9.png", "8 x 9", "0.png", "8 x 6"))


def test_empty_depth_and_blank_frames_are_counted(tmp_path):
    depth = np.full((20, 12, 16), 900, np.uint16)
    depth[:, 3, 4] = 1000
    depth[:5] = 0
    np.savez(tmp_path / "d.npz", depth=depth)
    inspection = inspect(str(tmp_path / "d.npz"), "depth")
    assert inspection.empty == 0.25
    assert kinds(inspection, "depth") == ["empty depth"]
    np.savez(tmp_path / "gray.npz", rgb=np.full((20, 12, 16, 3), 90, np.uint8))
    gray = inspect(str(tmp_path / "gray.npz"), "rgb")
    assert (gray.blank, gray.signature) == (1.0, "")
    assert kinds(gray) == ["blank"]


def test_a_url_gives_the_result_of_the_file(tmp_path, numbered):
    with fsspec.open("memory://inspected/one.mp4", "wb") as file:
        file.write(Path(numbered).read_bytes())
    read_options = ReadOptions(cache=tmp_path)
    assert inspect("memory://inspected/one.mp4", "rgb", read_options) == inspect(numbered, "rgb")
    gone = inspect("memory://inspected/two.mp4", "rgb", read_options)
    assert gone.problem == "missing"
    with fsspec.open("memory://inspected/text.mp4", "wb") as file:
        file.write(b"no video")
    text = inspect("memory://inspected/text.mp4", "rgb", read_options)
    assert text.problem == "unreadable"
    assert str(tmp_path) not in text.reason  # the path of the local copy


def test_limits_hold(numbered):
    inspection = inspect(numbered, "rgb", ReadOptions(limits=Limits(frames=50)))
    assert inspection.problem == "unreadable"
    assert "50" in inspection.reason


# -- real files --------------------------------------------------------------------------------------------------------


def real_files(folder):
    """Return path and modality of every recording."""
    samples = [(p, "rgb") for p in (folder / "format_samples").rglob("*") if p.suffix in (".avi", ".mp4")]
    jhmdb = [(p, "rgb") for p in (folder / "jhmdb" / "videos").rglob("*.mp4")]
    isogd = [(p, "depth" if p.name[0] == "K" else "rgb") for p in (folder / "isogd_rgbd" / "train").rglob("*.avi")]
    arrays = [(p, "depth") for p in (folder / "msr_action3d").rglob("*") if p.suffix in (".npz", ".mat")]
    return sorted(samples), sorted(jhmdb), sorted(isogd), sorted(arrays)


def unexpected_findings(files):
    return {
        path.name: unexpected
        for path, kind in files
        if (unexpected := set(kinds(inspect(str(path), kind), kind)) - {"shorter than a clip", "header"})
    }


def test_real_recordings_have_no_finding(real_data):
    samples, jhmdb, isogd, arrays = real_files(real_data)
    small = [(path, kind) for path, kind in samples if path.stat().st_size < 500_000]
    assert len(small) > 10
    assert unexpected_findings([*small, *jhmdb[::60], *isogd[::40], *arrays[::60]]) == {}


@pytest.mark.long
def test_all_real_recordings_have_no_finding(real_data):
    every = [file for files in real_files(real_data) for file in files]
    assert len(every) > 1300
    assert unexpected_findings(every) == {"demo_demo.mp4": {"non-square pixels"}}  # 340 x 256, displayed as 427 x 256


def test_a_header_with_one_frame_too_many_is_a_note(real_data):
    (path,) = (real_data / "format_samples").rglob("hmdb51_Turnk*.avi")
    inspection = inspect(str(path), "rgb")
    assert (inspection.announced_frames, inspection.frames) == (84, 83)
    assert kinds(inspection) == ["header"]

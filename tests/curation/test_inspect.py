"""What is noted down of a file is what the file is, whatever its header says."""

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
    """The video of 200 frames with its index at the front, so that it opens when its end is missing."""
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


def kinds(seen, kind="rgb"):
    """What a check says of the file alone."""
    return [found for found, _ in inspection_findings(seen, kind, clip_frames=16)]


def test_of_a_whole_video_everything_is_known(numbered):
    seen = inspect(numbered, "rgb")
    assert (seen.form, seen.problem, seen.reason) == ("video", "", "")
    assert (seen.frames, seen.announced_frames, seen.damaged) == (200, 200, 0)
    assert (seen.width, seen.height, seen.codec, seen.pixel_format, seen.bits) == (64, 48, "h264", "yuv420p", 8)
    assert seen.seconds == pytest.approx(8.0)
    assert seen.rate == pytest.approx(25.0)
    assert (seen.uneven, seen.rotation, seen.lost_s) == (0, 0, 0)
    assert 0 < seen.blank < 0.02  # the stamps of 0 and of 255 would be of one color
    assert seen.signature
    assert kinds(seen) == []


def test_a_truncated_file_that_opens_is_told_by_its_count(tmp_path, front):
    seen = inspect(cut(front, tmp_path / "torn.mp4", 0.6), "rgb")
    assert seen.announced_frames == 200
    assert 50 < seen.frames < 170
    assert kinds(seen) in (["truncated"], ["truncated", "damaged"], ["broken"])
    assert seen.lost_s == pytest.approx(8 - seen.frames / 25, abs=0.3)


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [("mkv", "libx264", None), ("webm", "libvpx", {"g": "20", "b": "1000000", "deadline": "realtime"})],
)
def test_a_truncated_file_without_a_count_is_told_by_its_end(tmp_path, write_video, stamp, suffix, codec, options):
    pictures = [stamp(n) for n in range(100)]
    whole = write_video(tmp_path / f"whole.{suffix}", pictures, codec=codec, options=options)
    assert inspect(whole, "rgb").announced_frames == 0
    assert kinds(inspect(whole, "rgb")) == []
    torn = inspect(cut(whole, tmp_path / f"torn.{suffix}", 0.7), "rgb")
    assert 30 < torn.frames < 95
    assert torn.lost_s == pytest.approx(4 - torn.frames / 25, abs=0.15)
    assert "truncated" in kinds(torn) or torn.problem == "broken"


def test_sound_that_goes_on_after_the_picture_is_no_truncation(tmp_path, write_video, write_sound, with_sound, stamp):
    video = write_video(tmp_path / "seen.mkv", [stamp(n) for n in range(10)])
    path = with_sound(tmp_path / "both.mkv", video, write_sound(tmp_path / "heard.m4a", codec="aac"))
    seen = inspect(str(path), "rgb")
    assert seen.seconds == pytest.approx(0.4)
    assert kinds(seen) == ["shorter than a clip"]


def test_frames_that_the_header_hides_are_not_missed(tmp_path, numbered):
    """A cut without encoding: frames before the first shown one are stored, and marked."""
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
    seen = inspect(str(path), "rgb")
    assert seen.frames == seen.announced_frames < 200
    assert kinds(seen) == []


def test_frames_that_are_announced_but_not_there_are_missed(tmp_path, write_video, stamp):
    path = Path(write_video(tmp_path / "a.avi", [stamp(n) for n in range(100)], codec="mpeg4", options={"g": "1"}))
    content = bytearray(path.read_bytes())
    start = content.index(b"movi")
    places, place = [], start + 4
    while content[place : place + 4] == b"00dc":
        places.append(place)
        place += 8 + (struct.unpack_from("<I", content, place + 4)[0] + 1) // 2 * 2
    assert len(places) == 100
    torn = tmp_path / "torn.avi"
    junk = bytearray(content)
    for hit in places[40:45]:
        junk[hit : hit + 4] = b"JUNK"
    torn.write_bytes(junk)
    shifted = inspect(str(torn), "rgb")
    assert (shifted.problem, kinds(shifted)) == ("broken", ["broken"])
    assert "frame 40 is not at the place" in shifted.reason
    path.write_bytes(content[: places[40]] + content[places[45] : place])  # without an index
    seen = inspect(str(path), "rgb")
    assert seen.announced_frames == 100
    assert seen.frames == 95
    assert kinds(seen) == ["broken"]
    assert "declares 100 frames, got 95" in seen.reason


def test_pictures_that_the_decoder_had_to_guess_are_counted(tmp_path, write_video):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(30)]
    path = Path(write_video(tmp_path / "a.avi", noise, codec="mpeg4", options={"g": "10", "qscale": "2"}))
    content = bytearray(path.read_bytes())
    middle = content.index(b"00dc", len(content) // 2)
    content[middle + 400 : middle + 500] = bytes(100)
    path.write_bytes(content)
    seen = inspect(str(path), "rgb")
    assert seen.frames == 30
    assert seen.damaged >= 1
    assert kinds(seen) == ["damaged"]


def test_what_cannot_be_read_is_told_apart(tmp_path, write_sound, write_video, stamp):
    assert inspect(str(tmp_path / "gone.mp4"), "rgb").problem == "missing"
    assert inspect(str(tmp_path / "gone.npz"), "depth").problem == "missing"
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    seen = inspect(str(tmp_path / "text.mp4"), "rgb")
    assert seen.problem == "unreadable"
    assert seen.reason.startswith("not a readable video (")
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
    assert "64 x 48 to 128 x 96 after 20 frames" in both.reason
    assert both.signature == ""


def test_a_file_that_breaks_on_the_way_says_after_how_many_frames(tmp_path, front):
    content = bytearray(front.read_bytes())
    middle = int(0.6 * len(content))
    content[middle : middle + 600] = bytes(600)
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    seen = inspect(str(path), "rgb")
    assert seen.problem == "broken"
    assert 40 < seen.frames < 190
    assert seen.reason.startswith(f"decoding fails after {seen.frames} frames")
    assert kinds(seen) == ["broken"]


def test_a_rate_that_varies_is_seen_and_rounded_stamps_are_not_taken_for_it(tmp_path, write_video, stamp):
    pictures = [stamp(n) for n in range(40)]
    varies = write_video(tmp_path / "varies.mkv", pictures, times=[0.04 * n + 0.1 * (n // 5) for n in range(40)])
    seen = inspect(varies, "rgb")
    assert seen.uneven == pytest.approx(7 / 39)
    assert kinds(seen) == ["variable rate"]
    film = write_video(tmp_path / "film.mkv", pictures, times=[n / 29.97 for n in range(40)])
    with av.open(film) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert len(set(np.diff(stamps))) > 1  # 33 and 34 milliseconds
    assert inspect(film, "rgb").uneven == 0
    one_gap = write_video(tmp_path / "gap.mkv", pictures * 2, times=[0.04 * (n + (n > 30)) for n in range(80)])
    assert kinds(inspect(one_gap, "rgb")) == []


def test_a_turned_file_has_the_size_that_is_shown(tmp_path, write_video, stamp):
    path = Path(write_video(tmp_path / "turned.mp4", [stamp(n) for n in range(16)]))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    struct.pack_into(">9i", content, matrix, 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    seen = inspect(str(path), "rgb")
    assert (seen.width, seen.height) == (48, 64)
    assert seen.rotation in (90, 270)
    assert kinds(seen) == ["rotated"]
    struct.pack_into(">9i", content, matrix, -1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    assert inspect(str(path), "rgb").rotation == -1


def test_pictures_and_arrays_are_looked_at_one_by_one(tmp_path):
    rng = np.random.default_rng(0)
    depth = rng.integers(500, 4500, (20, 24, 32), dtype=np.uint16)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, picture in enumerate(depth):
        Image.fromarray(picture).save(folder / f"{number}.png")
    np.savez(tmp_path / "d.npz", depth=depth)
    savemat(tmp_path / "d.mat", {"depth": np.moveaxis(depth, 0, -1)})
    found = [inspect(str(tmp_path / name), "depth") for name in ("frames", "d.npz", "d.mat")]
    for seen in found:
        assert (seen.frames, seen.width, seen.height, seen.bits, seen.problem) == (20, 32, 24, 16, "")
        assert seen.seconds is None
        assert kinds(seen, "depth") == []
    assert [seen.form for seen in found] == ["folder", "array", "array"]
    assert found[0].signature == found[1].signature == found[2].signature != ""
    assert inspect(str(tmp_path / "d.npz"), "rgb").problem == "unreadable"


def test_a_folder_with_a_broken_or_another_picture_is_broken(tmp_path, fill_pictures):
    fill_pictures(tmp_path, "a", "b", count=12)
    (tmp_path / "a" / "7.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(tmp_path / "b" / "9.png")
    torn, other = inspect(str(tmp_path / "a"), "rgb"), inspect(str(tmp_path / "b"), "rgb")
    assert (torn.problem, torn.frames) == ("broken", 7)
    assert "7.png: not a readable image" in torn.reason
    assert (other.problem, other.frames) == ("broken", 9)
    assert "9.png: expected 8 x 6 pixels" in other.reason


def test_depth_without_reading_and_pictures_of_one_color_are_counted(tmp_path):
    depth = np.full((20, 12, 16), 900, np.uint16)
    depth[:, 3, 4] = 1000
    depth[:5] = 0
    np.savez(tmp_path / "d.npz", depth=depth)
    seen = inspect(str(tmp_path / "d.npz"), "depth")
    assert seen.empty == 0.25
    assert kinds(seen, "depth") == ["empty depth"]
    np.savez(tmp_path / "gray.npz", rgb=np.full((20, 12, 16, 3), 90, np.uint8))
    gray = inspect(str(tmp_path / "gray.npz"), "rgb")
    assert (gray.blank, gray.signature) == (1.0, "")
    assert kinds(gray) == ["blank"]


def test_a_url_is_looked_at_as_the_file_is(tmp_path, numbered):
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
    assert text.reason.startswith("not a readable video (")  # without the name of the copy


def test_limits_hold(numbered):
    seen = inspect(numbered, "rgb", ReadOptions(limits=Limits(frames=50)))
    assert seen.problem == "unreadable"
    assert "at most 50" in seen.reason


# -- real files: no alarm ----------------------------------------------------------------------------------------------


def real_files(folder):
    """Path and kind of every recording."""
    samples = [(p, "rgb") for p in (folder / "format_samples").rglob("*") if p.suffix in (".avi", ".mp4")]
    jhmdb = [(p, "rgb") for p in (folder / "jhmdb" / "videos").rglob("*.mp4")]
    isogd = [(p, "depth" if p.name[0] == "K" else "rgb") for p in (folder / "isogd_rgbd" / "train").rglob("*.avi")]
    arrays = [(p, "depth") for p in (folder / "msr_action3d").rglob("*") if p.suffix in (".npz", ".mat")]
    return sorted(samples), sorted(jhmdb), sorted(isogd), sorted(arrays)


def alarms(files):
    return {
        path.name: told
        for path, kind in files
        if (told := set(kinds(inspect(str(path), kind), kind)) - {"shorter than a clip", "header"})
    }


def test_real_recordings_give_no_alarm(real_data):
    samples, jhmdb, isogd, arrays = real_files(real_data)
    small = [(path, kind) for path, kind in samples if path.stat().st_size < 500_000]
    assert len(small) > 10
    assert alarms([*small, *jhmdb[::60], *isogd[::40], *arrays[::60]]) == {}


@pytest.mark.long
def test_no_real_recording_gives_an_alarm(real_data):
    every = [file for files in real_files(real_data) for file in files]
    assert len(every) > 1300
    assert alarms(every) == {}


def test_a_header_that_announces_a_frame_too_many_is_only_noted(real_data):
    (path,) = (real_data / "format_samples").rglob("hmdb51_Turnk*.avi")
    seen = inspect(str(path), "rgb")
    assert (seen.announced_frames, seen.frames) == (84, 83)
    assert kinds(seen) == ["header"]

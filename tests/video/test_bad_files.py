"""Bad video files are read correctly, frame by frame, or refused by name; no frame is repeated, shifted or dropped."""

import http.server
import os
import resource
import struct
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from kinema.errors import UnreadableVideo
from kinema.video.container import TAG_OPTIONS
from kinema.video.read_options import Limits, ReadOptions
from kinema.video.source import count_frames, frame_range, read_gray, read_rgb

FRAMES = 120
MPEG4 = {"codec": "mpeg4", "options": {"g": "12", "bf": "0", "b": "4000000"}}
REORDERED = {"codec": "mpeg4", "options": {"g": "12", "bf": "2", "b_strategy": "0", "b": "4000000"}}
VP9 = {"codec": "libvpx-vp9", "options": {"g": "12", "b": "4000000", "deadline": "realtime", "cpu-used": "8"}}
FAST_START = {"movflags": "+faststart"}
WAYS_TO_MAKE = {
    "mp4": {},
    "front.mp4": {},
    "mkv": {},
    "avi": MPEG4,
    "reordered.avi": REORDERED,
    "webm": VP9,
    "ts": {},
}


@pytest.fixture(scope="module")
def make(tmp_path_factory, write_video, stamp):
    """Return the bytes of a video of 120 frames that show their numbers, in a container.

    With noise, so that the pictures are most of the file, and damage in its middle hits pictures.
    """
    noise = np.random.default_rng(0).integers(0, 80, (FRAMES, 48, 64, 3), dtype=np.uint8)
    pictures = [stamp(number) // 255 * 175 + noise[number] for number in range(FRAMES)]
    folder = tmp_path_factory.mktemp("whole")
    made = {}

    def content(kind):
        if kind not in made:
            path = folder / f"whole.{kind}"
            write_video(path, pictures, **WAYS_TO_MAKE[kind])
            made[kind] = with_index_in_front(path) if kind == "front.mp4" else path.read_bytes()
        return made[kind]

    return content


@pytest.fixture
def write(tmp_path):
    """Write content to a file and return its path."""

    def file(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return file


@pytest.fixture
def shown(read_stamps):
    """Return the numbers that frames show, or the message of the error."""

    def numbers(path, indices):
        try:
            return read_stamps(read_rgb(path, list(indices)))
        except UnreadableVideo as error:
            return named(path, error)

    return numbers


def with_index_in_front(path):
    target_path = path.with_name(f"front of {path.name}")
    with av.open(str(path)) as source, av.open(str(target_path), "w", options=FAST_START) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    content = target_path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    return content


def assert_refused(path, word=""):
    """Check that every function names the path and the word."""
    for read in (
        count_frames,
        lambda path: read_rgb(path, [0]),
        lambda path: read_gray(path, [0, 100]),
        lambda path: frame_range(path, 0.0, 1.0),
    ):
        with pytest.raises(UnreadableVideo) as refused:
            read(path)
        assert refused.value.path == str(path)
        assert str(path) in str(refused.value)
        assert word in str(refused.value)


def named(path, error):
    assert str(path) in str(error)
    return str(error)


def assert_honest(path, shown, ragged=0):
    """Check that the file is refused, or has as many frames as it counts, each at its own number.

    Args:
        ragged: of so many frames at the end, some may be missing: they are stored after those that refer to them.
    """
    try:
        count = count_frames(path)
    except UnreadableVideo as error:
        named(path, error)
        return 0
    for indices in ([*range(count)], [count - 1], sorted({0, count // 2, count - 1})):
        read = shown(path, indices)
        for number, index in zip(read, indices, strict=True):
            assert number == index or (index >= count - ragged and index < number < FRAMES), (indices, read)
    assert isinstance(shown(path, [count]), str)
    return count


# -- no video at all ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "txt", "ans", "yuv", "rgb", "mjpeg"])
@pytest.mark.parametrize(
    "content",
    [b"", b"this is no video\n" * 200, b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 20, bytes(4000)],
    ids=["empty", "text", "html", "zeros"],
)
def test_what_is_no_video_is_refused_whatever_its_name(write, suffix, content):
    """FFmpeg renders text files with some suffixes as a terminal would."""
    assert_refused(write(f"file.{suffix}", content))


def test_a_video_without_its_index_is_refused(write, make):
    content = make("mp4")
    assert_refused(write("torn.mp4", content[: content.index(b"moov") - 4]), "not a readable video")


@pytest.mark.parametrize(("name", "codec"), [("sound.mp4", "aac"), ("sound.mkv", "aac"), ("sound.wav", "pcm_s16le")])
def test_sound_alone_is_refused(tmp_path, write_sound, name, codec):
    assert_refused(write_sound(tmp_path / name, codec=codec), "has no video stream")


@pytest.mark.parametrize("suffix", ["mp4", "png", "jpg"])
def test_a_picture_is_no_video_of_one_frame(tmp_path, stamp, suffix):
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(stamp(7)).save(path, format="PNG")
    assert_refused(str(path))


# -- torn files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", WAYS_TO_MAKE)
def test_a_torn_file_has_the_frames_that_are_there_and_no_more(write, make, shown, kind, share):
    """A partial last frame, which the decoder completes from the frame before, does not count."""
    content = make(kind)
    path = write(f"torn.{kind}", content[: round(share * len(content))])
    count = assert_honest(path, shown, ragged=0 if kind in ("avi", "webm") else 3)
    assert count < FRAMES
    assert isinstance(shown(path, [FRAMES - 1]), str)


@pytest.mark.parametrize("indices", [[0, 119], [0, 40, 80, 119], [118, 119]], ids=str)
def test_an_index_in_front_that_promises_more_than_there_is_is_not_believed(write, make, shown, indices):
    content = make("front.mp4")
    path = write("front.mp4", content[: len(content) // 2])
    with av.open(path) as container:
        assert container.streams.video[0].frames == FRAMES
    assert path in shown(path, indices)


def test_a_segment_that_ends_behind_the_file_is_an_error_with_the_place_of_the_end(write, make, raises):
    path = write("video.mkv", make("mkv"))
    with raises(UnreadableVideo, " 4.8", "9.0 s", path="video.mkv"):
        frame_range(path, 2.0, 9.0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [kind for kind in WAYS_TO_MAKE if kind != "mp4"])
def test_damage_in_the_middle_moves_no_other_frame(write, make, shown, kind, seed):
    """Damaged frames may show anything or be refused; those before, and after the next keyframe, are intact.

    A container without an index of its frames cannot know that some were lost: it has fewer, and its count says so.
    """
    content = bytearray(make(kind))
    middle = round(len(content) * (0.4 + 0.07 * seed))
    content[middle : middle + 600] = np.random.default_rng(seed).bytes(600)
    path = write(f"damaged.{kind}", content)
    try:
        lost = FRAMES - count_frames(path)
    except UnreadableVideo as error:
        named(path, error)
        return
    assert lost == 0 or (lost > 0 and kind in ("mkv", "webm", "ts"))
    for indices in ([0, 5, 10], [0, 20, 90, 110], [110], [*range(FRAMES - lost)]):
        read = shown(path, indices)
        if isinstance(read, list):
            untouched = [index for index in indices if index < 24 or index >= 96]
            got = [number for number, index in zip(read, indices, strict=True) if index in untouched]
            assert got == [index if index < 24 else index + lost for index in untouched]


@pytest.mark.parametrize("what", ["picture", "entry of the index", "picture and its place"])
def test_an_avi_that_lost_something_is_refused_or_read_under_the_right_numbers(write, make, shown, what):
    """Decoding in order does not notice a lost frame, and seeking trusts the index: one would be off by a frame."""
    content = bytearray(make("avi"))
    index = content.rindex(b"idx1")
    place = content.index(b"00dc", content.index(b"00dc", index // 2) + 5000)  # no keyframe
    if what == "picture":
        content[place : place + 4] = b"JUNK"
    elif what == "picture and its place":
        del content[place : content.index(b"00dc", place + 4)]
    else:
        content[index + 8 + 16 * 116 : index + 8 + 16 * 117] = bytes(16)
    path = write("damaged.avi", content)
    for indices in ([*range(0, 112, 16), 116], [0, 116], [116], [20, 70], [70], [*range(62, 72)]):
        numbers = shown(path, indices)
        assert isinstance(numbers, str) or numbers == indices


# -- names, and what names lead to -------------------------------------------------------------------------------------


NAMES = [
    "a b.mp4",
    "@ ( ! ' [x] & ; $HOME `x` {0}.mp4",
    "take%03d.mp4",
    "12:30:01.mp4",
    "concat:other.mp4",
    "subfile,,start,0,end,0,,:other.mp4",
    "file:other.mp4",
    "http:other.mp4",
    "#1.mp4",
    "what?.mp4",
    "-i.mp4",
    "*.mp4",
    "a|b.mp4",
    'quoted".mp4',
    "back\\slash.mp4",
    "line\nbreak.mp4",
    "tür 動作 \N{LATIN SMALL LETTER U}\N{COMBINING DIAERESIS}.mp4",
    os.fsdecode(b"latin-1 \xfc \xff.mp4"),
    "no suffix",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("place", ["here", "from the root"])
def test_a_name_is_a_name_and_no_command(tmp_path, monkeypatch, write_video, write, make, stamp, shown, name, place):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "other.mp4", [stamp(200)] * 130)
    path = write(name, make("mp4"))
    path = name if place == "here" else path
    assert count_frames(path) == FRAMES
    assert shown(path, [0, 3, 110]) == [0, 3, 110]


def test_a_pattern_of_picture_names_opens_no_other_picture(tmp_path, monkeypatch, stamp):
    monkeypatch.chdir(tmp_path)
    for name in ("take001.png", "take002.png", "take%03d.png"):
        Image.fromarray(stamp(1)).save(name)
    assert_refused("take%03d.png")


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.txt", "list.ffconcat", "list.sdp"])
def test_a_playlist_opens_no_other_file(tmp_path, monkeypatch, write, make, name):
    monkeypatch.chdir(tmp_path)
    write("part.ts", make("ts"))
    write("part.mp4", make("mp4"))
    for content in (
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:4.8,\npart.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile part.mp4\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
    ):
        assert_refused(write(name, content))


def test_a_playlist_asks_no_server(write):
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/part.ts"
        assert_refused(write("list.m3u8", f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:4.8,\n{url}\n#EXT-X-ENDLIST\n"))
        assert_refused(write("list.ffconcat", f"ffconcat version 1.0\nfile '{url}'\n"))
        server.shutdown()
        thread.join()
    assert asked == []


@pytest.mark.parametrize(("kind", "name"), [("mp4", "video.avi"), ("avi", "video.mp4"), ("webm", "video.mp4")])
def test_a_wrong_suffix_changes_nothing(write, make, shown, kind, name):
    path = write(name, make(kind))
    assert count_frames(path) == FRAMES
    assert shown(path, [0, 50, 119]) == [0, 50, 119]


# -- numbers in the file that are wrong or missing ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["webm", "mkv", "ts"])
def test_a_count_that_is_not_announced_is_counted(write, make, shown, kind):
    path = write(f"video.{kind}", make(kind))
    with av.open(path) as container:
        assert container.streams.video[0].frames == 0
    assert assert_honest(path, shown) == FRAMES


@pytest.mark.parametrize("announced", [0, 1, FRAMES + 1, 10 * FRAMES, 2**31 - 1])
@pytest.mark.parametrize("kind", ["avi", "reordered.avi"])
def test_a_count_that_is_announced_wrongly_is_not_believed(write, make, shown, kind, announced):
    content = bytearray(make(kind))
    assert struct.unpack_from("<I", content, content.index(b"avih") + 8 + 16) == (FRAMES,)
    struct.pack_into("<I", content, content.index(b"avih") + 8 + 16, announced)
    struct.pack_into("<I", content, content.index(b"strh") + 8 + 32, announced)
    path = write("video.avi", content)
    with av.open(path) as container:
        assert container.streams.video[0].frames == announced
    assert assert_honest(path, shown) == FRAMES


def test_an_index_that_is_not_there_is_not_missed(write, make, shown):
    content = make("avi")
    path = write("video.avi", content[: content.rindex(b"idx1")])
    assert assert_honest(path, shown) == FRAMES


def test_seconds_follow_stamps_where_the_rate_lies(tmp_path, write_video, stamp, shown):
    """Half of the frames lie in the first second, the others half a second apart."""
    times = [n / 20 for n in range(20)] + [1 + n / 2 for n in range(20)]
    path = write_video(tmp_path / "varies.mp4", [stamp(n) for n in range(40)], times=times)
    with av.open(path) as container:
        rate = float(container.streams.video[0].average_rate)
    for start, stop in [(0.0, 0.5), (0.5, 1.0), (1.0, 3.0), (7.9, 10.6)]:
        wanted = [n for n, time in enumerate(times) if start <= time < stop]
        assert (round(start * rate), round(stop * rate)) != (wanted[0], wanted[-1] + 1)
        first, last = frame_range(path, start, stop)
        assert shown(path, range(first, last)) == wanted


def test_a_tag_in_no_encoding_is_no_reason_to_refuse(write, tmp_path, write_video, stamp, shown):
    with av.open(write_video(tmp_path / "plain.mkv", [stamp(n) for n in range(20)])) as source:
        path = tmp_path / "tagged.mkv"
        with av.open(str(path), "w") as target:
            target.metadata["title"] = "Xitle of umlauts"
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
    path = write("broken tag.mkv", path.read_bytes().replace(b"Xitle", b"\xff\xfe\xe4le"))
    if TAG_OPTIONS:
        with pytest.raises(UnicodeDecodeError):
            av.open(path)
    assert assert_honest(path, shown) == 20


@pytest.mark.parametrize("kind", ["h264", "m4v"])
def test_a_bare_stream_without_stamps_is_read_in_order(tmp_path, write_video, stamp, shown, kind):
    path = write_video(
        tmp_path / f"bare.{kind}", [stamp(n) for n in range(90)], **({} if kind == "h264" else REORDERED)
    )
    assert assert_honest(path, shown) == 90


def test_a_bare_stream_has_no_seconds(tmp_path, write_video, stamp, raises):
    path = write_video(tmp_path / "bare.h264", [stamp(n) for n in range(30)])
    with raises(UnreadableVideo, "time stamps", path="bare.h264"):
        frame_range(path, 0.0, 1.0)


def test_frames_that_all_last_no_time_are_all_there(tmp_path, write_video, stamp, shown):
    """QuickTime: every duration in the table of time to sample is 0."""
    path = Path(write_video(tmp_path / "still.mp4", [stamp(n) for n in range(60)], **MPEG4))
    content = bytearray(path.read_bytes())
    table = content.index(b"stts") + 8
    assert struct.unpack_from(">2I", content, table) == (1, 60)
    struct.pack_into(">I", content, table + 8, 0)
    path.write_bytes(content)
    assert assert_honest(str(path), shown) == 60


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi", "webm", "ts"])
def test_one_frame_only_is_one_frame(tmp_path, write_video, stamp, shown, kind):
    path = write_video(tmp_path / f"one.{kind}", [stamp(77)], **WAYS_TO_MAKE[kind])
    assert count_frames(path) == 1
    assert shown(path, [0, 0]) == [77, 77]
    assert isinstance(shown(path, [1]), str)


# -- the picture -------------------------------------------------------------------------------------------------------


# The first two rows of a QuickTime display matrix: where the stored picture's x and y axes point to on the screen.
TURNS = {
    "90": ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    "180": ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    "270": ((0, -1, 1, 0), lambda picture: np.rot90(picture, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda picture: picture[::-1]),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda picture: picture[::-1, ::-1].swapaxes(0, 1)),
}


@pytest.mark.parametrize("turn", TURNS)
def test_what_a_camera_says_of_its_hold_is_followed(tmp_path, write_video, turn):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:12, :24] = 255  # no turn and no mirror leaves it as it is
    path = Path(write_video(tmp_path / "turned.mp4", [picture] * 3))
    (a, b, c, d), expected = TURNS[turn]
    content = bytearray(path.read_bytes())
    struct.pack_into(
        ">9i", content, content.index(b"tkhd") + 44, a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30
    )
    path.write_bytes(content)
    for read in (read_rgb(str(path), [0, 2]), read_gray(str(path), [0, 2])[..., None]):
        assert read[1].shape[:2] == expected(picture).shape[:2]
        assert np.abs(read[1].astype(int) - expected(picture)).mean() < 8


def test_more_pixels_than_the_limit_are_refused_by_their_number(write, make, raises):
    path, few = write("video.mp4", make("mp4")), ReadOptions(limits=Limits(pixels=64 * 48 - 1))
    for read in (lambda: count_frames(path, few), lambda: read_rgb(path, [0], few), lambda: read_gray(path, [90], few)):
        with raises(UnreadableVideo, "64 x 48", "3,071", path="video.mp4", field="pixels"):
            read()


def test_a_size_that_is_announced_without_a_picture_behind_it_costs_no_memory(write, tmp_path, write_video, stamp):
    """Motion JPEG whose header asks for 16000 x 16000 pixels, 0.8 GB a frame, in a file of a few kilobytes."""
    content = bytearray(
        Path(
            write_video(
                tmp_path / "small.avi", [stamp(1)] * 3, codec="mjpeg", pixel_format="yuvj420p", options={"qscale": "2"}
            )
        ).read_bytes()
    )
    for place in [i for i in range(len(content) - 1) if content[i : i + 2] == b"\xff\xc0"]:
        struct.pack_into(">2H", content, place + 5, 16000, 16000)
    struct.pack_into("<2I", content, content.index(b"strf") + 12, 16000, 16000)
    path = write("huge.avi", content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_size_that_changes_on_the_way_is_refused_by_its_frame(tmp_path, write_video, stamp, shown, write, raises):
    small = Path(write_video(tmp_path / "small.h264", [stamp(n) for n in range(40)]))
    large = Path(write_video(tmp_path / "large.h264", [stamp(n).repeat(2, 0).repeat(2, 1) for n in range(40)]))
    path = write("changes.h264", small.read_bytes() + large.read_bytes())
    assert shown(path, [0, 20, 35]) == [0, 20, 35]
    with raises(UnreadableVideo, "64 x 48 to 128 x 96", path="changes.h264"):
        read_rgb(path, [0, 20, 60])


# -- real files --------------------------------------------------------------------------------------------------------


def test_real_files_announce_what_they_do_not_hold(real_data, raises):
    (path,) = (real_data / "format_samples").rglob("hmdb51_Turnk*.avi")
    with av.open(str(path), **TAG_OPTIONS) as container:
        announced = container.streams.video[0].frames
    assert count_frames(str(path)) == announced - 1
    assert read_rgb(str(path), [announced - 2]).shape[0] == 1
    with raises(UnreadableVideo, path=path):
        read_rgb(str(path), [announced - 1])


def test_real_files_with_difficult_names_are_all_counted(real_data):
    names = [p for p in (real_data / "jhmdb").rglob("*.mp4") if set(p.name) & set("@(!'&[")]
    assert len(names) > 10
    for path in names[:25]:
        count = count_frames(str(path))
        assert 15 <= count <= 40
        assert read_rgb(str(path), [count - 1]).shape == (1, 120, 160, 3)

"""Field-coded H.264 and MPEG-2: two packets, or one, are one frame. No encoder here writes them, so the tests do."""

from fractions import Fraction
from itertools import chain

import av
import pytest

from kinema.curation.inspect import inspect
from kinema.video.source import count_frames, frame_range, open_source, read_gray

WIDTH, HEIGHT = 32, 64
FRAMES, GOP = 20, 6
FIRST_LEVEL = 40
"""Stored brightness of the first frame; each frame is one level brighter."""
BLOCKS = (WIDTH // 16) * (HEIGHT // 32)
"""Macroblocks per field."""
DC_SIZES = ("100", "00", "01", "101", "110", "1110", "11110", "111110", "1111110")
"""Codes of the size of a difference of brightness in MPEG-2."""


class Bits:
    """Writer of bits: fixed numbers, Exp-Golomb numbers and codes."""

    def __init__(self):
        self.text = ""

    def u(self, count, number):
        self.text += f"{number:0{count}b}" if count else ""
        return self

    def golomb(self, *numbers):
        for number in numbers:
            self.u(2 * (number + 1).bit_length() - 1, number + 1)
        return self

    def code(self, text):
        self.text += text
        return self

    def align(self):
        self.text += "0" * (-len(self.text) % 8)
        return self

    def data(self):
        self.align()
        return bytes(int(self.text[place : place + 8], 2) for place in range(0, len(self.text), 8))


def h264_unit(header, bits):
    payload = bits.u(1, 1).data()
    for after in (1, 2, 3):  # bytes that prevent start codes
        payload = payload.replace(b"\0\0" + bytes([after]), b"\0\0\3" + bytes([after]))
    return b"\0\0\0\1" + bytes([header]) + payload


def h264_field(number, bottom):
    """Return a field whose macroblocks are stored as they are (I_PCM); parameter sets stand before a keyframe."""
    is_key = number % GOP == 0
    head = b""
    if is_key and not bottom:
        sequence = Bits().u(8, 77).u(8, 0).u(8, 30).golomb(0, 0, 2, 1).u(1, 0).golomb(WIDTH // 16 - 1, HEIGHT // 32 - 1)
        picture = Bits().golomb(0, 0).u(2, 0).golomb(0, 0, 0).u(3, 0).golomb(0, 0, 0).u(1, 1).u(2, 0)
        head = h264_unit(0x67, sequence.u(5, 0b00100)) + h264_unit(0x68, picture)
    slices = Bits().golomb(0, 7, 0).u(4, number % GOP).u(1, 1).u(1, bottom)
    if is_key and not bottom:
        slices.golomb(number // GOP % 2).u(2, 0)
    else:
        slices.u(1, 0)
    slices.golomb(0, 1)
    for _ in range(BLOCKS):
        slices.golomb(25).align()
        slices.text += f"{FIRST_LEVEL + number:08b}" * 256 + f"{128:08b}" * 128
    return head + h264_unit(0x65 if is_key and not bottom else 0x61, slices)


def mpeg2_field(number, bottom):
    """Return a field of intra macroblocks with one brightness; sequence and group stand before a keyframe."""
    data = b""
    if number % GOP == 0 and not bottom:
        sequence = Bits().u(12, WIDTH).u(12, HEIGHT).u(4, 1).u(4, 3).u(18, 10000).u(1, 1).u(13, 20 << 3)
        extension = Bits().u(4, 1).u(8, 0x48).u(1, 0).u(2, 1).u(16, 0).u(1, 1).u(16, 0)
        data += b"\0\0\1\xb3" + sequence.data() + b"\0\0\1\xb5" + extension.data()
        data += b"\0\0\1\xb8" + Bits().u(25, 1 << 12).u(2, 2).data()
    picture = Bits().u(10, number % GOP).u(3, 1).u(16, 0xFFFF).u(1, 0)
    coding = Bits().u(4, 8).u(16, 0xFFFF).u(2, 0).u(2, 1 + bottom).u(10, 0)
    data += b"\0\0\1\0" + picture.data() + b"\0\0\1\xb5" + coding.data()
    for row in range(HEIGHT // 32):
        bits = Bits().u(5, 2).u(1, 0)
        for block in range(WIDTH // 16):
            bits.code("11")
            for part in range(4):
                change = FIRST_LEVEL + number - 128 if block == part == 0 else 0
                size = abs(change).bit_length()
                bits.code(DC_SIZES[size]).u(size, change if change >= 0 else change + (1 << size) - 1).code("10")
            bits.code("0010" * 2)
        data += b"\0\0\1" + bytes([row + 1]) + bits.data()
    return data


FIELDS = {"h264": h264_field, "mpegvideo": mpeg2_field}


@pytest.fixture(scope="module")
def write_fields(tmp_path_factory):
    """Return a function that writes a field-coded video with a packet per field or per frame."""
    folder = tmp_path_factory.mktemp("fields")

    def write(form, suffix, *, joined):
        pairs = [[FIELDS[form](number, bottom) for bottom in (0, 1)] for number in range(FRAMES)]
        bare = folder / f"bare.{form}"
        bare.write_bytes(b"".join(chain.from_iterable(pairs)))
        path = folder / f"{form}{joined}.{suffix}"
        step = 2 if joined else 1
        units = [b"".join(pair) for pair in pairs] if joined else list(chain.from_iterable(pairs))
        with av.open(str(bare), format=form) as template, av.open(str(path), "w") as container:
            stream = container.add_stream_from_template(template.streams.video[0])
            for place, unit in enumerate(units):
                packet = av.Packet(unit)
                packet.stream, packet.time_base = stream, Fraction(1, 50)
                packet.pts = packet.dts = step * place
                packet.duration = step
                packet.is_keyframe = step * place % (2 * GOP) == 0
                container.mux(packet)
        return str(path)

    return write


def levels(path, numbers):
    """Return the number of each frame, by its brightness."""
    return [round(picture.mean() * 219 / 255 + 16 - FIRST_LEVEL) for picture in read_gray(path, numbers)]


@pytest.mark.parametrize("joined", [False, True], ids=["packet per field", "packet per frame"])
@pytest.mark.parametrize(
    ("form", "suffix"),
    [("h264", "mkv"), ("h264", "mp4"), ("h264", "ts"), ("mpegvideo", "mkv"), ("mpegvideo", "mpg"), ("mpegvideo", "ts")],
)
def test_two_fields_are_one_frame(write_fields, form, suffix, joined):
    path = write_fields(form, suffix, joined=joined)
    assert count_frames(path) == FRAMES
    with open_source(path) as source:
        assert len(source.timeline.stamps) == FRAMES
    for numbers in ([0, 1, 2], [7], [6, 13], list(range(FRAMES)), [FRAMES - 1]):
        assert levels(path, numbers) == numbers
    assert frame_range(path, 0.2, 0.4) == (5, 10)


def test_check_counts_frames_rather_than_fields(write_fields):
    inspection = inspect(write_fields("h264", "mov", joined=False), "rgb")
    assert inspection.frames == inspection.announced_frames == FRAMES
    assert inspection.rate == pytest.approx(25)
    assert not inspection.problem


def test_an_interlaced_frame_in_one_packet_stays_one_frame(tmp_path, write_video, stamp, read_stamps):
    from kinema.video.source import read_rgb

    options = {"x264-params": "interlaced=1:bff=0", "g": "12", "crf": "12"}
    path = write_video(tmp_path / "mbaff.mkv", [stamp(number) for number in range(20)], options=options)
    assert count_frames(path) == 20
    assert read_stamps(read_rgb(path, [3, 9, 19])) == [3, 9, 19]

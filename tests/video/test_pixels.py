"""Pixels of video files: their displayed shape, transparency, HDR colors and interlaced lines."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.filter import Graph
from PIL import Image

from kinema.errors import ConfigError, UnreadableVideo
from kinema.video.pixels import SQUARE, PixelAspect, over_black
from kinema.video.read_options import ReadOptions
from kinema.video.source import open_source, read_gray, read_rgb

SAR = Fraction(64, 45)
GREEN = (30, 200, 90)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes frames as they are given, with settings of the codec."""

    def write_frames(name, frames, *, codec="libx264", pixel_format="yuv420p", options=None, rotation=0, **settings):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25, options=options or {})
            stream.height, stream.width, stream.pix_fmt = frames[0].height, frames[0].width, pixel_format
            for field, value in settings.items():
                setattr(stream.codec_context, field, value)
            if rotation:
                stream.set_display_rotation(rotation)
            for number, frame in enumerate(frames):
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return str(path)

    return write_frames


def pictures(height=58, width=72, count=8):
    """Return frames of a disc that fills the displayed height, on a dark ground."""
    rows, columns = np.mgrid[:height, :width]
    frames = []
    for number in range(count):
        image = np.full((height, width, 3), 20 + number, np.uint8)
        x, y = (columns + 0.5 - width / 2) * float(SAR), rows + 0.5 - height / 2
        image[np.hypot(x, y) < 0.4 * height] = (230, 60, 40)
        frames.append(av.VideoFrame.from_ndarray(image, format="rgb24"))
    return frames


# -- displayed shape ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.mov", "mpeg4"),
        ("a.avi", "mpeg4"),
        ("a.ts", "libx264"),
        ("a.mpg", "mpeg2video"),
        ("a.h264", "libx264"),
    ],
)
def test_the_displayed_shape_is_known_in_every_container(write, name, codec):
    path = write(name, pictures(), codec=codec, sample_aspect_ratio=SAR)
    with open_source(path) as source:
        width, height = source.size
        assert height == 58
        assert abs(width - 102.4) <= 1.5  # MPEG-2 rounds the ratio
        assert source.read_rgb([3]).shape == (1, 58, 72, 3)
        assert source.pixel_aspect.width == pytest.approx(64 / 45, abs=0.02)
        assert source.pixel_aspect.height == 1
        assert [remark.kind for remark in source.remarks] == ["non-square pixels"]
        assert f"displayed as {width} x 58" in source.remarks[0].detail


def test_rotation_turns_the_pixels_too(write):
    path = write("a.mp4", pictures(), sample_aspect_ratio=SAR, rotation=90)
    for read_first in (False, True):
        with open_source(path) as source:
            if read_first:
                assert source.read_rgb([0]).shape == (1, 72, 58, 3)
            assert source.pixel_aspect == PixelAspect(1.0, 64 / 45)
            assert source.size == (58, 102)


@pytest.mark.parametrize("ratio", [None, Fraction(1), Fraction(640, 639), Fraction(1, 1000), Fraction(200, 1)])
def test_unknown_nearly_square_and_absurd_pixels_are_square(write, ratio):
    settings = {} if ratio is None else {"sample_aspect_ratio": ratio}
    with open_source(write("a.mp4", pictures(), **settings)) as source:
        assert source.pixel_aspect == SQUARE
        assert source.size == (72, 58)
        assert source.remarks == ()


def test_a_sandbox_knows_the_shape(write):
    path = write("a.mp4", pictures(), sample_aspect_ratio=SAR)
    for read_first in (False, True):
        with open_source(path, ReadOptions(isolation="process")) as source:
            if read_first:
                source.read_rgb([1, 2])
            assert source.pixel_aspect == PixelAspect(64 / 45, 1.0)
            assert source.size == (102, 58)
            assert [remark.kind for remark in source.remarks] == ["non-square pixels"]


# -- transparency ------------------------------------------------------------------------------------------------------


def half_transparent(alpha, pixel_format, count=3, size=32):
    """Return green frames whose right half has this alpha."""
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[..., :3], rgba[..., 3] = GREEN, 255
    rgba[:, size // 2 :, 3] = alpha
    return [av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pixel_format) for _ in range(count)]


@pytest.mark.parametrize("alpha", [0, 128])
@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "png", "rgba"),
        ("a.mov", "png", "rgba64be"),
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.avi", "utvideo", "gbrap"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.mkv", "ffv1", "yuva420p"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.webm", "libvpx", "yuva420p"),
    ],
)
def test_transparent_pixels_are_put_on_black(write, name, codec, pixel_format, alpha):
    options = {"qtrle": {}, "libvpx": {"auto-alt-ref": "0"}, "prores_ks": {"profile": "4444"}}.get(codec, {})
    path = write(name, half_transparent(alpha, pixel_format), codec=codec, pixel_format=pixel_format, options=options)
    rgb = read_rgb(path, [0, 2]).astype(int)
    assert np.abs(rgb[:, 4:28, 3:12] - GREEN).max() <= 4
    assert np.abs(rgb[:, 4:28, 20:28] - np.array(GREEN) * alpha / 255).max() <= 4
    with open_source(path) as source:
        assert [remark.kind for remark in source.remarks] == ["transparency"]
        assert source.num_frames == 3


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [("a.mkv", "ffv1", "yuva420p"), ("a.mov", "qtrle", "argb"), ("a.webm", "libvpx-vp9", "yuva420p")],
)
def test_opaque_frames_are_as_without_transparency(write, name, codec, pixel_format):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (32, 48, 4), np.uint8)
    noise[..., 3] = 255
    frames = [av.VideoFrame.from_ndarray(noise, format="rgba").reformat(format=pixel_format) for _ in range(3)]
    path = write(name, frames, codec=codec, pixel_format=pixel_format)
    with av.open(path) as container:
        expected = next(container.decode(video=0)).reformat(format="rgb24").to_ndarray()
    np.testing.assert_array_equal(read_rgb(path, [0])[0], expected)
    with open_source(path) as source:
        assert source.remarks == ()


def test_the_unused_channel_of_a_bitmap_in_avi_is_no_transparency(write):
    unused = np.dstack([np.full((32, 32, 3), GREEN, np.uint8), np.zeros((32, 32), np.uint8)])
    frames = [av.VideoFrame.from_ndarray(unused, format="rgba").reformat(format="bgra") for _ in range(2)]
    path = write("a.avi", frames, codec="rawvideo", pixel_format="bgra")
    assert (read_rgb(path, [0])[0] == GREEN).all()
    with open_source(path) as source:
        assert source.remarks == ()
    used = read_rgb(write("b.avi", half_transparent(0, "bgra"), codec="rawvideo", pixel_format="bgra"), [0])[0]
    assert (used[:, :16] == GREEN).all()
    assert not used[:, 16:].any()


def test_a_transparent_gif_is_put_on_black(tmp_path):
    frames = []
    for number in range(3):
        image = Image.new("RGBA", (32, 32), (*GREEN, 255))
        image.paste((0, 0, 0, 0), (16, 0, 32, 32))
        image.putpixel((number, 0), (255, 255, 255, 255))
        frames.append(image)
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, disposal=2)
    rgb = read_rgb(str(path), [0])[0].astype(int)
    assert np.abs(rgb[8:, :16] - GREEN).max() <= 8
    assert (rgb[:, 17:] == 0).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_images_are_put_on_black(tmp_path, mode):
    gray = round(0.299 * GREEN[0] + 0.587 * GREEN[1] + 0.114 * GREEN[2])
    for number in range(3):
        image = Image.new("RGBA", (32, 24), (*GREEN, 255))
        image.paste((*GREEN, 0 if mode == "P" else 128), (16, 0, 32, 24))
        if mode == "P":
            image = Image.new("P", (32, 24), 1)
            image.putpalette([0, 255, 0, *GREEN])
            image.paste(0, (16, 0, 32, 24))
            image.info["transparency"] = 0
        image = image if mode == "P" else image.convert(mode)
        image.save(tmp_path / f"{number}.png", **({"transparency": 0} if mode == "P" else {}))
    rgb = read_rgb(str(tmp_path), [1])[0].astype(int)
    color = (gray,) * 3 if mode == "LA" else GREEN
    assert np.abs(rgb[:, :16] - color).max() <= 1
    assert np.abs(rgb[:, 16:] - np.array(color) * (0 if mode == "P" else 128 / 255)).max() <= 1
    with open_source(str(tmp_path)) as source:
        assert [remark.kind for remark in source.remarks] == ["transparency"]


def test_depth_ignores_transparency(tmp_path):
    for number in range(2):
        Image.new("LA", (32, 24), (77, 0)).save(tmp_path / f"{number}.png")
    assert (read_gray(str(tmp_path), [0]) == 77).all()


def test_composition_rounds_to_nearest():
    levels = np.arange(256, dtype=np.uint8)
    rgb, alpha = np.meshgrid(levels, levels)
    expected = np.rint(rgb.astype(float) * alpha / 255)
    np.testing.assert_array_equal(over_black(np.dstack([rgb] * 3), alpha[..., None])[..., 1], expected)


# -- HDR ---------------------------------------------------------------------------------------------------------------

PQ, HLG, BT2020 = 16, 18, 9
COLORS = [(255, 255, 255), (128, 128, 128), (30, 30, 30), (200, 150, 120), (90, 60, 40), (40, 90, 160)]
"""Colors in BT.709, of which the three after the grays are those of skin and sky."""


def hdr_frames(transfer, count=2):
    """Return frames of patches whose light, at a white of 203 cd/m2, is that of `COLORS` (ITU-R BT.2408)."""
    light = (np.array(COLORS) / 255) ** 2.4  # shown by an ordinary display
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    nits = 203 * light @ to_2020.T
    if transfer == PQ:
        power = (nits / 10000) ** 0.1593017578125
        signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:
        shown = nits / 1000  # of a display of 1,000 cd/m2, whose gamma is 1.2
        luminance = shown @ np.array([0.2627, 0.678, 0.0593])
        scene = shown * np.where(luminance > 0, luminance, 1)[:, None] ** (1 / 1.2 - 1)
        signal = np.where(
            scene <= 1 / 12,
            np.sqrt(3 * scene),
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
        )
    image = np.rint(np.repeat(np.repeat(signal[None], 32, 0), 16, 1) * 65535).astype(np.uint16)
    return [av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb48le") for _ in range(count)]


@pytest.mark.parametrize(
    ("transfer", "name"),
    [(PQ, "PQ"), pytest.param(HLG, "HLG", marks=pytest.mark.long)],  # swscale takes seconds
)
def test_hdr_is_read_with_the_colors_of_ordinary_video(write, transfer, name):
    frames = []
    for frame in hdr_frames(transfer):
        stored = frame.reformat(format="yuv444p10le", dst_colorspace=9, dst_color_range=1)
        stored.color_trc, stored.color_primaries, stored.colorspace = transfer, BT2020, 9
        frames.append(stored)
    tags = {"color_trc": transfer, "color_primaries": BT2020, "colorspace": 9, "color_range": 1}
    path = write("a.mkv", frames, codec="ffv1", pixel_format="yuv444p10le", **tags)
    patches = read_rgb(path, [0, 1])[1, 16, 8::16].astype(int)
    assert np.abs(patches - COLORS).max() <= 16, patches
    with open_source(path) as source:
        assert [remark.kind for remark in source.remarks] == ["HDR"]
        assert name in source.remarks[0].detail
        np.testing.assert_array_equal(next(source.iter_frames(range(1, 2), "rgb"))[16, 8::16], patches)


def test_wide_gamut_is_noted(write):
    path = write("a.mp4", pictures(), color_primaries=BT2020)
    with open_source(path) as source:
        assert [remark.kind for remark in source.remarks] == ["wide gamut"]


@pytest.mark.parametrize("matrix", [1, 5, 9])
@pytest.mark.parametrize("full_range", [False, True])
def test_colors_follow_the_tagged_matrix_and_range(write, matrix, full_range):
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    yuv = np.random.default_rng(matrix).integers(60, 190, (3, 8))
    planes = np.repeat(np.repeat(yuv[:, None], 32, 1), 8, 2).astype(np.uint8)
    frames = [av.VideoFrame.from_ndarray(planes, format="yuv444p") for _ in range(2)]
    color_range = 2 if full_range else 1
    for frame in frames:
        frame.colorspace, frame.color_range = matrix, color_range
    tags = {"colorspace": matrix, "color_range": color_range}
    path = write("a.mkv", frames, codec="ffv1", pixel_format="yuv444p", **tags)
    scale, offset, chroma = (255, 0, 255) if full_range else (219, 16, 224)
    y, u, v = (yuv[0] - offset) / scale, (yuv[1] - 128) / chroma, (yuv[2] - 128) / chroma
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    expected = 255 * np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1)
    assert np.abs(read_rgb(path, [0])[0, 16, 4::8] - np.clip(expected, 0, 255)).max() <= 1


# -- interlaced --------------------------------------------------------------------------------------------------------

SPATIAL = ReadOptions(deinterlace="spatial")


def interlaced_frames(count=24, height=48, width=64):
    """Return frames that are marked as interlaced, of a bar that moves from field to field."""
    graph = Graph()
    source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=Fraction(1, 25))
    sink = graph.add("buffersink")
    graph.link_nodes(source, graph.add("setfield", "tff"), sink).configure()
    frames = []
    for number in range(count):
        image = np.full((height, width, 3), 30, np.uint8)
        image[0::2, number : number + 12] = 220
        image[1::2, number + 10 : number + 22] = 220
        source.push(av.VideoFrame.from_ndarray(image, format="rgb24"))
        frames.append(sink.pull().reformat(format="yuv420p"))
    return frames


@pytest.fixture(params=[("a.mp4", "libx264"), ("a.mpg", "mpeg2video"), ("a.mov", "mpeg2video"), ("a.ts", "libx264")])
def interlaced(write, request):
    name, codec = request.param
    options = {"flags": "+ildct+ilme", "g": "6", "bf": "2"} | ({"x264-params": "tff=1"} if codec == "libx264" else {})
    return write(name, interlaced_frames(), codec=codec, options=options)


def combing(rgb):
    """Return how much neighboring lines differ, compared with lines of one field."""
    luma = rgb.astype(float).mean(-1)[..., 4:-4, :]
    return np.abs(np.diff(luma, axis=-2)).mean() / max(np.abs(luma[..., 2:, :] - luma[..., :-2, :]).mean(), 1.0)


def test_interlaced_frames_are_noted_and_deinterlaced_on_request(interlaced):
    with open_source(interlaced) as source:
        assert [remark.kind for remark in source.remarks] == ["interlaced"]
        combed = source.read_rgb(range(24))
    with open_source(interlaced, SPATIAL) as source:
        smooth = source.read_rgb(range(24))
    assert combing(combed) > 10 * combing(smooth)
    np.testing.assert_allclose(smooth[:, 12:36:2].astype(int), combed[:, 12:36:2].astype(int), atol=60)


def test_a_deinterlaced_frame_is_the_same_however_it_is_reached(interlaced):
    with open_source(interlaced, SPATIAL) as source:
        every = source.read_rgb(range(24))
        np.testing.assert_array_equal(np.stack(list(source.iter_frames(range(24), "rgb"))), every)
        for indices in ([23], [0], [5, 17], [11, 12, 13], [9]):
            np.testing.assert_array_equal(source.read_rgb(indices), every[indices])
    with open_source(interlaced, ReadOptions(deinterlace="spatial", isolation="process")) as source:
        np.testing.assert_array_equal(source.read_rgb([3, 20]), every[[3, 20]])


def test_progressive_frames_are_not_deinterlaced(write):
    path = write("a.mp4", pictures())
    np.testing.assert_array_equal(read_rgb(path, range(8), SPATIAL), read_rgb(path, range(8)))
    with open_source(path, SPATIAL) as source:
        assert source.remarks == ()


def test_torchcodec_cannot_deinterlace(raises):
    with raises(ConfigError, "torchcodec", field="deinterlace"):
        ReadOptions(backend="torchcodec", deinterlace="spatial")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory by Linux's /proc")
@pytest.mark.parametrize("part", ["color", "transparency"])
@pytest.mark.parametrize(
    ("codec", "sync", "size"),
    [("libvpx", b"\x9d\x01\x2a", b"\xff\x3f\xff\x3f"), ("libvpx-vp9", b"\x49\x83\x42", b"\xff\xff\xff\xff\xff")],
)
def test_a_transparent_frame_past_the_limit_takes_no_memory(write, codec, sync, size, part, raises):
    """The header of a frame announces 16,383 or 65,536 pixels a side; the container keeps 48 x 32."""

    def memory(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

    path = write(
        "a.webm",
        half_transparent(100, "yuva420p"),
        codec=codec,
        pixel_format="yuva420p",
        options={"auto-alt-ref": "0"},
    )
    content = Path(path).read_bytes()
    places = [place for place in range(len(content)) if content.startswith(sync, place)]
    place = places[part == "transparency"] + len(sync)
    Path(path).write_bytes(content[:place] + size + content[place + len(size) :])
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    with raises(UnreadableVideo, path=path):
        read_rgb(path, [0])
    assert memory("VmHWM") - before < 100

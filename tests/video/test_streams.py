"""The stream that is meant is read, whatever stands beside it, and its stored values are kept."""

from fractions import Fraction

import av
import numpy as np
import pytest

from kinema.curation.pack import pack
from kinema.data.manifest import Entry, write_manifest
from kinema.modality import DepthFacts
from kinema.video.encode import Encoding
from kinema.video.read_options import ReadOptions
from kinema.video.source import open_source, read_gray

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

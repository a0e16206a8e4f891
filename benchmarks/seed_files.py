"""Small valid files of every container, codec, pixel format and array format that can be written here.

`write_seeds` returns the contents of the files. `benchmarks/hostile_files.py` mutates them.
"""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy import ndarray
from PIL import Image
from scipy.io import savemat

FRAMES = 6
SIZE = (64, 48)
SIZES = {"h261": (176, 144), "h263": (176, 144), "dvvideo": (720, 576), "gxf": (720, 576)}
"""Width and height of codecs and containers that support few sizes."""

EVERY_CODEC = (
    "amv asv1 asv2 libsvtav1 cfhd cinepak cljr dvvideo ffv1 ffvhuff flashsv flv h261 h263 h263p huffyuv jpeg2000 "
    "jpegls libvpx libvpx-vp9 libx264 libx264rgb ljpeg magicyuv mjpeg mpeg1video mpeg2video mpeg4 msmpeg4 msmpeg4v2 "
    "msvideo1 png r10k r210 rawvideo rpza snow speedhq svq1 targa utvideo v210 v308 v408 v410 wmv1 wmv2 y41p yuv4 "
    "zlib dpx"
)
VIDEOS: Mapping[str, str] = {
    "3g2": "libx264 mpeg4",
    "3gp": "h263 libx264 mpeg4",
    "avi": f"{EVERY_CODEC} rawvideo/pal8 rawvideo/bgr24 rawvideo/gray rawvideo/gray16le rawvideo/rgb555le png/pal8 "
    "png/rgba png/gray16be huffyuv/bgra ffvhuff/gray16le utvideo/gbrap magicyuv/gbrap targa/bgra",
    "apng": "apng apng/rgba apng/pal8 apng/gray16be",
    "avif": "libsvtav1",
    "cpk": "cinepak",
    "dv": "dvvideo",
    "f4v": "libx264",
    "flv": "flv libx264 libx265 libsvtav1 libvpx-vp9 flashsv flashsv2",
    "gif": "gif gif/pal8 gif/gray",
    "gxf": "mpeg2video",
    "h261": "h261",
    "h263": "h263",
    "h264": "libx264",
    "hevc": "libx265",
    "ismv": "libx264 mpeg4",
    "ivf": "libsvtav1 libvpx libvpx-vp9",
    "m1v": "mpeg1video",
    "m2v": "mpeg2video",
    "m4v": "mpeg4",
    "mjpeg": "mjpeg",
    "mkv": "libsvtav1 libsvtav1/yuv420p10le ffv1 ffv1/gray ffv1/gray16le ffv1/gray10le ffv1/bgra ffv1/yuva420p "
    "ffv1/yuv444p16le ffv1/rgb48le jpeg2000 jpeg2000/gray16le libvpx libvpx/yuva420p libvpx-vp9 libvpx-vp9/yuva420p "
    "libvpx-vp9/gbrp libx264 libx264/gray libx264/yuv420p10le libx264/gray10le libx264/yuv444p libx265 "
    "libx265/yuv420p10le libx265/gray12le libx264rgb mjpeg mpeg1video mpeg2video mpeg4 msmpeg4 prores_ks rawvideo "
    "rawvideo/rgba snow",
    "mov": "cfhd cinepak dvvideo dxv gif h263 jpeg2000 libx264 libx265 magicyuv mjpeg mpeg2video mpeg4 png png/rgba "
    "prores_ks prores_ks/yuva444p10le qtrle qtrle/argb qtrle/gray r210 rpza smc svq1 targa tiff tiff/gray16le "
    "v210 v408 exr dpx rawvideo/rgb24",
    "mp4": "libsvtav1 ffv1 jpeg2000 libvpx-vp9 libx264 libx264/yuv420p10le libx265 libx265/yuv420p10le mjpeg "
    "mpeg1video mpeg2video mpeg4 png",
    "mpg": "mpeg1video mpeg2video mpeg4 libx264 libx265",
    "mxf": "ffv1 jpeg2000 libx264 mpeg2video prores_ks",
    "nut": "ffv1 ffvhuff huffyuv libx264 mpeg4 rawvideo rawvideo/pal8 utvideo snow",
    "obu": "libsvtav1",
    "ogv": "libvpx",
    "rm": "rv10 rv20",
    "roq": "roqvideo",
    "swf": "flv mjpeg",
    "ts": "libx264 libx265 mpeg1video mpeg2video mpeg4",
    "vob": "mpeg2video",
    "webm": "libsvtav1 libvpx libvpx/yuva420p libvpx-vp9 libvpx-vp9/yuva420p",
    "wmv": "msmpeg4 msmpeg4v2 wmv1 wmv2 libx264 mpeg4",
    "wtv": "libx264 mpeg2video mpeg4",
    "y4m": "rawvideo rawvideo/gray rawvideo/yuv444p",
}
"""Codecs by suffix of the container, some with a pixel format; without one, the first that the codec supports."""

FORMATS = {
    **{"mkv": "matroska", "mpg": "mpeg", "ogv": "ogg", "ts": "mpegts", "wmv": "asf", "y4m": "yuv4mpegpipe"},
    **{"cpk": "film_cpk", "m1v": "mpeg1video", "m2v": "mpeg2video"},
}
"""FFmpeg's names of the containers, where they are not the suffix."""

OPTIONS: Mapping[str, dict[str, str]] = {
    "libx264": {"preset": "ultrafast", "bf": "2", "g": "4", "threads": "1"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:keyint=4"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
    "libvpx": {"cpu-used": "8", "deadline": "realtime", "g": "4", "auto-alt-ref": "0"},
    "libvpx-vp9": {"cpu-used": "8", "deadline": "realtime", "g": "4", "auto-alt-ref": "0"},
    "mpeg2video": {"bf": "2", "g": "4"},
    "mpeg4": {"bf": "2", "g": "4"},
}
"""Fast encoding, with several keyframes and with frames in another order where the codec can."""

STRICT = frozenset({"a64multi", "dxv", "exr", "magicyuv", "snow", "svq1", "vc2"})


@dataclass(frozen=True, kw_only=True)
class SeedFile:
    """Small valid file, or folder of files.

    Attributes:
        form: Container or array format, as in the table of results.
        name: Codec, pixel format or layout.
        suffix: Suffix of the path; empty for a folder of images.
        files: Contents by name; a single one for a file.
        url: Form of the URL to read, with `{path}`; `{path}` alone for a plain path.
    """

    form: str
    name: str
    suffix: str
    files: Mapping[str, bytes] = field(repr=False)
    url: str = "{path}"

    @property
    def title(self) -> str:
        """Name of the seed in reports."""
        return f"{self.form} {self.name}"

    def write(self, path: Path, files: Mapping[str, bytes]) -> str:
        """Write these contents, mutated ones of this seed, and return the path or URL to read."""
        if self.suffix:
            (content,) = files.values()
            path.write_bytes(content)
        else:
            path.mkdir()
            for name, content in files.items():
                (path / name).write_bytes(content)
        return self.url.format(path=path)


def write_seeds(folder: Path) -> list[SeedFile]:
    """Return the seeds that can be written here, in a fixed order; `folder` is for temporary files."""
    return [*_videos(folder), *_layouts(folder), *_arrays(), *_image_folders(), *_archives(folder)]


def pictures(width: int, height: int) -> Iterator[ndarray]:
    """Yield frames of a gradient with a moving square."""
    ramp = np.add.outer(np.arange(height), np.arange(width)) % 256
    for number in range(FRAMES):
        picture = np.stack([ramp, 255 - ramp, np.full_like(ramp, 40 * number)], -1).astype(np.uint8)
        picture[8:24, 6 * number : 6 * number + 16] = 230
        yield picture


def _videos(folder: Path) -> Iterator[SeedFile]:
    for suffix, codecs in VIDEOS.items():
        for name in codecs.split():
            codec, _, pixel_format = name.partition("/")
            content = encode(folder, suffix, codec, pixel_format)
            if content:
                yield SeedFile(form=suffix, name=name, suffix=f".{suffix}", files={"": content})


def encode(folder: Path, suffix: str, codec: str, pixel_format: str = "", sound: str = "", **options: str) -> bytes:
    """Return a video; empty if this FFmpeg cannot write it."""
    path = folder / f"seed.{suffix}"
    width, height = SIZES.get(codec) or SIZES.get(suffix) or SIZE
    try:
        known = av.Codec(codec, "w").video_formats
        with av.open(str(path), "w", format=FORMATS.get(suffix, suffix), options=options) as container:
            stream: Any = container.add_stream(codec, rate=25, options=dict(OPTIONS.get(codec, {})))
            stream.width, stream.height = width, height
            stream.pix_fmt = pixel_format or (known[0].name if known else "yuv420p")
            stream.codec_context.thread_count = 1
            if codec in STRICT:
                stream.codec_context.options = {"strict": "-2"}
            heard: Any = container.add_stream(sound, rate=48000, layout="stereo") if sound else None
            for picture in pictures(width, height):
                frame = _indexed(picture) if stream.pix_fmt == "pal8" else picture
                form = "pal8" if stream.pix_fmt == "pal8" else "rgb24"
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=form)))
                if heard:
                    _mux_silence(container, heard)
            container.mux(stream.encode())
            if heard:
                container.mux(heard.encode())
        return path.read_bytes()
    except (av.FFmpegError, ValueError):
        return b""
    finally:
        path.unlink(missing_ok=True)


def _indexed(picture: ndarray) -> tuple[ndarray, ndarray]:
    """Return a picture as indices into a palette; FFmpeg does not convert to one."""
    palette = np.stack([np.arange(256), np.full(256, 90), 255 - np.arange(256), np.full(256, 255)], -1)
    return np.ascontiguousarray(picture[..., 0]), palette.astype(np.uint8)


def _mux_silence(container: Any, stream: Any) -> None:
    frame = av.AudioFrame.from_ndarray(np.zeros((2, 1920), np.float32), format="fltp", layout="stereo")
    frame.sample_rate = 48000
    container.mux(stream.encode(frame))


def _layouts(folder: Path) -> Iterator[SeedFile]:
    """Yield containers with sound, fragments, an index at the start, or fields."""
    layouts: tuple[tuple[str, str, str, str, dict[str, str]], ...] = (
        ("mp4", "fragments", "libx264", "", {"movflags": "frag_keyframe+empty_moov"}),
        ("mp4", "index first", "libx264", "", {"movflags": "faststart"}),
        ("mp4", "sound", "libx264", "aac", {}),
        ("mov", "sound", "mpeg4", "pcm_s16le", {}),
        ("mkv", "sound", "libx264", "libopus", {}),
        ("mkv", "index first", "libx264", "", {"cues_to_front": "1"}),
        ("webm", "live", "libvpx-vp9", "libopus", {"live": "1"}),
        ("avi", "sound", "mpeg4", "mp2", {}),
        ("ts", "sound", "mpeg2video", "mp2", {}),
        ("mpg", "sound", "mpeg1video", "mp2", {}),
        ("flv", "sound", "flv", "aac", {}),
        ("wmv", "sound", "wmv2", "wmav2", {}),
    )
    for suffix, name, codec, sound, options in layouts:
        content = encode(folder, suffix, codec, sound=sound, **options)
        if content:
            yield SeedFile(form=suffix, name=name, suffix=f".{suffix}", files={"": content})
    two = folder / "two.mkv"
    with av.open(str(two), "w") as container:
        color: Any = container.add_stream("libx264", rate=25, options=dict(OPTIONS["libx264"]))
        depth: Any = container.add_stream("ffv1", rate=25)
        for stream, pixel_format in ((color, "yuv420p"), (depth, "gray16le")):
            stream.width, stream.height, stream.pix_fmt = *SIZE, pixel_format
        for picture in pictures(*SIZE):
            container.mux(color.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            levels = picture[..., 0].astype(np.uint16) * 16
            container.mux(depth.encode(av.VideoFrame.from_ndarray(levels, format="gray16le")))
        container.mux([*color.encode(), *depth.encode()])
    yield SeedFile(form="mkv", name="two streams", suffix=".mkv", files={"": two.read_bytes()}, url="{path}#1")
    two.unlink()


def _arrays() -> Iterator[SeedFile]:
    rgb = np.stack(list(pictures(16, 12)))
    depth = rgb[..., 0].astype(np.uint16) * 16
    times = {"times_s": np.arange(FRAMES) / 25}
    contents: dict[str, dict[str, ndarray]] = {
        "rgb": {"rgb": rgb},
        "depth": {"depth": depth},
        "float64": {"depth": depth.astype(np.float64)},
        "Fortran order": {"depth": np.asfortranarray(depth)},
        "times": {"depth": depth, **times},
        "frame by frame": {f"depth_{number:06d}": frame for number, frame in enumerate(depth)},
    }
    for name, arrays in contents.items():
        for form, save in (("npz", np.savez), ("npz, compressed", np.savez_compressed)):
            file = io.BytesIO()
            save(file, **arrays)
            yield SeedFile(form=form, name=name, suffix=".npz", files={"": file.getvalue()})
    for name in ("rgb", "depth", "float64", "times"):
        last = {key: array if key == "times_s" else np.moveaxis(array, 0, -1) for key, array in contents[name].items()}
        for form, compressed in (("mat v5", False), ("mat v5, compressed", True)):
            file = io.BytesIO()
            savemat(file, last, do_compression=compressed)
            yield SeedFile(form=form, name=name, suffix=".mat", files={"": file.getvalue()})
    for name, value in (("struct", {"depth": {"a": depth}}), ("cells", {"depth": np.array([depth, "a"], object)})):
        file = io.BytesIO()
        savemat(file, value)
        yield SeedFile(form="mat v5", name=name, suffix=".mat", files={"": file.getvalue()})
    file = io.BytesIO()
    savemat(file, {"depth": depth[0].astype(np.float64)}, format="4")
    yield SeedFile(form="mat v4", name="matrix", suffix=".mat", files={"": file.getvalue()})
    header = b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H2s", 0x200, b"IM")
    hdf5 = b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 4
    yield SeedFile(form="mat v7.3", name="header", suffix=".mat", files={"": header.ljust(512, b"\0") + hdf5})


def _image_folders() -> Iterator[SeedFile]:
    rgb = [Image.fromarray(picture) for picture in pictures(24, 18)][:3]
    deep = [Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 100) for image in rgb]
    rotated = Image.Exif()
    rotated[0x0112] = 6
    kinds: tuple[tuple[str, str, list[Image.Image], dict[str, Any]], ...] = (
        ("png", "rgb", rgb, {}),
        ("png", "rgba", [image.convert("RGBA") for image in rgb], {}),
        ("png", "palette", [image.convert("P") for image in rgb], {}),
        ("png", "palette with transparency", [image.convert("P") for image in rgb], {"transparency": 3}),
        ("png", "gray", [image.convert("L") for image in rgb], {}),
        ("png", "gray and alpha", [image.convert("LA") for image in rgb], {}),
        ("png", "one bit", [image.convert("1") for image in rgb], {}),
        ("png", "gray16", deep, {}),
        ("png", "rotated", rgb, {"exif": rotated}),
        ("jpg", "rgb", rgb, {}),
        ("jpg", "gray", [image.convert("L") for image in rgb], {}),
        ("jpg", "cmyk", [image.convert("CMYK") for image in rgb], {}),
        ("jpg", "progressive", rgb, {"progressive": True}),
        ("jpg", "rotated", rgb, {"exif": rotated}),
    )
    for suffix, name, images, options in kinds:
        files = {}
        for number, image in enumerate(images):
            file = io.BytesIO()
            image.save(file, "JPEG" if suffix == "jpg" else "PNG", **options)
            files[f"{number}.{suffix}"] = file.getvalue()
        yield SeedFile(form=f"folder of {suffix}", name=name, suffix="", files=files)
    files = {f"{number}.png": png16_rgb(np.stack([np.asarray(image)] * 3, -1)) for number, image in enumerate(deep)}
    yield SeedFile(form="folder of png", name="rgb48", suffix="", files=files)


def png16_rgb(image: ndarray) -> bytes:
    """Return a PNG of 16 bits per color, which Pillow cannot write."""
    height, width = image.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _archives(folder: Path) -> Iterator[SeedFile]:
    """Yield videos and arrays inside archives, which are read by URL."""
    video = encode(folder, "mp4", "libx264")
    array = io.BytesIO()
    np.savez(array, rgb=np.stack(list(pictures(16, 12))))
    for name, content in (("clip.mp4", video), ("clip.npz", array.getvalue())):
        for form, method in (("zip", zipfile.ZIP_STORED), ("zip, compressed", zipfile.ZIP_DEFLATED)):
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                archive.writestr(zipfile.ZipInfo(name), content, method)
                archive.writestr(zipfile.ZipInfo("notes.txt"), "notes")
            url = f"zip://{name}::file://{{path}}"
            yield SeedFile(form=form, name=name, suffix=".zip", files={"": packed.getvalue()}, url=url)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        url = f"tar://{name}::file://{{path}}"
        yield SeedFile(form="tar", name=name, suffix=".tar", files={"": packed.getvalue()}, url=url)

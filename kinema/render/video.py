"""Clips as files: color as H.264 in MP4, depth as lossless FFV1 in Matroska; the same frames give the same bytes."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8, UInt16

# Chosen so that the same frames give the same bytes: one thread, because x264 decides by what other threads have done,
# and no macroblock tree, which reads memory that nobody has written (x264 core 165; seen with MALLOC_PERTURB_).
# Small colored clothes on a plain floor need finer chroma than x264 gives them.
H264 = {
    "crf": "29",
    "preset": "veryslow",
    "threads": "1",
    "bf": "3",
    "g": "32",
    "x264-params": "mbtree=0:chroma-qp-offset=-3",
}
# One slice, few contexts, and their states kept over the whole clip (g): pictures this small teach the coder slowly.
FFV1 = {"level": "3", "coder": "1", "context": "0", "slices": "1", "slicecrc": "0", "threads": "1", "g": "64"}


def write_rgb(path: Path, frames: UInt8[np.ndarray, "frames height width 3"], *, rate_fps: Fraction) -> None:
    """Write a color clip; height and width must be even."""
    with av.open(str(path), "w", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate_fps, options={**H264, "flags": "+bitexact"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_depth(path: Path, frames: UInt16[np.ndarray, "frames height width"], *, rate_fps: Fraction) -> None:
    """Write a depth clip without loss."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=rate_fps, options={**FFV1, "flags": "+bitexact"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "gray16le"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray16le")))
        container.mux(stream.encode())


def read_rgb(path: Path) -> UInt8[np.ndarray, "frames height width 3"]:
    """All frames of a color clip."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read_depth(path: Path) -> UInt16[np.ndarray, "frames height width"]:
    """All frames of a depth clip, in the stored unit."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray16le") for frame in container.decode(video=0)])

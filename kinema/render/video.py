"""Clip files: color as H.264 in MP4, depth as lossless FFV1 in Matroska. Equal frames give equal bytes."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8, UInt16

# Deterministic: one thread, because x264's decisions depend on the progress of other threads, and no macroblock tree,
# which reads uninitialized memory (x264 core 165; found with MALLOC_PERTURB_). The chroma offset keeps the colors of
# small clothes on a plain floor.
H264 = {
    "crf": "29",
    "preset": "veryslow",
    "threads": "1",
    "bf": "3",
    "g": "32",
    "x264-params": "mbtree=0:chroma-qp-offset=-3",
}
# One slice, few contexts, and coder states kept over the whole clip (g): the coder adapts slowly on small images.
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
    """Return all frames of a color clip."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read_depth(path: Path) -> UInt16[np.ndarray, "frames height width"]:
    """Return all frames of a depth clip, in the stored unit."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray16le") for frame in container.decode(video=0)])

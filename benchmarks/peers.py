"""Readers of the same 16 frames, one per video library.

Each reader takes a path and frame numbers and returns RGB bytes (frames, height, width, 3). Its time includes opening
the file and any scan that the library needs to find a frame by number.
"""

import sys
import types
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, Literal

import av
import cv2
import decord
import numpy as np
import torch
from numpy import ndarray
from torchcodec.decoders import VideoDecoder

from kinema.video.source import read_rgb

Reader = Callable[[str, Sequence[int]], ndarray]


def readers() -> dict[str, Reader]:
    """Return the readers by name."""
    return {
        "kinema": read_rgb,
        "pyav, all frames": by_pyav,
        "torchcodec, exact, 1 thread": partial(by_torchcodec, seek="exact", threads=1),
        "torchcodec, exact, 2 threads": partial(by_torchcodec, seek="exact", threads=2),
        "torchcodec, approximate, 1 thread": partial(by_torchcodec, seek="approximate", threads=1),
        "torchcodec, approximate, 2 threads": partial(by_torchcodec, seek="approximate", threads=2),
        "decord": by_decord,
        "opencv": by_opencv,
        "pytorchvideo, whole video": by_pytorchvideo,
        "pytorchvideo, a clip a frame": by_pytorchvideo_clips,
    }


def by_pyav(path: str, indices: Sequence[int]) -> ndarray:
    """Read with PyAV as in its examples: convert every frame, keep some."""
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack([frames[i] for i in indices])


def by_torchcodec(path: str, indices: Sequence[int], *, seek: Literal["exact", "approximate"], threads: int) -> ndarray:
    decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode=seek)
    frames: ndarray = decoder.get_frames_at(list(indices)).data.numpy()
    return frames


def by_decord(path: str, indices: Sequence[int]) -> ndarray:
    frames: ndarray = decord.VideoReader(path, ctx=decord.cpu(0)).get_batch(list(indices)).asnumpy()
    return frames


def by_opencv(path: str, indices: Sequence[int]) -> ndarray:
    """Read with OpenCV: grab every frame, retrieve the requested ones, since its seeking is not exact."""
    capture = cv2.VideoCapture(path)
    requested, pictures = set(indices), {}
    for number in range(indices[-1] + 1):
        capture.grab()
        if number in requested:
            pictures[number] = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
    capture.release()
    return np.stack([pictures[i] for i in indices])


def by_pytorchvideo(path: str, indices: Sequence[int]) -> ndarray:
    """Read the whole video as one clip, then select frames, as for its uniform temporal subsampling."""
    video = _encoded_video().from_path(path, decode_audio=False)
    clip = video.get_clip(0, float(video.duration) + 1)["video"]
    video.close()
    return _rgb_bytes(clip[:, list(indices)])


def by_pytorchvideo_clips(path: str, indices: Sequence[int]) -> ndarray:
    """Read a clip of one frame at each requested time, which keeps memory small."""
    with av.open(path) as container:
        rate = container.streams.video[0].average_rate  # constant in these files
    assert rate is not None
    video = _encoded_video().from_path(path, decode_audio=False)
    clips = [video.get_clip(Fraction(i) / rate, Fraction(i + 1) / rate)["video"] for i in indices]
    video.close()
    return _rgb_bytes(torch.cat(clips, 1))


def _rgb_bytes(clip: torch.Tensor) -> ndarray:
    return clip.byte().permute(1, 2, 3, 0).contiguous().numpy()


def _encoded_video() -> Any:
    """Import the unmodified class, without the datasets of `pytorchvideo.data`, which need torchvision."""
    if "pytorchvideo.data" not in sys.modules:
        import pytorchvideo

        package = types.ModuleType("pytorchvideo.data")
        package.__path__ = [f"{folder}/data" for folder in pytorchvideo.__path__]
        sys.modules["pytorchvideo.data"] = package
    from pytorchvideo.data.encoded_video import EncodedVideo

    return EncodedVideo

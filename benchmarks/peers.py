"""The same 16 frames by every library that people of this field read videos with.

Each reader takes a path and frame numbers and gives RGB bytes (frames, height, width, 3); opening the file is part of
its work, and so is whatever scan the library needs to find a frame by its number.
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
    """All that are compared, by name."""
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
    """As PyAV's own examples do: convert every frame, keep some."""
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
    """Every frame is grabbed, only the wanted ones are retrieved: its own seeking is not exact."""
    capture = cv2.VideoCapture(path)
    wanted, pictures = set(indices), {}
    for number in range(indices[-1] + 1):
        capture.grab()
        if number in wanted:
            pictures[number] = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
    capture.release()
    return np.stack([pictures[i] for i in indices])


def by_pytorchvideo(path: str, indices: Sequence[int]) -> ndarray:
    """The whole video as one clip, then the wanted frames: what its uniform temporal subsampling works on."""
    video = _encoded_video().from_path(path, decode_audio=False)
    clip = video.get_clip(0, float(video.duration) + 1)["video"]
    video.close()
    return _rgb_bytes(clip[:, list(indices)])


def by_pytorchvideo_clips(path: str, indices: Sequence[int]) -> ndarray:
    """A clip of one frame at each wanted time: what keeps its memory small."""
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
    """The class itself is untouched; `pytorchvideo.data` is entered without its data sets, which want torchvision."""
    if "pytorchvideo.data" not in sys.modules:
        import pytorchvideo

        package = types.ModuleType("pytorchvideo.data")
        package.__path__ = [f"{folder}/data" for folder in pytorchvideo.__path__]
        sys.modules["pytorchvideo.data"] = package
    from pytorchvideo.data.encoded_video import EncodedVideo

    return EncodedVideo

"""Video files through torchcodec, where it is installed and loads: the same frames as `kinema.video.decode` gives.

torchcodec brings no FFmpeg of its own and loads only beside a torch that it was built for. It decodes what has time
stamps and an index that both agree on; the rest, and everything grey or 16 bits deep, is PyAV's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from kinema.errors import BackendError, UnreadableVideo
from kinema.video import decode
from kinema.video.container import open_video, read_timeline, seekable
from kinema.video.read_options import READ_OPTIONS, ReadOptions


def read_frames(
    path: str, indices: Sequence[int], reading: ReadOptions = READ_OPTIONS
) -> UInt8[ndarray, "frames height width 3"]:
    """As `decode.read_frames`.

    Raises:
        UnreadableVideo: as there.
        BackendError: torchcodec is not installed, or does not load.
    """
    decoder_type = _decoder_type()
    with open_video(path, reading.limits) as (container, stream):
        decode.check_clip(path, len(set(indices)), stream, "rgb24", reading.limits)
        known = seekable(container) and container.format.name != "avi"
        place = stream.index
    timeline = read_timeline(path, reading) if known else None
    if timeline is None or not timeline.stamps or _has_matrix(path, reading):
        return decode.read_frames(path, indices, reading)
    decode.check_numbers(indices)
    if indices[-1] >= len(timeline.stamps):
        raise UnreadableVideo(f"{path}: frame {indices[-1]} is wanted, but it has {len(timeline.stamps)} frames")
    try:
        decoder = decoder_type(path, stream_index=place, dimension_order="NHWC", seek_mode="exact")
        if len(decoder) != len(timeline.stamps):
            return decode.read_frames(path, indices, reading)
        frames = decoder.get_frames_at([int(i) for i in indices]).data.numpy()
    except (RuntimeError, ValueError, IndexError) as error:
        raise UnreadableVideo(f"{path}: torchcodec cannot decode it ({' '.join(str(error).split())[:200]})") from error
    return np.ascontiguousarray(frames)


def _has_matrix(path: str, reading: ReadOptions) -> bool:
    """Whether frames are turned or mirrored before they are shown; torchcodec does not mirror."""
    with open_video(path, reading.limits) as (container, stream):
        frame = next(decode.decoded(path, container, stream, reading.limits), None)
    return frame is not None and decode.orientation(frame) != (False, False, False)


def _decoder_type() -> Any:
    try:
        from torchcodec.decoders import VideoDecoder
    except ImportError as error:
        raise BackendError("torchcodec is not installed: pip install torchcodec, or read with pyav") from error
    except (RuntimeError, OSError) as error:  # what it raises where its libraries do not load
        raise BackendError(
            "torchcodec is installed, but does not load: it wants FFmpeg's libraries and the torch that it was built "
            "for; read with pyav, or see torchcodec's table of versions"
        ) from error
    return VideoDecoder

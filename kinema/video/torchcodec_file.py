"""Video files decoded by torchcodec, if it is installed and loads; frames equal those of `VideoFile` to the bit.

torchcodec brings no FFmpeg of its own and loads only beside the torch that it was built for. It decodes RGB of files
whose time stamps and index both readers agree on; PyAV decodes the rest.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from kinema.errors import BackendError, one_line
from kinema.video.container import seekable
from kinema.video.streams import split_stream
from kinema.video.unreadable import past_end, unreadable
from kinema.video.video_file import VideoFile, check_clip, check_indices


class TorchcodecFile(VideoFile):
    """Video file whose RGB frames torchcodec decodes."""

    def read_rgb(self, indices: Sequence[int]) -> UInt8[ndarray, "frames height width 3"]:
        """Return frames as `VideoFile.read_rgb` does.

        Raises:
            BackendError: torchcodec is not installed, or does not load.
        """
        decoder_type = _decoder_type()
        container, stream = self._open()
        check_clip(self.path, len(set(indices)), stream, "rgb24", self.limits)
        stream_index = stream.index
        has_stamps = container.format.name != "avi" and seekable(container, stream) and bool(self.timeline.stamps)
        if not has_stamps or not self.facts.is_plain:
            return super().read_rgb(indices)
        check_indices(indices)
        count = len(self.timeline.stamps)
        if indices[-1] >= count:
            raise past_end(self.path, indices[-1], count)
        try:
            decoder = decoder_type(
                split_stream(self.path)[0], stream_index=stream_index, dimension_order="NHWC", seek_mode="exact"
            )
            if len(decoder) != count:
                return super().read_rgb(indices)
            frames = decoder.get_frames_at([int(i) for i in indices]).data.numpy()
        except (RuntimeError, ValueError, IndexError) as error:
            raise unreadable(self.path, f"torchcodec cannot decode it ({one_line(error)})") from error
        return np.ascontiguousarray(frames)


def _decoder_type() -> Any:
    try:
        from torchcodec.decoders import VideoDecoder
    except ImportError as error:
        raise BackendError(
            "torchcodec is not installed. Run `pip install torchcodec`, or use backend 'pyav'.", field="backend"
        ) from error
    except (RuntimeError, OSError) as error:  # raised if its libraries do not load
        raise BackendError(
            "torchcodec does not load; expected FFmpeg's libraries and the torch that it was built for. Use backend "
            "'pyav', or see torchcodec's table of versions.",
            field="backend",
        ) from error
    return VideoDecoder

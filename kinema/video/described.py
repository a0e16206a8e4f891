"""Facts about the frames of an open video, and the remarks that follow: all that reading a clip does not need."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Literal

import av
from av.container import InputContainer

from kinema.modality import Modality, ReadAs
from kinema.video.container import Gray, Orientation, Timeline, reading
from kinema.video.pixels import FrameConverter, FrameFacts, is_bitmap
from kinema.video.read_options import Deinterlace
from kinema.video.remarks import COLOR_REMARKS, Remark
from kinema.video.streams import equal_streams, is_gray_format, split_stream
from kinema.video.unreadable import unreadable

THREADED_PIXELS = 500_000
"""Number of pixels per frame from which threads pay off."""


class DescribedVideo(ABC):
    """Part of `VideoFile` that counts and describes its frames."""

    path: str
    kind: Modality
    read_as: ReadAs | None
    deinterlace: Deinterlace
    _at_start: bool
    _num_frames: int | None
    _facts: FrameFacts | None
    _orientation: Orientation | None

    @property
    @abstractmethod
    def timeline(self) -> Timeline:
        """Time stamps of all frames."""

    @abstractmethod
    def read_gray(self, indices: Sequence[int]) -> Gray:
        """Return one channel of the frames."""

    @property
    @abstractmethod
    def _current(self) -> tuple[InputContainer, av.VideoStream]:
        """The container as it is, whatever its position and threads."""

    @abstractmethod
    def _open(self) -> tuple[InputContainer, av.VideoStream]:
        """Return the container at its current position, for one thread."""

    @abstractmethod
    def _rewind(self) -> tuple[InputContainer, av.VideoStream]:
        """Return the container at its start."""

    @abstractmethod
    def _decode(
        self, container: InputContainer, stream: av.VideoStream, start: Literal["here", "keyframe"] = "here"
    ) -> Iterator[av.VideoFrame]:
        """Yield the frames from the current position, or from the next keyframe on."""

    @property
    def num_frames(self) -> int:
        """Number of frames that decode: packets, corrected by decoding from the last keyframe on.

        Raises:
            UnreadableVideo: As `read_rgb`, or no frame decodes.
        """
        if self._num_frames is None:
            with reading(self.path):
                self._num_frames = self._count()
        return self._num_frames

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames as displayed: upright, with square pixels."""
        return self.facts.displayed_size

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """Remarks on the stream and on one frame."""
        on_frames = (r for r in self.facts.remarks if self.kind == "rgb" or r.kind not in COLOR_REMARKS)
        return (*self.stream_remarks, *on_frames)

    @property
    def facts(self) -> FrameFacts:
        """Facts about one frame: the first, or where the frames were counted, one of the last."""
        if self._facts is None:
            with reading(self.path):
                container, stream = self._rewind()
                self._at_start = False
                frame = next(self._noted(self._decode(container, stream)), None)
            if frame is None or self._facts is None:
                raise unreadable(self.path, "no frame can be decoded")
        return self._facts

    def converter(self, threads: int = 1) -> FrameConverter:
        """Return a converter of the frames, which works on large ones with these threads."""
        container, stream = self._current
        context = stream.codec_context
        return FrameConverter(
            threads=threads if context.width * context.height >= THREADED_PIXELS else 1,
            deinterlace=self.deinterlace,
            is_bitmap=is_bitmap(container, stream),
            orientation=self._orientation,
        )

    @property
    def stream_remarks(self) -> tuple[Remark, ...]:
        """Remarks on the choice of the stream.

        Raises:
            UnreadableVideo: The file is opened as depth and is in color, by its first frame.
        """
        container, stream = self._open()
        equal = [] if split_stream(self.path)[1] is not None else equal_streams(container, self.kind)
        stored = stream.codec_context.format
        if self.read_as == "depth" and stored is not None and not is_gray_format(stored):
            self.read_gray([0])
        return (Remark("several streams", f"#{stream.index} of {'; '.join(equal)}"),) if equal else ()

    def _count(self) -> int:
        timeline = self.timeline
        if timeline.keyframes:
            container, stream = self._open()
            container.seek(timeline.keyframes[-1], stream=stream, backward=True)
            frames = self._noted(self._decode(container, stream, "keyframe"))
            last = max((frame.pts for frame in frames if frame.pts is not None and not frame.is_corrupt), default=None)
            count = 0 if last is None else bisect_right(timeline.stamps, last)
        else:
            container, stream = self._rewind()
            self._at_start = False
            frames = self._noted(self._decode(container, stream))
            count = sum(1 for frame in frames if is_intact(self.path, frame))
        if count == 0:
            raise unreadable(self.path, "no frame can be decoded")
        return count

    def _noted(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Yield frames, and record the facts about the first one."""
        for frame in frames:
            if self._facts is None:
                container, stream = self._current
                self._facts = FrameFacts(container, stream)
                self._facts.add(frame)
            yield frame


def is_intact(path: str, frame: av.VideoFrame) -> bool:
    """Return True, or raise if a frame is damaged: without time stamps, lost frames would shift the numbers."""
    if frame.is_corrupt:
        raise unreadable(path, "is damaged, and has no time stamps to number the frames after the damage")
    return True

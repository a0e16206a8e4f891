"""Parts of source files: their frames, detection of changes, and encoding."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypeVar, cast

import av
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from kinema.data.dataset import pair_timelines
from kinema.data.pixel_box import parse_pixel_box
from kinema.errors import UnreadableVideo
from kinema.files import atomic_path, state_of
from kinema.modality import DepthEncoding, Modality, ReadAs
from kinema.transforms.sampling import Pairing, pair_frames
from kinema.video.array_file import TICKS_PER_S
from kinema.video.container import Timeline, open_video, reason_of
from kinema.video.encode import Encoding, fitted_frames, fitted_pictures, write_depth, write_rgb
from kinema.video.pixels import aspect_of
from kinema.video.read_options import ReadOptions
from kinema.video.remote_cache import local_path
from kinema.video.source import FrameSource, count_frames, local_source
from kinema.video.streams import split_stream
from kinema.video.video_file import VideoFile

Item = TypeVar("Item")

MAX_KEYFRAME_INTERVAL = 16
"""Largest mean keyframe interval [frames] of a small video to copy; re-encoding would not make it faster to read."""

PIXELS = 2
"""Version of the rules by which pixels are read. Version 1 ignored pixel aspect, transparency, and HDR."""

DEFAULT_RATE = 25
"""Frame rate [1/s] of sources without time stamps, such as folders."""


class Cancelled(Exception):
    """Raised when packing stops before a part is complete, because of an error in another worker or an interrupt."""


class Part(NamedTuple):
    """Segment of a source file that becomes one packed file.

    Attributes:
        kind: Modality that the source is read as.
        path: Source file.
        start: Start of the half-open segment in frames, or in seconds if `timed_by` is set. None for the whole file.
        stop: Stop of the segment, in the same unit.
        timed_by: File whose time stamps convert seconds to frames: the RGB of the sample, if it has RGB.
        box: Crop of RGB, in the format of `rgb_box`. Empty for the full frame.
        encoding: Encoding of depth in color formats. Empty for RGB and for gray.
        beside: RGB of the sample, for depth. A segment in frames counts frames of it.
    """

    kind: Modality
    path: str
    start: float | int | None = None
    stop: float | int | None = None
    timed_by: str = ""
    box: str = ""
    encoding: DepthEncoding | Literal[""] = ""
    beside: str = ""

    @property
    def key(self) -> str:
        """Hash of all fields, which identifies the packed file; without those of depth, as before depth had them."""
        fields = self if self.beside else self[:-1] if self.encoding else self[:-2]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]

    @property
    def read_as(self) -> ReadAs:
        """Content of the source."""
        return "rgb" if self.kind == "rgb" else self.encoding or "depth"


@dataclass(frozen=True, kw_only=True)
class Record:
    """Packed file, as a line of `pack.jsonl`.

    Attributes:
        key: Key of the part.
        file: Path relative to the output folder.
        state: Sizes and modification times of the source, to detect changes.
        frames: Number of frames.
        bytes: File size.
        form: `encoded`, or `copied` for a source that is already fast to read.
        unequal_times: Whether the time stamps of a depth file select other frames than those of its RGB.
        timed: True if the times of the packed frames are those of the source.
        interlaced: True if interlaced frames were packed as they are, and lost their mark.
        pixels: Version of the rules by which pixels are read; `PIXELS` for new files.
    """

    key: str
    file: str
    state: tuple[int, ...]
    frames: int
    bytes: int
    form: str
    unequal_times: bool = False
    timed: bool = True
    interlaced: bool = False
    pixels: int = 1


class PackSource:
    """Source file that is opened once, by PyAV in this process, to pack all of its parts."""

    def __init__(self, path: str, options: ReadOptions, read_as: ReadAs) -> None:
        self.path = path
        self.file = local_path(path, options)
        self._read_as = read_as
        self._options = replace(options, isolation="none" if options.isolation == "none" else "auto", backend="pyav")
        self._own_state = tuple(state_of(split_stream(self.file)[0]) or ())
        self._sources: dict[tuple[str, ReadAs], FrameSource] = {}

    def close(self) -> None:
        """Close the file, and the file that times it."""
        for source in self._sources.values():
            source.close()

    @property
    def frames(self) -> FrameSource:
        """Frames of the file."""
        return self._open(self.file, self._read_as)

    @property
    def bytes(self) -> int:
        """Size of the file, or of all images of a folder."""
        return 0 if not self._own_state else self._own_state[0 if len(self._own_state) == 2 else 1]

    def state(self, part: Part) -> tuple[int, ...]:
        """Return sizes and modification times of the source and the file that times it; empty if either is missing."""
        timed_by = part.beside or part.timed_by
        if timed_by in ("", self.path):
            return self._own_state
        other = state_of(split_stream(local_path(timed_by, self._options))[0])
        return () if other is None or not self._own_state else (*self._own_state, *other)

    def frame_numbers(self, part: Part) -> range:
        """Return the frames of a part."""
        if part.start is None or part.stop is None:
            return range(self.frames.num_frames)
        numbers = self._segment(part)
        pairing = self._pairing(part)
        if pairing is None:
            return numbers
        start, stop = max(numbers.start, pairing.start), min(numbers.stop, pairing.stop)
        if start >= stop:
            raise UnreadableVideo(f"{self.file}: no frame was recorded with {part.beside}", path=self.file)
        assert self._timeline is not None
        own, other = self._timeline.common_s, cast(Timeline, self._beside(part)).common_s[start:stop]
        first, end = int(pairing.numbers[start]), min(int(pairing.numbers[stop - 1]) + 1, len(own))
        cut = pair_frames(other, own[first:end])
        if cut is not None and (cut.numbers[0] < 0 or cut.numbers[-1] >= end - first):
            # Lost frames at the edge of a segment: those on the other side of the gap tell how far it reaches.
            first, end = max(first - 1, 0), min(end + 1, len(own))
        return range(first, end)

    def has_remark(self, kind: str) -> bool:
        """Return whether the file has a remark of this kind."""
        return any(remark.kind == kind for remark in self.frames.remarks)

    def is_outdated(self, record: Record) -> bool:
        """Return whether a packed file has other pixels than it would have now."""
        return record.pixels < PIXELS and record.form == "encoded" and bool(self.frames.remarks)

    def has_unequal_times(self, part: Part) -> bool:
        """Return whether the time stamps of the file select other frames than those of the RGB of the sample."""
        if part.timed_by in ("", self.path) or self._timeline is None:
            return False
        try:
            return self._frames_timed_by(part, self.file) != self.frame_numbers(part)
        except UnreadableVideo:
            return True

    def reads_fast(self, kind: Modality, encoding: Encoding) -> bool:
        """Return whether re-encoding the whole file would not help.

        True for 8-bit depth in a video, which no lossless encoding makes as small, and for small RGB with frequent
        keyframes.
        """
        if not isinstance(self.frames, VideoFile) or (encoding.deinterlace != "none" and self.has_remark("interlaced")):
            return False
        with open_video(self.file, self._options.limits, kind) as (container, stream):
            if len(container.streams.video) > 1:  # a copy would lose the choice
                return False
            context = stream.codec_context
            deep = context.format is None or context.format.components[0].bits > 8
            short_side = min(aspect_of(stream).displayed(context.height, context.width))
        if kind == "depth":
            return not deep and self._read_as != "jet" and (encoding.depth_short_side or short_side) >= short_side
        timeline = self.frames.timeline
        frequent = 0 < len(timeline.stamps) <= MAX_KEYFRAME_INTERVAL * len(timeline.keyframes)
        return not deep and short_side <= encoding.short_side and frequent

    def encode(self, part: Part, path: Path, encoding: Encoding, is_cancelled: Callable[[], bool]) -> int:
        """Write a part to a file and return its number of frames."""
        numbers = self.frame_numbers(part)
        try:
            with path.open("wb") as file:
                if part.kind == "depth":
                    images = _until_cancelled(is_cancelled, self._images(part.kind, numbers))
                    times, aspect = self._times_s(part, numbers), self.frames.pixel_aspect
                    frames = write_depth(file, images, encoding, times, aspect)
                else:
                    ticks, second = self._ticks(part, numbers)
                    fitted = _until_cancelled(is_cancelled, self._fitted(numbers, encoding, part.box))
                    frames = write_rgb(file, fitted, encoding, ticks=ticks, second=second)
        except UnreadableVideo as error:
            message = str(error) if self.file in str(error) else f"{self.file}: {error}"
            raise UnreadableVideo(message, path=self.file) from error
        except Exception as error:
            if isinstance(error, Cancelled | OSError) and not isinstance(error, av.FFmpegError):
                raise  # an error of the output file
            raise UnreadableVideo(f"{self.file}: cannot be encoded ({reason_of(error)})", path=self.file) from error
        if frames != len(numbers):
            raise UnreadableVideo(f"{self.file}: {frames} of {len(numbers)} frames decode", path=self.file)
        if part.kind == "rgb" and (decoded := count_frames(str(path))) != frames:
            raise UnreadableVideo(f"{self.file}: {decoded} of {frames} encoded frames decode", path=self.file)
        return frames

    def _open(self, file: str, read_as: ReadAs) -> FrameSource:
        if (file, read_as) not in self._sources:
            self._sources[file, read_as] = local_source(file, self._options, read_as)
        return self._sources[file, read_as]

    @property
    def has_times(self) -> bool:
        """True if the file has time stamps, or at least a frame rate."""
        return bool(self._timeline is not None and (self._timeline.stamps or self._timeline.pace))

    @property
    def _timeline(self) -> Timeline | None:
        return self.frames.timeline

    def _segment(self, part: Part) -> range:
        """Return the segment of a part in frames of RGB, or of depth without RGB."""
        assert part.start is not None
        assert part.stop is not None
        if part.timed_by:
            return self._frames_timed_by(part, local_path(part.timed_by, self._options))
        return range(int(part.start), int(part.stop))

    def _beside(self, part: Part) -> Timeline | None:
        return self._open(local_path(part.beside, self._options), "rgb").timeline

    def _pairing(self, part: Part) -> Pairing | None:
        return pair_timelines(self._beside(part), self._timeline) if part.beside else None

    def _frames_timed_by(self, part: Part, file: str) -> range:
        assert part.start is not None
        assert part.stop is not None
        read_as: ReadAs = self._read_as if file == self.file else "rgb"
        return range(*self._open(file, read_as).frame_range(part.start, part.stop))

    def _images(self, kind: Modality, numbers: range) -> Iterator[ndarray]:
        return self.frames.iter_frames(numbers, "rgb" if kind == "rgb" else "gray")

    def _fitted(self, numbers: range, encoding: Encoding, box: str) -> Iterator[av.VideoFrame]:
        """Yield RGB frames, cropped, resized and converted for encoding."""
        aspect = self.frames.pixel_aspect
        if box:
            return fitted_pictures(self._cropped(numbers, box), encoding, aspect)
        if isinstance(self.frames, VideoFile):
            return fitted_frames(self.frames.iter_stored(numbers), encoding, self.frames.converter(), aspect)
        return fitted_pictures(self._images("rgb", numbers), encoding, aspect)

    def _cropped(self, numbers: range, rgb_box: str) -> Iterator[ndarray]:
        box = parse_pixel_box(rgb_box)
        for image in self._images("rgb", numbers):
            height, width = image.shape[:2]
            if not box.fits(width, height):
                raise UnreadableVideo(
                    f"{self.file}: rgb_box={box} exceeds the frame of {width} x {height} pixels. Correct the manifest.",
                    path=self.file,
                    field="rgb_box",
                )
            yield image[box.top : box.bottom, box.left : box.right]

    def _ticks(self, part: Part, numbers: range) -> tuple[Sequence[int], Fraction]:
        """Return the time of each frame of RGB, and the number of time units per second.

        A segment starts at 0. A whole file keeps its start, so that depth that started earlier or later fits.
        """
        timeline = self._timeline
        stamps = () if timeline is None else (timeline.stamps or timeline.pace)[numbers.start : numbers.stop]
        if timeline is None or len(stamps) < len(numbers):
            return range(len(numbers)), Fraction(DEFAULT_RATE)
        second = Fraction(TICKS_PER_S)
        if isinstance(self.frames, VideoFile):
            with open_video(self.file, self._options.limits) as (_, stream):
                second = 1 / (stream.time_base or Fraction(1, DEFAULT_RATE))
        is_whole = part.start is None and timeline.stamps and stamps[0] >= timeline.epoch
        origin = round(timeline.epoch) if is_whole else stamps[0]
        return [stamp - origin for stamp in stamps], second

    def _times_s(self, part: Part, numbers: range) -> Float64[ndarray, " frames"] | None:
        """Return the time of each frame of depth on the clock of the packed RGB; None if either has none."""
        timeline = self._timeline
        beside = self._beside(part) if part.beside else timeline
        if timeline is None or beside is None or not beside.stamps or len(timeline.stamps) < numbers.stop:
            return None
        times = timeline.common_s[numbers.start : numbers.stop]
        if part.start is None:
            return times
        origin = beside.common_s[self._segment(part).start] if part.beside else times[0]
        return np.asarray(times - origin)


def write_part(
    part: Part,
    source: PackSource,
    state: tuple[int, ...],
    out: Path,
    encoding: Encoding,
    is_cancelled: Callable[[], bool],
) -> Record:
    """Write the packed file of a part atomically, below `out`; `state` is that of the source before it is read.

    Raises:
        UnreadableVideo: The source cannot be read or encoded, or lacks frames.
        OSError: The packed file cannot be written.
        Cancelled: `is_cancelled` returned True before the file was complete.
    """
    copied = part.start is None and not part.box and source.reads_fast(part.kind, encoding)
    file = split_stream(source.file)[0]
    suffix = Path(file).suffix.lower() if copied else ".mp4" if part.kind == "rgb" else ".npz"
    name = f"{part.kind}/{_stem(part.path)}-{part.key}{suffix}"
    with atomic_path(out / name) as temporary:
        if copied:
            frames = source.frames.num_frames
            shutil.copyfile(file, temporary)
        else:
            frames = source.encode(part, temporary, encoding, is_cancelled)
        size = temporary.stat().st_size
    is_combed = not copied and encoding.deinterlace == "none" and part.kind == "rgb" and source.has_remark("interlaced")
    return Record(
        key=part.key,
        file=name,
        state=state,
        frames=frames,
        bytes=size,
        form="copied" if copied else "encoded",
        unequal_times=source.has_unequal_times(part),
        timed=copied or source.has_times,
        interlaced=is_combed,
        pixels=PIXELS,
    )


def _until_cancelled(is_cancelled: Callable[[], bool], items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        if is_cancelled():
            raise Cancelled
        yield item


def _stem(path: str) -> str:
    """Return the name of a source, restricted to characters that every file system and shell accepts."""
    path = split_stream(path)[0]
    name = PurePosixPath(path.split("::")[0].split("?")[0] if "://" in path else Path(path).name).stem
    return re.sub(r"[^\w.-]+", "_", name)[:80]

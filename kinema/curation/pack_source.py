"""Parts of source files: their frames, detection of changes, and encoding."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import av
from numpy import ndarray

from kinema.data.pixel_box import parse_pixel_box
from kinema.errors import UnreadableVideo
from kinema.files import atomic_path, state_of
from kinema.modality import Modality
from kinema.video.container import Timeline, open_video, reason_of
from kinema.video.encode import Encoding, fitted_frames, fitted_pictures, write_depth, write_rgb
from kinema.video.read_options import ReadOptions
from kinema.video.remote_cache import local_path
from kinema.video.source import FrameSource, count_frames, local_source
from kinema.video.video_file import VideoFile

Item = TypeVar("Item")

MAX_KEYFRAME_INTERVAL = 16
"""Largest mean keyframe interval [frames] of a small video to copy; re-encoding would not make it faster to read."""

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
    """

    kind: Modality
    path: str
    start: float | int | None = None
    stop: float | int | None = None
    timed_by: str = ""
    box: str = ""

    @property
    def key(self) -> str:
        """Hash of all fields, which identifies the packed file."""
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()[:16]


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
    """

    key: str
    file: str
    state: tuple[int, ...]
    frames: int
    bytes: int
    form: str
    unequal_times: bool = False


class PackSource:
    """Source file that is opened once, by PyAV in this process, to pack all of its parts."""

    def __init__(self, path: str, options: ReadOptions) -> None:
        self.path = path
        self.file = local_path(path, options)
        self._options = replace(options, isolation="none", backend="pyav")
        self._own_state = tuple(state_of(self.file) or ())
        self._sources: dict[str, FrameSource] = {}

    def close(self) -> None:
        """Close the file, and the file that times it."""
        for source in self._sources.values():
            source.close()

    @property
    def frames(self) -> FrameSource:
        """Frames of the file."""
        return self._open(self.file)

    @property
    def bytes(self) -> int:
        """Size of the file, or of all images of a folder."""
        return 0 if not self._own_state else self._own_state[0 if len(self._own_state) == 2 else 1]

    def state(self, part: Part) -> tuple[int, ...]:
        """Return sizes and modification times of the source and its `timed_by`; empty if either is missing."""
        if part.timed_by in ("", self.path):
            return self._own_state
        other = state_of(local_path(part.timed_by, self._options))
        return () if other is None or not self._own_state else (*self._own_state, *other)

    def frame_numbers(self, part: Part) -> range:
        """Return the frames of a part."""
        if part.start is None or part.stop is None:
            return range(self.frames.num_frames)
        if part.timed_by:
            return self._frames_timed_by(part, local_path(part.timed_by, self._options))
        return range(int(part.start), int(part.stop))

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
        if self._timeline is None:
            return False
        with open_video(self.file, self._options.limits) as (_, stream):
            context = stream.codec_context
            deep = context.format is None or context.format.components[0].bits > 8
            short_side = min(context.width, context.height)
        if kind == "depth":
            return not deep and (encoding.depth_short_side or short_side) >= short_side
        frequent = 0 < len(self._timeline.stamps) <= MAX_KEYFRAME_INTERVAL * len(self._timeline.keyframes)
        return not deep and short_side <= encoding.short_side and frequent

    def encode(self, part: Part, path: Path, encoding: Encoding, is_cancelled: Callable[[], bool]) -> int:
        """Write a part to a file and return its number of frames."""
        numbers = self.frame_numbers(part)
        try:
            with path.open("wb") as file:
                if part.kind == "depth":
                    images = _until_cancelled(is_cancelled, self._images(part.kind, numbers))
                    frames = write_depth(file, images, encoding)
                else:
                    ticks, second = self._time_stamps(numbers)
                    fitted = _until_cancelled(is_cancelled, self._fitted(numbers, encoding, part.box))
                    frames = write_rgb(file, fitted, encoding, ticks=ticks, second=second)
        except UnreadableVideo as error:
            message = str(error) if self.file in str(error) else f"{self.file}: {error}"
            raise UnreadableVideo(message, path=self.file) from error
        except av.FFmpegError as error:
            raise UnreadableVideo(f"{self.file}: cannot be encoded ({reason_of(error)})", path=self.file) from error
        if frames != len(numbers):
            raise UnreadableVideo(f"{self.file}: {frames} of {len(numbers)} frames decode", path=self.file)
        if part.kind == "rgb" and (decoded := count_frames(str(path))) != frames:
            raise UnreadableVideo(f"{self.file}: {decoded} of {frames} encoded frames decode", path=self.file)
        return frames

    def _open(self, file: str) -> FrameSource:
        if file not in self._sources:
            self._sources[file] = local_source(file, self._options)
        return self._sources[file]

    @property
    def _timeline(self) -> Timeline | None:
        return self.frames.timeline

    def _frames_timed_by(self, part: Part, file: str) -> range:
        assert part.start is not None
        assert part.stop is not None
        return range(*self._open(file).frame_range(part.start, part.stop))

    def _images(self, kind: Modality, numbers: range) -> Iterator[ndarray]:
        try:
            yield from self.frames.iter_frames(numbers, "rgb" if kind == "rgb" else "gray")
        except OSError as error:  # an error of the source, not of the output file
            raise UnreadableVideo(f"{self.file}: cannot be read ({reason_of(error)})", path=self.file) from error

    def _fitted(self, numbers: range, encoding: Encoding, box: str) -> Iterator[av.VideoFrame]:
        """Yield RGB frames, cropped, resized and converted for encoding."""
        if box:
            return fitted_pictures(self._cropped(numbers, box), encoding)
        if isinstance(self.frames, VideoFile):
            return fitted_frames(self.frames.iter_stored(numbers), encoding)
        return fitted_pictures(self._images("rgb", numbers), encoding)

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

    def _time_stamps(self, numbers: range) -> tuple[Sequence[int], Fraction]:
        """Return the time of each frame relative to the first, and the number of time units per second."""
        if self._timeline is None or not self._timeline.stamps:
            return range(len(numbers)), Fraction(DEFAULT_RATE)
        with open_video(self.file, self._options.limits) as (_, stream):
            unit = stream.time_base or Fraction(1, DEFAULT_RATE)
        stamps = self._timeline.stamps[numbers.start : numbers.stop]
        return [stamp - stamps[0] for stamp in stamps], 1 / unit


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
    suffix = Path(source.file).suffix.lower() if copied else ".mp4" if part.kind == "rgb" else ".npz"
    name = f"{part.kind}/{_stem(part.path)}-{part.key}{suffix}"
    with atomic_path(out / name) as temporary:
        if copied:
            frames = source.frames.num_frames
            shutil.copyfile(source.file, temporary)
        else:
            frames = source.encode(part, temporary, encoding, is_cancelled)
        size = temporary.stat().st_size
    return Record(
        key=part.key,
        file=name,
        state=state,
        frames=frames,
        bytes=size,
        form="copied" if copied else "encoded",
        unequal_times=source.has_unequal_times(part),
    )


def _until_cancelled(is_cancelled: Callable[[], bool], items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        if is_cancelled():
            raise Cancelled
        yield item


def _stem(path: str) -> str:
    """Return the name of a source, restricted to characters that every file system and shell accepts."""
    name = PurePosixPath(path.split("::")[0].split("?")[0] if "://" in path else Path(path).name).stem
    return re.sub(r"[^\w.-]+", "_", name)[:80]

"""Parts of sources, each written into a packed file of its own: what it shows, and whether it has changed."""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, TypeVar

import av
from numpy import ndarray

from kinema.curation.inspections import state_of
from kinema.data.manifest import PixelBox, parse_pixel_box
from kinema.errors import UnreadableVideo
from kinema.modality import Modality
from kinema.video.container import Timeline, open_video, reason_of
from kinema.video.encode import Encoding, fitted_frames, fitted_pictures, write_depth, write_rgb
from kinema.video.read_options import ReadOptions
from kinema.video.remote_cache import local_path
from kinema.video.source import FrameSource, count_frames, local_source
from kinema.video.video_file import VideoFile

Item = TypeVar("Item")

CLOSE = 16
"""Frames from keyframe to keyframe, on the mean, from which on a small video is copied as it is: encoded anew it would
be read no faster."""

RATE = 25
"""Frames in a second of what has no time stamps, such as folders."""


class Stopped(Exception):
    """Another worker has failed, or the user has had enough."""


class Part(NamedTuple):
    """What a packed file shows.

    Args:
        kind: what the source is read as.
        path: where the source lies.
        start, stop: half open, in frames, or in seconds where `timed_by` names a file; both None for the whole.
        timed_by: the file by whose time stamps seconds become frames: a sample's RGB, where it has some.
        box: of RGB, what of each picture is packed, as `rgb_box` says it; empty for the whole.
    """

    kind: Modality
    path: str
    start: float | int | None = None
    stop: float | int | None = None
    timed_by: str = ""
    box: str = ""

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A packed file, as `pack.jsonl` notes it.

    Args:
        key: of the part.
        file: below the folder.
        state: numbers that differ when the source does.
        frames, bytes: of the packed file.
        form: whether it was encoded, or copied since it reads fast already.
        unequal_times: its own time stamps would have cut it otherwise than those of the RGB beside it.
    """

    key: str
    file: str
    state: tuple[int, ...]
    frames: int
    bytes: int
    form: str
    unequal_times: bool = False


class PackSource:
    """A file while its parts are packed; its packets are looked through once."""

    def __init__(self, path: str, options: ReadOptions) -> None:
        self.path = path
        self.file = local_path(path, options)
        # PyAV reads it here, in one thread.
        self._options = replace(options, isolation="none", backend="pyav")
        self._own_state = tuple(state_of(self.file) or ())
        self._sources: dict[str, FrameSource] = {}

    def close(self) -> None:
        """Close the file, and the one that times it."""
        for source in self._sources.values():
            source.close()

    @property
    def frames(self) -> FrameSource:
        """The open file."""
        return self._open(self.file)

    def _open(self, file: str) -> FrameSource:
        if file not in self._sources:
            self._sources[file] = local_source(file, self._options)
        return self._sources[file]

    @property
    def bytes(self) -> int:
        """Of the file, or of the pictures of a folder."""
        return 0 if not self._own_state else self._own_state[0 if len(self._own_state) == 2 else 1]

    def state(self, part: Part) -> tuple[int, ...]:
        """Numbers that differ when the source does, or the file that times it; none where it is gone."""
        if part.timed_by in ("", self.path):
            return self._own_state
        other = state_of(local_path(part.timed_by, self._options))
        return () if other is None or not self._own_state else (*self._own_state, *other)

    def said(self, error: UnreadableVideo) -> str:
        return str(error).replace(self.file, self.path)

    @property
    def timeline(self) -> Timeline | None:
        """Time stamps of the file; None for folders and arrays."""
        return self.frames.timeline

    def pictures(self, kind: Modality, numbers: range) -> Iterator[ndarray]:
        """Yield frames one by one."""
        try:
            yield from self.frames.iter_frames(numbers, "rgb" if kind == "rgb" else "gray")
        except OSError as error:  # of the source, and not of what is written
            raise UnreadableVideo(f"{self.file}: cannot be read ({reason_of(error)})") from error

    def fitted(self, numbers: range, encoding: Encoding, box: str) -> Iterator[av.VideoFrame]:
        """Frames one after the other, as RGB is encoded."""
        if box:
            return fitted_pictures(self._boxed(numbers, parse_pixel_box(box)), encoding)
        if isinstance(self.frames, VideoFile):
            return fitted_frames(self.frames.iter_stored(numbers), encoding)
        return fitted_pictures(self.pictures("rgb", numbers), encoding)

    def _boxed(self, numbers: range, box: PixelBox) -> Iterator[ndarray]:
        for picture in self.pictures("rgb", numbers):
            height, width = picture.shape[:2]
            if not box.fits(width, height):
                raise UnreadableVideo(
                    f"{self.file}: has frames of {width} x {height}, but rgb_box={box} reaches beyond them",
                    path=self.file,
                )
            yield picture[box.top : box.bottom, box.left : box.right]

    def numbers(self, part: Part) -> range:
        """The frames of a part."""
        if part.start is None or part.stop is None:
            return range(self.frames.num_frames)
        if part.timed_by:
            return self._shown(part, local_path(part.timed_by, self._options))
        return range(int(part.start), int(part.stop))

    def cut_otherwise(self, part: Part) -> bool:
        """Whether the source's own time stamps would give other frames than those of the RGB beside it."""
        if part.timed_by in ("", self.path) or self.timeline is None:
            return False
        try:
            return self._shown(part, self.file) != self.numbers(part)
        except UnreadableVideo:
            return True

    def _shown(self, part: Part, file: str) -> range:
        assert part.start is not None
        assert part.stop is not None
        return range(*self._open(file).frame_range(part.start, part.stop))

    def times(self, numbers: range) -> tuple[Sequence[int], Fraction]:
        """When each frame is shown, from the first one on, in the units of the source, and how many are a second."""
        if self.timeline is None or not self.timeline.stamps:
            return range(len(numbers)), Fraction(RATE)
        with open_video(self.file, self._options.limits) as (_, stream):
            unit = stream.time_base or Fraction(1, RATE)
        stamps = self.timeline.stamps[numbers.start : numbers.stop]
        return [stamp - stamps[0] for stamp in stamps], 1 / unit

    def reads_fast(self, kind: Modality, encoding: Encoding) -> bool:
        """Whether the whole file would gain nothing: depth of 8 bits in a video, which no lossless encoding makes as
        small, or RGB that is small and has close keyframes.
        """
        if self.timeline is None:
            return False
        with open_video(self.file, self._options.limits) as (_, stream):
            context = stream.codec_context
            deep = context.format is None or context.format.components[0].bits > 8
            short_side = min(context.width, context.height)
        if kind == "depth":
            return not deep and (encoding.depth_short_side or short_side) >= short_side
        keyframes = len(self.timeline.keyframes)
        close = 0 < len(self.timeline.stamps) <= CLOSE * keyframes
        return not deep and short_side <= encoding.short_side and close


def write_part(
    part: Part,
    source: PackSource,
    state: tuple[int, ...],
    out: Path,
    encoding: Encoding,
    stopping: Callable[[], bool],
) -> Record:
    """Write the file of a part under another name, see that it is whole, and give it its own.

    Args:
        state: of the source, before it is read.
        out: the folder that has a folder for each kind.
        stopping: asked before each picture.

    Raises:
        UnreadableVideo: the source cannot be read, has no such frames, or cannot be encoded.
        OSError: the file cannot be written.
        Stopped: before the file was whole.
    """
    copied = part.start is None and not part.box and source.reads_fast(part.kind, encoding)
    suffix = Path(source.file).suffix.lower() if copied else ".mp4" if part.kind == "rgb" else ".npz"
    name = f"{part.kind}/{_stem(part.path)}-{part.key}{suffix}"
    unfinished = out / part.kind / f"{uuid.uuid4().hex}.unfinished"
    try:
        with unfinished.open("wb") as file:
            if copied:
                frames = source.frames.num_frames
                with open(source.file, "rb") as original:
                    shutil.copyfileobj(original, file)
            else:
                frames = _encoded(part, source, file, encoding, stopping)
        if part.kind == "rgb" and not copied and (there := count_frames(str(unfinished))) != frames:
            raise UnreadableVideo(f"{source.file}: {frames} frames were encoded, but {there} of them decode")
        size = unfinished.stat().st_size
        unfinished.replace(out / name)
    finally:
        unfinished.unlink(missing_ok=True)
    return Record(
        key=part.key,
        file=name,
        state=state,
        frames=frames,
        bytes=size,
        form="copied" if copied else "encoded",
        unequal_times=source.cut_otherwise(part),
    )


def _encoded(part: Part, source: PackSource, file: IO[bytes], encoding: Encoding, stopping: Callable[[], bool]) -> int:
    numbers = source.numbers(part)
    try:
        if part.kind == "depth":
            frames = write_depth(file, _until(stopping, source.pictures(part.kind, numbers)), encoding)
        else:
            ticks, second = source.times(numbers)
            fitted = _until(stopping, source.fitted(numbers, encoding, part.box))
            frames = write_rgb(file, fitted, encoding, ticks=ticks, second=second)
    except UnreadableVideo as error:
        said = str(error)
        raise UnreadableVideo(said if source.file in said else f"{source.file}: {said}") from error
    except av.FFmpegError as error:
        raise UnreadableVideo(f"{source.file}: cannot be encoded ({reason_of(error)})") from error
    if frames != len(numbers):
        raise UnreadableVideo(f"{source.file}: {frames} of {len(numbers)} frames came out of it")
    return frames


def _until(stopping: Callable[[], bool], items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        if stopping():
            raise Stopped
        yield item


def _stem(path: str) -> str:
    """A source's name, as far as every file system and shell takes it."""
    name = PurePosixPath(path.split("::")[0].split("?")[0] if "://" in path else Path(path).name).stem
    return re.sub(r"[^\w.-]+", "_", name)[:80]

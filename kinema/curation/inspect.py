"""Inspection of a file: decode it once from first to last frame; record its properties and problems."""

from array import array
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8, UInt16
from numpy import ndarray
from PIL import Image

from kinema.curation.duplicates import SIDE, SignatureBuilder
from kinema.errors import UnreadableVideo
from kinema.modality import Modality
from kinema.video.array_file import ARRAY_SUFFIXES, ArrayFile
from kinema.video.container import UPRIGHT, open_video, orientation_of, packets_of
from kinema.video.image_folder import ImageFolder
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.remote_cache import local_path
from kinema.video.source import local_source
from kinema.video.video_file import VideoFile, decode_frames

VERSION = 1
"""Of what is noted down; what is remembered from another version is looked at again."""

UNEVEN = 0.25
"""An interval between two frames is uneven where it differs from the median one by more than this share of it."""

Picture = UInt8[ndarray, "height width 3"] | UInt8[ndarray, "height width"] | UInt16[ndarray, "height width"]
Problem = Literal["", "missing", "unreadable", "no_video", "broken"]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What is known of a file after looking at all of it.

    Args:
        form: a `video` file, a `folder` of pictures, or an `array` in an npz or mat file.
        problem: `unreadable` where not one frame came out of it, `broken` where it fails on the way; empty where all
            of it can be read.
        reason: of the problem, without the path.
        frames: that decode.
        announced_frames: by the header, less those that it marks as not to be shown; 0 where it says nothing.
        seconds: from the first frame to the end of the last; None where there are no time stamps that can be used.
        lost_s: by how many seconds the file ends before the end that its header announces, sound included.
        rate: frames a second, from the median interval; None as for seconds.
        uneven: share of the intervals between frames that differ from the median one by more than a quarter.
        width, height: of the frames as they are shown.
        bits: of one channel, 8 or 16.
        rotation: degrees by which stored pictures are turned before they are shown; -1 where they are mirrored.
        damaged: frames that the decoder repaired.
        blank: share of frames that are of one color.
        empty: share of frames that are 0 throughout: depth without any reading.
        signature: for finding copies; empty where there is nothing to see.
    """

    form: Literal["video", "folder", "array"]
    problem: Problem = ""
    reason: str = ""
    frames: int = 0
    announced_frames: int = 0
    seconds: float | None = None
    lost_s: float = 0.0
    rate: float | None = None
    uneven: float = 0.0
    width: int = 0
    height: int = 0
    codec: str = ""
    pixel_format: str = ""
    bits: int = 8
    rotation: int = 0
    damaged: int = 0
    blank: float = 0.0
    empty: float = 0.0
    signature: str = ""


@dataclass(kw_only=True)
class _Notes:
    """What is seen while frames go by."""

    frames: int = 0
    looked_at: int = 0
    blank: int = 0
    empty: int = 0
    damaged: int = 0
    rotation: int = 0
    size: tuple[int, int] = (0, 0)
    announced_frames: int = 0
    announced_s: float = 0.0
    end_s: float | None = None
    codec: str = ""
    pixel_format: str = ""
    bits: int = 8


def inspect(path: str, kind: Modality, options: ReadOptions = READ_OPTIONS) -> Inspection:
    """Look at all of a file. What is wrong with it is in the answer; nothing is raised for it.

    Args:
        path: a video file, a folder of pictures, an npz or mat file, or a URL of one.
        kind: what it is to be read as.
        options: the limits that hold, and where copies of URLs lie.
    """
    notes, stamps, builder = _Notes(), _Stamps(), SignatureBuilder()
    file = path
    form: Literal["video", "folder", "array"] = "array" if Path(path).suffix.lower() in ARRAY_SUFFIXES else "video"
    problem: Problem = ""
    reason = ""
    try:
        file = local_path(path, options)
        with closing(local_source(file, replace(options, isolation="none", backend="pyav"))) as source:
            if isinstance(source, ImageFolder | ArrayFile):
                form = source.form
                _inspect_images(source, kind, notes, builder)
            elif isinstance(source, VideoFile):
                form = source.form
                _inspect_video(source, kind, options, notes, stamps, builder)
        if notes.frames == 0:
            raise UnreadableVideo(f"{file}: not one frame can be decoded")
    except UnreadableVideo as error:
        reason = str(error).removeprefix(f"{path}: ").removeprefix(f"{file}: ").replace(file, path)
        problem = _problem(file, error, notes.frames)
    seconds, rate, uneven = stamps.measured()
    return Inspection(
        form=form,
        problem=problem,
        reason=reason,
        frames=notes.frames,
        announced_frames=notes.announced_frames,
        seconds=seconds,
        lost_s=0.0 if notes.end_s is None else max(notes.announced_s - notes.end_s, 0.0),
        rate=rate,
        uneven=uneven,
        width=notes.size[0],
        height=notes.size[1],
        codec=notes.codec,
        pixel_format=notes.pixel_format,
        bits=notes.bits,
        rotation=notes.rotation,
        damaged=notes.damaged,
        blank=notes.blank / max(notes.looked_at, 1),
        empty=notes.empty / max(notes.looked_at, 1),
        signature="" if problem else builder.signature(notes.frames),
    )


class _Stamps:
    """Time stamps of frames as they come, and what they say."""

    def __init__(self) -> None:
        self.usable = True
        self.second = 1.0
        self._stamps = array("q")

    def add(self, stamp: int | None) -> None:
        if stamp is None:
            self.usable = False
        else:
            self._stamps.append(stamp)

    def measured(self) -> tuple[float | None, float | None, float]:
        """Seconds, frames a second, and the share of uneven intervals."""
        steps = np.diff(np.asarray(self._stamps))
        if not self.usable or len(steps) == 0 or steps.min() <= 0:
            return None, None, 0.0
        middle = float(np.median(steps))
        # A container that counts in coarse units, such as milliseconds, rounds every stamp by up to one of them.
        slack = max(UNEVEN * middle, 1.5)
        seconds = (self._stamps[-1] - self._stamps[0] + middle) / self.second
        return seconds, self.second / middle, float(np.mean(np.abs(steps - middle) > slack))


def _inspect_video(
    source: VideoFile, kind: Modality, options: ReadOptions, notes: _Notes, stamps: _Stamps, builder: SignatureBuilder
) -> None:
    file = source.path
    _inspect_packets(file, options, notes)
    converter = VideoReformatter()
    orientation = UPRIGHT
    with open_video(file, options.limits) as (container, stream):
        stored = stream.codec_context.format
        notes.codec = stream.codec_context.name
        notes.pixel_format = "" if stored is None else stored.name
        notes.bits = 16 if stored is not None and stored.components[0].bits > 8 else 8
        # AVI stores no presentation times: where frames are reordered, FFmpeg's guess is in the wrong order.
        stamps.usable = not (container.format.name == "avi" and stream.codec_context.has_b_frames)
        stamps.second = 1 / float(stream.time_base) if stream.time_base else 1.0
        form = "gray16le" if kind == "depth" and notes.bits == 16 else "gray"
        for frame in decode_frames(file, container, stream, options.limits):
            if notes.frames == 0:
                orientation = orientation_of(frame)
                notes.size = (frame.height, frame.width) if orientation.transposed else (frame.width, frame.height)
                notes.rotation = -1 if sum(orientation) % 2 else round(frame.rotation) % 360
            stamps.add(frame.pts)
            notes.damaged += bool(frame.is_corrupt)
            if builder.wants(notes.frames):
                small = converter.reformat(frame, width=SIDE, height=SIDE, format=form, interpolation="AREA")
                _take(notes, builder, orientation.apply(small.to_ndarray()))
            notes.frames += 1
    _ = source.timeline  # refuses what no reader would trust, such as an AVI file that lost frames


def _inspect_packets(file: str, options: ReadOptions, notes: _Notes) -> None:
    """What the header announces and where the streams end; the decoding that follows says what is wrong with them."""
    discarded, before_first_key, keyed = 0, 0, False
    begin, end = np.inf, -np.inf
    with open_video(file, options.limits) as (container, stream):
        try:
            for number, packet in enumerate(packets_of(container, None)):
                if number > 10 * options.limits.frames:
                    break
                stamp = packet.dts if packet.pts is None else packet.pts
                if packet.size == 0 or stamp is None or packet.time_base is None:
                    continue
                begin = min(begin, float(stamp * packet.time_base))
                end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base))
                if packet.stream_index == stream.index:
                    keyed = keyed or packet.is_keyframe
                    discarded += packet.is_discard
                    before_first_key += not (keyed or packet.is_discard)
        except (av.FFmpegError, OSError):
            pass
        if stream.frames:
            notes.announced_frames = max(stream.frames - discarded - before_first_key, 0)
        if container.duration is not None and end > begin:
            notes.announced_s = container.duration / av.time_base
            notes.end_s = end - begin


def _inspect_images(source: ImageFolder | ArrayFile, kind: Modality, notes: _Notes, builder: SignatureBuilder) -> None:
    first = source.files[0] if isinstance(source, ImageFolder) else Path(source.path)
    for image in source.iter_frames(range(source.num_frames), "rgb" if kind == "rgb" else "gray"):
        if notes.frames == 0:
            notes.size, notes.bits = (image.shape[1], image.shape[0]), 8 * image.dtype.itemsize
            notes.codec = first.suffix.lower().removeprefix(".")
        if builder.wants(notes.frames):
            _take(notes, builder, _small(image))
        notes.frames += 1


def _take(notes: _Notes, builder: SignatureBuilder, picture: ndarray) -> None:
    notes.looked_at += 1
    notes.blank += bool(int(picture.max()) - int(picture.min()) <= 1)
    notes.empty += not picture.any()
    builder.add(notes.frames, picture.astype(np.float64))


def _small(picture: Picture) -> ndarray:
    """Return the means over a grid, as gray."""
    gray = Image.fromarray(picture).convert("L") if picture.ndim == 3 else Image.fromarray(picture.astype(np.float32))
    return np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)


def _problem(file: str, error: UnreadableVideo, frames: int) -> Problem:
    if isinstance(error.__cause__, FileNotFoundError) or ("://" not in file and not Path(file).exists()):
        return "missing"
    if str(error).endswith(": has no video stream"):
        return "no_video"
    return "broken" if frames else "unreadable"

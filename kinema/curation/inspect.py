"""Inspection of a file: decode it once from first to last frame and record its properties and problems."""

from array import array
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy import ndarray
from PIL import Image

from kinema.data.duplicates import SIDE, SignatureBuilder
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
"""Version of stored inspections; other versions are inspected again."""

UNEVEN = 0.25
"""Relative deviation from the median above which a frame interval counts as uneven."""

Form = Literal["video", "folder", "array"]
Problem = Literal["", "missing", "unreadable", "no_video", "broken"]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Properties and problems of a file.

    Attributes:
        form: `video` for a video file, `folder` for a folder of images, `array` for an npz or mat file.
        problem: `unreadable` if no frame decodes, `broken` if decoding fails later; empty if all frames decode.
        reason: Description of the problem, without the path.
        frames: Number of frames that decode.
        announced_frames: Number of frames in the header, less those marked as not displayed; 0 if unknown.
        seconds: Time from the first frame to the end of the last [s]. None without usable time stamps.
        lost_s: Time missing at the end, compared with the duration in the header, sound included [s].
        rate: Frame rate from the median interval [1/s]. None without usable time stamps.
        uneven: Share of frame intervals that differ from the median by more than a quarter.
        width: Width of the frames as displayed [px].
        height: Height of the frames as displayed [px].
        codec: Name of the codec, or suffix of image and array files.
        pixel_format: Pixel format of a video; empty for other files.
        bits: Bits per channel, 8 or 16.
        rotation: Rotation from stored to displayed frames [degrees]; -1 for mirrored frames.
        damaged: Number of frames in which the decoder concealed errors.
        blank: Share of frames with a single color.
        empty: Share of frames that are 0 throughout, i.e. depth without any reading.
        signature: Signature for finding copies; empty for blank and broken files.
    """

    form: Form
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
class _Scan:
    """Measurements of a file during decoding; `header` has the fields of the inspection that its header gives."""

    form: Form
    frames: int = 0
    sampled: int = 0
    blank: int = 0
    empty: int = 0
    damaged: int = 0
    header: dict[str, Any] = field(default_factory=dict)
    has_stamps: bool = True
    ticks_per_s: float = 1.0
    stamps: "array[int]" = field(default_factory=lambda: array("q"))
    builder: SignatureBuilder = field(default_factory=SignatureBuilder)

    def add_image(self, image: ndarray) -> None:
        """Add the current frame, as a small gray image."""
        self.sampled += 1
        self.blank += bool(int(image.max()) - int(image.min()) <= 1)
        self.empty += not image.any()
        self.builder.add(self.frames, image.astype(np.float64))

    def timing(self) -> tuple[float | None, float | None, float]:
        """Return seconds, frame rate, and the share of uneven intervals."""
        steps = np.diff(np.asarray(self.stamps))
        if not self.has_stamps or len(steps) == 0 or steps.min() <= 0:
            return None, None, 0.0
        median = float(np.median(steps))
        # A container with coarse time units, such as milliseconds, rounds every stamp by up to one unit.
        slack = max(UNEVEN * median, 1.5)
        seconds = (self.stamps[-1] - self.stamps[0] + median) / self.ticks_per_s
        return seconds, self.ticks_per_s / median, float(np.mean(np.abs(steps - median) > slack))

    def inspection(self, problem: Problem, reason: str) -> Inspection:
        """Return the result."""
        seconds, rate, uneven = self.timing()
        return Inspection(
            form=self.form,
            problem=problem,
            reason=reason,
            frames=self.frames,
            seconds=seconds,
            rate=rate,
            uneven=uneven,
            damaged=self.damaged,
            blank=self.blank / max(self.sampled, 1),
            empty=self.empty / max(self.sampled, 1),
            signature="" if problem else self.builder.signature(self.frames),
            **self.header,
        )


def inspect(path: str, kind: Modality, options: ReadOptions = READ_OPTIONS) -> Inspection:
    """Decode a video file, folder of images, npz or mat file, or URL of one; its problems are part of the result."""
    file = path
    scan = _Scan(form="array" if Path(path).suffix.lower() in ARRAY_SUFFIXES else "video")
    problem: Problem = ""
    reason = ""
    try:
        file = local_path(path, options)
        with closing(local_source(file, replace(options, isolation="none", backend="pyav"))) as source:
            if isinstance(source, ImageFolder | ArrayFile):
                scan.form = source.form
                _scan_images(source, kind, scan)
            elif isinstance(source, VideoFile):
                scan.form = source.form
                _scan_video(source, kind, options, scan)
        if scan.frames == 0:
            raise UnreadableVideo(f"{file}: no frame can be decoded", path=file)
    except UnreadableVideo as error:
        reason = str(error).removeprefix(f"{path}: ").removeprefix(f"{file}: ").replace(file, path)
        problem = _problem(file, error, scan.frames)
    return scan.inspection(problem, reason)


def _scan_video(source: VideoFile, kind: Modality, options: ReadOptions, scan: _Scan) -> None:
    file = source.path
    _scan_packets(file, options, scan)
    converter = VideoReformatter()
    orientation = UPRIGHT
    with open_video(file, options.limits) as (container, stream):
        stored = stream.codec_context.format
        bits = 16 if stored is not None and stored.components[0].bits > 8 else 8
        pixel_format = "" if stored is None else stored.name
        scan.header.update(codec=stream.codec_context.name, pixel_format=pixel_format, bits=bits)
        # AVI stores no presentation times: if frames are reordered, FFmpeg guesses them in the wrong order.
        scan.has_stamps = not (container.format.name == "avi" and stream.codec_context.has_b_frames)
        scan.ticks_per_s = 1 / float(stream.time_base) if stream.time_base else 1.0
        form = "gray16le" if kind == "depth" and bits == 16 else "gray"
        for frame in decode_frames(file, container, stream, options.limits):
            if scan.frames == 0:
                orientation = orientation_of(frame)
                size = (frame.height, frame.width) if orientation.transposed else (frame.width, frame.height)
                rotation = -1 if sum(orientation) % 2 else round(frame.rotation) % 360
                scan.header.update(width=size[0], height=size[1], rotation=rotation)
            if frame.pts is None:
                scan.has_stamps = False
            else:
                scan.stamps.append(frame.pts)
            scan.damaged += bool(frame.is_corrupt)
            if scan.builder.needs(scan.frames):
                small = converter.reformat(frame, width=SIDE, height=SIDE, format=form, interpolation="AREA")
                scan.add_image(orientation.apply(small.to_ndarray()))
            scan.frames += 1
    _ = source.timeline  # raises for files that all readers refuse, such as an AVI file that lost frames


def _scan_packets(file: str, options: ReadOptions, scan: _Scan) -> None:
    """Record the header and the end of the streams; errors are left to the decoding that follows."""
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
            scan.header["announced_frames"] = max(stream.frames - discarded - before_first_key, 0)
        if container.duration is not None and end > begin:
            scan.header["lost_s"] = max(container.duration / av.time_base - (end - begin), 0.0)


def _scan_images(source: ImageFolder | ArrayFile, kind: Modality, scan: _Scan) -> None:
    first = source.files[0] if isinstance(source, ImageFolder) else Path(source.path)
    for image in source.iter_frames(range(source.num_frames), "rgb" if kind == "rgb" else "gray"):
        if scan.frames == 0:
            codec, bits = first.suffix.lower().removeprefix("."), 8 * image.dtype.itemsize
            scan.header.update(width=image.shape[1], height=image.shape[0], codec=codec, bits=bits)
        if scan.builder.needs(scan.frames):
            gray = Image.fromarray(image).convert("L") if image.ndim == 3 else Image.fromarray(image.astype(np.float32))
            scan.add_image(np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32))
        scan.frames += 1


def _problem(file: str, error: UnreadableVideo, frames: int) -> Problem:
    if isinstance(error.__cause__, FileNotFoundError) or ("://" not in file and not Path(file).exists()):
        return "missing"
    if "no video stream" in str(error):
        return "no_video"
    return "broken" if frames else "unreadable"

"""Inspection of a file: decode it once from first to last frame and record its properties and problems."""

import os
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
from kinema.data.file_times import FileTimes
from kinema.errors import UnreadableVideo
from kinema.modality import DepthEncoding, Modality, ReadAs
from kinema.video.array_file import ARRAY_SUFFIXES, ArrayFile
from kinema.video.container import UPRIGHT, Timeline, open_video, packets_of, reading, seekable
from kinema.video.fields import second_field_test
from kinema.video.gray import gray_picture
from kinema.video.image_folder import ImageFolder
from kinema.video.pixels import FrameFacts
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.remarks import COLOR_REMARKS, Remark
from kinema.video.remote_cache import local_path
from kinema.video.source import local_source
from kinema.video.streams import is_gray_format, split_stream
from kinema.video.video_file import VideoFile, decode_frames

VERSION = 4
"""Version of stored inspections; other versions are inspected again."""

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
        seconds: End of the last frame on a player's clock [s]. None without usable time stamps.
        lost_s: Time missing at the end, compared with the duration in the header, sound included [s].
        start_s: Time of the first frame on the clock of files recorded together [s]. None without time stamps.
        rate: Mean frame rate [1/s]. None without usable time stamps.
        uneven: Share of frame intervals that differ from the median by more than a quarter or, if it is larger, share
            of the duration by which a frame is off its place at an even rate.
        width: Width of the frames as displayed, with square pixels [px].
        height: Height of the frames as displayed, with square pixels [px].
        stored_width: Width of the frames as read, upright [px].
        stored_height: Height of the frames as read, upright [px].
        codec: Name of the codec, or suffix of image and array files.
        pixel_format: Pixel format of a video; empty for other files.
        bits: Bits per channel, 8 or 16.
        rotation: Rotation from stored to displayed frames [degrees]; -1 for mirrored frames.
        damaged: Number of frames in which the decoder concealed errors.
        blank: Share of frames with a single color.
        empty: Share of frames that are 0 throughout, i.e. depth without any reading.
        signature: Signature for finding copies; empty for blank and broken files.
        remarks: Remarks on the frames.
    """

    form: Form
    problem: Problem = ""
    reason: str = ""
    frames: int = 0
    announced_frames: int = 0
    seconds: float | None = None
    lost_s: float = 0.0
    start_s: float | None = None
    rate: float | None = None
    uneven: float = 0.0
    width: int = 0
    height: int = 0
    stored_width: int = 0
    stored_height: int = 0
    codec: str = ""
    pixel_format: str = ""
    bits: int = 8
    rotation: int = 0
    damaged: int = 0
    blank: float = 0.0
    empty: float = 0.0
    signature: str = ""
    remarks: tuple[Remark, ...] = ()

    @property
    def times(self) -> FileTimes:
        """Times of the frames."""
        last = None
        if self.start_s is not None and self.rate:
            last = self.start_s + (self.frames - 1) / self.rate
        return FileTimes(self.frames, self.rate, self.uneven, self.start_s, last)


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
    timeline: Timeline | None = None
    builder: SignatureBuilder = field(default_factory=SignatureBuilder)

    def add_image(self, image: ndarray) -> None:
        """Add the current frame, as a small gray image."""
        self.sampled += 1
        self.blank += bool(int(image.max()) - int(image.min()) <= 1)
        self.empty += not image.any()
        self.builder.add(self.frames, image.astype(np.float64))

    def set_sizes(self, stored: tuple[int, int], displayed: tuple[int, int]) -> None:
        """Record width and height of upright frames."""
        self.header.update(stored_width=stored[0], stored_height=stored[1], width=displayed[0], height=displayed[1])

    def inspection(self, problem: Problem, reason: str) -> Inspection:
        """Return the result."""
        times = FileTimes.of(self.timeline, self.frames)
        seconds = times.seconds
        if seconds is not None and self.timeline is not None:
            seconds += self.timeline.seconds[0]
        return Inspection(
            form=self.form,
            problem=problem,
            reason=reason,
            frames=self.frames,
            seconds=seconds,
            start_s=times.first_s,
            rate=times.rate,
            uneven=times.uneven,
            damaged=self.damaged,
            blank=self.blank / max(self.sampled, 1),
            empty=self.empty / max(self.sampled, 1),
            signature="" if problem else self.builder.signature(self.frames),
            **self.header,
        )


def inspect(
    path: str, kind: Modality, options: ReadOptions = READ_OPTIONS, encoding: DepthEncoding | None = None
) -> Inspection:
    """Decode a video file, folder of images, npz or mat file, or URL of one; its problems are part of the result."""
    file = path
    scan = _Scan(form="array" if Path(split_stream(path)[0]).suffix.lower() in ARRAY_SUFFIXES else "video")
    read_as: ReadAs = "rgb" if kind == "rgb" else encoding or "depth"
    problem: Problem = ""
    reason = ""
    try:
        file = local_path(path, options)
        options_here = replace(options, isolation="none", backend="pyav")
        with closing(local_source(file, options_here, read_as)) as source, reading(file):
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
    _scan_packets(file, kind, options, scan)
    converter = VideoReformatter()
    orientation = UPRIGHT
    with open_video(file, options.limits, kind) as (container, stream):
        stored = stream.codec_context.format
        bits = 16 if stored is not None and stored.components[0].bits > 8 else 8
        pixel_format = "" if stored is None else stored.name
        scan.header.update(codec=stream.codec_context.name, pixel_format=pixel_format, bits=bits)
        is_depth_in_color = kind == "depth" and stored is not None and not is_gray_format(stored)
        facts = FrameFacts(container, stream)
        form = "gray16le" if kind == "depth" and bits == 16 else "gray"
        for frame in decode_frames(file, container, stream, options.limits):
            facts.add(frame)
            if scan.frames == 0:
                orientation = facts.orientation
                rotation = -1 if sum(orientation) % 2 else round(frame.rotation) % 360
                scan.set_sizes(facts.size[::-1] if orientation.transposed else facts.size, facts.displayed_size)
                scan.header["rotation"] = rotation
            scan.damaged += bool(frame.is_corrupt)
            if scan.builder.needs(scan.frames):
                if is_depth_in_color:
                    gray_picture(file, frame, source.read_as, converter, 1)  # refuses colors
                small = converter.reformat(frame, width=SIDE, height=SIDE, format=form, interpolation="AREA")
                scan.add_image(orientation.apply(small.to_ndarray()))
            scan.frames += 1
    scan.timeline = source.timeline  # raises for files that all readers refuse, such as an AVI file that lost frames
    on_frames = tuple(r for r in facts.remarks if kind == "rgb" or r.kind not in COLOR_REMARKS)
    scan.header["remarks"] = (*source.stream_remarks, *on_frames)


def _scan_packets(file: str, kind: Modality, options: ReadOptions, scan: _Scan) -> None:
    """Record the header and the end of the streams; errors are left to the decoding that follows."""
    discarded, before_first_key, keyed = 0, 0, False
    begin, end = np.inf, -np.inf
    with open_video(file, options.limits, kind) as (container, stream):
        is_second_field = second_field_test(stream)
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
                    # A second field is no frame of its own.
                    discarded += packet.is_discard or (is_second_field is not None and is_second_field(packet))
                    before_first_key += not (keyed or packet.is_discard)
        except Exception:  # the decoding that follows reports it
            pass
        if stream.frames:
            scan.header["announced_frames"] = max(stream.frames - discarded - before_first_key, 0)
        if container.duration is not None and end > begin:
            # Seekable containers count their duration from 0 on, where a recording that starts later has no frames.
            lasts = max(end - begin, end if seekable(container) else 0.0)
            scan.header["lost_s"] = max(container.duration / av.time_base - lasts, 0.0)


def _scan_images(source: ImageFolder | ArrayFile, kind: Modality, scan: _Scan) -> None:
    scan.timeline = source.timeline
    first = source.files[0] if isinstance(source, ImageFolder) else Path(source.path)
    for image in source.iter_frames(range(source.num_frames), "rgb" if kind == "rgb" else "gray"):
        if scan.frames == 0:
            codec, bits = first.suffix.lower().removeprefix("."), 8 * image.dtype.itemsize
            scan.header.update(codec=codec, bits=bits)
            scan.set_sizes((image.shape[1], image.shape[0]), (image.shape[1], image.shape[0]))
        if scan.builder.needs(scan.frames):
            gray = Image.fromarray(image).convert("L") if image.ndim == 3 else Image.fromarray(image.astype(np.float32))
            scan.add_image(np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32))
        scan.frames += 1
    if kind == "rgb" and isinstance(source, ImageFolder):
        scan.header["remarks"] = source.remarks_on(range(source.num_frames))


def _problem(file: str, error: UnreadableVideo, frames: int) -> Problem:
    if isinstance(error.__cause__, FileNotFoundError) or (
        "://" not in file and not os.path.exists(split_stream(file)[0])
    ):
        return "missing"
    if "no video stream" in str(error):
        return "no_video"
    return "broken" if frames else "unreadable"

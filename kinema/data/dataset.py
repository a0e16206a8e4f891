"""Samples of a manifest as pure functions of a draw.

A sample that cannot be read becomes a `Failure`, never another sample; the consumer of the batches decides whether to
stop or to count it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import NamedTuple, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from kinema.data.manifest import Entry, Manifest
from kinema.data.pixel_box import PixelBox
from kinema.data.samplers import Draw
from kinema.errors import ManifestError, UnreadableSample, UnreadableVideo
from kinema.modality import Modality
from kinema.transforms.augment import Augmentation, AugmentParams, augment, draw_params, mix
from kinema.transforms.geometry import FULL_FRAME, Box, Geometry, resized_bytes, view_clips
from kinema.transforms.preprocessing import Preprocessing, depth_levels, subject_box
from kinema.transforms.sampling import FrameTimes, Grid, Pairing, Sampling, pair_frames, same_rate
from kinema.video.container import Timeline
from kinema.video.read_options import READ_OPTIONS, Limits, ReadOptions
from kinema.video.source import FrameSource, count_frames, open_source
from kinema.video.unreadable import over_limit

REPAIR_HINT = ". Repair the file, or move it away and make the manifest again with `kinema prepare`."


class Sample(TypedDict):
    """Clips (uint8; views, channels, time, height, width), one view in training; labels; position in the manifest."""

    inputs: dict[Modality, Tensor]
    targets: dict[str, Tensor]
    index: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Sample that could not be read.

    Attributes:
        index: Position in the manifest.
        message: Manifest, line and problem.
        path: File at fault, or the manifest.
        line: Line of the sample in the manifest.
    """

    index: int
    message: str
    path: str = ""
    line: int | None = None


class Placement(NamedTuple):
    """Frames that a sampling rule takes from an open sample.

    Attributes:
        sampling: Rule in places of the grid.
        grid: Places and their frames in RGB, or in depth without RGB.
        pairing: Frames of depth for those of RGB; None for the same numbers.
    """

    sampling: Sampling
    grid: Grid
    pairing: Pairing | None

    def numbers(self, modality: Modality, frames: Sequence[int]) -> Sequence[int]:
        """Return the frames of a modality for frames of the grid."""
        if modality == "rgb" or self.pairing is None or frames[-1] >= len(self.pairing.numbers):
            return frames
        paired: list[int] = self.pairing.numbers[list(frames)].tolist()
        return paired


def place_frames(entry: Entry, sources: Mapping[Modality, FrameSource], sampling: Sampling) -> Placement:
    """Return the frames of a sample that a rule takes, by number or, where rates differ or vary, by time.

    Raises:
        UnreadableVideo: A file has a single frame for a clip of several, lacks time stamps that the rule requires, or
            has no frame of depth recorded with RGB.
    """
    modality: Modality = "rgb" if "rgb" in sources else "depth"
    source = sources[modality]
    start, stop = frames_of(entry, source, modality)
    if stop - start == 1 and sampling.frames > 1:
        raise UnreadableVideo(
            f"{source.path}: has a single frame; expected at least 2 frames to recognize an action", path=source.path
        )
    pairing = None
    if len(sources) == 2 and entry.rate != 0:
        pairing = pair_timelines(source.timeline, sources["depth"].timeline)
    if pairing is not None:
        # More frames than the file has are an error of the reading that follows.
        start, stop = max(start, pairing.start), stop if stop > len(pairing.numbers) else min(stop, pairing.stop)
        if start >= stop:
            path = sources["depth"].path
            raise UnreadableVideo(f"{path}: no frame was recorded with {source.path}, by their time stamps", path=path)
    if entry.rate is not None and (modality == "rgb" or not entry.rgb):
        times = FrameTimes(first=start, num_frames=stop - start, rate=entry.rate or None)
    else:
        times = _frame_times(source.timeline, start, stop)
    try:
        rule, grid = sampling.on(times)
    except ValueError as error:
        raise UnreadableVideo(f"{source.path}: {error}", path=source.path, field="interval_s") from error
    return Placement(rule, grid, pairing)


def frames_of(entry: Entry, source: FrameSource, modality: Modality = "rgb") -> tuple[int, int]:
    """Return the half-open range of the sample's frames in a file; count frames if the manifest has no number."""
    if entry.start_frame is not None and entry.stop_frame is not None:
        start, stop = entry.start_frame, entry.stop_frame
    elif entry.start_s is not None and entry.stop_s is not None:
        return source.frame_range(entry.start_s, entry.stop_s)
    else:
        start, stop = 0, entry.frames if entry.frames is not None else source.num_frames
    if modality == "rgb" or not entry.rgb or not entry.rate:
        return start, stop
    # The manifest counts frames of RGB; depth alone may have another rate.
    timeline = source.timeline
    own = FrameTimes.stamped(0, np.array(timeline.stamps), timeline.second).rate if timeline is not None else None
    if timeline is None or own is None or same_rate(own, entry.rate):
        return start, stop
    start, stop = round(start * own / entry.rate), round(stop * own / entry.rate)
    return start, stop - 1 if stop == len(timeline.stamps) + 1 else stop


def _frame_times(timeline: Timeline | None, start: int, stop: int) -> FrameTimes:
    stamps = () if timeline is None else (timeline.stamps or timeline.pace)[start:stop]
    if timeline is None or len(stamps) < stop - start:
        return FrameTimes(first=start, num_frames=stop - start)
    return FrameTimes.stamped(start, np.array(stamps), timeline.second)


def pair_timelines(rgb: Timeline | None, depth: Timeline | None) -> Pairing | None:
    """Return the frames of depth for those of RGB by time, or None where they belong together by number."""
    if rgb is None or depth is None or not rgb.stamps or not depth.stamps:
        return None
    if (rgb.stamps, rgb.second, rgb.epoch) == (depth.stamps, depth.second, depth.epoch):
        return None
    return pair_frames(rgb.common_s, depth.common_s)


def read_clips(
    entry: Entry,
    *,
    locate: Callable[[str], str],
    sampling: Sampling,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    rng: np.random.Generator | None = None,
    read_options: ReadOptions = READ_OPTIONS,
) -> dict[Modality, Tensor]:
    """Return one clip per modality of a sample: the same frames and the same crop for all.

    Args:
        entry: Sample.
        locate: Function from an entry's path to a file or URL.
        sampling: Rule that selects the frames.
        preprocessing: Preprocessing of the model.
        augmentation: Augmentation of a training clip; None for the center crop.
        rng: Generator of a training clip's frames and augmentation; None for the middle frames.
        read_options: Backend, isolation and limits.

    Returns:
        Clips as uint8, (channels, time, height, width).

    Raises:
        UnreadableVideo: A file is missing, cannot be decoded, or has one frame for a clip of several. A longer video
            with too few frames for the clip repeats some by the sampling rule.
    """
    with ExitStack() as files:
        sources = open_sources(entry, locate, preprocessing, read_options, files)
        place = place_frames(entry, sources, sampling)
        indices = place.grid.frames(place.sampling.indices(place.grid.num_places, rng))
        if augmentation is None or rng is None:
            params = AugmentParams(Geometry(preprocessing.short_side, rounding=preprocessing.rounding))
        else:
            params = draw_params(augmentation, preprocessing, rng)
        frames, boxes = _read(entry, sources, place, indices.tolist(), preprocessing, read_options.limits)
        aspects = {m: sources[m].pixel_aspect for m in frames}
    return {
        m: preprocessing.to_channels(m, augment(read, params, preprocessing.size, boxes[m], aspects[m]))
        for m, read in frames.items()
    }


def read_views(
    entry: Entry,
    *,
    locate: Callable[[str], str],
    sampling: Sampling,
    preprocessing: Preprocessing,
    read_options: ReadOptions = READ_OPTIONS,
) -> dict[Modality, Tensor]:
    """Return the views of a test, `sampling.clips` x `preprocessing.crops`, per modality of a sample.

    Frames that several views need are read and resized once. Arguments and errors are those of `read_clips`.

    Returns:
        Views as uint8, (views, channels, time, height, width); the crops of a clip follow one another.
    """
    with ExitStack() as files:
        sources = open_sources(entry, locate, preprocessing, read_options, files)
        place = place_frames(entry, sources, sampling)
        views = place.grid.frames(place.sampling.views(place.grid.num_places))
        needed, places = np.unique(views, return_inverse=True)
        frames, boxes = _read(entry, sources, place, needed.tolist(), preprocessing, read_options.limits)
        aspects = {m: sources[m].pixel_aspect for m in frames}
    return {
        m: preprocessing.to_channels(
            m,
            view_clips(
                read,
                places.reshape(views.shape),
                short_side=preprocessing.short_side,
                size=preprocessing.size,
                num_crops=preprocessing.crops,
                subject=boxes[m],
                pixel_aspect=aspects[m],
                rounding=preprocessing.rounding,
            ),
        )
        for m, read in frames.items()
    }


def open_sources(
    entry: Entry,
    locate: Callable[[str], str],
    preprocessing: Preprocessing,
    read_options: ReadOptions,
    files: ExitStack,
) -> dict[Modality, FrameSource]:
    """Return the open files that a sample needs, which `files` closes."""
    # With its own RGB box, a sample needs no depth to crop RGB.
    modalities = preprocessing.files if entry.rgb_box is None else preprocessing.modalities
    for modality in modalities:
        if not entry.source(modality):
            user = "the model" if modality in preprocessing.modalities else "the crop to the subject"
            raise UnreadableVideo(
                f"{modality}: no file; {user} requires {modality}. Fill the column {modality}.", field=modality
            )
    if read_options.deinterlace is None and preprocessing.deinterlace != "none":
        read_options = replace(read_options, deinterlace=preprocessing.deinterlace)
    return {
        m: files.enter_context(open_source(locate(entry.source(m)), read_options, preprocessing.read_as(m)))
        for m in modalities
    }


def _read(
    entry: Entry,
    sources: Mapping[Modality, FrameSource],
    place: Placement,
    indices: Sequence[int],
    preprocessing: Preprocessing,
    limits: Limits,
) -> tuple[dict[Modality, Tensor], dict[Modality, Box]]:
    """Return the frames that the model takes, (time, height, width, channels), and the box to crop each modality to.

    RGB with its own box is returned cropped; the subject's box then applies to depth alone.
    """
    frames: dict[Modality, Tensor] = {}
    for modality in preprocessing.modalities:
        source = sources[modality]
        if modality == "rgb":
            frames[modality] = torch.from_numpy(_crop_pixels(source.path, source.read_rgb(indices), entry.rgb_box))
        else:
            read = source.read_gray(place.numbers(modality, indices))
            depth = depth_levels(read, preprocessing.depth, source.path)
            frames[modality] = torch.from_numpy(depth).unsqueeze(-1)
    for modality, read_frames in frames.items():
        size = resized_bytes(read_frames, preprocessing.short_side, sources[modality].pixel_aspect)
        if size > limits.clip_bytes:  # the longer side of thin frames
            problem = f"{len(indices)} frames resized to short_side={preprocessing.short_side} take {size:,} bytes"
            raise over_limit(sources[modality].path, problem, limits, "clip_bytes")
    boxes = dict.fromkeys(preprocessing.modalities, FULL_FRAME)
    if preprocessing.subject is None or "depth" not in sources:
        return frames, boxes
    if "depth" in frames:
        masked = frames["depth"].squeeze(-1).numpy()
    else:
        masked = sources["depth"].read_gray(place.numbers("depth", indices))
    box = subject_box(masked, preprocessing.subject, sources["depth"].pixel_aspect)
    return frames, {m: FULL_FRAME if m == "rgb" and entry.rgb_box is not None else box for m in boxes}


def _crop_pixels(
    path: str, rgb: UInt8[ndarray, "time height width 3"], box: PixelBox | None
) -> UInt8[ndarray, "time rows columns 3"]:
    if box is None:
        return rgb
    height, width = rgb.shape[1:3]
    if not box.fits(width, height):
        raise UnreadableVideo(
            f"{path}: rgb_box={box} exceeds the frames of {width} x {height} pixels", path=path, field="rgb_box"
        )
    # A copy, so that the large frames do not stay in memory with it.
    return np.ascontiguousarray(rgb[:, box.top : box.bottom, box.left : box.right])


class VideoDataset(Dataset[Sample | Failure]):
    """Dataset as a pure function from a draw to a sample, without epoch or random state.

    Args:
        manifest: Samples; a draw's index is a position in it.
        sampling: Sampling rule of the model.
        preprocessing: Preprocessing of the model.
        augmentation: Augmentation of draws with a seed.
        read_options: Backend, isolation and limits.

    Raises:
        ManifestError: The preprocessing crops to the subject, and the manifest's depth is not masked.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        sampling: Sampling,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        read_options: ReadOptions = READ_OPTIONS,
    ) -> None:
        coverage = None if manifest.depth is None else manifest.depth.coverage
        if preprocessing.subject is not None and coverage != "masked":
            facts = manifest.path.with_suffix(".json")
            raise ManifestError(
                f"{facts}: the crop to the subject requires coverage 'masked', got {coverage or 'no depth'}. If all "
                "but the person is 0, prepare the dataset again with --depth-range and --depth-coverage masked.",
                path=facts,
                field="coverage",
            )
        self.manifest = manifest
        self.sampling = sampling
        self.preprocessing = preprocessing
        # Depth is mixed as levels, where 0 is no reading, and gets its channels afterwards.
        self._one_channel = replace(preprocessing, depth_channels=1, depth_colors="gray")
        self.augmentation = augmentation or Augmentation()
        self.read_options = read_options

    def __len__(self) -> int:
        return len(self.manifest.entries)

    def __getitem__(self, draw: Draw) -> Sample | Failure:
        read: list[dict[Modality, Tensor]] = []
        current = draw
        try:
            for current in (draw,) if draw.partner is None else (draw, draw.partner):
                entry, locate = self.manifest.entries[current.index], self.manifest.locate
                if current.seed is None:
                    clips = read_views(
                        entry,
                        locate=locate,
                        sampling=self.sampling,
                        preprocessing=self._one_channel,
                        read_options=self.read_options,
                    )
                else:
                    drawn = read_clips(
                        entry,
                        locate=locate,
                        sampling=self.sampling,
                        preprocessing=self._one_channel,
                        augmentation=self.augmentation,
                        rng=np.random.default_rng(current.seed),
                        read_options=self.read_options,
                    )
                    clips = {modality: clip.unsqueeze(0) for modality, clip in drawn.items()}
                read.append(clips)
        except UnreadableVideo as error:
            line = self.manifest.entries[current.index].line
            message = f"{self.manifest.path}, line {line}: {error}"
            return Failure(current.index, message, error.path or str(self.manifest.path), line)
        targets = {head: torch.tensor(label) for head, label in self.manifest.targets(draw.index).items()}
        clips = read[0]
        if draw.partner is not None:
            # The last number keeps this stream apart from the one that augmented the sample.
            rng = np.random.default_rng((*(draw.seed or ()), 1))
            clips, weight = mix(read[0], read[1], self.augmentation, rng)
            targets = self._mixed_targets(draw.index, draw.partner.index, weight)
        inputs = {modality: self.preprocessing.to_channels(modality, clip) for modality, clip in clips.items()}
        return {"inputs": inputs, "targets": targets, "index": draw.index}

    def _mixed_targets(self, first: int, partner: int, weight: float) -> dict[str, Tensor]:
        """Return the weight of each class in a mixture of two samples."""
        mixed: dict[str, Tensor] = {}
        for head, names in self.manifest.classes.items():
            labels = [torch.tensor(self.manifest.targets(position)[head]) for position in (partner, first)]
            other, own = (F.one_hot(label, len(names)).float() for label in labels)
            mixed[head] = torch.lerp(other, own, weight)
        return mixed


def check_uncounted(
    manifest: Manifest, positions: Sequence[int], modality: Modality, read_options: ReadOptions
) -> None:
    """Count the frames of samples without a number in the manifest, which `prepare` failed to count.

    Raises:
        UnreadableSample: A sample cannot be read. It is reported here rather than after hours of training.
    """
    for position in positions:
        entry = manifest.entries[position]
        if entry.frames is None and entry.source(modality):
            try:
                count_frames(manifest.locate(entry.source(modality)), read_options, manifest.read_as(modality))
            except UnreadableVideo as error:
                raise UnreadableSample(
                    f"{manifest.path}, line {entry.line}: {str(error).rstrip('.')}{REPAIR_HINT}",
                    path=error.path,
                    line=entry.line,
                ) from error

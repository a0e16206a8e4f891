"""From a manifest to samples.

A sample is a pure function of its draw, so that workers cannot differ. A sample that cannot be read becomes a
`Failure`, never another sample; whoever takes the batches decides whether to stop or to count it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from kinema.data.manifest import Entry, Manifest
from kinema.data.samplers import Draw
from kinema.errors import ManifestError, UnreadableSample, UnreadableVideo
from kinema.modality import Modality
from kinema.transforms.augment import Augmentation, AugmentParams, augment, draw_params
from kinema.transforms.crops import center_geometry, view_clips
from kinema.transforms.depth import depth_levels, jet
from kinema.transforms.geometry import FULL_FRAME, Box
from kinema.transforms.mix import mix
from kinema.transforms.pixel_box import PixelBox
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling
from kinema.transforms.subject_crop import subject_box
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.source import FrameSource, count_frames, open_source

REPAIR_HINT = "; repair the file, or move it away and make the manifest again with `kinema prepare`"


class Sample(TypedDict):
    """Clips (uint8; views, channels, time, height, width), one view in training; labels; position in the manifest."""

    inputs: dict[Modality, Tensor]
    targets: dict[str, Tensor]
    index: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Sample that could not be read.

    Args:
        index: position in the manifest.
        message: manifest, line, and what is wrong.
        path: file at fault, or the manifest.
        line: line of the sample in the manifest.
    """

    index: int
    message: str
    path: str = ""
    line: int | None = None


def frames_of(entry: Entry, source: FrameSource) -> tuple[int, int]:
    """Return the sample's frames in its file as a half-open range; frames are counted where the manifest has none."""
    if entry.start_frame is not None and entry.stop_frame is not None:
        return entry.start_frame, entry.stop_frame
    if entry.start_s is not None and entry.stop_s is not None:
        return source.frame_range(entry.start_s, entry.stop_s)
    return 0, entry.frames if entry.frames is not None else source.num_frames


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
        locate: function from an entry's path to a file or URL.
        augmentation, rng: both for a training draw; neither for the middle frames, cropped in the middle.

    Returns:
        Bytes, (channels, time, height, width) each.

    Raises:
        UnreadableVideo: a file is missing, cannot be decoded, or has a single frame. A video that is shorter than the
            clip, but has more than one, repeats frames by the sampling's rule.
    """
    with ExitStack() as files:
        sources = _open_sources(entry, locate, preprocessing, read_options, files)
        start, stop = _range(entry, sources, sampling)
        indices = start + sampling.indices(stop - start, rng)
        if augmentation is None or rng is None:
            params = AugmentParams(center_geometry(preprocessing))
        else:
            params = draw_params(augmentation, preprocessing, rng)
        frames, boxes = _read(entry, sources, indices.tolist(), preprocessing)
    clips = {m: augment(read, params, preprocessing.size, boxes[m]) for m, read in frames.items()}
    return {modality: _to_channels(modality, clip, preprocessing) for modality, clip in clips.items()}


def read_views(
    entry: Entry,
    *,
    locate: Callable[[str], str],
    sampling: Sampling,
    preprocessing: Preprocessing,
    read_options: ReadOptions = READ_OPTIONS,
) -> dict[Modality, Tensor]:
    """Return the views of a test, `sampling.clips` x `preprocessing.crops`, per modality of a sample.

    Frames that several views need are read and resized once.

    Returns:
        Bytes, (views, channels, time, height, width) each; the crops of a clip follow one another.

    Raises:
        UnreadableVideo: as `read_clips`.
    """
    with ExitStack() as files:
        sources = _open_sources(entry, locate, preprocessing, read_options, files)
        start, stop = _range(entry, sources, sampling)
        views = start + sampling.views(stop - start)
        needed, places = np.unique(views, return_inverse=True)
        frames, boxes = _read(entry, sources, needed.tolist(), preprocessing)
    clips = {m: view_clips(read, places.reshape(views.shape), preprocessing, boxes[m]) for m, read in frames.items()}
    return {modality: _to_channels(modality, clip, preprocessing) for modality, clip in clips.items()}


def _open_sources(
    entry: Entry,
    locate: Callable[[str], str],
    preprocessing: Preprocessing,
    read_options: ReadOptions,
    files: ExitStack,
) -> dict[Modality, FrameSource]:
    # With an RGB box of its own, a sample needs no depth to crop RGB.
    wanted = preprocessing.files if entry.rgb_box is None else preprocessing.modalities
    for modality in wanted:
        if not entry.source(modality):
            user = "the model" if modality in preprocessing.modalities else "the crop to the subject"
            raise UnreadableVideo(f"no {modality} file is given, but {user} needs {modality}", field=modality)
    return {m: files.enter_context(open_source(locate(entry.source(m)), read_options)) for m in wanted}


def _range(entry: Entry, sources: Mapping[Modality, FrameSource], sampling: Sampling) -> tuple[int, int]:
    first = next(iter(sources.values()))
    start, stop = frames_of(entry, first)
    if stop - start == 1 and sampling.frames > 1:
        raise UnreadableVideo(f"{first.path}: has a single frame; no action can be recognized in one", path=first.path)
    return start, stop


def _read(
    entry: Entry,
    sources: Mapping[Modality, FrameSource],
    indices: Sequence[int],
    preprocessing: Preprocessing,
) -> tuple[dict[Modality, Tensor], dict[Modality, Box]]:
    """Return the frames that the model sees, (time, height, width, channels), and the box to crop each modality to.

    RGB with a box of its own is returned cropped; the subject's box then applies to depth alone.
    """
    frames: dict[Modality, Tensor] = {}
    for modality in preprocessing.modalities:
        source = sources[modality]
        if modality == "rgb":
            frames[modality] = torch.from_numpy(_crop_pixels(source.path, source.read_rgb(indices), entry.rgb_box))
        else:
            depth = depth_levels(source.read_gray(indices), preprocessing.depth, source.path)
            frames[modality] = torch.from_numpy(depth).unsqueeze(-1)
    boxes = dict.fromkeys(preprocessing.modalities, FULL_FRAME)
    if preprocessing.subject is None or "depth" not in sources:
        return frames, boxes
    seen = frames["depth"].squeeze(-1).numpy() if "depth" in frames else sources["depth"].read_gray(indices)
    box = subject_box(seen, preprocessing.subject)
    return frames, {m: FULL_FRAME if m == "rgb" and entry.rgb_box is not None else box for m in boxes}


def _crop_pixels(
    path: str, rgb: UInt8[ndarray, "time height width 3"], box: PixelBox | None
) -> UInt8[ndarray, "time rows columns 3"]:
    if box is None:
        return rgb
    height, width = rgb.shape[1:3]
    if not box.fits(width, height):
        raise UnreadableVideo(
            f"{path}: has frames of {width} x {height}, but rgb_box={box} reaches beyond them",
            path=path,
            field="rgb_box",
        )
    # A copy, so that the large frames do not stay in memory with it.
    return np.ascontiguousarray(rgb[:, box.top : box.bottom, box.left : box.right])


def _to_channels(modality: Modality, clip: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return depth in the channels that the network takes: its one channel repeated, or colors.

    Called last: until then depth has one channel, by which augmentation tells it from RGB. Channels are the fourth axis
    from the end.
    """
    if modality == "rgb":
        return clip
    if preprocessing.depth_colors == "jet":
        return jet(clip)
    return clip.expand(*clip.shape[:-4], preprocessing.depth_channels, -1, -1, -1)


class VideoDataset(Dataset[Sample | Failure]):
    """Dataset as a pure function from a draw to a sample, without epoch or random state.

    Args:
        manifest: all samples; a draw's index counts in it.
        sampling, preprocessing: those of the model.
        augmentation: for draws with a seed.
        read_options: backend, isolation and limits.

    Raises:
        ManifestError: the preprocessing crops to the subject, and the manifest's depth is not masked.
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
                f"{facts}: the crop to the subject needs masked depth, but coverage is {coverage or '(not given)'}. "
                "Where all but the person is 0, prepare again with --depth-range and --depth-coverage masked",
                path=facts,
                field="coverage",
            )
        self.manifest = manifest
        self.sampling = sampling
        self.preprocessing = preprocessing
        # Depth is mixed by its levels, of which 0 is no reading, and gets its channels afterwards.
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
            clips, share = mix(read[0], read[1], self.augmentation, rng)
            targets = self._mixed_targets(draw.index, draw.partner.index, share)
        inputs = {name: _to_channels(name, clip, self.preprocessing) for name, clip in clips.items()}
        return {"inputs": inputs, "targets": targets, "index": draw.index}

    def _mixed_targets(self, own: int, partner: int, share: float) -> dict[str, Tensor]:
        """Return the share of each class in a mixture of two samples."""
        shares: dict[str, Tensor] = {}
        for head, names in self.manifest.classes.items():
            labels = [torch.tensor(self.manifest.targets(position)[head]) for position in (partner, own)]
            weights = [F.one_hot(label, len(names)).float() for label in labels]
            shares[head] = torch.lerp(weights[0], weights[1], share)
        return shares


def check_uncounted(
    manifest: Manifest, positions: Sequence[int], modality: Modality, read_options: ReadOptions
) -> None:
    """Count the frames of those samples whose number the manifest leaves open, as it does where `prepare` failed.

    Raises:
        UnreadableSample: a sample cannot be read; better now than after hours.
    """
    for position in positions:
        entry = manifest.entries[position]
        if entry.frames is None and entry.source(modality):
            try:
                count_frames(manifest.locate(entry.source(modality)), read_options)
            except UnreadableVideo as error:
                raise UnreadableSample(
                    f"{manifest.path}, line {entry.line}: {error}{REPAIR_HINT}", path=error.path, line=entry.line
                ) from error

"""From a manifest to batches: draws, samples, and loaders that lose nothing.

A sample is a pure function of its draw, so that workers cannot differ and resuming is slicing a sequence. A sample that
cannot be read becomes a `Failure`, never another sample; whoever takes the batches decides to stop or to count it.
"""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypedDict, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kinema.data.manifest import Entry, Manifest
from kinema.errors import ManifestError, UnreadableSample, UnreadableVideo
from kinema.modality import Modality
from kinema.transforms.depth import jet, read_depth
from kinema.transforms.geometry import WHOLE, Box
from kinema.transforms.mix import mixed
from kinema.transforms.pixel_box import PixelBox
from kinema.transforms.preprocessing import (
    Augmentation,
    Preprocessing,
    Variation,
    centre_geometry,
    draw_variation,
    varied_clip,
    view_clips,
)
from kinema.transforms.sampling import Sampling
from kinema.transforms.subject_crop import subject_box
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.sources import count_frames, frame_range, read_grey, read_rgb

ADVICE = "; repair the file, or move it away and make the manifest anew with `kinema prepare`"


@dataclass(frozen=True, slots=True)
class Draw:
    """What is asked of the data set: which sample, and the random stream to cut it with.

    Args:
        index: position in the manifest.
        seed: of all that is drawn for this sample; None in evaluation, where nothing is.
        partner: the sample that MixUp or CutMix mixes in.
    """

    index: int
    seed: tuple[int, ...] | None = None
    partner: "Draw | None" = None


class Sample(TypedDict):
    """Clips (uint8; views, channels, time, height, width), of which training has one; labels; place in the manifest."""

    inputs: dict[Modality, Tensor]
    targets: dict[str, Tensor]
    index: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that could not be read."""

    index: int
    message: str


class Batch(TypedDict):
    """Clips (uint8; batch, channels, time, height, width), labels of each task head, positions in the manifest.

    In evaluation the clips are those of all views, sample by sample; labels and positions are one a sample.
    """

    inputs: dict[Modality, Tensor]
    targets: dict[str, Tensor]
    index: Tensor


class Loaded(NamedTuple):
    """What comes out of a loader: the samples that could be read, and those that could not."""

    batch: Batch | None
    failures: tuple[Failure, ...]


def frames_of(entry: Entry, path: str, reading: ReadOptions = READ_OPTIONS) -> tuple[int, int]:
    """The sample's frames in its file as a half-open range; files whose length is not known are counted."""
    if entry.start_frame is not None and entry.stop_frame is not None:
        return entry.start_frame, entry.stop_frame
    if entry.start_s is not None and entry.stop_s is not None:
        return frame_range(path, entry.start_s, entry.stop_s, reading)
    return 0, entry.frames if entry.frames is not None else count_frames(path, reading)


def read_clips(
    entry: Entry,
    *,
    locate: Callable[[str], str],
    sampling: Sampling,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    rng: np.random.Generator | None = None,
    reading: ReadOptions = READ_OPTIONS,
) -> dict[Modality, Tensor]:
    """One clip of each modality of a sample: the same frames and the same cut for all.

    Args:
        locate: from an entry's path to a file or URL.
        augmentation, rng: both for a training draw; neither for the middle frames, cut in the middle.

    Returns:
        Bytes, (channels, time, height, width) each.

    Raises:
        UnreadableVideo: a file is missing, cannot be decoded, or has a single frame. A video that is shorter than the
            clip, but has more than one, repeats frames by the sampling's rule.
    """
    paths = _paths(entry, locate, preprocessing)
    start, stop = _range(entry, paths, sampling, reading)
    indices = start + sampling.indices(stop - start, rng)
    if augmentation is None or rng is None:
        variation = Variation(centre_geometry(preprocessing))
    else:
        variation = draw_variation(augmentation, preprocessing, rng)
    frames, cuts = _read(entry, paths, indices.tolist(), preprocessing, reading)
    clips = {m: varied_clip(read, variation, preprocessing.size, cuts[m]) for m, read in frames.items()}
    return {modality: _channels(modality, clip, preprocessing) for modality, clip in clips.items()}


def read_views(
    entry: Entry,
    *,
    locate: Callable[[str], str],
    sampling: Sampling,
    preprocessing: Preprocessing,
    reading: ReadOptions = READ_OPTIONS,
) -> dict[Modality, Tensor]:
    """The views of a test, `sampling.clips` x `preprocessing.crops`, of each modality of a sample.

    All frames that any view needs are read and resized once.

    Returns:
        Bytes, (views, channels, time, height, width) each; the crops of a clip follow one another.

    Raises:
        UnreadableVideo: as `read_clips`.
    """
    paths = _paths(entry, locate, preprocessing)
    start, stop = _range(entry, paths, sampling, reading)
    views = start + sampling.views(stop - start)
    needed, places = np.unique(views, return_inverse=True)
    frames, cuts = _read(entry, paths, needed.tolist(), preprocessing, reading)
    clips = {m: view_clips(read, places.reshape(views.shape), preprocessing, cuts[m]) for m, read in frames.items()}
    return {modality: _channels(modality, clip, preprocessing) for modality, clip in clips.items()}


def _paths(entry: Entry, locate: Callable[[str], str], preprocessing: Preprocessing) -> dict[Modality, str]:
    paths: dict[Modality, str] = {}
    # A box of its own in RGB makes depth's needless there.
    wanted = preprocessing.files if entry.rgb_box is None else preprocessing.modalities
    for modality in wanted:
        if not entry.source(modality):
            wants = "the model" if modality in preprocessing.modalities else "the crop to the subject"
            raise UnreadableVideo(f"no {modality} file is given, but {wants} wants {modality}")
        paths[modality] = locate(entry.source(modality))
    return paths


def _range(entry: Entry, paths: Mapping[Modality, str], sampling: Sampling, reading: ReadOptions) -> tuple[int, int]:
    first = next(iter(paths.values()))
    start, stop = frames_of(entry, first, reading)
    if stop - start == 1 and sampling.frames > 1:
        raise UnreadableVideo(f"{first}: has a single frame, and no action can be seen in one")
    return start, stop


def _read(
    entry: Entry,
    paths: Mapping[Modality, str],
    indices: Sequence[int],
    preprocessing: Preprocessing,
    reading: ReadOptions,
) -> tuple[dict[Modality, Tensor], dict[Modality, Box]]:
    """Frames of what the model sees, (time, height, width, channels), and the box that each is to be cut to.

    Where a sample says its own box of RGB, that is cut already, and the subject's box is depth's alone.
    """
    frames: dict[Modality, Tensor] = {}
    for modality in preprocessing.modalities:
        if modality == "rgb":
            rgb = read_rgb(paths[modality], indices, reading)
            frames[modality] = torch.from_numpy(_boxed(paths[modality], rgb, entry.rgb_box))
        else:
            depth = read_depth(paths[modality], indices, preprocessing.depth, reading)
            frames[modality] = torch.from_numpy(depth).unsqueeze(-1)
    cuts = dict.fromkeys(preprocessing.modalities, WHOLE)
    if preprocessing.subject is None or "depth" not in paths:
        return frames, cuts
    seen = frames["depth"].squeeze(-1).numpy() if "depth" in frames else read_grey(paths["depth"], indices, reading)
    box = subject_box(seen, preprocessing.subject)
    return frames, {m: WHOLE if m == "rgb" and entry.rgb_box is not None else box for m in cuts}


def _boxed(
    path: str, rgb: UInt8[ndarray, "time height width 3"], box: PixelBox | None
) -> UInt8[ndarray, "time rows columns 3"]:
    if box is None:
        return rgb
    height, width = rgb.shape[1:3]
    if not box.fits(width, height):
        raise UnreadableVideo(f"{path}: has frames of {width} x {height}, but rgb_box={box} reaches beyond them")
    # A copy, so that the large frames do not stay in memory with it.
    return np.ascontiguousarray(rgb[:, box.top : box.bottom, box.left : box.right])


def _channels(modality: Modality, clip: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Depth in the channels that the network wants, made of its one when all else is done: the same often, or colours.

    Up to here depth has one channel, by which all that varies clips knows it from RGB. The channels are the fourth axis
    from the end.
    """
    if modality == "rgb":
        return clip
    if preprocessing.depth_colours == "jet":
        return jet(clip)
    return clip.expand(*clip.shape[:-4], preprocessing.depth_channels, -1, -1, -1)


class VideoDataset(Dataset[Sample | Failure]):
    """A pure function from a draw to a sample; it holds no epoch and no random state.

    Args:
        manifest: all samples; a draw's index counts in it.
        sampling, preprocessing: those of the artefact.
        augmentation: for draws with a seed.
        reading: by what, where and within which limits files are read.

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
        reading: ReadOptions = READ_OPTIONS,
    ) -> None:
        coverage = None if manifest.depth is None else manifest.depth.coverage
        if preprocessing.subject is not None and coverage != "masked":
            raise ManifestError(
                f"{manifest.path.with_suffix('.json')}: the crop to the subject wants masked depth, but this says "
                f"coverage {coverage or '(nothing)'}; where all but the person is 0, `kinema prepare` is told so by "
                "--depth-range and --depth-coverage masked"
            )
        self.manifest = manifest
        self.sampling = sampling
        self.preprocessing = preprocessing
        # Depth is mixed by its levels, where 0 is known for no reading, and gets its channels afterwards.
        self._read_as = replace(preprocessing, depth_channels=1, depth_colours="grey")
        self.augmentation = augmentation or Augmentation()
        self.reading = reading

    def __len__(self) -> int:
        return len(self.manifest.entries)

    def __getitem__(self, draw: Draw) -> Sample | Failure:
        asked = draw
        try:
            sample = self._sample(draw)
            if draw.partner is not None:
                asked = draw.partner
                sample = self._mix(sample, self._sample(asked), draw)
        except UnreadableVideo as error:
            entry = self.manifest.entries[asked.index]
            return Failure(asked.index, f"{self.manifest.path}, line {entry.line}: {error}")
        clips = {name: _channels(name, clip, self.preprocessing) for name, clip in sample["inputs"].items()}
        return {**sample, "inputs": clips}

    def _sample(self, draw: Draw) -> Sample:
        entry = self.manifest.entries[draw.index]
        if draw.seed is None:
            clips = read_views(
                entry,
                locate=self.manifest.locate,
                sampling=self.sampling,
                preprocessing=self._read_as,
                reading=self.reading,
            )
        else:
            drawn = read_clips(
                entry,
                locate=self.manifest.locate,
                sampling=self.sampling,
                preprocessing=self._read_as,
                augmentation=self.augmentation,
                rng=np.random.default_rng(draw.seed),
                reading=self.reading,
            )
            clips = {modality: clip.unsqueeze(0) for modality, clip in drawn.items()}
        targets = {head: torch.tensor(label) for head, label in self.manifest.targets(draw.index).items()}
        return {"inputs": clips, "targets": targets, "index": draw.index}

    def _mix(self, sample: Sample, partner: Sample, draw: Draw) -> Sample:
        """One mixture for all modalities and heads; labels become shares of classes."""
        # The last word keeps this stream apart from the one that cut the sample.
        rng = np.random.default_rng((*(draw.seed or ()), 1))
        clips, share = mixed(sample["inputs"], partner["inputs"], self.augmentation, rng)
        targets = {
            head: torch.lerp(
                F.one_hot(partner["targets"][head], len(names)).float(),
                F.one_hot(sample["targets"][head], len(names)).float(),
                share,
            )
            for head, names in self.manifest.classes.items()
        }
        return {"inputs": clips, "targets": targets, "index": draw.index}


def check_uncounted(manifest: Manifest, positions: Sequence[int], modality: Modality, reading: ReadOptions) -> None:
    """Count the frames of those samples whose number the manifest leaves open, as it does where `prepare` failed.

    Raises:
        UnreadableSample: one cannot be read; better now than after hours.
    """
    for position in positions:
        entry = manifest.entries[position]
        if entry.frames is None and entry.source(modality):
            try:
                count_frames(manifest.locate(entry.source(modality)), reading)
            except UnreadableVideo as error:
                raise UnreadableSample(f"{manifest.path}, line {entry.line}: {error}{ADVICE}") from error


class TrainingBatches(Sampler[list[Draw]]):
    """The batches of a whole training, from any step on: one endless row of shuffled passes, cut into equal batches.

    No sample is left out at the end of a pass: a batch may hold the end of one and the start of the next.

    Args:
        positions: the training samples.
        batch_size: draws in a batch.
        steps: batches of the whole training.
        first_step: where to go on; 0 at the start.
        seed: of all draws.
        mixup: whether each draw gets a partner.
        classes: of each position, where all classes are to be drawn equally often; None for all samples equally often.
    """

    def __init__(
        self,
        positions: Sequence[int],
        *,
        batch_size: int,
        steps: int,
        first_step: int = 0,
        seed: int,
        mixup: Literal["none", "partner"] = "none",
        classes: Sequence[int] | None = None,
    ) -> None:
        self.positions = list(positions)
        self.batch_size = batch_size
        self.steps = steps
        self.first_step = first_step
        self.seed = seed
        self.mixup = mixup
        self.classes = None if classes is None else np.asarray(classes)
        self._orders: dict[tuple[int, int], list[int]] = {}

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.first_step, self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[Draw]:
        """The draws of one step, counted from 0."""
        first = step * self.batch_size
        return [self._draw(number) for number in range(first, first + self.batch_size)]

    def _draw(self, number: int) -> Draw:
        epoch, place = divmod(number, len(self.positions))
        index = self._order(epoch, 0)[place]
        # A sample that comes twice in a pass is not to come in the same way.
        again = () if self.classes is None else (place,)
        if self.mixup == "none":
            return Draw(index, (self.seed, epoch, index, *again))
        partner = self._order(epoch, 1)[place]
        return Draw(index, (self.seed, epoch, index, *again), Draw(partner, (self.seed, epoch, partner, 2, *again)))

    def _balanced(self, rng: np.random.Generator) -> Int64[ndarray, " samples"]:
        """As many positions as there are, of every class equally many, but for a rest that is drawn.

        A class gives all of its samples before it gives one of them again.
        """
        assert self.classes is not None
        positions, names = np.asarray(self.positions), np.unique(self.classes)
        each, rest = divmod(len(positions), len(names))
        more = set(rng.choice(names, rest, replace=False).tolist())
        chosen = []
        for name in names.tolist():
            own, wanted = positions[self.classes == name], each + (name in more)
            rounds = [rng.permutation(own) for _ in range(-(-wanted // len(own)))]
            chosen.append(np.concatenate([np.zeros(0, np.int64), *rounds])[:wanted])
        return np.concatenate(chosen)

    def _order(self, epoch: int, stream: int) -> list[int]:
        """The shuffled positions of one pass; kept while draws ask for it."""
        if (epoch, stream) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[0] == epoch}
            rng = np.random.default_rng((self.seed, epoch, stream))
            shuffled = rng.permutation(self.positions if self.classes is None else self._balanced(rng))
            self._orders[epoch, stream] = [int(position) for position in shuffled]
        return self._orders[epoch, stream]


def evaluation_batches(positions: Sequence[int], batch_size: int) -> list[list[Draw]]:
    """Every sample once, in order."""
    draws = [Draw(position) for position in positions]
    return [draws[i : i + batch_size] for i in range(0, len(draws), batch_size)]


def make_loader(
    dataset: VideoDataset, batches: Sampler[list[Draw]] | list[list[Draw]], *, workers: int, pin_memory: bool
) -> DataLoader[Loaded]:
    """A loader over batches of draws; the number of workers changes nothing but the speed."""
    loader: DataLoader[Any] = DataLoader(
        cast(Dataset[Any], dataset),
        batch_sampler=cast(Sampler[list[Any]], batches),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_outlive_signals,
    )
    return cast(DataLoader[Loaded], loader)


def _outlive_signals(_: int) -> None:
    """A worker reads on when a scheduler or Ctrl-C asks all processes to stop: its trainer does, and then ends it.

    The loader ends what does not leave by itself with the same signal, so only the first is passed over.
    """
    for number in (signal.SIGINT, getattr(signal, "SIGUSR1", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def collate(samples: Sequence[Sample | Failure]) -> Loaded:
    failures = tuple(s for s in samples if isinstance(s, Failure))
    read = [s for s in samples if not isinstance(s, Failure)]
    if not read:
        return Loaded(None, failures)
    batch: Batch = {
        "inputs": {m: torch.cat([s["inputs"][m] for s in read]) for m in read[0]["inputs"]},
        "targets": {h: torch.stack([s["targets"][h] for s in read]) for h in read[0]["targets"]},
        "index": torch.tensor([s["index"] for s in read]),
    }
    return Loaded(batch, failures)


def complete(loaded: Loaded) -> Batch:
    """The batch, where nothing is missing from it.

    Raises:
        UnreadableSample: names the first sample that could not be read.
    """
    if loaded.failures or loaded.batch is None:
        more = len(loaded.failures) - 1
        others = f" (and {more} more in this batch)" if more else ""
        raise UnreadableSample(loaded.failures[0].message + others + ADVICE)
    return loaded.batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    return {
        "inputs": {m: clip.to(device, non_blocking=True) for m, clip in batch["inputs"].items()},
        "targets": {head: labels.to(device, non_blocking=True) for head, labels in batch["targets"].items()},
        "index": batch["index"],
    }

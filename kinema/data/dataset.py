"""From a manifest to batches: draws, samples, and loaders that lose nothing.

A sample is a pure function of its draw, so that workers cannot differ and resuming is slicing a sequence. A sample that
cannot be read becomes a `Failure`, never another sample; whoever takes the batches decides to stop or to count it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kinema.data.decode import UnreadableVideo
from kinema.data.depth import read_depth
from kinema.data.manifest import Entry, Manifest, Modality
from kinema.data.sampling import Sampling
from kinema.data.sources import count_frames, frame_range, read_rgb
from kinema.data.transforms import (
    Augmentation,
    Preprocessing,
    centre_geometry,
    cut,
    draw_colour,
    draw_geometry,
    recolour,
)


class UnreadableSample(RuntimeError):
    """A line of a manifest whose sample cannot be read; the message names manifest, line and file."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What is asked of the data set: which sample, and the random stream to cut it with.

    Args:
        index: position in the manifest.
        seed: of all that is drawn for this sample; None in evaluation, where nothing is.
        partner: the sample that MixUp mixes in.
    """

    index: int
    seed: tuple[int, ...] | None = None
    partner: "Draw | None" = None


class Sample(TypedDict):
    inputs: dict[Modality, Tensor]
    targets: dict[str, Tensor]
    index: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that could not be read."""

    index: int
    message: str


class Batch(TypedDict):
    """Clips (uint8; batch, channels, time, height, width), labels of each task head, positions in the manifest."""

    inputs: dict[Modality, Tensor]
    targets: dict[str, Tensor]
    index: Tensor


class Loaded(NamedTuple):
    """What comes out of a loader: the samples that could be read, and those that could not."""

    batch: Batch | None
    failures: tuple[Failure, ...]


def frames_of(entry: Entry, path: str) -> tuple[int, int]:
    """The sample's frames in its file as a half-open range; files whose length is not known are counted."""
    if entry.start_frame is not None and entry.stop_frame is not None:
        return entry.start_frame, entry.stop_frame
    if entry.start_s is not None and entry.stop_s is not None:
        return frame_range(path, entry.start_s, entry.stop_s)
    return 0, entry.frames if entry.frames is not None else count_frames(path)


def read_clips(
    entry: Entry,
    *,
    locate: Callable[[str], str],
    sampling: Sampling,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    rng: np.random.Generator | None = None,
) -> dict[Modality, Tensor]:
    """One clip of each modality of a sample: the same frames and the same cut for all.

    Args:
        locate: from an entry's path to a file or URL.
        augmentation, rng: both for a training draw, neither for evaluation.

    Returns:
        Bytes, (channels, time, height, width) each.

    Raises:
        UnreadableVideo: a file is missing, cannot be decoded, or has a single frame. A video that is shorter than the
            clip, but has more than one, repeats frames by the sampling's rule.
    """
    paths: dict[Modality, str] = {}
    for modality in preprocessing.modalities:
        if not entry.source(modality):
            raise UnreadableVideo(f"no {modality} file is given, but the model wants {modality}")
        paths[modality] = locate(entry.source(modality))
    start, stop = frames_of(entry, next(iter(paths.values())))
    if stop - start == 1 and sampling.frames > 1:
        raise UnreadableVideo(f"{next(iter(paths.values()))}: has a single frame, and no action can be seen in one")
    indices = (start + sampling.indices(stop - start, rng)).tolist()

    if augmentation is None or rng is None:
        geometry, colour = centre_geometry(preprocessing), None
    else:
        geometry, colour = draw_geometry(augmentation, preprocessing, rng), draw_colour(augmentation, rng)

    clips: dict[Modality, Tensor] = {}
    for modality, path in paths.items():
        if modality == "rgb":
            clip = cut(torch.from_numpy(read_rgb(path, indices)), geometry, preprocessing.size)
            clips[modality] = clip if colour is None else recolour(clip, colour)
        else:
            depth = torch.from_numpy(read_depth(path, indices, preprocessing.depth)).unsqueeze(-1)
            clip = cut(depth, geometry, preprocessing.size)
            clips[modality] = clip.expand(preprocessing.depth_channels, -1, -1, -1)
    return clips


class VideoDataset(Dataset[Sample | Failure]):
    """A pure function from a draw to a sample; it holds no epoch and no random state.

    Args:
        manifest: all samples; a draw's index counts in it.
        sampling, preprocessing: those of the artefact.
        augmentation: for draws with a seed.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        sampling: Sampling,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.manifest = manifest
        self.sampling = sampling
        self.preprocessing = preprocessing
        self.augmentation = augmentation or Augmentation()

    def __len__(self) -> int:
        return len(self.manifest.entries)

    def __getitem__(self, draw: Draw) -> Sample | Failure:
        reading = draw
        try:
            sample = self._sample(draw)
            if draw.partner is not None:
                reading = draw.partner
                sample = self._mix(sample, self._sample(reading), draw)
        except UnreadableVideo as error:
            entry = self.manifest.entries[reading.index]
            return Failure(draw.index, f"{self.manifest.path}, line {entry.line}: {error}")
        return sample

    def _sample(self, draw: Draw) -> Sample:
        clips = read_clips(
            self.manifest.entries[draw.index],
            locate=self.manifest.locate,
            sampling=self.sampling,
            preprocessing=self.preprocessing,
            augmentation=self.augmentation,
            rng=None if draw.seed is None else np.random.default_rng(draw.seed),
        )
        targets = {head: torch.tensor(label) for head, label in self.manifest.targets(draw.index).items()}
        return {"inputs": clips, "targets": targets, "index": draw.index}

    def _mix(self, sample: Sample, partner: Sample, draw: Draw) -> Sample:
        """MixUp (arXiv:1710.09412): one weight for all modalities and heads; labels become shares of classes."""
        alpha = self.augmentation.mixup_alpha
        # The last word keeps this stream apart from the one that cut the sample.
        weight = float(np.random.default_rng((*(draw.seed or ()), 1)).beta(alpha, alpha))
        clips = {
            modality: torch.lerp(partner["inputs"][modality].float(), clip.float(), weight).round_().to(torch.uint8)
            for modality, clip in sample["inputs"].items()
        }
        targets = {
            head: torch.lerp(
                F.one_hot(partner["targets"][head], len(names)).float(),
                F.one_hot(sample["targets"][head], len(names)).float(),
                weight,
            )
            for head, names in self.manifest.classes.items()
        }
        return {"inputs": clips, "targets": targets, "index": draw.index}


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
    ) -> None:
        self.positions = list(positions)
        self.batch_size = batch_size
        self.steps = steps
        self.first_step = first_step
        self.seed = seed
        self.mixup = mixup
        self._orders: dict[tuple[int, int], list[int]] = {}

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.first_step, self.steps):
            first = step * self.batch_size
            yield [self._draw(number) for number in range(first, first + self.batch_size)]

    def _draw(self, number: int) -> Draw:
        epoch, place = divmod(number, len(self.positions))
        index = self._order(epoch, 0)[place]
        if self.mixup == "none":
            return Draw(index, (self.seed, epoch, index))
        partner = self._order(epoch, 1)[place]
        return Draw(index, (self.seed, epoch, index), Draw(partner, (self.seed, epoch, partner, 2)))

    def _order(self, epoch: int, stream: int) -> list[int]:
        """The shuffled positions of one pass; kept while draws ask for it."""
        if (epoch, stream) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[0] == epoch}
            shuffled = np.random.default_rng((self.seed, epoch, stream)).permutation(self.positions)
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
    )
    return cast(DataLoader[Loaded], loader)


def collate(samples: Sequence[Sample | Failure]) -> Loaded:
    failures = tuple(s for s in samples if isinstance(s, Failure))
    read = [s for s in samples if not isinstance(s, Failure)]
    if not read:
        return Loaded(None, failures)
    batch: Batch = {
        "inputs": {m: torch.stack([s["inputs"][m] for s in read]) for m in read[0]["inputs"]},
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
        advice = "; repair the file, or move it away and make the manifest anew with `kinema prepare`"
        raise UnreadableSample(loaded.failures[0].message + others + advice)
    return loaded.batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    return {
        "inputs": {m: clip.to(device, non_blocking=True) for m, clip in batch["inputs"].items()},
        "targets": {head: labels.to(device, non_blocking=True) for head, labels in batch["targets"].items()},
        "index": batch["index"],
    }

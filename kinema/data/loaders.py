"""Batches and loaders. Samples that could not be read are reported beside the batch, never replaced or dropped."""

import atexit
import signal
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kinema.data.dataset import REPAIR_HINT, Failure, Sample, VideoDataset
from kinema.data.samplers import Draw
from kinema.errors import UnreadableSample
from kinema.modality import Modality


class Batch(TypedDict):
    """Clips (uint8; batch, channels, time, height, width), labels of each task head, positions in the manifest.

    In evaluation the clips are those of all views, sample by sample; labels and positions are one per sample.
    """

    inputs: dict[Modality, Tensor]
    targets: dict[str, Tensor]
    index: Tensor


class LoadedBatch(NamedTuple):
    """Output of a loader: the samples that could be read, and those that could not."""

    batch: Batch | None
    failures: tuple[Failure, ...]


def make_loader(
    dataset: VideoDataset, batches: Sampler[list[Draw]] | list[list[Draw]], *, workers: int, pin_memory: bool
) -> DataLoader[LoadedBatch]:
    """Return a loader over batches of draws; the number of workers changes nothing but the speed."""
    loader: DataLoader[Any] = DataLoader(
        cast(Dataset[Any], dataset),
        batch_sampler=cast(Sampler[list[Any]], batches),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_outlive_signals,
    )
    if workers:
        atexit.register(_end_workers, weakref.ref(loader))
    return cast(DataLoader[LoadedBatch], loader)


def _end_workers(loader: weakref.ref[DataLoader[Any]]) -> None:
    """End the workers of a loader that an error left in use, before Python signals them at its exit and waits.

    They outlive that one signal, so that a script would never end.
    """
    iterator = getattr(loader(), "_iterator", None)
    if iterator is not None:
        iterator._shutdown_workers()


def _outlive_signals(_: int) -> None:
    """Let a worker read on when a scheduler or Ctrl-C signals all processes: the trainer stops, and then ends it.

    The loader ends workers that do not exit with the same signal, so only the first one is ignored.
    """
    for number in (signal.SIGINT, getattr(signal, "SIGUSR1", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def collate(samples: Sequence[Sample | Failure]) -> LoadedBatch:
    """Stack samples to a batch."""
    failures = tuple(s for s in samples if isinstance(s, Failure))
    read = [s for s in samples if not isinstance(s, Failure)]
    if not read:
        return LoadedBatch(None, failures)
    batch: Batch = {
        "inputs": {m: torch.cat([s["inputs"][m] for s in read]) for m in read[0]["inputs"]},
        "targets": {h: torch.stack([s["targets"][h] for s in read]) for h in read[0]["targets"]},
        "index": torch.tensor([s["index"] for s in read]),
    }
    return LoadedBatch(batch, failures)


def complete(loaded: LoadedBatch) -> Batch:
    """Return the batch if every sample could be read.

    Raises:
        UnreadableSample: A sample could not be read; the message names the first one.
    """
    if loaded.failures or loaded.batch is None:
        first, more = loaded.failures[0], len(loaded.failures) - 1
        others = f" (and {more} more in this batch)" if more else ""
        message = f"{first.message.rstrip('.')}{others}{REPAIR_HINT}"
        raise UnreadableSample(message, path=first.path, line=first.line)
    return loaded.batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with clips and labels on a device."""
    return {
        "inputs": {m: clip.to(device, non_blocking=True) for m, clip in batch["inputs"].items()},
        "targets": {head: labels.to(device, non_blocking=True) for head, labels in batch["targets"].items()},
        "index": batch["index"],
    }

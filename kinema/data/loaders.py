"""Batches and loaders. Samples that could not be read are reported beside the batch, never replaced or dropped."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


MAX_WORKERS = 1024
"""Largest number of reader processes."""

EXIT_S = 1.0
"""Seconds after which a worker that does not end is killed."""


class ClipLoader(DataLoader[LoadedBatch]):
    """Loader whose `close` ends its workers at once, including busy and stopped ones.

    Without it, an error ends a process only after its workers have finished their batches, or never.
    """

    def close(self) -> None:
        """End the worker processes. The next iteration starts new ones."""
        iterator: Any = self._iterator
        self._iterator = None
        if iterator is None:
            return
        if hasattr(iterator, "_pin_memory_thread"):  # it must not fetch from workers that end
            iterator._pin_memory_thread_done_event.set()
            iterator._worker_result_queue.put((None, None))
            iterator._pin_memory_thread.join(EXIT_S)
        with _default_child_signal():
            for worker in iterator._workers:
                if worker.is_alive() and hasattr(signal, "SIGCONT"):
                    os.kill(worker.pid, signal.SIGCONT)  # a stopped process handles no other signal
                worker.terminate()
            for worker in iterator._workers:
                worker.join(EXIT_S)
                worker.kill()
            iterator._shutdown_workers()


def make_loader(
    dataset: VideoDataset, batches: Sampler[list[Draw]] | list[list[Draw]], *, workers: int, pin_memory: bool
) -> ClipLoader:
    """Return a loader over batches of draws; the number of workers changes nothing but the speed.

    Close it after use: `with closing(make_loader(...)) as loader`.
    """
    return ClipLoader(
        cast(Dataset[Any], dataset),
        batch_sampler=cast(Sampler[list[Any]], batches),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_outlive_signals,
    )


def _outlive_signals(_: int) -> None:
    """Let a worker read on when a scheduler or Ctrl-C signals all processes: the trainer stops, and then ends it."""
    for number in (signal.SIGINT, getattr(signal, "SIGUSR1", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    else:  # macOS and Windows do not tell who sent a signal: only the first one is ignored
        signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _exit_with_parent() -> None:
    """Wait for a SIGTERM of the process that owns the loader, and exit. Those of other processes are ignored."""
    parent = multiprocessing.parent_process()
    while parent is not None:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent.pid:
            os._exit(0)  # at once, even while the main thread decodes; torch reports any other code


@contextmanager
def _default_child_signal() -> Iterator[None]:
    """Suspend the handler by which torch raises an error, anywhere, for a worker that was killed."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


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

"""Batches of a training run: their order, the share of this process, and unreadable samples."""

import logging
from collections.abc import Iterator
from itertools import pairwise

from kinema.data.dataset import VideoDataset
from kinema.data.loaders import Batch, ClipLoader, LoadedBatch, complete, make_loader
from kinema.data.samplers import TrainingBatches, evaluation_batches
from kinema.errors import UnreadableSample
from kinema.training.distributed import RankBatches
from kinema.training.setup import TrainingSetup

logger = logging.getLogger(__name__)

MAX_SKIPPED = 32
"""A run stops if it has skipped more draws per process than this, and more than half of all draws."""


def training_batches(setup: TrainingSetup, *, start: int, last: int) -> TrainingBatches:
    """Return the draws of the batches of all processes, from step `start` up to `last`."""
    data, manifest = setup.recipe.data, setup.manifest
    classes = [next(iter(manifest.targets(position).values())) for position in setup.train_positions]
    return TrainingBatches(
        setup.train_positions,
        batch_size=data.batch_size,
        steps=last,
        first_step=start,
        seed=setup.recipe.run.seed,
        mixup="partner" if data.augmentation.mixes_samples else "none",
        classes=classes if data.balance == "sampler" else None,
    )


def make_loaders(setup: TrainingSetup, *, start: int, last: int) -> tuple[ClipLoader, ClipLoader]:
    """Return loaders of the training batches and the evaluation samples of this process."""
    recipe, fabric = setup.recipe, setup.fabric
    dataset = VideoDataset(
        setup.manifest,
        sampling=setup.sampling,
        preprocessing=setup.preprocessing,
        augmentation=recipe.data.augmentation,
        read_options=recipe.data.read_options,
    )
    workers, pin_memory = recipe.data.workers, fabric.device.type == "cuda"
    batches = RankBatches(
        training_batches(setup, start=start, last=last), rank=fabric.global_rank, world_size=fabric.world_size
    )
    evaluation = evaluation_batches(setup.own_eval_positions, recipe.data.batch_size // fabric.world_size)
    return (
        make_loader(dataset, batches, workers=workers, pin_memory=pin_memory),
        make_loader(dataset, evaluation, workers=workers, pin_memory=pin_memory),
    )


def split_batch(batch: Batch, count: int) -> Iterator[tuple[Batch, bool]]:
    """Yield micro-batches as (batch, is last). Their sizes differ by at most one."""
    bounds = [len(batch["index"]) * number // count for number in range(count + 1)]
    for start, end in pairwise(bounds):
        micro_batch: Batch = {
            "inputs": {m: clip[start:end] for m, clip in batch["inputs"].items()},
            "targets": {head: labels[start:end] for head, labels in batch["targets"].items()},
            "index": batch["index"][start:end],
        }
        yield micro_batch, end == bounds[-1]


def readable_batch(setup: TrainingSetup, loaded: LoadedBatch, step: int) -> Batch | None:
    """Return the readable samples of a batch, or None if there are none. Log the skipped ones.

    Raises:
        UnreadableSample: A sample cannot be read and the recipe does not skip it, or most draws are skipped.
    """
    recipe, run, path = setup.recipe, setup.run, setup.manifest.path
    if recipe.data.unreadable == "stop":
        return complete(loaded)
    if not loaded.failures:
        return loaded.batch
    logged = {line["index"] for line in run.skipped()}
    for failure in loaded.failures:
        run.log("skipped", {"step": step + 1, "index": failure.index, "reason": failure.message})
        if failure.index not in logged:
            logged.add(failure.index)
            logger.warning("step %d: skipped %s", step + 1, failure.message)
    skipped, drawn = len(run.skipped()), (step + 1) * recipe.data.batch_size
    if skipped > max(drawn / 2, MAX_SKIPPED * setup.fabric.world_size):
        raise UnreadableSample(
            f"{path}: {skipped} of {drawn} draws cannot be read; last: {loaded.failures[-1].message}. "
            "`kinema check` lists broken files in bad_files.txt, which `kinema prepare --exclude` leaves out.",
            path=path,
        )
    return loaded.batch

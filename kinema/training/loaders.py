"""The samples of a training: which they are, in which order they come, and this process's share of them."""

from collections.abc import Iterator
from itertools import pairwise

from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from kinema.data.dataset import VideoDataset, check_uncounted
from kinema.data.loaders import Batch, LoadedBatch, make_loader
from kinema.data.manifest import Manifest
from kinema.data.samplers import TrainingBatches, evaluation_batches
from kinema.errors import ManifestError
from kinema.evaluation.evaluate import check_declared
from kinema.training.optim import class_weights
from kinema.training.processes import Share
from kinema.training.recipe import Recipe


def checked_samples(recipe: Recipe, manifest: Manifest) -> tuple[list[int], list[int]]:
    """The samples to learn from and to be asked about; training may skip what cannot be read, an evaluation may not.

    Raises:
        ManifestError: a split is not there, has no labels, or lists other samples than it declares.
        UnreadableSample: one whose frames `prepare` could not count cannot be read.
    """
    positions, held_out = manifest.positions(recipe.data.train), manifest.positions(recipe.data.evaluate)
    for split in (recipe.data.train, recipe.data.evaluate):
        if split in manifest.unlabelled:
            raise ManifestError(f"{manifest.path}: split {split!r} has no labels; training and evaluation need them")
    check_declared(manifest, recipe.data.evaluate)
    asked = held_out if recipe.data.unreadable == "skip" else [*held_out, *positions]
    check_uncounted(manifest, asked, recipe.clip.modalities[0], recipe.data.reading)
    return positions, held_out


def training_batches(
    recipe: Recipe, manifest: Manifest, positions: list[int], *, start: int, last: int
) -> TrainingBatches:
    """The draws of all processes' batches, from the step `start` on."""
    classes = [next(iter(manifest.targets(position).values())) for position in positions]
    return TrainingBatches(
        positions,
        batch_size=recipe.data.batch_size,
        steps=last,
        first_step=start,
        seed=recipe.run.seed,
        mixup="partner" if recipe.data.augmentation.wants_partner else "none",
        classes=classes if recipe.data.balance == "sampler" else None,
    )


def own_loaders(
    recipe: Recipe, manifest: Manifest, training: TrainingBatches, held_out: list[int], fabric: Fabric
) -> tuple[DataLoader[LoadedBatch], DataLoader[LoadedBatch], list[int]]:
    """This process's batches; a loader for its share of the evaluations, and that share."""
    dataset = VideoDataset(
        manifest,
        sampling=recipe.clip.frame_sampling(),
        preprocessing=recipe.clip.preprocessing(manifest.depth),
        augmentation=recipe.data.augmentation,
        read_options=recipe.data.reading,
    )
    pin_memory = fabric.device.type == "cuda"
    workers, count, own = recipe.data.workers, fabric.world_size, fabric.global_rank
    share = held_out[own::count]
    draws = training if count == 1 else Share(training, process=own, count=count)
    size = recipe.data.batch_size // count
    return (
        make_loader(dataset, draws, workers=workers, pin_memory=pin_memory),
        make_loader(dataset, evaluation_batches(share, size), workers=workers, pin_memory=pin_memory),
        share,
    )


def parts_of(batch: Batch, count: int) -> Iterator[tuple[Batch, bool]]:
    """A training batch in so many parts, of equal size where nothing was skipped; and whether one is the last.

    Training draws one clip of a sample.
    """
    bounds = [len(batch["index"]) * number // count for number in range(count + 1)]
    for start, end in pairwise(bounds):
        part: Batch = {
            "inputs": {m: clip[start:end] for m, clip in batch["inputs"].items()},
            "targets": {head: labels[start:end] for head, labels in batch["targets"].items()},
            "index": batch["index"][start:end],
        }
        yield part, end == bounds[-1]


def weights_of_classes(recipe: Recipe, manifest: Manifest, positions: list[int]) -> dict[str, Tensor] | None:
    """Of each head's classes in the loss, where the recipe balances it."""
    if recipe.data.balance != "loss":
        return None
    labels = [manifest.targets(position) for position in positions]
    return {head: class_weights([label[head] for label in labels], n) for head, n in manifest.heads.items()}

"""Evaluation of a trained model on one split of a manifest.

An unreadable sample stops the evaluation, unless missing samples are allowed; then every number carries the coverage.
Metrics are computed from predictions, so that they can be computed again without a model.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy import ndarray
from torch import nn

from kinema.data.dataset import VideoDataset
from kinema.data.loaders import MAX_WORKERS, LoadedBatch, complete, make_loader
from kinema.data.manifest import Manifest, load_manifest
from kinema.data.samplers import evaluation_batches
from kinema.data.splits import held_out_split, join_caveats, split_caveat
from kinema.errors import ManifestError, NonFiniteLogits, PredictionsError, UnreadableSample, UnwrittenPredictions
from kinema.evaluation.predictions import Predictions, Protocol, concatenate, group_numbers, measure, save_predictions
from kinema.inference.engine import Device, choose_device
from kinema.inference.trained_model import TrainedModel, load_model
from kinema.modality import Modality
from kinema.transforms.clip_memory import check_clips
from kinema.video.read_options import READ_OPTIONS, ReadOptions

Missing = Literal["stop", "allow"]
"""Action for a sample that cannot be read."""


CHOSEN = "the best evaluation on {split} chose the weights: expect less on new videos"
"""Caveat of the accuracy on a split."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Predictions and their metrics, in percent."""

    predictions: Predictions
    measures: Mapping[str, float]


def evaluate(
    model: str | Path | TrainedModel,
    manifest: str | Path | Manifest,
    *,
    split: str = "",
    network: nn.Module | str | None = None,
    batch_size: int = 16,
    workers: int = 0,
    device: Device = "auto",
    missing: Missing = "stop",
    out: str | Path | None = None,
    read_options: ReadOptions = READ_OPTIONS,
    modalities: Sequence[Modality] = (),
) -> Evaluation:
    """Evaluate a trained model on one split of a manifest.

    Args:
        model: Run or model folder, or a loaded model.
        manifest: CSV of a manifest, or name of a built-in one.
        split: Split to evaluate on. Empty for `test`, or `val` without one.
        network: Network to load the weights into, for a model with a network of your own, or its name:
            `module:Class`.
        batch_size: Number of clips per batch. It changes the rounding of logits: by about 1e-6, by up to 0.02 where
            rounding decides which key k-NN attention keeps last.
        workers: Number of reader processes. With workers, a script needs `if __name__ == "__main__":` on platforms that
            spawn processes.
        device: Device to compute on.
        missing: Action for a sample that cannot be read: `stop`, or `allow` and report the coverage.
        out: Predictions file to write (safetensors).
        read_options: Backend and limits for reading files.
        modalities: Modalities passed to a two-stream model. Empty for all.

    Raises:
        ModelError: The model cannot be used with these modalities.
        UnreadableSample: A sample cannot be read and `missing` is `stop`, or no sample can be read.
        NonFiniteLogits: The logits of a sample are not finite.
        ManifestError: The manifest has other classes than the model, or lists more samples than it
            declares, or fewer and `missing` is `stop`.
        PredictionsError: An argument is out of range.
        UnwrittenPredictions: `out` cannot be written. The error has the evaluation.
    """
    if batch_size < 1:
        raise PredictionsError(f"batch_size={batch_size}; expected at least 1", field="batch_size")
    if not 0 <= workers <= MAX_WORKERS:
        raise PredictionsError(f"workers={workers}; expected 0 to {MAX_WORKERS}", field="workers")
    if out is not None and Path(out).is_dir():
        raise PredictionsError(f"{out}: a folder; expected a file for the predictions", path=out, field="out")
    trained = model if isinstance(model, TrainedModel) else load_model(model, model=network)
    if modalities:
        trained = trained.with_modalities(modalities)
    table = manifest if isinstance(manifest, Manifest) else load_manifest(manifest)
    _check_classes(table, trained)
    split = split or held_out_split(table, "test")
    dataset = VideoDataset(
        table, sampling=trained.sampling, preprocessing=trained.preprocessing, read_options=read_options
    )
    positions = table.positions(split)
    check_clips(trained.sampling, trained.preprocessing, batch_size=min(batch_size, len(positions)))
    compute_on = choose_device(device)
    loader = make_loader(
        dataset,
        evaluation_batches(positions, batch_size),
        workers=workers,
        pin_memory=compute_on.type == "cuda",
    )
    with closing(loader):
        predictions = predict_split(trained, loader, table, split=split, missing=missing, device=compute_on)
    evaluation = Evaluation(predictions=predictions, measures=dict(measure(predictions)))
    if out is not None:
        try:
            save_predictions(Path(out), predictions)
        except PredictionsError as error:
            raise UnwrittenPredictions(f"{error}. Choose another --out.", path=out, evaluation=evaluation) from error
    return evaluation


def predict_split(
    trained: TrainedModel,
    loader: Iterable[LoadedBatch],
    manifest: Manifest,
    *,
    split: str,
    missing: Missing,
    device: torch.device,
    positions: Sequence[int] | None = None,
) -> Predictions:
    """Return the predictions of a model on every sample of a split.

    `positions` are the manifest positions in the loader; None for the whole split.

    Raises:
        UnreadableSample: A sample cannot be read and `missing` is `stop`, or no sample can be read.
        ManifestError: The manifest lists more samples than it declares, or fewer and `missing` is `stop`.
        NonFiniteLogits: The network has diverged.
    """
    listed = manifest.positions(split)
    declared = manifest.declared.get(split, len(listed))
    if len(listed) > declared or missing == "stop":
        check_declared(manifest, split)
    expected = listed if positions is None else list(positions)
    logits: list[dict[str, ndarray]] = []
    targets: list[dict[str, ndarray]] = []
    indices: list[ndarray] = []
    failures: list[str] = []
    engine = trained.engine(device)
    for loaded in loader:
        failures.extend(failure.message for failure in loaded.failures)
        batch = complete(loaded) if missing == "stop" else loaded.batch
        if batch is None:
            continue
        scores = engine.logits(batch["inputs"])
        if not all(head_scores.isfinite().all() for head_scores in scores.values()):
            lines = ", ".join(str(manifest.entries[i].line) for i in batch["index"].tolist())
            raise NonFiniteLogits(f"{manifest.path}, lines {lines}: logits are not finite", path=manifest.path)
        logits.append({head: head_scores.numpy() for head, head_scores in scores.items()})
        targets.append({head: batch["targets"][head].numpy() for head in scores})
        indices.append(batch["index"].numpy())
    if not indices:
        raise UnreadableSample(
            f"{manifest.path}: no sample of split {split!r} can be read; first: {failures[0]}", path=manifest.path
        )
    index = np.concatenate(indices)
    distinct = set(index.tolist())
    if len(index) + len(failures) != len(expected) or len(distinct) != len(index) or not distinct <= set(expected):
        raise AssertionError(f"expected {len(expected)} samples, got {len(index)} and {len(failures)} failures")
    return Predictions(
        logits=concatenate(logits),
        targets=concatenate(targets),
        index=index,
        classes=manifest.classes,
        split=split,
        declared=declared,
        missing=tuple(failures),
        manifest_digest=manifest.digest,
        weights_digest=trained.digest,
        protocol=Protocol(
            frames=trained.sampling.frames, clips=trained.sampling.clips, crops=trained.preprocessing.crops
        ),
        groups=group_numbers(manifest, index),
        dataset=manifest.dataset,
        version=manifest.version,
        start_weights=trained.start_weights,
        caveat=join_caveats(split_caveat(manifest, split), _choice_caveat(trained, manifest, split)),
    )


def _choice_caveat(trained: TrainedModel, manifest: Manifest, split: str) -> str:
    """Return why the accuracy on the split that chose the weights of a model is optimistic; empty on others."""
    origin = trained.provenance
    is_same = (origin.get("manifest_digest"), origin.get("evaluate")) == (manifest.digest, split)
    return CHOSEN.format(split=split) if is_same and origin.get("keep") == "best" else ""


def check_declared(manifest: Manifest, split: str) -> None:
    """Check that a manifest lists as many samples of a split as it declares.

    Raises:
        ManifestError: It lists more or fewer.
    """
    listed = len(manifest.positions(split))
    declared = manifest.declared.get(split, listed)
    if listed != declared:
        raise ManifestError(
            f"{manifest.path}: {listed} samples of split {split!r}; its JSON declares {declared}. Run `kinema prepare` "
            "again, or correct the number if lines were removed on purpose.",
            path=manifest.path,
            field=f"declared.{split}",
        )


def _check_classes(manifest: Manifest, model: TrainedModel) -> None:
    if set(manifest.classes) != set(model.classes):
        raise ManifestError(
            f"{manifest.path}: task heads {', '.join(manifest.classes)}; the model has {', '.join(model.classes)}",
            path=manifest.path,
            field="classes",
        )
    path = manifest.path.with_suffix(".json")
    for head, names in manifest.classes.items():
        if names != model.classes[head]:
            unknown = sorted(set(names) - set(model.classes[head]))
            difference = f"the model has no class {unknown[0]!r}" if unknown else "their order or number differs"
            raise ManifestError(
                f"{path}: the classes of task head {head!r} are not the model's; {difference}",
                path=path,
                field=f"classes.{head}",
            )

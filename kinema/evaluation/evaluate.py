"""Evaluation of a trained model on one split of a manifest.

No sample is lost: an unreadable one stops the evaluation unless missing samples are allowed, and then every number
carries the coverage. Metrics are computed from the predictions, so that they can be computed again without a model.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy import ndarray
from torch import nn

from kinema.data.dataset import VideoDataset
from kinema.data.loaders import LoadedBatch, complete, make_loader
from kinema.data.manifest import Manifest, load_manifest
from kinema.data.samplers import evaluation_batches
from kinema.errors import ManifestError, NonFiniteLogits, PredictionsError, UnreadableSample
from kinema.evaluation.predictions import Predictions, Protocol, group_numbers, measure, save_predictions
from kinema.inference.engine import Device, Engine, choose_device
from kinema.inference.trained_model import TrainedModel, load_model
from kinema.modality import Modality
from kinema.video.read_options import READ_OPTIONS, ReadOptions

Missing = Literal["stop", "allow"]
"""What an unreadable sample does to an evaluation."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Predictions and the metrics computed from them; accuracies and coverage in percent."""

    predictions: Predictions
    measures: Mapping[str, float]


def evaluate(
    model: str | Path | TrainedModel,
    manifest: str | Path | Manifest,
    *,
    split: str = "test",
    network: nn.Module | None = None,
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
        model: run or model folder, or a loaded model.
        manifest: CSV of a manifest, or the name of a built-in one.
        split: name of the split.
        network: network to load the weights into, for a model with a network of the user's own.
        batch_size, workers: change speed and memory only (logits by at most 1e-5 for another batch size). With
            workers, a script needs `if __name__ == "__main__":` on platforms that spawn processes.
        device: where to compute.
        missing: `stop` at a sample that cannot be read, or `allow` and report the coverage.
        out: predictions file to write (safetensors); none if None.
        read_options: how files are read.
        modalities: modalities given to a two-stream model; all of its modalities if empty.

    Raises:
        ModelError: the model cannot be used with these modalities.
        UnreadableSample: a sample cannot be read, and `missing` is `stop`.
        ManifestError: the manifest does not fit the model's classes, or lists fewer samples than it declares.
        PredictionsError: a number is out of range, or `out` cannot be written.
    """
    if batch_size < 1:
        raise PredictionsError(f"batch_size={batch_size}; expected at least 1", field="batch_size")
    if workers < 0:
        raise PredictionsError(f"workers={workers}; expected at least 0", field="workers")
    if out is not None and Path(out).is_dir():
        raise PredictionsError(f"{out}: is a folder; expected a file for the predictions", path=out, field="out")
    trained = model if isinstance(model, TrainedModel) else load_model(model, model=network)
    if modalities:
        trained = trained.with_modalities(modalities)
    table = manifest if isinstance(manifest, Manifest) else load_manifest(manifest)
    _check_classes(table, trained)
    dataset = VideoDataset(
        table, sampling=trained.sampling, preprocessing=trained.preprocessing, read_options=read_options
    )
    compute_on = choose_device(device)
    loader = make_loader(
        dataset,
        evaluation_batches(table.positions(split), batch_size),
        workers=workers,
        pin_memory=compute_on.type == "cuda",
    )
    predictions = predict_split(
        trained.engine(compute_on),
        loader,
        table,
        split=split,
        missing=missing,
        weights_digest=trained.digest,
        protocol=Protocol.of(trained),
    )
    if out is not None:
        save_predictions(Path(out), predictions)
    return Evaluation(predictions=predictions, measures=dict(measure(predictions)))


def predict_split(
    engine: Engine,
    loader: Iterable[LoadedBatch],
    manifest: Manifest,
    *,
    split: str,
    missing: Missing,
    weights_digest: str = "",
    protocol: Protocol | None = None,
    positions: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Predictions:
    """Return an engine's predictions on every sample of a split.

    Args:
        positions: samples that the loader holds, if other processes predict the rest of the split; None for all.
        weights_digest, protocol: stored with the predictions.
        progress: called with the number of samples of each finished batch.

    Raises:
        UnreadableSample: a sample cannot be read, and `missing` is `stop`; or none can be.
        ManifestError: samples that the manifest declares are not listed, and `missing` is `stop`.
        NonFiniteLogits: the network has diverged.
    """
    listed = manifest.positions(split)
    declared = manifest.declared.get(split, len(listed))
    if len(listed) > declared or missing == "stop":
        check_declared(manifest, split)
    expected = listed if positions is None else list(positions)
    logits: dict[str, list[ndarray]] = {head: [] for head in manifest.classes}
    targets: dict[str, list[ndarray]] = {head: [] for head in manifest.classes}
    index: list[ndarray] = []
    failures: list[str] = []
    for loaded in loader:
        failures.extend(failure.message for failure in loaded.failures)
        batch = complete(loaded) if missing == "stop" else loaded.batch
        if batch is None:
            continue
        for head, scores in engine.logits(batch["inputs"]).items():
            if not scores.isfinite().all():
                lines = ", ".join(str(manifest.entries[i].line) for i in batch["index"].tolist())
                raise NonFiniteLogits(f"{manifest.path}, lines {lines}: logits are not finite", path=manifest.path)
            logits[head].append(scores.numpy())
            targets[head].append(batch["targets"][head].numpy())
        index.append(batch["index"].numpy())
        progress(len(batch["index"]))
    if not index:
        raise UnreadableSample(
            f"{manifest.path}: no sample of split {split!r} can be read; {failures[0]}", path=manifest.path
        )

    seen = np.concatenate(index)
    distinct = set(seen.tolist())
    if len(seen) + len(failures) != len(expected) or len(distinct) != len(seen) or not distinct <= set(expected):
        raise AssertionError(f"expected {len(expected)} samples, got {len(seen)} and {len(failures)} failures")
    return Predictions(
        logits={head: np.concatenate(parts) for head, parts in logits.items()},
        targets={head: np.concatenate(parts) for head, parts in targets.items()},
        index=seen,
        classes=manifest.classes,
        split=split,
        declared=declared,
        missing=tuple(failures),
        manifest_digest=manifest.digest,
        weights_digest=weights_digest,
        protocol=protocol,
        groups=group_numbers(manifest, seen),
        dataset=manifest.dataset,
        version=manifest.version,
    )


def check_declared(manifest: Manifest, split: str) -> None:
    """Check that a manifest lists as many samples of a split as it declares.

    Raises:
        ManifestError: it lists more or fewer.
    """
    listed = len(manifest.positions(split))
    declared = manifest.declared.get(split, listed)
    if listed != declared:
        raise ManifestError(
            f"{manifest.path}: lists {listed} samples of split {split!r}; its JSON declares {declared}. Make it again "
            "with `kinema prepare`, or correct the number if lines were removed on purpose.",
            path=manifest.path,
            field=f"declared.{split}",
        )


def _check_classes(manifest: Manifest, model: TrainedModel) -> None:
    if set(manifest.classes) != set(model.classes):
        raise ManifestError(
            f"{manifest.path}: task heads are {', '.join(manifest.classes)}; the model has {', '.join(model.classes)}",
            path=manifest.path,
            field="classes",
        )
    path = manifest.path.with_suffix(".json")
    for head, names in manifest.classes.items():
        if names != model.classes[head]:
            unknown = sorted(set(names) - set(model.classes[head]))
            what = f"class {unknown[0]!r} is unknown to the model" if unknown else "order or number of classes differs"
            raise ManifestError(
                f"{path}: class list of {head!r} differs from the model's: {what}", path=path, field=f"classes.{head}"
            )

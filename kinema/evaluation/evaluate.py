"""From a manifest to a predictions file, and from that file to numbers.

An evaluation never loses a sample: one that cannot be read stops it, unless missing ones are allowed, and then every
number carries the coverage. Metrics are computed from the predictions, so that a table can be made again without a
model.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from kinema.data.dataset import VideoDataset
from kinema.data.loaders import LoadedBatch, complete, make_loader
from kinema.data.manifest import UNLABELLED, Manifest, load_manifest
from kinema.data.samplers import evaluation_batches
from kinema.errors import ManifestError, NonFiniteLogits, PredictionsError, UnreadableSample
from kinema.evaluation.metrics import confusion, joint_ranks, mean_class_accuracy, ranks, top_k_accuracy
from kinema.files import replacing
from kinema.inference.engine import Device, Engine, choose_device
from kinema.inference.trained_model import TrainedModel, load_model
from kinema.modality import Modality
from kinema.video.read_options import READ_OPTIONS, ReadOptions

Missing = Literal["stop", "allow"]
"""What an unreadable sample does to an evaluation."""

PREDICTIONS = "predictions.safetensors"
"""What the file is called in a run."""

GROUPINGS: tuple[Literal["group", "subject"], ...] = ("group", "subject")
"""Columns of a manifest whose samples are alike: a bootstrap may draw them together."""

JOINT = "joint"
"""What all task heads together are called: right where every one of them is."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is seen of each video at test time: T frames in a clip, V clips, C crops."""

    frames: int
    clips: int
    crops: int

    @classmethod
    def of(cls, artefact: TrainedModel) -> "Protocol":
        """The one that an artefact's sampling and preprocessing say."""
        sampling = artefact.sampling
        return cls(frames=sampling.frames, clips=sampling.clips, crops=artefact.preprocessing.crops)

    def __str__(self) -> str:
        return f"{self.frames} x {self.clips} x {self.crops}"


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model said about a split, and what is true.

    Args:
        logits, targets: of each task head, in the order of `index`; targets are -1 where the split has no labels.
        index: positions in the manifest.
        classes: class names of each task head.
        split: name of the split.
        declared: samples that the manifest says the split has.
        missing: messages about the samples that could not be read.
        manifest_digest, weights_digest: what was evaluated, and on what.
        protocol: what was seen of each video; None in files that do not say it.
        units: for `group` and `subject`, where the manifest has them for every sample, a number for each name.
        corpus, version: of the manifest; empty in files that do not say them.
    """

    logits: Mapping[str, Float[ndarray, "samples classes"]]
    targets: Mapping[str, Int64[ndarray, " samples"]]
    index: Int64[ndarray, " samples"]
    classes: Mapping[str, tuple[str, ...]]
    split: str
    declared: int
    missing: tuple[str, ...]
    manifest_digest: str
    weights_digest: str
    protocol: Protocol | None = None
    units: Mapping[str, Int64[ndarray, " samples"]] = field(default_factory=dict)
    corpus: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        if JOINT in self.classes:
            raise PredictionsError(f"a task head is called {JOINT!r}, which is what all heads together are called")
        if not len(self.index) or len(np.unique(self.index)) != len(self.index):
            raise PredictionsError("predictions hold no sample, or one twice")
        for head, names in self.classes.items():
            logits, targets = self.logits[head], self.targets[head]
            if logits.shape != (len(self.index), len(names)) or targets.shape != self.index.shape:
                raise PredictionsError(
                    f"head {head!r} has {len(self.index)} samples and {len(names)} classes, but logits of shape "
                    f"{logits.shape} and targets of shape {targets.shape}"
                )
            known = targets if self.labelled else targets - UNLABELLED
            if not np.isfinite(logits).all() or known.min() < 0 or known.max() >= (len(names) if self.labelled else 1):
                raise PredictionsError(f"head {head!r} has logits or targets that are no numbers of its classes")

    @property
    def labelled(self) -> bool:
        """Whether it is known what is true, so that something can be measured."""
        return any((targets != UNLABELLED).any() for targets in self.targets.values())

    @property
    def coverage(self) -> float:
        """Percent of the declared samples that were evaluated."""
        return 100 * len(self.index) / self.declared

    @property
    def extent(self) -> str:
        """How many samples of what, in words."""
        return f"{len(self.index)} samples of split {self.split!r}, coverage {self.coverage:.2f} %"

    @property
    def measured(self) -> tuple[str, ...]:
        """The task heads, and where there are several all of them together."""
        return (*self.classes, JOINT) if len(self.classes) > 1 else tuple(self.classes)

    def ranks(self, head: str) -> Int64[ndarray, " samples"]:
        """How many classes, or combinations of classes for `joint`, stand before the right one.

        Raises:
            PredictionsError: the split has no labels.
        """
        self._check_labelled()
        if head == JOINT:
            return joint_ranks(
                [self.logits[name] for name in self.classes], [self.targets[name] for name in self.classes]
            )
        return ranks(self.logits[head], self.targets[head])

    def right(self, head: str) -> Bool[ndarray, " samples"]:
        """Whether the best answer is the right one; for `joint`, that of every head. Raises as `ranks`."""
        self._check_labelled()
        heads = self.classes if head == JOINT else (head,)
        return np.asarray(np.all([ranks(self.logits[name], self.targets[name]) == 0 for name in heads], axis=0))

    def _check_labelled(self) -> None:
        if not self.labelled:
            raise PredictionsError(f"split {self.split!r} has no labels, so that nothing can be measured on it")

    def of_weights(self, digest: str) -> "Predictions":
        """The same, said to come from the weights with this digest."""
        return replace(self, weights_digest=digest)

    def rows(self, chosen: Int64[ndarray, " chosen"]) -> "Predictions":
        """Some of the samples, or all in another order."""
        return replace(
            self,
            logits={head: logits[chosen] for head, logits in self.logits.items()},
            targets={head: targets[chosen] for head, targets in self.targets.items()},
            index=self.index[chosen],
            units={column: units[chosen] for column, units in self.units.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Predictions and the numbers computed from them; accuracies and coverage in percent."""

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
    reading: ReadOptions = READ_OPTIONS,
    modalities: Sequence[Modality] = (),
) -> Evaluation:
    """Evaluate a trained model on one split of a manifest.

    Args:
        model: a run, an artefact folder, or a loaded artefact.
        manifest: a manifest's CSV or built-in name.
        split: which samples.
        network: the network, where the artefact holds the weights of the user's own.
        batch_size, workers: change speed and memory alone (logits by at most 1e-5 for another batch size). With
            workers, a script needs `if __name__ == "__main__":` where processes are spawned.
        device: where to compute.
        missing: `stop` at a sample that cannot be read, or `allow` and report the coverage.
        out: where to write the predictions (safetensors); not written where None.
        reading: by what, where and within which limits files are read.
        modalities: those that a model of two streams is shown; all that it sees where empty.

    Raises:
        ModelError: the model does not do with these modalities.
        UnreadableSample: a sample cannot be read, and `missing` is `stop`.
        ManifestError: the manifest does not fit the model's classes, or lists fewer samples than it declares.
        PredictionsError: `out` cannot be written.
    """
    if batch_size < 1 or workers < 0:
        raise PredictionsError(f"batch_size={batch_size} must be at least 1, workers={workers} at least 0")
    if out is not None and Path(out).is_dir():
        raise PredictionsError(f"{out}: is a folder; name a file for the predictions")
    artefact = model if isinstance(model, TrainedModel) else load_model(model, model=network)
    if modalities:
        artefact = artefact.seeing(modalities)
    table = manifest if isinstance(manifest, Manifest) else load_manifest(manifest)
    _check_classes(table, artefact)
    dataset = VideoDataset(
        table, sampling=artefact.sampling, preprocessing=artefact.preprocessing, read_options=reading
    )
    positions = table.positions(split)
    compute_on = choose_device(device)
    loader = make_loader(
        dataset,
        evaluation_batches(positions, batch_size),
        workers=workers,
        pin_memory=compute_on.type == "cuda",
    )
    predictions = predict_all(
        artefact.engine(compute_on),
        loader,
        table,
        split=split,
        missing=missing,
        weights_digest=artefact.digest,
        protocol=Protocol.of(artefact),
    )
    if out is not None:
        save_predictions(Path(out), predictions)
    return Evaluation(predictions=predictions, measures=dict(measure(predictions)))


def predict_all(
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
    """Ask the engine about every sample of a split.

    Args:
        positions: those of the split that the loader holds, where another process asks about the rest; None for all.
        weights_digest, protocol: are written down with the answers.
        progress: is told the number of samples of each batch that is done.

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
        for head, answer in engine.logits(batch["inputs"]).items():
            if not answer.isfinite().all():
                lines = ", ".join(str(manifest.entries[i].line) for i in batch["index"].tolist())
                raise NonFiniteLogits(f"the network's answers to {manifest.path}, lines {lines}, are not finite")
            logits[head].append(answer.numpy())
            targets[head].append(batch["targets"][head].numpy())
        index.append(batch["index"].numpy())
        progress(len(batch["index"]))
    if not index:
        raise UnreadableSample(f"{manifest.path}: not one sample of split {split!r} can be read; {failures[0]}")

    seen = np.concatenate(index)
    answered = set(seen.tolist())
    if len(seen) + len(failures) != len(expected) or len(answered) != len(seen) or not answered <= set(expected):
        raise AssertionError(f"{len(expected)} samples were asked for, {len(seen)} answered, {len(failures)} missing")
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
        units=_units(manifest, seen),
        corpus=manifest.corpus,
        version=manifest.version,
    )


def check_declared(manifest: Manifest, split: str) -> None:
    """Refuse to take a part of a split for the whole.

    Raises:
        ManifestError: the manifest lists more or fewer samples than it declares.
    """
    listed = len(manifest.positions(split))
    declared = manifest.declared.get(split, listed)
    if listed != declared:
        raise ManifestError(
            f"{manifest.path}: lists {listed} samples of split {split!r}, but its JSON declares {declared}; make it "
            "anew with `kinema prepare`, or correct the number if lines were taken out on purpose"
        )


def measure(predictions: Predictions) -> Iterator[tuple[str, float]]:
    """The numbers of a predictions file as (name, value): `top1`, or `verb.top1` where there are several heads.

    With several heads `joint.top1` is the share of samples with every head right, and `joint.top5` that of samples
    whose combination of classes is among the five with the highest product of the heads' softmaxes. Of a split without
    labels there is the coverage alone.
    """
    if predictions.labelled:
        yield from _measures(predictions)
    yield "coverage", predictions.coverage


def _measures(predictions: Predictions) -> Iterator[tuple[str, float]]:
    for head, logits in predictions.logits.items():
        prefix = f"{head}." if len(predictions.logits) > 1 else ""
        targets = predictions.targets[head]
        yield f"{prefix}top1", top_k_accuracy(logits, targets, 1)
        yield f"{prefix}top5", top_k_accuracy(logits, targets, 5)
        yield f"{prefix}mean_class", mean_class_accuracy(confusion(logits, targets))
    if len(predictions.logits) > 1:
        joint = predictions.ranks(JOINT)
        yield f"{JOINT}.top1", float(100 * predictions.right(JOINT).mean())
        yield f"{JOINT}.top5", float(100 * (joint < 5).mean())


def mistakes(predictions: Predictions, head: str) -> list[tuple[str, str, int]]:
    """The confusion matrix off its diagonal: (true class, answer, count), most frequent first."""
    counts = confusion(predictions.logits[head], predictions.targets[head])
    np.fill_diagonal(counts, 0)
    names = predictions.classes[head]
    found = [(names[true], names[said], int(counts[true, said])) for true, said in np.argwhere(counts)]
    return sorted(found, key=lambda mistake: -mistake[2])


def merge_predictions(parts: Sequence[Predictions], manifest: Manifest) -> Predictions:
    """The answers of several processes to all samples of one split, in the order of the manifest.

    Raises:
        AssertionError: a sample was answered twice, or not at all.
    """
    order = np.argsort(np.concatenate([part.index for part in parts]), kind="stable")
    index = np.concatenate([part.index for part in parts])[order]
    expected = manifest.positions(parts[0].split)
    if index.tolist() != sorted(expected):
        raise AssertionError(f"{len(expected)} samples were asked for, {len(np.unique(index))} of them answered")
    return replace(
        parts[0],
        logits={head: np.concatenate([part.logits[head] for part in parts])[order] for head in parts[0].logits},
        targets={head: np.concatenate([part.targets[head] for part in parts])[order] for head in parts[0].targets},
        index=index,
        units=_units(manifest, index),
    )


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Write predictions as one safetensors file; what is not an array goes into its header as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"index": predictions.index}
    for head in predictions.logits:
        tensors[f"logits.{head}"] = np.ascontiguousarray(predictions.logits[head])
        tensors[f"targets.{head}"] = predictions.targets[head]
    for column, units in predictions.units.items():
        tensors[f"units.{column}"] = units
    said = {
        "classes": {head: list(names) for head, names in predictions.classes.items()},
        "split": predictions.split,
        "declared": predictions.declared,
        "missing": list(predictions.missing),
        "manifest_digest": predictions.manifest_digest,
        "weights_digest": predictions.weights_digest,
        "protocol": None if predictions.protocol is None else asdict(predictions.protocol),
        "corpus": predictions.corpus,
        "version": predictions.version,
    }
    try:
        with replacing(path) as file:
            file.write(save(tensors, metadata={"predictions": json.dumps(said, ensure_ascii=False)}))
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be written ({error})") from error


def load_predictions(path: Path) -> Predictions:
    """Read what `save_predictions` wrote.

    Args:
        path: the file, or a run's folder that holds one.

    Raises:
        PredictionsError: the file is missing or is no predictions file.
    """
    if path.is_dir():
        path = path / PREDICTIONS
    try:
        with safe_open(path, framework="np") as file:
            said = json.loads((file.metadata() or {})["predictions"])
            protocol = said.get("protocol")  # files of kinema 0.1.0 have neither it nor the units
            stored = set(file.keys())
            return Predictions(
                logits={head: file.get_tensor(f"logits.{head}") for head in said["classes"]},
                targets={head: file.get_tensor(f"targets.{head}") for head in said["classes"]},
                index=file.get_tensor("index"),
                classes={head: tuple(names) for head, names in said["classes"].items()},
                split=said["split"],
                declared=said["declared"],
                missing=tuple(said["missing"]),
                manifest_digest=said["manifest_digest"],
                weights_digest=said["weights_digest"],
                protocol=None if protocol is None else Protocol(**protocol),
                units={name: file.get_tensor(f"units.{name}") for name in GROUPINGS if f"units.{name}" in stored},
                corpus=said.get("corpus", ""),
                version=said.get("version", ""),
            )
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise PredictionsError(f"{path}: is no predictions file ({error})") from error


def _units(manifest: Manifest, index: Int64[ndarray, " samples"]) -> dict[str, Int64[ndarray, " samples"]]:
    """A number for each name of a group or subject, where every sample has one."""
    found: dict[str, Int64[ndarray, " samples"]] = {}
    for column in GROUPINGS:
        names = [getattr(manifest.entries[i], column) for i in index.tolist()]
        if all(names):
            found[column] = np.unique(names, return_inverse=True)[1].astype(np.int64)
    return found


def _check_classes(manifest: Manifest, artefact: TrainedModel) -> None:
    if set(manifest.classes) != set(artefact.classes):
        raise ManifestError(
            f"{manifest.path}: has task heads {', '.join(manifest.classes)}, the model {', '.join(artefact.classes)}"
        )
    for head, names in manifest.classes.items():
        known = artefact.classes[head]
        if names != known:
            unknown = sorted(set(names) - set(known))
            what = (
                f"class {unknown[0]!r} is unknown to the model" if unknown else "the order or number of classes differs"
            )
            raise ManifestError(
                f"{manifest.path.with_suffix('.json')}: the class list of {head!r} is not the model's: {what}"
            )

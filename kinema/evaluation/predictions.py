"""Predictions of a model on a split, their metrics, and their safetensors file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from kinema.config import Count, config, from_json
from kinema.data.manifest import UNLABELED, Manifest
from kinema.data.names import normalize
from kinema.errors import PredictionsError
from kinema.evaluation.metrics import confusion, joint_ranks, mean_class_accuracy, ranks, top_k_accuracy
from kinema.files import atomic_write, parse_json, require_regular

PREDICTIONS_FILE = "predictions.safetensors"
"""Name of the predictions file in a run folder."""

GROUP_COLUMNS: tuple[Literal["group", "subject"], ...] = ("group", "subject")
"""Manifest columns of related samples, which a bootstrap may resample together."""

JOINT = "joint"
"""Name of the combination of all task heads, which is correct if every head is."""

HEADER = ("classes", "split", "declared", "missing", "manifest_digest", "weights_digest", "protocol")
"""Fields stored under their own names as JSON in the header of a predictions file."""


OPTIONAL: tuple[Literal["start_weights", "caveat"], ...] = ("start_weights", "caveat")
"""Further fields of the header, which are stored unless empty."""


@config
class Protocol:
    """Test-time views of each video: frames per clip x clips x crops."""

    frames: Count
    clips: Count
    crops: Count

    def __str__(self) -> str:
        return f"{self.frames} x {self.clips} x {self.crops}"


@config
class Header:
    """Content of the header of a predictions file. Those of the first version have neither protocol nor groups."""

    classes: dict[str, tuple[str, ...]]
    split: str
    declared: Count
    missing: tuple[str, ...]
    manifest_digest: str
    weights_digest: str
    protocol: Protocol | None = None
    corpus: str = ""
    version: str = ""
    start_weights: str = ""
    caveat: str = ""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Logits and targets of the samples of one split.

    Attributes:
        logits: Logits by task head, in the order of `index`.
        targets: Class numbers by task head; -1 in a split without labels.
        index: Positions in the manifest.
        classes: Class names by task head.
        split: Name of the split.
        declared: Number of samples of the split that the manifest declares.
        missing: Error messages of the samples that could not be read.
        manifest_digest: Digest of the manifest.
        weights_digest: Digest of the weights.
        protocol: Views of each video. None if unknown.
        groups: Group number of each sample by `group` and `subject`, if the manifest has them for all samples.
        dataset: Dataset of the manifest. Empty if unknown.
        version: Version of the dataset.
        start_weights: Weights that the model's training started from. Empty if unknown.
        caveat: Why accuracy on this split may be optimistic. Empty without a known reason.
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
    groups: Mapping[str, Int64[ndarray, " samples"]] = field(default_factory=dict)
    dataset: str = ""
    version: str = ""
    start_weights: str = ""
    caveat: str = ""

    def __post_init__(self) -> None:
        if JOINT in self.classes:
            raise PredictionsError(
                f"task head {JOINT!r}: reserved name of all heads together. Rename the head.", field="classes"
            )
        if not self.num_samples or len(np.unique(self.index)) != self.num_samples:
            raise PredictionsError("predictions: no samples, or duplicate samples", field="index")
        if type(self.declared) is not int or self.declared < self.num_samples:
            raise PredictionsError(
                f"declared={self.declared!r}: expected at least the {self.num_samples} predicted samples",
                field="declared",
            )
        floats, numbers = list(self.logits.values()), [self.index, *self.targets.values()]
        if {a.dtype.kind for a in floats} != {"f"} or {a.dtype.kind for a in numbers} != {"i"} or self.index.min() < 0:
            raise PredictionsError("predictions: expected logits of type float, targets and index int", field="index")
        for head, names in self.classes.items():
            logits, targets = self.logits[head], self.targets[head]
            if logits.shape != (self.num_samples, len(names)) or targets.shape != self.index.shape:
                raise PredictionsError(
                    f"head {head!r}: logits {logits.shape} and targets {targets.shape}; expected {self.num_samples} "
                    f"samples and {len(names)} classes",
                    field=head,
                )
            labels, num_labels = (targets, len(names)) if self.is_labeled else (targets - UNLABELED, 1)
            if not np.isfinite(logits).all():
                raise PredictionsError(f"head {head!r}: logits are not finite", field=head)
            if any(numbers.shape != self.index.shape for numbers in self.groups.values()):
                raise PredictionsError("groups: expected one number per sample", field="groups")
            if labels.min() < 0 or labels.max() >= num_labels:
                raise PredictionsError(f"head {head!r}: expected targets from 0 to {len(names) - 1}", field=head)

    @property
    def num_samples(self) -> int:
        """Number of evaluated samples."""
        return len(self.index)

    @property
    def is_labeled(self) -> bool:
        """True if any sample has a label."""
        return any((targets != UNLABELED).any() for targets in self.targets.values())

    @property
    def coverage(self) -> float:
        """Share of the declared samples that were evaluated [%]."""
        return 100 * self.num_samples / self.declared

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the task heads, followed by `joint` if there are several."""
        return (*self.classes, JOINT) if len(self.classes) > 1 else tuple(self.classes)

    def ranks(self, head: str) -> Int64[ndarray, " samples"]:
        """Return the number of classes (for `joint`, combinations of classes) ranked above the true one.

        Raises:
            PredictionsError: The split has no labels.
        """
        self.require_labels()
        if head == JOINT:
            return joint_ranks(
                [self.logits[name] for name in self.classes], [self.targets[name] for name in self.classes]
            )
        return ranks(self.logits[head], self.targets[head])

    def correct(self, head: str) -> Bool[ndarray, " samples"]:
        """Return whether the top prediction (for `joint`, that of every head) is correct.

        Raises:
            PredictionsError: The split has no labels.
        """
        self.require_labels()
        heads = self.classes if head == JOINT else (head,)
        return np.asarray(np.all([ranks(self.logits[name], self.targets[name]) == 0 for name in heads], axis=0))

    def require_labels(self) -> None:
        """Raise PredictionsError if the split has no labels."""
        if not self.is_labeled:
            raise PredictionsError(f"split {self.split!r}: no labels, so no metrics", field="targets")

    def select_rows(self, rows: Int64[ndarray, " rows"]) -> "Predictions":
        """Return a selection of the samples, in the order of `rows`."""
        return replace(
            self,
            logits={head: logits[rows] for head, logits in self.logits.items()},
            targets={head: targets[rows] for head, targets in self.targets.items()},
            index=self.index[rows],
            groups={column: numbers[rows] for column, numbers in self.groups.items()},
        )


def measure(predictions: Predictions) -> Iterator[tuple[str, float]]:
    """Yield each metric as (name, value): `top1`, or `verb.top1` with several heads; only `coverage` without labels.

    With several heads, `joint.top1` is the share of samples with every head correct, and `joint.top5` the share whose
    combination of classes is among the five with the highest product of the heads' softmaxes.
    """
    for head, logits in predictions.logits.items() if predictions.is_labeled else ():
        prefix = f"{head}." if len(predictions.logits) > 1 else ""
        targets = predictions.targets[head]
        yield f"{prefix}top1", top_k_accuracy(logits, targets, 1)
        yield f"{prefix}top5", top_k_accuracy(logits, targets, 5)
        yield f"{prefix}mean_class", mean_class_accuracy(confusion(logits, targets))
    if predictions.is_labeled and len(predictions.logits) > 1:
        yield f"{JOINT}.top1", float(100 * predictions.correct(JOINT).mean())
        yield f"{JOINT}.top5", float(100 * (predictions.ranks(JOINT) < 5).mean())
    yield "coverage", predictions.coverage


def mistakes(predictions: Predictions, head: str) -> list[tuple[str, str, int]]:
    """Return confusions as (true class, predicted class, count), most frequent first."""
    counts = confusion(predictions.logits[head], predictions.targets[head])
    np.fill_diagonal(counts, 0)
    names = predictions.classes[head]
    confusions = [(names[true], names[guess], int(counts[true, guess])) for true, guess in np.argwhere(counts)]
    return sorted(confusions, key=lambda confusion: -confusion[2])


def merge_predictions(parts: Sequence[Predictions], manifest: Manifest) -> Predictions:
    """Merge the predictions of several processes on one split, in the order of the manifest.

    Raises:
        AssertionError: A sample is missing or a duplicate.
    """
    index = np.concatenate([part.index for part in parts])
    expected = manifest.positions(parts[0].split)
    if sorted(index.tolist()) != sorted(expected):
        raise AssertionError(f"expected {len(expected)} samples, got {len(np.unique(index))} distinct ones")
    merged = replace(
        parts[0],
        logits=concatenate([part.logits for part in parts]),
        targets=concatenate([part.targets for part in parts]),
        index=index,
        groups=group_numbers(manifest, index),
    )
    return merged.select_rows(np.argsort(index))


def concatenate(parts: Sequence[Mapping[str, ndarray]]) -> dict[str, ndarray]:
    """Concatenate arrays by task head."""
    return {head: np.concatenate([part[head] for part in parts]) for head in parts[0]}


def group_numbers(manifest: Manifest, index: Int64[ndarray, " samples"]) -> dict[str, Int64[ndarray, " samples"]]:
    """Return the number of each sample's group and subject, for columns that are filled for all samples."""
    numbers: dict[str, Int64[ndarray, " samples"]] = {}
    for column in GROUP_COLUMNS:
        names = [getattr(manifest.entries[i], column) for i in index.tolist()]
        if all(names):
            numbers[column] = np.unique(names, return_inverse=True)[1].astype(np.int64)
    return numbers


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Write predictions as one safetensors file, with all but the arrays as JSON in its header.

    Raises:
        PredictionsError: The file cannot be written.
    """
    tensors = {"index": predictions.index}
    for head in predictions.logits:
        tensors[f"logits.{head}"] = np.ascontiguousarray(predictions.logits[head])
        tensors[f"targets.{head}"] = predictions.targets[head]
    for column, numbers in predictions.groups.items():
        tensors[f"units.{column}"] = numbers
    header = {name: getattr(predictions, name) for name in HEADER}
    header |= {"corpus": predictions.dataset, "version": predictions.version}  # "corpus" as in the first format
    header |= {name: text for name in OPTIONAL if (text := getattr(predictions, name))}
    text = json.dumps(header, ensure_ascii=False, default=asdict).encode(errors="backslashreplace").decode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(save(tensors, metadata={"predictions": text}))
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be written ({error})", path=path) from error


def load_predictions(path: Path) -> Predictions:
    """Read a predictions file, or that of a run folder.

    Raises:
        PredictionsError: The file is missing or not a predictions file.
    """
    if path.is_dir():
        path = path / PREDICTIONS_FILE
    try:
        require_regular(path)
        with safe_open(path, framework="np") as file:
            known = {own.name for own in fields(Header)}
            header_json = parse_json((file.metadata() or {})["predictions"])
            header = from_json(Header, {name: value for name, value in header_json.items() if name in known})
            stored = set(file.keys())
            return Predictions(
                logits={head: file.get_tensor(f"logits.{head}") for head in header.classes},
                targets={head: file.get_tensor(f"targets.{head}") for head in header.classes},
                index=file.get_tensor("index"),
                classes={head: tuple(map(normalize, names)) for head, names in header.classes.items()},
                split=header.split,
                declared=header.declared,
                missing=header.missing,
                manifest_digest=header.manifest_digest,
                weights_digest=header.weights_digest,
                protocol=header.protocol,
                groups={name: file.get_tensor(f"units.{name}") for name in GROUP_COLUMNS if f"units.{name}" in stored},
                dataset=header.corpus,
                version=header.version,
                start_weights=header.start_weights,
                caveat=header.caveat,
            )
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        field = getattr(error, "field", None)
        raise PredictionsError(f"{path}: not a predictions file ({error})", path=path, field=field) from error

"""Submission files of the EPIC-KITCHENS-100 action recognition challenge, made from stored predictions.

The format is that of the organizers' script (github.com/epic-kitchens/C1-Action-Recognition, utils/challenge.py): a
score per verb (97) and noun (300) for each segment, by narration id, as `test.json` in a zip. Scores of the top 100
actions ("verb,noun") are optional. The starter kit of EPIC-KITCHENS-55 expects exactly 100, or computes them from the
two softmaxes. They are computed the same way here, as in `joint`.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import log_softmax

from kinema.data.manifest import Manifest
from kinema.datasets.epic_kitchens import CLASSES, DATASET
from kinema.errors import PredictionsError
from kinema.evaluation.predictions import Predictions
from kinema.files import atomic_write

ACTIONS = 100
"""Number of actions scored per segment."""

SUFFIXES = (".json", ".zip")


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """Supervision levels of a model (github.com/epic-kitchens/sls), stated in a submission.

    Attributes:
        pretraining: 0 none; 1 public images; 2 public images and videos; 3 public data without labels; 4 the same and
            EPIC-KITCHENS; 5 private data.
        labels: Training labels; 3 for start and stop of each segment, which kinema uses.
        data: Training data; 2 for at most a quarter, 3 for the training split, 4 for training and validation split.
    """

    pretraining: int
    labels: int = 3
    data: int = 3

    def __post_init__(self) -> None:
        for name in ("pretraining", "labels", "data"):
            if getattr(self, name) not in range(6):
                raise PredictionsError(f"supervision: {name}={getattr(self, name)}; expected 0 to 5", field=name)


def write_submission(path: Path, predictions: Predictions, manifest: Manifest, *, supervision: Supervision) -> None:
    """Write a submission file (`.json`, or `.zip` as the server accepts) from predictions on all segments of a split.

    Raises:
        PredictionsError: The file has another suffix or cannot be written, the predictions are from another manifest,
            other classes or not all segments, or a narration id is missing or a duplicate.
    """
    if path.suffix not in SUFFIXES:
        raise PredictionsError(f"{path}: unknown suffix; expected {' or '.join(SUFFIXES)}", path=path)
    names = _narrations(predictions, manifest)
    header: dict[str, str | int] = {
        "version": "0.2",
        "challenge": "action_recognition",
        "sls_pt": supervision.pretraining,
        "sls_tl": supervision.labels,
        "sls_td": supervision.data,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            if path.suffix == ".json":
                for piece in _pieces(header, names, predictions):
                    file.write(piece.encode())
            else:
                with ZipFile(file, "w", ZIP_DEFLATED) as archive, archive.open("test.json", "w") as inside:
                    for piece in _pieces(header, names, predictions):
                        inside.write(piece.encode())
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be written ({error})", path=path) from error


def top_actions(
    verbs: Float[ndarray, " verbs"], nouns: Float[ndarray, " nouns"], count: int = ACTIONS
) -> list[tuple[int, int, float]]:
    """Return (verb, noun, probability) of the most probable actions of one segment, best first.

    The probability of an action is the product of the softmaxes of verb and noun. Ties go to the lower verb, then to
    the lower noun, as in `joint`.
    """
    logs = (log_softmax(verbs.astype(np.float64))[:, None] + log_softmax(nouns.astype(np.float64))[None, :]).ravel()
    best = np.argsort(-logs, kind="stable")[:count]
    pairs = zip(*(numbers.tolist() for numbers in np.divmod(best, len(nouns))), strict=True)
    return [(verb, noun, score) for (verb, noun), score in zip(pairs, np.exp(logs[best]).tolist(), strict=True)]


def _narrations(predictions: Predictions, manifest: Manifest) -> list[str]:
    """Check the predictions and return the narration id of each."""
    path = manifest.path
    if predictions.manifest_digest != manifest.digest:
        raise PredictionsError(f"{path}: the predictions are from another manifest", path=path, field="manifest_digest")
    if manifest.dataset != DATASET:
        raise PredictionsError(
            f"{path}: dataset {manifest.dataset!r}; expected {DATASET!r}. Run `kinema prepare epic_kitchens`.",
            path=path,
            field="dataset",
        )
    heads = {head: len(names) for head, names in predictions.classes.items()}
    if heads != CLASSES:
        got, expected = (", ".join(f"{n} classes of {head}" for head, n in n_of.items()) for n_of in (heads, CLASSES))
        raise PredictionsError(f"predictions: {got}; expected {expected}", field="classes")
    if predictions.num_samples != predictions.declared:
        raise PredictionsError(
            f"predictions: {predictions.num_samples} segments of split {predictions.split!r}; expected all "
            f"{predictions.declared}",
            field="index",
        )
    entries = [manifest.entries[position] for position in predictions.index.tolist()]
    nameless = next((entry for entry in entries if not entry.sample), None)
    if nameless is not None:
        raise PredictionsError(
            f"{path}, line {nameless.line}: no narration id in column sample. Run `kinema prepare epic_kitchens`.",
            path=path,
            line=nameless.line,
            field="sample",
        )
    names = [entry.sample for entry in entries]
    duplicate = next((name for name, count in Counter(names).items() if count > 1), None)
    if duplicate is not None:
        raise PredictionsError(
            f"{path}: duplicate narration id {duplicate} in split {predictions.split!r}", path=path, field="sample"
        )
    return names


def _pieces(header: Mapping[str, str | int], names: Sequence[str], predictions: Predictions) -> Iterator[str]:
    """Yield the JSON segment by segment, because all segments as Python numbers take gigabytes."""
    yield json.dumps(dict(header))[:-1] + ', "results": {'
    for number, name in enumerate(names):
        verbs, nouns = (predictions.logits[head][number] for head in CLASSES)
        segment = {
            "verb": {str(i): score for i, score in enumerate(verbs.tolist())},
            "noun": {str(i): score for i, score in enumerate(nouns.tolist())},
            "action": {f"{verb},{noun}": score for verb, noun, score in top_actions(verbs, nouns)},
        }
        yield (",\n" if number else "\n") + f"{json.dumps(name)}: {json.dumps(segment)}"
    yield "\n}}\n"

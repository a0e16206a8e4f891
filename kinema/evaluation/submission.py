"""Submission files of the EPIC-KITCHENS-100 action recognition challenge, made of stored predictions.

The format is that of the organizers' script (github.com/epic-kitchens/C1-Action-Recognition, utils/challenge.py): a
score per verb (97) and noun (300) for each segment, by narration id; a zip holds it as `test.json`. Scores of the top
100 actions, by "verb,noun", are optional. The starter kit of EPIC-KITCHENS-55 expects exactly 100 and else computes
them from the two softmaxes. They are written here by the same rule, which is that of `joint`.
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

    Args:
        pretraining: 0 none; 1 public images; 2 public images and videos; 3 public data without labels; 4 the same with
            EPIC-KITCHENS; 5 private data.
        labels: training labels; 3 is start and stop of each segment, which kinema trains with.
        data: training data; 3 is the training split; 4 adds the validation split; 2 is at most a quarter.
    """

    pretraining: int
    labels: int = 3
    data: int = 3

    def __post_init__(self) -> None:
        for name in ("pretraining", "labels", "data"):
            if getattr(self, name) not in range(6):
                raise PredictionsError(f"supervision: {name}={getattr(self, name)}; expected 0 to 5", field=name)


def write_submission(path: Path, predictions: Predictions, manifest: Manifest, *, supervision: Supervision) -> None:
    """Write a submission file.

    Args:
        path: file to write; its name ends in .json, or in .zip for the archive that the server accepts.
        predictions: predictions on all segments of one split.
        manifest: manifest of the predictions, with the segments' narration ids.
        supervision: supervision levels of the model.

    Raises:
        PredictionsError: the file name has another ending or cannot be written; the predictions are not of this
            manifest, of EPIC-KITCHENS's verbs and nouns, or of all segments; a narration id is missing or a duplicate.
    """
    if path.suffix not in SUFFIXES:
        raise PredictionsError(f"{path}: expected a file name ending in {' or '.join(SUFFIXES)}", path=path)
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
    """Return verb, noun and probability of the most probable actions of one segment, best first.

    The probability of an action is the product of its verb's and its noun's softmax. Ties go to the lower verb, then to
    the lower noun, as in `joint`.
    """
    logs = (log_softmax(verbs.astype(np.float64))[:, None] + log_softmax(nouns.astype(np.float64))[None, :]).ravel()
    best = np.argsort(-logs, kind="stable")[:count]
    pairs = zip(*(numbers.tolist() for numbers in np.divmod(best, len(nouns))), strict=True)
    return [(verb, noun, score) for (verb, noun), score in zip(pairs, np.exp(logs[best]).tolist(), strict=True)]


def _narrations(predictions: Predictions, manifest: Manifest) -> list[str]:
    """Return the narration id of each prediction, after all checks."""
    path = manifest.path
    if predictions.manifest_digest != manifest.digest:
        raise PredictionsError(f"{path}: not the manifest of the predictions", path=path, field="manifest_digest")
    if manifest.dataset != DATASET:
        raise PredictionsError(
            f"{path}: a manifest of {manifest.dataset!r}; expected {DATASET}. Run `kinema prepare epic_kitchens`.",
            path=path,
            field="dataset",
        )
    heads = {head: len(names) for head, names in predictions.classes.items()}
    if heads != CLASSES:
        got, expected = (", ".join(f"{n} of {head}" for head, n in found.items()) for found in (heads, CLASSES))
        raise PredictionsError(f"predictions: number of classes is {got}; expected {expected}", field="classes")
    if predictions.num_samples != predictions.declared:
        raise PredictionsError(
            f"predictions: {predictions.num_samples} of {predictions.declared} segments of split "
            f"{predictions.split!r}; expected all",
            field="index",
        )
    entries = [manifest.entries[position] for position in predictions.index.tolist()]
    nameless = next((entry for entry in entries if not entry.sample), None)
    if nameless is not None:
        raise PredictionsError(
            f"{path}, line {nameless.line}: no narration id in column sample. Make the manifest with "
            "`kinema prepare epic_kitchens`.",
            path=path,
            line=nameless.line,
            field="sample",
        )
    names = [entry.sample for entry in entries]
    duplicate = next((name for name, count in Counter(names).items() if count > 1), None)
    if duplicate is not None:
        raise PredictionsError(
            f"{path}: narration id {duplicate} is a duplicate in split {predictions.split!r}", path=path, field="sample"
        )
    return names


def _pieces(header: Mapping[str, str | int], names: Sequence[str], predictions: Predictions) -> Iterator[str]:
    """Yield the JSON segment by segment; all at once would take gigabytes as Python numbers."""
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

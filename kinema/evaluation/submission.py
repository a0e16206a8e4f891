"""Stored predictions as the file that the EPIC-KITCHENS-100 action recognition challenge takes.

The form is that of the organisers' script (github.com/epic-kitchens/C1-Action-Recognition, utils/challenge.py): for
each segment, by its narration id, a score of each of the 97 verbs and 300 nouns, by their numbers; a zip holds it as
`test.json`. The 100 likeliest actions, by "verb,noun", are optional: the starter kit of EPIC-KITCHENS-55 says that they
are exactly 100 and else made of the two softmaxes. They are given here, by the same rule, which is that of `joint`.
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
from kinema.datasets.epic_kitchens import CLASSES, CORPUS
from kinema.errors import PredictionsError
from kinema.evaluation.evaluate import Predictions
from kinema.files import atomic_write

ACTIONS = 100
"""Scored of each segment."""
SUFFIXES = (".json", ".zip")


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """How much a model was told, in the levels of github.com/epic-kitchens/sls, which a submission has to state.

    Args:
        pretraining: 0 none; 1 public images; 2 public images and videos; 3 and 4 without labels, public data and with
            EPIC-KITCHENS; 5 private data.
        labels: of training; 3 are the segments' start and stop, which kinema trains with.
        data: 3 the whole training split; 4 with the validation split; 2 at most a quarter.
    """

    pretraining: int
    labels: int = 3
    data: int = 3

    def __post_init__(self) -> None:
        for name in ("pretraining", "labels", "data"):
            if getattr(self, name) not in range(6):
                raise PredictionsError(f"supervision: {name}={getattr(self, name)} must be 0 to 5")


def write_submission(path: Path, predictions: Predictions, manifest: Manifest, *, supervision: Supervision) -> None:
    """Write a submission.

    Args:
        path: ends in .json, or in .zip for the archive that the server takes.
        predictions: of all segments of one split.
        manifest: that they were made on, with the segments' narration ids.
        supervision: what the model was told.

    Raises:
        PredictionsError: the name ends in neither; the predictions are not of this manifest, not of EPIC-KITCHENS's
            verbs and nouns, or not of all segments; a narration id is missing or stands twice; nothing can be written.
    """
    if path.suffix not in SUFFIXES:
        raise PredictionsError(f"{path}: a submission's name ends in {' or '.join(SUFFIXES)}")
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
        raise PredictionsError(f"{path}: cannot be written ({error})") from error


def likeliest_actions(
    verbs: Float[ndarray, " verbs"], nouns: Float[ndarray, " nouns"], most: int = ACTIONS
) -> list[tuple[int, int, float]]:
    """Verb, noun and probability of the likeliest actions, best first, from the logits of one segment.

    The probability of an action is the product of its verb's and its noun's softmax; among equal ones the lower verb
    stands first, then the lower noun, as in `joint`.
    """
    logs = (log_softmax(verbs.astype(np.float64))[:, None] + log_softmax(nouns.astype(np.float64))[None, :]).ravel()
    best = np.argsort(-logs, kind="stable")[:most]
    pairs = zip(*(places.tolist() for places in np.divmod(best, len(nouns))), strict=True)
    return [(verb, noun, share) for (verb, noun), share in zip(pairs, np.exp(logs[best]).tolist(), strict=True)]


def _narrations(predictions: Predictions, manifest: Manifest) -> list[str]:
    """The narration id of each answer, when all is as the challenge wants it."""
    if predictions.manifest_digest != manifest.digest:
        raise PredictionsError(f"{manifest.path}: is not the manifest that the predictions were made on")
    if manifest.corpus != CORPUS:
        raise PredictionsError(
            f"{manifest.path}: is of {manifest.corpus!r}; the challenge wants {CORPUS}'s own numbers of classes: make "
            "the manifest by `kinema prepare epic_kitchens`"
        )
    heads = {head: len(names) for head, names in predictions.classes.items()}
    if heads != CLASSES:
        said, wanted = (", ".join(f"{n} of {head}" for head, n in found.items()) for found in (heads, CLASSES))
        raise PredictionsError(f"the predictions are of {said}; the challenge wants {wanted}")
    if len(predictions.index) != predictions.declared:
        raise PredictionsError(
            f"the predictions are of {len(predictions.index)} of {predictions.declared} segments of split "
            f"{predictions.split!r}; the challenge wants all"
        )
    entries = [manifest.entries[position] for position in predictions.index.tolist()]
    nameless = next((entry for entry in entries if not entry.sample), None)
    if nameless is not None:
        raise PredictionsError(
            f"{manifest.path}, line {nameless.line}: has no narration id in column sample; make the manifest by "
            "`kinema prepare epic_kitchens`"
        )
    names = [entry.sample for entry in entries]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise PredictionsError(f"{manifest.path}: narration id {twice} stands twice in split {predictions.split!r}")
    return names


def _pieces(header: Mapping[str, str | int], names: Sequence[str], predictions: Predictions) -> Iterator[str]:
    """The JSON, a segment at a time: all at once would take gigabytes as Python's numbers."""
    yield json.dumps(dict(header))[:-1] + ', "results": {'
    for number, name in enumerate(names):
        verbs, nouns = (predictions.logits[head][number] for head in CLASSES)
        segment = {
            "verb": {str(i): score for i, score in enumerate(verbs.tolist())},
            "noun": {str(i): score for i, score in enumerate(nouns.tolist())},
            "action": {f"{verb},{noun}": share for verb, noun, share in likeliest_actions(verbs, nouns)},
        }
        yield (",\n" if number else "\n") + f"{json.dumps(name)}: {json.dumps(segment)}"
    yield "\n}}\n"

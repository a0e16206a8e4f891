"""What is claimed is stored: a run's recipe, commit, data, seed, numbers and compact predictions as one JSON."""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from kinema.errors import PredictionsError, RunError
from kinema.evaluation.predictions import Predictions, Protocol, load_predictions, measure
from kinema.evaluation.summary import summarize
from kinema.inference.trained_model import find_description
from kinema.training.recipe_json import recipe_to_json
from kinema.training.runs import Run

LARGEST_SCORES = 60_000
"""Samples times classes of which the scores are stored too: 160 KB of text."""


def store_result(run: Run, out: Path, *, title: str) -> dict[str, Any]:
    """Write a run's result; the numbers are computed from its predictions file, not taken from its log.

    Args:
        run: a finished training; its model's predictions are stored.
        out: the JSON to write, under `results/`.
        title: what was run, on what; "synthetic" where the data are.

    Returns:
        What was written: accuracies in percent with their intervals; targets, answers and the five best answers as
        class numbers in the order of `index`; and where the table is small the scores, see `load_result`.
    """
    predictions = load_predictions(run.predictions)
    summary = summarize(predictions)
    measures, intervals = dict(measure(predictions)), {}
    for head, found in summary.heads.items():
        prefix = f"{head}." if len(summary.heads) > 1 else ""
        measures |= {f"{prefix}nll": found.nll, f"{prefix}ece": found.ece}
        intervals[f"{prefix}top1"] = found.top1_interval
        intervals[f"{prefix}mean_class"] = found.mean_class_interval
    if summary.joint is not None:
        intervals["joint.top1"] = summary.joint.top1_interval
    recipe = run.recipe
    anywhere = replace(
        recipe,
        data=replace(recipe.data, manifest=Path(recipe.data.manifest).name),
        run=replace(recipe.run, out=None),
    )  # where it lay on one machine is nobody else's concern
    description = find_description(run.path)
    if description is None:
        raise RunError(f"{run.path}: has no trained model yet", path=run.path)
    result = {
        "title": title,
        "provenance": json.loads(description.read_text(encoding="utf-8"))["provenance"],
        "environment": json.loads((run.path / "environment.json").read_text(encoding="utf-8")),
        "recipe": json.loads(recipe_to_json(anywhere)),
        "dataset": predictions.dataset,
        "version": predictions.version,
        "split": predictions.split,
        "declared": predictions.declared,
        "protocol": None if predictions.protocol is None else asdict(predictions.protocol),
        "weights_digest": predictions.weights_digest,
        "measures": {name: round(value, 3) for name, value in measures.items()},
        "intervals": {name: [round(low, 3), round(high, 3)] for name, (low, high) in intervals.items()},
        "bootstrap": asdict(summary.bootstrap),
        "training": {
            "steps": len(run.steps()),
            "first_loss": run.steps()[0]["loss"],
            "last_loss": float(np.mean([line["loss"] for line in run.steps()[-20:]])),
            "evaluations": run.metrics(),
            "skipped": {"draws": len(run.skipped()), "samples": len({line["index"] for line in run.skipped()})},
        },
        "classes": {head: list(names) for head, names in predictions.classes.items()},
        "predictions": {
            "index": predictions.index.tolist(),
            "targets": {head: targets.tolist() for head, targets in predictions.targets.items()},
            "answers": {head: logits.argmax(axis=1).tolist() for head, logits in predictions.logits.items()},
            "top5": {head: _best(logits, 5) for head, logits in predictions.logits.items()},
            "scores": {head: _packed(logits) for head, logits in predictions.logits.items()},
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def load_result(path: Path) -> Predictions:
    """The predictions of a stored result. Its logits are rounded to three digits and shifted, so that the best is 0.

    Answers and the five best are in the JSON as they were; likelihood and calibration follow from these logits to about
    three digits.

    Raises:
        PredictionsError: the file is no result, or one that holds no scores: an old one, or a large one.
    """
    try:
        said: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stored, classes = said["predictions"], said["classes"]
        if None in stored["scores"].values():
            raise ValueError("its table is too large for scores")
        index = np.array(stored["index"], np.int64)
        return Predictions(
            logits={
                head: _unpacked(text, samples=len(index), classes=len(classes[head]))
                for head, text in stored["scores"].items()
            },
            targets={head: np.array(targets, np.int64) for head, targets in stored["targets"].items()},
            index=index,
            classes={head: tuple(names) for head, names in classes.items()},
            split=said["split"],
            declared=said["declared"],
            missing=(),
            manifest_digest=said["provenance"]["manifest_digest"],
            weights_digest=said["weights_digest"],
            protocol=None if said["protocol"] is None else Protocol(**said["protocol"]),
            dataset=said.get("dataset", said.get("corpus", "")),
            version=said.get("version", ""),
        )
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise PredictionsError(f"{path}: not a result with scores ({error})", path=path) from error


def _best(logits: Float[ndarray, "samples classes"], k: int) -> list[list[int]]:
    """Class numbers of the k best answers, the best first; among equal ones the lower number."""
    best: list[list[int]] = np.argsort(-logits, axis=1, kind="stable")[:, :k].tolist()
    return best


def _packed(logits: Float[ndarray, "samples classes"]) -> str | None:
    """Half floats in base64, little-endian, row by row; None where there are too many."""
    if logits.size > LARGEST_SCORES:
        return None
    shifted = logits - logits.max(axis=1, keepdims=True)  # halves are finest near 0, where the best answers are
    lowest = np.finfo(np.float16).min
    return base64.b64encode(np.maximum(shifted, lowest).astype("<f2").tobytes()).decode("ascii")


def _unpacked(text: str, *, samples: int, classes: int) -> Float[ndarray, "samples classes"]:
    halves = np.frombuffer(base64.b64decode(text, validate=True), "<f2")
    return halves.reshape(samples, classes).astype(np.float32)

"""Stored results: recipe, commit, data, seed, metrics and compact predictions of a run, as one JSON."""

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
from kinema.evaluation.compare import bootstrap_unit
from kinema.evaluation.predictions import Predictions, Protocol, load_predictions, measure
from kinema.evaluation.summary import summarize
from kinema.files import read_json, write_texts
from kinema.inference.trained_model import find_description
from kinema.training.recipe_json import recipe_to_json
from kinema.training.runs import Run

MAX_SCORES = 60_000
"""Largest number of scores (samples times classes) that is stored: 160 KB of text."""


def store_result(run: Run, out: Path, *, title: str) -> dict[str, Any]:
    """Write the result of a run, with metrics computed from its predictions file.

    The title names model and data; it must contain "synthetic" for synthetic data.

    Returns:
        Content of the JSON: metrics in percent with confidence intervals; targets, top-1 and top-5 predictions as class
        numbers in the order of `index`; and scores, unless there are too many (see `load_result`).

    Raises:
        RunError: The run has no trained model yet.
    """
    predictions = load_predictions(run.predictions)
    summary = summarize(predictions)
    measures, intervals = dict(measure(predictions)), {}
    for head, metrics in summary.heads.items():
        prefix = f"{head}." if len(summary.heads) > 1 else ""
        measures |= {f"{prefix}nll": metrics.nll, f"{prefix}ece": metrics.ece}
        intervals[f"{prefix}top1"] = metrics.top1_interval
        intervals[f"{prefix}mean_class"] = metrics.mean_class_interval
    if summary.joint is not None:
        intervals["joint.top1"] = summary.joint.top1_interval
    recipe = run.recipe
    without_paths = replace(
        recipe,
        data=replace(recipe.data, manifest=Path(recipe.data.manifest).name),
        run=replace(recipe.run, out=None),
    )
    description = find_description(run.path)
    if description is None:
        raise RunError(f"{run.path}: has no trained model yet. Finish the training first.", path=run.path)
    result = {
        "title": title,
        "provenance": read_json(description)["provenance"],
        "environment": read_json(run.path / "environment.json"),
        "recipe": json.loads(recipe_to_json(without_paths)),
        "dataset": predictions.dataset,
        "version": predictions.version,
        "split": predictions.split,
        "declared": predictions.declared,
        "protocol": None if predictions.protocol is None else asdict(predictions.protocol),
        "weights_digest": predictions.weights_digest,
        "start_weights": predictions.start_weights,
        **({"caveat": predictions.caveat} if predictions.caveat else {}),
        "measures": {name: round(value, 3) for name, value in measures.items()},
        "intervals": {name: [round(low, 3), round(high, 3)] for name, (low, high) in intervals.items()},
        "bootstrap": asdict(summary.bootstrap) | {"over": bootstrap_unit(predictions, summary.bootstrap)},
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
    write_texts({out: json.dumps(result, ensure_ascii=False) + "\n"})
    return result


def load_result(path: Path) -> Predictions:
    """Load the predictions of a stored result.

    Logits are rounded to three digits and shifted so that the largest is 0; likelihood and calibration follow from them
    to about three digits. Top-1 and top-5 predictions are stored exactly.

    Raises:
        PredictionsError: The file is not a result, or has no scores because it is old or large.
    """
    try:
        result: Mapping[str, Any] = read_json(path)
        stored, classes = result["predictions"], result["classes"]
        if None in stored["scores"].values():
            raise ValueError("too large to store scores")
        index = np.array(stored["index"], np.int64)
        return Predictions(
            logits={
                head: np.frombuffer(base64.b64decode(text, validate=True), "<f2")
                .reshape(len(index), len(classes[head]))
                .astype(np.float32)
                for head, text in stored["scores"].items()
            },
            targets={head: np.array(targets, np.int64) for head, targets in stored["targets"].items()},
            index=index,
            classes={head: tuple(names) for head, names in classes.items()},
            split=result["split"],
            declared=result["declared"],
            missing=(),
            manifest_digest=result["provenance"]["manifest_digest"],
            weights_digest=result["weights_digest"],
            protocol=None if result["protocol"] is None else Protocol(**result["protocol"]),
            dataset=result.get("dataset", result.get("corpus", "")),
            version=result.get("version", ""),
            start_weights=result.get("start_weights", ""),
            caveat=result.get("caveat", ""),
        )
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise PredictionsError(f"{path}: not a result with scores ({error})", path=path) from error


def _best(logits: Float[ndarray, "samples classes"], k: int) -> list[list[int]]:
    """Return the class numbers of the k largest logits, best first. Ties go to the lower class number."""
    best: list[list[int]] = np.argsort(-logits, axis=1, kind="stable")[:, :k].tolist()
    return best


def _packed(logits: Float[ndarray, "samples classes"]) -> str | None:
    """Encode logits as little-endian half floats in base64, row by row; return None if there are too many."""
    if logits.size > MAX_SCORES:
        return None
    shifted = logits - logits.max(axis=1, keepdims=True)  # half floats are finest near 0
    lowest = np.finfo(np.float16).min
    return base64.b64encode(np.maximum(shifted, lowest).astype("<f2").tobytes()).decode("ascii")

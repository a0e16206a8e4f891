"""What is claimed is stored: a run's recipe, commit, data, seed, numbers and compact predictions as one JSON."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kinema.evaluation.evaluate import load_predictions, measure
from kinema.training.recipe import recipe_to_json
from kinema.training.runs import Run


def store_result(run: Run, out: Path, *, title: str) -> dict[str, Any]:
    """Write a run's result; the numbers are computed from its predictions file, not taken from its log.

    Args:
        run: a finished training; its artefact's predictions are stored.
        out: the JSON to write, under `results/`.
        title: what was run, on what; "synthetic" where the data are.

    Returns:
        What was written: accuracies in percent, targets and answers as class numbers in the order of `index`.
    """
    predictions = load_predictions(run.predictions)
    recipe = run.recipe
    anywhere = replace(
        recipe,
        data=replace(recipe.data, manifest=Path(recipe.data.manifest).name),
        run=replace(recipe.run, out=None),
    )  # where it lay on one machine is nobody else's concern
    artefact = json.loads((run.artefact / "artefact.json").read_text(encoding="utf-8"))
    result = {
        "title": title,
        "provenance": artefact["provenance"],
        "environment": json.loads((run.path / "environment.json").read_text(encoding="utf-8")),
        "recipe": json.loads(recipe_to_json(anywhere)),
        "split": predictions.split,
        "declared": predictions.declared,
        "measures": {name: round(value, 3) for name, value in measure(predictions)},
        "training": {
            "steps": len(run.steps()),
            "first_loss": run.steps()[0]["loss"],
            "last_loss": float(np.mean([line["loss"] for line in run.steps()[-20:]])),
            "evaluations": run.metrics(),
        },
        "predictions": {
            "index": predictions.index.tolist(),
            "targets": {head: targets.tolist() for head, targets in predictions.targets.items()},
            "answers": {head: logits.argmax(axis=1).tolist() for head, logits in predictions.logits.items()},
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, ensure_ascii=False) + "\n", encoding="utf-8")
    return result

"""Train RPE-STDT-tiny at 112 pixels and evaluate it at larger sizes: relative against interpolated absolute position.

    python benchmarks/resolution.py --runs runs/resolution --out results/moves_resolution.json

For each position and seed, the shipped recipe is trained on moves (synthetic) and the same weights are evaluated at
every size; frames are resized in proportion. A relative table is independent of the size, an absolute one is
interpolated. An interrupted experiment resumes.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tyro

from kinema.evaluation.evaluate import evaluate
from kinema.inference.engine import Device
from kinema.inference.trained_model import load_model
from kinema.models.rpe_stdt import Position, RPESTDTConfig
from kinema.training.loop import train
from kinema.training.recipe import load_recipe
from kinema.training.runs import Run

RECIPE = "moves_rpe_stdt_tiny_depth"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        runs: Folder of the trainings.
        out: JSON file to write.
        positions: Position embeddings to compare.
        sizes: Clip sizes at test time [px].
        seeds: Seeds of the trainings.
        device: Device to compute on.
    """

    runs: Path
    out: Path
    positions: tuple[Position, ...] = get_args(Position)
    sizes: tuple[int, ...] = (112, 160, 224)
    seeds: tuple[int, ...] = (0, 1, 2)
    device: Device = "auto"


def main(arguments: Arguments) -> None:
    recipe = load_recipe(RECIPE)
    results: dict[str, Any] = {}
    for position in arguments.positions:
        runs = [train_position(arguments, position, seed) for seed in arguments.seeds]
        models = [load_model(run.model) for run in runs]
        results[position] = {"runs": [dict(trained.provenance) for trained in models], "answers": {}, "top1": {}}
        for size in arguments.sizes:
            predictions = [
                evaluate(
                    trained.with_clip(size=size),
                    recipe.data.manifest,
                    split=recipe.data.evaluate,
                    device=arguments.device,
                ).predictions
                for trained in models
            ]
            predictions = [one.select_rows(np.argsort(one.index)) for one in predictions]
            results[position]["answers"][size] = [one.logits["label"].argmax(axis=1).tolist() for one in predictions]
            results[position]["top1"][size] = [
                round(float(100 * one.correct("label").mean()), 2) for one in predictions
            ]
    report = {
        "title": "RPE-STDT-tiny trained at 112 pixels on moves (synthetic), evaluated at larger sizes",
        "recipe": RECIPE,
        "manifest": recipe.data.manifest,
        "split": recipe.data.evaluate,
        "seeds": arguments.seeds,
        "index": np.sort(predictions[0].index).tolist(),
        "targets": predictions[0].targets["label"].tolist(),
        "positions": results,
    }
    arguments.out.write_text(json.dumps(report) + "\n", encoding="utf-8")
    print(json.dumps({position: entry["top1"] for position, entry in results.items()}, indent=1))


def train_position(arguments: Arguments, position: Position, seed: int) -> Run:
    recipe = load_recipe(RECIPE)
    assert isinstance(recipe.model, RPESTDTConfig)
    name = f"{position}-seed{seed}"
    recipe = replace(
        recipe,
        model=replace(recipe.model, position=position),
        run=replace(recipe.run, out=arguments.runs / name, seed=seed),
        compute=replace(recipe.compute, device=arguments.device),
        checkpoint=replace(recipe.checkpoint, every=200),
    )
    return train(recipe, Run.create(recipe, name=name, existing="resume"))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""Train MFST-tiny on RGB, depth and both on moves, by subject and by view: Table 2.1 on synthetic clips.

    python benchmarks/two_streams.py --runs runs/two_streams --out results/moves_two_streams.json

For each protocol and seed, the shipped recipes train MFST-tiny on RGB, on depth, and jointly on both. Models trained
separately are fused by the mean of logits and of softmax scores; the joint model predicts from both streams and from
either alone. An interrupted experiment resumes. Several processes may train different seeds; the last one, given all
seeds, writes the file.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from kinema.data.manifest import BUILT_IN
from kinema.evaluation.evaluate import evaluate
from kinema.evaluation.fusion import fuse
from kinema.evaluation.predictions import Predictions, load_predictions
from kinema.inference.engine import Device
from kinema.inference.trained_model import load_model
from kinema.modality import Modality
from kinema.training.loop import train
from kinema.training.recipe import load_recipe
from kinema.training.runs import Run

RECIPES = {"rgb": "moves_mfst_tiny", "depth": "moves_mfst_tiny_depth", "together": "moves_mfst_tiny_rgbd"}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        runs: Folder of the trainings.
        out: JSON file to write.
        protocols: Manifests.
        seeds: Seeds of the trainings.
        device: Device to compute on.
    """

    runs: Path
    out: Path
    protocols: tuple[str, ...] = BUILT_IN
    seeds: tuple[int, ...] = (0, 1, 2)
    device: Device = "auto"


def main(arguments: Arguments) -> None:
    results: dict[str, Any] = {}
    for protocol in arguments.protocols:
        by_seed = [answers(arguments, protocol, seed) for seed in arguments.seeds]
        ways, runs = [ways for ways, _ in by_seed], [runs for _, runs in by_seed]
        first = next(iter(ways[0].values()))
        results[protocol] = {
            "split": first.split,
            "index": first.index.tolist(),
            "targets": first.targets["label"].tolist(),
            "answers": {way: [one[way].logits["label"].argmax(axis=1).tolist() for one in ways] for way in ways[0]},
            "top1": {way: [round(float(100 * one[way].correct("label").mean()), 2) for one in ways] for way in ways[0]},
            "runs": runs,
        }
    report = {
        "title": "MFST-tiny on RGB, depth and both, from scratch on moves (synthetic)",
        "recipes": RECIPES,
        "seeds": arguments.seeds,
        "protocols": results,
    }
    arguments.out.write_text(json.dumps(report, indent=None) + "\n", encoding="utf-8")
    print(json.dumps({protocol: entry["top1"] for protocol, entry in results.items()}, indent=1))


def answers(arguments: Arguments, protocol: str, seed: int) -> tuple[dict[str, Predictions], dict[str, Any]]:
    """Return the predictions of each model on the test clips, in the order of the manifest, and their sources."""
    runs = {name: train_recipe(arguments, recipe, protocol, seed) for name, recipe in RECIPES.items()}
    predictions = {name: load_predictions(run.predictions) for name, run in runs.items()}
    separate = [predictions["rgb"], predictions["depth"]]
    ways = {
        "RGB": predictions["rgb"],
        "depth": predictions["depth"],
        "RGB + depth, mean of logits": fuse(separate, score="logits"),
        "RGB + depth, mean of softmaxes": fuse(separate, score="softmax"),
        "RGB + depth, trained together": predictions["together"],
    }
    together = runs["together"]
    streams: tuple[Modality, ...] = ("rgb", "depth")
    for modality in streams:
        split = together.recipe.data.evaluate
        alone = evaluate(together.path, protocol, split=split, modalities=(modality,), device=arguments.device)
        ways[f"trained together, {'RGB' if modality == 'rgb' else modality} alone at the test"] = alone.predictions
    in_order = {way: one.select_rows(np.argsort(one.index)) for way, one in ways.items()}
    origins = {name: dict(load_model(run.model).provenance) for name, run in runs.items()}
    return in_order, origins


def train_recipe(arguments: Arguments, name: str, protocol: str, seed: int) -> Run:
    recipe = load_recipe(name)
    recipe = replace(
        recipe,
        data=replace(recipe.data, manifest=protocol),
        run=replace(
            recipe.run,
            out=arguments.runs / f"{name}-{protocol}-seed{seed}",
            seed=seed,
        ),
        compute=replace(recipe.compute, device=arguments.device),
        checkpoint=replace(recipe.checkpoint, every=100),
    )
    return train(recipe, Run.create(recipe, name=name, existing="resume"))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

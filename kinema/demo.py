"""The first five minutes: train, evaluate, predict and report on the built-in set."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from kinema.data.manifest import Manifest
from kinema.evaluation.evaluate import Predictions, evaluate, load_predictions, measure
from kinema.evaluation.metrics import confusion
from kinema.inference.recognizer import Recognizer
from kinema.reports.figures import confusion_figure, film_strip, learning_curve
from kinema.reports.page import ClipPicture, Section, write_page
from kinema.training.loop import train
from kinema.training.recipe import load_recipe
from kinema.training.runs import Run

RECIPE = "moves_ctn_tiny"


def run_demo(out: Path, *, seed: int = 0) -> dict[str, float]:
    """Train `ctn_tiny` on moves (RGB, cross-subject), evaluate it, name one held-out clip, write a report.

    Args:
        out: gets `summary.json`, `report.html`, `predictions.safetensors` and `run/`; an earlier demo's are replaced.
        seed: of the weights and of all draws.

    Returns:
        What `summary.json` holds: `top1` and `chance` in percent, counts, seconds.
    """
    began = time.perf_counter()
    recipe = load_recipe(RECIPE)
    folder = out / "run"
    if (folder / "recipe.json").is_file():
        shutil.rmtree(folder)
    recipe = replace(recipe, run=replace(recipe.run, out=folder, seed=seed))
    manifest = recipe.open_manifest()
    held_out = manifest.positions(recipe.data.evaluate)
    train_clips = len(manifest.positions(recipe.data.train))
    print(f"training {RECIPE} on {train_clips} clips of rendered people, to be asked about {len(held_out)} of others")
    run = train(recipe, Run.create(recipe, name=RECIPE), progress="bar")

    stored = out / "predictions.safetensors"
    evaluate(run.path, manifest, split=recipe.data.evaluate, batch_size=recipe.data.batch_size, out=stored)
    predictions = load_predictions(stored)
    measures = dict(measure(predictions))

    recognizer = Recognizer.load(run.path)
    example = manifest.entries[held_out[0]]
    print(f"\n{example.rgb}, which shows {example.labels['label']!r}, is named:")
    for label, score in recognizer.predict(manifest.locate(example.rgb), top_k=3)["label"]:
        print(f"  {score:6.1%}  {label}")

    names = manifest.classes["label"]
    summary = {
        "top1": round(measures["top1"], 2),
        "chance": round(100 / len(names), 2),
        "classes": len(names),
        "train_clips": train_clips,
        "test_clips": len(held_out),
        "seconds": round(time.perf_counter() - began, 1),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _write_report(out / "report.html", run, manifest, predictions, recognizer, summary)
    print(f"\ntop-1 on held-out bodies: {summary['top1']:.1f} % (chance {summary['chance']:.1f} %)")
    print(f"{summary['seconds']:.0f} s; report: {out / 'report.html'}; recogniser: {run.artefact}")
    return summary


def _write_report(
    path: Path,
    run: Run,
    manifest: Manifest,
    predictions: Predictions,
    recognizer: Recognizer,
    summary: dict[str, float],
) -> None:
    names = manifest.classes["label"]
    counts = confusion(predictions.logits["label"], predictions.targets["label"])
    write_page(
        path,
        title="kinema demo",
        lead="CTN-tiny, trained from scratch on the built-in moves: rendered people, driven by real motion capture. "
        "It was asked about bodies that it had not seen; the performances were the same, so this says nothing about "
        "unseen performances or real footage.",
        numbers=[
            ("top-1, held-out bodies", f"{summary['top1']:.1f} %"),
            ("chance", f"{summary['chance']:.1f} %"),
            ("clips to learn from", str(summary["train_clips"])),
            ("clips asked about", str(summary["test_clips"])),
            ("seconds", f"{summary['seconds']:.0f}"),
        ],
        sections=[
            Section(
                heading="Learning",
                text="Loss of each training step (blue) and accuracy on the held-out bodies (orange).",
                figure=learning_curve(run.steps(), run.metrics()),
            ),
            Section(
                heading="What is taken for what",
                text="Number of clips: a row for each true action, a column for each answer.",
                figure=confusion_figure(counts, names),
            ),
            Section(
                heading="Held-out clips and what was said of them",
                text="One clip of each action, and every mistake up to thirty.",
                clips=[_clip(position, manifest, recognizer) for position in _shown(predictions)],
            ),
        ],
    )


def _shown(predictions: Predictions) -> list[int]:
    """Positions of the first clip of each class, then of the mistakes."""
    targets = predictions.targets["label"]
    _, first = np.unique(targets, return_index=True)
    wrong = np.flatnonzero(predictions.logits["label"].argmax(axis=1) != targets)[:30]
    rows = list(dict.fromkeys([*first.tolist(), *wrong.tolist()]))
    return [int(predictions.index[row]) for row in rows]


def _clip(position: int, manifest: Manifest, recognizer: Recognizer) -> ClipPicture:
    entry = manifest.entries[position]
    video = manifest.locate(entry.rgb)
    return ClipPicture(
        picture=film_strip(recognizer.prepare(video)["rgb"][0]),
        truth=entry.labels["label"],
        answers=[(p.label, p.score) for p in recognizer.predict(video, top_k=3)["label"]],
    )

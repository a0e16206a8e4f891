"""Summary and page of `kinema demo`."""

import json
from pathlib import Path

import numpy as np

from kinema.data.manifest import Manifest
from kinema.evaluation.evaluate import Evaluation
from kinema.evaluation.metrics import confusion
from kinema.evaluation.predictions import Predictions
from kinema.files import write_texts
from kinema.inference.recognizer import Recognizer
from kinema.reports.figures import confusion_figure, film_strip, learning_curve
from kinema.reports.page import ClipImage, Section, write_page
from kinema.terminal import echo
from kinema.training.runs import Run


def print_example(manifest: Manifest, position: int, recognizer: Recognizer) -> None:
    """Print the top predictions for one clip."""
    entry = manifest.entries[position]
    echo()
    echo(f"Prediction for {entry.rgb} (true class: {entry.labels['label']}):")
    for label, score in recognizer.predict(manifest.locate(entry.rgb), top_k=3):
        echo(f"  {score:6.1%}  {label}")


def write_demo(
    out: Path,
    run: Run,
    manifest: Manifest,
    evaluation: Evaluation,
    recognizer: Recognizer,
    *,
    num_train: int,
    seconds: float,
) -> dict[str, float]:
    """Write summary.json and report.html; return the summary: `top1` and `chance` in percent, counts, seconds."""
    num_classes = len(manifest.classes["label"])
    summary = {
        "top1": round(evaluation.measures["top1"], 2),
        "chance": round(100 / num_classes, 2),
        "classes": num_classes,
        "train_clips": num_train,
        "test_clips": evaluation.predictions.num_samples,
        "seconds": round(seconds, 1),
    }
    write_texts({out / "summary.json": json.dumps(summary, indent=2) + "\n"})
    _write_report(out / "report.html", run, manifest, evaluation.predictions, recognizer, summary)
    return summary


def print_summary(summary: dict[str, float]) -> None:
    """Print the accuracy and the time."""
    echo()
    echo(f"Top-1 on unseen subjects: {summary['top1']:.1f} % (chance {summary['chance']:.1f} %)")
    echo(f"Time: {summary['seconds']:.0f} s")


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
        lead="CTN-tiny, trained from scratch on the built-in dataset: rendered people driven by real motion capture. "
        "The test set shows unseen bodies in the same performances, so the accuracy does not carry over to new "
        "performances or real footage.",
        numbers=[
            ("top-1, unseen subjects", f"{summary['top1']:.1f} %"),
            ("chance", f"{summary['chance']:.1f} %"),
            ("training clips", str(summary["train_clips"])),
            ("test clips", str(summary["test_clips"])),
            ("seconds", f"{summary['seconds']:.0f}"),
        ],
        sections=[
            Section(
                heading="Training",
                text="Training loss per step (blue) and top-1 on unseen subjects (orange).",
                figure=learning_curve(run.steps(), run.metrics()),
            ),
            Section(
                heading="Confusion matrix",
                text="Number of clips per true class (rows) and predicted class (columns).",
                figure=confusion_figure(counts, names),
            ),
            Section(
                heading="Predictions on test clips",
                text="One clip per class, and up to thirty errors.",
                clips=[_clip(position, manifest, recognizer) for position in _positions_shown(predictions)],
            ),
        ],
    )


def _positions_shown(predictions: Predictions) -> list[int]:
    """Return the positions of the first clip of each class, then of the errors."""
    targets = predictions.targets["label"]
    _, first = np.unique(targets, return_index=True)
    wrong = np.flatnonzero(predictions.logits["label"].argmax(axis=1) != targets)[:30]
    rows = list(dict.fromkeys([*first.tolist(), *wrong.tolist()]))
    return [int(predictions.index[row]) for row in rows]


def _clip(position: int, manifest: Manifest, recognizer: Recognizer) -> ClipImage:
    entry = manifest.entries[position]
    video = manifest.locate(entry.rgb)
    return ClipImage(
        image=film_strip(recognizer.prepare(video)["rgb"][0]),
        label=entry.labels["label"],
        predictions=[(p.label, p.score) for p in recognizer.predict(video, top_k=3)],
    )

"""Draw figures of the thesis from a model or its predictions.

    python benchmarks/figures.py tsne RUN hmdb51_1.csv --out figure_3_7.svg      # figure 3.6 with a ViT's run
    python benchmarks/figures.py attributes PREDICTIONS --out figure_3_8         # Diving48: one matrix per attribute
    python benchmarks/figures.py confusion PREDICTIONS --out figure_2_6.svg

Each line that is printed names the number of videos, their data, and the start weights of the model.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from kinema.data.manifest import load_manifest
from kinema.evaluation.attributes import summarize_attributes
from kinema.evaluation.metrics import confusion
from kinema.evaluation.predictions import load_predictions
from kinema.evaluation.projection import HMDB51_CLASSES, project_features
from kinema.inference.trained_model import load_model
from kinema.reports.figures import confusion_figure, projection_figure


def tsne(args: argparse.Namespace) -> None:
    """Write the t-SNE of a model's features of a split."""
    manifest = load_manifest(args.manifest)
    projection = project_features(
        load_model(args.model),
        manifest,
        split=args.split,
        classes=args.classes or HMDB51_CLASSES,
        num_videos=args.videos,
        seed=args.seed,
        workers=args.workers,
    )
    args.out.write_bytes(projection_figure(projection.points, projection.targets, projection.classes))
    shown = f"{len(projection.points)} of {projection.num_projected} videos of {manifest.dataset}, split {args.split!r}"
    print(f"{args.out}: {shown}; start weights: {projection.start_weights or 'unknown'}")


def attributes(args: argparse.Namespace) -> None:
    """Write a confusion matrix for each attribute of Diving48."""
    predictions = load_predictions(args.predictions)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, summary in summarize_attributes(predictions, rule=args.rule).items():
        (args.out / f"{name}.svg").write_bytes(confusion_figure(summary.counts, summary.values))
        print(f"{args.out / name}.svg: top-1 {summary.top1:.1f} %, rule {args.rule}; {_origin(args.predictions)}")


def confusions(args: argparse.Namespace) -> None:
    """Write the confusion matrix of the first task head."""
    predictions = load_predictions(args.predictions)
    head, names = next(iter(predictions.classes.items()))
    counts = confusion(predictions.logits[head], predictions.targets[head])
    args.out.write_bytes(confusion_figure(counts, names))
    print(f"{args.out}: {_origin(args.predictions)}")


def _origin(path: Path) -> str:
    predictions = load_predictions(path)
    videos = f"{predictions.num_samples} videos of {predictions.dataset}, coverage {predictions.coverage:.1f} %"
    return f"{videos}; start weights: {predictions.start_weights or 'unknown'}"


def main(args: Sequence[str] | None = None) -> None:
    """Draw one figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("tsne", help="features of videos in the plane (figures 3.6 and 3.7)")
    command.add_argument("model", type=Path)
    command.add_argument("manifest")
    command.add_argument("--split", default="test")
    command.add_argument("--classes", nargs="*", help="classes to show; the ten of HMDB-51 by default")
    command.add_argument("--videos", type=int, default=1000)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--workers", type=int, default=1)
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(draw=tsne)
    command = commands.add_parser("attributes", help="confusion matrices of Diving48's attributes (figure 3.8)")
    command.add_argument("predictions", type=Path)
    command.add_argument("--rule", choices=("top-class", "marginal"), default="marginal")
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(draw=attributes)
    command = commands.add_parser("confusion", help="confusion matrix of the classes (figure 2.6)")
    command.add_argument("predictions", type=Path)
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(draw=confusions)
    parsed = parser.parse_args(args)
    parsed.draw(parsed)


if __name__ == "__main__":
    main()

"""Overfit two-stream MFST-tiny to 121 RGB-D pairs of IsoGD; predict from both, one, and mismatched streams.

    python benchmarks/isogd_pairs.py --root "$KINEMA_DATA/isogd_rgbd" --out results/isogd_pairs.json

121 clips of 50 gestures do not measure accuracy. They show that RGB and depth of a sample reach the network together:
an overfitted network classifies nearly all pairs, fewer with one stream, and fails if each RGB clip comes with the
depth of another gesture.
"""

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from kinema.data.manifest import Entry, Manifest, write_manifest
from kinema.datasets.isogd import prepare
from kinema.datasets.options import DatasetOptions
from kinema.evaluation.evaluate import evaluate
from kinema.modality import Modality
from kinema.training.loop import train
from kinema.training.recipe import Recipe, load_recipe
from kinema.training.runs import commit
from kinema.transforms.augment import Augmentation


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        root: Folder with the list and the folder `train`.
        out: JSON file to write.
        epochs: Passes over the pairs.
        seed: Seed of the training.
    """

    root: Path
    out: Path
    epochs: float = 40
    seed: int = 0


def main(arguments: Arguments) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pairs = prepare(DatasetOptions(root=arguments.root, out=Path(folder) / "pairs.csv")).manifest
        manifest = with_wrong_pairs(pairs, Path(folder) / "all.csv")
        run = train(recipe(manifest, Path(folder) / "run", arguments))
        inputs: dict[str, tuple[str, tuple[Modality, ...]]] = {
            "both": ("test", ()),
            "rgb alone": ("test", ("rgb",)),
            "depth alone": ("test", ("depth",)),
            "depth of another gesture": ("mismatched", ()),
        }
        top1 = {
            name: evaluate(run.path, manifest, split=split, modalities=modalities).measures["top1"]
            for name, (split, modalities) in inputs.items()
        }
        report = {
            "title": "Two-stream MFST-tiny overfitted to IsoGD's 121 pairs; not a measure of accuracy",
            "commit": commit(),
            "pairs": len(pairs.entries),
            "gestures": len({entry.labels["label"] for entry in pairs.entries}),
            "epochs": arguments.epochs,
            "seed": arguments.seed,
            "torch": torch.__version__,
            "top1_on_the_training_pairs": top1,
        }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def with_wrong_pairs(pairs: Manifest, out: Path) -> Manifest:
    """Return the pairs as splits `train` and `test`, and RGB with the depth of the next other gesture."""
    entries = list(pairs.entries)
    mismatched = []
    for position, entry in enumerate(entries):
        others = entries[position + 1 :] + entries[:position]
        other = next(e for e in others if e.labels != entry.labels)
        mismatched.append(replace(entry, split="mismatched", depth=other.depth, frames=min_frames(entry, other)))
    test = [replace(entry, split="test") for entry in entries]
    absolute = [
        replace(e, rgb=pairs.locate(e.rgb), depth=pairs.locate(e.depth)) for e in (*entries, *test, *mismatched)
    ]
    return write_manifest(
        out, entries=absolute, classes=pairs.classes, dataset=pairs.dataset, version=pairs.version, depth=pairs.depth
    )


def min_frames(one: Entry, other: Entry) -> int:
    if one.frames is None or other.frames is None:
        raise ValueError("the manifest has no frame counts")
    return min(one.frames, other.frames)


def recipe(manifest: Manifest, out: Path, arguments: Arguments) -> Recipe:
    shipped = load_recipe("moves_mfst_tiny_rgbd")
    return replace(
        shipped,
        clip=replace(shipped.clip, size=64, short_side=64),
        data=replace(
            shipped.data, manifest=str(manifest.path), train="train", evaluate="test", augmentation=Augmentation()
        ),
        optim=replace(shipped.optim, epochs=arguments.epochs, label_smoothing=0.0),
        run=replace(shipped.run, out=out, seed=arguments.seed, evaluate_every_epochs=arguments.epochs),
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments))

r"""Train CTN-tiny and ViViT-tiny on shares of the data, CTN without some parts, and with position embeddings.

    python benchmarks/learning_curve.py share --jhmdb jhmdb.csv --msr-action3d msr.csv --runs runs/share \
        --out results/learning_curve.json
    python benchmarks/learning_curve.py parts --jhmdb jhmdb.csv --msr-action3d msr.csv --runs runs/parts \
        --datasets msr_action3d --out results/ctn_parts.json
    python benchmarks/learning_curve.py position --jhmdb jhmdb.csv --msr-action3d msr.csv --runs runs/position \
        --datasets msr_action3d --out results/ctn_position.json

Both networks execute similar multiply-adds per clip (stored) and take the same number of steps from scratch on the same
clips: the same share of each class, drawn anew for each seed. Steps are few, so results are differences between
networks, not their best accuracy. An interrupted experiment resumes.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from kinema.data.manifest import LABEL, Entry, Manifest, load_manifest, write_manifest
from kinema.evaluation.predictions import load_predictions
from kinema.models.complexity import macs
from kinema.models.ctn import CTN_TINY
from kinema.models.registry import ModelConfig
from kinema.models.vivit import VIVIT_TINY
from kinema.training.loop import train
from kinema.training.recipe import Recipe, load_recipe
from kinema.training.runs import Run, commit

BATCH = 16
RECIPES = {"jhmdb": "jhmdb_ctn_small", "msr_action3d": "msr_action3d_ctn_small"}
"""Recipe of each dataset, whose clips, augmentation and learning rates are used."""

SHARES: dict[str, ModelConfig] = {"ctn_tiny": CTN_TINY, "vivit_tiny": VIVIT_TINY}
PARTS: dict[str, ModelConfig] = {
    "ctn_tiny": CTN_TINY,
    "no BatchNorm in the mapping": replace(CTN_TINY, mapping_norm="none"),
    "linear mapping": replace(CTN_TINY, mapping="linear"),
    "tubelets in place of the stem": replace(CTN_TINY, embedding="tubelets"),
    "tubelets and linear mapping": replace(CTN_TINY, embedding="tubelets", mapping="linear"),
}
"""CTN-tiny, and CTN-tiny without some of its parts."""
PADDINGS: tuple[Literal["zeros", "circular"], ...] = ("zeros", "circular")
POSITION: tuple[Literal["none", "learned"], ...] = ("none", "learned")
DENSE = replace(CTN_TINY, time_stride=1)
POSITIONS: dict[str, ModelConfig] = {
    f"{time}, {padding}, {position}": replace(network, mapping_padding=padding, position=position)
    for time, network in (("literal", CTN_TINY), ("dense", DENSE))
    for padding in PADDINGS
    for position in POSITION
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        what: Experiment: shares of the training data, or parts of CTN or position embeddings on all of it.
        jhmdb: Manifest of `kinema prepare jhmdb`.
        msr_action3d: Manifest of `kinema prepare msr_action3d`.
        runs: Folder of the trainings.
        out: JSON file to write.
        datasets: Datasets to train on.
        networks: Networks to train, by their names in the tables; all if omitted.
        shares: Shares of each class's training clips.
        seeds: Seeds of the trainings and of the subsampling.
        steps: Number of steps of 16 clips.
        rate: Factor on the learning rate of the recipe, which was chosen for CTN.
    """

    what: tyro.conf.Positional[Literal["share", "parts", "position"]]
    jhmdb: Path
    msr_action3d: Path
    runs: Path
    out: Path
    datasets: tuple[Literal["jhmdb", "msr_action3d"], ...] = ("jhmdb", "msr_action3d")
    networks: tuple[str, ...] = ()
    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 300
    rate: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training."""

    dataset: str
    network: str
    share: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.network.replace(', ', '-')}-{self.share:g}-seed{self.seed}"


def main(arguments: Arguments) -> None:
    results: list[dict[str, Any]] = []
    targets: dict[str, list[int]] = {}
    for training in trainings(arguments):
        run = run_training(arguments, training)
        predictions = load_predictions(run.predictions)
        predictions = predictions.select_rows(np.argsort(predictions.index))
        targets[training.dataset] = predictions.targets[LABEL].tolist()
        correct = predictions.correct(LABEL)
        results.append(asdict(training) | {"answers": predictions.logits[LABEL].argmax(axis=1).tolist()})
        print(f"{training.name}: {100 * correct.mean():.1f} %", flush=True)
    report = {
        "title": f"CTN-tiny from scratch, {arguments.steps} steps of {BATCH} clips: {arguments.what}",
        "commit": commit(),
        "steps": arguments.steps,
        "rate": arguments.rate,
        "recipes": RECIPES,
        "manifests": {dataset: load_manifest(manifest_of(dataset, arguments)).digest for dataset in arguments.datasets},
        "gmac": {dataset: gmac_of(dataset, arguments) for dataset in arguments.datasets},
        "targets": targets,
        "trainings": results,
    }
    arguments.out.write_text(json.dumps(report) + "\n", encoding="utf-8")


def manifest_of(dataset: str, arguments: Arguments) -> Path:
    return arguments.jhmdb if dataset == "jhmdb" else arguments.msr_action3d


def networks(arguments: Arguments) -> dict[str, ModelConfig]:
    every = {"share": SHARES, "parts": PARTS, "position": POSITIONS}[arguments.what]
    return {name: every[name] for name in arguments.networks or every}


def trainings(arguments: Arguments) -> Iterator[Training]:
    """Yield the trainings seed by seed, so that an unfinished experiment is usable."""
    for seed in arguments.seeds:
        for dataset in arguments.datasets:
            for share in arguments.shares if arguments.what == "share" else (1.0,):
                for network in networks(arguments):
                    yield Training(dataset=dataset, network=network, share=share, seed=seed)


def run_training(arguments: Arguments, training: Training) -> Run:
    manifest = load_manifest(manifest_of(training.dataset, arguments))
    manifest = manifest if training.share == 1 else subsample(manifest, training, arguments.runs)
    clips = sum(entry.split == "train" for entry in manifest.entries)
    recipe = recipe_of(training.dataset, networks(arguments)[training.network])
    passes = (arguments.steps - 0.5) * BATCH / clips  # a partial step counts as a step
    recipe = replace(
        recipe,
        data=replace(recipe.data, manifest=str(manifest.path), batch_size=BATCH),
        optim=replace(recipe.optim, lr=recipe.optim.lr * arguments.rate, epochs=passes, warmup_epochs=passes / 10),
        run=replace(
            recipe.run,
            out=arguments.runs / training.name,
            seed=training.seed,
            evaluate_every_epochs=max(1, math.ceil(passes)),
        ),
        checkpoint=replace(recipe.checkpoint, every=100),
    )
    return train(recipe, Run.create(recipe, name=training.name, existing="resume"))


def recipe_of(dataset: str, network: ModelConfig) -> Recipe:
    """Return the recipe with clips of 16 x 64 (minutes per training) and three depth channels (cost equal to RGB)."""
    recipe = load_recipe(RECIPES[dataset])
    return replace(recipe, model=network, clip=replace(recipe.clip, frames=16, depth_channels=3))


def subsample(manifest: Manifest, training: Training, folder: Path) -> Manifest:
    """Return the manifest with a share of the training clips of each class, at least one; other splits are kept."""
    out = folder / f"{training.dataset}-{training.share:g}-seed{training.seed}.csv"
    if out.is_file():
        return load_manifest(out)
    rng = np.random.default_rng(training.seed)
    by_class: dict[str, list[Entry]] = {}
    for entry in manifest.entries:
        if entry.split == "train":
            by_class.setdefault(entry.labels[LABEL], []).append(entry)
    entries = [entry for entry in manifest.entries if entry.split != "train"]
    for _, clips in sorted(by_class.items()):
        chosen = rng.permutation(len(clips))[: max(1, round(training.share * len(clips)))]
        entries += [clips[place] for place in sorted(chosen)]
    folder.mkdir(parents=True, exist_ok=True)
    moved = [
        replace(
            entry,
            rgb=manifest.locate(entry.rgb) if entry.rgb else "",
            depth=manifest.locate(entry.depth) if entry.depth else "",
        )
        for entry in entries
    ]
    return write_manifest(
        out,
        entries=moved,
        classes=manifest.classes,
        dataset=manifest.dataset,
        version=manifest.version,
        depth=manifest.depth,
    )


def gmac_of(dataset: str, arguments: Arguments) -> dict[str, float]:
    """Return the executed multiply-adds per clip."""
    gmac = {}
    for name, config in networks(arguments).items():
        clip = recipe_of(dataset, config).clip
        network = config.build(heads={LABEL: 20}, channels={"rgb": 3}, frames=clip.frames, size=clip.size)
        gmac[name] = round(macs(network, channels=3, frames=clip.frames, size=clip.size) / 1e9, 4)
    return gmac


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""Count what batch size and precision change in the answers of the three models: classes, Top-K frames, k-NN key sets.

    python benchmarks/agreement.py --runs runs/agreement --out results/agreement.json

The tiny models are trained for a few epochs on moves (synthetic). Six windows of 16 frames of each test clip are then
classified in batches of 1 and of 16, in float32 and in bfloat16, and each result is compared with that of batch 1 in
float32. An interrupted experiment resumes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, cast, get_args
from unittest import mock

import numpy as np
import torch
import tyro
from measuring import store
from numpy import ndarray
from torch import Tensor, nn

from kinema.data.dataset import VideoDataset
from kinema.data.loaders import complete, make_loader
from kinema.data.manifest import Manifest, load_manifest, write_manifest
from kinema.data.samplers import evaluation_batches
from kinema.inference.engine import Device, Engine, Precision, choose_device
from kinema.inference.trained_model import load_model
from kinema.layers import knn_attention
from kinema.modality import Modality
from kinema.models.rpe_stdt import RPESTDT
from kinema.training.loop import train
from kinema.training.recipe import load_recipe
from kinema.training.runs import Run

RECIPES = ("moves_mfst_tiny_depth", "moves_rpe_stdt_tiny_depth", "moves_ctn_tiny")
STARTS = (0, 3, 6, 9, 12, 16)
"""First frames of the windows. A clip has 32 frames."""
WINDOW = 16


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        runs: Folder of the trainings and of the manifest of windows.
        out: JSON file to write.
        recipes: Recipes of the models.
        epochs: Epochs of each training.
        seed: Seed of the trainings.
        batch: Size of the larger batches.
        device: Device to compute on.
    """

    runs: Path
    out: Path
    recipes: tuple[str, ...] = RECIPES
    epochs: float = 8
    seed: int = 0
    batch: int = 16
    device: Device = "auto"


@dataclass
class Choices:
    """What a network answered and selected for some clips, batch by batch.

    Attributes:
        logits: Logits, a row per clip.
        frames: Numbers of the kept frames, a row per clip.
        keys: Kept keys as bits, a row per query: for each layer an array (clips, queries, bytes).
    """

    logits: list[Tensor] = field(default_factory=list)
    frames: list[Tensor] = field(default_factory=list)
    keys: list[list[ndarray]] = field(default_factory=list)


def main(arguments: Arguments) -> None:
    windows = write_windows(arguments.runs / "windows.csv")
    parts = {recipe: compare(arguments, recipe, windows) for recipe in arguments.recipes}
    store(
        arguments.out,
        arguments={**asdict(arguments), "runs": str(arguments.runs)},
        packages=("torch", "numpy"),
        parts={
            "title": "Answers by batch size and precision, tiny models on moves (synthetic)",
            "manifest_digest": load_manifest("moves_cross_subject").digest,
            "windows": len(windows.entries),
            "models": parts,
        },
    )


def write_windows(path: Path) -> Manifest:
    """Write a manifest of windows of the test clips of moves."""
    moves = load_manifest("moves_cross_subject")
    clips = [moves.entries[position] for position in moves.positions("test")]
    entries = [
        replace(
            clip,
            rgb=str(moves.locate(clip.rgb)),
            depth=str(moves.locate(clip.depth)),
            start_frame=start,
            stop_frame=start + WINDOW,
            frames=None,
        )
        for clip, start in product(clips, STARTS)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_manifest(
        path, entries=entries, classes=moves.classes, dataset="windows of moves", version="1", depth=moves.depth
    )


def train_recipe(arguments: Arguments, name: str) -> Run:
    recipe = load_recipe(name)
    recipe = replace(
        recipe,
        data=replace(recipe.data, workers=0),
        optim=replace(recipe.optim, epochs=arguments.epochs, warmup_epochs=1),
        run=replace(
            recipe.run,
            out=arguments.runs / name,
            seed=arguments.seed,
            evaluate_every_epochs=arguments.epochs,
        ),
        compute=replace(recipe.compute, device=arguments.device),
        checkpoint=replace(recipe.checkpoint, every=100),
    )
    return train(recipe, Run.create(recipe, name=name, existing="resume"))


def compare(arguments: Arguments, recipe: str, windows: Manifest) -> dict[str, Any]:
    """Return what differs from batches of 1 in float32, by batch size and precision."""
    run = train_recipe(arguments, recipe)
    trained = load_model(run.model)
    device = choose_device(arguments.device)
    settings: list[tuple[Precision, int]] = list(product(get_args(Precision), (1, arguments.batch)))
    engines = {precision: replace(trained, precision=precision).engine(device) for precision in get_args(Precision)}
    loader = make_loader(
        VideoDataset(windows, sampling=trained.sampling, preprocessing=trained.preprocessing),
        evaluation_batches(windows.positions("test"), arguments.batch),
        workers=0,
        pin_memory=False,
    )
    parts: dict[tuple[Precision, int], list[dict[str, float]]] = {setting: [] for setting in settings}
    correct = 0
    for loaded in loader:
        batch = complete(loaded)
        found = {setting: choices(engines[setting[0]], batch["inputs"], setting[1]) for setting in settings}
        first = found[settings[0]]
        correct += int((torch.cat(first.logits).argmax(1) == batch["targets"]["label"]).sum())
        for setting in settings:
            parts[setting].append(differences(found[setting], first))
    return {
        "run": dict(trained.provenance),
        "top1": round(100 * correct / len(windows.entries), 2),
        "settings": [
            {"precision": precision, "batch": size, **merged(parts[precision, size])} for precision, size in settings
        ],
    }


def choices(engine: Engine, inputs: Mapping[Modality, Tensor], size: int) -> Choices:
    """Return what a network answers and selects in batches of a size."""
    found = Choices()
    count = len(next(iter(inputs.values())))
    for start in range(0, count, size):
        batch = {modality: clip[start : start + size] for modality, clip in inputs.items()}
        with recorded(engine.model, found, min(size, count - start)):
            found.logits.append(next(iter(engine.logits(batch).values())))
    return found


@contextmanager
def recorded(model: nn.Module, found: Choices, clips: int) -> Iterator[None]:
    """Record the kept frames and keys of one batch."""
    layers: list[ndarray] = []
    blocks: list[ndarray] = []
    attention, keep_largest = knn_attention._attention, knn_attention._keep_largest

    def attending(query: Tensor, key: Tensor, value: Tensor, k: int) -> Tensor:
        blocks.clear()
        attended = attention(query, key, value, k)
        if blocks:  # none in attention to all keys
            layers.append(np.concatenate(blocks).reshape(clips, -1, blocks[0].shape[-1]))
        return attended

    def keeping(logits: Tensor, k: int) -> Tensor:
        kept = keep_largest(logits, k)
        blocks.append(np.packbits(kept.cpu().numpy() != -np.inf, axis=-1))
        return kept

    def encoding(frames: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        tokens, kept = RPESTDT.encode_time(cast(RPESTDT, model), frames)
        found.frames.append(torch.cat([times.flatten(1) for times in kept.values()], 1).cpu())
        return tokens, kept

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(knn_attention, "_attention", attending))
        patches.enter_context(mock.patch.object(knn_attention, "_keep_largest", keeping))
        if isinstance(model, RPESTDT):
            patches.enter_context(mock.patch.object(model, "encode_time", encoding))
        yield
    found.keys.append(layers)


def differences(found: Choices, first: Choices) -> dict[str, float]:
    """Return the numbers of differences between two settings on the same clips."""
    logits, expected = torch.cat(found.logits), torch.cat(first.logits)
    counts: dict[str, float] = {
        "clips": len(logits),
        "flipped": int((logits.argmax(1) != expected.argmax(1)).sum()),
        "max_difference": float((logits - expected).abs().max()),
    }
    if found.frames:
        counts["other_frames"] = int((torch.cat(found.frames) != torch.cat(first.frames)).any(1).sum())
    if found.keys[0]:
        pairs = zip(by_layer(found), by_layer(first), strict=True)
        other = [(ours != theirs).any(-1) for ours, theirs in pairs]
        counts |= {
            "queries": sum(layer.size for layer in other),
            "other_keys": sum(int(layer.sum()) for layer in other),
        }
    return counts


def by_layer(found: Choices) -> list[ndarray]:
    """Return the kept keys of all clips, layer by layer; temporal scales come in one order, packed or not."""
    batches = [sorted(layers, key=lambda layer: layer.shape[1:]) for layers in found.keys]
    return [np.concatenate(layer) for layer in zip(*batches, strict=True)]


def merged(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the numbers of differences over all batches."""
    return {name: (max if name == "max_difference" else sum)(part[name] for part in parts) for name in parts[0]}


if __name__ == "__main__":
    main(tyro.cli(Arguments))

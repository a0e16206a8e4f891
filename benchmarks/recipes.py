"""Benchmark the thesis's recipes at full network and clip size: memory and time per step of one and two clips.

    python benchmarks/recipes.py --out results/recipe_steps.json

The data are synthetic: videos and folders of depth in the dataset's size and number of classes, preprocessed and
augmented by the recipe. Each training is a process: two steps of one clip, or two steps of two. Memory is the peak
of the process, time that of the second step. The cost of the recipe's batch is extrapolated linearly, not measured.
Earlier measurements of other recipes stay in the file.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
import tyro
from measuring import peak_rss_kib, store
from PIL import Image

from kinema.data.manifest import Entry, Manifest, write_manifest
from kinema.modality import DepthFacts
from kinema.models.complexity import parameter_count
from kinema.training.loop import train
from kinema.training.recipe import load_recipe
from kinema.training.runs import Run, commit

Activations = Literal["keep", "recompute"]


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """Properties of a dataset.

    Args:
        classes: Number of classes per task head.
        width: Width of a video [px].
        height: Height of a video [px].
        frames: Number of frames, about the mean of the dataset.
        depth: Form of depth: 16-bit images of 512 x 424 with all but the person 0, 8-bit gray video, or none.
    """

    classes: dict[str, int]
    width: int
    height: int
    frames: int
    depth: Literal["masked", "gray", "none"] = "none"


NTU60 = DatasetFacts(classes={"label": 60}, width=1920, height=1080, frames=85, depth="masked")
ISOGD = DatasetFacts(classes={"label": 249}, width=320, height=240, frames=40, depth="gray")
RECIPES: dict[str, DatasetFacts] = {
    "ntu60_mfst_large": NTU60,
    "ntu60_mfst_large_depth": NTU60,
    "isogd_mfst_large": ISOGD,
    "isogd_mfst_large_depth": ISOGD,
    "ucf101_rpe_stdt_base12": DatasetFacts(classes={"label": 101}, width=320, height=240, frames=180),
    "hmdb51_rpe_stdt_base12": DatasetFacts(classes={"label": 51}, width=320, height=240, frames=95),
    "diving48_rpe_stdt_base12": DatasetFacts(classes={"label": 48}, width=426, height=240, frames=158),
    "diving48_ctn_base": DatasetFacts(classes={"label": 48}, width=426, height=240, frames=158),
    "epic_kitchens_ctn_base": DatasetFacts(classes={"verb": 97, "noun": 300}, width=456, height=256, frames=150),
}
GPUS = {"ntu60": 4, "isogd": 4, "ucf101": 4, "hmdb51": 4, "diving48": 4, "epic_kitchens": 4}
"""Number of A100 GPUs of the thesis (sections 2.4.1, 3.4.2, 4.4.1), among which a batch is divided."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        out: JSON file to write.
        recipes: Recipes to measure.
        activations: `recompute` if a step of two clips would not fit into memory.
        repeats: Number of processes per recipe.
        threads: Number of torch threads.
        measure: Internal: take the steps of one recipe in this process, and print their cost.
        clips: Number of clips per batch, with `measure`.
    """

    out: Path = Path("results/recipe_steps.json")
    recipes: tuple[str, ...] = tuple(RECIPES)
    activations: Activations = "keep"
    repeats: int = 3
    threads: int = 2
    measure: str = ""
    clips: int = 1


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        print(json.dumps(steps(arguments)))
        return
    stored = json.loads(arguments.out.read_text(encoding="utf-8"))["recipes"] if arguments.out.exists() else {}
    for name in arguments.recipes:
        stored[name] = measure_recipe(name, arguments)
        store(
            arguments.out,
            arguments=asdict(arguments),
            packages=("kinema", "torch", "lightning-fabric"),
            parts={"recipes": {name: stored[name] for name in RECIPES if name in stored}},
        )


def measure_recipe(name: str, arguments: Arguments) -> dict[str, Any]:
    """Return the medians of both batches, and the extrapolation to the batch of the recipe."""
    recipe = load_recipe(name)
    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(arguments.repeats):
        for clips, taken in runs.items():
            command = [sys.executable, __file__, "--measure", name, "--clips", str(clips)]
            command += ["--activations", arguments.activations, "--threads", str(arguments.threads)]
            process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
            taken.append(json.loads(process.stdout.splitlines()[-1]))
            print(f"{name}, {clips}: {taken[-1]}", flush=True)
    gpus = GPUS[next(dataset for dataset in GPUS if name.startswith(dataset))]
    share = recipe.data.batch_size // gpus
    by_clips = {
        what: {clips: float(np.median([one[what] for one in taken])) for clips, taken in runs.items()}
        for what in ("mib", "seconds")
    }
    return {
        "commit": commit(),
        "parameters": int(runs[1][0]["parameters"]),
        "frames": recipe.clip.frames,
        "size": recipe.clip.size,
        "activations": arguments.activations,
        "measured": by_clips,
        "repeats": runs,
        "batch": recipe.data.batch_size,
        "gpus": gpus,
        "extrapolated": {
            "mib_of_a_gpus_share": by_clips["mib"][1] + (share - 1) * (by_clips["mib"][2] - by_clips["mib"][1]),
            "seconds_of_a_batch_here": by_clips["seconds"][1]
            + (recipe.data.batch_size - 1) * (by_clips["seconds"][2] - by_clips["seconds"][1]),
        },
    }


def steps(arguments: Arguments) -> dict[str, float]:
    """Take two steps in this process; return its peak memory and the seconds of the second step."""
    recipe = load_recipe(arguments.measure)
    with tempfile.TemporaryDirectory() as folder:
        manifest = make_data(RECIPES[arguments.measure], recipe.data.evaluate, Path(folder))
        recipe = replace(
            recipe,
            data=replace(recipe.data, manifest=str(manifest.path), batch_size=arguments.clips, workers=0),
            compute=replace(recipe.compute, activation_checkpointing=arguments.activations == "recompute"),
            run=replace(recipe.run, out=Path(folder) / "run"),
        )
        run = train(recipe, Run.create(recipe, name=arguments.measure, existing="refuse"), max_steps=2)
        taken = run.steps()
    network = recipe.model.build(heads=manifest.heads, channels={"rgb": 3}, frames=recipe.clip.frames, size=224)
    return {
        "mib": peak_rss_kib() / 1024,
        "seconds": arguments.clips / taken[1]["clips_per_s"],
        "parameters": parameter_count(network),
    }


def make_data(dataset: DatasetFacts, evaluate: str, folder: Path) -> Manifest:
    """Write a manifest of one clip: four training samples and one evaluation sample."""
    rng = np.random.default_rng(0)
    clip, person = folder / "clip.mp4", folder / "person"
    video(clip, rng.integers(0, 256, (dataset.height // 32, dataset.width // 32, 3), np.uint8), dataset)
    if dataset.depth == "masked":
        pictures(person, dataset.frames, rng)
    depth = {"masked": person.name, "gray": clip.name, "none": ""}[dataset.depth]
    classes = {head: tuple(f"{head} {number:03}" for number in range(count)) for head, count in dataset.classes.items()}
    entries = [
        Entry(
            rgb=clip.name,
            depth=depth,
            frames=dataset.frames,
            split="train" if number < 4 else evaluate,
            labels={head: names[number] for head, names in classes.items()},
        )
        for number in range(5)
    ]
    facts = DepthFacts(unit_mm=1, near=500, far=4500, coverage="masked") if dataset.depth == "masked" else None
    return write_manifest(
        folder / "synthetic.csv", entries=entries, classes=classes, dataset="synthetic", version="1", depth=facts
    )


def video(path: Path, patches: np.ndarray, dataset: DatasetFacts) -> None:
    """Write a video of moving color patches."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = dataset.width, dataset.height, "yuv420p"
        large = np.asarray(Image.fromarray(patches).resize((dataset.width, dataset.height)))
        for number in range(dataset.frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(large, 4 * number, axis=1)), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def pictures(folder: Path, frames: int, rng: np.random.Generator) -> None:
    """Write depth frames [mm] of a moving box of a person's size."""
    folder.mkdir()
    for number in range(frames):
        picture = np.zeros((424, 512), np.uint16)
        picture[100:380, 200 + number : 300 + number] = rng.integers(2500, 3000, (280, 100))
        Image.fromarray(picture).save(folder / f"MDepth-{number + 1:08}.png")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

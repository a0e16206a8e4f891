"""Benchmark the thesis's recipes at full network and clip size: memory and time per step of one and two clips.

    python benchmarks/recipes.py --out results/recipe_steps.json

The data are synthetic: videos and folders of depth in the dataset's size and number of classes, preprocessed and
augmented by the recipe. Each training is a process: two steps of one clip, or two steps of two. The memory is the peak
of the process, the time that of the second step. The cost of the recipe's batch is extrapolated linearly, not measured.
Recipes measured before stay in the file.
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
from measuring import high_water, store
from PIL import Image

from kinema.data.manifest import Entry, Manifest, write_manifest
from kinema.modality import DepthFacts
from kinema.models.complexity import parameter_count
from kinema.training.loop import train
from kinema.training.recipe import load_recipe
from kinema.training.runs import Run, commit

Activations = Literal["keep", "recompute"]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Properties of the clips of a dataset.

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


NTU60 = Corpus(classes={"label": 60}, width=1920, height=1080, frames=85, depth="masked")
ISOGD = Corpus(classes={"label": 249}, width=320, height=240, frames=40, depth="gray")
RECIPES: dict[str, Corpus] = {
    "ntu60_mfst_large": NTU60,
    "ntu60_mfst_large_depth": NTU60,
    "isogd_mfst_large": ISOGD,
    "isogd_mfst_large_depth": ISOGD,
    "ucf101_rpe_stdt_base12": Corpus(classes={"label": 101}, width=320, height=240, frames=180),
    "hmdb51_rpe_stdt_base12": Corpus(classes={"label": 51}, width=320, height=240, frames=95),
    "diving48_rpe_stdt_base12": Corpus(classes={"label": 48}, width=426, height=240, frames=158),
    "diving48_ctn_base": Corpus(classes={"label": 48}, width=426, height=240, frames=158),
    "epic_kitchens_ctn_base": Corpus(classes={"verb": 97, "noun": 300}, width=456, height=256, frames=150),
}
GPUS = {"ntu60": 4, "isogd": 4, "ucf101": 4, "hmdb51": 4, "diving48": 4, "epic_kitchens": 4}
"""Number of A100 GPUs of the thesis (2.4.1, 3.4.1, 4.4.1), among which a batch is divided."""


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
    known = json.loads(arguments.out.read_text(encoding="utf-8"))["recipes"] if arguments.out.exists() else {}
    for name in arguments.recipes:
        known[name] = measured(name, arguments)
        store(
            arguments.out,
            arguments=asdict(arguments),
            packages=("kinema", "torch", "lightning-fabric"),
            parts={"recipes": {name: known[name] for name in RECIPES if name in known}},
        )


def measured(name: str, arguments: Arguments) -> dict[str, Any]:
    """Return the medians of both batches, and the extrapolation to the batch of the recipe."""
    recipe = load_recipe(name)
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(arguments.repeats):
        for clips, taken in found.items():
            words = [sys.executable, __file__, "--measure", name, "--clips", str(clips)]
            words += ["--activations", arguments.activations, "--threads", str(arguments.threads)]
            process = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
            taken.append(json.loads(process.stdout.splitlines()[-1]))
            print(f"{name}, {clips}: {taken[-1]}", flush=True)
    gpus = GPUS[next(corpus for corpus in GPUS if name.startswith(corpus))]
    share = recipe.data.batch_size // gpus
    by_clips = {
        what: {clips: float(np.median([one[what] for one in taken])) for clips, taken in found.items()}
        for what in ("mib", "seconds")
    }
    return {
        "commit": commit(),
        "parameters": int(found[1][0]["parameters"]),
        "frames": recipe.clip.frames,
        "size": recipe.clip.size,
        "activations": arguments.activations,
        "measured": by_clips,
        "repeats": found,
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
        manifest = made(RECIPES[arguments.measure], recipe.data.evaluate, Path(folder))
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
        "mib": high_water() / 1024,
        "seconds": arguments.clips / taken[1]["clips_per_s"],
        "parameters": parameter_count(network),
    }


def made(corpus: Corpus, evaluate: str, folder: Path) -> Manifest:
    """Write a manifest of one clip: four training samples and one evaluation sample."""
    rng = np.random.default_rng(0)
    clip, person = folder / "clip.mp4", folder / "person"
    video(clip, rng.integers(0, 256, (corpus.height // 32, corpus.width // 32, 3), np.uint8), corpus)
    if corpus.depth == "masked":
        pictures(person, corpus.frames, rng)
    depth = {"masked": person.name, "gray": clip.name, "none": ""}[corpus.depth]
    classes = {head: tuple(f"{head} {number:03}" for number in range(count)) for head, count in corpus.classes.items()}
    entries = [
        Entry(
            rgb=clip.name,
            depth=depth,
            frames=corpus.frames,
            split="train" if number < 4 else evaluate,
            labels={head: names[number] for head, names in classes.items()},
        )
        for number in range(5)
    ]
    facts = DepthFacts(unit_mm=1, near=500, far=4500, coverage="masked") if corpus.depth == "masked" else None
    return write_manifest(
        folder / "made.csv", entries=entries, classes=classes, dataset="made", version="1", depth=facts
    )


def video(path: Path, patches: np.ndarray, corpus: Corpus) -> None:
    """Return frames with moving color patches."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = corpus.width, corpus.height, "yuv420p"
        large = np.asarray(Image.fromarray(patches).resize((corpus.width, corpus.height)))
        for number in range(corpus.frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(large, 4 * number, axis=1)), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def pictures(folder: Path, frames: int, rng: np.random.Generator) -> None:
    """Return depth frames of a moving box of a person's size [mm]."""
    folder.mkdir()
    for number in range(frames):
        picture = np.zeros((424, 512), np.uint16)
        picture[100:380, 200 + number : 300 + number] = rng.integers(2500, 3000, (280, 100))
        Image.fromarray(picture).save(folder / f"MDepth-{number + 1:08}.png")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

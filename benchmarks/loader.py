"""Benchmark the loader from file to normalized batch: samples per second by workers, and time per step.

    python benchmarks/loader.py --out results/loader_speed.json

Times per step are those of one process with one thread, as in a worker; functions of the package are timed at their
callers. The transfer of a batch from a worker is measured separately, on ready-made batches. Each file is in a manifest
many times and in the page cache, as in training from the second epoch on if the memory suffices. Each repeat measures
everything once in random order.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from footage import Footage, facts, three_files
from measuring import median_interval, store, turns
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from kinema.data import loaders
from kinema.data.dataset import VideoDataset
from kinema.data.loaders import LoadedBatch, collate, complete, make_loader
from kinema.data.manifest import Entry, write_manifest
from kinema.data.samplers import TrainingBatches
from kinema.transforms import augment
from kinema.transforms.augment import Augmentation
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling
from kinema.video.video_file import VideoFile

STEPS = {
    "decode": (VideoFile, "read_rgb"),
    "resize and crop": (augment, "crop"),
    "color": (augment, "recolor"),
    "collate": (loaders, "collate"),
}
"""Function of each step, and the class or module that calls it."""

FRAMES, BATCH = 16, 8
SHORT_SIDES = {112: (128, 160), 224: (256, 320)}
"""Clip sizes, and the range of short sides in training."""

WARM = 2
"""Number of warm-up batches."""

Task = Literal["transfer", "0 workers", "1 worker", "2 workers"]
TASKS: dict[Task, int] = {"transfer": 1, "0 workers": 0, "1 worker": 1, "2 workers": 2}
"""Measurements, and the number of workers of each."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        out: JSON file to write.
        repeats: Number of repeats.
        samples: Number of samples per manifest and measurement.
        seed: Seed of the order within a repeat.
    """

    out: Path
    repeats: int = 5
    samples: int = 32
    seed: int = 0


def main(arguments: Arguments) -> None:
    torch.set_num_threads(1)
    measured: dict[tuple[str, int], dict[Task, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as folder:
        footage = three_files(Path(folder))
        properties = {file.name: facts(file) for file in footage}
        sets = {
            (file.name, size): training_set(
                file, properties[file.name]["frames"], size, arguments.samples, Path(folder)
            )
            for file in footage
            for size in SHORT_SIDES
        }
        plan = product(sets, TASKS)
        for _, (key, task) in turns(plan, repeats=arguments.repeats, seed=arguments.seed):
            measured[key][task].append(measure(sets[key], task, arguments.samples // BATCH))
    parts = {
        "clip": {"frames": FRAMES, "batch": BATCH, "short_sides": SHORT_SIDES},
        "files": properties,
        "measured": {f"{name} to {size}": summary(runs) for (name, size), runs in measured.items()},
    }
    packages = ("kinema", "av", "torch", "numpy")
    print_report(store(arguments.out, arguments=asdict(arguments), packages=packages, parts=parts, show=False))


def training_set(file: Footage, frames: int, size: int, samples: int, folder: Path) -> VideoDataset:
    """Return a dataset of one file many times, with training augmentation."""
    manifest = write_manifest(
        folder / f"{file.name} {size}.csv",
        entries=[Entry(rgb=file.path, frames=frames, split="train", labels={"label": "any"})] * samples,
        classes={"label": ("any",)},
        dataset="benchmark",
        version="1",
        depth=None,
    )
    return VideoDataset(
        manifest,
        sampling=Sampling(frames=FRAMES),
        preprocessing=Preprocessing(short_side=SHORT_SIDES[size][0], size=size),
        augmentation=Augmentation(short_side=SHORT_SIDES[size], flip=0.5, color_jitter=0.4),
    )


def measure(dataset: VideoDataset, task: Task, batches: int) -> dict[str, float]:
    """Return milliseconds per sample, and per step if there are no workers."""
    workers = TASKS[task]
    # More batches follow the last timed one, so that the workers stay busy until the end.
    steps = WARM + batches + 2 * workers + 1
    positions = list(range(len(dataset)))
    draws = TrainingBatches(positions, batch_size=BATCH, steps=steps, seed=0)
    if task == "transfer":
        ready = collate([dataset[draw] for draw in next(iter(draws))])
        return {"all": run(DataLoader(ReadyBatches(ready, steps), batch_size=None, num_workers=workers), batches)}
    with timed_steps() as seconds:
        loader = make_loader(dataset, draws, workers=workers, pin_memory=False)
        parts = {"all": run(loader, batches, dataset.preprocessing, seconds)}
    if workers == 0:
        parts |= {step: 1000 * spent / (batches * BATCH) for step, spent in seconds.items()}
    return parts


def run(
    loader: DataLoader[LoadedBatch],
    batches: int,
    preprocessing: Preprocessing | None = None,
    seconds: dict[str, float] | None = None,
) -> float:
    """Return milliseconds per sample until its batch arrives, normalized if a preprocessing is args."""
    start = 0.0
    for number, loaded in enumerate(loader):
        batch = complete(loaded)
        if preprocessing is not None and seconds is not None:
            before = time.perf_counter()
            preprocessing.normalize_all(batch["inputs"])
            seconds["normalize"] += time.perf_counter() - before
        if number == WARM - 1:
            start = time.perf_counter()
            if seconds is not None:
                seconds.clear()
        if number == WARM + batches - 1:
            break
    return 1000 * (time.perf_counter() - start) / (batches * BATCH)


class ReadyBatches(torch.utils.data.Dataset[LoadedBatch]):
    """Dataset of ready-made batches; copies, since a tensor is transferred only once."""

    def __init__(self, loaded: LoadedBatch, length: int) -> None:
        batch = complete(loaded)
        self.batches = [
            LoadedBatch({**batch, "inputs": {m: clip.clone() for m, clip in batch["inputs"].items()}}, ())
            for _ in range(length)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> LoadedBatch:
        return self.batches[number]


@contextmanager
def timed_steps() -> Iterator[dict[str, float]]:
    """Measure the seconds in each step within the context."""
    seconds: dict[str, float] = defaultdict(float)
    plain = {step: getattr(module, name) for step, (module, name) in STEPS.items()}

    def timed(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            result = function(*args)
            seconds[step] += time.perf_counter() - start
            return result

        return call

    for step, (module, name) in STEPS.items():
        setattr(module, name, timed(step, plain[step]))
    try:
        yield seconds
    finally:
        for step, (module, name) in STEPS.items():
            setattr(module, name, plain[step])


def summary(runs: dict[Task, list[dict[str, float]]]) -> dict[str, Any]:
    """Return medians over repeats: shares of a worker's time with the transfer, and samples per second."""
    transfer = float(np.median([parts["all"] for parts in runs["transfer"]]))
    shares: dict[str, list[float]] = defaultdict(list)
    for parts in runs["0 workers"]:
        total = parts["all"] + transfer
        named = {name: ms for name, ms in parts.items() if name != "all"}
        for name, ms in {**named, "transfer": transfer, "rest": parts["all"] - sum(named.values())}.items():
            shares[name].append(ms / total)
        shares["all but decoding"].append(1 - parts["decode"] / total)
    speeds = {task: [1000 / parts["all"] for parts in runs[task]] for task in TASKS if task != "transfer"}
    return {
        "shares": {name: median_interval(values) for name, values in shares.items()},
        "samples_per_second": {task: median_interval(values) for task, values in speeds.items()},
        "milliseconds": dict(runs),
    }


def print_report(report: dict[str, Any]) -> None:
    console = Console()
    first = next(iter(report["measured"].values()))
    table = Table(title="16 frames: share of each step [%]; samples per second")
    for column in ("file and size", *first["shares"], *first["samples_per_second"]):
        table.add_column(column)
    for name, numbers in report["measured"].items():
        shares = [f"{100 * share['median']:.1f}" for share in numbers["shares"].values()]
        speeds = [f"{speed['median']:.1f}" for speed in numbers["samples_per_second"].values()]
        table.add_row(name, *shares, *speeds)
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

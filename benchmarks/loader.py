"""From a file to a normalized batch: samples in a second with 0, 1 and 2 workers, and where the time of a sample goes.

    python benchmarks/loader.py --out results/loader_speed.json

The shares are those of one process with one thread, as a worker is: functions of the package are timed where they are
called. What it costs to hand a batch from a worker to the training is measured apart, on batches that are ready made.
Each file stands in a manifest many times; it is in the system's cache, as in training from the second epoch on, if the
memory is large enough. Interleaved: one repeat measures everything once, in a random order.
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

from kinema.data import dataset as data
from kinema.data.dataset import VideoDataset
from kinema.data.loaders import LoadedBatch, complete, make_loader
from kinema.data.manifest import Entry, write_manifest
from kinema.data.samplers import TrainingBatches
from kinema.transforms import preprocessing as transforms
from kinema.transforms.augment import Augmentation
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling

STEPS = {
    "decode": (data, "read_rgb"),
    "resize and crop": (transforms, "cut"),
    "color": (transforms, "recolor"),
    "collate": (data, "collate"),
}
"""Steps, and the functions that take them, in the modules where they are called."""

FRAMES, BATCH = 16, 8
SHORT_SIDES = {112: (128, 160), 224: (256, 320)}
"""Sizes of a clip, and the short sides that a training draws from."""

WARM = 2
"""Batches before the clock starts."""

Task = Literal["transfer", "0 workers", "1 worker", "2 workers"]
TASKS: dict[Task, int] = {"transfer": 1, "0 workers": 0, "1 worker": 1, "2 workers": 2}
"""What is measured, and by how many workers."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is asked on the command line.

    Args:
        out: JSON file to write.
        repeats: times that everything is measured.
        samples: of each manifest, and of each measurement.
        seed: of the order within a repeat.
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
        known = {file.name: facts(file) for file in footage}
        sets = {
            (file.name, size): training_set(file, known[file.name]["frames"], size, arguments.samples, Path(folder))
            for file in footage
            for size in SHORT_SIDES
        }
        plan = product(sets, TASKS)
        for _, (key, task) in turns(plan, repeats=arguments.repeats, seed=arguments.seed):
            measured[key][task].append(measure(sets[key], task, arguments.samples // BATCH))
    parts = {
        "clip": {"frames": FRAMES, "batch": BATCH, "short_sides": SHORT_SIDES},
        "files": known,
        "measured": {f"{name} to {size}": summary(runs) for (name, size), runs in measured.items()},
    }
    packages = ("kinema", "av", "torch", "numpy")
    print_report(store(arguments.out, arguments=asdict(arguments), packages=packages, parts=parts, show=False))


def training_set(file: Footage, frames: int, size: int, samples: int, folder: Path) -> VideoDataset:
    """One file, many times, with all that a training draw varies."""
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
    """Milliseconds a sample: in all, and without workers of each step too."""
    workers = TASKS[task]
    # Behind the last batch that counts there are more, so that the workers are as busy at the end as at the start.
    steps = WARM + batches + 2 * workers + 1
    positions = list(range(len(dataset)))
    draws = TrainingBatches(positions, batch_size=BATCH, steps=steps, seed=0)
    if task == "transfer":
        ready = data.collate([dataset[draw] for draw in next(iter(draws))])
        return {"all": run(DataLoader(Ready(ready, steps), batch_size=None, num_workers=workers), batches)}
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
    """Milliseconds a sample until its batch is there, and is normalized where a preprocessing is given."""
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


class Ready(torch.utils.data.Dataset[LoadedBatch]):
    """Finished batches: copies of one, since a tensor that was handed over once is handed over again for nothing."""

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
    """Seconds in each step, as long as the context lasts."""
    seconds: dict[str, float] = defaultdict(float)
    plain = {step: getattr(module, name) for step, (module, name) in STEPS.items()}

    def timed(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            start = time.perf_counter()
            result = function(*given)
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
    """Medians over repeats: shares of a worker's time with the transfer, and samples in a second."""
    transfer = float(np.median([parts["all"] for parts in runs["transfer"]]))
    shares: dict[str, list[float]] = defaultdict(list)
    for parts in runs["0 workers"]:
        whole = parts["all"] + transfer
        named = {name: ms for name, ms in parts.items() if name != "all"}
        for name, ms in {**named, "transfer": transfer, "rest": parts["all"] - sum(named.values())}.items():
            shares[name].append(ms / whole)
        shares["all but decoding"].append(1 - parts["decode"] / whole)
    speeds = {task: [1000 / parts["all"] for parts in runs[task]] for task in TASKS if task != "transfer"}
    return {
        "shares": {name: median_interval(values) for name, values in shares.items()},
        "samples_per_second": {task: median_interval(values) for task, values in speeds.items()},
        "milliseconds": dict(runs),
    }


def print_report(report: dict[str, Any]) -> None:
    console = Console()
    first = next(iter(report["measured"].values()))
    table = Table(title="16 frames: share of each step in percent; samples in a second")
    for column in ("file and size", *first["shares"], *first["samples_per_second"]):
        table.add_column(column)
    for name, numbers in report["measured"].items():
        shares = [f"{100 * share['median']:.1f}" for share in numbers["shares"].values()]
        speeds = [f"{speed['median']:.1f}" for speed in numbers["samples_per_second"].values()]
        table.add_row(name, *shares, *speeds)
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""Benchmark training of CTN-tiny with one or two processes and threads: clips per second.

    python benchmarks/processes.py --out results/processes.json

One process of one thread, one of two threads, and two of one thread take steps of the same batch. Each repeat runs all
three in random order; ratios are taken within a repeat. Startup, first steps and evaluation do not count.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from measuring import median_interval, store, turns
from rich.console import Console
from rich.table import Table

from kinema.training.runs import Run

Arrangement = Literal["1 process of 1 thread", "1 process of 2 threads", "2 processes of 1 thread"]
ARRANGEMENTS: dict[Arrangement, tuple[int, int]] = {
    "1 process of 1 thread": (1, 1),
    "1 process of 2 threads": (1, 2),
    "2 processes of 1 thread": (2, 1),
}
"""Number of processes, and of threads per process."""

ONE: Arrangement = "1 process of 1 thread"
THREADS: Arrangement = "1 process of 2 threads"
PROCESSES: Arrangement = "2 processes of 1 thread"

WARM = 4
"""Number of warm-up steps."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        out: JSON file to write.
        repeats: Number of trainings per arrangement.
        steps: Number of steps per training, including warm-up.
        batch_size: Number of clips per batch, over all processes.
        workers: Number of reader processes per training process.
        seed: Seed of the order within a repeat.
    """

    out: Path
    repeats: int = 9
    steps: int = 24
    batch_size: int = 8
    workers: int = 1
    seed: int = 0


def main(arguments: Arguments) -> None:
    if arguments.steps <= WARM:
        sys.exit(f"--steps {arguments.steps}; expected more than the {WARM} warm-up steps")
    speeds: dict[Arrangement, list[float]] = {name: [] for name in ARRANGEMENTS}
    waits: dict[Arrangement, list[float]] = {name: [] for name in ARRANGEMENTS}
    names = list(ARRANGEMENTS)
    with tempfile.TemporaryDirectory() as folder:
        for repeat, name in turns(names, repeats=arguments.repeats, seed=arguments.seed):
            speed, wait = measure(name, arguments, Path(folder) / f"{repeat} {name}")
            speeds[name].append(speed)
            waits[name].append(wait)
    parts = {
        "trained": "ctn_tiny on moves_cross_subject (synthetic), float32 on the CPU, processes joined by gloo",
        "measured": {
            name: {
                **interval(speeds[name]),
                "clips_per_second": speeds[name],
                "ratio": against(speeds, name, ONE),
                "waiting_for_data": interval(waits[name]),
            }
            for name in names
        },
        "two_processes_against_two_threads": against(speeds, PROCESSES, THREADS),
    }
    packages = ("kinema", "torch", "lightning-fabric", "av", "numpy")
    print_report(store(arguments.out, arguments=asdict(arguments), packages=packages, parts=parts, show=False))


def measure(name: Arrangement, arguments: Arguments, out: Path) -> tuple[float, float]:
    """Return clips per second of one training, and the share of time that its first process waited for data."""
    processes, threads = ARRANGEMENTS[name]
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    settings = {
        "--data.manifest": "moves_cross_subject",
        "--data.evaluate": "test",
        "--data.batch-size": arguments.batch_size,
        "--data.workers": arguments.workers,
        "--compute.cpu-threads": threads,
        "--compute.device": "cpu",
        "--run.out": out,
        "--max-steps": arguments.steps,
    }
    args = [str(arg) for setting in settings.items() for arg in setting]
    ended = subprocess.run(
        [*start, "kinema.cli", "train", "ctn_tiny", *args],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        sys.exit(f"{name}: {ended.stderr[-4000:]}")
    counted = Run.open(out).steps()[WARM:]
    seconds = [arguments.batch_size / step["clips_per_s"] for step in counted]
    waited = sum(step["data_wait"] * took for step, took in zip(counted, seconds, strict=True))
    return len(counted) * arguments.batch_size / sum(seconds), waited / sum(seconds)


def against(speeds: dict[Arrangement, list[float]], name: Arrangement, other: Arrangement) -> dict[str, Any]:
    """Return the ratio of speeds within each repeat."""
    return interval([own / theirs for own, theirs in zip(speeds[name], speeds[other], strict=True)])


def interval(values: list[float]) -> dict[str, Any]:
    """Return the median and its 95 % interval."""
    median = median_interval(values)
    return {"median": median["median"], "interval": [median["low"], median["high"]]}


def print_report(report: dict[str, Any]) -> None:
    table = Table(title=f"CTN-tiny, {report['arguments']['repeats']} trainings each; median and 95 % interval")
    for column in ("processes and threads", "clips/s", "waiting for data", "ratio to one process"):
        table.add_column(column)
    for name, entry in report["measured"].items():
        table.add_row(name, interval_of(entry), interval_of(entry["waiting_for_data"]), interval_of(entry["ratio"]))
    Console().print(table)
    Console().print(f"two processes over two threads: {interval_of(report['two_processes_against_two_threads'])}")


def interval_of(numbers: dict[str, Any]) -> str:
    low, high = numbers["interval"]
    return f"{numbers['median']:.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main(tyro.cli(Arguments))

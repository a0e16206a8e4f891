"""Benchmark harness: interleaved timing, medians and ratios with intervals, and JSON reports."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from kinema.training.runs import commit

RESAMPLES = 10_000
Name = TypeVar("Name")


def interleave(
    runs: Mapping[Any, Callable[[], object]],
    *,
    repeats: int,
    seed: int,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Any, list[float]]:
    """Return the seconds of every run in every repeat.

    Each repeat does every run once in random order, so that a slowdown of the machine affects all runs.

    Args:
        runs: Functions to time, by name.
        repeats: Number of repeats that count.
        seed: Seed of the order.
        warm_up: Whether to discard a first repeat.
        clock: Function that returns seconds.
    """
    seconds: dict[Any, list[float]] = {name: [] for name in runs}
    for repeat, name in turns(runs, repeats=repeats + warm_up, seed=seed):
        start = clock()
        runs[name]()
        if repeat or not warm_up:
            seconds[name].append(clock() - start)
    return seconds


def turns(names: Iterable[Name], *, repeats: int, seed: int) -> Iterator[tuple[int, Name]]:
    """Yield the number of the repeat and each name, in a random order within each repeat."""
    rng, every = np.random.default_rng(seed), list(names)
    for repeat in range(repeats):
        for place in rng.permutation(len(every)):
            yield repeat, every[place]


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Return processor, cores, threads, and the versions of these packages."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": {name: _version(name) for name in packages},
    }


def median_interval(values: Sequence[float]) -> dict[str, float]:
    """Return the median and its 95 % bootstrap interval (percentiles; resampled with a fixed seed)."""
    sample = np.asarray(values)
    drawn = np.random.default_rng(0).choice(sample, size=(RESAMPLES, len(sample)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return {"median": float(np.median(sample)), "low": float(low), "high": float(high)}


def ratio_interval(values: Sequence[float], baseline: Sequence[float]) -> dict[str, float]:
    """Return the median ratio to a baseline, taken within each repeat, and its interval."""
    return median_interval((np.asarray(values) / np.asarray(baseline)).tolist())


def interval_text(interval: Mapping[str, float], digits: int = 2) -> str:
    """Return a median and its interval as text."""
    return f"{interval['median']:.{digits}f} [{interval['low']:.{digits}f}, {interval['high']:.{digits}f}]"


def recordings() -> Path:
    """Return the folder of the real recordings."""
    return Path(os.environ.get("KINEMA_DATA", Path(__file__).parents[2] / "shared" / "data"))


def store(
    out: Path, *, arguments: Mapping[str, Any], packages: Sequence[str], parts: Mapping[str, Any], show: bool = True
) -> dict[str, Any]:
    """Write a report and return it.

    Args:
        out: JSON file.
        arguments: Options of the command line; `out` is not stored.
        packages: Packages whose versions are stored.
        parts: Measurements.
        show: Whether to print the report without single repeats.
    """
    report = {
        "machine": machine(packages),
        "commit": commit(),
        "arguments": {name: value for name, value in arguments.items() if name != "out"},
        **parts,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if show:
        print(json.dumps({name: without_repeats(value) for name, value in report.items()}, indent=1))
    return report


def peak_rss_kib() -> int:
    """Return the peak resident KiB of this process; `getrusage` would return the parent's, inherited by fork."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def without_repeats(value: Any) -> Any:
    """Return a part of a report without its single repeats."""
    return {name: part for name, part in value.items() if name != "repeats"} if isinstance(value, dict) else value


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

"""What every benchmark says about itself: the machine, the versions, and medians with their uncertainty."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinema.training.runs import commit

RESAMPLES = 10_000


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Processor, cores, threads, and the versions of these packages."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": {name: _version(name) for name in packages},
    }


def median_interval(values: Sequence[float]) -> dict[str, float]:
    """Median and its 95 % bootstrap interval (percentiles; resampled with a fixed seed)."""
    sample = np.asarray(values)
    drawn = np.random.default_rng(0).choice(sample, size=(RESAMPLES, len(sample)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return {"median": float(np.median(sample)), "low": float(low), "high": float(high)}


def store(out: Path, *, arguments: Mapping[str, Any], packages: Sequence[str], parts: Mapping[str, Any]) -> None:
    """Write a report, and print it without its single repeats."""
    report = {
        "machine": machine(packages),
        "commit": commit(),
        "arguments": {name: value for name, value in arguments.items() if name != "out"},
        **parts,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: without_repeats(value) for name, value in report.items()}, indent=1))


def high_water() -> int:
    """Peak resident KiB of this process; `getrusage` would answer with the parent's, which a fork hands down."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def without_repeats(value: Any) -> Any:
    """What is printed of a report's part: all but the single repeats."""
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

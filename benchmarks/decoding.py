"""Benchmark reading sixteen frames of a video: kinema against other libraries.

    python benchmarks/decoding.py --out results/decoding_speed.json

Each repeat reads every file once with every library, in random order; ratios are taken within a repeat, so that a
slowdown of the machine affects all libraries. Files are in the page cache, frame numbers are given (kinema's manifests
contain the number of frames), and opening the file counts for all.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from footage import facts, three_files
from measuring import interleave, interval_text, median_interval, ratio_interval, store
from peers import Reader, readers
from rich.console import Console
from rich.table import Table

from kinema.transforms.sampling import segment_indices

PACKAGES = ("kinema", "av", "torchcodec", "decord", "opencv-python-headless", "pytorchvideo", "torch", "numpy")
COMPARISONS = {
    "best of torchcodec, decord and opencv": ("torchcodec", "decord", "opencv"),
    "pytorchvideo, whole video": ("pytorchvideo, whole video",),
    "pytorchvideo, a clip a frame": ("pytorchvideo, a clip a frame",),
}
"""Prefixes of library names; kinema is compared with the fastest library of each."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        out: JSON file to write.
        repeats: Number of repeats.
        frames: Number of frames to read, the middle ones of equal segments.
        seed: Seed of the order within a repeat.
    """

    out: Path
    repeats: int = 25
    frames: int = 16
    seed: int = 0


def main(arguments: Arguments) -> None:
    libraries = readers()
    files: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for footage in three_files(Path(folder)):
            properties = facts(footage)
            indices = segment_indices(properties["frames"], arguments.frames, None).tolist()
            differences = compare(libraries, footage.path, indices)
            runs = {name: partial(read, footage.path, indices) for name, read in libraries.items()}
            seconds = interleave(runs, repeats=arguments.repeats, seed=arguments.seed, warm_up=False)
            timings = {name: [1000 * second for second in taken] for name, taken in seconds.items()}
            files[footage.name] = {
                **properties,
                "indices": indices,
                "largest_difference_to_kinema": differences,
                "milliseconds": timings,
                "medians": {name: median_interval(values) for name, values in timings.items()},
                "speed_of_kinema_against": {name: against(timings, rivals) for name, rivals in COMPARISONS.items()},
            }
    parts = {"files": files}
    print_report(store(arguments.out, arguments=asdict(arguments), packages=PACKAGES, parts=parts, show=False))


def compare(libraries: dict[str, Reader], path: str, indices: Sequence[int]) -> dict[str, int]:
    """Return the largest difference of any byte to kinema's frames, by library; also warms the page cache."""
    ours = libraries["kinema"](path, indices).astype(np.int16)
    return {name: int(np.abs(read(path, indices) - ours).max()) for name, read in libraries.items()}


def against(timings: dict[str, list[float]], rivals: Sequence[str]) -> dict[str, Any]:
    """Return the fastest of these libraries, and its time over kinema's within each repeat.

    One library is chosen for all repeats; the fastest in each repeat would be a mix that nobody can use.
    """
    best = min((name for name in timings if name.startswith(tuple(rivals))), key=lambda name: np.median(timings[name]))
    return {"rival": best, **ratio_interval(timings[best], timings["kinema"])}


def print_report(report: dict[str, Any]) -> None:
    console = Console()
    table = Table(title="16 frames, median ms [95 % interval]; difference to kinema's frames")
    table.add_column("library")
    for name, file in report["files"].items():
        table.add_column(f"{name}, {file['frames']} frames")
    for library in next(iter(report["files"].values()))["medians"]:
        cells = []
        for file in report["files"].values():
            value, differs = file["medians"][library], file["largest_difference_to_kinema"][library]
            cells.append(f"{interval_text(value, 1)} {differs or 'equal'}")
        table.add_row(library, *cells)
    console.print(table)
    for name, file in report["files"].items():
        for value in file["speed_of_kinema_against"].values():
            console.print(
                f"{name}: kinema's speed is {interval_text(value)} of that of {value['rival']}", soft_wrap=True
            )


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""Benchmark RPE-STDT against the matrix products of this machine, itself without position, and other networks.

    python benchmarks/rpe_stdt.py --out results/rpe_stdt_speed.json

Each repeat runs everything once in random order: RPE-STDT with shared relative position and without, forward and one
step of SGD; matrix products, of which the faster counts; TimeSformer-B at 8 x 224 and ViViT-B at 32 x 224 of
`transformers`, forward. Executed multiply-adds are counted in the same way for all networks.

The second part measures the cost of more frames (8, 16, 32 and 64 of 224 pixels): RPE-STDT with decoupled attention in
space and time, and ViViT-B with joint attention of all patches.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from measuring import median_interval, ratio_interval, store
from networks import CLASSES, SIZE, Work, forward, layer, square, step, timed, timesformer, vivit
from torch import nn

from kinema.models.registry import create_model
from kinema.models.rpe_stdt import Position


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        out: JSON file to write.
        model: Name of the model.
        frames: Number of frames per clip.
        lengths: Clip lengths to compare [frames].
        repeats: Number of timed repeats.
        length_repeats: Number of timed repeats of the clip lengths.
        threads: Number of torch threads.
        seed: Seed of the order within a repeat.
    """

    out: Path = Path("results/rpe_stdt_speed.json")
    model: str = "rpe_stdt_base"
    frames: int = 16
    lengths: tuple[int, ...] = (8, 16, 32, 64)
    repeats: int = 20
    length_repeats: int = 5
    threads: int = 2
    seed: int = 0


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    store(
        arguments.out,
        arguments=asdict(arguments),
        packages=("kinema", "torch", "transformers"),
        parts={"speed": speed(arguments), "lengths": lengths(arguments)},
    )


def speed(arguments: Arguments) -> dict[str, Any]:
    """Return forward and training speed, with and without position, against the machine's rate and other networks."""
    clip = torch.randn(1, 3, arguments.frames, SIZE, SIZE)
    works: dict[str, Work] = {}
    for position in ("shared", "none"):
        network = ours(arguments.model, arguments.frames, position)
        works[f"forward, {position}"] = forward(network, clip)
        works[f"step, {position}"] = step(ours(arguments.model, arguments.frames, position), clip)
    others = {"TimeSformer-B, 8 frames": timesformer(8), "ViViT-B, 32 frames": vivit(32)}
    for name, network in others.items():
        works[name] = forward(network, torch.randn(1, 8 if "Time" in name else 32, 3, SIZE, SIZE))
    works |= {"product, square": square(), "product, of a layer": layer(arguments.frames)}
    seconds = timed(works, repeats=arguments.repeats, seed=arguments.seed)
    rates = {name: works[name].macs / seconds[name] for name in seconds}
    rate = np.maximum(rates["product, square"], rates["product, of a layer"])
    per_gmac = {name: 1e3 * seconds[name] / (works[name].macs / 1e9) for name in seconds}
    mine = per_gmac["forward, shared"]
    return {
        "gmac": {name: work.macs / 1e9 for name, work in works.items()},
        "seconds": {name: median_interval(values.tolist()) for name, values in seconds.items()},
        "ms_per_gmac": {name: median_interval(values.tolist()) for name, values in per_gmac.items()},
        "share_of_the_machines_rate": {
            name: ratio_interval(rates[name], rate) for name in ("forward, shared", "step, shared")
        },
        "relative_position_over_none": {
            way: ratio_interval(seconds[f"{way}, shared"], seconds[f"{way}, none"]) for way in ("forward", "step")
        },
        "ms_per_gmac_over": {name: ratio_interval(mine, per_gmac[name]) for name in others},
        "repeats": {name: values.tolist() for name, values in seconds.items()},
    }


def lengths(arguments: Arguments) -> dict[str, Any]:
    """Return time and multiply-adds by clip length, relative to the shortest."""
    works: dict[str, Work] = {}
    for frames in arguments.lengths:
        network = ours(arguments.model, frames, "shared")
        works[f"RPE-STDT, {frames}"] = forward(network, torch.randn(1, 3, frames, SIZE, SIZE))
        works[f"ViViT-B, {frames}"] = forward(vivit(frames), torch.randn(1, frames, 3, SIZE, SIZE))
    seconds = timed(works, repeats=arguments.length_repeats, seed=arguments.seed)
    first = arguments.lengths[0]
    return {
        "gmac": {name: work.macs / 1e9 for name, work in works.items()},
        "seconds": {name: median_interval(values.tolist()) for name, values in seconds.items()},
        "seconds_over_the_shortest": {
            f"{network}, {frames}": ratio_interval(seconds[f"{network}, {frames}"], seconds[f"{network}, {first}"])
            for network in ("RPE-STDT", "ViViT-B")
            for frames in arguments.lengths[1:]
        },
        "repeats": {name: values.tolist() for name, values in seconds.items()},
    }


def ours(name: str, frames: int, position: Position) -> nn.Module:
    return create_model(name, num_classes=CLASSES, frames=frames, size=SIZE, position=position)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

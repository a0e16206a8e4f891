"""Benchmark MFST-Base against the convolutions and matrix products of this machine; memory of a training step.

    python benchmarks/mfst.py --out results/mfst_speed.json

Multiply-adds of convolutions and matrix products are counted separately. Each repeat measures the machine's rate of
both, at sizes of the network, and times the network: folded forward, and one step of SGD. The time is compared with
that of its multiply-adds at those rates; the rest is memory traffic (pooling, norms, softmax, GELU) and the search for
the nearest keys. Peak memory is that of a process that takes only three steps, less the memory before the first.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from measuring import interleave, median_interval, peak_rss_kib, ratio_interval, store
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kinema.layers.folding import evaluation_copy
from kinema.models.registry import create_model
from kinema.training.activation_checkpointing import checkpoint_activations

CLASSES = 60


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        out: JSON file to write.
        model: Name of the model.
        frames: Number of frames per clip.
        size: Side of the clip [px].
        repeats: Number of timed repeats.
        memory_repeats: Number of processes with kept and with recomputed activations.
        threads: Number of torch threads.
        seed: Seed of the order within a repeat.
        measure: Internal: measure and print the memory with kept or recomputed activations in this process.
    """

    out: Path = Path("results/mfst_speed.json")
    model: str = "mfst_base"
    frames: int = 16
    size: int = 112
    repeats: int = 20
    memory_repeats: int = 5
    threads: int = 2
    seed: int = 0
    measure: Literal["no", "keep", "recompute"] = "no"


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    if arguments.measure != "no":
        print(json.dumps(peak_memory(arguments)))
        return
    torch.manual_seed(arguments.seed)
    model = network(arguments)
    folded = evaluation_copy(model)
    clip = torch.randn(1, 3, arguments.frames, arguments.size, arguments.size)
    convolved, multiplied = counted(model, arguments)
    passes = {"forward": forward(folded, clip), "step": step(model, clip)}
    rates: dict[str, tuple[Callable[[], object], int]] = {"convolution": convolution(), "product": product()}
    runs = {**passes, **{name: run for name, (run, _) in rates.items()}}
    timed = interleave(runs, repeats=arguments.repeats, seed=arguments.seed)
    seconds = {name: np.array(values) for name, values in timed.items()}
    bound = convolved / (rates["convolution"][1] / seconds["convolution"]) + multiplied / (
        rates["product"][1] / seconds["product"]
    )
    parts = {
        "gmac": {"convolutions": convolved / 1e9, "matrix products": multiplied / 1e9},
        "gmac_per_second": {
            name: median_interval((macs / 1e9 / seconds[name]).tolist()) for name, (_, macs) in rates.items()
        },
        "seconds": {name: median_interval(seconds[name].tolist()) for name in passes},
        "share_of_the_machines_rate": {
            "forward": median_interval((bound / seconds["forward"]).tolist()),
            "step, of three times the forward multiply-adds": median_interval((3 * bound / seconds["step"]).tolist()),
        },
        "peak_memory_mib": memory(arguments),
        "repeats": {name: values.tolist() for name, values in seconds.items()},
    }
    options = {name: value for name, value in asdict(arguments).items() if name != "measure"}
    store(arguments.out, arguments=options, packages=("kinema", "torch"), parts=parts)


def network(arguments: Arguments) -> nn.Module:
    return create_model(arguments.model, num_classes=CLASSES, frames=arguments.frames, size=arguments.size)


def counted(model: nn.Module, arguments: Arguments) -> tuple[int, int]:
    """Return the multiply-adds of a forward pass in convolutions and in matrix products."""
    bare = evaluation_copy(model).to("meta")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        bare(torch.empty(1, 3, arguments.frames, arguments.size, arguments.size, device="meta"))
    by_operator = {str(op): flops // 2 for op, flops in counter.get_flop_counts()["Global"].items()}
    convolved = sum(macs for op, macs in by_operator.items() if "convolution" in op)
    return convolved, sum(by_operator.values()) - convolved


def forward(model: nn.Module, clip: Tensor) -> Callable[[], object]:
    def run() -> None:
        with torch.inference_mode():
            model(clip)

    return run


def step(model: nn.Module, clip: Tensor) -> Callable[[], object]:
    """Return a function that takes a step of SGD on one clip."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    model.train()

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(clip), torch.zeros(1, dtype=torch.long)).backward()
        optimizer.step()

    return run


def convolution() -> tuple[Callable[[], object], int]:
    """Return the largest convolution of the stem, plain: 3 x 3 x 3, 64 to 192 channels, for a clip of 16 x 112."""
    maps = torch.randn(1, 64, 16, 28, 28).contiguous(memory_format=torch.channels_last_3d)
    layer = nn.Conv3d(64, 192, 3, padding=1, bias=False).to(memory_format=torch.channels_last_3d)
    layer.weight.requires_grad_(False)
    return (lambda: layer(maps)), 16 * 28 * 28 * 192 * 64 * 27


def product() -> tuple[Callable[[], object], int]:
    """Return a square matrix product of size 2048."""
    one = torch.randn(2048, 2048)
    return (lambda: one @ one), 2048**3


def memory(arguments: Arguments) -> dict[str, Any]:
    """Return the peak memory of a step with kept and recomputed activations, in alternating processes."""
    peaks: dict[str, list[float]] = {"keep": [], "recompute": []}
    for _ in range(arguments.memory_repeats):
        for mode, mib in peaks.items():
            command = [sys.executable, __file__, "--measure", mode, "--model", arguments.model]
            command += ["--frames", str(arguments.frames), "--size", str(arguments.size)]
            command += ["--threads", str(arguments.threads)]
            process = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
            mib.append(json.loads(process.stdout)["mib"])
    ratio = ratio_interval(peaks["recompute"], peaks["keep"])
    return {mode: median_interval(values) for mode, values in peaks.items()} | {"recompute_over_keep": ratio}


def peak_memory(arguments: Arguments) -> dict[str, float]:
    torch.manual_seed(0)
    model = network(arguments)
    if arguments.measure == "recompute":
        checkpoint_activations(model)
    clip = torch.randn(1, 3, arguments.frames, arguments.size, arguments.size)
    before = peak_rss_kib()
    run = step(model, clip)
    for _ in range(3):
        run()
    return {"mib": (peak_rss_kib() - before) / 1024}


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""Benchmark k-NN attention against dense attention and the public formulation; WMS-Trans scales joint or separate.

    python benchmarks/knn_attention.py --out results/knn_attention_speed.json

Shapes are MFST's for one clip of 32 frames: positions per frame in spatial blocks, times per position in temporal
blocks. Each repeat measures everything once in random order; ratios are taken within a repeat. The public formulation
of KVT and De+Recouple is reimplemented: top-k of the logits, a mask with ones there, and minus infinity elsewhere.
Outputs and gradients are compared before timing.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
import tyro
from measuring import interval_text, median_interval, ratio_interval, store, turns
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kinema.layers.knn_attention import KNNLayer, dense_attention, knn_attention, num_kept_keys
from kinema.layers.multiscale_temporal import MultiScaleTemporalTransformer, pool_time

HEADS, HEAD_DIM, SHARE = 8, 64, 0.7
ATTENTION = {"spatial, stage 1": (32, 196), "spatial, stages 2 to 4": (32, 49), "temporal, stage 1": (196, 32)}
"""Number of sequences, and of tokens per sequence."""

SCALES = {"stage 1": (196, 32, 256), "stages 3 and 4": (49, 32, 512), "16 places": (16, 32, 256)}
"""Number of sequences, times and channels of a temporal block."""

Pass = Literal["forward", "forward and backward"]
PASSES: tuple[Pass, ...] = ("forward", "forward and backward")
Way = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        out: JSON file to write.
        repeats: Number of repeats.
        threads: Number of torch threads.
        dtype: Type of queries, keys and values; temporal blocks are float32.
        seed: Seed of the order within a repeat.
    """

    out: Path
    repeats: int = 20
    threads: int = 2
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Implementations of one function, on the same tensors; the first is the baseline."""

    ways: dict[str, Way]
    inputs: list[Tensor]
    towards: Tensor

    def run(self, way: str, direction: Pass) -> list[Tensor]:
        """Return the output, or the gradients."""
        if direction == "forward":
            with torch.no_grad():
                return [self.ways[way](*self.inputs)]
        inputs = [tensor.detach().requires_grad_() for tensor in self.inputs]
        return list(torch.autograd.grad(self.ways[way](*inputs), inputs, self.towards))

    def milliseconds(self, way: str, direction: Pass) -> float:
        start = time.perf_counter()
        self.run(way, direction)
        return 1000 * (time.perf_counter() - start)

    def difference(self, way: str, other: str) -> float:
        """Return the largest relative difference of outputs and gradients."""
        pairs = [
            pair
            for direction in PASSES
            for pair in zip(self.run(way, direction), self.run(other, direction), strict=True)
        ]
        return max(((one - two).abs().max() / two.abs().max()).item() for one, two in pairs)


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    dtype = getattr(torch, arguments.dtype)
    contests = {f"attention, {name}": attention_contest(*size, dtype=dtype) for name, size in ATTENTION.items()}
    contests |= {f"scales, {name}": scales_contest(*size) for name, size in SCALES.items()}
    equal = {name: equality(contest) for name, contest in contests.items()}

    plan = [
        (name, way, direction) for name, contest in contests.items() for way in contest.ways for direction in PASSES
    ]
    measured: dict[tuple[str, Pass], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _, (name, way, direction) in turns(plan, repeats=arguments.repeats, seed=arguments.seed):
        measured[name, direction][way].append(contests[name].milliseconds(way, direction))

    parts = {
        "attention": {"shapes": ATTENTION, "heads": HEADS, "head_dim": HEAD_DIM, "share": SHARE},
        "scales": {"shapes": SCALES, "layers": 1},
        "relative_difference": equal,
        "measured": {f"{name}, {direction}": summary(ways) for (name, direction), ways in sorted(measured.items())},
    }
    packages = ("kinema", "torch", "numpy")
    print_report(store(arguments.out, arguments=asdict(arguments), packages=packages, parts=parts, show=False))


def attention_contest(sequences: int, tokens: int, *, dtype: torch.dtype) -> Contest:
    """Measure attention, with the memory layout of a layer's linear mapping."""
    mapped = torch.randn(sequences, tokens, 3, HEADS, HEAD_DIM, dtype=dtype).permute(2, 0, 3, 1, 4)
    return Contest(
        ways={
            "sdpa": F.scaled_dot_product_attention,
            "dense": dense_attention,
            "knn": lambda *inputs: knn_attention(*inputs, share=SHARE),
            "public knn": public_formulation,
        },
        inputs=list(mapped.unbind(0)),
        towards=torch.randn(sequences, HEADS, tokens, HEAD_DIM, dtype=dtype),
    )


def public_formulation(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    logits = query @ key.transpose(-2, -1) * HEAD_DIM**-0.5
    nearest = logits.topk(num_kept_keys(logits.shape[-1], SHARE), dim=-1).indices
    kept = torch.zeros_like(logits).scatter_(-1, nearest, 1.0)
    return torch.where(kept > 0, logits, torch.full_like(logits, -torch.inf)).softmax(-1) @ value


def scales_contest(sequences: int, times: int, dim: int) -> Contest:
    """Measure one layer for three scales and for one."""
    block = MultiScaleTemporalTransformer(dim, KNNLayer(), depth=1)
    single = MultiScaleTemporalTransformer(dim, KNNLayer(), depth=1, scales=(1,))

    def scaled(tokens: Tensor) -> list[Tensor]:
        return [pool_time(tokens, scale) for scale in block.scales]

    return Contest(
        ways={
            "separate": lambda tokens: torch.cat(block.separate(scaled(tokens)), dim=1),
            "packed": lambda tokens: torch.cat(block.packed(scaled(tokens)), dim=1),
            "one scale": lambda tokens: F.pad(single(tokens), (0, 0, 0, times // 2 + times // 4)),
        },
        inputs=[torch.randn(sequences, times, dim)],
        towards=torch.randn(sequences, times + times // 2 + times // 4, dim),
    )


def equality(contest: Contest) -> dict[str, float]:
    """Return the largest difference between equivalent implementations; also runs each once as warm-up."""
    pairs = [("knn", "public knn"), ("dense", "sdpa"), ("packed", "separate")]
    return {f"{one}, {other}": contest.difference(one, other) for one, other in pairs if one in contest.ways}


def summary(ways: dict[str, list[float]]) -> dict[str, Any]:
    """Return milliseconds, and ratios to the baseline within each repeat."""
    first = next(way for way in ("sdpa", "separate") if way in ways)
    return {
        "milliseconds": {way: median_interval(values) for way, values in ways.items()},
        f"ratio_to_{first}": {way: ratio_interval(values, ways[first]) for way, values in ways.items() if way != first},
        "repeats": dict(ways),
    }


def print_report(report: dict[str, Any]) -> None:
    table = Table(title="Medians with their 95 % intervals; ratios within a repeat")
    for column in ("what", "way", "ms", "ratio"):
        table.add_column(column)
    for name, numbers in report["measured"].items():
        ratios = next(value for key, value in numbers.items() if key.startswith("ratio_to_"))
        for way, ms in numbers["milliseconds"].items():
            ratio = interval_text(ratios[way]) if way in ratios else "1"
            table.add_row(name, way, f"{ms['median']:.1f}", ratio)
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

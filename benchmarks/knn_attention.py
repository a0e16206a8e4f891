"""k-NN attention beside dense attention and the public formulation; the scales of WMS-Trans at once and one by one.

    python benchmarks/knn_attention.py --out results/knn_attention_speed.json

Shapes are MFST's for one clip of 32 frames: places by frame in the spatial blocks, times by place in the temporal ones.
One repeat measures everything once, in a random order; ratios are taken within a repeat. The public formulation is that
of KVT and De+Recouple in our own words: the k largest logits, a map of zeros with ones there, a choice between the
logits and minus infinity. Answers and gradients are compared before the clock starts.
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
"""Sequences and tokens of one."""

SCALES = {"stage 1": (196, 32, 256), "stages 3 and 4": (49, 32, 512), "16 places": (16, 32, 256)}
"""Sequences, times and channels of a temporal block."""

Pass = Literal["forward", "forward and backward"]
PASSES: tuple[Pass, ...] = ("forward", "forward and backward")
Way = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is asked on the command line.

    Args:
        out: JSON file to write.
        repeats: times that everything is measured.
        threads: of torch.
        dtype: of attention's queries, keys and values; the temporal blocks are float32.
        seed: of the order within a repeat.
    """

    out: Path
    repeats: int = 20
    threads: int = 2
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Ways to the same answer, on the same tensors. The first one is what the others are measured by."""

    ways: dict[str, Way]
    given: list[Tensor]
    towards: Tensor

    def run(self, way: str, direction: Pass) -> list[Tensor]:
        """The answer, or the gradients."""
        if direction == "forward":
            with torch.no_grad():
                return [self.ways[way](*self.given)]
        given = [tensor.detach().requires_grad_() for tensor in self.given]
        return list(torch.autograd.grad(self.ways[way](*given), given, self.towards))

    def milliseconds(self, way: str, direction: Pass) -> float:
        start = time.perf_counter()
        self.run(way, direction)
        return 1000 * (time.perf_counter() - start)

    def difference(self, way: str, other: str) -> float:
        """The largest, over the largest number, in answers and gradients."""
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
    """Queries, keys and values lie in memory as a layer's linear mapping leaves them."""
    mapped = torch.randn(sequences, tokens, 3, HEADS, HEAD_DIM, dtype=dtype).permute(2, 0, 3, 1, 4)
    return Contest(
        ways={
            "sdpa": F.scaled_dot_product_attention,
            "dense": dense_attention,
            "knn": lambda *given: knn_attention(*given, share=SHARE),
            "public knn": public_formulation,
        },
        given=list(mapped.unbind(0)),
        towards=torch.randn(sequences, HEADS, tokens, HEAD_DIM, dtype=dtype),
    )


def public_formulation(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    logits = query @ key.transpose(-2, -1) * HEAD_DIM**-0.5
    nearest = logits.topk(num_kept_keys(logits.shape[-1], SHARE), dim=-1).indices
    kept = torch.zeros_like(logits).scatter_(-1, nearest, 1.0)
    return torch.where(kept > 0, logits, torch.full_like(logits, -torch.inf)).softmax(-1) @ value


def scales_contest(sequences: int, times: int, dim: int) -> Contest:
    """One layer, for three scales and, to see what they cost, for one."""
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
        given=[torch.randn(sequences, times, dim)],
        towards=torch.randn(sequences, times + times // 2 + times // 4, dim),
    )


def equality(contest: Contest) -> dict[str, float]:
    """How far the ways that should give the same are apart; this runs each of them once before it is measured."""
    pairs = [("knn", "public knn"), ("dense", "sdpa"), ("packed", "separate")]
    return {f"{one}, {other}": contest.difference(one, other) for one, other in pairs if one in contest.ways}


def summary(ways: dict[str, list[float]]) -> dict[str, Any]:
    """Milliseconds, and ratios to the first way within each repeat."""
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

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
Variant = Callable[..., Tensor]


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
class Comparison:
    """Implementations of one function, on the same tensors; the first is the baseline."""

    variants: dict[str, Variant]
    inputs: list[Tensor]
    gradient: Tensor

    def run(self, variant: str, direction: Pass) -> list[Tensor]:
        """Return the output, or the gradients."""
        if direction == "forward":
            with torch.no_grad():
                return [self.variants[variant](*self.inputs)]
        inputs = [tensor.detach().requires_grad_() for tensor in self.inputs]
        return list(torch.autograd.grad(self.variants[variant](*inputs), inputs, self.gradient))

    def milliseconds(self, variant: str, direction: Pass) -> float:
        start = time.perf_counter()
        self.run(variant, direction)
        return 1000 * (time.perf_counter() - start)

    def difference(self, variant: str, other: str) -> float:
        """Return the largest relative difference of outputs and gradients."""
        pairs = [
            pair
            for direction in PASSES
            for pair in zip(self.run(variant, direction), self.run(other, direction), strict=True)
        ]
        return max(((one - two).abs().max() / two.abs().max()).item() for one, two in pairs)


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    dtype = getattr(torch, arguments.dtype)
    comparisons = {f"attention, {name}": compare_attention(*size, dtype=dtype) for name, size in ATTENTION.items()}
    comparisons |= {f"scales, {name}": compare_scales(*size) for name, size in SCALES.items()}
    equal = {name: equality(comparison) for name, comparison in comparisons.items()}

    plan = [
        (name, variant, direction)
        for name, comparison in comparisons.items()
        for variant in comparison.variants
        for direction in PASSES
    ]
    measured: dict[tuple[str, Pass], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _, (name, variant, direction) in turns(plan, repeats=arguments.repeats, seed=arguments.seed):
        measured[name, direction][variant].append(comparisons[name].milliseconds(variant, direction))

    parts = {
        "attention": {"shapes": ATTENTION, "heads": HEADS, "head_dim": HEAD_DIM, "share": SHARE},
        "scales": {"shapes": SCALES, "layers": 1},
        "relative_difference": equal,
        "measured": {
            f"{name}, {direction}": summary(variants) for (name, direction), variants in sorted(measured.items())
        },
    }
    packages = ("kinema", "torch", "numpy")
    print_report(store(arguments.out, arguments=asdict(arguments), packages=packages, parts=parts, show=False))


def compare_attention(sequences: int, tokens: int, *, dtype: torch.dtype) -> Comparison:
    """Return variants of attention, with the memory layout of a layer's linear mapping."""
    mapped = torch.randn(sequences, tokens, 3, HEADS, HEAD_DIM, dtype=dtype).permute(2, 0, 3, 1, 4)
    return Comparison(
        variants={
            "sdpa": F.scaled_dot_product_attention,
            "dense": dense_attention,
            "knn": lambda *inputs: knn_attention(*inputs, share=SHARE),
            "public knn": public_formulation,
        },
        inputs=list(mapped.unbind(0)),
        gradient=torch.randn(sequences, HEADS, tokens, HEAD_DIM, dtype=dtype),
    )


def public_formulation(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    logits = query @ key.transpose(-2, -1) * HEAD_DIM**-0.5
    nearest = logits.topk(num_kept_keys(logits.shape[-1], SHARE), dim=-1).indices
    kept = torch.zeros_like(logits).scatter_(-1, nearest, 1.0)
    return torch.where(kept > 0, logits, torch.full_like(logits, -torch.inf)).softmax(-1) @ value


def compare_scales(sequences: int, times: int, dim: int) -> Comparison:
    """Return variants of one temporal layer: three scales, separate or packed, and one."""
    block = MultiScaleTemporalTransformer(dim, KNNLayer(), depth=1)
    single = MultiScaleTemporalTransformer(dim, KNNLayer(), depth=1, scales=(1,))

    def scaled(tokens: Tensor) -> list[Tensor]:
        return [pool_time(tokens, scale) for scale in block.scales]

    return Comparison(
        variants={
            "separate": lambda tokens: torch.cat(block.separate(scaled(tokens)), dim=1),
            "packed": lambda tokens: torch.cat(block.packed(scaled(tokens)), dim=1),
            "one scale": lambda tokens: F.pad(single(tokens), (0, 0, 0, times // 2 + times // 4)),
        },
        inputs=[torch.randn(sequences, times, dim)],
        gradient=torch.randn(sequences, times + times // 2 + times // 4, dim),
    )


def equality(comparison: Comparison) -> dict[str, float]:
    """Return the largest difference between equivalent implementations; also runs each once as warm-up."""
    pairs = [("knn", "public knn"), ("dense", "sdpa"), ("packed", "separate")]
    return {f"{one}, {other}": comparison.difference(one, other) for one, other in pairs if one in comparison.variants}


def summary(variants: dict[str, list[float]]) -> dict[str, Any]:
    """Return milliseconds, and ratios to the baseline within each repeat."""
    first = next(variant for variant in ("sdpa", "separate") if variant in variants)
    return {
        "milliseconds": {variant: median_interval(values) for variant, values in variants.items()},
        f"ratio_to_{first}": {
            variant: ratio_interval(values, variants[first]) for variant, values in variants.items() if variant != first
        },
        "repeats": dict(variants),
    }


def print_report(report: dict[str, Any]) -> None:
    table = Table(title="Medians with their 95 % intervals; ratios within a repeat")
    for column in ("shape", "variant", "ms", "ratio"):
        table.add_column(column)
    for name, numbers in report["measured"].items():
        ratios = next(value for key, value in numbers.items() if key.startswith("ratio_to_"))
        for variant, ms in numbers["milliseconds"].items():
            ratio = interval_text(ratios[variant]) if variant in ratios else "1"
            table.add_row(name, variant, f"{ms['median']:.1f}", ratio)
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""Cost of a network: parameters, and multiply-adds (MACs) of one clip, in total and per child.

MACs are counted on the meta device, without data, so that a base model takes milliseconds.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kinema.models.binding import input_binding
from kinema.models.ctn import CTN
from kinema.models.rpe_stdt import RPESTDT
from kinema.models.vit_spatial import ViTSpatial
from kinema.models.vivit import ViViT

Channels = int | Mapping[str, int]
"""Channels of a single-stream network's clip, or of each modality's clip."""

OWN = "(own)"
"""Name of the row for parameters and operations outside the children."""


@dataclass(frozen=True, kw_only=True)
class ComplexityRow:
    """Cost of one child of a network."""

    name: str
    parameters: int
    macs: int


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters; a shared parameter counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, *, channels: Channels, frames: int, size: int) -> int:
    """Return the multiply-adds for one clip of each modality, including the matrix products of attention."""
    return sum(_macs_by_module(model, channels=channels, frames=frames, size=size)[""].values())


class FullLastBlock(nn.Module):
    """Wrapper that computes all rows of the last block, as papers do when they count MACs. Logits do not change."""

    def __init__(self, network: CTN | RPESTDT | ViTSpatial | ViViT) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: Tensor) -> Tensor | dict[str, Tensor]:
        """Return the network's logits."""
        logits: Tensor | dict[str, Tensor] = self.network.heads(self.network.features(clip, last_block="all"))
        return logits


def complexity_table(model: nn.Module, *, channels: Channels, frames: int, size: int) -> tuple[ComplexityRow, ...]:
    """Return one row per child, in order, with module lists expanded. The rows add up to the total."""
    counts = _macs_by_module(model, channels=channels, frames=frames, size=size)
    children: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            children |= {f"{name}.{inner}": module for inner, module in child.named_children()}
        else:
            children[name] = child
    rows = [
        ComplexityRow(name=name, parameters=parameter_count(child), macs=_macs_below(name, counts))
        for name, child in children.items()
    ]
    own = ComplexityRow(
        name=OWN,
        parameters=parameter_count(model) - sum(row.parameters for row in rows),
        macs=sum(counts[""].values()) - sum(row.macs for row in rows),
    )
    return (own, *rows) if own.parameters or own.macs else tuple(rows)


def _macs_below(name: str, counts: Mapping[str, Mapping[object, int]]) -> int:
    """Return the MACs of a module. One whose `forward` was not called, as a stream's, has those of its children."""
    if name in counts:
        return sum(counts[name].values())
    children = {".".join(other.split(".")[: name.count(".") + 2]) for other in counts if other.startswith(f"{name}.")}
    return sum(_macs_below(child, counts) for child in children)


def example_clips(
    model: nn.Module, *, channels: Channels, frames: int, size: int, batch: int
) -> dict[str, Tensor | None]:
    """Return arguments for the network's `forward` on the meta device, without data."""
    by_modality = {"rgb": channels} if isinstance(channels, int) else channels
    clips = {m: torch.zeros(batch, count, frames, size, size, device="meta") for m, count in by_modality.items()}
    return input_binding(model)(clips)


def _macs_by_module(model: nn.Module, *, channels: Channels, frames: int, size: int) -> dict[str, dict[object, int]]:
    """Return the MACs by operation of every module that ran. The key of the network itself is ""."""
    meta_model = _on_meta(model).eval()
    clips = example_clips(meta_model, channels=channels, frames=frames, size=size, batch=1)
    counter = FlopCounterMode(display=False)
    # The counter misses fused attention kernels, such as the CPU's.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        meta_model(**clips)
    root = type(meta_model).__name__
    counts = {
        "" if name == "Global" else name.removeprefix(f"{root}."): {op: flops // 2 for op, flops in by_op.items()}
        for name, by_op in counter.get_flop_counts().items()
        if name != root
    }
    return {"": {}} | counts


def _on_meta(model: nn.Module) -> nn.Module:
    """Return a copy of the network on the meta device, without copying its data."""
    memo: dict[int, Tensor] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)

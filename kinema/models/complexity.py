"""What a network costs: parameters, and multiply-adds (MACs) of one clip, whole and child by child.

MACs are counted by running the network without data, on the meta device, so that a base model costs milliseconds.
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

OWN = "(own)"
"""The row for what a network does or holds itself, outside its children."""


@dataclass(frozen=True, kw_only=True)
class ComplexityRow:
    """The cost of one child of a network."""

    name: str
    parameters: int
    macs: int


def parameter_count(model: nn.Module) -> int:
    """Numbers that the network learns; a shared one counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


Channels = int | Mapping[str, int]
"""Of a one-stream network's clip, or of each modality's."""


def macs(model: nn.Module, *, channels: Channels, frames: int, size: int) -> int:
    """Multiply-adds of one clip of each modality through a network, products of attention included."""
    return sum(_macs_by_module(model, channels=channels, frames=frames, size=size)[""].values())


class WholeLastBlock(nn.Module):
    """Network that computes all rows of its last block, as papers count it, though only the class token is read.

    Args:
        network: the network to wrap; its logits do not change.
    """

    def __init__(self, network: CTN | RPESTDT | ViTSpatial | ViViT) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: Tensor) -> Tensor | dict[str, Tensor]:
        answer: Tensor | dict[str, Tensor] = self.network.heads(self.network.features(clip, last_block="all"))
        return answer


def complexity_table(model: nn.Module, *, channels: Channels, frames: int, size: int) -> tuple[ComplexityRow, ...]:
    """A row for each child, in order, lists of modules taken apart; the rows add up to the whole."""
    counts = _macs_by_module(model, channels=channels, frames=frames, size=size)
    children = {
        name: child
        for outer, part in model.named_children()
        for name, child in (
            {f"{outer}.{inner}": c for inner, c in part.named_children()}
            if isinstance(part, nn.ModuleList)
            else {outer: part}
        ).items()
    }
    rows = [
        ComplexityRow(name=name, parameters=parameter_count(child), macs=sum(counts.get(name, {}).values()))
        for name, child in children.items()
    ]
    own = ComplexityRow(
        name=OWN,
        parameters=parameter_count(model) - sum(row.parameters for row in rows),
        macs=sum(counts[""].values()) - sum(row.macs for row in rows),
    )
    return (own, *rows) if own.parameters or own.macs else tuple(rows)


def example_clips(
    model: nn.Module, *, channels: Channels, frames: int, size: int, batch: int
) -> dict[str, Tensor | None]:
    """Arguments for the network's `forward` that hold no numbers, on the meta device."""
    by_modality = {"rgb": channels} if isinstance(channels, int) else channels
    clips = {m: torch.zeros(batch, count, frames, size, size, device="meta") for m, count in by_modality.items()}
    return input_binding(model)(clips)


def _macs_by_module(model: nn.Module, *, channels: Channels, frames: int, size: int) -> dict[str, dict[object, int]]:
    """MACs by operation for each module that ran, by its name inside the network; the whole network is ""."""
    shadow = _on_meta(model).eval()
    clips = example_clips(shadow, channels=channels, frames=frames, size=size, batch=1)
    counter = FlopCounterMode(display=False)
    # A fused attention kernel could count as nothing (the CPU's does): its products are asked for written out.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        shadow(**clips)
    root = type(shadow).__name__
    counts = {
        "" if name == "Global" else name.removeprefix(f"{root}."): {op: flops // 2 for op, flops in by_op.items()}
        for name, by_op in counter.get_flop_counts().items()
        if name != root
    }
    return {"": {}} | counts


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy of the network without its numbers."""
    memo: dict[int, Tensor] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)

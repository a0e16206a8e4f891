"""Networks to time: forward pass or training step of one clip, networks of `transformers`, and matrix products.

Executed multiply-adds are counted in the same way for all networks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from measuring import interleave
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VivitConfig,
    VivitForVideoClassification,
)

CLASSES = 101
SIZE = 224
TUBELET = 2
"""Number of frames per token of ViViT-B and VideoMAE-B."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Timed workload.

    Args:
        run: Function that runs it once.
        macs: Multiply-adds of one run.
    """

    run: Callable[[], object]
    macs: int


def timed(works: Mapping[str, Work], *, repeats: int, seed: int) -> dict[str, np.ndarray]:
    """Return the seconds of every repeat."""
    seconds = interleave({name: work.run for name, work in works.items()}, repeats=repeats, seed=seed)
    return {name: np.array(values) for name, values in seconds.items()}


def timesformer(frames: int) -> nn.Module:
    config = TimesformerConfig(num_frames=frames, num_labels=CLASSES)  # type: ignore[call-arg]  # untyped base field
    return TimesformerForVideoClassification(config)


def vivit(frames: int) -> nn.Module:
    """Return ViViT-B with joint space-time attention (model 1 of its paper)."""
    size = [TUBELET, 16, 16]
    config = VivitConfig(num_frames=frames, num_labels=CLASSES, tubelet_size=size)  # type: ignore[call-arg]  # as above
    return VivitForVideoClassification(config)


def videomae(frames: int) -> nn.Module:
    """Return VideoMAE-B, which classifies the mean of all tokens."""
    config = VideoMAEConfig(num_frames=frames, num_labels=CLASSES, tubelet_size=TUBELET)  # type: ignore[call-arg]  # as above
    return VideoMAEForVideoClassification(config)


def forward(network: nn.Module, clip: Tensor) -> Work:
    network.eval()

    def run() -> None:
        with torch.inference_mode():
            network(clip)

    return Work(run=run, macs=counted(network, clip))


def step(network: nn.Module, clip: Tensor) -> Work:
    """Return a step of SGD on one clip, counted as three times the multiply-adds of a forward pass."""
    macs = 3 * counted(network, clip)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    network.train()

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(clip), torch.zeros(1, dtype=torch.long)).backward()
        optimizer.step()

    return Work(run=run, macs=macs)


def square() -> Work:
    one = torch.randn(2048, 2048)
    return Work(run=lambda: one @ one, macs=2048**3)


def layer(frames: int) -> Work:
    """Return the first layer of an MLP on all tokens of the clip."""
    tokens, weight, bias = torch.randn(frames * 197, 768), torch.randn(3072, 768), torch.randn(3072)
    return Work(run=lambda: F.linear(tokens, weight, bias), macs=frames * 197 * 768 * 3072)


def counted(network: nn.Module, clip: Tensor) -> int:
    """Return the multiply-adds per clip, including those of attention."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        network(clip)
    return counter.get_total_flops() // 2

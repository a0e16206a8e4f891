"""Weight-shared multi-scale temporal transformer, WMS-Trans (thesis section 2.3.4.2, eq. 2.9, 2.10, figure 2.5).

    tokens -> average time by 1, 2, 4 -> + position -> shared transformer layers -> repeat -> mean

Each location of the token maps has its own sequence. The thesis gives the three lengths, t, t/2 and t/4, and shared
weights, but not how scales are made and merged. Here a coarse scale averages neighboring times, and each of its outputs
is repeated for the times that it averages.

Axes: b batch (of locations), t times, d channels.
"""

from collections.abc import Sequence
from typing import Literal, assert_never

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from kinema.layers.knn_attention import KNNLayer, eager_on_cpu, knn_block
from kinema.layers.transformer import sinusoidal_position as sinusoidal_position

MAX_PACKED_TOKENS = 4_000
"""Largest number of tokens, over all scales, for which one packed pass is faster on CPU
(benchmarks/knn_attention.py)."""


def pool_time(tokens: Float[Tensor, "b t d"], scale: int) -> Float[Tensor, "b _ d"]:
    """Return the means of every `scale` times; the last one averages the remainder."""
    full = tokens.shape[1] // scale * scale
    means = rearrange(tokens[:, :full], "b (t s) d -> b t s d", s=scale).mean(2)
    if full == tokens.shape[1]:
        return means
    return torch.cat((means, tokens[:, full:].mean(1, keepdim=True)), dim=1)


def repeat_time(tokens: Float[Tensor, "b _ d"], scale: int, *, length: int) -> Float[Tensor, "b {length} d"]:
    """Return each time repeated `scale` times, cut to `length`."""
    return repeat(tokens, "b t d -> b (t s) d", s=scale)[:, :length]


class MultiScaleTemporalTransformer(nn.Module):
    """WMS-Trans: the same transformer layers over one sequence at several time scales.

    Args:
        dim: Channels of a token.
        layer: Settings of the transformer layers.
        depth: Number of transformer layers.
        scales: Number of times that each scale averages into one. `(1,)` is the plain transformer, V-Trans of
            Table 2.6.
        branches: `shared` weights for all scales, or `unshared`, one set per scale: De+Recouple's, as the control.
        position: `sinusoidal` positions before the first layer, from 0 at each scale, or `none`.
    """

    def __init__(
        self,
        dim: int,
        layer: KNNLayer,
        *,
        depth: int = 4,
        scales: tuple[int, ...] = (1, 2, 4),
        branches: Literal["shared", "unshared"] = "shared",
        position: Literal["sinusoidal", "none"] = "sinusoidal",
    ) -> None:
        super().__init__()
        if not scales or min(scales) < 1 or len(set(scales)) < len(scales):
            raise ValueError(f"scales={scales}; expected different positive integers, like (1, 2, 4)")
        self.depth = depth
        self.scales = scales
        self.branches = branches
        self.position = position
        match branches:
            case "shared":
                num_sets = 1
            case "unshared":
                num_sets = len(scales)
            case _:
                assert_never(branches)
        self.layers = nn.ModuleList(knn_block(dim, layer) for _ in range(num_sets * depth))

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Return the mean over the scales."""
        scaled = [self._add_position(pool_time(tokens, scale)) for scale in self.scales]
        num_tokens = sum(part.shape[0] * part.shape[1] for part in scaled)
        is_packed = not eager_on_cpu(tokens) or num_tokens <= MAX_PACKED_TOKENS
        outputs = self.packed(scaled) if is_packed and self.branches == "shared" else self.separate(scaled)
        pairs = zip(outputs, self.scales, strict=True)
        return torch.stack([repeat_time(output, scale, length=tokens.shape[1]) for output, scale in pairs]).mean(0)

    def packed(self, scaled: Sequence[Float[Tensor, "b _ d"]]) -> list[Float[Tensor, "b _ d"]]:
        """Return the outputs of shared layers in one pass over all scales, which do not attend to each other."""
        lengths = [part.shape[1] for part in scaled]
        tokens = torch.cat(list(scaled), dim=1)
        for layer in self.layers:
            tokens = layer(tokens, lengths)
        return list(torch.split(tokens, lengths, dim=1))

    def separate(self, scaled: Sequence[Float[Tensor, "b _ d"]]) -> list[Float[Tensor, "b _ d"]]:
        """Return the outputs scale by scale, each through its branch."""
        layers, outputs = list(self.layers), []
        for number, tokens in enumerate(scaled):
            first = number * self.depth if self.branches == "unshared" else 0
            for layer in layers[first : first + self.depth]:
                tokens = layer(tokens)
            outputs.append(tokens)
        return outputs

    def _add_position(self, tokens: Tensor) -> Tensor:
        match self.position:
            case "sinusoidal":
                return tokens + sinusoidal_position(*tokens.shape[1:], dtype=tokens.dtype, device=tokens.device)
            case "none":
                return tokens
            case _:
                assert_never(self.position)

"""Weight-shared multi-scale temporal transformer, WMS-Trans (thesis section 2.3.4.2, eq. 2.9, 2.10, figure 2.5).

    tokens -> pool time by 1, 2, 4 -> + position -> transformer layers, the same for all -> repeat -> mean

A sequence stands for one place of the token maps. The thesis gives the three lengths, t, t/2 and t/4, and that the
weights are shared; how a scale is made and how the three become one again it leaves open: neighboring times are
averaged, and each time of a coarse scale answers for those that it was averaged from.

Axes: b batch (of places), t times, d channels.
"""

from collections.abc import Sequence
from typing import Literal, assert_never

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from kinema.layers.knn_attention import KNNLayer, eager_on_cpu, knn_block

PACKED = 4_000
"""Tokens, of all scales, up to which the CPU is faster with all at once (benchmarks/knn_attention.py)."""


def sinusoidal_position(
    length: int, dim: int, *, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "{length} {dim}"]:
    """Sines in the even channels (eq. 2.9) and cosines in the odd ones (eq. 2.10), of positions from 0 on."""
    precise = torch.float32 if device.type == "mps" else torch.float64
    frequencies = 10000 ** (torch.arange(0, dim, 2, dtype=precise, device=device) / -dim)
    angles = torch.arange(length, dtype=precise, device=device)[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :dim].to(dtype)


def pooled(tokens: Float[Tensor, "b t d"], scale: int) -> Float[Tensor, "b _ d"]:
    """Means of `scale` times each, the last one of those that are left."""
    whole = tokens.shape[1] // scale * scale
    means = rearrange(tokens[:, :whole], "b (t s) d -> b t s d", s=scale).mean(2)
    if whole == tokens.shape[1]:
        return means
    return torch.cat((means, tokens[:, whole:].mean(1, keepdim=True)), dim=1)


def repeated(tokens: Float[Tensor, "b _ d"], scale: int, *, length: int) -> Float[Tensor, "b {length} d"]:
    """Each time for as many as it was pooled from."""
    return repeat(tokens, "b t d -> b (t s) d", s=scale)[:, :length]


class MultiScaleTemporalTransformer(nn.Module):
    """WMS-Trans: one sequence, seen at several scales by the same transformer layers.

    Args:
        dim: channels of a token.
        layer: what its transformer layers are made of.
        depth: transformer layers.
        scales: times that are averaged into one, for each scale; `(1,)` is the plain transformer, V-Trans of Table 2.6.
        branches: `shared` weights for all scales, or `unshared` ones, a set for each: De+Recouple's, as the control.
        position: `sinusoidal` is added before the first layer and begins with 0 at each scale; or `none`.
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
            raise ValueError(f"scales={scales} must be different whole numbers from 1 on, like (1, 2, 4), or (1,)")
        match branches:
            case "shared":
                sets = 1
            case "unshared":
                sets = len(scales)
            case _:
                assert_never(branches)
        self.depth = depth
        self.scales = scales
        self.branches = branches
        self.position = position
        self.layers = nn.ModuleList(knn_block(dim, layer) for _ in range(sets * depth))

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        scaled = [self._placed(pooled(tokens, scale)) for scale in self.scales]
        few = not eager_on_cpu(tokens) or sum(part.shape[0] * part.shape[1] for part in scaled) <= PACKED
        answers = self.packed(scaled) if few and self.branches == "shared" else self.separate(scaled)
        pairs = zip(answers, self.scales, strict=True)
        return torch.stack([repeated(answer, scale, length=tokens.shape[1]) for answer, scale in pairs]).mean(0)

    def packed(self, scaled: Sequence[Float[Tensor, "b _ d"]]) -> list[Float[Tensor, "b _ d"]]:
        """All scales through shared layers at once: they stand one behind the other, and only attention parts them."""
        lengths = [part.shape[1] for part in scaled]
        tokens = torch.cat(list(scaled), dim=1)
        for layer in self.layers:
            tokens = layer(tokens, lengths)
        return list(torch.split(tokens, lengths, dim=1))

    def separate(self, scaled: Sequence[Float[Tensor, "b _ d"]]) -> list[Float[Tensor, "b _ d"]]:
        """One scale after the other, each through its branch."""
        answers = []
        for number, tokens in enumerate(scaled):
            for layer in self._branch(number):
                tokens = layer(tokens)
            answers.append(tokens)
        return answers

    def _branch(self, number: int) -> list[nn.Module]:
        """The layers that a scale passes through."""
        first = number * self.depth if self.branches == "unshared" else 0
        return list(self.layers)[first : first + self.depth]

    def _placed(self, tokens: Tensor) -> Tensor:
        match self.position:
            case "sinusoidal":
                _, length, dim = tokens.shape
                return tokens + sinusoidal_position(length, dim, dtype=tokens.dtype, device=tokens.device)
            case "none":
                return tokens
            case _:
                assert_never(self.position)

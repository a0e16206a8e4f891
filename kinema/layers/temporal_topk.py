"""Fewer frames on the way through a temporal encoder (thesis section 3.3.5, eq. 3.12 to 3.14).

    Top-K: keep the half of the frames whose rows of the attention map deviate most; their order stays

A frame that attends to a few others is taken for informative, one that attends to all alike is not. The thesis compares
this with max-pooling, average-pooling and a strided convolution; random and uniform frames are controls that it lacks.
The pooling is VidTr's (arXiv:2104.11746); its name is KVT's.

Axes: b batch, h attention heads, t frames, k frames kept, d channels. The class token stands before the frames, and is
always kept.

DEVIATION: eq. 3.13 divides by T outside of the root and sums over the index that it ranks; here sigma is the standard
deviation of a row. The ranking is the same for any factor.
"""

import random
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

Pooling = Literal["top-k", "max", "average", "convolution", "random", "uniform", "none"]
Selection = Literal["top-k", "random", "uniform"]


def kept_count(frames: int) -> int:
    """Half of the frames, rounded down, and at least one."""
    return max(1, frames // 2)


def deviation(scores: Float[Tensor, "b h n n"]) -> Float[Tensor, "b h t"]:
    """Sigma of eq. 3.13: of each frame's row of the map, the class token's column included; at least float32."""
    rows = scores[..., 1:, :]
    return rows.to(torch.promote_types(rows.dtype, torch.float32)).std(-1, correction=0)


def most_deviating(sigma: Float[Tensor, "*batch t"]) -> Int64[Tensor, "*batch k"]:
    """Places of the frames that eq. 3.12 keeps, in the order of time; which of equal ones, is not said."""
    return sigma.topk(kept_count(sigma.shape[-1]), dim=-1).indices.sort(-1).values


def uniform_places(frames: int) -> Int64[Tensor, " k"]:
    """The middles of equal parts."""
    kept = kept_count(frames)
    return ((2 * torch.arange(kept) + 1) * frames // (2 * kept)).long()


def random_places(batch: int, frames: int, *, training: bool) -> Int64[Tensor, "b k"]:
    """Any frames, in the order of time: others for each clip in training, the same ones at every test."""
    if training:
        return torch.rand(batch, frames).topk(kept_count(frames), dim=-1).indices.sort(-1).values
    return torch.tensor(_drawn_once(frames)).expand(batch, -1)


def control_places(
    pool: Pooling, batch: int, frames: int, *, training: bool, device: torch.device
) -> Int64[Tensor, "b 1 k"]:
    """Return the places of the frames that a control keeps: random or uniform."""
    if pool == "random":
        return random_places(batch, frames, training=training)[:, None].to(device)
    return uniform_places(frames).to(device).expand(batch, 1, -1)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch has no types for it
def _drawn_once(frames: int) -> list[int]:
    """The same places wherever it is asked, in a compiled or exported network too."""
    return sorted(random.Random(0).sample(range(frames), kept_count(frames)))


def gather_frames(tokens: Float[Tensor, "b n d"], places: Int64[Tensor, "b h k"]) -> Float[Tensor, "b k+1 d"]:
    """The class token and the frames at these places; with several attention heads, each its own share of channels."""
    apart = rearrange(tokens, "b n (h c) -> b h n c", h=places.shape[1])
    index = F.pad(places + 1, (1, 0))[..., None].expand(-1, -1, -1, apart.shape[-1])
    return rearrange(apart.gather(2, index), "b h n c -> b n (h c)")


def rows_at(
    table: Float[Tensor, "batch _ n n"] | Int64[Tensor, "batch _ n n"], places: Int64[Tensor, "batch _ k"]
) -> Float[Tensor, "batch _ m n"] | Int64[Tensor, "batch _ m n"]:
    """The class token's row and those of the frames at these places."""
    heads = max(table.shape[1], places.shape[1])
    index = F.pad(places + 1, (1, 0)).expand(-1, heads, -1)[..., None].expand(-1, -1, -1, table.shape[-1])
    return table.expand(-1, heads, -1, -1).gather(2, index)


def frames_at(times: Int64[Tensor, "batch _ t"], places: Int64[Tensor, "batch _ k"]) -> Int64[Tensor, "batch _ k"]:
    """The numbers of the frames at these places."""
    heads = max(times.shape[1], places.shape[1])
    return times.expand(-1, heads, -1).gather(-1, places.expand(-1, heads, -1))


class FramePooling(nn.Module):
    """The strategies that every frame gets the same treatment by: max, average, strided convolution (Table 3.4).

    Args:
        kind: which.
        dim: channels of a token.
    """

    def __init__(self, kind: Literal["max", "average", "convolution"], dim: int) -> None:
        super().__init__()
        self.kind = kind
        self.convolution = nn.Conv1d(dim, dim, 3, stride=2, padding=1) if kind == "convolution" else None

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b m d"]:
        """Half of the frames; the class token stays as it is.

        Raises:
            ValueError: there is a single frame, and two are needed for one.
        """
        first, frames = tokens[:, :1], tokens[:, 1:].transpose(1, 2)
        if self.kind != "convolution" and frames.shape[-1] < 2:
            raise ValueError(f"{self.kind} pooling makes one frame of two, but there is a single one; take more frames")
        match self.kind:
            case "max":
                pooled = F.max_pool1d(frames, 2)
            case "average":
                pooled = F.avg_pool1d(frames, 2)
            case "convolution":
                assert self.convolution is not None
                pooled = self.convolution(frames)
            case _:
                assert_never(self.kind)
        return torch.cat((first, pooled.transpose(1, 2)), dim=1)

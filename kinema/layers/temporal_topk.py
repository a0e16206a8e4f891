"""Temporal subsampling inside a transformer (thesis section 3.3.5, eq. 3.12 to 3.14).

    Top-K: keep the half of the frames whose attention rows have the largest standard deviation, in temporal order

A frame that attends to a few others is considered informative; one that attends to all alike is not. The thesis
compares this with max pooling, average pooling and a strided convolution. Selecting random or uniform frames is an
additional control. The pooling is from VidTr (arXiv:2104.11746), its name from KVT (arXiv:2106.00515).

Axes: b batch, h attention heads, t frames, k kept frames, d channels. The class token is first and always kept.

DEVIATION: eq. 3.13 divides by T outside the root and sums over the index that it ranks. Here sigma is the standard
deviation of a row; any factor gives the same ranking.
"""

import random
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

TIE, TIE_SHARE = 1e-7, 1e-6
"""Values of sigma are equal if they differ by at most this and this share of the largest: about ten rounding errors."""

Pooling = Literal["top-k", "max", "average", "convolution", "random", "uniform", "none"]


def num_kept(frames: int) -> int:
    """Return half the number of frames, rounded down, and at least 1."""
    return max(1, frames // 2)


def attention_std(scores: Float[Tensor, "b h n n"]) -> Float[Tensor, "b h t"]:
    """Return sigma of eq. 3.13: the standard deviation of each frame's attention row, in float32 or wider.

    The class token has no row in the result, but its column counts.
    """
    rows = scores[..., 1:, :]
    return rows.to(torch.promote_types(rows.dtype, torch.float32)).std(-1, correction=0)


def top_frames(sigma: Float[Tensor, "*batch t"]) -> Int64[Tensor, "*batch k"]:
    """Return the frames with the largest sigma (eq. 3.12) in temporal order, of equal ones the first.

    Equal frames, as in a still or a short video, have equal sigma up to rounding, which differs between batch sizes and
    devices. Neighbors in the order of sigma that differ by rounding count as equal.
    """
    frames = sigma.shape[-1]
    ranked = sigma.sort(dim=-1, descending=True).values
    below = ranked[..., 1:]
    is_gap = ranked[..., :-1] - below > TIE + TIE_SHARE * ranked[..., :1]
    num_gaps_above = (is_gap[..., None, :] & (below[..., None, :] >= sigma[..., None])).sum(-1)
    order = num_gaps_above * frames + torch.arange(frames, device=sigma.device)
    return order.topk(num_kept(frames), dim=-1, largest=False).indices.sort(-1).values


def uniform_frames(frames: int) -> Int64[Tensor, " k"]:
    """Return the middle frame of each of k equal parts."""
    kept = num_kept(frames)
    return ((2 * torch.arange(kept) + 1) * frames // (2 * kept)).long()


def random_frames(batch: int, frames: int, *, training: bool) -> Int64[Tensor, "b k"]:
    """Return random frames in temporal order: new ones per clip in training, a fixed set in evaluation."""
    if training:
        return torch.rand(batch, frames).topk(num_kept(frames), dim=-1).indices.sort(-1).values
    return torch.tensor(_fixed_frames(frames)).expand(batch, -1)


def control_frames(
    pool: Pooling, batch: int, frames: int, *, training: bool, device: torch.device
) -> Int64[Tensor, "b 1 k"]:
    """Return the frames that a control keeps: random or uniform."""
    if pool == "random":
        return random_frames(batch, frames, training=training)[:, None].to(device)
    return uniform_frames(frames).to(device).expand(batch, 1, -1)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch has no types for it
def _fixed_frames(frames: int) -> list[int]:
    """Return the same random frames in every process, also in a compiled or exported network."""
    return sorted(random.Random(0).sample(range(frames), num_kept(frames)))


def gather_frames(tokens: Float[Tensor, "b n d"], frames: Int64[Tensor, "b h k"]) -> Float[Tensor, "b k+1 d"]:
    """Return the class token and the selected frames. With a row of `frames` per head, each head selects for itself."""
    by_head = rearrange(tokens, "b n (h c) -> b h n c", h=frames.shape[1])
    index = F.pad(frames + 1, (1, 0))[..., None].expand(-1, -1, -1, by_head.shape[-1])
    return rearrange(by_head.gather(2, index), "b h n c -> b n (h c)")


def gather_rows(
    table: Float[Tensor, "batch _ n n"] | Int64[Tensor, "batch _ n n"], frames: Int64[Tensor, "batch _ k"]
) -> Float[Tensor, "batch _ m n"] | Int64[Tensor, "batch _ m n"]:
    """Return the rows of the class token and of the selected frames."""
    heads = max(table.shape[1], frames.shape[1])
    index = F.pad(frames + 1, (1, 0)).expand(-1, heads, -1)[..., None].expand(-1, -1, -1, table.shape[-1])
    return table.expand(-1, heads, -1, -1).gather(2, index)


def gather_times(times: Int64[Tensor, "batch _ t"], frames: Int64[Tensor, "batch _ k"]) -> Int64[Tensor, "batch _ k"]:
    """Return the frame numbers of the selected frames."""
    heads = max(times.shape[1], frames.shape[1])
    return times.expand(-1, heads, -1).gather(-1, frames.expand(-1, heads, -1))


class FramePooling(nn.Module):
    """Pooling of neighboring frames: max, average, or strided convolution (Table 3.4).

    DEVIATION: kernel 3 and padding 1 of the convolution are ours; section 3.3.5 gives only its stride. Kernel 2 has no
    padding and sees the pairs of frames that max pooling sees.
    """

    def __init__(self, kind: Literal["max", "average", "convolution"], dim: int, *, kernel: Literal[2, 3] = 3) -> None:
        super().__init__()
        self.kind = kind
        self.min_frames = 1 if kind == "convolution" and kernel == 3 else 2
        self.convolution = nn.Conv1d(dim, dim, kernel, stride=2, padding=kernel // 3) if kind == "convolution" else None

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b m d"]:
        """Return the class token and half of the frames.

        Raises:
            ValueError: A single frame, and the kernel needs two.
        """
        first, frames = tokens[:, :1], tokens[:, 1:].transpose(1, 2)
        if frames.shape[-1] < self.min_frames:
            raise ValueError(f"{self.kind} pooling needs at least 2 frames; got 1")
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

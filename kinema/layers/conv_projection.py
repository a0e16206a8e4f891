"""Depth-wise convolutional mapping of tokens to queries, keys and values (thesis section 4.3.4, eq. 4.6, figure 4.4).

    tokens -> token maps -> depth-wise k x k -> BatchNorm -> point-wise -> tokens        (three times: q, k, v)

Eq. 4.6 says `Reshaped 2d`: a clip of several token times is so many maps, its times are folded into the batch and no
two of them mix. The thesis does not say what becomes of the class token, which stands on no map: as in CvT
(arXiv:2103.15808) it bypasses the depth-wise part and passes through the same point-wise weights. Those have the
shape of ViT's own linear layers, and at the start the depth-wise part hands its input through, so that with ViT's
weights the mapping is ViT's, in evaluation exactly.

Axes: b batch, n tokens (the class token first, then t, h, w in this order), c channels, k kernel.
"""

import copy
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kinema.layers.transformer import Grid, Rows, Start, init_weights, select_rows

QueryKeyValue = tuple[Float[Tensor, "batch m dim"], Float[Tensor, "batch n dim"], Float[Tensor, "batch n dim"]]


def to_maps(patches: Float[Tensor, "batch patches dim"], grid: Grid) -> Float[Tensor, "frames dim height width"]:
    """`Reshaped 2d` of eq. 4.6, with time folded into the batch."""
    times, rows, columns = grid
    return rearrange(patches, "b (t h w) c -> (b t) c h w", t=times, h=rows, w=columns)


def to_tokens(maps: Float[Tensor, "frames dim height width"], grid: Grid) -> Float[Tensor, "batch patches dim"]:
    """`Flatten` of eq. 4.6."""
    return rearrange(maps, "(b t) c h w -> b (t h w) c", t=grid[0])


class SeparableConvolution(nn.Module):
    """Depthwise Conv -> BatchNorm -> Pointwise Conv, for one of query, key and value.

    Args:
        dim: channels in and out.
        kernel: side of the depth-wise kernel.
        norm: `none` leaves BatchNorm out and gives the convolution a bias in its place (Table 4.6).
        padding: what lies outside a map. Zeros tell a token how near the border it is; `circular` does not, and is the
            control for the claim that no positional embedding is needed (section 4.4.3).
    """

    def __init__(
        self, dim: int, *, kernel: int, norm: Literal["batch", "none"], padding: Literal["zeros", "circular"]
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            dim, dim, kernel, padding=kernel // 2, groups=dim, bias=norm == "none", padding_mode=padding
        )
        self.norm = nn.BatchNorm2d(dim) if norm == "batch" else nn.Identity()
        self.pointwise = nn.Linear(dim, dim)
        self.reset_depthwise()

    def reset_depthwise(self) -> None:
        """Makes the depth-wise part the identity of evaluation: the center tap alone, and a gain that undoes eps."""
        nn.init.zeros_(self.depthwise.weight)
        with torch.no_grad():
            self.depthwise.weight[:, :, self.depthwise.kernel_size[0] // 2, self.depthwise.kernel_size[1] // 2] = 1
        if self.depthwise.bias is not None:
            nn.init.zeros_(self.depthwise.bias)
        if isinstance(self.norm, nn.BatchNorm2d):
            self.norm.reset_parameters()
            nn.init.constant_(self.norm.weight, (1 + self.norm.eps) ** 0.5)

    def init_weights(self, start: Start) -> None:
        """Set the depth-wise part to the identity, or from scratch to random kernels; then the point-wise part."""
        self.reset_depthwise()
        if start == "scratch":
            self.depthwise.reset_parameters()
        init_weights(self.pointwise, start)

    def forward(self, tokens: Float[Tensor, "batch n dim"], grid: Grid) -> Float[Tensor, "batch n dim"]:
        maps = self.norm(self.depthwise(to_maps(tokens[:, 1:], grid)))
        mapped: Tensor = self.pointwise(torch.cat((tokens[:, :1], to_tokens(maps, grid)), dim=1))
        return mapped

    def class_row(self, tokens: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch 1 dim"]:
        """`forward` of the class token alone, which bypasses the depth-wise part.

        In training that part is looked at all the same, without effect: processes that learn together wait for a
        gradient of every parameter, if only zero.
        """
        mapped: Tensor = self.pointwise(tokens[:, :1])
        if torch.is_grad_enabled():
            for parameter in (*self.depthwise.parameters(), *self.norm.parameters()):
                mapped = mapped + 0 * parameter.sum()
        return mapped


class ConvolutionalMapping(nn.Module):
    """Queries, keys and values by a depth-wise separable convolution each (eq. 4.6)."""

    def __init__(
        self, dim: int, *, kernel: int, norm: Literal["batch", "none"], padding: Literal["zeros", "circular"]
    ) -> None:
        super().__init__()
        self.query = SeparableConvolution(dim, kernel=kernel, norm=norm, padding=padding)
        self.key = SeparableConvolution(dim, kernel=kernel, norm=norm, padding=padding)
        self.value = SeparableConvolution(dim, kernel=kernel, norm=norm, padding=padding)

    def forward(self, tokens: Float[Tensor, "batch n dim"], grid: Grid, rows: Rows = "all") -> QueryKeyValue:
        query = self.query.class_row(tokens) if rows == "class" else self.query(tokens, grid)
        return query, self.key(tokens, grid), self.value(tokens, grid)

    def folded(self) -> "FoldedConvolutionalMapping":
        return FoldedConvolutionalMapping(self.query, self.key, self.value)


class FoldedConvolutionalMapping(nn.Module):
    """`ConvolutionalMapping` for evaluation: BatchNorm folded, and one depth-wise convolution instead of three.

    It sees each map three times, for the kernels of query, key and value. A convolution with three outputs a channel
    would see it once, but is slower, and what it gives would have to be put in order (`benchmarks/ctn.py`).
    """

    def __init__(self, query: SeparableConvolution, key: SeparableConvolution, value: SeparableConvolution) -> None:
        super().__init__()
        self.query, self.key, self.value = (copy.deepcopy(part.pointwise) for part in (query, key, value))
        parts = [_without_norm(part) for part in (query, key, value)]
        first, channels = parts[0], sum(part.out_channels for part in parts)
        self.depthwise = nn.Conv2d(
            channels,
            channels,
            first.kernel_size[0],
            padding=first.kernel_size[0] // 2,
            groups=channels,
            padding_mode=first.padding_mode,
            device=first.weight.device,
            dtype=first.weight.dtype,
        )
        with torch.no_grad():
            self.depthwise.weight.copy_(torch.cat([part.weight for part in parts]))
            assert self.depthwise.bias is not None
            self.depthwise.bias.copy_(torch.cat([part.bias for part in parts if part.bias is not None]))
        self.eval()

    def forward(self, tokens: Float[Tensor, "batch n dim"], grid: Grid, rows: Rows = "all") -> QueryKeyValue:
        maps = self.depthwise(to_maps(tokens[:, 1:].repeat(1, 1, 3), grid))
        query, key, value = (
            torch.cat((tokens[:, :1], patches), dim=1) for patches in to_tokens(maps, grid).chunk(3, dim=-1)
        )
        return self.query(select_rows(query, rows)), self.key(key), self.value(value)


def _without_norm(part: SeparableConvolution) -> nn.Conv2d:
    """The depth-wise convolution with the statistics and the gain of its BatchNorm in weight and bias."""
    if isinstance(part.norm, nn.BatchNorm2d):
        return fuse_conv_bn_eval(copy.deepcopy(part.depthwise).eval(), copy.deepcopy(part.norm).eval())
    return part.depthwise

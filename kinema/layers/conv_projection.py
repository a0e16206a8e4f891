"""Depth-wise convolutional mapping of tokens to queries, keys and values (thesis section 4.3.4, eq. 4.6, figure 4.4).

    tokens -> token maps -> depth-wise k x k -> BatchNorm -> point-wise -> tokens        (once each for q, k, v)

Eq. 4.6 says `Reshaped 2d`: token times are folded into the batch, so that maps of different times do not mix. The
thesis does not say what happens to the class token, which has no location on a map. As in CvT (arXiv:2103.15808), it
bypasses the depth-wise part and passes through the same point-wise layer. The point-wise layers have the shape of ViT's
linear layers, and the depth-wise part is initialized to the identity: with ViT's weights, the mapping equals ViT's in
evaluation mode.

DEVIATION: section 4.3.4 ends with tokens "flattened and projected into the initial dimension". This is read as the
point-wise layer, which alone fits the printed size; `projection="extra"` is another linear layer after it, 21.3 M
parameters more in CTN-Base.

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

Projection = Literal["pointwise", "extra"]
QueryKeyValue = tuple[Float[Tensor, "batch m dim"], Float[Tensor, "batch n dim"], Float[Tensor, "batch n dim"]]


def to_maps(patches: Float[Tensor, "batch patches dim"], grid: Grid) -> Float[Tensor, "frames dim height width"]:
    """Return the patch tokens as maps with time folded into the batch: `Reshaped 2d` of eq. 4.6."""
    times, rows, columns = grid
    return rearrange(patches, "b (t h w) c -> (b t) c h w", t=times, h=rows, w=columns)


def to_tokens(maps: Float[Tensor, "frames dim height width"], grid: Grid) -> Float[Tensor, "batch patches dim"]:
    """Return maps as patch tokens: `Flatten` of eq. 4.6."""
    return rearrange(maps, "(b t) c h w -> b (t h w) c", t=grid[0])


class SeparableConvolution(nn.Module):
    """Depth-wise convolution -> BatchNorm -> point-wise layer, for one of query, key and value.

    Args:
        dim: Channels of input and output.
        kernel: Side of the depth-wise kernel.
        norm: `none` replaces BatchNorm with a bias of the convolution (Table 4.6).
        padding: Padding of the maps. Zeros reveal where the border is; `circular`, which does not, is the control for
            the claim that no positional embedding is needed (section 4.4.3).
        projection: `extra` adds a linear layer after the point-wise one, initialized to the identity.
    """

    def __init__(
        self,
        dim: int,
        *,
        kernel: int,
        norm: Literal["batch", "none"],
        padding: Literal["zeros", "circular"],
        projection: Projection = "pointwise",
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            dim, dim, kernel, padding=kernel // 2, groups=dim, bias=norm == "none", padding_mode=padding
        )
        self.norm = nn.BatchNorm2d(dim) if norm == "batch" else nn.Identity()
        self.pointwise = nn.Linear(dim, dim)
        self.projection = nn.Linear(dim, dim) if projection == "extra" else nn.Identity()
        self.reset_depthwise()

    def reset_depthwise(self) -> None:
        """Set the depth-wise part to the identity in evaluation: a center tap of 1, and a gain that cancels eps."""
        nn.init.dirac_(self.depthwise.weight, groups=self.depthwise.groups)
        if self.depthwise.bias is not None:
            nn.init.zeros_(self.depthwise.bias)
        if isinstance(self.norm, nn.BatchNorm2d):
            self.norm.reset_parameters()
            nn.init.constant_(self.norm.weight, (1 + self.norm.eps) ** 0.5)

    def init_weights(self, start: Start) -> None:
        """Initialize all but the point-wise layer to the identity, or from scratch to random weights."""
        self.reset_depthwise()
        if start == "scratch":
            self.depthwise.reset_parameters()
        init_weights(self.pointwise, start)
        init_weights(self.projection, start)
        if start == "vit" and isinstance(self.projection, nn.Linear):
            nn.init.eye_(self.projection.weight)

    def forward(self, tokens: Float[Tensor, "batch n dim"], grid: Grid) -> Float[Tensor, "batch n dim"]:
        """Return the mapped tokens."""
        maps = self.norm(self.depthwise(to_maps(tokens[:, 1:], grid)))
        mapped: Tensor = self.mixing(torch.cat((tokens[:, :1], to_tokens(maps, grid)), dim=1))
        return mapped

    @property
    def mixing(self) -> nn.Module:
        """Layers over the channels of each token: the point-wise one, and the extra projection if there is one."""
        extra = isinstance(self.projection, nn.Linear)
        return nn.Sequential(self.pointwise, self.projection) if extra else self.pointwise

    def class_row(self, tokens: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch 1 dim"]:
        """Return the mapped class token, which bypasses the depth-wise part.

        Unused parameters get zero gradients, because DDP waits for the gradient of every parameter.
        """
        mapped: Tensor = self.mixing(tokens[:, :1])
        if torch.is_grad_enabled():
            for parameter in (*self.depthwise.parameters(), *self.norm.parameters()):
                mapped = mapped + 0 * parameter.sum()
        return mapped


class ConvolutionalMapping(nn.Module):
    """Queries, keys and values, each by a depth-wise separable convolution (eq. 4.6)."""

    def __init__(
        self,
        dim: int,
        *,
        kernel: int,
        norm: Literal["batch", "none"],
        padding: Literal["zeros", "circular"],
        projection: Projection = "pointwise",
    ) -> None:
        super().__init__()
        self.query, self.key, self.value = (
            SeparableConvolution(dim, kernel=kernel, norm=norm, padding=padding, projection=projection)
            for _ in range(3)
        )

    def forward(self, tokens: Float[Tensor, "batch n dim"], grid: Grid, rows: Rows = "all") -> QueryKeyValue:
        """Return the queries of the selected rows, and all keys and values."""
        query = self.query.class_row(tokens) if rows == "class" else self.query(tokens, grid)
        return query, self.key(tokens, grid), self.value(tokens, grid)

    def folded(self) -> "FoldedConvolutionalMapping":
        """Return an equivalent for evaluation."""
        return FoldedConvolutionalMapping(self.query, self.key, self.value)


class FoldedConvolutionalMapping(nn.Module):
    """`ConvolutionalMapping` for evaluation: BatchNorm folded, and one depth-wise convolution instead of three.

    The maps are repeated three times, for the kernels of query, key and value. A convolution with three outputs per
    channel needs no copies, but is slower and needs its outputs reordered (`benchmarks/ctn.py`).
    """

    def __init__(self, query: SeparableConvolution, key: SeparableConvolution, value: SeparableConvolution) -> None:
        super().__init__()
        self.query, self.key, self.value = (copy.deepcopy(part.mixing) for part in (query, key, value))
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
        """Return the queries of the selected rows, and all keys and values."""
        maps = self.depthwise(to_maps(tokens[:, 1:].repeat(1, 1, 3), grid))
        query, key, value = (
            torch.cat((tokens[:, :1], patches), dim=1) for patches in to_tokens(maps, grid).chunk(3, dim=-1)
        )
        return self.query(select_rows(query, rows)), self.key(key), self.value(value)


def _without_norm(part: SeparableConvolution) -> nn.Conv2d:
    """Return the depth-wise convolution with BatchNorm folded into weight and bias."""
    if isinstance(part.norm, nn.BatchNorm2d):
        return fuse_conv_bn_eval(copy.deepcopy(part.depthwise).eval(), copy.deepcopy(part.norm).eval())
    return part.depthwise

"""Inception modules of I3D (arXiv:1705.07750) with kernels over single frames (thesis section 2.3.4.1).

Axes: b batch, c channels in, d channels out, t frames, h w rows and columns; (b t) frames folded into the batch.
"""

import copy
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kinema.layers.central_difference import CentralDifferenceConv3d

BATCH_NORM_EPS = 1e-3
"""Epsilon of I3D's BatchNorms."""

InceptionPool = Literal["spatial", "spatiotemporal"]


def channels_last(clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
    """Return the clip in channels-last memory format, in which pooling on CPU takes a tenth of the time.

    torch detects the format by the strides, which `contiguous` leaves as they are if there is one channel.
    """
    if clip.shape[1] == 1:
        return clip.squeeze(1).unsqueeze(-1).movedim(-1, 1)
    return clip.contiguous(memory_format=torch.channels_last_3d)


class ConvolutionNorm(nn.Module):
    """ReLU(BN(convolution)), 2D or 3D; without ReLU for a shortcut."""

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d, *, activation: Literal["relu", "none"] = "relu") -> None:
        super().__init__()
        norm = nn.BatchNorm3d if isinstance(convolution, nn.Conv3d) else nn.BatchNorm2d
        self.convolution = convolution
        self.norm: nn.Module = norm(convolution.out_channels, eps=BATCH_NORM_EPS)
        self.activation = activation

    def forward(self, maps: Float[Tensor, "b c *places"]) -> Float[Tensor, "b d *_"]:
        """Return the activated maps."""
        maps = self.norm(self.convolution(maps))
        return F.relu(maps, inplace=True) if self.activation == "relu" else maps

    def folded(self) -> "ConvolutionNorm":
        """Return an equivalent for evaluation, with BatchNorm and central differences in one biased convolution."""
        folded = copy.deepcopy(self).eval()
        assert isinstance(folded.norm, nn.BatchNorm2d | nn.BatchNorm3d)
        if isinstance(folded.convolution, CentralDifferenceConv3d):
            folded.convolution = folded.convolution.folded()
        folded.convolution = fuse_conv_bn_eval(folded.convolution, folded.norm)
        folded.norm = nn.Identity()
        return folded


class Inception(nn.Module):
    """Inception module of I3D with 1 x k x k kernels, which see each frame alone (section 2.3.4.1).

    The three 1 x 1 convolutions of the input are computed as one, whose channels are then split. `widths` are the
    channels of the branches, as in `INCEPTIONS` of kinema.models.mfst.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], *, pool: InceptionPool) -> None:
        super().__init__()
        alone, middle_in, middle, small_in, small, pooled = widths
        self.parts = [alone, middle_in, small_in]
        self.channels = alone + middle + small + pooled
        self.single = ConvolutionNorm(nn.Conv2d(channels, sum(self.parts), 1, bias=False))
        self.middle = ConvolutionNorm(nn.Conv2d(middle_in, middle, 3, padding=1, bias=False))
        self.small = ConvolutionNorm(nn.Conv2d(small_in, small, 3, padding=1, bias=False))
        self.pool = pool
        self.pooled = ConvolutionNorm(nn.Conv2d(channels, pooled, 1, bias=False))

    def forward(self, maps: Float[Tensor, "bt c h w"], frames: int) -> Float[Tensor, "bt d h w"]:
        """Return the concatenated branches."""
        alone, middle, small = torch.split(self.single(maps), self.parts, dim=1)
        match self.pool:
            case "spatial":
                pooled = F.max_pool2d(maps, 3, stride=1, padding=1)
            case "spatiotemporal":
                clips = rearrange(maps, "(b t) c h w -> b c t h w", t=frames)
                pooled = rearrange(F.max_pool3d(clips, 3, stride=1, padding=1), "b c t h w -> (b t) c h w")
            case _:
                assert_never(self.pool)
        return torch.cat((alone, self.middle(middle), self.small(small), self.pooled(pooled)), dim=1)

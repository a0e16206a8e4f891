"""3D central difference convolution (thesis section 2.3.3, eq. 2.3 to 2.6, figure 2.3; the operator is its ref. [28]).

    raw weights -> the difference subtracted from their center taps -> one convolution

All of eq. 2.5 and 2.6 that a plain convolution lacks is a multiple of x(p0), what the kernel's center tap sees: it goes
into that tap, and the operator costs one convolution. The state dict holds the raw weights, those of `nn.Conv3d`; the
fold is linear in them, and autograd passes through it exactly.

Axes: b batch, c channels in, d channels out, t frames, h w pixels; p0 a place, p_n the offset of a tap from it.

What the thesis leaves open, or its reference code (ZitongYu/3DCDC-NAS) does differently:

DEVIATION: p0 is the place under the center tap, so kernels are odd and padding is the same on both sides. I3D's padding
of a 7 x 7 kernel with stride 2 (TF-SAME: 2 before, 3 after) puts the center tap on pixel 2i + 1, where the reference
would subtract pixel 2i.
DEVIATION: taps outside the clip see zero, and x(p0) is subtracted from that as well; the thesis does not speak of the
border. The reference subtracts a second convolution, 1 x 1 x 1 and not padded: equal where the padding is
dilation * (k - 1) / 2, an error where it is not.
DEVIATION: a kernel of one frame follows the equations: 3D-CDC-ST is then 2D CDC, and (1 - theta) w where it is
1 x 1 x 1; 3D-CDC-T has no adjacent frame and is plain. The reference leaves all of them plain.
DEVIATION: T'' of eq. 2.6 is every frame of the kernel but the center one; the reference takes the first and the third,
which is right for three.
DEVIATION: the equations have no bias. One that is asked for is added once; the reference subtracts theta of it again.
"""

import copy
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Operator = Literal["vanilla", "cdc-st", "cdc-t"]
"""The rows of Table 2.4: plain, differences to all taps, differences to the taps of adjacent frames."""


class CentralDifferenceConv3d(nn.Conv3d):
    """3D-CDC-ST (eq. 2.5) and 3D-CDC-T (eq. 2.6), with the parameters of an `nn.Conv3d`.

    It keeps the memory format of its input, as `nn.Conv3d` does. At the sizes of the stem channels_last_3d is faster
    (benchmarks/central_difference.py): a network puts its clip into it once, in front.

    Args:
        operator: `vanilla` is eq. 2.3.
        theta: share of the differences, in [0, 1]; the best of Table 2.4 unless told otherwise. It is fixed, not
            learned, and means nothing to `vanilla`.
        bias: added once. A BatchNorm behind the convolution makes it superfluous.

    The others are those of `nn.Conv3d`; each extent of the kernel must be odd.
    """

    kernel_size: tuple[int, int, int]  # less is known of what nn.Conv3d takes
    stride: tuple[int, int, int]
    padding: tuple[int, int, int]
    dilation: tuple[int, int, int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        *,
        operator: Operator,
        theta: float = 0.6,
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] = 0,
        dilation: int | tuple[int, int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        for axis, extent in zip("thw", self.kernel_size, strict=True):
            if extent % 2 == 0:
                raise ValueError(
                    f"CentralDifferenceConv3d: kernel {axis}={extent} has no center tap; "
                    f"an odd one has: {extent - 1} or {extent + 1}"
                )
        if not 0 <= theta <= 1:
            raise ValueError(f"CentralDifferenceConv3d: theta={theta} is not in [0, 1]")
        self.operator: Operator = operator
        self.theta = theta

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d times rows columns"]:
        weight = self.folded_weight()
        return F.conv3d(clip, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def folded_weight(self) -> Float[Tensor, "d group_channels kt kh kw"]:
        """The weights with which a plain convolution is this operator: the center taps less theta times a sum of taps.

        The sum may be much larger than what is left of a center tap, so that the fold is done in float32 at least, and
        rounded once. Autocast leaves it there: parameters are float32, and only the convolution is cast.
        """
        if self.operator == "vanilla" or self.theta == 0:
            return self.weight
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        times, rows, columns = (extent // 2 for extent in self.kernel_size)
        match self.operator:
            case "cdc-st":
                taps = weight.sum((2, 3, 4), keepdim=True)  # eq. 2.5; of the center tap too
            case "cdc-t":
                before, after = weight[:, :, :times], weight[:, :, times + 1 :]
                taps = before.sum((2, 3, 4), keepdim=True) + after.sum((2, 3, 4), keepdim=True)  # eq. 2.6, T''
            case _:
                assert_never(self.operator)
        at_center = F.pad(self.theta * taps, (columns, columns, rows, rows, times, times))
        return (weight - at_center).to(self.weight.dtype)

    def folded(self, norm: nn.BatchNorm3d | None = None) -> nn.Conv3d:
        """The plain convolution that this one is once it no longer learns.

        Args:
            norm: the BatchNorm behind it, for its statistics and its gain to be folded in as well. Only the module that
                holds both can tell: its own `folded` passes it here.
        """
        plain = nn.Conv3d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            bias=self.bias is not None,
            device="meta",  # draws no random numbers
            dtype=self.weight.dtype,
        )
        plain = plain.to_empty(device=self.weight.device).eval()
        with torch.no_grad():
            plain.weight.copy_(self.folded_weight())
            if self.bias is not None and plain.bias is not None:
                plain.bias.copy_(self.bias)
        return plain if norm is None else fuse_conv_bn_eval(plain, copy.deepcopy(norm).eval())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, operator={self.operator}, theta={self.theta}"  # type: ignore[no-untyped-call]  # torch's own

"""3D central difference convolution (thesis section 2.3.3, eq. 2.3 to 2.6, figure 2.3; the operator is its ref. [28]).

    raw weights -> subtract theta times a sum of taps from the center tap -> one convolution

The difference terms of eq. 2.5 and 2.6 are multiples of x(p0), the input of the kernel's center tap, so they fold into
that tap and the operator costs one convolution. The state dict holds the raw weights of `nn.Conv3d`. The fold is
linear in them, so that autograd through it is exact.

Axes: b batch, c channels in, d channels out, t frames, h w pixels; p0 a location, p_n the offset of a tap from it.

DEVIATION: p0 lies under the center tap, so kernels are odd and padding is symmetric. With I3D's padding of a 7 x 7
kernel with stride 2 (TF-SAME: 2 before, 3 after), the center tap lies on pixel 2i + 1, where the reference code
(ZitongYu/3DCDC-NAS) would subtract pixel 2i.
DEVIATION: zero padding takes part in the differences: x(p0) is subtracted from it, too. The thesis does not mention
the border. The reference subtracts a second, unpadded 1 x 1 x 1 convolution, which gives the same for padding
dilation * (k - 1) / 2 and fails for any other.
DEVIATION: kernels of one frame follow the equations: 3D-CDC-ST becomes 2D CDC, and (1 - theta) w for 1 x 1 x 1;
3D-CDC-T has no adjacent frames and becomes a plain convolution. In the reference all of them are plain.
DEVIATION: T'' of eq. 2.6 is every frame of the kernel but the center one. The reference takes the first and the third,
which is correct only for kernels of three frames.
DEVIATION: the equations have no bias. Here it is added once; the reference then subtracts theta times the bias.
"""

from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Operator = Literal["vanilla", "cdc-st", "cdc-t"]
"""Rows of Table 2.4: plain, differences to all taps, differences to the taps of adjacent frames."""


class CentralDifferenceConv3d(nn.Conv3d):
    """3D-CDC-ST (eq. 2.5) and 3D-CDC-T (eq. 2.6), with the parameters of an `nn.Conv3d`.

    Keeps the memory format of its input, as `nn.Conv3d` does. channels_last_3d is faster at the sizes of the stem
    (benchmarks/central_difference.py).

    `operator="vanilla"` is the plain convolution of eq. 2.3. `theta` is the fixed weight of the differences, in [0, 1],
    and is ignored by `vanilla`; 0.6 is the best of Table 2.4. Every kernel size must be odd. A bias is redundant before
    BatchNorm. The other arguments are those of `nn.Conv3d`.
    """

    kernel_size: tuple[int, int, int]  # narrows the types of nn.Conv3d
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
        )
        for axis, length in zip("thw", self.kernel_size, strict=True):
            if length % 2 == 0:
                raise ValueError(
                    f"CentralDifferenceConv3d: kernel {axis}={length} has no center tap; "
                    f"expected an odd size, like {length - 1} or {length + 1}"
                )
        if not 0 <= theta <= 1:
            raise ValueError(f"CentralDifferenceConv3d: theta={theta} is not in [0, 1]")
        self.operator: Operator = operator
        self.theta = theta

    def forward(self, clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d times rows columns"]:
        """Return the feature maps."""
        weight = self.folded_weight()
        return F.conv3d(clip, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def folded_weight(self) -> Float[Tensor, "d group_channels kt kh kw"]:
        """Return the weights of the equivalent plain convolution.

        The subtracted sum may far exceed the center tap, so the fold runs in float32 or wider and is rounded once.
        Autocast does not change that: parameters are float32, and only the convolution is cast.
        """
        if self.operator == "vanilla" or self.theta == 0:
            return self.weight
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        times, rows, columns = (length // 2 for length in self.kernel_size)
        match self.operator:
            case "cdc-st":
                taps = weight.sum((2, 3, 4), keepdim=True)  # eq. 2.5, center tap included
            case "cdc-t":
                before, after = weight[:, :, :times], weight[:, :, times + 1 :]
                taps = before.sum((2, 3, 4), keepdim=True) + after.sum((2, 3, 4), keepdim=True)  # eq. 2.6, T''
            case _:
                assert_never(self.operator)
        at_center = F.pad(self.theta * taps, (columns, columns, rows, rows, times, times))
        return (weight - at_center).to(self.weight.dtype)

    def folded(self) -> nn.Conv3d:
        """Return the equivalent plain convolution for evaluation."""
        shape = self.in_channels, self.out_channels, self.kernel_size
        plain = nn.Conv3d(*shape, self.stride, self.padding, self.dilation, self.groups, device="meta")
        plain.weight = nn.Parameter(self.folded_weight().detach().clone())
        plain.bias = None if self.bias is None else nn.Parameter(self.bias.detach().clone())
        return plain.eval()

    def extra_repr(self) -> str:
        """Return the settings shown by `print(module)`."""
        return f"{super().extra_repr()}, operator={self.operator}, theta={self.theta}"  # type: ignore[no-untyped-call]  # torch's own

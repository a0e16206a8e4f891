"""3D central difference convolution (thesis section 2.3.3, eq. 2.3 to 2.6, figure 2.3; the operator is its ref. [28]).

    raw weights -> center taps minus theta times a sum of taps -> one convolution

The difference terms of eq. 2.5 and 2.6 are multiples of x(p0), the input of the kernel's center tap, so they fold into
that tap and the operator costs one convolution. The state dict holds the raw weights of `nn.Conv3d`. The fold is
linear in them, so that autograd through it is exact.

Axes: b batch, c channels in, d channels out, t frames, h w pixels; p0 a place, p_n the offset of a tap from it.

DEVIATION: p0 is the place under the center tap, so kernels are odd and padding is symmetric. I3D's padding of a 7 x 7
kernel with stride 2 (TF-SAME: 2 before, 3 after) puts the center tap on pixel 2i + 1, where the reference code
(ZitongYu/3DCDC-NAS) would subtract pixel 2i.
DEVIATION: taps outside the clip see zero, and x(p0) is subtracted from that as well; the thesis does not mention the
border. The reference subtracts a second convolution, 1 x 1 x 1 without padding: equal for padding
dilation * (k - 1) / 2, an error otherwise.
DEVIATION: a kernel of one frame follows the equations: 3D-CDC-ST is then 2D CDC, and (1 - theta) w for 1 x 1 x 1;
3D-CDC-T has no adjacent frame and is plain. The reference leaves all of them plain.
DEVIATION: T'' of eq. 2.6 is every frame of the kernel but the center one. The reference takes the first and the third,
which is correct for three.
DEVIATION: the equations have no bias. A bias is added once; the reference subtracts theta times the bias again.
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

    `operator` `vanilla` is eq. 2.3. `theta` is the weight of the differences, in [0, 1]: not learned, and ignored by
    `vanilla`; 0.6 is the best of Table 2.4. The other arguments are those of `nn.Conv3d`. Each side of the kernel must
    be odd. A bias is superfluous before BatchNorm.
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
        """Return the maps, by one convolution."""
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
        plain: nn.Conv3d = nn.utils.skip_init(  # type: ignore[no-untyped-call]  # torch has no types for it
            nn.Conv3d,
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            bias=self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        with torch.no_grad():
            plain.weight.copy_(self.folded_weight())
            if self.bias is not None and plain.bias is not None:
                plain.bias.copy_(self.bias)
        return plain.eval()

    def extra_repr(self) -> str:
        """Return the settings shown by `print(module)`."""
        return f"{super().extra_repr()}, operator={self.operator}, theta={self.theta}"  # type: ignore[no-untyped-call]  # torch's own

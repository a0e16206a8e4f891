"""Central differences equal eq. 2.3 to 2.6 as sums over taps and torch's convolutions, also when folded."""

import copy

import pytest
import torch
import torch.nn.functional as F
from reference import reference_central_difference
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from kinema.layers.central_difference import CentralDifferenceConv3d
from kinema.layers.folding import evaluation_copy

DIFFERENCES = ("cdc-st", "cdc-t")
SHAPES = {
    "3x3x3": {},
    "the stem's": {"kernel": (3, 7, 7), "stride": (1, 2, 2), "padding": (1, 3, 3)},
    "all strides": {"kernel": (3, 3, 5), "stride": (2, 3, 2), "padding": (1, 0, 2)},
    "dilation 2": {"dilation": 2, "padding": 2},
    "three dilations": {"kernel": (3, 5, 3), "dilation": (2, 1, 3), "padding": (1, 2, 1)},
    "groups 2": {"groups": 2},
    "depth-wise": {"groups": 4, "out": 8},
    "padding 0": {"padding": 0},
    "padding beyond the kernel": {"padding": (2, 1, 3)},
    "one frame": {"kernel": (1, 3, 3), "padding": (0, 1, 1)},
    "five frames": {"kernel": (5, 3, 3), "padding": (2, 1, 1)},
    "seven frames": {"kernel": (7, 1, 3), "padding": (3, 0, 1)},
    "frames only": {"kernel": (3, 1, 1), "padding": (1, 0, 0)},
    "one tap": {"kernel": 1, "padding": 0},
    "bias": {"bias": True},
    "bias, groups, strides": {"bias": True, "groups": 2, "stride": (2, 1, 2), "kernel": (3, 5, 3)},
}


def layer(operator="cdc-st", *, theta=0.6, kernel=3, padding=1, out=6, dtype=torch.float64, **fields):
    """Return a layer whose weights have a mean, so that the subtracted sum is not small."""
    torch.manual_seed(0)
    made = CentralDifferenceConv3d(4, out, kernel, operator=operator, theta=theta, padding=padding, **fields).to(dtype)
    for parameter in made.parameters():
        nn.init.normal_(parameter, mean=0.5)
    with torch.no_grad():
        made.weight /= made.weight[0].numel() ** 0.5
    return made


def clip(extent=(5, 6, 7), channels=4, dtype=torch.float64):
    return torch.randn(2, channels, *extent, dtype=dtype, generator=torch.Generator().manual_seed(1))


def single(weight, **fields):
    """Return a layer of one channel with this kernel."""
    made = CentralDifferenceConv3d(1, 1, tuple(weight.shape), **fields).double()
    with torch.no_grad():
        made.weight.copy_(weight)
    return made


def plain(made, x, weight=None, bias=None):
    """Return torch's own convolution with the layer's settings."""
    weight = made.weight if weight is None else weight
    return F.conv3d(x, weight, bias, made.stride, made.padding, made.dilation, made.groups)


@pytest.mark.parametrize("operator", ["vanilla", *DIFFERENCES])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_folded_convolution_is_the_sum_over_taps(operator, shape):
    made = layer(operator, **SHAPES[shape])
    torch.testing.assert_close(made(clip()), reference_central_difference(made, clip()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("operator", DIFFERENCES)
@pytest.mark.parametrize("theta", [0.3, 0.8, 1.0])
def test_theta_follows_the_equations(operator, theta):
    made = layer(operator, theta=theta)
    torch.testing.assert_close(made(clip()), reference_central_difference(made, clip()), rtol=0, atol=1e-12)


def test_three_frames_by_hand():
    """Kernel 1, 10, 100 over three frames of 1, 2 and 4, at the middle one."""
    kernel, frames = torch.tensor([1.0, 10, 100]).reshape(3, 1, 1), torch.tensor([1.0, 2, 4]).reshape(1, 1, 3, 1, 1)
    values = {
        operator: single(kernel, operator=operator, theta=0.5)(frames.double()).item()
        for operator in ("vanilla", *DIFFERENCES)
    }
    assert values["vanilla"] == 1 * 1 + 10 * 2 + 100 * 4
    assert values["cdc-st"] == 0.5 * (1 * (1 - 2) + 10 * 0 + 100 * (4 - 2)) + 0.5 * 421
    assert values["cdc-t"] == 421 + 0.5 * (-2 * (1 + 100))


@pytest.mark.parametrize("operator", DIFFERENCES)
@pytest.mark.parametrize("fields", [{}, {"groups": 2}, {"bias": True, "stride": 2}], ids=["plain", "groups", "bias"])
def test_theta_zero_is_the_plain_convolution_to_the_bit(operator, fields):
    made = layer(operator, theta=0, dtype=torch.float32, **fields)
    x = clip(dtype=torch.float32)
    assert torch.equal(made(x), plain(made, x, bias=made.bias))
    assert torch.equal(layer("vanilla", dtype=torch.float32, **fields)(x), made(x))
    assert torch.equal(made.folded().weight, made.weight)


@pytest.mark.parametrize("operator", DIFFERENCES)
@pytest.mark.parametrize("kernel", [1, 3, (5, 3, 1), (3, 7, 7)], ids=str)
def test_only_the_center_tap_changes(operator, kernel):
    """W' = W except W'[center] = W[center] - theta * (sum of all taps, or of those of the other frames)."""
    made = layer(operator, kernel=kernel, groups=2)
    times, rows, columns = (extent // 2 for extent in made.kernel_size)
    expected = made.weight.detach().clone()
    for tap_time in range(made.kernel_size[0]):
        if operator == "cdc-st" or tap_time != times:
            expected[:, :, times, rows, columns] -= 0.6 * made.weight.detach()[:, :, tap_time].sum((2, 3))
    torch.testing.assert_close(made.folded().weight, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("operator", DIFFERENCES)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dilation": 2, "padding": 2},
        {"kernel": (5, 3, 7), "padding": (2, 1, 3), "stride": (1, 2, 2)},
        {"kernel": 1, "padding": 0},
        {"kernel": (1, 3, 3), "padding": (0, 1, 1), "groups": 2},
    ],
    ids=["3x3x3", "dilation", "stride", "one tap", "one frame"],
)
def test_it_equals_the_references_two_convolutions_with_same_padding(operator, fields):
    """The reference's form subtracts an unpadded 1 x 1 x 1 convolution, for any number of frames."""
    made = layer(operator, **fields)
    assert all(p == d * (k // 2) for p, d, k in zip(made.padding, made.dilation, made.kernel_size, strict=True))
    others = [t for t in range(made.kernel_size[0]) if operator == "cdc-st" or t != made.kernel_size[0] // 2]
    summed = made.weight[:, :, others].sum((2, 3, 4), keepdim=True)
    expected = plain(made, clip()) - 0.6 * F.conv3d(clip(), summed, stride=made.stride, groups=made.groups)
    torch.testing.assert_close(made(clip()), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("frame", [0, 1, 3, 4])
def test_cdc_t_with_five_frames_sums_all_but_the_center_frame(frame):
    """The reference uses the first and the third frame of any kernel."""
    kernel = torch.zeros(5, 1, 1)
    kernel[frame] = 1
    x = clip(extent=(9, 2, 2), channels=1)
    difference = single(kernel, operator="cdc-t", theta=1, padding=(2, 0, 0))(x)
    torch.testing.assert_close(difference[:, :, 2:-2], x[:, :, frame : frame + 5] - x[:, :, 2:-2])


def test_cdc_t_ignores_the_center_frame():
    kernel = torch.zeros(3, 3, 3)
    kernel[1] = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    x = clip(channels=1)
    made = single(kernel, operator="cdc-t", theta=1, padding=1)
    assert torch.equal(made(x), plain(made, x))


def test_a_kernel_of_one_frame_is_2d_cdc_or_plain():
    x = clip()
    st, t = (layer(operator, kernel=(1, 3, 3), padding=(0, 1, 1)) for operator in DIFFERENCES)
    assert torch.equal(t(x), plain(t, x))
    frames = x.transpose(1, 2).flatten(0, 1)
    weight = st.weight[:, :, 0]
    flat = F.conv2d(frames, weight, padding=1) - 0.6 * F.conv2d(frames, weight.sum((2, 3), keepdim=True))
    torch.testing.assert_close(st(x), flat.unflatten(0, (2, 5)).transpose(1, 2), rtol=0, atol=1e-12)


def test_a_kernel_of_one_tap_is_scaled_or_plain():
    x = clip()
    st, t = (layer(operator, kernel=1, padding=0) for operator in DIFFERENCES)
    torch.testing.assert_close(st(x), 0.4 * plain(st, x), rtol=0, atol=1e-13)
    assert torch.equal(t(x), plain(t, x))
    assert not layer("cdc-st", kernel=1, padding=0, theta=1)(x).any()


@pytest.mark.parametrize("operator", DIFFERENCES)
def test_the_bias_is_added_once(operator):
    """The reference would scale the bias by (1 - theta)."""
    with_bias, without = layer(operator, bias=True), layer(operator)
    without.weight = with_bias.weight
    shift = with_bias.bias[:, None, None, None].expand(-1, 5, 6, 7)
    torch.testing.assert_close(with_bias(clip()), without(clip()) + shift, rtol=0, atol=1e-12)


@pytest.mark.parametrize("place", [0, 1, 3], ids=["at the border", "inside", "farther inside"])
def test_the_pixel_under_the_center_tap_is_subtracted(place):
    """A 7 x 7 kernel with stride 2 and padding 3: pixel 2i. I3D's padding, 2 and 3, would center it on 2i + 1."""
    kernel = torch.zeros(3, 7, 7)
    kernel[1, 0, 0] = 1
    x = clip(extent=(3, 14, 14), channels=1)
    difference = single(kernel, operator="cdc-st", theta=1, stride=(1, 2, 2), padding=(1, 3, 3))(x)
    first, center = 2 * place - 3, 2 * place
    seen = x[:, :, :, first, first] if first >= 0 else 0
    torch.testing.assert_close(difference[..., place, place], seen - x[:, :, :, center, center])


@pytest.mark.parametrize("theta", [0.6, 1.0])
@pytest.mark.parametrize("operator", DIFFERENCES)
def test_a_constant_clip_inside_and_at_the_border(operator, theta):
    """Differences vanish inside; at the border x(p0) is subtracted from the zero padding, too."""
    made, constant = layer(operator, theta=theta), torch.full((1, 4, 5, 6, 7), 2.0, dtype=torch.float64)
    answer = made(constant)[0]
    weight = made.weight.detach()
    adjacent = weight[:, :, ::2].sum((1, 2, 3, 4))
    whole = weight.sum((1, 2, 3, 4))
    subtracted = theta * (whole if operator == "cdc-st" else adjacent)
    inside = 2 * (whole - subtracted)
    torch.testing.assert_close(answer[:, 1:-1, 1:-1, 1:-1], inside[:, None, None, None].expand(-1, 3, 4, 5))
    corner = 2 * (weight[:, :, 1:, 1:, 1:].sum((1, 2, 3, 4)) - subtracted)
    torch.testing.assert_close(answer[:, 0, 0, 0], corner)
    first_frame = 2 * (weight[:, :, 1:].sum((1, 2, 3, 4)) - subtracted)
    torch.testing.assert_close(answer[:, 0, 2, 3], first_frame)
    if operator == "cdc-st" and theta == 1:
        assert answer[:, 1:-1, 1:-1, 1:-1].abs().max() < 1e-12
        torch.testing.assert_close(first_frame, -2 * weight[:, :, 0].sum((1, 2, 3)))


def test_temporal_differences_of_a_still_clip_are_zero():
    """With kernels over frames only and theta = 1, CDC-ST gives zero and CDC-T the center frame's response."""
    still = clip(extent=(1, 4, 4)).expand(-1, -1, 5, -1, -1)
    st, t = (layer(operator, theta=1, kernel=(3, 1, 1), padding=0) for operator in DIFFERENCES)
    assert st(still).abs().max() < 1e-12
    torch.testing.assert_close(t(still), F.conv3d(still[:, :, 1:-1], t.weight[:, :, 1:2]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("operator", DIFFERENCES)
@pytest.mark.parametrize("fields", [{}, {"groups": 2, "bias": True}, {"kernel": (1, 3, 3)}, {"kernel": 1}], ids=str)
def test_gradients_are_those_of_the_equations(operator, fields):
    made, x = layer(operator, out=2, **fields), clip(extent=(3, 3, 2)).requires_grad_()
    wanted = [x, *made.parameters()]
    torch.manual_seed(2)
    pull = torch.randn_like(made(x))
    fast = torch.autograd.grad(made(x), wanted, pull)
    literal = torch.autograd.grad(reference_central_difference(made, x), wanted, pull)
    for got, expected in zip(fast, literal, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)

    def of(video, weight):
        return torch.func.functional_call(made, {"weight": weight}, (video,))

    assert torch.autograd.gradcheck(of, (x, made.weight))


def test_theta_is_a_fixed_number():
    made = layer(bias=True)
    made(clip()).sum().backward()
    assert type(made.theta) is float
    assert {name for name, _ in made.named_parameters()} == {"weight", "bias"}
    assert all(parameter.grad is not None for parameter in made.parameters())
    assert list(made.buffers()) == []
    assert set(made.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("operator", DIFFERENCES)
def test_it_loads_the_state_dict_of_a_plain_convolution(operator):
    own = nn.Conv3d(4, 6, (3, 5, 5), groups=2)
    made = CentralDifferenceConv3d(4, 6, (3, 5, 5), operator=operator, groups=2, bias=True)
    assert sum(p.numel() for p in made.parameters()) == sum(p.numel() for p in own.parameters())
    made.load_state_dict(own.state_dict())
    made(clip(dtype=torch.float32))
    assert all(torch.equal(own.state_dict()[name], value) for name, value in made.state_dict().items())
    own.load_state_dict(made.state_dict())


def test_it_is_initialized_like_a_plain_convolution():
    weights = []
    for make in (nn.Conv3d, lambda *given: CentralDifferenceConv3d(*given, operator="cdc-st", bias=True)):
        torch.manual_seed(0)
        weights.append(make(3, 4, 3).weight)
    assert torch.equal(*weights)


@pytest.mark.parametrize("operator", DIFFERENCES)
def test_it_costs_one_convolution_forward_and_backward(operator):
    counts = []
    for name in ("vanilla", operator):
        made, x = layer(name), clip().requires_grad_()
        with FlopCounterMode(display=False) as counter:
            made(x).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel": 4}, "t=4"),
        ({"kernel": (3, 2, 3)}, "h=2"),
        ({"kernel": (3, 3, 6)}, "w=6"),
        ({"kernel": 2, "operator": "vanilla"}, "t=2"),
        ({"theta": -0.1}, "theta"),
        ({"theta": 1.5}, "theta"),
        ({"theta": float("nan")}, "theta"),
    ],
)
def test_invalid_values_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        layer(**fields)


def norm(channels=6, dtype=torch.float32):
    """Return a BatchNorm with random parameters and statistics, and the stem's epsilon."""
    made = nn.BatchNorm3d(channels, eps=1e-3, dtype=dtype).eval()
    nn.init.normal_(made.weight)
    nn.init.normal_(made.bias)
    nn.init.normal_(made.running_mean)
    nn.init.uniform_(made.running_var, 0.5, 2)
    return made


class Unit(nn.Module):
    """Convolution and BatchNorm as a network holds them."""

    def __init__(self, convolution):
        super().__init__()
        self.convolution, self.norm = convolution, norm()

    def forward(self, x):
        return self.norm(self.convolution(x)).relu()

    def folded(self):
        return nn.Sequential(fuse_conv_bn_eval(self.convolution.folded(), copy.deepcopy(self.norm).eval()), nn.ReLU())


@pytest.mark.parametrize("operator", ["vanilla", *DIFFERENCES])
@pytest.mark.parametrize("shape", ["the stem's", "dilation 2", "groups 2", "bias"])
def test_it_folds_with_batchnorm_into_one_biased_convolution(operator, shape):
    unit = Unit(layer(operator, dtype=torch.float32, **SHAPES[shape])).train()
    copied = evaluation_copy(unit)
    assert [type(module) for module in copied.modules()] == [nn.Sequential, nn.Conv3d, nn.ReLU]
    assert copied[0].bias is not None
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert unit.training
    x = clip(dtype=torch.float32)
    torch.testing.assert_close(copied(x), unit.eval()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operator", DIFFERENCES)
def test_it_folds_into_a_plain_convolution(operator):
    made = layer(operator, dtype=torch.float32, bias=True, groups=2)
    copied = evaluation_copy(nn.Sequential(made))
    assert type(copied[0]) is nn.Conv3d
    assert torch.equal(copied(clip(dtype=torch.float32)), made(clip(dtype=torch.float32)))


def test_folding_does_not_change_the_layer_or_the_random_state():
    made = layer(dtype=torch.float32, bias=True)
    before = copy.deepcopy(made.state_dict())
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for parameter in made.folded().parameters():
        nn.init.zeros_(parameter)
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert made.training


def test_torchs_batchnorm_fusion_is_correct_for_it():
    """A gain per channel commutes with the difference, so torch's own BatchNorm fusion is correct."""
    made, behind = layer(dtype=torch.float32).eval(), norm()
    x = clip(dtype=torch.float32)
    fused = fuse_conv_bn_eval(made, behind)
    assert isinstance(fused, CentralDifferenceConv3d)
    torch.testing.assert_close(fused(x), behind(made(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operator", DIFFERENCES)
def test_autocast_folds_in_float32_and_convolves_in_bfloat16(operator):
    made, x = layer(operator, dtype=torch.float32), clip(dtype=torch.float32)
    precise = made(x)
    with torch.autocast("cpu", torch.bfloat16):
        answer = made(x)
        assert torch.equal(made.folded_weight(), made.folded().weight)
    assert answer.dtype == torch.bfloat16
    assert (answer - precise).abs().max() < 0.01 * precise.abs().max()
    answer.float().square().mean().backward()
    rough = made.weight.grad.clone()
    made.weight.grad = None
    precise.square().mean().backward()
    assert rough.dtype == torch.float32
    assert (rough - made.weight.grad).abs().max() < 0.02 * made.weight.grad.abs().max()


@pytest.mark.parametrize("operator", DIFFERENCES)
def test_weights_in_bfloat16_are_rounded_once(operator):
    made = layer(operator, kernel=(3, 7, 7), dtype=torch.bfloat16)
    exact = copy.deepcopy(made).float().folded_weight()
    assert made.folded_weight().dtype == torch.bfloat16
    assert torch.equal(made.folded_weight(), exact.bfloat16())


@pytest.mark.parametrize("operator", DIFFERENCES)
def test_memory_formats_are_preserved(operator):
    made, usual = layer(operator, dtype=torch.float32), clip(dtype=torch.float32)
    last = usual.contiguous(memory_format=torch.channels_last_3d)
    assert made(last).is_contiguous(memory_format=torch.channels_last_3d)
    assert made(usual).is_contiguous()
    torch.testing.assert_close(made(last), made(usual), rtol=1e-5, atol=1e-4)
    made = made.to(memory_format=torch.channels_last_3d)
    assert made.folded_weight().is_contiguous(memory_format=torch.channels_last_3d)


def test_a_copy_is_independent():
    made = layer()
    copied = copy.deepcopy(made)
    assert torch.equal(copied(clip()), made(clip()))
    nn.init.zeros_(copied.weight)
    assert made(clip()).any()
    assert (copied.operator, copied.theta) == ("cdc-st", 0.6)
    assert "operator=cdc-st, theta=0.6" in repr(copied)


def test_it_runs_on_the_meta_device():
    """MACs are counted on the meta device."""
    with torch.device("meta"):
        made = layer(dtype=torch.float32)
    assert made(torch.empty(1, 4, 5, 6, 7, device="meta")).shape == (1, 6, 5, 6, 7)
    assert made.folded().weight.is_meta


@pytest.mark.parametrize("operator", DIFFERENCES)
def test_it_can_be_exported(operator):
    made, x = layer(operator), clip()
    batch = torch.export.Dim("batch", min=1, max=8)
    exported = torch.export.export(made, (x,), dynamic_shapes=({0: batch},)).module()
    torch.testing.assert_close(exported(x[:1]), made(x[:1]), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
@pytest.mark.parametrize("operator", DIFFERENCES)
def test_compile_gives_one_graph_and_the_same_gradients(operator, backend):
    made, x = layer(operator), clip()
    torch.compiler.reset()  # what other tests compiled does not count against this one
    compiled = torch.compile(made, backend=backend, fullgraph=True)
    answer = compiled(x)
    torch.testing.assert_close(answer, made(x), rtol=0, atol=1e-12)
    (got,) = torch.autograd.grad(answer.square().sum(), made.weight)
    (expected,) = torch.autograd.grad(made(x).square().sum(), made.weight)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)

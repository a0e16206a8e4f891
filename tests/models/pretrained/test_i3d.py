"""I3D weights in MFST: equal responses to a still clip, correct mapping of modules, and a complete report."""

import math

import pytest
import torch
import torch.nn.functional as F

from kinema.errors import I3DError
from kinema.models.mfst import MFST, MFSTConfig
from kinema.models.pretrained.i3d import I3D_KERNELS, from_i3d, is_i3d, shorten_kernel

NORM = ("weight", "bias", "running_mean", "running_var")
COUNT = "num_batches_tracked"
UNITS = {"Conv3d_1a_7x7": (64, 3, 7), "Conv3d_2b_1x1": (64, 64, 1), "Conv3d_2c_3x3": (192, 64, 3)}
MODULES = {  # channels in; alone, before and in the middle branch, in the small one, after pooling
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
PLACES = {  # stage and number of I3D's module in MFST
    "Mixed_3b": (0, 0),
    "Mixed_3c": (0, 1),
    "Mixed_4b": (1, 0),
    "Mixed_4c": (1, 1),
    "Mixed_4d": (2, 0),
    "Mixed_4e": (2, 1),
    "Mixed_5b": (3, 0),
    "Mixed_5c": (3, 1),
}
MISMATCHED = {  # convolutions of a stage's tokens
    "stages.1.space.inceptions.0.single": "Mixed_4b.b0, Mixed_4b.b1a, Mixed_4b.b2a: "
    "[304, 480, 1, 1] in the file, [304, 256, 1, 1] in the network",
    "stages.1.space.inceptions.0.pooled": "Mixed_4b.b3b: [64, 480, 1, 1] in the file, [64, 256, 1, 1] in the network",
    "stages.2.space.inceptions.0.single": "Mixed_4d.b0, Mixed_4d.b1a, Mixed_4d.b2a: "
    "[280, 512, 1, 1] in the file, [280, 256, 1, 1] in the network",
    "stages.2.space.inceptions.0.pooled": "Mixed_4d.b3b: [64, 512, 1, 1] in the file, [64, 256, 1, 1] in the network",
    "stages.3.space.inceptions.0.single": "Mixed_5b.b0, Mixed_5b.b1a, Mixed_5b.b2a: "
    "[448, 832, 1, 1] in the file, [448, 512, 1, 1] in the network",
    "stages.3.space.inceptions.0.pooled": "Mixed_5b.b3b: [128, 832, 1, 1] in the file, [128, 512, 1, 1] in the network",
}
UNUSED = {"Mixed_4f": "no counterpart in MFST", "logits": "task heads are reinitialized"}


def units():
    """Return I3D's units -> channels out and in, side of the kernel."""
    found = dict(UNITS)
    for module, (channels, (alone, middle_in, middle, small_in, small, pooled)) in MODULES.items():
        found |= {f"{module}.b0": (alone, channels, 1), f"{module}.b1a": (middle_in, channels, 1)}
        found |= {f"{module}.b1b": (middle, middle_in, 3), f"{module}.b2a": (small_in, channels, 1)}
        found |= {f"{module}.b2b": (small, small_in, 3), f"{module}.b3b": (pooled, channels, 1)}
    return found


@pytest.fixture(scope="module")
def i3d():
    """Random I3D weights."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for number, (unit, (wide, channels, side)) in enumerate(units().items()):
        kernel = torch.randn(wide, channels, side, side, side, generator=generator)
        tensors[f"{unit}.conv3d.weight"] = kernel / math.sqrt(channels * side**3)
        tensors[f"{unit}.bn.weight"] = 0.5 + torch.rand(wide, generator=generator)
        tensors[f"{unit}.bn.bias"] = 0.3 * torch.randn(wide, generator=generator)
        tensors[f"{unit}.bn.running_mean"] = 0.3 * torch.randn(wide, generator=generator)
        tensors[f"{unit}.bn.running_var"] = 0.5 + torch.rand(wide, generator=generator)
        tensors[f"{unit}.bn.{COUNT}"] = torch.tensor(100 + number)
    tensors["logits.conv3d.weight"] = torch.zeros(400, 1024, 1, 1, 1)
    tensors["logits.conv3d.bias"] = torch.zeros(400)
    return tensors


def network(stages=4, *, channels=3, **changes):
    """Return an MFST with the thesis's convolution widths and small transformers."""
    torch.manual_seed(1)
    small = {"layers": 1, "attention_heads": 1, "head_channels": 8, "mlp_channels": 8, "stem_operator": "vanilla"}
    config = MFSTConfig(stages=stages, **(small | changes))
    return MFST(config, heads={"label": 5}, channels=channels, frames=8, size=32).eval()


def loaded(i3d, stages=4, **changes):
    model = network(stages, **changes)
    model.load_state_dict(from_i3d(i3d, model).weights, strict=False)
    return model


def still(picture, frames):
    return picture.unsqueeze(2).expand(-1, -1, frames, -1, -1).contiguous()


def picture(channels, size=9):
    """Return non-negative maps: I3D pads its pools with zeros."""
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(2))


def reference_unit(i3d, unit, clip, stride=1):
    """Return I3D's unit written out: convolution, BatchNorm in evaluation, ReLU."""
    kernel = i3d[f"{unit}.conv3d.weight"]
    maps = F.conv3d(clip, kernel, stride=stride, padding=kernel.shape[-1] // 2)
    weight, bias, mean, variance = (i3d[f"{unit}.bn.{number}"][:, None, None, None] for number in NORM)
    return torch.relu((maps - mean) / (variance + 1e-3).sqrt() * weight + bias)


def reference_module(i3d, module, clip):
    pooled = F.max_pool3d(clip, 3, stride=1, padding=1)
    branches = [
        reference_unit(i3d, f"{module}.b0", clip),
        reference_unit(i3d, f"{module}.b1b", reference_unit(i3d, f"{module}.b1a", clip)),
        reference_unit(i3d, f"{module}.b2b", reference_unit(i3d, f"{module}.b2a", clip)),
        reference_unit(i3d, f"{module}.b3b", pooled),
    ]
    return torch.cat(branches, dim=1)


def close(found, expected):
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


# -- answers -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("frames", [3, 7])
def test_the_first_convolution_equals_i3ds_on_a_still_clip(i3d, frames):
    clip = still(picture(3, size=20) * 2 - 1, 12)
    model = loaded(i3d, 1, stem_kernel_frames=frames)
    expected = F.conv3d(clip, i3d["Conv3d_1a_7x7.conv3d.weight"], stride=(1, 2, 2), padding=3)
    found = model.stem.first.convolution(clip)
    assert found.shape == expected.shape
    close(found[:, :, 3:-3], expected[:, :, 3:-3])


@torch.no_grad()
@pytest.mark.parametrize(
    ("ours", "unit", "stride"),
    [("first", "Conv3d_1a_7x7", (1, 2, 2)), ("second", "Conv3d_2b_1x1", 1), ("third", "Conv3d_2c_3x3", 1)],
)
def test_stem_units_equal_i3ds_on_a_still_clip(i3d, ours, unit, stride):
    clip = still(picture(UNITS[unit][1], size=16), 9)
    found = loaded(i3d, 1).stem.get_submodule(ours)(clip)
    close(found[:, :, 4], reference_unit(i3d, unit, clip, stride)[:, :, 4])


@torch.no_grad()
@pytest.mark.parametrize("module", ["Mixed_3b", "Mixed_3c", "Mixed_4c", "Mixed_4e", "Mixed_5c"])
def test_inception_modules_equal_i3ds_on_a_still_clip(i3d, module):
    maps = picture(MODULES[module][0], size=5)
    stage, place = PLACES[module]
    found = loaded(i3d).stages[stage].space.inceptions[place](maps, 1)
    close(found, reference_module(i3d, module, still(maps, 7))[:, :, 3])


@torch.no_grad()
@pytest.mark.parametrize("module", ["Mixed_4b", "Mixed_4d", "Mixed_5b"])
def test_modules_on_tokens_load_only_their_inner_convolutions(i3d, module):
    stage, place = PLACES[module]
    inception = loaded(i3d).stages[stage].space.inceptions[place]
    for convolution, branch in ((inception.middle, "b1b"), (inception.small, "b2b")):
        maps = picture(convolution.convolution.in_channels, size=5)
        close(convolution(maps), reference_unit(i3d, f"{module}.{branch}", still(maps, 7))[:, :, 3])


@torch.no_grad()
def test_a_kernel_with_the_same_frames_is_loaded_bit_for_bit(i3d):
    model = loaded(i3d, 1, stem_kernel_frames=7)
    assert torch.equal(model.stem.first.convolution.weight, i3d["Conv3d_1a_7x7.conv3d.weight"])
    assert torch.equal(model.stem.third.convolution.weight, i3d["Conv3d_2c_3x3.conv3d.weight"])


@torch.no_grad()
def test_a_one_channel_clip_gives_the_result_of_a_gray_one(i3d):
    depth = still(picture(1, size=20) * 2 - 1, 12)
    model = loaded(i3d, 1, channels=1)
    kernel = i3d["Conv3d_1a_7x7.conv3d.weight"]
    expected = F.conv3d(depth.expand(-1, 3, -1, -1, -1), kernel, stride=(1, 2, 2), padding=3)
    close(model.stem.first.convolution(depth)[:, :, 3:-3], expected[:, :, 3:-3])


def test_raw_weights_do_not_depend_on_the_operator(i3d):
    plain, differences = (loaded(i3d, 1, stem_operator=operator).state_dict() for operator in ("vanilla", "cdc-st"))
    for name in ("stem.first.convolution.weight", "stem.third.convolution.weight"):
        assert torch.equal(plain[name], differences[name])


# -- taps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taps", "frames", "expected"),
    [
        (7, 7, [1, 2, 4, 8, 16, 32, 64]),
        (7, 5, [3, 4, 8, 16, 96]),
        (7, 3, [7, 8, 112]),
        (7, 1, [127]),
        (5, 3, [3, 4, 24]),
        (3, 3, [1, 2, 4]),
        (3, 1, [7]),
        (1, 1, [1]),
    ],
)
def test_each_tap_is_added_to_its_nearest_tap(taps, frames, expected):
    kernel = (2.0 ** torch.arange(taps)).view(1, 1, taps, 1, 1).expand(2, 3, taps, 4, 5)
    short = shorten_kernel(kernel, frames)
    assert short.shape == (2, 3, frames, 4, 5)
    assert torch.equal(short, torch.tensor(expected).float().view(1, 1, frames, 1, 1).expand_as(short))


def test_half_precision_is_summed_in_single():
    kernel = torch.tensor([2048.0, 1, 1]).half().view(1, 1, 3, 1, 1)
    assert shorten_kernel(kernel, 1).item() == 2050


@pytest.mark.parametrize(("taps", "frames"), [(6, 3), (7, 4), (3, 5)])
def test_taps_without_a_center_and_longer_kernels_are_refused(taps, frames):
    with pytest.raises(ValueError, match=f"{taps} frames"):
        shorten_kernel(torch.zeros(1, 1, taps, 1, 1), frames)


# -- loaded, mismatched, unused ----------------------------------------------------------------------------------------


def test_four_stages_take_all_but_the_convolutions_of_tokens(i3d):
    model = network(4)
    converted = from_i3d(i3d, model)
    assert dict(converted.mismatched) == MISMATCHED
    assert dict(converted.unused) == UNUSED
    own = model.state_dict()
    ours = [name for name in own if name.startswith("stem.") or ".inceptions." in name]
    assert list(converted.weights) == [name for name in ours if name.rsplit(".", 2)[0] not in MISMATCHED]
    assert len(converted.weights) == 6 * (3 + 8 * 4 - 6)
    for name, weight in converted.weights.items():
        assert weight.shape == own[name].shape
        assert weight.dtype == own[name].dtype


def test_the_network_is_not_changed_and_shares_no_memory(i3d):
    model = network(1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    copies = {name: tensor.clone() for name, tensor in i3d.items()}
    for weight in from_i3d(i3d, model).weights.values():
        weight.zero_()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(torch.equal(tensor, copies[name]) for name, tensor in i3d.items())


@pytest.mark.parametrize(
    ("stages", "modules"),
    [
        (3, ["Mixed_5b", "Mixed_5c"]),
        (2, ["Mixed_4d", "Mixed_4e", "Mixed_5b", "Mixed_5c"]),
        (1, ["Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_5b", "Mixed_5c"]),
    ],
)
def test_modules_of_missing_stages_are_left_out(i3d, stages, modules):
    converted = from_i3d(i3d, network(stages))
    of_stages = {
        module: f"belongs to stage {PLACES[module][0] + 1}; the network has {stages}"
        for module in PLACES
        if module in modules
    }
    assert dict(converted.unused) == UNUSED | of_stages
    assert dict(converted.mismatched) == {
        part: why for part, why in MISMATCHED.items() if int(part.split(".")[1]) < stages
    }


def test_unused_modules_may_be_missing_from_the_file(i3d):
    short = {name: tensor for name, tensor in i3d.items() if not name.startswith(("Mixed_4", "Mixed_5", "logits"))}
    converted = from_i3d(short, network(1))
    assert len(converted.weights) == 6 * (3 + 2 * 4)
    assert not converted.unused


def test_a_network_of_other_widths_may_load_a_later_module_completely(i3d):
    converted = from_i3d(i3d, network(2, widths=(480, 256, 512, 512)))
    assert not converted.mismatched


@pytest.mark.parametrize(("there", "here"), [(3, 2), (2, 3), (2, 1)])
def test_a_first_convolution_with_other_channels_is_mismatched(i3d, there, here):
    kernel = i3d["Conv3d_1a_7x7.conv3d.weight"]
    converted = from_i3d(i3d | {"Conv3d_1a_7x7.conv3d.weight": kernel[:, :there]}, network(1, channels=here))
    shapes = f"Conv3d_1a_7x7: [64, {there}, 3, 7, 7] in the file, [64, {here}, 3, 7, 7] in the network"
    assert dict(converted.mismatched) == {"stem.first": shapes}
    assert not any(name.startswith("stem.first.") for name in converted.weights)


def test_a_narrower_network_loads_nothing(i3d):
    model = network(1, channel_divisor=2, widths=(120, 1, 1, 1))
    assert not from_i3d(i3d, model).weights


def test_batch_counts_are_loaded_if_stored(i3d):
    counted = from_i3d(i3d, network(1)).weights
    expected = {name: i3d[f"Mixed_3b.{branch}.bn.{COUNT}"] for name, branch in (("single", "b2a"), ("pooled", "b3b"))}
    for name, count in expected.items():
        assert counted[f"stages.0.space.inceptions.0.{name}.norm.{COUNT}"] == count
    old = {name: tensor for name, tensor in i3d.items() if not name.endswith(COUNT)}
    uncounted = from_i3d(old, network(1)).weights
    assert uncounted.keys() == counted.keys()
    for name, weight in uncounted.items():
        assert torch.equal(weight, torch.tensor(0) if name.endswith(COUNT) else counted[name])


@pytest.mark.parametrize("prefix", ["module.", "module.basenet.", "rgb."])
def test_a_common_prefix_is_ignored(i3d, prefix):
    longer = {f"{prefix}{name}": tensor for name, tensor in i3d.items()}
    one, other = (from_i3d(tensors, network(1)) for tensors in (i3d, longer))
    assert one.mismatched == other.mismatched
    assert one.unused == other.unused
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(weight, other.weights[name]) for name, weight in one.weights.items())


# -- other files -------------------------------------------------------------------------------------------------------


def test_i3d_is_recognized_by_its_names(i3d):
    assert is_i3d(i3d)
    assert is_i3d(f"module.{name}" for name in i3d)
    assert is_i3d(["Mixed_5c.b3b.bn.running_var"])
    assert dict(I3D_KERNELS) == {unit: (wide, channels, s, s, s) for unit, (wide, channels, s) in units().items()}


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["logits.conv3d.weight", "logits.conv3d.bias"],
        ["Mixed_5b.branch1x1.conv.weight", "Conv2d_1a_3x3.conv.weight"],  # Inception v3
        ["mixed_3b.conv_b0.conv1.weight"],  # S3D
        ["Mixed_3b.b0.conv3d", "Mixed_3b", "MyMixed_3b.b0.conv3d.weight"],
    ],
)
def test_other_names_are_not_recognized_as_i3d(names):
    assert not is_i3d(names)


def test_an_mfst_is_not_recognized_as_i3d(raises):
    model = network(1)
    assert not is_i3d(model.state_dict())
    with raises(I3DError, "no I3D tensor"):
        from_i3d(model.state_dict(), model)


@pytest.mark.parametrize(
    "name",
    [
        "Conv3d_1a_7x7.conv3d.weight",
        "Conv3d_2c_3x3.bn.running_var",
        "Mixed_3c.b1a.bn.bias",
        "Mixed_4b.b2a.conv3d.weight",
        "Mixed_5c.b3b.bn.running_mean",
    ],
)
def test_a_missing_tensor_is_refused(raises, i3d, name):
    with raises(I3DError, "missing", field=name):
        from_i3d({other: tensor for other, tensor in i3d.items() if other != name}, network(4))


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("", "Mixed_6a.b0.conv3d.weight"),
        ("", "Mixed_3b.b3a.conv3d.weight"),
        ("", "Conv3d_2b_1x1.conv3d.bias"),
        ("module.", "epoch"),
        ("module.", "Conv3d_2b_1x1.bn.bias"),
        ("rgb.", "flow.Conv3d_2b_1x1.bn.bias"),
    ],
)
def test_an_unexpected_tensor_is_refused(raises, i3d, prefix, name):
    tensors = {f"{prefix}{own}": tensor for own, tensor in i3d.items()} | {name: torch.zeros(64)}
    with raises(I3DError, "unexpected", field=name):
        from_i3d(tensors, network(1))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("Mixed_3b.b1b.conv3d.weight", (128, 96, 1, 3, 3), "[128, 96, 3, 3, 3]"),
        ("Mixed_3b.b0.bn.bias", (63,), "[64]"),
        ("Mixed_4f.b0.bn.bias", (63,), "[256]"),
        ("Mixed_3b.b0.bn.num_batches_tracked", (1,), "[]"),
        ("Conv3d_1a_7x7.conv3d.weight", (64, 3, 7, 7), "[64, 3, 7, 7, 7]"),
        ("Conv3d_1a_7x7.conv3d.weight", (64, 3, 5, 7, 7), "[64, 3, 7, 7, 7]"),
    ],
)
def test_a_tensor_of_another_shape_is_refused(raises, i3d, name, shape, expected):
    with raises(I3DError, list(shape), expected, field=name):
        from_i3d(i3d | {name: torch.zeros(shape)}, network(1))

"""The convolutional mapping equals eq. 4.6 as a sum over taps, also when folded."""

import copy

import pytest
import torch
import torch.nn.functional as F
from reference import reference_mapping
from torch import nn

from kinema.layers.conv_projection import ConvolutionalMapping, FoldedConvolutionalMapping, to_maps, to_tokens
from kinema.layers.folding import evaluation_copy

GRID = (2, 4, 3)
CHOICES = [(k, n, p) for k in (3, 5) for n in ("batch", "none") for p in ("zeros", "circular")]


def trained(kernel=3, norm="batch", padding="zeros", dim=6):
    """Return a mapping with random parameters and statistics."""
    torch.manual_seed(0)
    mapping = ConvolutionalMapping(dim, kernel=kernel, norm=norm, padding=padding).double().eval()
    for parameter in mapping.parameters():
        nn.init.normal_(parameter)
    for module in mapping.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return mapping


def tokens(dim=6, grid=GRID):
    n = 1 + grid[0] * grid[1] * grid[2]
    return torch.randn(2, n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kernel", "norm", "padding"), CHOICES)
def test_the_mapping_equals_the_sum_over_taps(kernel, norm, padding):
    mapping = trained(kernel, norm, padding)
    for fast, literal in zip(mapping(tokens(), GRID), reference_mapping(mapping, tokens(), GRID), strict=True):
        torch.testing.assert_close(fast, literal, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kernel", "norm", "padding"), CHOICES)
def test_the_folded_mapping_is_one_convolution_with_equal_output(kernel, norm, padding):
    mapping = trained(kernel, norm, padding).float()
    folded = mapping.folded()
    assert isinstance(folded, FoldedConvolutionalMapping)
    assert sum(isinstance(module, nn.Conv2d) for module in folded.modules()) == 1
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for expected, got in zip(mapping(tokens().float(), GRID), folded(tokens().float(), GRID), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_folding_does_not_change_the_mapping():
    mapping = trained()
    before = copy.deepcopy(mapping.state_dict())
    for parameter in mapping.folded().parameters():
        nn.init.zeros_(parameter)
    assert all(torch.equal(before[name], value) for name, value in mapping.state_dict().items())


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_the_initial_mapping_equals_the_linear_one(norm):
    """Kernels are deltas, and a gain of sqrt(1 + eps) cancels BatchNorm's epsilon."""
    mapping = ConvolutionalMapping(6, kernel=3, norm=norm, padding="zeros").double().eval()
    parts = (mapping.query, mapping.key, mapping.value)
    for part in parts:
        part.reset_depthwise()  # once more, with a gain in float64
    for mapped, part in zip(mapping(tokens(), GRID), parts, strict=True):
        torch.testing.assert_close(mapped, part.pointwise(tokens()), rtol=0, atol=1e-12)


def test_the_class_token_bypasses_the_depthwise_part():
    mapping, changed = trained(), tokens()
    changed[:, 1:] = 0
    for mapped, after, part in zip(
        mapping(tokens(), GRID), mapping(changed, GRID), (mapping.query, mapping.key, mapping.value), strict=True
    ):
        torch.testing.assert_close(mapped[:, 0], part.pointwise(tokens()[:, 0]))
        assert torch.equal(mapped[:, 0], after[:, 0])


def test_a_token_affects_only_its_neighbors_in_the_same_frame():
    mapping, moved = trained(), tokens()
    place = 1 + (1 * 4 + 2) * 3 + 1  # time 1, row 2, column 1
    moved[:, place] += 1
    for before, after in zip(mapping(tokens(), GRID), mapping(moved, GRID), strict=True):
        reached = (before - after)[0, 1:].abs().amax(-1).reshape(GRID) > 1e-9
        expected = torch.zeros(GRID, dtype=torch.bool)
        expected[1, 1:4, 0:3] = True
        assert torch.equal(reached, expected)


def test_token_maps_keep_the_order_of_time_rows_and_columns():
    patches = torch.arange(2 * 24.0).reshape(2, 24, 1)
    maps = to_maps(patches, GRID)
    assert maps.shape == (4, 1, 4, 3)
    assert maps[3, 0, 2, 1] == patches[1, (1 * 4 + 2) * 3 + 1, 0]
    assert torch.equal(to_tokens(maps, GRID), patches)


def test_zero_padding_reveals_the_border_and_circular_padding_does_not():
    """The control for section 4.4.3: on a constant map only zero padding distinguishes locations."""
    constant = torch.ones(1, 13, 6, dtype=torch.float64)
    spread = {
        padding: trained(padding=padding)(constant, (1, 4, 3))[0][:, 1:].std(dim=1).max()
        for padding in ("zeros", "circular")
    }
    assert spread["zeros"] > 0.1
    assert spread["circular"] < 1e-12


def test_training_uses_the_statistics_of_the_batch_the_times_and_the_places():
    mapping = trained().train()
    maps = F.conv2d(to_maps(tokens()[:, 1:], GRID), mapping.key.depthwise.weight, padding=1, groups=6)
    mean, var = maps.mean((0, 2, 3)), maps.var((0, 2, 3), unbiased=False)
    gain = (mapping.key.norm.weight / (var + mapping.key.norm.eps).sqrt())[:, None, None]
    normed = (maps - mean[:, None, None]) * gain + mapping.key.norm.bias[:, None, None]
    expected = mapping.key.pointwise(to_tokens(normed, GRID))
    torch.testing.assert_close(mapping(tokens(), GRID)[1][:, 1:], expected, rtol=0, atol=1e-11)


def test_folding_follows_the_type_of_the_weights():
    folded = evaluation_copy(trained())
    assert {parameter.dtype for parameter in folded.parameters()} == {torch.float64}

"""WMS-Trans equals one pass per scale; properties of the scales."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from reference import reference_multiscale
from torch import nn

from kinema.layers import multiscale_temporal as operator
from kinema.layers.knn_attention import KNNLayer, knn_block
from kinema.layers.multiscale_temporal import MultiScaleTemporalTransformer, pool_time, repeat_time, sinusoidal_position
from kinema.models.complexity import parameter_count

LENGTHS = {32: (32, 16, 8), 31: (31, 16, 8), 7: (7, 4, 2), 5: (5, 3, 2), 3: (3, 2, 1), 2: (2, 1, 1), 1: (1, 1, 1)}


def trained(dim=6, *, depth=2, seed=0, **choices):
    """Return a block with random parameters."""
    torch.manual_seed(seed)
    of_layers = {name: choices.pop(name) for name in list(choices) if name in KNNLayer.__dataclass_fields__}
    layer = KNNLayer(heads=2, head_dim=4, hidden=7, **of_layers)
    block = MultiScaleTemporalTransformer(dim, layer, depth=depth, **choices).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def tokens(t=7, *, b=3, dim=6):
    return torch.randn(b, t, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(t))


def three_passes(block, x, branches):
    """Return the mean of one pass per scale through its own copy of the layers."""
    total = 0
    for scale, layers in zip((1, 2, 4), branches, strict=True):
        scaled = F.avg_pool1d(x.mT, scale, ceil_mode=True).mT
        if block.position == "sinusoidal":
            scaled = scaled + sinusoidal_position(*scaled.shape[1:], dtype=x.dtype, device=x.device)
        for layer in layers:
            scaled = layer(scaled)
        total = total + scaled.repeat_interleave(scale, dim=1)[:, : x.shape[1]]
    return total / 3


@pytest.fixture(params=["packed", "separate"])
def way(request, monkeypatch):
    """Run all scales at once, or one after the other."""
    monkeypatch.setattr(operator, "MAX_PACKED_TOKENS", 10_000 if request.param == "packed" else 0)
    return request.param


@pytest.mark.parametrize("dim", [1, 2, 7, 256])
def test_positions_are_sines_and_cosines(dim):
    """Eq. 2.9 and 2.10 hold element by element; an odd width ends with a sine."""
    ours = sinusoidal_position(33, dim, dtype=torch.float64, device=torch.device("cpu"))
    for position in range(33):
        for channel in range(dim):
            angle = position / 10000 ** (channel // 2 * 2 / dim)
            wave = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
            assert ours[position, channel].item() == pytest.approx(wave, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_are_rounded_once(dtype):
    exact = sinusoidal_position(300, 64, dtype=torch.float64, device=torch.device("cpu"))
    assert torch.equal(sinusoidal_position(300, 64, dtype=dtype, device=torch.device("cpu")), exact.to(dtype))


@pytest.mark.parametrize(("t", "lengths"), LENGTHS.items())
def test_a_scale_has_the_length_divided_and_rounded_up(t, lengths):
    assert tuple(pool_time(tokens(t), scale).shape[1] for scale in (1, 2, 4)) == lengths
    for scale in (1, 2, 4):
        torch.testing.assert_close(pool_time(tokens(t), scale), F.avg_pool1d(tokens(t).mT, scale, ceil_mode=True).mT)
        assert repeat_time(pool_time(tokens(t), scale), scale, length=t).shape == (3, t, 6)


def test_the_remainder_is_averaged_alone():
    times = torch.arange(1.0, 6)[None, :, None]
    assert pool_time(times, 2).flatten().tolist() == [1.5, 3.5, 5]
    assert pool_time(times, 4).flatten().tolist() == [2.5, 5]
    assert repeat_time(pool_time(times, 2), 2, length=5).flatten().tolist() == [1.5, 1.5, 3.5, 3.5, 5]
    assert pool_time(times, 7).flatten().tolist() == [3]


@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("branches", ["shared", "unshared"])
@pytest.mark.usefixtures("way")
def test_it_equals_a_reference_scale_by_scale_and_time_by_time(t, branches):
    block = trained(branches=branches)
    torch.testing.assert_close(block(tokens(t)), reference_multiscale(block, tokens(t)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("position", ["sinusoidal", "none"])
@pytest.mark.parametrize("attention", ["knn", "dense"])
@pytest.mark.usefixtures("way")
def test_it_equals_three_passes_with_shared_weights(t, position, attention):
    """The gradient is the sum of those of the three copies."""
    block = trained(position=position, attention=attention)
    copies = [copy.deepcopy(block.layers) for _ in range(3)]
    x = tokens(t)
    ours, theirs = block(x), three_passes(block, x, copies)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)

    towards = torch.randn_like(x)
    ours.backward(towards)
    theirs.backward(towards)
    for (name, shared), *apart in zip(block.layers.named_parameters(), *(c.parameters() for c in copies), strict=True):
        total = sum(parameter.grad for parameter in apart)
        torch.testing.assert_close(shared.grad, total, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("attention", ["knn", "dense"])
def test_packed_equals_separate_in_output_and_gradients(t, attention):
    block, results = trained(attention=attention), []
    for way in (block.packed, block.separate):
        x = tokens(t).requires_grad_()
        block.zero_grad()
        answers = way([pool_time(x, scale) for scale in block.scales])
        torch.cat(answers, 1).logsumexp(-1).sum().backward()
        results.append([*answers, x.grad, *(parameter.grad.clone() for parameter in block.parameters())])
    for packed, separate in zip(*results, strict=True):
        torch.testing.assert_close(packed, separate, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("elements", "taken"), [(12, "packed"), (11, "separate")])
def test_the_cpu_packs_only_small_inputs(elements, taken, monkeypatch):
    """Three sequences of 2 + 1 + 1 times."""
    block, called = trained(), []
    monkeypatch.setattr(operator, "MAX_PACKED_TOKENS", elements)
    for way in ("packed", "separate"):
        plain = getattr(block, way)
        monkeypatch.setattr(block, way, lambda scaled, way=way, plain=plain: called.append(way) or plain(scaled))
    block(tokens(2))
    assert called == [taken]


def test_unshared_branches_equal_three_passes_with_separate_weights():
    block, x = trained(branches="unshared"), tokens()
    branches = [block.layers[:2], block.layers[2:4], block.layers[4:]]
    torch.testing.assert_close(block(x), three_passes(block, x, branches), rtol=0, atol=1e-12)
    assert (three_passes(block, x, branches[::-1]) - block(x)).abs().max() > 1e-3


@pytest.mark.usefixtures("way")
def test_one_scale_is_the_plain_transformer():
    block, x = trained(scales=(1,), position="none"), tokens()
    plain = copy.deepcopy(block.layers)
    placed = x + sinusoidal_position(7, 6, dtype=x.dtype, device=x.device)
    assert torch.equal(block(x), plain[1](plain[0](x)))
    assert torch.equal(trained(scales=(1,))(x), plain[1](plain[0](placed)))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("branches", ["shared", "unshared"])
def test_constant_sequences_stay_constant_without_position(t, branches):
    """This holds with k-NN attention, too, where all logits of a row are equal and any k are kept."""
    answer = trained(position="none", branches=branches)(tokens(1).expand(-1, t, -1))
    torch.testing.assert_close(answer, answer[:, :1].expand_as(answer), rtol=0, atol=1e-12)
    if t > 1:
        moving = trained(branches=branches)(tokens(1).expand(-1, t, -1))
        assert (moving - moving[:, :1]).abs().max() > 1e-3


def test_position_restarts_at_each_scale_and_is_added_once():
    """With identity layers the output is the mean of tokens and positions."""
    block, x = trained(), torch.zeros(3, 7, 6, dtype=torch.float64)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    waves = sinusoidal_position(7, 6, dtype=x.dtype, device=x.device)
    expected = sum(waves[[time // scale for time in range(7)]] for scale in (1, 2, 4)) / 3
    torch.testing.assert_close(block(x), expected.expand_as(x), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("way")
def test_times_of_a_sequence_mix_but_sequences_do_not():
    block, x = trained(attention="dense"), tokens()
    moved = x.clone()
    moved[1, 3, 0] += 1
    changed = (block(x) - block(moved)).abs().amax(-1) > 1e-9
    assert changed[1].all()
    assert not changed[[0, 2]].any()
    torch.testing.assert_close(block(x), torch.cat([block(one[None]) for one in x]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dim", "parameters"), [(256, 3_679_232), (512, 7_355_392)])
def test_the_number_of_parameters_is_that_of_one_scale(dim, parameters):
    with torch.device("meta"):
        for scales in ((1,), (1, 2), (1, 2, 4)):
            assert parameter_count(MultiScaleTemporalTransformer(dim, KNNLayer(), scales=scales)) == parameters
        plain = nn.ModuleList(knn_block(dim, KNNLayer()) for _ in range(4))
        assert parameter_count(plain) == parameters
        assert parameter_count(MultiScaleTemporalTransformer(dim, KNNLayer(), branches="unshared")) == 3 * parameters


def test_weights_of_all_scales_are_those_of_one():
    """Table 2.6 compares both with equal layers, so that one loads the other's weights."""
    trained(scales=(1,)).load_state_dict(trained().state_dict())


@pytest.mark.parametrize("branches", ["shared", "unshared"])
def test_every_parameter_gets_a_gradient(branches):
    block = trained(branches=branches)
    block(tokens()).logsumexp(-1).sum().backward()
    assert not [name for name, p in block.named_parameters() if p.grad is None or not p.grad.any()]


def test_dropout_is_for_training_only():
    block, x = trained(dropout=0.5), tokens()
    assert torch.equal(block(x), trained()(x))
    block.train()
    assert not torch.equal(block(x), block(x))


def test_bfloat16_autocast_gives_close_results():
    block, x = trained().float(), tokens().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = block(x)
    assert (cast - block(x)).norm() < 0.05 * block(x).norm()
    assert cast.dtype == torch.float32


@pytest.mark.parametrize("scales", [(), (0, 1), (1, 2, 2)])
def test_invalid_scales_are_refused(scales):
    with pytest.raises(ValueError, match="scales"):
        MultiScaleTemporalTransformer(6, KNNLayer(), scales=scales)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.long
def test_compile_gives_one_graph_and_the_same_results():
    block = trained(depth=1)
    plain, ours = (tokens().requires_grad_() for _ in range(2))
    expected, answer = block(plain), torch.compile(block, fullgraph=True)(ours)
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-12)
    expected.logsumexp(-1).sum().backward()
    answer.logsumexp(-1).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
def test_export_supports_a_dynamic_batch():
    block, batch = trained(depth=1), torch.export.Dim("batch")
    exported = torch.export.export(block, (tokens(),), dynamic_shapes=({0: batch},)).module()
    torch.testing.assert_close(exported(tokens(b=5)), block(tokens(b=5)), rtol=0, atol=1e-12)

"""k-NN attention equals a loop over the rows of its map; tests of MFST's transformer layer."""

import copy

import pytest
import torch
import torch.nn.functional as F
from reference import reference_knn_attention
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kinema.layers import knn_attention as operator
from kinema.layers.knn_attention import (
    KNNLayer,
    dense_attention,
    knn_attention,
    knn_block,
    num_kept_keys,
)
from kinema.models.complexity import parameter_count


@pytest.fixture(params=["sorting", "in chunks", "topk", "topk in a graph"])
def way(request, monkeypatch):
    """Implementations of dropping keys: CPU, CPU in chunks, other devices, torch.compile and export."""
    match request.param:
        case "in chunks":
            monkeypatch.setattr(operator, "CHUNK", 1)
        case "topk":
            monkeypatch.setattr(operator, "eager_on_cpu", lambda _: False)
        case "topk in a graph":
            monkeypatch.setattr(operator, "eager_on_cpu", lambda _: False)
            monkeypatch.setattr(operator, "_is_eager", lambda: False)


def queries_keys_values(*, n=7, b=2, h=3, d=4, c=5, dtype=torch.float64):
    """Return random queries, keys and values, whose logits have no ties."""
    generator = torch.Generator().manual_seed(n)
    return tuple(torch.randn(b, h, n, size, dtype=dtype, generator=generator) for size in (d, d, c))


def map_of(query, key, **choices):
    """Return the attention map: the output for unit vectors as values."""
    n = query.shape[-2]
    return knn_attention(query, key, torch.eye(n, dtype=query.dtype).expand(*query.shape[:2], n, n), **choices)


def map_of_logits(logits, **choices):
    """Return the attention map of one head for these logits."""
    n = len(logits)
    return map_of(torch.eye(n, dtype=logits.dtype)[None, None] * n**0.5, logits.T[None, None], **choices)[0, 0]


def trained(dim=12, **choices):
    """Return a layer with random parameters."""
    torch.manual_seed(0)
    made_of = KNNLayer(**{"heads": 3, "head_dim": 5, "hidden": 9, **choices})
    layer = knn_block(dim, made_of).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def tokens(*, n=10, b=2, dim=12):
    return torch.randn(b, n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize(
    ("n", "share", "kept"),
    [(196, 0.7, 137), (49, 0.7, 34), (32, 0.7, 22), (16, 0.7, 11), (8, 0.7, 5), (1, 0.7, 1), (3, 0.1, 1), (5, 1, 5)],
)
def test_k_is_the_share_of_the_keys_rounded_down_and_at_least_one(n, share, kept):
    assert num_kept_keys(n, share) == kept


@pytest.mark.parametrize("share", [0, -0.5, 1.01, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share):
    for call in (lambda: knn_attention(*queries_keys_values(), share=share), lambda: KNNLayer(share=share)):
        with pytest.raises(ValueError, match="share"):
            call()


@pytest.mark.parametrize("share", [0.7, 0.3, 0.05, 0.99])
@pytest.mark.parametrize("n", [1, 2, 7, 21])
@pytest.mark.usefixtures("way")
def test_it_equals_a_loop_over_sorted_rows(n, share):
    given = queries_keys_values(n=n)
    expected = reference_knn_attention(*given, share=share)
    torch.testing.assert_close(knn_attention(*given, share=share), expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("way")
def test_its_gradient_equals_that_of_the_loop():
    given = [tensor.requires_grad_() for tensor in queries_keys_values()]
    towards = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    expected = torch.autograd.grad(reference_knn_attention(*given, share=0.7), given, towards)
    for fast, literal in zip(torch.autograd.grad(knn_attention(*given), given, towards), expected, strict=True):
        torch.testing.assert_close(fast, literal, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("way")
def test_a_row_of_the_map_is_zero_outside_its_k_largest_logits_and_sums_to_one():
    query, key, _ = queries_keys_values(n=20)
    weights, nearest = map_of(query, key), (query @ key.mT).topk(14).indices
    assert torch.equal(weights != 0, torch.zeros_like(weights, dtype=torch.bool).scatter(-1, nearest, True))
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    assert len({tuple(row) for row in nearest.sort().values.flatten(0, 2).tolist()}) > 100  # to each row its own


@pytest.mark.parametrize("share", [0.7, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.usefixtures("way")
def test_rows_of_equal_logits_keep_exactly_k(share, dtype):
    logits = torch.zeros(10, 10)
    logits[1, 3] = 1
    logits[2, 3] = -1
    logits[3] = torch.arange(10) // 4
    logits[4] = torch.arange(10) * 1e-40  # not equal, but their differences are no normal numbers
    logits[5] = torch.arange(10)
    weights = map_of_logits(logits.to(dtype), share=share)
    assert (weights != 0).sum(-1).tolist() == [num_kept_keys(10, share)] * 10
    assert weights[1, 3] > 0
    assert weights[2, 3] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 3, 7, 9])
@pytest.mark.usefixtures("way")
def test_of_equal_logits_the_first_are_kept(k, dtype):
    """Rows of crafted ties, each many times, since an unstable order shows in some rows only."""
    rows = torch.tensor([[0.0] * 10, [0, 0, 0, 1, 1, 1, 1, 2, 2, 0], [2, 1] * 5, [0, -0.0] * 5, [5] + [4] * 9])
    logits = rows.repeat(40, 1)
    query = torch.eye(10)[None, None].expand(1, 1, -1, -1) * 10**0.5
    keys = logits.view(20, 1, 10, 10).mT
    values = torch.eye(10).expand(20, 1, -1, -1)
    weights = knn_attention(*(part.expand(20, 1, -1, -1).to(dtype) for part in (query, keys, values)), share=k / 10)
    for row, kept in zip(logits.tolist(), (weights != 0).flatten(0, 2).tolist(), strict=True):
        first = sorted(range(10), key=lambda key, of=row: -of[key])[:k]  # Python sorts stably
        assert [key for key in range(10) if kept[key]] == sorted(first)


@pytest.mark.parametrize("kind", ["still", "repeated", "blank"])
@pytest.mark.usefixtures("way")
def test_equal_tokens_give_equal_results_at_every_batch_size(kind):
    """Tokens of a still video, of a short one whose frames are repeated, and of blank frames."""
    layer = trained().float()
    x = tokens(n=6, b=16).float()
    x = {"still": x[:, :1], "repeated": x, "blank": torch.zeros(16, 1, 12)}[kind]
    x = x.repeat_interleave(24 // x.shape[1], 1)
    apart = torch.cat([layer(one[None]) for one in x])
    torch.testing.assert_close(layer(x), apart, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("way")
def test_logits_with_a_non_finite_difference_are_kept():
    weights = map_of_logits(torch.tensor([[-3e38, 3e38, 2e38, -2e38]]).repeat(4, 1), share=0.75)
    assert torch.equal(weights, torch.tensor([0.0, 1, 0, 0]).repeat(4, 1))


@pytest.mark.parametrize("share", [0.7, 0.1])
@pytest.mark.usefixtures("way")
def test_nan_is_propagated(share):
    for spoilt, seen in (("query", 1), ("key", 20), ("value", None)):
        given = dict(zip(("query", "key", "value"), queries_keys_values(n=20), strict=True))
        given[spoilt] = given[spoilt].clone()
        given[spoilt][0, 0, 4] = torch.nan
        rows = knn_attention(**given, share=share).isnan().all(-1).sum(-1)
        assert rows.sum() == rows[0, 0]
        assert rows[0, 0] == (20 if seen is None else seen)


@pytest.mark.parametrize("n", [1, 6, 49])
@pytest.mark.usefixtures("way")
def test_with_all_keys_it_equals_dense_attention_bitwise(n):
    given = [tensor.requires_grad_() for tensor in queries_keys_values(n=n, d=4, c=4, dtype=torch.float32)]
    ours, theirs = knn_attention(*given, share=1), F.scaled_dot_product_attention(*given)
    assert torch.equal(ours, theirs)
    for gradients in zip(torch.autograd.grad(ours.sum(), given), torch.autograd.grad(theirs.sum(), given), strict=True):
        assert torch.equal(*gradients)


def test_a_single_token_returns_its_value():
    query, key, value = queries_keys_values(n=1)
    assert torch.equal(knn_attention(query, key, value), value)


@pytest.mark.parametrize("n", [1, 8, 64, 65])
def test_both_implementations_of_dense_attention_are_equal(n):
    given = queries_keys_values(n=n)
    torch.testing.assert_close(dense_attention(*given), F.scaled_dot_product_attention(*given), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("way")
def test_the_gradient_equals_finite_differences():
    given = [tensor.requires_grad_() for tensor in queries_keys_values(b=1, h=2)]
    assert torch.autograd.gradcheck(knn_attention, given)
    assert torch.autograd.gradgradcheck(knn_attention, given)


@pytest.mark.usefixtures("way")
def test_only_kept_logits_get_a_gradient():
    logits = torch.randn(20, 20, dtype=torch.float64, requires_grad=True)
    weights = map_of_logits(logits)
    (weights * torch.randn(20, 20)).sum().backward()
    assert torch.equal(logits.grad != 0, weights != 0)
    assert ((logits.grad != 0).sum(-1) == 14).all()


@pytest.mark.usefixtures("way")
def test_under_bfloat16_autocast_the_same_keys_are_kept_as_in_float32():
    query, key, _ = queries_keys_values(n=64, d=16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = map_of(query, key)
        rounded = (query @ key.mT).topk(44).indices
    assert torch.equal(cast != 0, map_of(query, key) != 0)
    coarse = torch.zeros(cast.shape, dtype=torch.bool).scatter(-1, rounded, True)
    assert not torch.equal(cast != 0, coarse)  # bfloat16 logits would have kept others


@pytest.mark.usefixtures("way")
def test_bfloat16_keys_are_ranked_in_float32():
    query, key, value = queries_keys_values(n=64, d=16, dtype=torch.bfloat16)
    assert torch.equal(map_of(query, key) != 0, map_of(query.float(), key.float()) != 0)
    assert knn_attention(query, key, value).dtype == torch.bfloat16


@pytest.mark.parametrize("attention", ["knn", "dense"])
@pytest.mark.parametrize("dim", [12, 15])
def test_the_layer_is_prenorm_attention_and_mlp_with_residuals(attention, dim):
    """Head width is independent of token width; queries, keys, values are in this order."""
    layer, x = trained(dim, attention=attention), tokens(dim=dim)
    share = 0.7 if attention == "knn" else 1

    mapped = layer.norm_attention(x) @ layer.attention.mapping.weight.T
    query, key, value = (part.reshape(2, 10, 3, 5).transpose(1, 2) for part in mapped.split(15, -1))
    attended = reference_knn_attention(query, key, value, share=share).transpose(1, 2).reshape(2, 10, 15)
    middle = x + attended @ layer.attention.out.weight.T + layer.attention.out.bias
    hidden = F.gelu(layer.norm_mlp(middle) @ layer.mlp.expand.weight.T + layer.mlp.expand.bias)
    expected = middle + hidden @ layer.mlp.contract.weight.T + layer.mlp.contract.bias

    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


def test_knn_and_dense_differ():
    layer = trained()
    dense = copy.deepcopy(layer)
    dense.attention.attention = "dense"
    assert (layer(tokens()) - dense(tokens())).abs().max() > 1e-3


def reference_eq28(layer, x):
    """Eq. 2.8 as printed: no residual."""
    return layer.mlp(layer.norm_mlp(layer.attention(x)))


def test_without_residuals_all_tokens_become_equal():
    """The reason for the DEVIATION: eight layers, those of a stage, at initialization."""

    def spread(block):
        torch.manual_seed(0)
        layers = [knn_block(64, KNNLayer(heads=2, head_dim=32, hidden=96)).double() for _ in range(8)]
        x = tokens(dim=64)
        for layer in layers:
            x = block(layer, x)
        return ((x - x.mean(1, keepdim=True)).norm() / x.norm()).item()

    assert spread(reference_eq28) < 1e-12
    assert spread(lambda layer, x: layer(x)) > 0.5


@pytest.mark.parametrize("attention", ["knn", "dense"])
def test_concatenated_sequences_do_not_mix(attention):
    layer, parts = trained(attention=attention), [tokens(n=n) for n in (8, 4, 1, 2)]
    packed = layer(torch.cat(parts, 1), [8, 4, 1, 2])
    torch.testing.assert_close(packed, torch.cat([layer(part) for part in parts], 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", ["knn", "dense"])
def test_samples_do_not_mix_and_token_order_does_not_matter(attention):
    layer, x, order = trained(attention=attention), tokens(), torch.randperm(10)
    torch.testing.assert_close(layer(x), torch.cat([layer(one[None]) for one in x]), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order], rtol=0, atol=1e-12)


def test_every_parameter_gets_a_gradient():
    layer = trained()
    layer(tokens()).logsumexp(-1).sum().backward()
    assert not [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("attention", ["knn", "dense"])
@pytest.mark.parametrize("n", [10, 70])
def test_dropout_is_for_training_only(n, attention):
    layer, x = trained(dropout=0.5, attention=attention), tokens(n=n)
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(layer(x), trained(attention=attention)(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))


@pytest.mark.parametrize(("dim", "parameters"), [(256, 3_679_232), (512, 7_355_392)])
@pytest.mark.parametrize("attention", ["knn", "dense"])
def test_four_layers_have_the_parameters_of_mfsts_blocks(dim, parameters, attention):
    with torch.device("meta"):
        assert (
            parameter_count(nn.ModuleList(knn_block(dim, KNNLayer(attention=attention)) for _ in range(4)))
            == parameters
        )


def test_its_macs_are_counted_like_those_of_dense_attention():
    counts = []
    for attention in ("knn", "dense"):
        layer = trained(attention=attention).to("meta")
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            layer(torch.empty(2, 49, 12, dtype=torch.float64, device="meta"))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 2 * 2 * 49 * (12 * 45 + 2 * 15 * 49 + 15 * 12 + 2 * 12 * 9)


def test_inference_mode_gives_the_same():
    layer = trained()
    with torch.inference_mode():
        inferred = layer(tokens())
    assert torch.equal(inferred, layer(tokens()))


def test_recomputed_activations_keep_the_same_keys():
    layer = trained().train()
    plain, again = (tokens().requires_grad_() for _ in range(2))
    layer(plain).logsumexp(-1).sum().backward()
    torch.utils.checkpoint.checkpoint(layer, again, use_reentrant=False).logsumexp(-1).sum().backward()
    assert torch.equal(plain.grad, again.grad)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("backend", "lengths"), [("aot_eager", [6, 4]), pytest.param("inductor", None, marks=pytest.mark.long)]
)
def test_compile_gives_one_graph_and_the_same_results(backend, lengths):
    layer = trained()
    torch.compiler.reset()  # what other tests compiled does not count against this one
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    plain, ours = (tokens().requires_grad_() for _ in range(2))
    expected, answer = layer(plain, lengths), compiled(ours, lengths)
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-12)
    expected.logsumexp(-1).sum().backward()
    answer.logsumexp(-1).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.long)])
def test_export_supports_a_dynamic_batch(strict):
    layer, batch = trained(), torch.export.Dim("batch")
    exported = torch.export.export(layer, (tokens(b=3),), dynamic_shapes=({0: batch},), strict=strict).module()
    torch.testing.assert_close(exported(tokens(b=5)), layer(tokens(b=5)), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # k is fixed with the length: as it should be
def test_a_trace_selects_keys_for_each_input():
    layer = trained()
    traced = torch.jit.trace(layer, (tokens(),))
    torch.testing.assert_close(traced(-tokens()), layer(-tokens()), rtol=0, atol=1e-6)  # a trace keeps no double

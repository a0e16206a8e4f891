"""Relative position attention equals loops over pairs of tokens."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from reference import reference_relative_attention
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from kinema.layers.relative_position import Clusters, RelativePosition, RelativeSelfAttention

TERMS = ("query", "query-key", "query-key-value")
TABLES = {"query": 1, "query-key": 2, "query-key-value": 3}
SHARINGS = ("shared", "per-head")


def random_position(terms, sharing, *, clusters=10, heads=2, d=4, seed=0):
    """Return a relative position with random tables."""
    torch.manual_seed(seed)
    position = RelativePosition(clusters, heads=heads, head_dim=d, sharing=sharing, terms=terms).double()
    for table in position.parameters():
        nn.init.normal_(table)
    return position


def queries_keys_values(*, b=2, h=2, m=5, n=5, d=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n)
    return tuple(torch.randn(b, h, size, d, dtype=dtype, generator=generator) for size in (m, n, n))


def random_ids(*shape, clusters=10):
    return torch.randint(clusters, shape, generator=torch.Generator().manual_seed(3))


def by_pairs(position, query, key, value, ids):
    """Return attention by eq. 3.5 and 3.6 with an explicit tensor R[b, h, i, j, :]."""
    heads = query.shape[1]

    def vectors(table):
        if table is None:
            return torch.zeros(*ids.shape, query.shape[-1], dtype=query.dtype)
        return torch.stack([table[head % len(table)][ids[:, head]] for head in range(heads)], dim=1)

    on_query, on_key, on_value = map(vectors, (position.table_on_key, position.table_on_query, position.table_on_value))
    logits = torch.einsum("bhijd,bhijd->bhij", query[:, :, :, None] + on_query, key[:, :, None] + on_key)
    weights = (logits / query.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("bhij,bhijd->bhid", weights, value[:, :, None] + on_value)


def trained(position, *, dim=6, heads=2, d=4, dropout=0.0):
    """Return attention with random parameters."""
    torch.manual_seed(1)
    attention = RelativeSelfAttention(dim, heads=heads, head_dim=d, dropout=dropout).double().eval()
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    attention.position = copy.deepcopy(position)
    return attention


def tokens(n=5, *, b=2, dim=6):
    return torch.randn(b, n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


@pytest.fixture(params=[None, *itertools.product(TERMS, SHARINGS)], ids=str)
def position(request):
    """Return no position, and each form of it."""
    return None if request.param is None else random_position(*request.param)


# -- attention with the vectors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize(("sharing", "tables"), [("shared", 1), ("per-head", 3)])
def test_each_term_has_a_table_of_zeros(terms, sharing, tables):
    position = RelativePosition(50, heads=3, head_dim=8, sharing=sharing, terms=terms)
    assert [tuple(table.shape) for table in position.parameters()] == [(tables, 50, 8)] * TABLES[terms]
    assert not any(table.any() for table in position.parameters())


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize(("b", "h", "m", "n"), [(2, 3, 5, 5), (1, 1, 1, 1), (2, 2, 3, 6)])
def test_the_loop_over_pairs_is_the_sum_over_a_vector_for_each_pair(terms, sharing, b, h, m, n):
    position = random_position(terms, sharing, heads=h)
    given = (*queries_keys_values(b=b, h=h, m=m, n=n), random_ids(b, h, m, n))
    torch.testing.assert_close(
        reference_relative_attention(position, *given), by_pairs(position, *given), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize(("ids_b", "ids_h"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_attention_equals_the_loop_over_pairs(terms, sharing, ids_b, ids_h):
    """Clusters may be shared by clips and heads, or differ."""
    position = random_position(terms, sharing, heads=3)
    given, ids = queries_keys_values(h=3), random_ids(ids_b, ids_h, 5, 5)
    expected = reference_relative_attention(position, *given, ids.expand(2, 3, -1, -1))
    torch.testing.assert_close(position(*given, ids), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_its_gradients_equal_those_with_a_vector_for_each_pair(terms, sharing):
    position = random_position(terms, sharing)
    given, ids = [tensor.requires_grad_() for tensor in queries_keys_values()], random_ids(2, 2, 5, 5)
    towards = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    learned = [*given, *position.parameters()]
    ours = torch.autograd.grad(position(*given, ids), learned, towards)
    theirs = torch.autograd.grad(by_pairs(position, *given, ids), learned, towards)
    for fast, literal in zip(ours, theirs, strict=True):
        torch.testing.assert_close(fast, literal, rtol=0, atol=1e-12)
    assert all(gradient.any() for gradient in ours)


def test_the_logits_equal_a_loop_of_eq_3_7():
    position, (query, key, _) = random_position("query", "per-head", heads=3), queries_keys_values(h=3)
    ids = Clusters(count=10).on_grid(2, 2)
    logits = (query @ key.mT + position.bias(query, key, ids[None, None])) / 2
    for b, h, i, j in itertools.product(range(2), range(3), range(5), range(5)):
        q, k, p = query[b, h, i], key[b, h, j], position.table_on_query[h, ids[i, j]]
        assert logits[b, h, i, j].item() == pytest.approx(((q @ k + q @ p) / math.sqrt(4)).item(), abs=1e-12)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_gradients_equal_finite_differences_including_tables(terms, sharing):
    position = random_position(terms, sharing, clusters=4, d=3)
    ids, names = random_ids(1, 1, 3, 4, clusters=4), [name for name, _ in position.named_parameters()]

    def attend(query, key, value, *tables):
        return functional_call(position, dict(zip(names, tables, strict=True)), (query, key, value, ids))

    given = [tensor.requires_grad_() for tensor in queries_keys_values(b=1, m=3, n=4, d=3)]
    assert torch.autograd.gradcheck(attend, (*given, *position.parameters()))


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_initially_it_equals_attention_without_position(terms, sharing):
    position = RelativePosition(10, heads=2, head_dim=4, sharing=sharing, terms=terms).double()
    given = queries_keys_values()
    expected = F.scaled_dot_product_attention(*given)
    torch.testing.assert_close(position(*given, random_ids(1, 1, 5, 5)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("terms", TERMS)
def test_a_shared_table_is_the_same_one_for_each_attention_head(terms):
    shared, apart = random_position(terms, "shared", heads=3), random_position(terms, "per-head", heads=3, seed=1)
    given, ids = queries_keys_values(h=3), random_ids(2, 3, 5, 5)
    assert (shared(*given, ids) - apart(*given, ids)).abs().max() > 1e-2
    apart.load_state_dict({name: table.repeat(3, 1, 1) for name, table in shared.state_dict().items()})
    torch.testing.assert_close(shared(*given, ids), apart(*given, ids), rtol=0, atol=1e-12)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("rows", [[0], [0, 3, 4], [2, 1]])
def test_a_subset_of_queries_gives_the_same_rows(terms, rows):
    position, (query, key, value), ids = (
        random_position(terms, "per-head"),
        queries_keys_values(),
        random_ids(1, 2, 5, 5),
    )
    some = position(query[:, :, rows], key, value, ids[:, :, rows])
    torch.testing.assert_close(some, position(query, key, value, ids)[:, :, rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("sharing", SHARINGS)
def test_equal_vectors_on_queries_have_no_effect(sharing):
    """A constant added to all logits of a row cancels in softmax."""
    position, given = random_position("query", sharing), queries_keys_values()
    with torch.no_grad():
        position.table_on_query.copy_(position.table_on_query[:, :1].expand_as(position.table_on_query))
    expected = F.scaled_dot_product_attention(*given)
    torch.testing.assert_close(position(*given, random_ids(1, 1, 5, 5)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("terms", TERMS)
def test_each_term_changes_the_output(terms):
    position, given, ids = random_position(terms, "shared"), queries_keys_values(), random_ids(1, 1, 5, 5)
    whole = position(*given, ids)
    for table in position.parameters():
        before = table.detach().clone()
        nn.init.zeros_(table)
        assert (position(*given, ids) - whole).abs().max() > 1e-2
        with torch.no_grad():
            table.copy_(before)


@pytest.mark.parametrize("terms", TERMS)
def test_a_vector_learns_only_if_its_cluster_occurs(terms):
    position, given, ids = random_position(terms, "shared"), queries_keys_values(), random_ids(1, 1, 5, 5, clusters=7)
    position(*given, ids).logsumexp(-1).sum().backward()
    for table in position.parameters():
        assert torch.equal(table.grad[0].any(-1).nonzero().flatten(), ids.unique())


@pytest.mark.parametrize("terms", TERMS)
def test_dropout_drops_pairs_and_scales_the_others(terms):
    """With unit vectors as values the output is the map itself, plus the term of the value table."""
    position, n = random_position(terms, "shared", clusters=4, heads=8, d=64), 64
    query, key, _ = queries_keys_values(b=1, h=8, m=n, n=n, d=64)
    value, ids = torch.eye(n, dtype=torch.float64).expand(1, 8, n, n), random_ids(1, 1, n, n, clusters=4)
    if position.table_on_value is not None:
        nn.init.zeros_(position.table_on_value)
    torch.manual_seed(0)
    whole, left = position(query, key, value, ids), position(query, key, value, ids, 0.25)
    assert ((left != 0).sum() / left.numel()).item() == pytest.approx(0.75, abs=0.02)
    torch.testing.assert_close(left[left != 0], whole[left != 0] / 0.75)


class LargestAnswer(TorchDispatchMode):
    """Recorder of the size of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        del types
        answer = operation(*args, **(kwargs or {}))
        for tensor in answer if isinstance(answer, tuple | list) else (answer,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return answer


@pytest.mark.parametrize("terms", TERMS)
def test_no_vector_per_pair_is_materialized(terms):
    position, n = random_position(terms, "per-head", clusters=50, heads=2, d=64), 197
    given = [tensor.requires_grad_() for tensor in queries_keys_values(b=1, m=n, n=n, d=64)]
    ids = Clusters().on_grid(14, 14)[None, None]
    with LargestAnswer() as watched:
        position(*given, ids).sum().backward()
    assert watched.numbers == 2 * n * n  # those of the map; vectors would be 64 times as many
    with LargestAnswer() as watched:
        by_pairs(position, *given, ids.expand(1, 2, -1, -1))
    assert watched.numbers == 2 * n * n * 64


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("tables", [torch.float32, torch.bfloat16])
def test_bfloat16_gives_close_results(terms, tables):
    position, given = random_position(terms, "per-head", clusters=50, d=16), queries_keys_values(m=50, n=50, d=16)
    ids = Clusters().on_grid(7, 7)[None, None]
    expected = position(*given, ids)
    answer = position.to(tables)(*(tensor.bfloat16() for tensor in given), ids)
    assert answer.dtype == torch.bfloat16
    assert (answer - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("terms", TERMS)
def test_bfloat16_autocast_gives_close_attention(terms):
    attention, ids = trained(random_position(terms, "per-head")).float(), random_ids(1, 1, 20, 20)
    x = tokens(20).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = attention(x, ids)
        logits, value = attention.logits_and_values(x, ids)
        by_attend = attention.attend(logits.softmax(-1), value, ids)
        cast.sum().backward()
    expected = attention(x, ids)
    for answer in (cast, by_attend):
        assert (answer - expected).norm() < 0.05 * expected.norm()


# -- multi-head self-attention -----------------------------------------------------------------------------------------


def test_without_position_it_equals_vits_attention():
    """Heads have four channels; queries, keys, values are in this order, head by head."""
    attention, x = trained(None), tokens()
    expected = torch.zeros(2, 5, 6, dtype=torch.float64)
    weight, bias = attention.mapping.weight, attention.mapping.bias
    for b in range(2):
        heads = []
        for h in range(2):
            query, key, value = (
                x[b] @ weight[first : first + 4].T + bias[first : first + 4] for first in (4 * h, 8 + 4 * h, 16 + 4 * h)
            )
            heads.append(torch.softmax(query @ key.T / math.sqrt(4), dim=-1) @ value)
        expected[b] = torch.cat(heads, dim=-1) @ attention.out.weight.T + attention.out.bias
    torch.testing.assert_close(attention(x, None), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(attention(x, random_ids(1, 1, 5, 5)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize(("ids_b", "ids_h"), [(1, 1), (2, 1), (2, 2)])
def test_with_position_it_equals_the_loop_over_pairs_between_two_linear_layers(terms, sharing, ids_b, ids_h):
    attention, x, ids = trained(random_position(terms, sharing)), tokens(), random_ids(ids_b, ids_h, 5, 5)
    query, key, value = (part.reshape(2, 5, 2, 4).transpose(1, 2) for part in attention.mapping(x).split(8, dim=-1))
    attended = reference_relative_attention(attention.position, query, key, value, ids.expand(2, 2, -1, -1))
    expected = attended.transpose(1, 2).reshape(2, 5, 8) @ attention.out.weight.T + attention.out.bias
    torch.testing.assert_close(attention(x, ids), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", ["all", "class"])
def test_without_clusters_no_vectors_are_used(rows):
    attention, plain = trained(random_position("query-key-value", "shared")), trained(None)
    assert torch.equal(attention(tokens(), None, rows), plain(tokens(), None, rows))


def test_the_class_row_equals_the_first_of_all_rows_in_output_and_gradient(position):
    attention, ids, results = trained(position), random_ids(1, 1, 5, 5), []
    for rows in ("class", "all"):
        x = tokens().requires_grad_()
        attention.zero_grad()
        answer = attention(x, ids, rows)
        assert answer.shape == (2, 1 if rows == "class" else 5, 6)
        answer[:, :1].logsumexp(-1).sum().backward()
        results.append([answer[:, :1], x.grad, *(parameter.grad.clone() for parameter in attention.parameters())])
    for alone, among in zip(*results, strict=True):
        torch.testing.assert_close(alone, among, rtol=0, atol=1e-12)


def test_the_class_tokens_vectors_on_queries_get_no_gradient():
    """All pairs with the class token share a cluster, which softmax cancels; the table has no effect."""
    attention, x = trained(random_position("query", "shared")), tokens()
    ids = Clusters(count=10).on_grid(2, 2)[None, None]
    answer = attention(x, ids, "class")
    torch.testing.assert_close(answer, attention(x, None, "class"), rtol=0, atol=1e-12)
    answer.logsumexp(-1).sum().backward()
    assert attention.position.table_on_query.grad.abs().max() < 1e-12
    assert not torch.allclose(attention(x, ids)[:, 1:], attention(x, None)[:, 1:], atol=1e-2)


@pytest.mark.parametrize(("ids_b", "ids_h"), [(1, 1), (2, 2)])
def test_logits_and_values_and_attend_together_equal_forward(position, ids_b, ids_h):
    attention, ids = trained(position), random_ids(ids_b, ids_h, 5, 5)
    expected = attention(tokens(), ids)
    logits, value = attention.logits_and_values(tokens(), ids)
    assert (logits.shape, value.shape) == ((2, 2, 5, 5), (2, 2, 5, 4))
    weights = logits.softmax(-1)
    torch.testing.assert_close(attention.attend(weights, value, ids), expected, rtol=0, atol=1e-12)
    some = attention.attend(weights[:, :, [0, 2]], value, ids[:, :, [0, 2]])
    torch.testing.assert_close(some, expected[:, [0, 2]], rtol=0, atol=1e-12)


def test_samples_do_not_mix(position):
    attention, ids = trained(position), random_ids(2, 1, 5, 5)
    apart = [attention(x[None], own[None]) for x, own in zip(tokens(), ids, strict=True)]
    torch.testing.assert_close(attention(tokens(), ids), torch.cat(apart), rtol=0, atol=1e-12)


def test_token_order_matters_only_through_clusters(position):
    attention, ids, order = trained(position), random_ids(1, 1, 5, 5), torch.tensor([0, 3, 1, 4, 2])
    moved = attention(tokens()[:, order], ids[..., order, :][..., order])
    torch.testing.assert_close(moved, attention(tokens(), ids)[:, order], rtol=0, atol=1e-12)
    still = attention(tokens()[:, order], ids)
    assert torch.allclose(still, moved, atol=1e-6) == (position is None)


def ways_of(attention, x, ids):
    """Return the layer's output, its class row, and the output by `logits_and_values` and `attend`."""
    logits, value = attention.logits_and_values(x, ids)
    return attention(x, ids), attention(x, ids, "class"), attention.attend(logits.softmax(-1), value, ids)


def test_dropout_is_for_training_only(position):
    attention, x, ids = trained(position, dropout=0.5), tokens(), random_ids(1, 1, 5, 5)
    plain = ways_of(trained(position), x, ids)
    for first, again, without in zip(ways_of(attention, x, ids), ways_of(attention, x, ids), plain, strict=True):
        assert torch.equal(first, again)
        assert torch.equal(first, without)
    attention.train()
    for first, again in zip(ways_of(attention, x, ids), ways_of(attention, x, ids), strict=True):
        assert not torch.equal(first, again)
    for first, without in zip(ways_of(trained(position).train(), x, ids), plain, strict=True):
        assert torch.equal(first, without)


def test_dropout_is_applied_to_map_and_output_and_keeps_the_mean(position):
    """The remaining outputs differ, since the map lost some weights."""
    attention, ids, draws = trained(position, dropout=0.25).train(), random_ids(1, 1, 5, 5), 8000
    torch.manual_seed(0)
    answers = ways_of(attention, tokens(b=1).expand(draws, -1, -1), ids)
    for answer, expected in zip(answers, ways_of(attention.eval(), tokens(b=1), ids), strict=True):
        assert (answer == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
        assert answer[:, 0, 0].unique().numel() > 10
        assert ((answer.mean(0) - expected[0]).abs() < 5 * answer.std(0) / draws**0.5).all()


def test_every_parameter_gets_a_gradient(position):
    attention = trained(position)
    attention(tokens(), random_ids(1, 1, 5, 5)).logsumexp(-1).sum().backward()
    dead = {name for name, p in attention.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9}
    assert not dead


# -- other ways to run it ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("rows", ["all", "class"])
@pytest.mark.parametrize("terms", TERMS)
def test_compile_gives_one_graph_and_the_same_results(terms, rows):
    attention, ids = trained(random_position(terms, "per-head")), random_ids(1, 1, 5, 5)
    torch.compiler.reset()  # what other tests compiled does not count against this one
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    plain, ours = (tokens().requires_grad_() for _ in range(2))
    expected, answer = attention(plain, ids, rows), compiled(ours, ids, rows)
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-12)
    expected.logsumexp(-1).sum().backward()
    answer.logsumexp(-1).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("rows", ["all", "class"])
@pytest.mark.parametrize("terms", TERMS)
def test_export_supports_a_dynamic_batch(terms, rows):
    attention, ids, batch = trained(random_position(terms, "shared")), random_ids(1, 1, 5, 5), torch.export.Dim("batch")
    exported = torch.export.export(
        attention, (tokens(b=3), ids, rows), dynamic_shapes={"tokens": {0: batch}, "ids": None, "rows": None}
    ).module()
    torch.testing.assert_close(exported(tokens(b=5), ids, rows), attention(tokens(b=5), ids, rows), rtol=0, atol=1e-12)


def test_the_state_dict_does_not_depend_on_the_grid():
    names = set(trained(random_position("query-key-value", "shared")).state_dict())
    tables = {"position.table_on_query", "position.table_on_key", "position.table_on_value"}
    assert names == tables | {"mapping.weight", "mapping.bias", "out.weight", "out.bias"}

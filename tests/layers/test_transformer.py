"""The parts that all our transformers share."""

import pytest
import torch
from torch import nn

from kinema.layers.transformer import MLP, ClassToken, DropPath, LinearMapping, SelfAttention, TaskHeads


def test_attention_is_the_softmax_average_of_the_values_in_each_head():
    torch.manual_seed(0)
    attention = SelfAttention(LinearMapping(12), dim=12, heads=3).double()
    tokens = torch.randn(2, 5, 12, dtype=torch.float64)
    query, key, value = attention.mapping(tokens)
    heads = []
    for head in (slice(0, 4), slice(4, 8), slice(8, 12)):
        weights = (query[..., head] @ key[..., head].transpose(1, 2) / 4**0.5).softmax(-1)
        heads.append(weights @ value[..., head])
    torch.testing.assert_close(attention(tokens), attention.out(torch.cat(heads, -1)), rtol=0, atol=1e-12)


def test_attention_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="dim=10"):
        SelfAttention(LinearMapping(10), dim=10, heads=3)


def test_the_mlp_drops_hidden_and_output_channels():
    mlp = MLP(8, hidden=16, dropout=0.5).double()
    tokens = torch.randn(4, 8, dtype=torch.float64)
    torch.manual_seed(0)
    out = mlp(tokens)
    torch.manual_seed(0)
    hidden = nn.functional.dropout(nn.functional.gelu(mlp.expand(tokens)), 0.5)
    assert torch.equal(out, nn.functional.dropout(mlp.contract(hidden), 0.5))


@pytest.mark.parametrize(
    "module",
    [SelfAttention(LinearMapping(8), dim=8, heads=2, dropout=0.5), MLP(8, hidden=16, dropout=0.5), DropPath(0.5)],
    ids=["attention", "mlp", "drop-path"],
)
def test_chance_is_for_training_only(module):
    tokens = torch.randn(16, 4, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    module.train()
    assert not torch.equal(module(tokens), module(tokens))
    module.eval()
    assert torch.equal(module(tokens), module(tokens))


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    dropped = DropPath(0.25)(torch.ones(4000, 2, 3))
    assert sorted(set(dropped.flatten(1).amax(1).tolist())) == [0.0, pytest.approx(4 / 3)]
    assert torch.equal(dropped.flatten(1).amax(1), dropped.flatten(1).amin(1))
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)
    with pytest.raises(ValueError, match="rate"):
        DropPath(1.0)


def test_the_class_token_comes_first_and_is_the_same_for_all():
    token = ClassToken(3)
    nn.init.normal_(token.token)
    tokens = torch.randn(2, 4, 3)
    joined = token(tokens)
    assert torch.equal(joined[:, 1:], tokens)
    assert torch.equal(joined[:, 0], token.token.expand(2, 3))


def test_one_task_head_answers_with_a_tensor_and_several_with_a_dict():
    features = torch.randn(2, 6)
    assert TaskHeads(6, {"label": 5})(features).shape == (2, 5)
    answer = TaskHeads(6, {"verb": 97, "noun": 300})(features)
    assert {head: logits.shape for head, logits in answer.items()} == {"verb": (2, 97), "noun": (2, 300)}
    assert list(answer) == ["verb", "noun"]


def test_a_task_head_may_have_a_name_that_a_module_uses_itself():
    assert set(TaskHeads(6, {"type": 2, "keys": 3, "forward": 4})(torch.randn(1, 6))) == {"type", "keys", "forward"}


@pytest.mark.parametrize(
    ("heads", "message"),
    [({}, "at least one"), ({"verb": 0}, "'verb' has 0 classes"), ({"a.b": 3}, "cannot be called 'a.b'")],
)
def test_impossible_task_heads_are_refused(heads, message):
    with pytest.raises(ValueError, match=message):
        TaskHeads(6, heads)

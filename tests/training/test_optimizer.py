"""Tests of learning rate, parameter groups, averaged weights and loss."""

import math
from dataclasses import replace

import pytest
import torch

from kinema.models.mfst import MFST_TINY
from kinema.models.registry import create_model
from kinema.models.two_stream import TwoStreamConfig
from kinema.training.optimizer import (
    class_weights,
    is_matrix,
    layer_depths,
    learning_rate,
    make_ema,
    make_optimizer,
    multi_head_loss,
    parameter_groups,
)
from kinema.training.recipe import Optim


def test_the_rate_warms_up_linearly_and_falls_as_half_a_cosine() -> None:
    optim = Optim(lr=2.0, lr_start=0.1, lr_end=0.01, epochs=10, warmup_epochs=1)
    rates = [learning_rate(step, optim=optim, steps=100, warmup_steps=10) for step in range(101)]
    for step in range(10):
        assert rates[step] == pytest.approx(2.0 * (0.1 + 0.9 * step / 10))
    for step in range(10, 101):
        cosine = 0.5 * (1 + math.cos(math.pi * (step - 10) / 90))
        assert rates[step] == pytest.approx(2.0 * (0.01 + 0.99 * cosine))
    assert rates[10] == 2.0
    assert rates[100] == pytest.approx(0.02)


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert learning_rate(0, optim=Optim(lr=0.3, epochs=1), steps=10, warmup_steps=0) == 0.3


def test_the_loss_is_the_sum_of_the_heads_cross_entropies() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = {"verb": torch.randn(3, 4, generator=generator), "noun": torch.randn(3, 5, generator=generator)}
    targets = {"verb": torch.tensor([0, 3, 1]), "noun": torch.tensor([4, 0, 2])}
    expected = torch.tensor(0.0)
    for head, target in targets.items():
        log_shares = logits[head].double().log_softmax(-1)
        smooth = torch.full_like(log_shares, 0.1 / log_shares.shape[1])
        smooth[torch.arange(3), target] += 0.9
        expected = expected - (smooth * log_shares).sum(-1).mean()
    assert multi_head_loss(logits, targets, label_smoothing=0.1).item() == pytest.approx(expected.item(), rel=1e-6)


def test_class_numbers_and_shares_of_classes_mean_the_same() -> None:
    logits = {"label": torch.randn(4, 3, generator=torch.Generator().manual_seed(1))}
    numbers = torch.tensor([2, 0, 1, 1])
    shares = torch.nn.functional.one_hot(numbers, 3).float()
    torch.testing.assert_close(
        multi_head_loss(logits, {"label": numbers}, label_smoothing=0.2),
        multi_head_loss(logits, {"label": shares}, label_smoothing=0.2),
    )


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_is_the_named_one_with_the_recipes_numbers(name, kind) -> None:
    optimizer = make_optimizer(torch.nn.Linear(2, 2), Optim(optimizer=name, lr=0.1, weight_decay=0.02, epochs=1))
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["weight_decay"] == 0.02


def small_network() -> torch.nn.Module:
    return create_model("ctn_tiny", num_classes=3, frames=8, size=32, depth=2, width=24, attention_heads=3)


def group_of(name: str, model: torch.nn.Module, groups: list[dict[str, object]]) -> dict[str, object]:
    parameter = dict(model.named_parameters())[name]
    (found,) = [g for g in groups if any(p is parameter for p in g["params"])]  # type: ignore[attr-defined]
    return found


def test_norms_biases_and_tables_are_not_decayed_and_everything_is_in_one_group() -> None:
    model = small_network()
    groups = parameter_groups(model, Optim(lr=0.1, weight_decay=0.3, epochs=1))
    for name, parameter in model.named_parameters():
        still = parameter.ndim == 1 or name == "class_token.token"
        assert group_of(name, model, groups)["weight_decay"] == (0.0 if still else 0.3), name
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))  # type: ignore[arg-type]


def test_tables_of_two_axes_are_tables() -> None:
    assert not is_matrix("position.table", torch.zeros(5, 3))
    assert not is_matrix("blocks.0.attention.bias_table", torch.zeros(5, 3))
    assert is_matrix("blocks.0.mlp.expand.weight", torch.zeros(5, 3))


def test_everything_is_decayed_where_the_recipe_says_so() -> None:
    groups = parameter_groups(small_network(), Optim(lr=0.1, weight_decay=0.3, decay="all", epochs=1))
    assert [g["weight_decay"] for g in groups] == [0.3]


def test_layers_further_from_the_heads_learn_more_slowly() -> None:
    """Learning rates are scaled by 0.5 for each layer between a parameter and the heads."""
    model = small_network()
    groups = parameter_groups(model, Optim(lr=0.1, layer_decay=0.5, epochs=1))
    expected = {
        "embedding.": 0.125,
        "class_token.": 0.125,
        "blocks.0.": 0.25,
        "blocks.1.": 0.5,
        "norm.": 1,
        "heads.": 1,
    }
    for name, _ in model.named_parameters():
        (scale,) = [value for prefix, value in expected.items() if name.startswith(prefix)]
        assert group_of(name, model, groups)["lr_scale"] == scale, name


def test_streams_side_by_side_begin_at_the_same_depth() -> None:
    config = replace(MFST_TINY, widths=(16, 16, 24, 24), channel_divisor=8, layers=1)
    streams = TwoStreamConfig(rgb=replace(config, stages=2), depth=config)
    with torch.device("meta"):
        model = streams.build(heads={"label": 2}, channels={"rgb": 3, "depth": 1}, frames=4, size=32)
    depths = layer_depths(model)
    found = {part: {n for name, n in depths.items() if name.startswith(part)} for part in ("rgb.", "depth.", "heads.")}
    assert found == {"rgb.": {0, 1, 2, 3}, "depth.": {0, 1, 2, 3, 4}, "heads.": {5}}
    assert depths["rgb.stem.second.convolution.weight"] == depths["depth.stem.second.convolution.weight"] == 0
    assert depths["depth.stages.1.space.map.weight"] == 2


def test_averaged_weights_follow_by_their_share() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    average = make_ema(model, 0.9)
    value = None
    for weight in (1.0, 3.0, -2.0):
        torch.nn.init.constant_(model.weight, weight)
        average.update_parameters(model)
        value = weight if value is None else 0.9 * value + 0.1 * weight
    assert average.module.weight.item() == pytest.approx(value)


def test_class_weights_are_one_on_the_average_and_inverse_to_counts() -> None:
    weights = class_weights([0, 0, 0, 2], 4)
    assert weights.tolist() == pytest.approx([4 / (2 * 3), 0, 4 / 2, 0])
    assert sum(weights[c].item() for c in [0, 0, 0, 2]) / 4 == pytest.approx(1)


def test_a_weighted_loss_of_parts_is_that_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(3)
    logits, targets = torch.randn(6, 3, generator=generator), torch.tensor([0, 1, 2, 0, 0, 1])
    weights = {"label": torch.tensor([0.5, 2.0, 1.0])}
    whole = multi_head_loss({"label": logits}, {"label": targets}, label_smoothing=0.0, weights=weights)
    parts = [
        multi_head_loss(
            {"label": logits[i : i + 2]}, {"label": targets[i : i + 2]}, label_smoothing=0.0, weights=weights
        )
        for i in (0, 2, 4)
    ]
    assert whole.item() == pytest.approx(sum(part.item() for part in parts) / 3, rel=1e-6)
    by_hand = -(weights["label"][targets] * logits.log_softmax(1)[torch.arange(6), targets]).mean()
    assert whole.item() == pytest.approx(by_hand.item(), rel=1e-6)

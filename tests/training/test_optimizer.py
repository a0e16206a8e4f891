"""Tests of learning rate, parameter groups, averaged weights and loss."""

import copy
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


def test_the_learning_rate_warms_up_linearly_and_decays_as_half_a_cosine() -> None:
    optim = Optim(lr=2.0, lr_start=0.1, lr_end=0.01, epochs=10, warmup_epochs=1)
    rates = [learning_rate(step, optim=optim, steps=100, warmup_steps=10) for step in range(101)]
    for step in range(10):
        assert rates[step] == pytest.approx(2.0 * (0.1 + 0.9 * step / 10))
    for step in range(10, 101):
        cosine = 0.5 * (1 + math.cos(math.pi * (step - 10) / 90))
        assert rates[step] == pytest.approx(2.0 * (0.01 + 0.99 * cosine))
    assert rates[10] == 2.0
    assert rates[100] == pytest.approx(0.02)


def test_without_warm_up_the_first_step_has_the_peak_learning_rate() -> None:
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


def test_class_numbers_and_one_hot_targets_give_the_same_loss() -> None:
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


def test_norms_biases_and_tables_are_not_decayed_and_groups_are_disjoint() -> None:
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


def test_decay_all_decays_every_parameter() -> None:
    groups = parameter_groups(small_network(), Optim(lr=0.1, weight_decay=0.3, decay="all", epochs=1))
    assert [g["weight_decay"] for g in groups] == [0.3]


def test_layer_decay_lowers_the_learning_rate_of_earlier_layers() -> None:
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


def test_parallel_streams_start_at_the_same_depth() -> None:
    config = replace(MFST_TINY, widths=(16, 16, 24, 24), channel_divisor=8, layers=1)
    streams = TwoStreamConfig(rgb=replace(config, stages=2), depth=config)
    with torch.device("meta"):
        model = streams.build(heads={"label": 2}, channels={"rgb": 3, "depth": 1}, frames=4, size=32)
    depths = layer_depths(model)
    found = {part: {n for name, n in depths.items() if name.startswith(part)} for part in ("rgb.", "depth.", "heads.")}
    assert found == {"rgb.": {0, 1, 2, 3}, "depth.": {0, 1, 2, 3, 4}, "heads.": {5}}
    assert depths["rgb.stem.second.convolution.weight"] == depths["depth.stem.second.convolution.weight"] == 0
    assert depths["depth.stages.1.space.map.weight"] == 2


def literal_average(weights: list[float], decay: float) -> float:
    """Return the moving average in float64: update 0 copies, update n decays by (1 + n) / (10 + n)."""
    average = 0.0
    for n, weight in enumerate(weights):
        kept = min(decay, (1 + n) / (10 + n)) if n else 0.0
        average = kept * average + (1 - kept) * weight
    return average


@pytest.mark.parametrize("decay", [0.2, 0.9, 0.9999])
def test_averaged_weights_follow_the_warmed_up_decay(decay: float) -> None:
    model = torch.nn.Linear(1, 1, bias=False).double()
    average = make_ema(model, decay)
    weights = [math.sin(n) + n / 50 for n in range(300)]
    for n, weight in enumerate(weights):
        torch.nn.init.constant_(model.weight, weight)
        average.update_parameters(model)
        if n in (0, 1, 2, 20, 299):
            assert average.module.weight.item() == pytest.approx(literal_average(weights[: n + 1], decay), rel=1e-12)


def test_300_updates_forget_the_random_start() -> None:
    """With a constant decay of 0.9999 the average would keep 97 % of it."""
    model = torch.nn.Linear(1, 1, bias=False)
    average = make_ema(model, 0.9999)
    for weight in (1000.0, *[1.0] * 299):
        torch.nn.init.constant_(model.weight, weight)
        average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(1.0, abs=1e-6)


def test_the_average_resumes_from_its_number_of_updates() -> None:
    model, weights = torch.nn.Linear(2, 1), torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    whole, first = make_ema(model, 0.99), make_ema(model, 0.99)
    for number, weight in enumerate(weights):
        model.weight.data.copy_(weight)
        whole.update_parameters(model)
        if number == 20:
            parted = make_ema(torch.nn.Linear(2, 1), 0.99)
            parted.load_state_dict(first.state_dict())
        (first if number < 20 else parted).update_parameters(model)
    assert all(torch.equal(parted.state_dict()[name], value) for name, value in whole.state_dict().items())


def test_frozen_statistics_stay_equal_in_the_average_and_others_are_averaged() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.BatchNorm1d(4))
    torch.manual_seed(0)
    for norm in model:
        norm.running_mean.normal_()
        norm.num_batches_tracked.fill_(12_347)  # 0.9999 and 0.0001 of it round to less
    model[0].eval().requires_grad_(False)
    frozen = copy.deepcopy(model[0].state_dict())
    average = make_ema(model, 0.9999)
    means = []
    for _ in range(50):
        model(torch.randn(8, 4) + 3)
        average.update_parameters(model)
        means.append(model[1].running_mean[0].item())
    for kept in (model[0], average.module[0]):
        assert all(torch.equal(kept.state_dict()[name], value) for name, value in frozen.items())
    assert average.module[1].num_batches_tracked == 12_347 + 50
    assert average.module[1].running_mean[0].item() == pytest.approx(literal_average(means, 0.9999), rel=1e-5)


def test_class_weights_are_inverse_frequencies_with_mean_one() -> None:
    weights = class_weights([0, 0, 0, 2], 4)
    assert weights.tolist() == pytest.approx([4 / (2 * 3), 0, 4 / 2, 0])
    assert sum(weights[c].item() for c in [0, 0, 0, 2]) / 4 == pytest.approx(1)


def test_weighted_losses_of_micro_batches_add_up() -> None:
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

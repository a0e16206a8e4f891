"""The learning rate against the formula, the loss against the definition."""

import math

import pytest
import torch

from kinema.training.optim import learning_rate, loss_of_heads, make_optimizer
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
    for head, wanted in targets.items():
        log_shares = logits[head].double().log_softmax(-1)
        smooth = torch.full_like(log_shares, 0.1 / log_shares.shape[1])
        smooth[torch.arange(3), wanted] += 0.9
        expected = expected - (smooth * log_shares).sum(-1).mean()
    assert loss_of_heads(logits, targets, label_smoothing=0.1).item() == pytest.approx(expected.item(), rel=1e-6)


def test_class_numbers_and_shares_of_classes_mean_the_same() -> None:
    logits = {"label": torch.randn(4, 3, generator=torch.Generator().manual_seed(1))}
    numbers = torch.tensor([2, 0, 1, 1])
    shares = torch.nn.functional.one_hot(numbers, 3).float()
    torch.testing.assert_close(
        loss_of_heads(logits, {"label": numbers}, label_smoothing=0.2),
        loss_of_heads(logits, {"label": shares}, label_smoothing=0.2),
    )


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimiser_is_the_named_one_with_the_recipes_numbers(name, kind) -> None:
    optimizer = make_optimizer(torch.nn.Linear(2, 2), Optim(optimizer=name, lr=0.1, weight_decay=0.02, epochs=1))
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["weight_decay"] == 0.02

"""Tests of the plan: exact counts, and estimates of memory and time within their stated accuracy."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kinema.models.complexity import macs, parameter_count
from kinema.models.ctn import CTNConfig
from kinema.models.registry import create_model
from kinema.models.two_stream import TwoStream, TwoStreamConfig
from kinema.training import plan as planning
from kinema.training.activation_checkpointing import checkpoint_activations
from kinema.training.loop import train
from kinema.training.messages import plan_message
from kinema.training.plan import Plan, make_plan, rate, saved_bytes, step_macs
from kinema.training.recipe import Clip, Compute, Data, Optim, Recipe
from kinema.training.weights import freeze

CLIP = {"channels": 3, "frames": 8, "size": 32}


def plan_for(
    model: nn.Module,
    *,
    modalities: tuple[str, ...] = ("rgb",),
    frames: int = 8,
    size: int = 32,
    batch_size: int = 4,
    steps: int = 10,
    num_processes: int = 1,
    checkpointing: bool = False,
    **optim: object,
) -> Plan:
    recipe = Recipe(
        clip=Clip(frames=frames, size=size, short_side=size, modalities=modalities, depth_channels=3),
        data=Data(batch_size=batch_size),
        model=getattr(model, "config", CTNConfig(width=24, depth=1, attention_heads=3)),
        optim=Optim(lr=0.1, epochs=1, **optim),
        compute=Compute(device="cpu", activation_checkpointing=checkpointing),
    )
    return make_plan(model, recipe, steps=steps, num_processes=num_processes, device=torch.device("cpu"))


@pytest.fixture
def fixed_rate(monkeypatch: pytest.MonkeyPatch) -> float:
    """Set the rate of the device to a million multiply-adds per second."""
    monkeypatch.setattr(planning, "rate", lambda *_: 1e6)
    return 1e6


def small(**fields) -> nn.Module:
    return create_model(
        "ctn_tiny", num_classes=3, frames=8, size=32, width=24, depth=2, attention_heads=3, stem_channels=4, **fields
    )


def plan_of(messages: list[str]) -> str:
    (line,) = [line for line in messages if line.startswith("plan: ")]
    return line.removeprefix("plan: ")


def test_the_printed_plan_holds_the_counts(tiny_recipe: Recipe, messages: Callable[[], list[str]]) -> None:
    model = tiny_recipe.model.build(heads={"label": 3}, channels={"rgb": 3}, frames=8, size=32)
    train(tiny_recipe, max_steps=1)
    parameters, cost, steps, memory, seconds = plan_of(messages()).split(", ")
    assert parameters == f"{parameter_count(model):,} parameters"
    assert cost == f"{macs(model, **CLIP) / 1e9:.2f} GMACs per clip"
    assert steps == "10 steps of 4 clips"  # of the whole run, not of this call
    assert memory.startswith("about ")
    assert seconds.startswith("at least ")


def test_frozen_parts_cost_less(tiny_recipe: Recipe, messages: Callable[[], list[str]], fixed_rate: float) -> None:
    train(replace(tiny_recipe, init=replace(tiny_recipe.init, freeze=("embedding",))), max_steps=1)
    model = tiny_recipe.model.build(heads={"label": 3}, channels={"rgb": 3}, frames=8, size=32)
    embedding = parameter_count(model.embedding)
    assert plan_of(messages()).startswith(
        f"{parameter_count(model):,} parameters ({parameter_count(model) - embedding:,} trainable), "
    )
    whole = plan_for(small())
    frozen = small()
    freeze(frozen, ["backbone"])
    probe = plan_for(frozen)
    assert probe.memory is not None
    assert whole.memory is not None
    assert probe.memory < whole.memory / 2
    learning = parameter_count(frozen.heads)
    kept = 4 * saved_bytes(frozen, **CLIP)
    assert (
        probe.memory == 4 * parameter_count(frozen) + 4 * 2 * learning + kept
    )  # gradients and momentum of heads alone
    assert probe.macs == whole.macs
    # A frozen backbone only runs forward, and the step of the heads is negligible.
    assert probe.seconds == pytest.approx(macs(frozen, **CLIP) * 4 * 10 / fixed_rate, rel=0.01)


def test_time_and_memory_follow_steps_batch_parts_and_optimizer(fixed_rate: float) -> None:
    model = small()
    count, kept = parameter_count(model), saved_bytes(model, **CLIP)
    plan = plan_for(model)
    assert plan.seconds == step_macs(model, **CLIP) * 4 * 10 / fixed_rate
    assert plan.memory == 4 * count * 3 + 4 * kept  # weights, gradients, momentum
    assert plan_for(model, optimizer="adamw").memory == plan.memory + 4 * count
    assert plan_for(model, grad_accum_steps=2).memory == plan.memory - 2 * kept
    assert plan_for(model, ema_decay=0.9).memory == plan.memory + 4 * count
    assert plan_for(model, steps=20).seconds == 2 * plan.seconds


def test_a_step_is_counted_by_hand_for_convolutions_groups_and_a_linear_map() -> None:
    """A step counts the forward pass and both gradients; the first layer has no input gradient."""
    model = nn.Sequential(
        nn.Conv3d(3, 4, 3, padding=1),
        nn.Conv3d(4, 4, 3, padding=1, groups=4),
        nn.Flatten(),
        nn.Linear(4 * 8 * 8 * 8, 2),
    )
    places = 8 * 8 * 8
    first, second, last = 27 * 3 * 4 * places, 27 * 4 * places, 4 * places * 2
    clip = {"channels": 3, "frames": 8, "size": 8}
    assert macs(model, **clip) == first + second + last
    assert step_macs(model, **clip) == 2 * first + 3 * second + 3 * last
    model[0].requires_grad_(False)
    assert step_macs(model, **clip) == first + 2 * second + 3 * last
    model[1].requires_grad_(False)
    assert step_macs(model, **clip) == first + second + 2 * last


class Twice(nn.Module):
    """Network that multiplies two linear maps of separate views of the same clip."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(24, 3)
        self.two = nn.Linear(24, 3)

    def forward(self, clip: Tensor) -> Tensor:
        return self.one(clip.flatten(1)) * self.two(clip.flatten(1))


def test_a_tensor_with_two_views_is_counted_once() -> None:
    """The clip (24 numbers) and both factors are saved."""
    assert saved_bytes(Twice(), channels=3, frames=2, size=2) == 4 * (24 + 3 + 3)


def test_the_time_is_a_lower_bound_where_a_network_is_one_matrix_product() -> None:
    """A step of a wide linear map runs at the rate of a matrix product.

    Bound and steps are measured alternately, and the best of each counts, because the load of the machine varies.
    10 % are tolerance of the measurement.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 32 * 32, 512), nn.ReLU(), nn.Linear(512, 3))
    batch = torch.randn(64, 3, 8, 32, 32)
    bounds, steps = [], []
    for _ in range(5):
        bounds.append(plan_for(model, steps=1, batch_size=64).seconds)
        began = planning.time.perf_counter()
        model.zero_grad()
        model(batch).sum().backward()
        steps.append(planning.time.perf_counter() - began)
    assert 0.2 * min(steps) < min(bounds) < 1.1 * min(steps)  # a lower bound, and not a trivial one


def test_the_rate_is_that_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest of four products of 1024 rows takes half a second."""
    ticks = iter([0.0, 2.0, 10.0, 10.5, 20.0, 21.0, 30.0, 33.0])
    monkeypatch.setattr(planning.time, "perf_counter", lambda: next(ticks))
    assert rate(torch.device("cpu"), "float32") == 1024**3 / 0.5


class NeedsData(nn.Module):
    """Network that branches on the values of its input, so that it cannot be counted on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(1, 3)

    def forward(self, clip: Tensor) -> Tensor:
        if clip.mean().item() > 100:
            raise ValueError("far too bright")
        return self.map(clip.mean((1, 2, 3, 4))[:, None])


def test_a_network_that_cannot_be_counted_trains_and_plans_the_rest(
    tiny_recipe: Recipe, messages: Callable[[], list[str]]
) -> None:
    run = train(tiny_recipe, model=NeedsData(), max_steps=2)
    assert len(run.steps()) == 2
    assert plan_of(messages()) == "6 parameters, 10 steps of 4 clips"


def test_a_network_with_statistics_over_vectors_is_counted_as_it_learns() -> None:
    """BatchNorm over vectors cannot train on one clip."""
    model = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 3))
    plan = plan_for(model)
    assert plan.macs == 9
    assert plan.memory is not None
    assert plan.seconds is not None


def test_two_streams_are_counted_together() -> None:
    rgb, depth = small(), small()
    config = TwoStreamConfig(rgb=rgb.config, depth=depth.config, fusion="logits")
    both = plan_for(TwoStream(config, rgb=rgb, depth=depth, heads={"label": 5}), modalities=("rgb", "depth"))
    one = plan_for(small())
    assert both.macs == 2 * one.macs
    assert both.parameters == 2 * one.parameters
    assert both.memory == pytest.approx(2 * one.memory, rel=0.01)


def test_a_network_for_other_inputs_is_not_counted() -> None:
    plan = plan_for(small(channels=2))
    assert (plan.macs, plan.memory, plan.seconds) == (None, None, None)
    assert plan_message(plan) == f"plan: {plan.parameters:,} parameters, 10 steps of 4 clips"


def test_recomputed_activations_cost_time_and_their_memory_is_not_estimated(fixed_rate: float) -> None:
    kept = plan_for(small())
    model = small()
    checkpoint_activations(model)
    again = plan_for(model, checkpointing=True)
    assert again.memory is None
    assert "about" not in plan_message(again)
    assert again.macs == kept.macs
    assert again.seconds is not None
    assert kept.seconds is not None
    assert kept.seconds < again.seconds < kept.seconds + macs(model, **CLIP) * 4 * 10 / fixed_rate


def test_the_network_is_left_as_it_was() -> None:
    model = small()
    model.blocks[0].eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    plan_for(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("seconds", "duration"),
    [(0.4, "at least 0 s"), (89, "at least 89 s"), (600, "at least 10 min"), (7200, "at least 2.0 h")],
)
def test_times_are_printed_in_suitable_units(seconds: float, duration: str) -> None:
    plan = Plan(
        parameters=1_000,
        trainable=10,
        macs=2_340_000_000,
        steps=7,
        batch_size=2,
        num_processes=1,
        memory=3 * 2**29,
        seconds=seconds,
    )
    assert plan_message(plan) == (
        "plan: 1,000 parameters (10 trainable), 2.34 GMACs per clip, 7 steps of 2 clips, about 1.50 GiB of memory, "
        f"{duration} on this device"
    )


@pytest.mark.usefixtures("fixed_rate")
def test_each_of_several_processes_takes_its_share() -> None:
    one, two = plan_for(small()), plan_for(small(), num_processes=2)
    assert one.memory is not None
    assert two.memory is not None
    assert one.seconds is not None
    assert two.seconds == one.seconds / 2
    kept = plan_for(small(), batch_size=3).memory
    assert kept is not None
    assert one.memory - two.memory == 2 * (one.memory - kept)  # two clips fewer
    assert "10 steps of 4 clips (2 on each of 2 processes), about " in plan_message(two)
    assert " MiB of memory" in plan_message(two)


STEPS = """
import re, torch
from pathlib import Path
from kinema.models.registry import create_model

torch.set_num_threads(1)
model = create_model("ctn_tiny", num_classes=15, frames=16, size=80)
for batch in (4, 28):
    clips, labels = torch.randn(batch, 3, 16, 80, 80), torch.zeros(batch, dtype=torch.long)
    for _ in range(2):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(clips), labels).backward()
    print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_the_memory_of_a_larger_batch_is_that_of_real_steps_within_a_factor() -> None:
    """Workspaces of convolutions take up to as much memory as the saved activations."""
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    small_batch, large_batch = (1024 * int(line) for line in done.stdout.split())
    model = create_model("ctn_tiny", num_classes=15, frames=16, size=80)
    plans = [plan_for(model, frames=16, size=80, batch_size=batch) for batch in (4, 28)]
    assert plans[0].memory is not None
    assert plans[1].memory is not None
    ratio = (large_batch - small_batch) / (plans[1].memory - plans[0].memory)
    assert 0.9 < ratio < 2, ratio

"""Tests of the effect of single recipe options on a training."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kinema.data.dataset import VideoDataset
from kinema.data.loaders import collate, complete
from kinema.data.manifest import Manifest, write_manifest
from kinema.data.samplers import TrainingBatches, evaluation_batches
from kinema.errors import NonFiniteLoss, RecipeError
from kinema.evaluation.predictions import load_predictions
from kinema.inference.engine import Engine
from kinema.inference.trained_model import load_model
from kinema.models.ctn import CTNConfig
from kinema.training.learner import Learner
from kinema.training.loop import train
from kinema.training.recipe import Recipe
from kinema.training.recipe_json import recipe_to_json
from kinema.training.runs import Run
from kinema.training.step import step_seed


class Plain(nn.Module):
    """Network without randomness and state that records batch sizes and dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3 * 8 * 4 * 4, 3)
        self.calls: list[tuple[int, torch.dtype]] = []

    def forward(self, clip: Tensor) -> Tensor:
        answer = self.map(nn.functional.avg_pool3d(clip, (1, 8, 8)).flatten(1))
        if self.training and clip.device.type != "meta":
            self.calls.append((len(clip), answer.dtype))
        return answer


def make_plain() -> Plain:
    torch.manual_seed(7)
    return Plain()


def change(recipe: Recipe, out: Path, **fields) -> Recipe:
    """Return the recipe with changed fields (`optim__lr=1`) and another run folder."""
    sections = {
        name: replace(
            getattr(recipe, name),
            **{key.split("__")[1]: value for key, value in fields.items() if key.startswith(f"{name}__")},
        )
        for name in ("clip", "data", "optim", "init", "checkpoint", "compute", "run")
    }
    model = fields.get("model", recipe.model)
    sections["run"] = replace(sections["run"], out=out)
    return replace(recipe, **sections, model=model)


def checkpoint(run: Run, name: str = "last") -> dict[str, dict[str, Tensor]]:
    state: dict[str, dict[str, Tensor]] = torch.load(run.path / "checkpoints" / f"{name}.pt", weights_only=True)
    return state


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in run.steps()]


def batches(recipe: Recipe, manifest: Manifest, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the normalized clips and the labels of the first steps."""
    preprocessing = recipe.clip.preprocessing(None)
    dataset = VideoDataset(
        manifest,
        sampling=recipe.clip.frame_sampling(),
        preprocessing=preprocessing,
        augmentation=recipe.data.augmentation,
    )
    draws = TrainingBatches(
        manifest.positions("train"),
        batch_size=recipe.data.batch_size,
        steps=steps,
        seed=recipe.run.seed,
        mixup="partner" if recipe.data.augmentation.mixes_samples else "none",
    )
    for batch in draws:
        read = complete(collate([dataset[draw] for draw in batch]))
        yield preprocessing.normalize_all(read["inputs"])["rgb"], read["targets"]["label"]


@pytest.mark.parametrize("balance", ["none", "loss"])
@pytest.mark.parametrize("parts", [2, 4])
def test_gradient_accumulation_equals_the_full_batch(
    tiny_recipe: Recipe, tmp_path: Path, parts: int, balance: str
) -> None:
    """Micro-batches give the same gradient, loss and clipping as the whole batch."""
    whole, parted = make_plain(), make_plain()
    # With gradient clipping, a gradient of the wrong scale would go unnoticed.
    options = {"data__balance": balance, "optim__max_grad_norm": None, "optim__lr": 0.5}
    one = train(change(tiny_recipe, tmp_path / "whole", **options), model=whole, max_steps=3)
    other = train(
        change(tiny_recipe, tmp_path / "parts", optim__grad_accum_steps=parts, **options), model=parted, max_steps=3
    )
    assert [size for size, _ in whole.calls] == [4] * 3
    assert [size for size, _ in parted.calls] == [4 // parts] * (3 * parts)
    assert losses(other) == pytest.approx(losses(one), abs=1e-6)
    for name, weight in checkpoint(one)["model"].items():
        torch.testing.assert_close(checkpoint(other)["model"][name], weight, rtol=0, atol=1e-6)


def test_micro_batches_with_skipped_samples_are_weighted_by_size(
    tiny_recipe: Recipe, few_moves: Manifest, tmp_path: Path
) -> None:
    """One of four samples is missing, which leaves micro-batches of one and two samples."""
    (drawn,) = TrainingBatches(few_moves.positions("train"), batch_size=4, steps=1, seed=0)
    entries = [replace(entry, rgb=few_moves.locate(entry.rgb), depth="") for entry in few_moves.entries]
    entries[drawn[0].index] = replace(entries[drawn[0].index], rgb="gone.mp4")
    write_manifest(
        tmp_path / "gone.csv", entries=entries, classes=few_moves.classes, dataset="gone", version="1", depth=None
    )
    options = {"data__manifest": str(tmp_path / "gone.csv"), "data__unreadable": "skip", "optim__max_grad_norm": None}
    whole, parted = make_plain(), make_plain()
    one = train(change(tiny_recipe, tmp_path / "whole", **options), model=whole, max_steps=1)
    other = train(
        change(tiny_recipe, tmp_path / "parts", optim__grad_accum_steps=2, **options), model=parted, max_steps=1
    )
    assert [size for size, _ in whole.calls] == [3]
    assert [size for size, _ in parted.calls] == [1, 2]
    assert losses(other) == pytest.approx(losses(one), abs=1e-6)
    for name, weight in checkpoint(one)["model"].items():
        torch.testing.assert_close(checkpoint(other)["model"][name], weight, rtol=0, atol=1e-6)


@pytest.mark.long
def test_averaged_weights_are_evaluated_shipped_and_resumed_bitwise(
    tiny_recipe: Recipe, few_moves: Manifest, tmp_path: Path
) -> None:
    options = {"optim__ema_decay": 0.6, "checkpoint__keep": "last", "checkpoint__keep_every_epochs": 0.4}
    run = train(change(tiny_recipe, tmp_path / "whole", **options), max_steps=5)

    average: dict[str, Tensor] = {}
    for step in range(1, 6):
        for name, weight in checkpoint(run, f"step-{step:06d}")["model"].items():
            if weight.is_floating_point():
                kept = min(0.6, step / (step + 9)) if step > 1 else 0.0  # step - 1 updates before
                average[name] = weight if step == 1 else kept * average[name] + (1 - kept) * weight
    trained = load_model(run.path)
    shipped = trained.model.state_dict()
    for name, weight in average.items():
        torch.testing.assert_close(shipped[name], weight, rtol=0, atol=1e-6)
    assert any((shipped[name] - checkpoint(run)["model"][name]).abs().max() > 1e-3 for name in average)

    network = tiny_recipe.model.build(heads=trained.heads, channels={"rgb": 3}, frames=8, size=32)
    network.load_state_dict(average, strict=False)
    engine = Engine(
        network,
        preprocessing=trained.preprocessing,
        heads=trained.heads,
        device=torch.device("cpu"),
        precision="float32",
    )
    predictions = load_predictions(run.predictions)
    dataset = VideoDataset(few_moves, sampling=trained.sampling, preprocessing=trained.preprocessing)
    (draws,) = evaluation_batches(predictions.index.tolist(), 6)
    answers = engine.logits(complete(collate([dataset[draw] for draw in draws]))["inputs"])["label"]
    torch.testing.assert_close(torch.from_numpy(predictions.logits["label"]), answers, rtol=0, atol=1e-4)

    parted = train(change(tiny_recipe, tmp_path / "parted", **options), max_steps=2)
    parted = train(parted.recipe, Run.open(parted.path), max_steps=5)
    assert losses(parted) == losses(run)
    for name, weight in checkpoint(run)["averaged"].items():
        assert torch.equal(checkpoint(parted)["averaged"][name], weight), name
    again = load_model(parted.path).model.state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in shipped.items())


def moved(recipe: Recipe, start: Run, out: Path, **options) -> dict[str, Tensor]:
    """Return the change of each weight of a run by one step without warm-up, momentum and clipping."""
    plainest = {"optim__warmup_epochs": 0.0, "optim__momentum": 0.0, "optim__max_grad_norm": None}
    run = train(change(recipe, out, init__weights=str(start.path), **plainest, **options), max_steps=1)
    before, after = load_model(start.path).model, checkpoint(run)["model"]
    return {name: after[name] - weight.detach() for name, weight in before.named_parameters()}


@pytest.mark.long
def test_layer_decay_and_weight_decay_of_matrices_take_effect(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """Gradients of the first step are the same, so its changes show the learning rates."""
    tiny_recipe = replace(tiny_recipe, model=replace(tiny_recipe.model, depth=2, dropout=0.0))
    start = train(change(tiny_recipe, tmp_path / "start", run__seed=3), max_steps=2)
    usual = moved(tiny_recipe, start, tmp_path / "usual")
    layered = moved(tiny_recipe, start, tmp_path / "layered", optim__layer_decay=0.5)
    for name, distance in usual.items():
        layer = 0 if name.startswith(("embedding.", "class_token.")) else 3
        layer = int(name.split(".")[1]) + 1 if name.startswith("blocks.") else layer
        torch.testing.assert_close(layered[name], distance * 0.5 ** (3 - layer), rtol=1e-3, atol=1e-7, msg=name)
    assert usual["heads.classifiers.head_label.weight"].abs().max() > 1e-3

    weights = dict(load_model(start.path).model.named_parameters())
    decayed = moved(tiny_recipe, start, tmp_path / "decayed", optim__weight_decay=0.5)
    everything = moved(tiny_recipe, start, tmp_path / "all", optim__weight_decay=0.5, optim__decay="all")
    for name, distance in usual.items():
        pull = -tiny_recipe.optim.lr * 0.5 * weights[name].detach()
        matrix = weights[name].ndim > 1 and name != "class_token.token"
        torch.testing.assert_close(decayed[name] - distance, pull * matrix, rtol=1e-3, atol=1e-6, msg=name)
        torch.testing.assert_close(everything[name] - distance, pull, rtol=1e-3, atol=1e-6, msg=name)


def test_layer_decay_needs_a_list_of_layers(tiny_recipe: Recipe, tmp_path: Path, raises) -> None:
    recipe = change(tiny_recipe, tmp_path / "run", optim__layer_decay=0.5)
    with raises(RecipeError, "0.5", field="optim.layer_decay"):
        train(recipe, model=make_plain())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mixing", ["cutmix_alpha", "mixup_alpha"])
def test_label_smoothing_applies_to_mixed_targets(
    tiny_recipe: Recipe, few_moves: Manifest, tmp_path: Path, mixing: str
) -> None:
    augmentation = replace(tiny_recipe.data.augmentation, **{mixing: 1.0})
    recipe = change(tiny_recipe, tmp_path / "run", data__augmentation=augmentation, optim__label_smoothing=0.2)
    ((clips, shares),) = batches(recipe, few_moves, 1)
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    assert ((shares > 0.05).sum(1) == 2).any()
    network = make_plain()
    with torch.no_grad():
        log_probabilities = network(clips).double().log_softmax(1)
    smooth = 0.8 * shares.double() + 0.2 / 3
    expected = -(smooth * log_probabilities).sum(1).mean().item()
    run = train(recipe, model=make_plain(), max_steps=1)
    assert losses(run)[0] == pytest.approx(expected, rel=1e-5)


def test_activation_checkpointing_does_not_change_the_training(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """Recomputed activations use the same dropout, drop path and BatchNorm statistics."""
    model = CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=2, attention_heads=3, dropout=0.2, drop_path=0.3)
    kept, again = (
        train(
            change(tiny_recipe, tmp_path / how, model=model, compute__activation_checkpointing=how == "recompute"),
            max_steps=5,
        )
        for how in ("keep", "recompute")
    )
    assert losses(again) == losses(kept)
    one, other = checkpoint(kept)["model"], checkpoint(again)["model"]
    assert one.keys() == other.keys()
    assert any(name.startswith("blocks.") and "running_var" in name for name in one)
    for name, weight in one.items():
        assert torch.equal(other[name], weight), name
    assert load_model(again.path).digest == load_model(kept.path).digest


def test_blocks_with_keyword_arguments_can_be_recomputed(tiny_recipe: Recipe, tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(3, 3)

        def forward(self, tokens: Tensor, *, scale: float) -> Tensor:
            return tokens + scale * self.map(tokens)

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Scaled(), Scaled()])

        def forward(self, clip: Tensor) -> Tensor:
            tokens = clip.mean((2, 3, 4))
            for block in self.blocks:
                tokens = block(tokens, scale=0.5)
            return tokens

    runs = []
    for how in ("keep", "recompute"):
        torch.manual_seed(1)
        recipe = change(tiny_recipe, tmp_path / how, compute__activation_checkpointing=how == "recompute")
        runs.append(train(recipe, model=Named(), max_steps=3))
    assert losses(runs[0]) == losses(runs[1])


def test_activation_checkpointing_needs_blocks(tiny_recipe: Recipe, tmp_path: Path, raises) -> None:
    with raises(RecipeError, field="compute.activation_checkpointing"):
        train(change(tiny_recipe, tmp_path / "run", compute__activation_checkpointing=True), model=make_plain())


COMPILED = """
import sys
from kinema.training.loop import train
from kinema.training.recipe_json import recipe_from_json

train(recipe_from_json(sys.stdin.read()), max_steps=4)
"""


@pytest.mark.long
def test_a_compiled_network_trains_equally_and_ships_plain_names(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """Runs in a separate process without jaxtyping checks, which torch.compile does not support.

    A compiled network draws other numbers for dropout, so the recipe has none.
    """
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "c++")):
        pytest.skip("no C++ compiler for torch.compile")
    model = replace(tiny_recipe.model, dropout=0.0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    runs = []
    for how in ("no", "default"):
        recipe = change(tiny_recipe, tmp_path / how, model=model, compute__compile=how, checkpoint__keep="last")
        done = subprocess.run(
            [sys.executable, "-c", COMPILED],
            input=recipe_to_json(recipe),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        runs.append(Run.open(tmp_path / how))
    assert any((tmp_path / "cache").rglob("*.cpp"))  # it was compiled
    plainly, compiled = runs
    assert losses(compiled) == pytest.approx(losses(plainly), abs=1e-4)
    one, other = (load_model(run.path).model.state_dict() for run in runs)
    assert checkpoint(compiled)["model"].keys() == one.keys()
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-3, msg=name)


def test_bfloat16_computes_in_bfloat16_and_keeps_weights_and_loss_in_float32(
    tiny_recipe: Recipe, tmp_path: Path
) -> None:
    exact, short = make_plain(), make_plain()
    one = train(change(tiny_recipe, tmp_path / "exact"), model=exact, max_steps=3)
    other = train(change(tiny_recipe, tmp_path / "short", compute__precision="bfloat16"), model=short, max_steps=3)
    assert {kind for _, kind in exact.calls} == {torch.float32}
    assert {kind for _, kind in short.calls} == {torch.bfloat16}
    assert {weight.dtype for weight in checkpoint(other)["model"].values()} == {torch.float32}
    assert losses(other) != losses(one)
    assert losses(other) == pytest.approx(losses(one), rel=0.02)


@pytest.mark.long
def test_drop_path_depends_on_the_step_and_is_off_in_evaluation(tiny_recipe: Recipe, tmp_path: Path) -> None:
    model = replace(tiny_recipe.model, depth=2, dropout=0.0)
    never = train(change(tiny_recipe, tmp_path / "never", model=model), max_steps=4)
    dropping = replace(model, drop_path=0.5)
    whole = train(change(tiny_recipe, tmp_path / "whole", model=dropping), max_steps=4)
    parted = train(change(tiny_recipe, tmp_path / "parted", model=dropping), max_steps=2)
    parted = train(parted.recipe, Run.open(parted.path), max_steps=4)
    assert losses(whole) != losses(never)
    assert losses(parted) == losses(whole)
    trained = load_model(whole.path)
    clips = {"rgb": torch.randint(0, 255, (4, 3, 8, 32, 32), dtype=torch.uint8)}
    engine = trained.engine(torch.device("cpu"))
    assert torch.equal(engine.logits(clips)["label"], engine.logits(clips)["label"])


def test_dropout_differs_between_seeds_steps_and_processes() -> None:
    seeds = [step_seed(seed, step, rank) for seed in range(3) for step in range(100) for rank in range(4)]
    assert len(set(seeds)) == len(seeds)


class Steep(nn.Module):
    """Network with finite logits and an infinite gradient: the square root of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -0.25, 0.125]))

    def forward(self, clip: Tensor) -> Tensor:
        return (self.weight + (self.weight - self.weight).sqrt()).expand(len(clip), 3)


@pytest.mark.parametrize("limit", [1.0, None])
def test_a_non_finite_gradient_stops_training_before_the_weights_change(
    tiny_recipe: Recipe, few_moves: Manifest, monkeypatch: pytest.MonkeyPatch, limit: float | None, raises
) -> None:
    tiny_recipe = replace(tiny_recipe, optim=replace(tiny_recipe.optim, max_grad_norm=limit))
    drawn = next(iter(TrainingBatches(few_moves.positions("train"), batch_size=4, steps=1, seed=0)))
    lines = ", ".join(str(few_moves.entries[draw.index].line) for draw in drawn)
    steps: list[int] = []
    monkeypatch.setattr(Learner, "step", lambda _: steps.append(1))
    model = Steep()
    with raises(NonFiniteLoss, "norm of the gradient", "step 1", f"lines {lines}", path="few moves.csv"):
        train(tiny_recipe, model=model)
    assert model.weight.tolist() == [0.5, -0.25, 0.125]
    assert not steps


def test_the_global_gradient_norm_is_clipped(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """One step of SGD at rate 1 changes the weights by the norm of the clipped gradient."""
    distances = []
    for norm in (0.01, 1e6):
        network = make_plain()
        before = torch.cat([p.detach().flatten().clone() for p in network.parameters()])
        options = {"optim__warmup_epochs": 0.0, "optim__lr": 1.0, "optim__max_grad_norm": norm}
        train(change(tiny_recipe, tmp_path / str(norm), **options), model=network, max_steps=1)
        after = torch.cat([p.detach().flatten() for p in network.parameters()])
        distances.append((after - before).norm().item())
    assert distances[0] == pytest.approx(0.01, rel=1e-3)
    assert distances[1] > 0.02


@pytest.mark.parametrize(("batch_size", "accumulate"), [(1, 1), (4, 4)])
def test_batch_norm_of_a_single_value_is_an_error_of_the_recipe(
    tiny_recipe: Recipe, batch_size: int, accumulate: int, raises: Callable[..., AbstractContextManager[None]]
) -> None:
    """A clip of one token has one value per channel."""
    recipe = replace(
        tiny_recipe,
        clip=replace(tiny_recipe.clip, size=16),
        data=replace(tiny_recipe.data, batch_size=batch_size),
        optim=replace(tiny_recipe.optim, grad_accum_steps=accumulate),
    )
    with raises(RecipeError, field="data.batch_size"):
        train(recipe, max_steps=1)

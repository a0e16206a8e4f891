"""Tests of the training loop on real files: its outputs, exact resuming, and agreement with evaluation."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from kinema.data.dataset import VideoDataset
from kinema.data.loaders import collate, complete
from kinema.data.manifest import Manifest, class_lists, load_manifest, write_manifest
from kinema.data.samplers import evaluation_batches
from kinema.errors import ManifestError, NonFiniteLoss, RecipeError, RunError, UnreadableSample
from kinema.evaluation.evaluate import evaluate
from kinema.evaluation.predictions import load_predictions
from kinema.inference.recognizer import Recognizer
from kinema.inference.trained_model import load_model
from kinema.models.ctn import CTN
from kinema.models.mfst import MFSTConfig
from kinema.models.two_stream import TwoStreamConfig
from kinema.training import loop
from kinema.training.loop import train
from kinema.training.recipe import Recipe
from kinema.training.runs import Run

TINY_MFST = MFSTConfig(
    stages=2,
    widths=(16, 16, 24, 24),
    channel_divisor=8,
    layers=1,
    attention_heads=2,
    head_channels=8,
    mlp_channels=16,
)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_model(run.path).model.state_dict()


def test_a_training_leaves_a_run_that_loads_and_learns(tiny_recipe: Recipe) -> None:
    run = train(tiny_recipe)
    steps = run.steps()
    assert [line["step"] for line in steps] == list(range(1, 11))  # 10 clips, batches of 4, 4 passes
    assert {"step", "loss", "lr", "clips_per_s", "data_wait"} == set(steps[0])
    assert [line["step"] for line in run.metrics()] == [5, 10]
    assert all(0 <= line["data_wait"] <= 1 for line in steps)
    recognizer = Recognizer.load(run.path)
    assert recognizer.classes == {"label": ("kick", "run", "walk")}


def test_training_evaluation_command_and_recognizer_give_the_same_logits(
    tiny_recipe: Recipe, few_moves: Manifest, tmp_path: Path
) -> None:
    run = train(replace(tiny_recipe, checkpoint=replace(tiny_recipe.checkpoint, keep="last")))
    in_training = load_predictions(run.predictions)
    later = evaluate(run.path, few_moves, split="test", batch_size=4, workers=0, out=tmp_path / "p.safetensors")
    assert (in_training.logits["label"] == later.predictions.logits["label"]).all()
    assert in_training.weights_digest == later.predictions.weights_digest
    assert run.metrics()[-1]["top1"] == later.measures["top1"]

    recognizer = Recognizer.load(run.path)
    first = [few_moves.locate(few_moves.entries[i].rgb) for i in few_moves.positions("test")[:4]]
    batch = {"rgb": torch.cat([recognizer.prepare(path)["rgb"] for path in first])}
    logits = recognizer.engine.logits(batch)["label"]
    assert (logits.numpy() == later.predictions.logits["label"][:4]).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_stopped_run_resumes_to_the_bit_in_the_middle_of_a_pass(
    tiny_recipe: Recipe, tmp_path: Path, optimizer: Literal["sgd", "adamw"]
) -> None:
    tiny_recipe = replace(tiny_recipe, optim=replace(tiny_recipe.optim, optimizer=optimizer))
    whole = train(tiny_recipe)
    parted_recipe = replace(tiny_recipe, run=replace(tiny_recipe.run, out=tmp_path / "parted"))
    parted = train(parted_recipe, max_steps=3)
    assert parted.steps()[-1]["step"] == 3
    resumed = train(Run.open(parted.path).recipe, Run.open(parted.path))

    assert [s["loss"] for s in resumed.steps()] == [s["loss"] for s in whole.steps()]
    assert [s["lr"] for s in resumed.steps()] == [s["lr"] for s in whole.steps()]
    one, other = (torch.load(r.path / "checkpoints/last.pt", weights_only=True)["model"] for r in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_refused_training_leaves_no_run_folder(tiny_recipe: Recipe, raises) -> None:
    both = replace(tiny_recipe, clip=replace(tiny_recipe.clip, modalities=("rgb", "depth")))
    with raises(RecipeError, "CTN", field="clip.modalities"):
        train(both)
    with raises(RecipeError, "max_steps=0", field="max_steps"):
        train(tiny_recipe, max_steps=0)
    with raises(ManifestError, "'elsewhere'"):
        train(replace(tiny_recipe, data=replace(tiny_recipe.data, evaluate="elsewhere")))
    assert tiny_recipe.run.out is not None
    assert not tiny_recipe.run.out.exists()


def test_a_run_does_not_resume_with_another_manifest(tiny_recipe: Recipe, few_moves: Manifest, raises) -> None:
    for suffix in (".csv", ".json"):
        shutil.copy(few_moves.path.with_suffix(suffix), few_moves.path.with_name(f"changing{suffix}"))
    table = few_moves.path.with_name("changing.csv")
    run = train(replace(tiny_recipe, data=replace(tiny_recipe.data, manifest=str(table))), max_steps=2)
    table.write_text("\n".join(table.read_text().splitlines()[:1] + table.read_text().splitlines()[2:]) + "\n")
    facts = table.with_suffix(".json").read_text().replace('"train": 10', '"train": 9')
    table.with_suffix(".json").write_text(facts)
    with raises(RunError, "changing.csv", path=run.path, field="data.manifest"):
        train(run.recipe, Run.open(run.path))


def test_a_finished_run_that_is_resumed_does_nothing(tiny_recipe: Recipe) -> None:
    run = train(tiny_recipe)
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    train(run.recipe, Run.open(run.path))
    assert before == {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}


def test_the_number_of_workers_changes_nothing(tiny_recipe: Recipe, tmp_path: Path) -> None:
    losses = []
    for workers in (0, 2):
        changed = replace(
            tiny_recipe,
            data=replace(tiny_recipe.data, workers=workers),
            run=replace(tiny_recipe.run, out=tmp_path / str(workers)),
        )
        losses.append([s["loss"] for s in train(changed, max_steps=3).steps()])
    assert losses[0] == losses[1]


def test_steps_use_the_threads_of_the_recipe_and_evaluations_the_default(
    tiny_recipe: Recipe,
) -> None:
    seen: dict[str, set[int]] = {"step": set(), "evaluation": set()}

    class Watched(CTN):
        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            if clip.device.type != "meta":  # the plan only counts
                seen["step" if self.training else "evaluation"].add(torch.get_num_threads())
            return super().forward(clip)

    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        recipe = replace(tiny_recipe, compute=replace(tiny_recipe.compute, cpu_threads=1))
        train(recipe, model=Watched(recipe.model, heads={"label": 3}, frames=8, size=32), max_steps=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)
    assert seen["step"] == {1}
    assert seen["evaluation"] == {2}


def test_other_seeds_give_other_weights_and_draws(tiny_recipe: Recipe, tmp_path: Path) -> None:
    losses = []
    for seed in (0, 1):
        changed = replace(tiny_recipe, run=replace(tiny_recipe.run, out=tmp_path / str(seed), seed=seed))
        losses.append(train(changed, max_steps=1).steps()[0]["loss"])
    assert losses[0] != losses[1]


def test_keep_best_keeps_the_weights_with_the_best_evaluation(tiny_recipe: Recipe) -> None:
    run = train(tiny_recipe)
    scores = [line["top1"] for line in run.metrics()]
    best_step = [5, 10][scores.index(max(scores))]
    assert json.loads((run.model / "model.json").read_text())["provenance"]["step"] == best_step


class TwoHeads(nn.Module):
    """Network whose logits do not depend on the clip."""

    def __init__(self) -> None:
        super().__init__()
        self.verb = nn.Parameter(torch.zeros(3))
        self.noun = nn.Parameter(torch.zeros(2))

    def forward(self, clip: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"verb": self.verb.expand(len(clip), 3), "noun": self.noun.expand(len(clip), 2)}


def test_the_best_of_several_heads_is_the_best_of_all_together(
    tiny_recipe: Recipe, few_moves: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [
        replace(
            entry,
            rgb=few_moves.locate(entry.rgb),
            depth="",
            labels={"verb": entry.labels["label"], "noun": "a" if number % 2 else "b"},
        )
        for number, entry in enumerate(few_moves.entries)
    ]
    both = write_manifest(
        tmp_path / "both.csv", entries=entries, classes=class_lists(entries), dataset="both", version="1", depth=None
    )
    scores = iter([{"verb": 90.0, "noun": 80.0, "joint": 10.0}, {"verb": 20.0, "noun": 30.0, "joint": 20.0}])
    monkeypatch.setattr(loop, "measure", lambda _: [(f"{name}.top1", value) for name, value in next(scores).items()])
    run = train(replace(tiny_recipe, data=replace(tiny_recipe.data, manifest=str(both.path))), model=TwoHeads())
    assert json.loads((run.model / "model.json").read_text())["provenance"]["step"] == 10


@pytest.mark.parametrize("modalities", [("depth",)])
def test_depth_trains_by_the_same_loop(tiny_recipe: Recipe, modalities) -> None:
    run = train(replace(tiny_recipe, clip=replace(tiny_recipe.clip, modalities=modalities)), max_steps=2)
    trained = load_model(run.path)
    assert trained.preprocessing.depth is not None
    assert trained.preprocessing.channels == {"depth": 1}


def test_mixup_trains_by_the_same_loop(tiny_recipe: Recipe) -> None:
    augmentation = replace(tiny_recipe.data.augmentation, mixup_alpha=0.8)
    run = train(replace(tiny_recipe, data=replace(tiny_recipe.data, augmentation=augmentation)), max_steps=2)
    assert len(run.steps()) == 2


def test_bfloat16_trains_and_is_recorded(tiny_recipe: Recipe) -> None:
    run = train(replace(tiny_recipe, compute=replace(tiny_recipe.compute, precision="bfloat16")), max_steps=2)
    assert load_model(run.path).precision == "bfloat16"


class TwoStreams(nn.Module):
    """Network of a user's own with two streams."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, rgb: torch.Tensor | None = None, depth: torch.Tensor | None = None) -> torch.Tensor:
        assert rgb is not None
        assert depth is not None
        return self.head(torch.cat([rgb.mean((2, 3, 4)), depth.mean((2, 3, 4))], dim=1))


def test_a_users_own_two_stream_network_trains_and_loads(tiny_recipe: Recipe, few_moves: Manifest) -> None:
    recipe = replace(tiny_recipe, clip=replace(tiny_recipe.clip, modalities=("rgb", "depth")))
    run = train(recipe, model=TwoStreams(), max_steps=2)
    recognizer = Recognizer.load(run.path, model=TwoStreams())
    entry = few_moves.entries[0]
    prediction = recognizer({"rgb": few_moves.locate(entry.rgb), "depth": few_moves.locate(entry.depth)})
    assert len(prediction) == 3


def test_two_streams_learn_together_and_either_answers(tiny_recipe: Recipe, few_moves: Manifest) -> None:
    config = TwoStreamConfig(rgb=TINY_MFST, depth=TINY_MFST, stream_dropout=0.5)
    recipe = replace(tiny_recipe, model=config, clip=replace(tiny_recipe.clip, modalities=("rgb", "depth")))
    run = train(recipe, max_steps=2)
    assert Run.open(run.path).recipe == replace(recipe, run=replace(recipe.run, out=run.path))
    both = evaluate(run.path, few_moves, device="cpu").predictions.logits["label"]
    alone = evaluate(run.path, few_moves, device="cpu", modalities=("depth",)).predictions.logits["label"]
    assert both.shape == alone.shape == (6, 3)
    assert abs(both - alone).max() > 1e-4


def test_two_streams_need_both_modalities(tiny_recipe: Recipe, raises) -> None:
    config = TwoStreamConfig(rgb=TINY_MFST, depth=TINY_MFST)
    with raises(RecipeError, "TwoStream", field="clip.modalities"):
        train(replace(tiny_recipe, model=config))


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tiny_recipe: Recipe, raises) -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    model(torch.zeros(1, 3, 8, 32, 32))
    with torch.no_grad():
        model[1].weight.fill_(float("inf"))
    with raises(NonFiniteLoss, "loss is nan", "step 1", "lines ", path="few moves.csv"):
        train(tiny_recipe, model=model)


def test_a_missing_file_stops_training_with_manifest_line_and_file(tiny_recipe: Recipe, tmp_path: Path, raises) -> None:
    source = load_manifest(tiny_recipe.data.manifest)
    for suffix in (".csv", ".json"):
        shutil.copy(source.path.with_suffix(suffix), tmp_path / f"broken{suffix}")
    table = (tmp_path / "broken.csv").read_text()
    (tmp_path / "broken.csv").write_text(table.replace("kick_s1_c1", "kick_s1_nowhere"))
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, manifest=str(tmp_path / "broken.csv"), workers=1))
    with raises(UnreadableSample, "broken.csv, line ", "nowhere"):
        train(recipe)


def test_evaluation_clips_do_not_depend_on_the_augmentation(tiny_recipe: Recipe, few_moves: Manifest) -> None:
    """Evaluation shares the dataset with training, and only draws with a seed are augmented."""
    plain, varied = (
        VideoDataset(
            few_moves,
            sampling=tiny_recipe.clip.frame_sampling(),
            preprocessing=tiny_recipe.clip.preprocessing(None),
            augmentation=augmentation,
        )
        for augmentation in (None, tiny_recipe.data.augmentation)
    )
    draws = evaluation_batches(few_moves.positions("test"), 6)[0]
    one, other = (complete(collate([data[draw] for draw in draws])) for data in (plain, varied))
    assert torch.equal(one["inputs"]["rgb"], other["inputs"]["rgb"])

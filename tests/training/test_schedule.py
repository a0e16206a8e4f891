"""Tests of the schedule of evaluations, checkpoints and early stopping."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinema.data.manifest import Manifest, class_lists, write_manifest
from kinema.errors import ManifestError, RecipeError
from kinema.inference.trained_model import load_model
from kinema.training import loop
from kinema.training.checkpoints import TrainingState
from kinema.training.loop import train
from kinema.training.recipe import Checkpoint, Recipe
from kinema.training.runs import Run
from kinema.training.schedule import Schedule, check_metric
from kinema.training.setup import select_samples, use_existing_split


def schedule(
    recipe: Recipe, *, samples: int, max_steps: int | None = None, batch: int = 4, epochs: float = 4.0, **fields
):
    return Schedule.from_recipe(
        replace(
            recipe,
            data=replace(recipe.data, batch_size=batch),
            optim=replace(recipe.optim, epochs=epochs, warmup_epochs=min(recipe.optim.warmup_epochs, epochs)),
            **{section: replace(getattr(recipe, section), **values) for section, values in fields.items()},
        ),
        samples=samples,
        max_steps=max_steps,
    )


def when(is_due, last: int) -> list[int]:
    return [step for step in range(last + 1) if is_due(step)]


@pytest.mark.parametrize(
    ("samples", "batch", "epochs", "steps"),
    [(10, 4, 4, 10), (10, 4, 1, 3), (3, 4, 1, 1), (1, 64, 0.5, 1), (7, 3, 27, 63), (7, 3, 54, 126), (10, 4, 0.5, 2)],
)
def test_the_last_batch_contains_the_last_sample(
    tiny_recipe: Recipe, samples: int, batch: int, epochs: float, steps: int
) -> None:
    found = schedule(tiny_recipe, samples=samples, batch=batch, epochs=epochs)
    assert found.steps == found.last == steps


def test_whole_epochs_need_no_extra_batch(tiny_recipe: Recipe) -> None:
    for batch in (3, 7, 48):
        for samples in range(1, 40, 2):
            for epochs in (3, 27, 51):
                steps = schedule(tiny_recipe, samples=samples, batch=batch, epochs=epochs).steps
                assert steps == math.ceil(Fraction(epochs * samples, batch)), (samples, batch, epochs)


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (2.0, [5, 10]),  # epochs end with a batch
        (1.0, [2, 4, 6, 8, 10]),  # epochs end within a batch: 2.5 steps are rounded to 2
        (0.1, list(range(1, 11))),
        (3.0, [8, 10]),
        (100.0, [10]),
    ],
)
def test_evaluations_follow_the_interval_and_the_last_step(
    tiny_recipe: Recipe, every: float, expected: list[int]
) -> None:
    found = schedule(tiny_recipe, samples=10, run={"evaluate_every_epochs": every})
    assert when(found.should_evaluate, found.last) == expected


def test_max_steps_evaluates_at_the_end_and_keeps_the_schedule(tiny_recipe: Recipe) -> None:
    found = schedule(tiny_recipe, samples=10, max_steps=7, run={"evaluate_every_epochs": 2.0})
    assert (found.steps, found.last) == (10, 7)
    assert when(found.should_evaluate, found.last) == [5, 7]
    assert when(lambda step: found.is_over(step, stale=0), 10) == [7, 8, 9, 10]
    assert schedule(tiny_recipe, samples=10, max_steps=70).last == 10


@pytest.mark.parametrize(("every", "expected"), [(None, []), (3, [3, 6, 9]), (1, list(range(1, 11)))])
def test_additional_checkpoints_follow_steps(tiny_recipe: Recipe, every: int | None, expected: list[int]) -> None:
    found = schedule(tiny_recipe, samples=10, checkpoint={"every": every})
    assert when(found.should_save, found.last) == expected


@pytest.mark.parametrize(("every", "expected"), [(None, []), (1.2, [3, 6, 9]), (0.01, list(range(1, 11))), (4.0, [10])])
def test_permanent_checkpoints_follow_epochs(tiny_recipe: Recipe, every: float | None, expected: list[int]) -> None:
    found = schedule(tiny_recipe, samples=10, checkpoint={"keep_every_epochs": every})
    assert when(found.should_keep, found.last) == expected


def test_warm_up_lasts_for_the_epochs_of_the_recipe(tiny_recipe: Recipe) -> None:
    for passes, steps in ((0.0, 0), (1.0, 2), (1.2, 3), (4.0, 10)):
        recipe = replace(tiny_recipe, optim=replace(tiny_recipe.optim, warmup_epochs=passes))
        assert schedule(recipe, samples=10).warmup_steps == steps


def test_only_patience_ends_training_early(tiny_recipe: Recipe) -> None:
    patient = schedule(tiny_recipe, samples=10, run={"patience": 2})
    assert [patient.is_over(4, stale=stale) for stale in (0, 1, 2, 3)] == [False, False, True, True]
    assert not schedule(tiny_recipe, samples=10).is_over(4, stale=99)


# -- in trainings --------------------------------------------------------------------------------------------------


def provenance(run: Run) -> dict[str, object]:
    content: dict[str, object] = json.loads((run.model / "model.json").read_text())["provenance"]
    return content


def checkpoint(run: Run, name: str) -> dict[str, object]:
    state: dict[str, object] = torch.load(run.path / "checkpoints" / f"{name}.pt", weights_only=True)
    return state


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def set_scores(monkeypatch: pytest.MonkeyPatch, scores: Sequence[float]) -> None:
    """Replace the top-1 accuracy of successive evaluations."""
    scores_left: Iterator[float] = iter(scores)
    monkeypatch.setattr(loop, "measure", lambda _: [("top1", next(scores_left)), ("top5", 100.0)])


def every_step(recipe: Recipe, **run) -> Recipe:
    return replace(recipe, run=replace(recipe.run, evaluate_every_epochs=0.4, **run))  # 10 clips, batches of 4


def test_a_constant_metric_ends_training_at_the_second_evaluation(
    tiny_recipe: Recipe,
) -> None:
    """The coverage is always 100 %."""
    run = train(
        replace(
            tiny_recipe,
            checkpoint=replace(tiny_recipe.checkpoint, metric="coverage"),
            run=replace(tiny_recipe.run, patience=1, evaluate_every_epochs=1.2),
        )
    )
    assert [line["step"] for line in run.metrics()] == [3, 6]
    assert [line["coverage"] for line in run.metrics()] == [100.0, 100.0]
    assert len(run.steps()) == 6
    assert provenance(run)["step"] == 3
    assert same(load_model(run.path).model.state_dict(), checkpoint(run, "best")["model"])
    assert checkpoint(run, "best")["step"] == 3
    assert checkpoint(run, "last")["step"] == 6


def test_improvement_resets_patience(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    set_scores(monkeypatch, [50, 40, 60, 30, 60, 20, 99])
    run = train(every_step(tiny_recipe, patience=3))
    assert [line["top1"] for line in run.metrics()] == [50, 40, 60, 30, 60, 20]  # an equal score is not an improvement
    assert provenance(run)["step"] == 3


def test_a_run_that_stopped_early_does_not_continue(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    set_scores(monkeypatch, [50, 40])
    run = train(every_step(tiny_recipe, patience=1))
    train(run.recipe, Run.open(run.path))
    assert len(run.steps()) == len(run.metrics()) == 2


def test_a_resumed_run_keeps_its_best_and_its_patience(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is stopped after two of three evaluations without improvement, and ends at the next one."""
    set_scores(monkeypatch, [50, 40, 45, 49, 99])
    run = train(every_step(tiny_recipe, patience=3), max_steps=3)
    before = load_model(run.path).digest
    run = train(run.recipe, Run.open(run.path))
    assert [line["top1"] for line in run.metrics()] == [50, 40, 45, 49]
    assert provenance(run)["step"] == 1
    assert load_model(run.path).digest == before


def test_the_last_weights_are_shipped_with_keep_last(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    set_scores(monkeypatch, [50, 40])
    run = train(every_step(replace(tiny_recipe, checkpoint=Checkpoint(keep="last")), patience=1))
    assert provenance(run)["step"] == 2
    assert checkpoint(run, "best")["step"] == 1
    assert same(load_model(run.path).model.state_dict(), checkpoint(run, "last")["model"])


@pytest.mark.parametrize("metric", ["top5", "mean_class"])
def test_evaluations_are_ranked_by_the_named_metric(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    other = "top5" if metric == "mean_class" else "mean_class"
    scores_left = iter([{"top1": 9.0, metric: 1.0, other: 9.0}, {"top1": 5.0, metric: 7.0, other: 5.0}])
    monkeypatch.setattr(loop, "measure", lambda _: list(next(scores_left).items()))
    run = train(replace(tiny_recipe, checkpoint=replace(tiny_recipe.checkpoint, metric=metric)))
    assert provenance(run)["step"] == 10


@pytest.mark.parametrize("metric", ["top1", "top5", "mean_class", "coverage"])
def test_every_metric_of_an_evaluation_can_rank(tiny_recipe: Recipe, metric: str) -> None:
    run = train(replace(tiny_recipe, checkpoint=replace(tiny_recipe.checkpoint, metric=metric)), max_steps=1)
    assert checkpoint(run, "last")["best"] == run.metrics()[0][metric]


def test_an_unknown_metric_lists_the_available_ones(tiny_recipe: Recipe, raises) -> None:
    recipe = replace(tiny_recipe, checkpoint=replace(tiny_recipe.checkpoint, metric="accuracy"))
    with raises(RecipeError, "top1, top5, mean_class, coverage", field="checkpoint.metric"):
        train(recipe)
    assert recipe.run.out is not None
    assert not recipe.run.out.exists()  # refused before training, not at the first evaluation


def test_patience_ignores_an_evaluation_due_to_max_steps(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations are due after steps 4, 8 and 10. The one after step 5 is due to `max_steps`."""
    set_scores(monkeypatch, [50, 40, 60, 55])
    recipe = replace(tiny_recipe, run=replace(tiny_recipe.run, patience=1, evaluate_every_epochs=1.6))
    run = train(recipe, max_steps=5)
    run = train(run.recipe, Run.open(run.path))
    assert [(line["step"], line["top1"]) for line in run.metrics()] == [(4, 50), (5, 40), (8, 60), (10, 55)]


def test_the_metric_is_checked_before_the_first_evaluation(
    tiny_recipe: Recipe, few_moves: Manifest, tmp_path: Path, raises
) -> None:
    """Names of metrics are checked for one head and for two."""
    entries = [
        replace(entry, rgb="gone.mp4", depth="", labels={"verb": entry.labels["label"], "noun": "a" if n % 2 else "b"})
        for n, entry in enumerate(few_moves.entries)
    ]
    two = write_manifest(
        tmp_path / "two.csv", entries=entries, classes=class_lists(entries), dataset="two", version="1", depth=None
    )
    for manifest, known in (
        (few_moves, ("top1", "top5", "mean_class", "coverage")),
        (two, ("top1", "top5", "joint.top1", "verb.top1", "noun.mean_class", "coverage")),
    ):
        for metric in known:
            check_metric(replace(tiny_recipe, checkpoint=replace(tiny_recipe.checkpoint, metric=metric)), manifest)
    for manifest, metric, expected in (
        (few_moves, "verb.top1", "top1, top5, mean_class, coverage"),
        (two, "mean_class", "verb.top1, verb.top5, verb.mean_class, noun.top1"),
    ):
        with raises(RecipeError, metric, expected, field="checkpoint.metric"):
            check_metric(replace(tiny_recipe, checkpoint=replace(tiny_recipe.checkpoint, metric=metric)), manifest)


def test_a_run_can_resume_from_a_permanent_checkpoint(tiny_recipe: Recipe) -> None:
    run = train(replace(tiny_recipe, checkpoint=replace(tiny_recipe.checkpoint, keep_every_epochs=1.2)))
    names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert names == ["best.pt", "last.pt", "step-000003.pt", "step-000006.pt", "step-000009.pt"]
    assert [checkpoint(run, f"step-00000{step}")["step"] for step in (3, 6, 9)] == [3, 6, 9]
    assert not same(checkpoint(run, "step-000003")["model"], checkpoint(run, "step-000006")["model"])

    end, losses = checkpoint(run, "last"), [line["loss"] for line in run.steps()]
    (run.path / "checkpoints" / "step-000006.pt").replace(run.path / "checkpoints" / "last.pt")
    again = train(run.recipe, Run.open(run.path))
    assert [line["loss"] for line in again.steps()] == losses
    assert same(checkpoint(again, "last")["model"], end["model"])


def test_additional_checkpoints_are_written_between_evaluations(tiny_recipe: Recipe) -> None:
    recipe = replace(
        tiny_recipe,
        checkpoint=replace(tiny_recipe.checkpoint, every=3),
        run=replace(tiny_recipe.run, evaluate_every_epochs=100.0),
    )
    steps: list[object] = []
    run = Run.create(recipe, name="tiny")
    save = run.save_checkpoint
    run.save_checkpoint = lambda state, *, also=(): (steps.append(state["step"]), save(state, also=also))[1]  # type: ignore[method-assign]
    train(recipe, run)
    assert steps == [3, 6, 9, 10]
    assert [line["step"] for line in run.metrics()] == [10]


def test_the_first_of_equal_evaluations_is_the_best() -> None:
    state = TrainingState()
    scores = (50.0, 100.0, 100.0, math.nan, 90.0, 100.0)
    assert [state.update(value, is_due=True) for value in scores] == [True, True, False, False, False, False]
    assert (state.best, state.stale) == (100.0, 4)


def test_a_training_evaluates_on_the_split_that_is_there(few_moves: Manifest, tiny_recipe: Recipe, messages) -> None:
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, evaluate="val"))
    found = use_existing_split(recipe, few_moves)
    assert found.data.evaluate == "test"
    assert "--data.evaluate" in messages()[0]
    assert use_existing_split(found, few_moves) is found
    trained_on_test = replace(recipe, data=replace(recipe.data, train="test"))
    assert use_existing_split(trained_on_test, few_moves) is trained_on_test


@pytest.mark.parametrize("field", ["train", "evaluate"])
def test_a_missing_split_names_its_option(few_moves: Manifest, tiny_recipe: Recipe, field: str, raises) -> None:
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, **{field: "fold7"}))
    with raises(ManifestError, f"--data.{field}", field="split"):
        select_samples(recipe, few_moves)

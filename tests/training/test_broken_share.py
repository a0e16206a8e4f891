"""Tests of training with one broken file in fifty: all counts of skipped samples agree."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kinema.data.manifest import Entry, Manifest, load_manifest, write_manifest
from kinema.data.samplers import TrainingBatches
from kinema.reports.results import store_result
from kinema.training.loop import train
from kinema.training.recipe import Recipe
from kinema.training.runs import Run

SAMPLES = 200
BROKEN = {16: "empty", 58: "truncated", 103: "text", 186: "missing"}
"""Defect of a file by position of its training sample. The first and last share a batch."""


@pytest.fixture(scope="module")
def share(few_moves: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Return a manifest of 200 training samples, copies of a few clips, and six test samples."""
    folder = tmp_path_factory.mktemp("share")
    learned = [entry for entry in few_moves.entries if entry.split == "train"]
    entries: list[Entry] = []
    for number in range(SAMPLES):
        entry = learned[number % len(learned)]
        path = folder / f"clip {number}.mp4"
        content = Path(few_moves.locate(entry.rgb)).read_bytes()
        match BROKEN.get(number):
            case None:
                os.symlink(few_moves.locate(entry.rgb), path)
            case "empty":
                path.write_bytes(b"")
            case "truncated":
                path.write_bytes(content[: len(content) // 2])
            case "text":
                path.write_text("404: not found\n" * 100)
        entries.append(replace(entry, rgb=path.name, depth=""))
    entries += [
        replace(entry, rgb=few_moves.locate(entry.rgb), depth="")
        for entry in few_moves.entries
        if entry.split == "test"
    ]
    return write_manifest(
        folder / "share.csv", entries=entries, classes=few_moves.classes, dataset="share", version="1", depth=None
    )


def count_failures(recipe: Recipe, *, steps: int) -> tuple[Counter[int], Counter[int]]:
    """Return the expected number of failed draws by sample and by step."""
    augmentation = recipe.data.augmentation
    batches = TrainingBatches(
        load_manifest(recipe.data.manifest).positions("train"),
        batch_size=recipe.data.batch_size,
        steps=steps,
        seed=recipe.run.seed,
        mixup="partner" if augmentation.mixes_samples else "none",
    )
    by_sample: Counter[int] = Counter()
    by_step: Counter[int] = Counter()
    for step, draws in enumerate(batches, start=1):
        for draw in draws:
            indices = [draw.index] + ([draw.partner.index] if draw.partner else [])
            failed = [index for index in indices if index in BROKEN]
            if failed:
                by_sample[failed[0]] += 1
                by_step[step] += 1
    return by_sample, by_step


@pytest.mark.parametrize(
    ("workers", "mixed"),
    [(0, False), pytest.param(1, False, marks=pytest.mark.long), pytest.param(1, True, marks=pytest.mark.long)],
)
def test_a_training_with_a_broken_share_finishes_and_counts_alike_everywhere(
    share: Manifest,
    tiny_recipe: Recipe,
    tmp_path: Path,
    workers: int,
    mixed: bool,
    messages: Callable[[], list[str]],
) -> None:
    augmentation = replace(tiny_recipe.data.augmentation, mixup_alpha=0.4 if mixed else 0.0)
    recipe = replace(
        tiny_recipe,
        data=replace(
            tiny_recipe.data,
            manifest=str(share.path),
            unreadable="skip",
            workers=workers,
            augmentation=augmentation,
        ),
        optim=replace(tiny_recipe.optim, epochs=1.5, warmup_epochs=0.5),
        checkpoint=replace(tiny_recipe.checkpoint, every=20),
        run=replace(tiny_recipe.run, evaluate_every_epochs=0.7),
    )
    steps = 75
    by_sample, by_step = count_failures(recipe, steps=steps)
    assert set(by_sample) == set(BROKEN)
    assert max(by_step.values()) == 2

    run = train(recipe)
    assert [line["step"] for line in run.steps()] == list(range(1, steps + 1))
    skipped = run.skipped()
    assert Counter(line["index"] for line in skipped) == by_sample
    assert Counter(line["step"] for line in skipped) == by_step
    assert {line["step"]: line["skipped"] for line in run.steps() if "skipped" in line} == by_step
    for line in skipped:
        assert line["reason"].startswith(f"{share.path}, line {line['index'] + 2}: ")
        assert f"clip {line['index']}.mp4" in line["reason"]

    trained = json.loads((run.model / "model.json").read_text())["provenance"]
    before = [line for line in skipped if line["step"] <= trained["step"]]
    expected = sum(count for step, count in by_step.items() if step <= trained["step"])
    assert trained["skipped_draws"] == len(before) == expected
    assert trained["skipped_samples"] == len({line["index"] for line in before})

    result = store_result(run, tmp_path / "result.json", title="a broken share")
    assert result["training"]["skipped"] == {"draws": by_sample.total(), "samples": len(BROKEN)}
    assert result["provenance"]["skipped_draws"] == trained["skipped_draws"]
    assert json.loads((tmp_path / "result.json").read_text())["training"] == result["training"]

    logged = {
        int(step): (int(draws), int(samples))
        for step, draws, samples in re.findall(
            r"^step (\d+): .*\(skipped (\d+) draws of (\d+) samples\)$", "\n".join(messages()), re.MULTILINE
        )
    }
    assert logged == {
        line["step"]: (
            sum(count for step, count in by_step.items() if step <= line["step"]),
            len({skip["index"] for skip in skipped if skip["step"] <= line["step"]}),
        )
        for line in run.metrics()
    }
    assert list(logged) == [35, 70, 75]


@pytest.mark.long
def test_a_stopped_training_with_a_broken_share_goes_on_to_the_bit(
    share: Manifest, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    data = replace(tiny_recipe.data, manifest=str(share.path), unreadable="skip", workers=1)
    runs = []
    for name in ("whole", "parted"):
        recipe = replace(
            tiny_recipe,
            data=data,
            optim=replace(tiny_recipe.optim, epochs=0.5, warmup_epochs=0.1),
            run=replace(tiny_recipe.run, out=tmp_path / name),
        )
        run = train(recipe, max_steps=None if name == "whole" else 11)
        runs.append(run if name == "whole" else train(run.recipe, Run.open(run.path)))
    whole, parted = runs
    assert [line["loss"] for line in parted.steps()] == [line["loss"] for line in whole.steps()]
    assert parted.skipped() == whole.skipped() != []

"""Tests of skipping and counting samples that cannot be read."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kinema.data.manifest import Manifest, load_manifest, write_manifest
from kinema.data.samplers import TrainingBatches
from kinema.errors import ManifestError, RecipeError, UnreadableSample
from kinema.reports.results import store_result
from kinema.training.loop import train
from kinema.training.recipe import Recipe
from kinema.training.runs import Run
from kinema.training.setup import TrainingSetup


@pytest.fixture
def broken(few_moves: Manifest, tiny_recipe: Recipe, tmp_path: Path) -> tuple[Recipe, set[int]]:
    """Return a recipe whose manifest has a missing and a damaged training sample, and their positions."""
    for suffix in (".csv", ".json"):
        shutil.copy(few_moves.path.with_suffix(suffix), tmp_path / f"broken{suffix}")
    lines = (tmp_path / "broken.csv").read_text().splitlines()
    columns = lines[0].split(",")
    (tmp_path / "damaged.mp4").write_bytes(Path(few_moves.locate(few_moves.entries[3].rgb)).read_bytes()[:3000])
    for position, name in ((1, "gone.mp4"), (3, "damaged.mp4")):
        cells = lines[position + 1].split(",")
        cells[columns.index("rgb")] = name
        lines[position + 1] = ",".join(cells)
    folder = few_moves.path.parent
    table = "\n".join(lines[:1] + [_absolute(line, columns, folder) for line in lines[1:]])
    (tmp_path / "broken.csv").write_text(table + "\n")
    data = replace(tiny_recipe.data, manifest=str(tmp_path / "broken.csv"), unreadable="skip")
    return replace(tiny_recipe, data=data), {1, 3}


def _absolute(line: str, columns: list[str], folder: Path) -> str:
    cells = line.split(",")
    for column in ("rgb", "depth"):
        name = cells[columns.index(column)]
        if "/" in name:
            cells[columns.index(column)] = str((folder / name).resolve())
    return ",".join(cells)


def count_draws(recipe: Recipe, steps: int) -> Counter[int]:
    """Return the number of draws of each sample in the first steps."""
    positions = load_manifest(recipe.data.manifest).positions("train")
    batches = TrainingBatches(positions, batch_size=recipe.data.batch_size, steps=steps, seed=recipe.run.seed)
    return Counter(draw.index for batch in batches for draw in batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_skip_is_counted_in_log_and_result(
    broken: tuple[Recipe, set[int]], tmp_path: Path, workers: int, messages: Callable[[], list[str]]
) -> None:
    recipe, positions = broken
    recipe = replace(recipe, data=replace(recipe.data, workers=workers))
    run = train(recipe)
    steps = len(run.steps())
    draws = count_draws(recipe, steps)
    expected = {position: draws[position] for position in positions}
    assert Counter(line["index"] for line in run.skipped()) == expected
    assert sum(line.get("skipped", 0) for line in run.steps()) == sum(expected.values()) > 0
    for line in run.skipped():
        assert f"broken.csv, line {line['index'] + 2}: " in line["reason"]
        assert ("gone.mp4" if line["index"] == 1 else "damaged.mp4") in line["reason"]
    result = store_result(run, tmp_path / "result.json", title="a test")
    assert result["training"]["skipped"] == {"draws": sum(expected.values()), "samples": 2}
    before = sum(line["step"] <= result["provenance"]["step"] for line in run.skipped())
    assert result["provenance"]["skipped_draws"] == before > 0
    assert result["provenance"]["skipped_samples"] == 2
    logged = messages()
    assert f"skipped {sum(expected.values())} draws of 2 samples" in logged[-1]
    named = [line for line in logged if re.match(r"step \d+: skipped ", line)]
    assert len(named) == 2  # each broken sample once
    assert all("broken.csv, line" in line for line in named)


def test_a_training_without_faults_reports_no_skips(tiny_recipe: Recipe) -> None:
    run = train(replace(tiny_recipe, data=replace(tiny_recipe.data, unreadable="skip")))
    provenance = json.loads((run.model / "model.json").read_text())["provenance"]
    assert (provenance["skipped_draws"], provenance["skipped_samples"]) == (0, 0)
    assert not any("skipped" in line for line in run.steps())


def test_stopping_is_the_default(broken: tuple[Recipe, set[int]], raises) -> None:
    recipe, _ = broken
    with raises(UnreadableSample, "broken.csv, line "):
        train(replace(recipe, data=replace(recipe.data, unreadable="stop")))


@pytest.mark.long
def test_a_resumed_run_counts_each_skip_once(broken: tuple[Recipe, set[int]], tmp_path: Path) -> None:
    recipe, _ = broken
    whole = train(replace(recipe, run=replace(recipe.run, out=tmp_path / "whole")))
    stopped = replace(recipe, run=replace(recipe.run, out=tmp_path / "stopped"))
    run = train(stopped, max_steps=5)
    run.log("skipped", {"step": 7, "index": 1, "reason": "after the checkpoint"})
    resumed = train(stopped, Run.open(run.path))
    assert resumed.skipped() == whole.skipped()
    assert [line["loss"] for line in resumed.steps()] == [line["loss"] for line in whole.steps()]


def test_an_unreadable_batch_does_not_change_the_weights(broken: tuple[Recipe, set[int]]) -> None:
    recipe, positions = broken
    recipe = replace(recipe, data=replace(recipe.data, batch_size=1))
    run = train(recipe)
    draws = count_draws(recipe, 40)
    assert len(run.steps()) == 40 - sum(draws[position] for position in positions)
    assert len(run.skipped()) == sum(draws[position] for position in positions)


def test_a_training_that_skips_most_draws_is_stopped(broken: tuple[Recipe, set[int]], tmp_path: Path, raises) -> None:
    recipe, _ = broken
    table = (tmp_path / "broken.csv").read_text().splitlines()
    gone = [line.replace(".mp4", ".gone") if ",train," in line else line for line in table]
    (tmp_path / "broken.csv").write_text("\n".join(gone) + "\n")
    recipe = replace(recipe, optim=replace(recipe.optim, epochs=40.0))
    with raises(UnreadableSample, "36 of 36", "kinema check", path="broken.csv"):
        train(recipe)


def test_an_evaluation_never_skips(broken: tuple[Recipe, set[int]], tmp_path: Path, raises) -> None:
    recipe, _ = broken
    table = (tmp_path / "broken.csv").read_text().splitlines()
    (place,) = [i for i, line in enumerate(table) if ",test," in line][:1]
    table[place] = table[place].replace(".mp4", ".gone")
    (tmp_path / "broken.csv").write_text("\n".join(table) + "\n")
    with raises(UnreadableSample, f"broken.csv, line {place + 1}: ", ".gone"):
        train(recipe)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_file_that_prepare_could_not_count_stops_a_training_before_it_begins(
    few_moves: Manifest, tiny_recipe: Recipe, tmp_path: Path, split: str, raises
) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_text("no video")
    position = few_moves.positions(split)[-1]
    entries = [
        replace(entry, rgb=few_moves.locate(entry.rgb), depth="")
        if number != position
        else replace(entry, rgb=str(damaged), depth="", frames=None)
        for number, entry in enumerate(few_moves.entries)
    ]
    write_manifest(tmp_path / "m.csv", entries=entries, classes=few_moves.classes, dataset="m", version="1", depth=None)
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, manifest=str(tmp_path / "m.csv")))
    with raises(UnreadableSample, f"m.csv, line {position + 2}: ", path="damaged.mp4"):
        train(recipe)
    assert not recipe.run.out.exists()
    skipping = replace(recipe, data=replace(recipe.data, unreadable="skip"))
    if split == "test":
        with raises(UnreadableSample, path="damaged.mp4"):
            train(skipping)
    else:
        assert {line["index"] for line in train(skipping).skipped()} == {position}


def test_a_split_that_lost_a_line_stops_a_training_before_it_begins(
    few_moves: Manifest, tiny_recipe: Recipe, tmp_path: Path, raises
) -> None:
    lines = few_moves.path.read_text().splitlines()
    (tmp_path / "m.csv").write_text("\n".join(lines[:-1]) + "\n")
    shutil.copy(few_moves.path.with_suffix(".json"), tmp_path / "m.json")
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, manifest=str(tmp_path / "m.csv")))
    with raises(ManifestError, "5 samples", path="m.csv", field="declared.test"):
        train(recipe)
    assert not recipe.run.out.exists()


def test_mirroring_that_would_swap_classes_is_refused(
    few_moves: Manifest, tiny_recipe: Recipe, tmp_path: Path, raises
) -> None:
    for suffix in (".csv", ".json"):
        text = few_moves.path.with_suffix(suffix).read_text().replace("kick", "turn left").replace("run", "turn right")
        (tmp_path / f"sides{suffix}").write_text(text)
    data = replace(tiny_recipe.data, manifest=str(tmp_path / "sides.csv"))
    with raises(RecipeError, "0.5", "'turn left'", "'turn right'", path="sides.csv", field="data.augmentation.flip"):
        replace(tiny_recipe, data=data).open_manifest()
    still = replace(data, augmentation=replace(data.augmentation, flip=0.0))
    assert replace(tiny_recipe, data=still).open_manifest().classes["label"] == ("turn left", "turn right", "walk")


def test_mirroring_that_may_swap_classes_is_asked_about(
    few_moves: Manifest, tiny_recipe: Recipe, tmp_path: Path, raises
) -> None:
    for suffix in (".csv", ".json"):
        text = few_moves.path.with_suffix(suffix).read_text().replace("kick", "turn sxa").replace("run", "turn dxa")
        (tmp_path / f"own{suffix}").write_text(text.replace('"moves"', '"own videos"'))
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, manifest=str(tmp_path / "own.csv")))
    with raises(RecipeError, "--mirrored none", "'turn sxa'", path="own.csv", field="data.augmentation.flip"):
        TrainingSetup.build(recipe)
    facts = json.loads((tmp_path / "own.json").read_text())
    (tmp_path / "own.json").write_text(json.dumps({**facts, "mirrored": []}))
    assert recipe.open_manifest().mirrored == ()
    (tmp_path / "own.json").write_text(json.dumps({**facts, "mirrored": [["turn sxa", "turn dxa"]]}))
    with raises(RecipeError, "0.5", "'turn sxa'", "'turn dxa'", path="own.csv", field="data.augmentation.flip"):
        recipe.open_manifest()


def test_copies_across_splits_stop_a_training_unless_allowed(
    few_moves: Manifest, tiny_recipe: Recipe, tmp_path: Path, raises
) -> None:
    entries = [replace(e, rgb=few_moves.locate(e.rgb), depth=few_moves.locate(e.depth)) for e in few_moves.entries]
    shutil.copy(entries[0].rgb, tmp_path / "copy.mp4")
    entries[-1] = replace(entries[-1], rgb=str(tmp_path / "copy.mp4"))
    write_manifest(
        tmp_path / "m.csv",
        entries=entries,
        classes=few_moves.classes,
        dataset="own",
        version="own",
        depth=few_moves.depth,
    )
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, manifest=str(tmp_path / "m.csv")))
    with raises(ManifestError, "copy.mp4", "--data.duplicates allow", path="m.csv", line=2, field="split"):
        train(recipe, max_steps=1)
    assert not recipe.run.out.exists()
    run = train(replace(recipe, data=replace(recipe.data, duplicates="allow")), max_steps=1)
    assert len(run.steps()) == 1

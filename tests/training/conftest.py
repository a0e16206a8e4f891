"""Fixtures of the training tests: a recipe on a few clips of the built-in moves with a tiny network."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kinema.data.manifest import Manifest, class_lists, load_manifest, write_manifest
from kinema.evaluation.evaluate import evaluate
from kinema.inference.trained_model import load_model
from kinema.models.ctn import CTNConfig
from kinema.training.loop import train
from kinema.training.recipe import Augmentation, Clip, Compute, Data, Optim, Recipe, RunSettings
from kinema.training.runs import Run

TINY = CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3, dropout=0.1)


@pytest.fixture(scope="session")
def few_moves(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Return a manifest of three actions, ten clips for training and six for testing."""
    built_in = load_manifest("moves_cross_subject")
    out = tmp_path_factory.mktemp("few") / "few moves.csv"  # a space in the name, as users have
    chosen = []
    for split, clips in (("train", 4), ("test", 2)):
        for label in ("kick", "run", "walk"):
            found = [e for e in built_in.entries if e.split == split and e.labels["label"] == label][:clips]
            chosen += found[: clips - (label == "walk" and split == "train") * 2]
    entries = [
        replace(
            entry,
            rgb=os.path.relpath(built_in.locate(entry.rgb), out.parent),
            depth=os.path.relpath(built_in.locate(entry.depth), out.parent),
        )
        for entry in chosen
    ]
    return write_manifest(
        out, entries=entries, classes=class_lists(entries), dataset="few moves", version="1", depth=built_in.depth
    )


@pytest.fixture(scope="session")
def few_verbs_and_nouns(few_moves: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Return a manifest of the same clips with two labels: the move as verb, the subject as noun."""
    out = tmp_path_factory.mktemp("two") / "verbs and nouns.csv"
    entries = [
        replace(
            entry,
            rgb=os.path.relpath(few_moves.locate(entry.rgb), out.parent),
            depth=os.path.relpath(few_moves.locate(entry.depth), out.parent),
            labels={"verb": entry.labels["label"], "noun": entry.group},
        )
        for entry in few_moves.entries
    ]
    return write_manifest(
        out, entries=entries, classes=class_lists(entries), dataset="few moves", version="1", depth=few_moves.depth
    )


@pytest.fixture
def tiny_recipe(few_moves: Manifest, tmp_path: Path) -> Recipe:
    """Return a recipe of ten steps on `few_moves`."""
    return Recipe(
        clip=Clip(frames=8, size=32, short_side=32),
        data=Data(
            manifest=str(few_moves.path),
            evaluate="test",
            batch_size=4,
            workers=0,
            augmentation=Augmentation(short_side=(32, 40), flip=0.5, color_jitter=0.2),
        ),
        model=TINY,
        optim=Optim(lr=0.05, epochs=4, warmup_epochs=1, max_grad_norm=1.0, label_smoothing=0.1),
        compute=Compute(device="cpu"),
        run=RunSettings(out=tmp_path / "run", evaluate_every_epochs=2),
    )


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that returns the messages logged under the name `kinema` since its last call."""
    caplog.set_level(logging.INFO, "kinema")

    def taken() -> list[str]:
        found = list(caplog.messages)
        caplog.clear()
        return found

    return taken


@pytest.fixture
def runs_small(few_moves: Manifest, tmp_path: Path) -> Callable[[Recipe], Run]:
    """Return a function that trains a small recipe on few clips and checks the metrics of the shipped model."""

    def run_small(recipe: Recipe, manifest: Manifest = few_moves) -> Run:
        recipe = replace(
            recipe,
            data=replace(recipe.data, manifest=str(manifest.path), evaluate="test", batch_size=5, workers=0),
            compute=replace(recipe.compute, device="cpu"),
            run=replace(recipe.run, out=tmp_path / "run"),
        )
        run = train(recipe)
        trained = load_model(run.path)
        assert trained.config == recipe.model
        measures = evaluate(trained, manifest, device="cpu").measures
        assert measures["coverage"] == 100
        measured = {name: value for name, value in measures.items() if "top1" in name}
        assert measured
        assert measured == {name: run.metrics()[-1][name] for name in measured}
        return run

    return run_small

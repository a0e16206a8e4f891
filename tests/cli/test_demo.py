"""Tests of the files that `kinema demo` writes; `.ci/run` checks its accuracy."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import kinema.training.recipe
from kinema.cli.app import main
from kinema.inference.recognizer import Recognizer
from kinema.models.ctn import CTNConfig
from kinema.training.recipe import Clip, Recipe, load_recipe


@pytest.fixture
def short_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def shortened(name: str) -> Recipe:
        recipe = load_recipe(name)
        return replace(
            recipe,
            clip=Clip(frames=8, size=32, short_side=32),
            data=replace(recipe.data, workers=0, augmentation=replace(recipe.data.augmentation, short_side=(32, 40))),
            model=CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3),
            optim=replace(recipe.optim, epochs=0.1, warmup_epochs=0.0),
        )

    monkeypatch.setattr(kinema.training.recipe, "load_recipe", shortened)


@pytest.mark.long
@pytest.mark.usefixtures("short_recipe")
def test_the_demo_writes_a_summary_a_page_and_a_model_and_can_be_repeated(tmp_path: Path, capsys) -> None:
    for seed in (0, 1):
        main(["demo", "--out", str(tmp_path / "demo"), "--seed", str(seed)])
        summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
        assert f"Top-1 on unseen subjects: {summary['top1']:.1f} %" in capsys.readouterr().out
        assert json.loads((tmp_path / "demo" / "run" / "recipe.json").read_text())["run"]["seed"] == seed
        assert set(summary) == {"top1", "chance", "classes", "train_clips", "test_clips", "seconds"}
        assert 0 <= summary["top1"] <= 100
        assert (summary["chance"], summary["classes"]) == (6.67, 15)
        assert (summary["train_clips"], summary["test_clips"]) == (270, 90)

    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 2  # learning curve, confusion matrix
    assert page.count("data:image/jpeg;base64,") >= 15  # a clip of every class
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # no external resources
    assert "<script" not in page
    assert len(Recognizer.load(tmp_path / "demo" / "run").classes["label"]) == 15

"""Tests of EPIC-KITCHENS from the downloaded folder to the submission file, on small synthetic videos."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kinema.cli import main
from kinema.data.manifest import load_manifest
from kinema.errors import ManifestError, PredictionsError
from kinema.evaluation.evaluate import evaluate
from kinema.evaluation.predictions import load_predictions
from kinema.evaluation.summary import summarize
from kinema.training.loop import train
from kinema.training.recipe import Augmentation, Recipe

LISTED = (
    "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame,verb_class,noun_class"
)
HEADS = {"verb": 97, "noun": 300}


@pytest.fixture
def epic(tmp_path: Path, write_video) -> Path:
    """Return a manifest of two videos of two seconds with four segments each, for training and validation."""
    root = tmp_path / "EPIC-KITCHENS"
    root.mkdir()
    for head, count in HEADS.items():
        lines = [f"{n},{head} {n},\"['{head} {n}']\",things" for n in range(count)]
        (root / f"EPIC_100_{head}_classes.csv").write_text("\n".join(["id,key,instances,category", *lines]))
    for name, video in (("train", "P01_01"), ("validation", "P02_101")):
        (root / video[:3] / "videos").mkdir(parents=True)
        rng = np.random.default_rng(len(name))
        pictures = rng.integers(0, 256, (100, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        write_video(root / video[:3] / "videos" / f"{video}.MP4", pictures, rate=50)
        lines = [
            f"{video}_{n},{video[:3]},{video},00:00:{n / 2:05.2f},00:00:{n / 2 + 0.5:05.2f},"
            f"{25 * n + 1},{25 * n + 25},{n},{9 * n}"
            for n in range(4)
        ]
        (root / f"EPIC_100_{name}.csv").write_text("\n".join([LISTED, *lines]))
    main(["prepare", "epic_kitchens", "--root", str(root), "--out", str(tmp_path / "epic.csv")])
    return tmp_path / "epic.csv"


def trained_on(recipe: Recipe, manifest: Path) -> Recipe:
    data = replace(
        recipe.data, manifest=str(manifest), evaluate="val", augmentation=Augmentation(short_side=(32, 32), flip=0)
    )
    return replace(recipe, data=data, optim=replace(recipe.optim, epochs=2, label_smoothing=0.0))


def test_from_the_download_to_the_submission_file(tiny_recipe: Recipe, epic: Path, tmp_path: Path) -> None:
    run = train(trained_on(tiny_recipe, epic))
    stored = load_predictions(run.predictions)
    assert {head: logits.shape for head, logits in stored.logits.items()} == {"verb": (4, 97), "noun": (4, 300)}
    later = evaluate(run.path, epic, split="val", batch_size=4, device="cpu").measures
    assert {name: value for name, value in run.metrics()[-1].items() if "top" in name} == {
        name: value for name, value in later.items() if "top" in name
    }
    assert {"verb.top1", "verb.top5", "noun.top1", "noun.top5", "joint.top1", "joint.top5"} <= set(later)
    out = tmp_path / "submission.json"
    args = [run.path, "--manifest", epic, "--out", out, "--sls-pt", "0"]
    main(["submit", "epic_kitchens", *map(str, args)])
    results = json.loads(out.read_text())["results"]
    assert list(results) == [f"P02_101_{n}" for n in range(4)]
    for row, scores in enumerate(results.values()):
        best = int(stored.logits["verb"][row].argmax()), int(stored.logits["noun"][row].argmax())
        assert next(iter(scores["action"])) == f"{best[0]},{best[1]}"


class Nothing(nn.Module):
    """Network whose logits are all zero."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.ParameterDict({head: nn.Parameter(torch.zeros(count)) for head, count in HEADS.items()})

    def forward(self, clip: torch.Tensor) -> dict[str, torch.Tensor]:
        return {head: logits.expand(len(clip), -1) for head, logits in self.logits.items()}


def test_the_loss_is_the_sum_of_verb_and_noun(tiny_recipe: Recipe, epic: Path) -> None:
    run = train(trained_on(tiny_recipe, epic), model=Nothing(), max_steps=1)
    assert run.steps()[0]["loss"] == pytest.approx(math.log(97) + math.log(300), rel=1e-5)


def test_a_model_with_other_nouns_is_refused(tiny_recipe: Recipe, epic: Path, raises) -> None:
    """A noun is removed from the class list of the manifest after training."""
    run = train(trained_on(tiny_recipe, epic), max_steps=1)
    facts = json.loads(epic.with_suffix(".json").read_text())
    facts["classes"]["noun"].pop()
    epic.with_suffix(".json").write_text(json.dumps(facts))
    with raises(ManifestError, "'noun'", field="classes.noun"):
        evaluate(run.path, load_manifest(epic), split="val", device="cpu")


def test_segments_without_labels_are_predicted_but_not_measured(
    tiny_recipe: Recipe, epic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], raises
) -> None:
    """The test split of the challenge has no labels."""
    root = tmp_path / "EPIC-KITCHENS"
    lines = [line.rsplit(",", 2)[0] for line in (root / "EPIC_100_validation.csv").read_text().splitlines()[:4]]
    test = "\n".join(lines).replace("P02", "P03")
    (root / "EPIC_100_test_timestamps.csv").write_text(test)
    (root / "P03").symlink_to(root / "P02")
    (root / "P03" / "videos" / "P03_101.MP4").symlink_to(root / "P02" / "videos" / "P02_101.MP4")
    main(["prepare", "epic_kitchens", "--root", str(root), "--out", str(epic)])
    manifest = load_manifest(epic)
    assert manifest.unlabeled == ("test",)
    assert manifest.targets(manifest.positions("test")[0]) == {"verb": -1, "noun": -1}
    run = train(trained_on(tiny_recipe, epic))

    predictions_file, out = tmp_path / "test.safetensors", tmp_path / "submission.json"
    capsys.readouterr()
    options = ["--manifest", epic, "--split", "test", "--out", predictions_file, "--workers", "0", "--device", "cpu"]
    main(["evaluate", str(run.path), *map(str, options)])
    assert capsys.readouterr().out == (
        "3 samples of split 'test', coverage 100.00 %; start weights: random, not pretrained, unlike chapters 3 and 4 "
        f"of the thesis (no labels: predictions only); predictions: {predictions_file}\n"
    )
    main(
        ["submit", "epic_kitchens", str(predictions_file), "--manifest", str(epic), "--out", str(out), "--sls-pt", "0"]
    )
    results = json.loads(out.read_text())["results"]
    assert list(results) == [f"P03_101_{n}" for n in range(3)]
    stored = load_predictions(predictions_file)
    for row, scores in enumerate(results.values()):
        assert np.array_equal(np.array(list(scores["verb"].values()), np.float32), stored.logits["verb"][row])
    assert evaluate(run.path, epic, split="test", device="cpu").measures == {"coverage": 100}
    for measured in (stored.ranks, stored.correct):
        with raises(PredictionsError, "no labels", field="targets"):
            measured("verb")
    with raises(PredictionsError, "no labels", field="targets"):
        summarize(stored)
    for field in ("train", "evaluate"):
        recipe = trained_on(tiny_recipe, epic)
        recipe = replace(
            recipe,
            data=replace(recipe.data, **{field: "test"}),
            run=replace(recipe.run, out=tmp_path / field),
        )
        with raises(ManifestError, "'test'", path="epic.csv", field="label"):
            train(recipe)

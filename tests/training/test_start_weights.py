"""A network that is meant to start from pretrained weights, and does not, says so at the start and in all results."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kinema.cli import main
from kinema.evaluation.fusion import fuse
from kinema.evaluation.predictions import load_predictions
from kinema.inference.trained_model import NOT_PRETRAINED, RANDOM, load_model
from kinema.models.base import NetworkConfig
from kinema.models.mfst import MFSTConfig
from kinema.models.rpe_stdt import RPESTDTConfig
from kinema.models.two_stream import MFST_TINY_RGBD
from kinema.reports.evaluation import samples_line
from kinema.reports.results import load_result, store_result
from kinema.reports.run_list import run_line
from kinema.training.loop import train
from kinema.training.recipe import Init, Recipe, load_recipe, recipe_names
from kinema.training.runs import Run

RPE_STDT = RPESTDTConfig(
    width=16,
    spatial_layers=1,
    spatial_heads=2,
    spatial_mlp_channels=24,
    temporal_heads=2,
    temporal_head_channels=6,
    temporal_mlp_channels=20,
)
STORED = Path(__file__).parents[1] / "stored"


def start_lines(messages: Callable[[], list[str]]) -> list[str]:
    return [message for message in messages() if message.startswith("run: ") and "random weights" in message]


def provenance(run: Run) -> str:
    start: str = json.loads((run.model / "model.json").read_text())["provenance"]["start_weights"]
    return start


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_of_chapters_3_and_4_expect_weights_and_no_others(name: str) -> None:
    expected = name.startswith(("table_3", "table_4", "figure_3", "ucf101", "hmdb51", "diving48", "epic"))
    assert load_recipe(name).model.expects_weights == expected


def test_a_start_without_weights_is_said_and_marks_every_result(
    tiny_recipe: Recipe, tmp_path: Path, messages, capsys
) -> None:
    run = train(replace(tiny_recipe, model=RPE_STDT), max_steps=2)
    (line,) = start_lines(messages)
    assert all(word in line for word in ("random weights", "from scratch", "ImageNet", "--init"))
    assert provenance(run) == load_model(run.path).start_weights == NOT_PRETRAINED
    predictions = load_predictions(run.predictions)
    assert predictions.start_weights == NOT_PRETRAINED
    assert NOT_PRETRAINED in samples_line(predictions)
    stored = store_result(run, tmp_path / "result.json", title="RPE-STDT on few moves, synthetic")
    assert stored["start_weights"] == stored["provenance"]["start_weights"] == NOT_PRETRAINED
    assert load_result(tmp_path / "result.json").start_weights == NOT_PRETRAINED
    assert run_line(run.path).start == NOT_PRETRAINED
    options = ["--manifest", tiny_recipe.data.manifest, "--workers", "0", "--out", str(tmp_path / "p.safetensors")]
    main(["evaluate", str(run.path), *options, "--json", str(tmp_path / "all.json")])
    assert NOT_PRETRAINED in capsys.readouterr().out
    assert json.loads((tmp_path / "all.json").read_text())["start_weights"] == NOT_PRETRAINED


def test_a_resumed_run_keeps_the_name_of_its_start(tiny_recipe: Recipe, tmp_path: Path, messages) -> None:
    first = train(replace(tiny_recipe, model=RPE_STDT), max_steps=1)
    settings = replace(tiny_recipe.run, out=tmp_path / "second")
    second = train(replace(tiny_recipe, model=RPE_STDT, init=Init(weights=str(first.path)), run=settings), max_steps=1)
    chain = f"{first.path.name} ({NOT_PRETRAINED})"
    assert provenance(second) == load_predictions(second.predictions).start_weights == chain
    assert len(start_lines(messages)) == 2  # weights that started from random ones do not hide it
    first.model.rename(tmp_path / "gone")
    train(second.recipe, Run.open(second.path), max_steps=2)
    assert provenance(second) == chain
    assert NOT_PRETRAINED in samples_line(load_predictions(second.predictions))


@pytest.mark.parametrize(
    ("model", "start"),
    [
        (RPE_STDT, NOT_PRETRAINED),
        (replace(RPE_STDT, start="scratch"), RANDOM),
        (MFSTConfig(), RANDOM),
        (MFST_TINY_RGBD, RANDOM),
        (replace(MFST_TINY_RGBD, rgb=RPE_STDT), NOT_PRETRAINED),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_config_tells_whether_weights_are_expected(model: NetworkConfig, start: str) -> None:
    assert model.expects_weights == (start == NOT_PRETRAINED)


def test_fused_predictions_name_every_start() -> None:
    one = load_predictions(STORED / "predictions_0.1.safetensors")
    pair = [replace(one, start_weights=start, weights_digest=start) for start in (NOT_PRETRAINED, RANDOM)]
    fused = fuse(pair, score="logits")
    assert fused.start_weights == f"{NOT_PRETRAINED}; {RANDOM}"
    assert NOT_PRETRAINED in samples_line(fused)
    assert fuse([one, one], score="logits").start_weights == ""


@pytest.mark.long
def test_a_start_from_scratch_by_choice_is_not_marked(tiny_recipe: Recipe, messages) -> None:
    run = train(replace(tiny_recipe, model=replace(RPE_STDT, start="scratch")), max_steps=1)
    assert not start_lines(messages)
    assert provenance(run) == RANDOM
    assert RANDOM not in samples_line(load_predictions(run.predictions))


@pytest.mark.long
def test_a_network_of_the_user_is_named_own(tiny_recipe: Recipe, messages) -> None:
    network = RPE_STDT.build(heads={"label": 3}, channels={"rgb": 3}, frames=8, size=32)
    run = train(tiny_recipe, model=network, max_steps=1)
    assert provenance(run) == "own"
    assert not start_lines(messages)


def test_results_of_older_versions_have_what_they_can_tell() -> None:
    assert load_model(STORED / "ctn_artefact").start_weights in ("", RANDOM, NOT_PRETRAINED)
    assert load_predictions(STORED / "predictions_0.1.safetensors").start_weights == ""

"""Costs of the models are stored, and equal those that are counted."""

import runpy
from pathlib import Path

import pytest

from kinema.errors import UnknownModel
from kinema.models.registry import MODELS, list_models
from kinema.reports.models import print_model, print_models, stored_models

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "docs" / "make_models.py"))


def test_every_model_is_stored() -> None:
    stored = stored_models()
    assert tuple(stored) == list_models()
    for name, model in stored.items():
        entry = MODELS[name]
        assert (model.summary, model.frames, model.size) == (entry.summary, entry.frames, entry.size), (
            "run `make tables`"
        )


@pytest.mark.parametrize("name", ["ctn_tiny", "mfst_tiny_rgbd"])
def test_stored_costs_are_the_counted_ones(script, name: str) -> None:
    """Also for a number of classes that the stored costs were not counted with."""
    parts = stored_models()[name].parts
    counted = {row.name: (row.parameters, row.macs) for row in script["part_rows"](name, num_classes=48)}
    assert counted == {
        part: (cost.parameters + 48 * cost.parameters_per_class, cost.macs + 48 * cost.macs_per_class)
        for part, cost in parts.items()
    }, "run `make tables`"


@pytest.mark.long
def test_the_file_is_generated(script) -> None:
    assert (ROOT / "kinema" / "assets" / "models.json").read_text() == script["content"](), "run `make tables`"


def test_two_streams_are_counted_by_stream(capsys: pytest.CaptureFixture[str]) -> None:
    print_model("mfst_tiny_rgbd", num_classes=400)
    rows = [line.split("│")[1:4] for line in capsys.readouterr().out.splitlines() if "│" in line]
    cells = {part.strip(): (int(parameters.replace(",", "")), float(macs)) for part, parameters, macs in rows}
    assert cells == {
        "rgb": (1_414_936, 0.433),
        "depth": (1_410_232, 0.356),
        "heads": (102_800, 0.0),
        "mfst_tiny_rgbd": (2_927_968, 0.789),
    }
    print_models(num_classes=400)
    assert capsys.readouterr().out.count("  depth ") == 2


def test_an_unknown_model_is_refused(raises) -> None:
    with raises(UnknownModel, "'ctn_tiny'"):
        print_model("ctn_tinny", num_classes=3)

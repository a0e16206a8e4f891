"""What the README claims is what is stored, and what is stored can be computed again."""

import json
import runpy
from pathlib import Path

import pytest

from kinema.data.manifest import load_manifest

ROOT = Path(__file__).parents[1]
RESULTS = sorted(path for path in (ROOT / "results").glob("*.json") if "predictions" in json.loads(path.read_text()))
"""Of trainings; measurements of speed have no predictions."""


def top1(name: str) -> str:
    return f"{json.loads((ROOT / 'results' / f'{name}.json').read_text())['measures']['top1']:.1f}"


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_a_stored_accuracy_follows_from_the_stored_answers(path: Path) -> None:
    result = json.loads(path.read_text())
    targets, answers = (result["predictions"][which]["label"] for which in ("targets", "answers"))
    right = sum(target == answer for target, answer in zip(targets, answers, strict=True))
    assert result["measures"]["top1"] == pytest.approx(100 * right / len(targets), abs=1e-3)
    assert len(targets) == result["declared"]
    assert len(result["provenance"]["commit"].rstrip("+")) == 40


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_results_on_moves_are_of_the_moves_that_are_here(seed: int) -> None:
    result = json.loads((ROOT / "results" / f"moves_ctn_tiny_seed{seed}.json").read_text())
    assert result["provenance"]["seed"] == seed
    assert result["provenance"]["manifest_digest"] == load_manifest("moves_cross_subject").digest
    assert "synthetic" in result["title"]


def test_the_readme_says_what_is_stored() -> None:
    readme = (ROOT / "README.md").read_text()
    assert ", ".join(top1(f"moves_ctn_tiny_seed{seed}") for seed in range(3)) + " % top-1" in readme
    assert f"{top1('jhmdb_ctn_tiny_seed0')} % top-1" in readme


def test_the_page_of_the_architecture_lists_every_file() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_tree.py"))
    assert script["page"]() == (ROOT / "docs" / "architecture.md").read_text(), "run `make tables`"

"""Claims of the README equal the stored results, which can be recomputed from stored predictions."""

import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest

from kinema.data.manifest import load_manifest

ROOT = Path(__file__).parents[1]
RESULTS = sorted(path for path in (ROOT / "results").glob("*.json") if "predictions" in json.loads(path.read_text()))
"""Results of trainings; measurements of speed have no predictions."""


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


@pytest.mark.parametrize("name", sorted({path.stem.split("_seed")[0] for path in RESULTS if "_seed" in path.stem}))
def test_the_results_page_holds_every_stored_training(name: str) -> None:
    seeds = sorted((ROOT / "results").glob(f"{name}_seed*.json"))
    numbers = ", ".join(top1(path.stem) for path in seeds)
    title = json.loads(seeds[0].read_text())["title"].removesuffix(", seed 0").replace(" passes ", " epochs ")
    assert re.search(
        rf"^\| {re.escape(title)} \|.* {numbers} \|", (ROOT / "docs" / "results.md").read_text(), re.MULTILINE
    )


def test_the_readme_states_the_stored_numbers() -> None:
    readme = (ROOT / "README.md").read_text()
    moves = ", ".join(top1(f"moves_ctn_tiny_seed{seed}") for seed in range(3))
    assert re.search(rf"^\| CTN-tiny \| moves \(synthetic\), .* \| 0, 1, 2 \| {moves} \|", readme, re.MULTILINE)
    jhmdb = top1("jhmdb_ctn_tiny_seed0")
    assert re.search(rf"^\| CTN-tiny \| J-HMDB, .* \| 0 \| {jhmdb} \|", readme, re.MULTILINE)


def test_the_readme_shows_eight_results_at_most() -> None:
    rows = re.findall(r"^\| [\w-]+-(?:tiny|small|base|large)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert 0 < len(rows) <= 8


def test_every_planted_fault_has_its_place() -> None:
    faults = tomllib.loads((ROOT / "tests" / "faults.toml").read_text(encoding="utf-8"))["fault"]
    stale = [f["name"] for f in faults if (ROOT / f["file"]).read_text(encoding="utf-8").count(f["old"]) != 1]
    assert stale == []
    assert [f["test"] for f in faults if not (ROOT / f["test"]).is_file()] == []


@pytest.mark.parametrize(("script", "page"), [("make_tree.py", "architecture.md"), ("make_api.py", "api.md")])
def test_the_pages_of_files_and_names_are_generated(script: str, page: str) -> None:
    generated = runpy.run_path(str(ROOT / "docs" / script))
    assert generated["page"]() == (ROOT / "docs" / page).read_text(), "run `make tables`"

"""The documents' tables say what is stored, and are made by one command."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from kinema.errors import TableError

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("benchmark_tables", ROOT / "benchmarks" / "tables.py")
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)


def result(path: Path, *, title: str, right: list[int], seed: int = 0, index: list[int] | None = None, **more) -> None:
    said = {
        "title": title,
        "provenance": {"seed": seed, "step": 1200, "manifest_digest": "d"},
        "split": "val",
        "measures": {"mean_class": 50.0},
        "predictions": {
            "index": index or list(range(len(right))),
            "targets": {"label": [1] * len(right)},
            "answers": {"label": right},
        },
        **more,
    }
    path.write_text(json.dumps(said))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    result(folder / "a0.json", title="A on B, seed 0", right=[1, 1, 1, 0], training={})
    # The same clips in another order: clip 3 is the one that both seeds have wrong.
    result(folder / "a1.json", title="A on B, seed 1", right=[0, 1, 1, 1], index=[3, 2, 1, 0], seed=1, training={})
    result(folder / "floor.json", title="Floor of B", right=[0, 0, 1, 0], penalty=0.3)
    (folder / "speed.json").write_text('{"machine": {}}')
    return folder


def test_seeds_of_one_training_are_one_line(results: Path) -> None:
    lines = tables.trainings(results)
    assert len(lines) == 3
    assert lines[2].startswith("| A on B | 0, 1 | 4 | 75.0, 75.0 | 75.0 [25.0, 100.0] | 50.0 | 1,200 |")


def test_the_difference_to_the_floor_pairs_clips_by_their_place_in_the_manifest(results: Path) -> None:
    """Seeds are right on clips 0, 1, 2 and the floor on 2: 50 points more, and on no clip fewer."""
    (line,) = tables.floors(results)[2:]
    assert line.startswith("| A on B | 75.0 | 25.0 | +50.0 [+0.0, +100.0] |")


def test_a_floor_of_another_split_or_manifest_is_none(results: Path) -> None:
    said = json.loads((results / "floor.json").read_text())
    (results / "floor.json").write_text(json.dumps(said | {"split": "test"}))
    assert tables.floors(results)[2:] == []


def test_each_way_to_see_has_a_line_and_each_protocol_a_column(results: Path) -> None:
    one = {"targets": [1, 1, 0, 0], "answers": {"RGB": [[1, 1, 0, 1], [1, 1, 0, 0]], "depth": [[1, 1, 0, 0]] * 2}}
    other = {"targets": [1, 1], "answers": {"RGB": [[0, 0], [0, 0]], "depth": [[1, 1], [0, 0]]}}
    (results / "moves_two_streams.json").write_text(json.dumps({"protocols": {"by_subject": one, "by_view": other}}))
    head, _, rgb, depth = tables.streams(results)
    assert head.startswith("| MFST-tiny sees | `by_subject`, mean")
    assert rgb == "| RGB | 87.5 [62.5, 100.0] | 0.0 [0.0, 0.0] |"
    assert depth == "| depth | 100.0 [100.0, 100.0] | 50.0 [50.0, 50.0] |"


def test_the_share_of_the_machines_rate_is_shown_as_a_ratio_of_times(results: Path) -> None:
    for name in ("central_difference_speed", "knn_attention_speed", "mfst_speed"):
        shutil.copy(ROOT / "results" / f"{name}.json", results)
    said = json.loads((results / "mfst_speed.json").read_text())
    said["share_of_the_machines_rate"] = {"forward": {"median": 0.5, "low": 0.4, "high": 0.8}}
    (results / "mfst_speed.json").write_text(json.dumps(said))
    lines = tables.operators(results)
    assert any(line.endswith("alone at the machine's rate | 2.00 [1.25, 2.50] |") for line in lines)


def test_positions_are_compared_clip_by_clip_at_each_size(results: Path) -> None:
    said = {
        "targets": [1, 1, 0, 0],
        "positions": {
            "shared": {"answers": {"112": [[1, 1, 0, 1], [1, 1, 0, 0]], "224": [[1, 1, 0, 0]] * 2}},
            "absolute": {"answers": {"112": [[1, 1, 0, 1]] * 2, "224": [[0, 0, 1, 1]] * 2}},
        },
    }
    (results / "moves_resolution.json").write_text(json.dumps(said))
    head, _, shared, absolute, difference = tables.resolutions(results)
    assert head == "| position | 112 pixels, mean % | 224 pixels, mean % | 224 less 112 |"
    assert shared == "| shared | 87.5 [62.5, 100.0] | 100.0 [100.0, 100.0] | +12.5 [+0.0, +37.5] |"
    assert absolute.startswith("| absolute | 75.0 [25.0, 100.0] | 0.0 [0.0, 0.0] | -75.0 [")
    assert difference.startswith("| shared less absolute, points | +12.5 [+0.0, +37.5] | +100.0 [+100.0, +100.0] |")


def test_ctn_is_shown_beside_others_and_without_its_fast_forms(results: Path) -> None:
    ratio = {"median": 0.125, "low": 0.12, "high": 0.13}
    said = {
        "arguments": {"model": "ctn_base", "frames": 8},
        "speed": {"share_of_the_machines_rate": {"forward": ratio}, "time_over": {"Other-B, 9 frames": ratio}},
        "forms": {"time_over_as_it_is": {"BatchNorm not folded": ratio}},
    }
    (results / "ctn_speed.json").write_text(json.dumps(said))
    _, _, share, other, form = tables.ctn_speed(results)
    assert share.endswith("forward: GMAC in a second | the machine's matrix products | 0.12 [0.12, 0.13] |")
    assert other.endswith("forward, time | Other-B, 9 frames (transformers) | 0.125 [0.120, 0.130] |")
    assert form.startswith("| BatchNorm not folded: time | as it is |")


def training(network: str, *answers: list[int], share: float = 1.0) -> list[dict[str, object]]:
    """One of each seed."""
    said = {"dataset": "jhmdb", "network": network, "share": share}
    return [said | {"seed": seed, "answers": answer} for seed, answer in enumerate(answers)]


def test_shares_of_the_training_clips_have_a_line_each_with_networks_paired_clip_by_clip(results: Path) -> None:
    trainings = [
        *training("ctn_tiny", [1, 1, 0, 1], [1, 1, 0, 0], share=0.1),
        *training("vivit_tiny", [0, 0, 1, 1], [0, 0, 1, 1], share=0.1),
        *training("ctn_tiny", [1, 1, 0, 0], [1, 1, 0, 0]),
        *training("vivit_tiny", [1, 1, 0, 0], [1, 1, 1, 0]),
    ]
    said = {"targets": {"jhmdb": [1, 1, 0, 0]}, "trainings": trainings}
    (results / "learning_curve.json").write_text(json.dumps(said))
    head, _, tenth, whole = tables.learning_curves(results)
    assert head == (
        "| corpus | training clips | ctn_tiny, mean % | vivit_tiny, mean % | ctn_tiny less vivit_tiny, points |"
    )
    assert tenth == "| jhmdb | 10 % | 87.5 [62.5, 100.0] | 0.0 [0.0, 0.0] | +87.5 [+62.5, +100.0] |"
    assert whole.startswith("| jhmdb | 100 % | 100.0 [100.0, 100.0] | 87.5 [62.5, 100.0] | +12.5 [+0.0, +37.5] |")


def test_what_each_part_of_ctn_brings_is_paired_clip_by_clip(results: Path) -> None:
    said = {
        "gmac": {"jhmdb": {"ctn_tiny": 0.0732, "linear mapping": 0.0728}},
        "targets": {"jhmdb": [1, 1, 0, 0]},
        "trainings": [
            *training("ctn_tiny", [1, 1, 0, 0], [1, 1, 0, 0]),
            *training("linear mapping", [1, 1, 1, 0], [1, 1, 0, 0]),
        ],
    }
    (results / "ctn_parts.json").write_text(json.dumps(said))
    _, _, whole, linear = tables.ctn_parts(results)
    assert whole == "| ctn_tiny | 0.073 | 100.0 [100.0, 100.0] |  |"
    assert linear.startswith("| linear mapping | 0.073 | 87.5 [62.5, 100.0] | +12.5 [+0.0, +37.5] |")


def test_what_a_table_of_positions_brings_is_shown_by_time_and_padding(results: Path) -> None:
    trainings = [
        *training("literal, zeros, none", [1, 1, 0, 1]),
        *training("literal, zeros, learned", [1, 1, 0, 0]),
        *training("dense, circular, none", [1, 1, 0, 0]),
        *training("dense, circular, learned", [1, 1, 1, 1]),
    ]
    said = {"targets": {"jhmdb": [1, 1, 0, 0]}, "trainings": trainings}
    (results / "ctn_position.json").write_text(json.dumps(said))
    _, _, literal, dense = tables.ctn_positions(results)
    assert literal.startswith("| jhmdb | literal | zeros | 75.0 [25.0, 100.0] | 100.0 [100.0, 100.0] | +25.0 [")
    assert dense.startswith("| jhmdb | dense | circular | 100.0 [100.0, 100.0] | 50.0 [0.0, 100.0] | -50.0 [")


def test_a_recipes_own_batch_is_shown_as_extrapolated(results: Path) -> None:
    said = {
        "parameters": 49_709_628,
        "frames": 32,
        "size": 224,
        "measured": {"mib": {"1": 4096, "2": 7168}, "seconds": {"1": 20.04, "2": 38}},
        "batch": 64,
        "gpus": 4,
        "extrapolated": {"mib_of_a_gpus_share": 50176, "seconds_of_a_batch_here": 1154.04},
    }
    (results / "recipe_steps.json").write_text(json.dumps({"recipes": {"ntu60_mfst_large": said}}))
    *_, line = tables.recipe_steps(results)
    assert line == "| `ntu60_mfst_large` | 49.7 | 32 x 224 | 4.0 | 20.0 | 64 (16 on each of 4 GPUs) | 49 | 1154 |"


def test_what_packing_gains_stands_beside_its_bytes(results: Path) -> None:
    ratio = {"median": 13.9, "low": 13, "high": 14.9}
    said = {
        "commit": "c",
        "arguments": {"repeats": 9},
        "NTU": {
            "files": {"original": {"bytes": 400}, "packed": {"bytes": 100}},
            "16 frames": {"original": {}, "packed": {"times_the_original": ratio}},
        },
    }
    (results / "pack_speed.json").write_text(json.dumps(said))
    _, _, line = tables.packed(results)
    assert line == "| NTU | packed | 0.25 times | 13.90 [13.00, 14.90] |"


def test_only_what_is_marked_is_made_anew(results: Path) -> None:
    text = "before\n<!-- table: trainings -->\nold\n<!-- end of table -->\nafter <!-- end of table -->"
    made = tables.fill_tables(text, results)
    assert made.startswith("before\n<!-- table: trainings -->\n| trained |")
    assert made.endswith("|\n<!-- end of table -->\nafter <!-- end of table -->")
    assert "old" not in made
    assert tables.fill_tables(made, results) == made


def test_an_unknown_table_and_a_result_that_is_not_there_are_named(results: Path) -> None:
    with pytest.raises(TableError) as error:
        tables.fill_tables("<!-- table: speeds -->\n<!-- end of table -->", results)
    assert error.value.field == "speeds"
    with pytest.raises(TableError) as error:
        tables.fill_tables("<!-- table: kills -->\n<!-- end of table -->", results)
    assert error.value.path == str(results / "resume.json")


def test_the_documents_say_what_is_stored() -> None:
    assert tables.main(["--check"]) == 0, "run `make tables`"


def test_a_number_that_was_changed_by_hand_is_found(tmp_path: Path, capsys) -> None:
    root = tmp_path / "tree"
    shutil.copytree(ROOT / "results", root / "results")
    (root / "README.md").touch()
    (root / "docs").mkdir()
    path = Path(shutil.copy(ROOT / "docs" / "training.md", root / "docs"))
    right = path.read_text()
    path.write_text(right.replace("| 88.9, 88.9, 94.4 |", "| 98.9, 98.9, 94.4 |"))
    assert path.read_text() != right
    assert tables.main(["--check"], root) == 1
    assert str(path) in capsys.readouterr().out
    assert tables.main([], root) == 0
    assert path.read_text() == right

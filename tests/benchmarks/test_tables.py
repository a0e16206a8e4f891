"""Tables of the documents: generated from results/, and equal to them."""

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


def result(
    path: Path, *, title: str, answers: list[int], seed: int = 0, index: list[int] | None = None, **more
) -> None:
    stored = {
        "recipe": {"run": {"init": ""}},
        "declared": len(answers),
        "title": title,
        "provenance": {"seed": seed, "step": 1200, "manifest_digest": "d"},
        "split": "val",
        "measures": {"mean_class": 50.0},
        "predictions": {
            "index": index or list(range(len(answers))),
            "targets": {"label": [1] * len(answers)},
            "answers": {"label": answers},
        },
        **more,
    }
    path.write_text(json.dumps(stored))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    result(folder / "a0.json", title="A on B, seed 0", answers=[1, 1, 1, 0], training={})
    # The same clips in another order: both seeds are wrong on clip 3.
    result(folder / "a1.json", title="A on B, seed 1", answers=[0, 1, 1, 1], index=[3, 2, 1, 0], seed=1, training={})
    result(folder / "floor.json", title="Floor of B", answers=[0, 0, 1, 0], penalty=0.3)
    (folder / "speed.json").write_text('{"machine": {}}')
    return folder


def test_seeds_of_one_training_are_one_line(results: Path) -> None:
    lines = tables.trainings(results)
    assert len(lines) == 3
    assert lines[2].startswith("| A on B | 0, 1 | 4 | 75.0, 75.0 | 75.0 [25.0, 100.0] | 50.0 | 1,200 |")


def test_the_headline_shows_data_start_seeds_and_baseline(results: Path) -> None:
    pretrained = {"recipe": {"run": {}, "init": {"weights": "vit.pt"}}, "training": {}}
    result(results / "c.json", title="C on D (synthetic), val, seed 0", answers=[1, 0, 1], **pretrained)
    result(results / "d.json", title="E from scratch on B (first attempt), seed 0", answers=[1, 1], training={})
    _, _, synthetic, first = tables.headline(results)
    assert synthetic == "| C | D (synthetic), val | 3 | vit.pt | 0 | 66.7 | 100.0 (chance) |"
    assert first == "| A | B | 4 | from scratch | 0, 1 | 75.0, 75.0 | 25.0 (ridge) |"


def test_a_training_of_unknown_data_is_refused(results: Path) -> None:
    result(results / "c.json", title="C, seed 0", answers=[1], training={})
    with pytest.raises(TableError) as error:
        tables.headline(results)
    assert error.value.field == "title"


def test_the_difference_to_the_baseline_pairs_clips_by_their_place_in_the_manifest(results: Path) -> None:
    """Seeds are right on clips 0, 1, 2 and the baseline on 2: 50 points more, and on no clip fewer."""
    (line,) = tables.floors(results)[2:]
    assert line.startswith("| A on B | 75.0 | 25.0 | +50.0 [+0.0, +100.0] |")


def test_a_baseline_of_another_split_or_other_clips_is_not_compared(results: Path) -> None:
    stored = json.loads((results / "floor.json").read_text())
    (results / "floor.json").write_text(json.dumps(stored | {"split": "test"}))
    assert tables.floors(results)[2:] == []
    result(results / "floor.json", title="Floor of B", answers=[0, 0, 1, 0], index=[0, 1, 2, 4], penalty=0.3)
    assert tables.floors(results)[2:] == []


def test_each_way_to_see_has_a_line_and_each_protocol_a_column(results: Path) -> None:
    one = {"targets": [1, 1, 0, 0], "answers": {"RGB": [[1, 1, 0, 1], [1, 1, 0, 0]], "depth": [[1, 1, 0, 0]] * 2}}
    other = {"targets": [1, 1], "answers": {"RGB": [[0, 0], [0, 0]], "depth": [[1, 1], [0, 0]]}}
    (results / "moves_two_streams.json").write_text(json.dumps({"protocols": {"by_subject": one, "by_view": other}}))
    head, _, rgb, depth = tables.streams(results)
    assert head.startswith("| input of MFST-tiny | `by_subject`, mean")
    assert rgb == "| RGB | 87.5 [62.5, 100.0] | 0.0 [0.0, 0.0] |"
    assert depth == "| depth | 100.0 [100.0, 100.0] | 50.0 [50.0, 50.0] |"


def test_the_share_of_the_machines_rate_is_shown_as_a_ratio_of_times(results: Path) -> None:
    for name in ("central_difference_speed", "knn_attention_speed", "mfst_speed"):
        shutil.copy(ROOT / "results" / f"{name}.json", results)
    stored = json.loads((results / "mfst_speed.json").read_text())
    stored["share_of_the_machines_rate"] = {"forward": {"median": 0.5, "low": 0.4, "high": 0.8}}
    (results / "mfst_speed.json").write_text(json.dumps(stored))
    lines = tables.operators(results)
    assert any(line.endswith("alone at the machine's rate | 2.00 [1.25, 2.50] |") for line in lines)


def test_positions_are_compared_clip_by_clip_at_each_size(results: Path) -> None:
    stored = {
        "targets": [1, 1, 0, 0],
        "positions": {
            "shared": {"answers": {"112": [[1, 1, 0, 1], [1, 1, 0, 0]], "224": [[1, 1, 0, 0]] * 2}},
            "absolute": {"answers": {"112": [[1, 1, 0, 1]] * 2, "224": [[0, 0, 1, 1]] * 2}},
        },
    }
    (results / "moves_resolution.json").write_text(json.dumps(stored))
    head, _, shared, absolute, difference = tables.resolutions(results)
    assert head == "| position | 112 pixels, mean % | 224 pixels, mean % | 224 minus 112 |"
    assert shared == "| shared | 87.5 [62.5, 100.0] | 100.0 [100.0, 100.0] | +12.5 [+0.0, +37.5] |"
    assert absolute.startswith("| absolute | 75.0 [25.0, 100.0] | 0.0 [0.0, 0.0] | -75.0 [")
    assert difference.startswith("| shared minus absolute, points | +12.5 [+0.0, +37.5] | +100.0 [+100.0, +100.0] |")


def test_ctn_is_shown_beside_others_and_without_its_fast_forms(results: Path) -> None:
    ratio = {"median": 0.125, "low": 0.12, "high": 0.13}
    stored = {
        "arguments": {"model": "ctn_base", "frames": 8},
        "speed": {"share_of_the_machines_rate": {"forward": ratio}, "time_over": {"Other-B, 9 frames": ratio}},
        "forms": {"time_over_as_it_is": {"BatchNorm not folded": ratio}},
    }
    (results / "ctn_speed.json").write_text(json.dumps(stored))
    _, _, share, other, form = tables.ctn_speed(results)
    assert share.endswith("forward: GMAC/s | the machine's matrix products | 0.12 [0.12, 0.13] |")
    assert other.endswith("forward, time | Other-B, 9 frames (transformers) | 0.125 [0.120, 0.130] |")
    assert form.startswith("| BatchNorm not folded: time | the shipped form |")


def training(network: str, *answers: list[int], share: float = 1.0) -> list[dict[str, object]]:
    """Return a training per seed."""
    stored = {"dataset": "jhmdb", "network": network, "share": share}
    return [stored | {"seed": seed, "answers": answer} for seed, answer in enumerate(answers)]


def test_shares_of_the_training_clips_have_a_line_each_with_networks_paired_clip_by_clip(results: Path) -> None:
    trainings = [
        *training("ctn_tiny", [1, 1, 0, 1], [1, 1, 0, 0], share=0.1),
        *training("vivit_tiny", [0, 0, 1, 1], [0, 0, 1, 1], share=0.1),
        *training("ctn_tiny", [1, 1, 0, 0], [1, 1, 0, 0]),
        *training("vivit_tiny", [1, 1, 0, 0], [1, 1, 1, 0]),
    ]
    stored = {"targets": {"jhmdb": [1, 1, 0, 0]}, "trainings": trainings}
    (results / "learning_curve.json").write_text(json.dumps(stored))
    head, _, tenth, whole = tables.learning_curves(results)
    assert head == (
        "| dataset | training clips | ctn_tiny, mean % | vivit_tiny, mean % | ctn_tiny minus vivit_tiny, points |"
    )
    assert tenth == "| jhmdb | 10 % | 87.5 [62.5, 100.0] | 0.0 [0.0, 0.0] | +87.5 [+62.5, +100.0] |"
    assert whole.startswith("| jhmdb | 100 % | 100.0 [100.0, 100.0] | 87.5 [62.5, 100.0] | +12.5 [+0.0, +37.5] |")


def test_what_each_part_of_ctn_brings_is_paired_clip_by_clip(results: Path) -> None:
    stored = {
        "gmac": {"jhmdb": {"ctn_tiny": 0.0732, "linear mapping": 0.0728}},
        "targets": {"jhmdb": [1, 1, 0, 0]},
        "trainings": [
            *training("ctn_tiny", [1, 1, 0, 0], [1, 1, 0, 0]),
            *training("linear mapping", [1, 1, 1, 0], [1, 1, 0, 0]),
        ],
    }
    (results / "ctn_parts.json").write_text(json.dumps(stored))
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
    stored = {"targets": {"jhmdb": [1, 1, 0, 0]}, "trainings": trainings}
    (results / "ctn_position.json").write_text(json.dumps(stored))
    _, _, literal, dense = tables.ctn_positions(results)
    assert literal.startswith("| jhmdb | as printed | zeros | 75.0 [25.0, 100.0] | 100.0 [100.0, 100.0] | +25.0 [")
    assert dense.startswith("| jhmdb | dense | circular | 100.0 [100.0, 100.0] | 50.0 [0.0, 100.0] | -50.0 [")


def test_zero_padding_is_compared_with_circular_padding_clip_by_clip(results: Path) -> None:
    trainings = [
        *training("literal, zeros, none", [1, 1, 0, 1]),
        *training("literal, circular, none", [1, 0, 1, 1]),
    ]
    # Results of older versions call a dataset `corpus`.
    trainings = [{"corpus" if key == "dataset" else key: value for key, value in one.items()} for one in trainings]
    stored = {"targets": {"jhmdb": [1, 1, 0, 0]}, "trainings": trainings}
    (results / "ctn_position.json").write_text(json.dumps(stored))
    assert tables.ctn_padding(results)[2].startswith("| jhmdb | as printed | none | +50.0 [")


def test_other_learning_rates_have_a_line_each(results: Path) -> None:
    stored = {"rate": 0.3, "targets": {"jhmdb": [1, 1, 0, 0]}, "trainings": training("vivit_tiny", [1, 0, 1, 1])}
    (results / "vivit_rate_0.3.json").write_text(json.dumps(stored))
    assert tables.vivit_rates(results)[2:] == ["| jhmdb | 0.3 times | 0 | 25.0 |"]


def test_networks_with_and_without_a_temporal_encoder_are_paired_clip_by_clip(results: Path) -> None:
    data = "from scratch on J-HMDB, RGB, source-disjoint val"
    result(results / "r.json", title=f"RPE-STDT-tiny {data}, seed 0", answers=[1, 1, 0, 0], training={})
    result(results / "v.json", title=f"ViT-tiny, frame by frame, {data}, seed 0", answers=[1, 0, 0, 0], training={})
    assert tables.temporal_encoder(results)[2].startswith("| 50.0 [0.0, 100.0] | 25.0 [0.0, 75.0] | +25.0 [")


def test_the_throughput_of_processes_is_compared_with_that_of_threads(results: Path) -> None:
    one = {"median": 62.0, "interval": [60, 67], "ratio": {"median": 1, "interval": [1, 1]}}
    gain = {"median": 1.19, "interval": [1.15, 1.22]}
    stored = {"measured": {"1 process": one}, "two_processes_against_two_threads": gain}
    (results / "processes.json").write_text(json.dumps(stored))
    assert "1.19 [1.15, 1.22] times" in tables.processes(results)[-1]


def test_kills_are_summed_by_their_aim(results: Path) -> None:
    kill = {"aimed": "checkpoint", "seconds": 2.5, "unfinished": "last", "evaluating": False}
    others = [kill | {"seconds": 4.0, "unfinished": ""}, kill | {"aimed": "evaluation", "evaluating": True}]
    same = dict.fromkeys(("same_losses", "same_weights", "same_evaluations"), True)
    (results / "resume.json").write_text(json.dumps({"kills": [kill, *others], "steps": 102, **same}))
    _, _, checkpoint, evaluation, _, verdict = tables.killed(results)
    assert checkpoint == "| checkpoint | 2 | 2.5 to 4.0 | 1 | 0 |"
    assert evaluation == "| evaluation | 1 | 2.5 to 2.5 | 1 | 1 |"
    assert "102" in verdict
    assert "NOT" not in verdict
    (results / "resume.json").write_text(json.dumps({"kills": [], "steps": 102, **same, "same_weights": False}))
    assert "NOT EQUAL" in tables.killed(results)[-1]


def test_decoding_is_compared_with_the_fastest_other_library(results: Path) -> None:
    ratio = {"rival": "opencv", "median": 0.9, "low": 0.8, "high": 1.0}
    stored = {"files": {"320x240": {"speed_of_kinema_against": {"best of torchcodec, decord and opencv": ratio}}}}
    (results / "decoding_speed.json").write_text(json.dumps(stored))
    assert tables.decoding(results)[2:] == ["| 320x240 | opencv | 0.90 [0.80, 1.00] |"]


def test_the_time_to_a_batch_is_divided_into_decoding_and_everything_else(results: Path) -> None:
    shares = {"decode": {"median": 0.8}, "all but decoding": {"median": 0.2}}
    measured = {"320x240 to 112": {"shares": shares, "samples_per_second": {"0 workers": {"median": 21.4}}}}
    (results / "loader_speed.json").write_text(json.dumps({"measured": measured}))
    assert tables.loading(results)[2:] == ["| 320x240 to 112 px | 80 | 20 | 21.4 |"]


def test_each_input_of_two_streams_has_a_line(results: Path) -> None:
    (results / "isogd_pairs.json").write_text('{"top1_on_the_training_pairs": {"both": 97.52}}')
    assert tables.isogd_pairs(results)[2:] == ["| both | 97.5 |"]


def test_a_recipes_own_batch_is_shown_as_extrapolated(results: Path) -> None:
    stored = {
        "parameters": 49_709_628,
        "frames": 32,
        "size": 224,
        "measured": {"mib": {"1": 4096, "2": 7168}, "seconds": {"1": 20.04, "2": 38}},
        "batch": 64,
        "gpus": 4,
        "extrapolated": {"mib_of_a_gpus_share": 50176, "seconds_of_a_batch_here": 1154.04},
    }
    (results / "recipe_steps.json").write_text(json.dumps({"recipes": {"ntu60_mfst_large": stored}}))
    *_, line = tables.recipe_steps(results)
    assert line == "| `ntu60_mfst_large` | 49.7 | 32 x 224 | 4.0 | 20.0 | 64 (16 per GPU on 4 GPUs) | 49 | 1154 |"


def test_what_packing_gains_stands_beside_its_bytes(results: Path) -> None:
    ratio = {"median": 13.9, "low": 13, "high": 14.9}
    stored = {
        "commit": "c",
        "arguments": {"repeats": 9},
        "NTU": {
            "files": {"original": {"bytes": 400}, "packed": {"bytes": 100}},
            "16 frames": {"original": {}, "packed": {"times_the_original": ratio}},
        },
    }
    (results / "pack_speed.json").write_text(json.dumps(stored))
    _, _, line = tables.packed(results)
    assert line == "| NTU | packed | 0.25 times | 13.90 [13.00, 14.90] |"


def test_only_marked_tables_are_generated(results: Path) -> None:
    text = "before\n<!-- table: trainings -->\nold\n<!-- end of table -->\nafter <!-- end of table -->"
    filled = tables.fill_tables(text, results)
    assert filled.startswith("before\n<!-- table: trainings -->\n| model and data |")
    assert filled.endswith("|\n<!-- end of table -->\nafter <!-- end of table -->")
    assert "old" not in filled
    assert tables.fill_tables(filled, results) == filled


def test_an_unknown_table_and_a_missing_result_are_named(results: Path) -> None:
    with pytest.raises(TableError) as error:
        tables.fill_tables("<!-- table: speeds -->\n<!-- end of table -->", results)
    assert error.value.field == "speeds"
    with pytest.raises(TableError) as error:
        tables.fill_tables("<!-- table: killed -->\n<!-- end of table -->", results)
    assert error.value.path == str(results / "resume.json")


@pytest.mark.long
def test_the_documents_equal_the_stored_results() -> None:
    assert tables.main(["--check"]) == 0, "run `make tables`"


def test_a_number_that_was_changed_by_hand_is_found(tmp_path: Path, capsys) -> None:
    root = tmp_path / "tree"
    shutil.copytree(ROOT / "results", root / "results")
    (root / "README.md").touch()
    (root / "docs").mkdir()
    path = Path(shutil.copy(ROOT / "docs" / "results.md", root / "docs"))
    generated = path.read_text()
    path.write_text(generated.replace("| 88.9, 88.9, 94.4 |", "| 98.9, 98.9, 94.4 |"))
    assert path.read_text() != generated
    assert tables.main(["--check"], root) == 1
    assert str(path) in capsys.readouterr().out
    assert tables.main([], root) == 0
    assert path.read_text() == generated


def test_every_table_is_shown_in_a_document() -> None:
    documents = "".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    assert all(documents.count(f"<!-- table: {name} -->") == 1 for name in tables.TABLES)


def test_every_departure_in_the_code_is_on_the_page() -> None:
    page = (ROOT / "docs" / "deviations.md").read_text()
    rows = tables.TABLES["deviations"](ROOT / "results")[2:]
    marks = sum(path.read_text().count("DEVIATION: ") for path in (ROOT / "kinema").rglob("*.py"))
    assert len(rows) == marks >= 30
    assert all(row in page for row in rows), "run `make tables`"


def test_quoted_rows_stand_beside_our_results(tmp_path: Path) -> None:
    rows = {row.split(" | ")[0]: row for row in tables.TABLES["thesis_3_6"](tmp_path)}
    assert "| quoted |" in rows["| TSM"]
    assert "94.3" in rows["| TSM"]
    assert rows["| RPE-STDT"].endswith("| not run |")
    stored = {"dataset": "UCF-101", "measures": {"top1": 41.25}, "start_weights": "random, not pretrained"}
    (tmp_path / "ucf101_rpe_stdt_base12_seed0.json").write_text(json.dumps(stored))
    rows = {row.split(" | ")[0]: row for row in tables.TABLES["thesis_3_6"](tmp_path)}
    assert rows["| RPE-STDT"].endswith("UCF-101 41.2 (start weights: random, not pretrained) |")
    printed = [row for name in ("2_1", "2_2", "3_6", "4_7") for row in tables.TABLES[f"thesis_{name}"](tmp_path)[2:]]
    assert sum("| quoted |" in row for row in printed) == 13 + 11 + 13 + 11
    assert sum("| thesis |" in row for row in printed) == 3 + 3 + 1 + 1

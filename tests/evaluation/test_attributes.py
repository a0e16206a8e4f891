"""Tests of the accuracy per attribute of Diving48's classes, by hand and in the output of `kinema evaluate`."""

import json

import numpy as np
import pytest

from kinema.cli import main
from kinema.errors import PredictionsError
from kinema.evaluation.attributes import summarize_attributes
from kinema.evaluation.bootstrap import Bootstrap, mean_interval
from kinema.evaluation.predictions import Predictions, load_predictions, save_predictions
from kinema.evaluation.summary import summarize

CLASSES = (
    "Back, 15som, 05Twis, FREE",
    "Back, 25som, NoTwis, PIKE",
    "Forward, 15som, NoTwis, PIKE",
    "Forward, 45som, NoTwis, TUCK",
)
TRUE = [0, 0, 1, 1, 2, 3]
PREDICTED = [0, 1, 1, 2, 3, 3]
VERSION = "V2, train 15027, test 1970"


def make_predictions(**facts):
    fields = {
        "logits": {"label": np.eye(4, dtype=np.float32)[PREDICTED]},
        "targets": {"label": np.array(TRUE)},
        "index": np.arange(6),
        "classes": {"label": CLASSES},
        "split": "test",
        "declared": 6,
        "missing": (),
        "manifest_digest": "m" * 64,
        "weights_digest": "w" * 64,
        "groups": {"group": np.arange(6) // 2},
        "dataset": "Diving48",
        "version": VERSION,
        **facts,
    }
    return Predictions(**fields)


def test_attribute_metrics_match_values_computed_by_hand():
    """Dives 0, 2 and 5 are correct.

    | dive | take-off | somersault | twist   | position |
    | 1    | correct  | wrong      | wrong   | wrong    |
    | 3    | wrong    | wrong      | correct | correct  |
    | 4    | correct  | wrong      | correct | wrong    |
    """
    found = summarize_attributes(make_predictions())
    assert {name: round(6 * each.top1 / 100) for name, each in found.items()} == {
        "take-off": 5,
        "somersault": 3,
        "twist": 5,
        "position": 4,
    }
    assert found["take-off"].values == ("Back", "Forward")
    assert found["take-off"].counts.tolist() == [[3, 1], [0, 2]]
    assert found["take-off"].mean_value == pytest.approx(100 * (3 / 4 + 1) / 2)
    assert found["somersault"].values == ("15som", "25som", "45som")
    assert found["somersault"].counts.tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 1]]
    assert found["position"].counts.sum() == 6


def test_intervals_match_the_bootstrap_over_clips_and_groups():
    bootstrap = Bootstrap(over="group")
    right = 100.0 * np.array([1, 1, 1, 0, 1, 1])
    assert summarize_attributes(make_predictions())["take-off"].top1_interval == mean_interval(right)
    of_groups = summarize_attributes(make_predictions(), bootstrap=bootstrap)["take-off"].top1_interval
    assert of_groups == mean_interval(right, np.arange(6) // 2, bootstrap)


def test_predictions_of_other_classes_are_refused(raises, tmp_path, capsys):
    with raises(PredictionsError, "'kick'", field="classes"):
        summarize_attributes(make_predictions(classes={"label": (*CLASSES[:3], "kick")}))
    two = make_predictions(
        logits={head: np.eye(4, dtype=np.float32)[PREDICTED] for head in ("verb", "noun")},
        targets=dict.fromkeys(("verb", "noun"), np.array(TRUE)),
        classes=dict.fromkeys(("verb", "noun"), CLASSES),
    )
    with raises(PredictionsError, "2 task heads", field="classes"):
        summarize_attributes(two)
    with raises(PredictionsError, "'test'", field="targets"):
        summarize_attributes(make_predictions(targets={"label": np.full(6, -1)}))
    save_predictions(tmp_path / "p.safetensors", make_predictions(classes={"label": ("a", "b", "c", "d")}))
    with pytest.raises(SystemExit):
        main(["evaluate", "--predictions", str(tmp_path / "p.safetensors"), "--per-attribute"])
    assert "names of Diving48" in capsys.readouterr().err


def test_attributes_are_printed_and_written_on_demand(tmp_path, capsys):
    path = tmp_path / "p.safetensors"
    save_predictions(path, make_predictions(declared=12))
    main(["evaluate", "--predictions", str(path)])
    assert "take-off" not in capsys.readouterr().out
    main(["evaluate", "--predictions", str(path), "--per-attribute", "--json", str(tmp_path / "s.json")])
    lines = capsys.readouterr().out.splitlines()
    (take_off,) = (line.split() for line in lines if line.startswith("take-off "))
    assert take_off[:3] == ["take-off", "2", "83.33"]
    assert take_off[-3:] == ["(coverage", "50.00", "%)"]
    assert "take-off: most frequent confusions (true -> predicted): Back -> Forward (1)" in lines
    (line,) = (line for line in lines if line.startswith("somersault: "))
    assert line.endswith(": 15som -> 25som (1), 15som -> 45som (1), 25som -> 15som (1)")
    stored = json.loads((tmp_path / "s.json").read_text())["attributes"]
    assert stored["take-off"]["counts"] == [[3, 1], [0, 2]]
    assert stored["take-off"]["values"] == ["Back", "Forward"]


def test_the_dataset_and_its_version_are_printed_with_every_result(tmp_path, capsys):
    """Accuracies on the two versions of Diving48 differ by tens of points."""
    for name, facts in (("one", {}), ("two", {"weights_digest": "x" * 64})):
        save_predictions(tmp_path / f"{name}.safetensors", make_predictions(**facts))
    assert load_predictions(tmp_path / "one.safetensors").version == VERSION
    for options in ((), ("--fuse", str(tmp_path / "two.safetensors"))):
        main(["evaluate", "--predictions", str(tmp_path / "one.safetensors"), *options])
        assert f"Diving48, version {VERSION}" in capsys.readouterr().out.splitlines()
    save_predictions(tmp_path / "old.safetensors", make_predictions(dataset="", version=""))
    main(["evaluate", "--predictions", str(tmp_path / "old.safetensors")])
    assert "version" not in capsys.readouterr().out
    assert summarize(make_predictions()).predictions.version == VERSION


MARGINAL = np.log([[0.3, 0.4, 0.25, 0.05], [0.1, 0.3, 0.4, 0.2], [0.25, 0.3, 0.4, 0.05]])
"""Probabilities of three dives, such that the top class has another take-off or somersault than the largest sum."""


def test_marginal_attributes_equal_a_loop_over_classes():
    predictions = make_predictions(
        logits={"label": MARGINAL.astype(np.float32)},
        targets={"label": np.array([0, 1, 3])},
        index=np.arange(3),
        declared=3,
        groups={},
    )
    found = summarize_attributes(predictions, rule="marginal")
    by_top_class = summarize_attributes(predictions)
    for place, (name, summary) in enumerate(found.items()):
        counts = np.zeros_like(summary.counts)
        for row, target in zip(np.exp(MARGINAL), (0, 1, 3), strict=True):
            sums = dict.fromkeys(summary.values, 0.0)
            for probability, label in zip(row, CLASSES, strict=True):
                sums[label.split(", ")[place]] += probability
            best = max(sums, key=sums.get)
            counts[summary.values.index(CLASSES[target].split(", ")[place]), summary.values.index(best)] += 1
        assert summary.counts.tolist() == counts.tolist(), name
        assert summary.top1 == pytest.approx(100 * np.trace(counts) / 3)
    assert found["somersault"].counts.tolist() != by_top_class["somersault"].counts.tolist()


def test_the_rule_of_the_attributes_is_an_option(tmp_path, capsys):
    path = tmp_path / "p.safetensors"
    logits = {"label": np.log([[0.3, 0.4, 0.25, 0.05]] * 6).astype(np.float32)}
    save_predictions(path, make_predictions(logits=logits))
    stored = []
    for options in ([], ["--attribute-rule", "marginal"]):
        main(["evaluate", "--predictions", str(path), "--per-attribute", *options, "--json", str(tmp_path / "s.json")])
        stored.append(json.loads((tmp_path / "s.json").read_text())["attributes"]["somersault"]["counts"])
    assert [np.array(counts).sum(0).tolist() for counts in stored] == [[0, 6, 0], [6, 0, 0]]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["evaluate", "--predictions", str(path), "--attribute-rule", "marginal"])
    assert "--per-attribute" in capsys.readouterr().err

"""Tests of submission files of the EPIC-KITCHENS-100 challenge."""

import json
from dataclasses import replace
from zipfile import ZipFile

import numpy as np
import pytest
from scipy.special import softmax

from kinema.cli import main
from kinema.data.manifest import Entry, write_manifest
from kinema.errors import PredictionsError
from kinema.evaluation.predictions import Predictions, measure, save_predictions
from kinema.evaluation.submission import Supervision, top_actions, write_submission

CLASSES = {head: tuple(f"{head} {n}" for n in range(count)) for head, count in (("verb", 97), ("noun", 300))}
SEGMENTS = 40
SUPERVISION = Supervision(pretraining=1)


def write_epic_manifest(folder, *, dataset="EPIC-KITCHENS-100", classes=CLASSES, samples=None):
    """Write a manifest whose lines are not in the order of their narration ids."""
    names = [f"P02_{n % 7:02}_{n}" for n in range(SEGMENTS)] if samples is None else samples
    entries = [
        Entry(
            rgb="a.mp4",
            sample=name,
            split="val",
            labels={head: names[(7 * n) % len(names)] for head, names in classes.items()},
        )
        for n, name in enumerate(names)
    ]
    return write_manifest(folder / "m.csv", entries=entries, classes=classes, dataset=dataset, version="1", depth=None)


def make_predictions(manifest, seed=0):
    """Return predictions that are often correct, in the reverse order of the manifest."""
    rng = np.random.default_rng(seed)
    index = np.arange(len(manifest.entries))[::-1].copy()
    targets = {head: np.array([manifest.targets(i)[head] for i in index.tolist()]) for head in manifest.classes}
    logits = {
        head: rng.normal(scale=2, size=(len(index), len(names))).astype(np.float32)
        for head, names in manifest.classes.items()
    }
    for head in logits:
        logits[head][np.arange(len(index)), targets[head]] += 5
    return Predictions(
        logits=logits,
        targets=targets,
        index=index,
        classes=manifest.classes,
        split="val",
        declared=len(index),
        missing=(),
        manifest_digest=manifest.digest,
        weights_digest="w",
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_epic_manifest(tmp_path_factory.mktemp("epic"))


def best_first(scores):
    """Rank a dict of scores as the evaluation of the organizers does."""
    names = np.array(list(scores))
    return names[np.argsort(np.array([scores[name] for name in names]))[::-1]].tolist()


def test_a_submission_ranks_as_the_predictions(tmp_path, manifest):
    predictions = make_predictions(manifest)
    write_submission(tmp_path / "new" / "s.json", predictions, manifest, supervision=SUPERVISION)
    submission = json.loads((tmp_path / "new" / "s.json").read_text())
    results = submission.pop("results")
    assert submission == {
        "version": "0.2", "challenge": "action_recognition", "sls_pt": 1, "sls_tl": 3, "sls_td": 3
    }  # fmt: skip
    assert list(results) == [manifest.entries[i].sample for i in predictions.index]
    right = {"verb": [], "noun": [], "action": []}
    for row, (name, scores) in enumerate(results.items()):
        assert list(scores) == ["verb", "noun", "action"]
        for head, count in (("verb", 97), ("noun", 300)):
            assert list(scores[head]) == [str(n) for n in range(count)]
            np.testing.assert_array_equal(np.float32(list(scores[head].values())), predictions.logits[head][row])
        assert len(scores["action"]) == 100
        values = list(scores["action"].values())
        assert values == sorted(values, reverse=True)
        assert all(isinstance(value, float) for value in values)
        shares = [softmax(np.float64(predictions.logits[head][row])) for head in ("verb", "noun")]
        product = np.multiply.outer(*shares)
        places = np.unravel_index(np.argsort(product, axis=None)[::-1][:100], product.shape)
        assert list(scores["action"]) == [f"{verb},{noun}" for verb, noun in zip(*places, strict=True)]
        np.testing.assert_allclose(values, product[places])
        labels = manifest.entries[manifest_position(manifest, name)].labels
        verb, noun = (CLASSES[head].index(labels[head]) for head in ("verb", "noun"))
        for kind, truth in (("verb", f"{verb}"), ("noun", f"{noun}"), ("action", f"{verb},{noun}")):
            ranked = best_first(scores[kind])
            right[kind].append([truth in ranked[:1], truth in ranked[:5]])
    found = dict(measure(predictions))
    for kind, name in (("verb", "verb"), ("noun", "noun"), ("action", "joint")):
        top1, top5 = 100 * np.mean(right[kind], axis=0)
        assert (found[f"{name}.top1"], found[f"{name}.top5"]) == pytest.approx((top1, top5))
        assert 20 < top1 < top5


def manifest_position(manifest, name):
    return [entry.sample for entry in manifest.entries].index(name)


def test_top_actions_match_values_computed_by_hand():
    """Verbs .5, .3, .2 and nouns .6, .4 have the products .30, .20; .18, .12; .12, .08. Ties go to the lower verb."""
    found = top_actions(np.log([0.5, 0.3, 0.2]), np.log([0.6, 0.4]), count=5)
    assert [pair[:2] for pair in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert [pair[2] for pair in found] == pytest.approx([0.30, 0.20, 0.18, 0.12, 0.12])
    even = top_actions(np.zeros(3), np.zeros(2), count=4)
    assert [pair[:2] for pair in even] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_an_archive_has_the_content_of_the_json_file(capsys, tmp_path, manifest):
    predictions = make_predictions(manifest)
    save_predictions(tmp_path / "p.safetensors", predictions)
    for name in ("s.json", "s.zip"):
        options = [tmp_path / "p.safetensors", "--manifest", manifest.path, "--out", tmp_path / name, "--sls-pt", 0]
        main(["submit", "epic_kitchens", *map(str, options)])
        assert capsys.readouterr().out == (f"{tmp_path / name}: {SEGMENTS} samples of split 'val', coverage 100.00 %\n")
    with ZipFile(tmp_path / "s.zip") as archive:
        assert archive.namelist() == ["test.json"]
        assert archive.read("test.json") == (tmp_path / "s.json").read_bytes()
    assert json.loads((tmp_path / "s.json").read_text())["sls_pt"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.safetensors", "s.json", "s.zip"]


def test_predictions_that_do_not_fit_the_challenge_are_refused(raises, tmp_path, manifest):
    out = tmp_path / "s.json"

    def refuse(predictions, *words, table=manifest, path=out, **facts):
        with raises(PredictionsError, *words, **facts):
            write_submission(path, predictions, table, supervision=SUPERVISION)
        assert not out.exists()

    predictions = make_predictions(manifest)
    refuse(predictions, ".zip", path=tmp_path / "s.txt")
    refuse(replace(predictions, manifest_digest="another"), "m.csv", field="manifest_digest")
    refuse(predictions.select_rows(np.arange(39)), "39", "40", "'val'", field="index")
    for changed, field, word in (
        ({"samples": [""] * SEGMENTS}, "sample", "m.csv, line 41"),
        ({"samples": ["P01_01_0", "P01_01_1", "P01_01_0"]}, "sample", "P01_01_0"),
        ({"dataset": "own"}, "dataset", "'own'"),
        ({"classes": {"label": CLASSES["verb"]}}, "classes", "97 classes of label"),
        ({"classes": {"verb": CLASSES["verb"]}}, "classes", "97 classes of verb"),
        ({"classes": {"verb": CLASSES["verb"], "noun": CLASSES["noun"][:299]}}, "classes", "299 classes of noun"),
    ):
        other = write_epic_manifest(tmp_path, **changed)
        refuse(make_predictions(other), word, table=other, field=field)


@pytest.mark.parametrize("level", [-1, 6])
def test_an_invalid_level_of_supervision_is_refused(raises, level):
    with raises(PredictionsError, f"data={level}", field="data"):
        Supervision(pretraining=1, data=level)


def test_an_unwritable_path_is_named(raises, tmp_path, manifest):
    (tmp_path / "file").touch()
    with raises(PredictionsError, "cannot be written", path="s.json"):
        write_submission(tmp_path / "file" / "s.json", make_predictions(manifest), manifest, supervision=SUPERVISION)

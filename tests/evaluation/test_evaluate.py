"""Tests of evaluations and predictions files: every sample is counted."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from kinema.data.dataset import VideoDataset
from kinema.data.loaders import make_loader
from kinema.data.manifest import write_manifest
from kinema.data.samplers import evaluation_batches
from kinema.errors import ManifestError, NonFiniteLogits, PredictionsError, UnreadableSample
from kinema.evaluation.evaluate import evaluate, predict_split
from kinema.evaluation.predictions import Protocol, load_predictions, measure, mistakes, save_predictions
from kinema.inference.trained_model import save_model

STORED = Path(__file__).parents[1] / "stored"


@pytest.fixture
def rewrite(tmp_path, data_set):
    """Return a function that writes the dataset with changed lines to another folder."""

    def rewrite(change, **facts):
        entries = [
            change(i, dataclasses.replace(e, rgb=data_set.locate(e.rgb), depth=data_set.locate(e.depth)))
            for i, e in enumerate(data_set.entries)
        ]
        fields = {"classes": data_set.classes, "dataset": "own", "version": "1", "depth": data_set.depth, **facts}
        return write_manifest(tmp_path / "changed.csv", entries=entries, **fields)

    return rewrite


def broken(*places):
    return lambda i, entry: dataclasses.replace(entry, rgb=f"gone {i}.mp4") if i in places else entry


def test_a_perfect_network_has_100_percent(data_set, make_trained_model, brightness):
    evaluation = evaluate(make_trained_model(brightness()), data_set, workers=0, batch_size=4, device="cpu")
    assert evaluation.measures == {"top1": 100, "top5": 100, "mean_class": 100, "coverage": 100}
    assert evaluation.predictions.index.tolist() == [6, 7, 8, 9, 10, 11]
    assert evaluation.predictions.targets["label"].tolist() == [0, 1, 2, 0, 1, 2]
    assert evaluation.predictions.classes == data_set.classes
    assert evaluation.predictions.manifest_digest == data_set.digest


def test_a_network_that_confuses_two_classes_has_the_expected_metrics(data_set, make_trained_model, brightness):
    network = brightness()
    network.levels.data = network.levels.data[[1, 0, 2]]
    measures = evaluate(make_trained_model(network), data_set, workers=0, device="cpu").measures
    assert measures["top1"] == pytest.approx(100 / 3)
    assert measures["mean_class"] == pytest.approx(100 / 3)
    assert measures["top5"] == 100


def test_the_requested_split_is_evaluated(data_set, make_trained_model, brightness):
    evaluation = evaluate(make_trained_model(brightness()), data_set.path, split="train", workers=0, device="cpu")
    assert evaluation.predictions.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert evaluation.predictions.split == "train"


def test_workers_and_batch_size_change_logits_by_rounding_only(data_set, make_trained_model, tiny_ctn):
    trained = make_trained_model(tiny_ctn())
    alone, helped, larger = (
        evaluate(trained, data_set, workers=workers, batch_size=size, device="cpu").predictions
        for workers, size in [(0, 1), (1, 1), (0, 4)]
    )
    np.testing.assert_array_equal(alone.logits["label"], helped.logits["label"])
    np.testing.assert_allclose(alone.logits["label"], larger.logits["label"], rtol=0, atol=1e-5)
    assert np.ptp(alone.logits["label"], axis=0).min() > 1e-3  # logits differ between clips


def test_a_saved_model_gives_the_predictions_of_the_one_in_memory(tmp_path, data_set, make_trained_model, tiny_ctn):
    trained = make_trained_model(tiny_ctn())
    digest = save_model(tmp_path / "model", trained)
    stored = evaluate(tmp_path / "model", data_set, workers=0, device="cpu").predictions
    np.testing.assert_array_equal(
        stored.logits["label"], evaluate(trained, data_set, workers=0, device="cpu").predictions.logits["label"]
    )
    assert stored.weights_digest == digest


def test_a_users_network_is_passed_with_its_weights(tmp_path, data_set, make_trained_model, brightness):
    save_model(tmp_path / "model", make_trained_model(brightness()))
    fresh = brightness()
    torch.nn.init.zeros_(fresh.levels)
    evaluation = evaluate(tmp_path / "model", data_set, network=fresh, workers=0, device="cpu")
    assert evaluation.measures["top1"] == 100


def assert_same(first, second):
    for field in dataclasses.fields(first):
        one, two = getattr(first, field.name), getattr(second, field.name)
        if field.name in ("logits", "targets", "groups"):
            assert list(one) == list(two)
            for head in one:
                np.testing.assert_array_equal(one[head], two[head])
                assert one[head].dtype == two[head].dtype
        elif field.name == "index":
            np.testing.assert_array_equal(one, two)
        else:
            assert one == two


def test_saved_predictions_are_loaded_unchanged(tmp_path, rewrite, make_trained_model, tiny_ctn):
    manifest = rewrite(broken(7))
    out = tmp_path / "new folder" / "predictions.safetensors"
    evaluation = evaluate(make_trained_model(tiny_ctn()), manifest, workers=0, device="cpu", missing="allow", out=out)
    stored = load_predictions(out)
    assert_same(stored, evaluation.predictions)
    assert dict(measure(stored)) == evaluation.measures
    again = tmp_path / "again.safetensors"
    save_predictions(again, stored)
    assert again.read_bytes() == out.read_bytes()


def test_several_task_heads_are_measured_by_name(rewrite, make_trained_model, color_and_depth):
    manifest = rewrite(
        lambda i, entry: dataclasses.replace(entry, labels={"verb": f"v{i % 3}", "noun": f"n{i % 4}"}),
        classes={"verb": ("v0", "v1", "v2"), "noun": ("n0", "n1", "n2", "n3")},
    )
    trained = make_trained_model(
        color_and_depth(), modalities=("rgb", "depth"), classes=manifest.classes, depth=manifest.depth
    )
    evaluation = evaluate(trained, manifest, workers=0, batch_size=4, device="cpu")
    assert list(evaluation.measures) == [
        "verb.top1", "verb.top5", "verb.mean_class", "noun.top1", "noun.top5", "noun.mean_class",
        "joint.top1", "joint.top5", "coverage",
    ]  # fmt: skip
    logits = evaluation.predictions.logits
    assert {head: values.shape for head, values in logits.items()} == {"verb": (6, 3), "noun": (6, 4)}
    for head, classes in (("verb", 3), ("noun", 4)):
        right = logits[head].argmax(1) == np.arange(6, 12) % classes
        assert evaluation.measures[f"{head}.top1"] == pytest.approx(100 * right.mean())
    both = [logits[head].argmax(1) == np.arange(6, 12) % classes for head, classes in (("verb", 3), ("noun", 4))]
    assert evaluation.measures["joint.top1"] == pytest.approx(100 * np.logical_and(*both).mean())


def test_an_unreadable_sample_stops_an_evaluation_and_is_named(raises, rewrite, make_trained_model, brightness):
    with raises(UnreadableSample, "changed.csv, line 9", path="gone 7.mp4"):
        evaluate(make_trained_model(brightness()), rewrite(broken(7)), workers=0, device="cpu")


@pytest.mark.parametrize("workers", [0, 1])
def test_allowed_missing_samples_lower_the_coverage(rewrite, make_trained_model, brightness, workers):
    manifest = rewrite(broken(7, 11))
    evaluation = evaluate(
        make_trained_model(brightness()), manifest, workers=workers, batch_size=1, device="cpu", missing="allow"
    )
    predictions = evaluation.predictions
    assert evaluation.measures["coverage"] == pytest.approx(100 * 4 / 6)
    assert evaluation.measures["top1"] == 100
    assert predictions.index.tolist() == [6, 8, 9, 10]
    assert predictions.targets["label"].tolist() == [0, 2, 0, 1]
    assert [message.split(": ")[0].rsplit("/", 1)[1] for message in predictions.missing] == [
        "changed.csv, line 9",
        "changed.csv, line 13",
    ]


def test_an_evaluation_without_readable_samples_is_refused(raises, rewrite, make_trained_model, brightness):
    manifest = rewrite(broken(*range(12)))
    with raises(UnreadableSample, "'test'", "line 8", path=manifest.path):
        evaluate(make_trained_model(brightness()), manifest, workers=0, device="cpu", missing="allow")


def test_coverage_is_relative_to_the_declared_samples(raises, data_set, make_trained_model, brightness):
    """Samples that are declared but not listed lower the coverage."""
    partial = dataclasses.replace(data_set, declared={"train": 6, "test": 8})
    with raises(ManifestError, "6", "8", field="declared.test", path=data_set.path):
        evaluate(make_trained_model(brightness()), partial, workers=0, device="cpu")
    evaluation = evaluate(make_trained_model(brightness()), partial, workers=0, device="cpu", missing="allow")
    assert evaluation.measures["coverage"] == 75
    assert evaluation.predictions.declared == 8


def test_a_loader_with_lost_or_duplicate_samples_is_refused(data_set, make_trained_model, brightness):
    trained = make_trained_model(brightness())
    dataset = VideoDataset(data_set, sampling=trained.sampling, preprocessing=trained.preprocessing)
    for positions in ([6, 7, 8], [0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11, 6], [6, 7, 8, 9, 10, 10]):
        loader = make_loader(dataset, evaluation_batches(positions, 4), workers=0, pin_memory=False)
        with pytest.raises(AssertionError, match="6"):
            predict_split(trained, loader, data_set, split="test", missing="stop", device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("classes", "word"),
    [
        ({"label": ("dim", "gray", "loud")}, "'bright'"),
        ({"label": ("gray", "dim", "bright")}, "'label'"),
        ({"label": ("dim", "gray", "bright", "dark")}, "'label'"),
        ({"verb": ("dim", "gray", "bright")}, "verb"),
    ],
    ids=str,
)
def test_class_lists_that_differ_are_refused(raises, data_set, make_trained_model, brightness, classes, word):
    field = "classes.label" if "label" in classes else "classes"
    with raises(ManifestError, word, field=field):
        evaluate(make_trained_model(brightness(), classes=classes), data_set, workers=0, device="cpu")


def test_an_unknown_split_is_refused(raises, data_set, make_trained_model, brightness):
    with raises(ManifestError, "'val'"):
        evaluate(make_trained_model(brightness()), data_set, split="val", workers=0, device="cpu")


def test_files_without_predictions_are_refused(raises, tmp_path):
    with raises(PredictionsError, path="gone.safetensors"):
        load_predictions(tmp_path / "gone.safetensors")
    (tmp_path / "text.safetensors").write_text("no predictions")
    with raises(PredictionsError, path="text.safetensors"):
        load_predictions(tmp_path / "text.safetensors")
    save_file({"index": np.arange(3)}, tmp_path / "weights.safetensors")
    with raises(PredictionsError, path="weights.safetensors"):
        load_predictions(tmp_path / "weights.safetensors")


def test_a_predictions_file_can_be_read_without_this_library(tmp_path, data_set, make_trained_model, brightness):
    out = tmp_path / "p.safetensors"
    evaluate(make_trained_model(brightness()), data_set, workers=0, device="cpu", out=out)
    arrays = load_file(out)
    assert (arrays["logits.label"].argmax(1) == arrays["targets.label"]).all()
    length = int.from_bytes(out.read_bytes()[:8], "little")
    stored = json.loads(out.read_bytes()[8 : 8 + length])
    assert json.loads(stored["__metadata__"]["predictions"])["classes"] == {"label": ["dim", "gray", "bright"]}


def test_more_samples_than_declared_are_refused_too(raises, data_set, make_trained_model, brightness):
    few = dataclasses.replace(data_set, declared={"train": 6, "test": 5})
    with raises(ManifestError, "6", "5", field="declared.test"):
        evaluate(make_trained_model(brightness()), few, workers=0, device="cpu", missing="allow")


def test_a_network_that_has_diverged_is_not_evaluated(raises, data_set, make_trained_model, brightness):
    model = brightness()
    model.levels.data[1] = float("nan")
    with raises(NonFiniteLogits, "lines 8, ", path=data_set.path):
        evaluate(make_trained_model(model), data_set, workers=0, device="cpu")


def test_arguments_out_of_range_are_refused(raises, data_set, make_trained_model, brightness):
    for field, value in (("batch_size", 0), ("batch_size", -2), ("workers", -1)):
        with raises(PredictionsError, value, field=field):
            evaluate(make_trained_model(brightness()), data_set, device="cpu", **{field: value})


def test_a_folder_as_predictions_file_is_refused(raises, data_set, make_trained_model, brightness, tmp_path):
    with raises(PredictionsError, "folder", field="out", path=tmp_path):
        evaluate(make_trained_model(brightness()), data_set, workers=0, device="cpu", out=tmp_path)


def test_mistakes_are_sorted_by_frequency(data_set, make_trained_model, brightness):
    predictions = evaluate(make_trained_model(brightness()), data_set, device="cpu").predictions
    names = predictions.classes["label"]
    targets = np.array([0, 0, 0, 1, 2, 2])
    answers = np.eye(3, dtype=np.float32)[[1, 1, 0, 2, 2, 0]]
    changed = dataclasses.replace(predictions, targets={"label": targets}, logits={"label": answers})
    assert mistakes(changed, "label") == [(names[0], names[1], 2), (names[1], names[2], 1), (names[2], names[0], 1)]


def test_the_protocol_is_stored(tmp_path, data_set, make_trained_model, brightness):
    trained = make_trained_model(brightness())
    trained = dataclasses.replace(
        trained,
        sampling=dataclasses.replace(trained.sampling, clips=2),
        preprocessing=dataclasses.replace(trained.preprocessing, crops=3),
    )
    evaluate(trained, data_set, workers=0, device="cpu", out=tmp_path / "p.safetensors")
    protocol = load_predictions(tmp_path / "p.safetensors").protocol
    assert protocol == Protocol(frames=8, clips=2, crops=3)
    assert str(protocol) == "8 x 2 x 3"


def test_groups_and_subjects_are_stored_if_every_sample_has_them(tmp_path, rewrite, make_trained_model, brightness):
    manifest = rewrite(
        lambda i, entry: dataclasses.replace(
            entry, split="train" if i < 3 else "test", subject=f"s{i // 5}", group="" if i == 9 else f"g{i // 2}"
        )
    )
    out = tmp_path / "p.safetensors"
    evaluate(make_trained_model(brightness()), manifest, workers=0, device="cpu", out=out)
    stored = load_predictions(out)
    assert list(stored.groups) == ["subject"]
    assert stored.groups["subject"].tolist() == [0] * 2 + [1] * 5 + [2] * 2


def test_a_stored_file_of_the_first_format_is_read():
    """The file was written by kinema 0.1.0, with the names of that version."""
    stored = load_predictions(STORED / "predictions_0.1.safetensors")
    assert stored.classes == {"verb": ("open", "close", "cut"), "noun": ("door", "bread")}
    assert (stored.split, stored.declared, stored.missing) == ("test", 7, ("videos/größer.mp4: no such file",))
    assert (stored.manifest_digest, stored.weights_digest) == ("ab" * 32, "cd" * 32)
    assert stored.protocol == Protocol(frames=16, clips=4, crops=3)
    assert {column: numbers.tolist() for column, numbers in stored.groups.items()} == {
        "group": [0, 0, 1, 1, 2, 2],
        "subject": [0, 1, 0, 1, 0, 1],
    }
    assert (stored.dataset, stored.version) == ("kitchens", "1.2")
    assert stored.index.tolist() == [3, 5, 6, 8, 9, 11]
    assert dict(measure(stored)) == {
        "verb.top1": 50.0,
        "verb.top5": 100.0,
        "verb.mean_class": 50.0,
        "noun.top1": 33.33333333333333,
        "noun.top5": 100.0,
        "noun.mean_class": 33.333333333333336,
        "joint.top1": 16.666666666666664,
        "joint.top5": 83.33333333333334,
        "coverage": 85.71428571428571,
    }


def test_the_format_has_not_changed(tmp_path):
    stored = STORED / "predictions_0.1.safetensors"
    save_predictions(tmp_path / "again.safetensors", load_predictions(stored))
    assert (tmp_path / "again.safetensors").read_bytes() == stored.read_bytes()


def test_a_file_without_protocol_and_groups_is_read(tmp_path, data_set, make_trained_model, brightness):
    out = tmp_path / "p.safetensors"
    evaluate(make_trained_model(brightness()), data_set, workers=0, device="cpu", out=out)
    length = int.from_bytes(out.read_bytes()[:8], "little")
    header = json.loads(json.loads(out.read_bytes()[8 : 8 + length])["__metadata__"]["predictions"])
    del header["protocol"]
    save_file(load_file(out), out, metadata={"predictions": json.dumps(header)})
    old = load_predictions(out)
    assert (old.protocol, dict(old.groups)) == (None, {})
    assert dict(measure(old))["top1"] == 100


def test_the_predictions_of_a_run_are_found_in_its_folder(tmp_path, data_set, make_trained_model, brightness):
    evaluate(
        make_trained_model(brightness()), data_set, workers=0, device="cpu", out=tmp_path / "predictions.safetensors"
    )
    assert_same(load_predictions(tmp_path), load_predictions(tmp_path / "predictions.safetensors"))


@pytest.mark.parametrize(
    ("change", "field", "word"),
    [
        ({"index": np.array([6, 7, 8, 9, 10, 10])}, "index", "duplicate"),
        ({"logits": {"label": np.zeros((6, 4), np.float32)}}, "label", "(6, 4)"),
        ({"logits": {"label": np.full((6, 3), np.nan, np.float32)}}, "label", "not finite"),
        ({"targets": {"label": np.array([0, 1, 2, 3, 0, 0])}}, "label", "targets"),
        ({"targets": {"label": np.array([0, 1, 2, -1, 0, 0])}}, "label", "targets"),
        ({"classes": {"joint": ("a", "b", "c")}}, "classes", "joint"),
    ],
    ids=["twice", "wide", "nan", "beyond", "negative", "joint"],
)
def test_inconsistent_predictions_are_refused(raises, data_set, make_trained_model, brightness, change, field, word):
    predictions = evaluate(make_trained_model(brightness()), data_set, workers=0, device="cpu").predictions
    with raises(PredictionsError, word, field=field):
        dataclasses.replace(predictions, **change)

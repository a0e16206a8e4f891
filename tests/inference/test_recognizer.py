"""The recognizer gives the predictions that an evaluation measures."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.errors import UnreadableVideo, VideoError
from kinema.evaluation import metrics
from kinema.evaluation.evaluate import evaluate
from kinema.inference.recognizer import MissingStream, Prediction, Recognizer
from kinema.inference.trained_model import save_model
from kinema.models.registry import create_model
from kinema.transforms.preprocessing import SubjectCrop


def video(data_set, position):
    return data_set.locate(data_set.entries[position].rgb)


def pair(data_set, position):
    return {"rgb": video(data_set, position), "depth": data_set.locate(data_set.entries[position].depth)}


@pytest.fixture
def recognizer(make_trained_model, brightness):
    return Recognizer(make_trained_model(brightness()), device="cpu")


def test_a_video_gets_ranked_probabilities(recognizer, data_set):
    for position, entry in enumerate(data_set.entries):
        ranked = recognizer(video(data_set, position))
        assert ranked[0].label == entry.labels["label"]
        assert [p.score for p in ranked] == sorted((p.score for p in ranked), reverse=True)
        assert sum(p.score for p in ranked) == pytest.approx(1)
        assert {p.label for p in ranked} == set(data_set.classes["label"])


def test_scores_are_the_softmax_of_the_logits(recognizer, data_set):
    logits = recognizer.engine.logits(recognizer.prepare(video(data_set, 1)))["label"][0].double()
    shares = (logits.exp() / logits.exp().sum()).tolist()
    for prediction in recognizer(video(data_set, 1)):
        assert prediction.score == pytest.approx(shares[data_set.classes["label"].index(prediction.label)], abs=1e-6)


class Constant(torch.nn.Module):
    """Network that returns the same logits for every clip."""

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, clip):
        return self.logits.expand(len(clip), -1)


@pytest.mark.parametrize("logits", [[0.0] * 40, [1.0, 2.0] * 20, [200.0, 0.0, 1.0, 0.0] * 10, [0.0, -0.0] * 20])
def test_equal_classes_are_ranked_in_their_order(make_trained_model, data_set, logits):
    """As metrics rank, also where the softmax of different logits is equal."""
    classes = {"label": tuple(f"class {number:02}" for number in range(40))}
    ranked = Recognizer(make_trained_model(Constant(logits), classes=classes), device="cpu")(
        video(data_set, 0), top_k=40
    )
    expected = sorted(range(40), key=lambda number: -logits[number])
    assert [p.label for p in ranked] == [classes["label"][number] for number in expected]
    places = metrics.ranks(np.array([logits] * 40), np.arange(40))
    assert [ranked[place].label for place in places] == list(classes["label"])


@pytest.mark.parametrize(("top_k", "length"), [(1, 1), (2, 2), (3, 3), (5, 3), (1000, 3)])
def test_there_are_at_most_as_many_predictions_as_classes(recognizer, data_set, top_k, length):
    ranked = recognizer(video(data_set, 0), top_k=top_k)
    assert len(ranked) == length
    assert all(isinstance(p, Prediction) for p in ranked)


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_below_1_is_refused(raises, recognizer, data_set, top_k):
    with raises(VideoError, top_k, field="top_k"):
        recognizer(video(data_set, 0), top_k=top_k)


def test_a_path_a_string_and_a_mapping_are_the_same(recognizer, data_set):
    path = video(data_set, 3)
    assert recognizer(path) == recognizer(Path(path)) == recognizer({"rgb": Path(path)}) == recognizer(f"file://{path}")


def test_predict_returns_one_head_and_predict_heads_all(raises, make_trained_model, tiny_ctn, recognizer, data_set):
    classes = {"verb": ("a", "b"), "noun": ("c", "d", "e", "f")}
    several = Recognizer(make_trained_model(tiny_ctn({"verb": 2, "noun": 4}), classes=classes), device="cpu")
    answer = several.predict_heads(video(data_set, 0), top_k=3)
    assert {head: len(ranked) for head, ranked in answer.items()} == {"verb": 2, "noun": 3}
    assert {p.label for p in answer["verb"]} == {"a", "b"}
    assert several.classes == classes
    assert several.predict(video(data_set, 0), top_k=3, head="noun") == answer["noun"]
    assert recognizer.predict_heads(video(data_set, 0)) == {"label": recognizer.predict(video(data_set, 0))}
    for call in (several, several.predict, several.logits):
        with raises(VideoError, "verb, noun", field="head"):
            call(video(data_set, 0))
        with raises(VideoError, "'noun'", field="head"):
            call(video(data_set, 0), head="nou")


@pytest.fixture
def both(make_trained_model, color_and_depth, depth_facts):
    classes = {"verb": ("a", "b", "c"), "noun": ("d", "e", "f", "g")}
    trained = make_trained_model(color_and_depth(), modalities=("rgb", "depth"), classes=classes, depth=depth_facts)
    return Recognizer(trained, device="cpu")


def test_an_rgbd_model_needs_both(raises, both, data_set):
    assert set(both.predict_heads(pair(data_set, 0))) == {"verb", "noun"}
    with raises(VideoError, "rgb and depth"):
        both.predict_heads(video(data_set, 0))
    for modality, missing in (("rgb", "depth"), ("depth", "rgb")):
        with raises(VideoError, "rgb and depth", field=missing):
            both.prepare({modality: pair(data_set, 0)[modality]})


@pytest.fixture
def two_streams(make_trained_model, data_set):
    """A two-stream model that accepts a missing modality."""
    torch.manual_seed(0)
    network = create_model("mfst_tiny_rgbd", num_classes=3, frames=8, size=32)
    return Recognizer(make_trained_model(network, modalities=("rgb", "depth"), depth=data_set.depth), device="cpu")


def test_a_missing_stream_is_replaced_with_a_warning(raises, two_streams, data_set):
    whole = two_streams(pair(data_set, 0))
    clips = two_streams.prepare(pair(data_set, 0))
    for modality, missing in (("rgb", "depth"), ("depth", "rgb")):
        with pytest.warns(MissingStream, match=f"no {missing}"):
            alone = two_streams({modality: pair(data_set, 0)[modality]})
        expected = two_streams.engine.logits({modality: clips[modality]})["label"][0].softmax(-1)
        assert {p.label: p.score for p in alone} == pytest.approx(
            dict(zip(two_streams.classes["label"], expected.tolist(), strict=True))
        )
        assert alone != whole
    with raises(VideoError, "each"):
        two_streams(video(data_set, 0))
    with raises(VideoError, field="rgb"):
        two_streams({})


def test_a_missing_depth_cannot_crop_to_the_person(raises, two_streams, data_set):
    trained = two_streams.trained
    facts = dataclasses.replace(data_set.depth, coverage="masked")
    preprocessing = dataclasses.replace(trained.preprocessing, depth=facts, subject=SubjectCrop(margin=0.2))
    cut = Recognizer(dataclasses.replace(trained, preprocessing=preprocessing), device="cpu")
    with pytest.warns(MissingStream), raises(VideoError, field="depth"):
        cut({"rgb": video(data_set, 0)})


def test_a_depth_model_reads_a_file_as_depth(raises, make_trained_model, tiny_ctn, data_set):
    trained = make_trained_model(tiny_ctn(channels=1), modalities=("depth",), depth=data_set.depth)
    recognizer = Recognizer(trained, device="cpu")
    depth = pair(data_set, 2)["depth"]
    assert set(recognizer.prepare(depth)) == {"depth"}
    assert recognizer(depth) == recognizer({"depth": depth})
    with raises(VideoError, field="depth"):
        recognizer({"rgb": video(data_set, 2)})


def test_predictions_equal_those_of_an_evaluation(make_trained_model, tiny_ctn, data_set):
    """An evaluation with batches of one sample gives exactly the recognizer's logits."""
    trained = make_trained_model(tiny_ctn())
    measured = evaluate(trained, data_set, batch_size=1, workers=1, device="cpu").predictions
    recognizer = Recognizer(trained, device="cpu")
    for position, logits in zip(measured.index.tolist(), measured.logits["label"], strict=True):
        shown = recognizer.engine.logits(recognizer.prepare(video(data_set, position)))["label"]
        np.testing.assert_array_equal(shown.numpy()[0], logits)


def test_a_saved_model_predicts_the_same(tmp_path, make_trained_model, tiny_ctn, data_set):
    trained = make_trained_model(tiny_ctn())
    save_model(tmp_path, trained)
    assert Recognizer.load(tmp_path, device="cpu")(video(data_set, 4)) == Recognizer(trained, device="cpu")(
        video(data_set, 4)
    )


def test_a_users_own_network_is_loaded(tmp_path, make_trained_model, brightness, data_set):
    save_model(tmp_path, make_trained_model(brightness()))
    fresh = brightness()
    torch.nn.init.zeros_(fresh.levels)
    recognizer = Recognizer.load(tmp_path, model=fresh, device="cpu")
    assert [recognizer(video(data_set, i), top_k=1)[0].label for i in range(3)] == ["dim", "gray", "bright"]


def test_clips_are_uint8_with_a_batch_of_one(both, data_set):
    clips = both.prepare(pair(data_set, 5))
    assert {m: (tuple(c.shape), c.dtype) for m, c in clips.items()} == {
        "rgb": ((1, 3, 8, 32, 32), torch.uint8),
        "depth": ((1, 1, 8, 32, 32), torch.uint8),
    }


def test_a_file_that_cannot_be_read_is_named(raises, recognizer, tmp_path):
    with raises(UnreadableVideo, path="gone.mp4"):
        recognizer(tmp_path / "gone.mp4")


@pytest.mark.parametrize(("clips", "crops"), [(1, 3), (2, 1), (2, 3)])
def test_predictions_of_several_views_equal_an_evaluation(make_trained_model, tiny_ctn, data_set, clips, crops):
    plain = make_trained_model(tiny_ctn())
    trained = dataclasses.replace(
        plain,
        sampling=dataclasses.replace(plain.sampling, clips=clips),
        preprocessing=dataclasses.replace(plain.preprocessing, crops=crops),
    )
    measured = evaluate(trained, data_set, batch_size=1, device="cpu").predictions
    recognizer = Recognizer(trained, device="cpu")
    for position, logits in zip(measured.index.tolist(), measured.logits["label"], strict=True):
        prepared = recognizer.prepare(video(data_set, position))
        assert prepared["rgb"].shape == (clips * crops, 3, 8, 32, 32)
        np.testing.assert_array_equal(recognizer.engine.logits(prepared)["label"].numpy()[0], logits)
    together = evaluate(trained, data_set, batch_size=4, device="cpu").predictions
    np.testing.assert_allclose(together.logits["label"], measured.logits["label"], atol=1e-5)


def test_several_views_are_saved_with_the_model(tmp_path, make_trained_model, tiny_ctn, data_set):
    plain = make_trained_model(tiny_ctn())
    trained = dataclasses.replace(
        plain,
        sampling=dataclasses.replace(plain.sampling, clips=2),
        preprocessing=dataclasses.replace(plain.preprocessing, crops=3),
    )
    save_model(tmp_path, trained)
    loaded = Recognizer.load(tmp_path, device="cpu")
    assert loaded.engine.views == 6
    assert loaded(video(data_set, 4)) == Recognizer(trained, device="cpu")(video(data_set, 4))


def test_a_model_stored_without_views_has_one(tmp_path, make_trained_model, tiny_ctn, data_set):
    """Older models lack these fields, which take their defaults."""
    trained = make_trained_model(tiny_ctn())
    save_model(tmp_path, trained)
    stored = json.loads((tmp_path / "model.json").read_text())
    del stored["sampling"]["clips"], stored["preprocessing"]["crops"], stored["preprocessing"]["subject"]
    (tmp_path / "model.json").write_text(json.dumps(stored))
    old = Recognizer.load(tmp_path, device="cpu")
    assert old.trained.preprocessing == trained.preprocessing
    assert old.engine.views == 1
    assert old(video(data_set, 4)) == Recognizer(trained, device="cpu")(video(data_set, 4))


def test_a_color_model_cropped_to_the_person_needs_depth(raises, tmp_path, make_trained_model, brightness, data_set):
    plain = make_trained_model(brightness())
    facts = dataclasses.replace(data_set.depth, coverage="masked")
    preprocessing = dataclasses.replace(plain.preprocessing, depth=facts, subject=SubjectCrop(margin=0.2))
    save_model(tmp_path, dataclasses.replace(plain, preprocessing=preprocessing))
    recognizer = Recognizer.load(tmp_path, model=brightness(), device="cpu")
    assert recognizer.trained.preprocessing == preprocessing
    assert set(recognizer.prepare(pair(data_set, 5))) == {"rgb"}
    assert recognizer(pair(data_set, 0))[0].label == "dim"
    with raises(VideoError, "person"):
        recognizer(video(data_set, 0))
    with raises(VideoError, field="depth"):
        recognizer({"rgb": video(data_set, 0)})

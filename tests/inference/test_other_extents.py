"""Trained models take longer or larger clips than in training."""

import torch

from kinema.errors import ModelError
from kinema.evaluation.evaluate import evaluate
from kinema.models.registry import create_model


def recognizer(make_trained_model, name="rpe_stdt_tiny", **changes):
    torch.manual_seed(0)
    return make_trained_model(create_model(name, num_classes=3, frames=8, size=32, **changes))


def test_relative_position_supports_other_sizes(make_trained_model, data_set):
    trained = recognizer(make_trained_model)
    shown = trained.with_clip(frames=12, size=64)
    assert (shown.sampling.frames, shown.preprocessing.size, shown.preprocessing.short_side) == (12, 64, 72)
    assert shown.model is trained.model
    predictions = evaluate(shown, data_set, batch_size=6).predictions
    assert predictions.protocol.frames == 12
    alone = evaluate(trained, data_set, batch_size=6).predictions
    assert predictions.logits["label"].shape == alone.logits["label"].shape
    assert abs(predictions.logits["label"] - alone.logits["label"]).max() > 1e-4


def test_the_same_size_gives_the_same_model(make_trained_model):
    trained = recognizer(make_trained_model)
    assert trained.with_clip() == trained.with_clip(frames=8, size=32) == trained


def test_unsupported_sizes_are_refused(raises, make_trained_model):
    with raises(ModelError, "8 frames of 40 pixels", field="size"):
        recognizer(make_trained_model).with_clip(size=40)
    with raises(ModelError, "3 frames of 32 pixels", field="frames"):
        recognizer(make_trained_model, pool="max").with_clip(frames=3)
    with raises(ModelError, "frames=0", field="frames"):
        recognizer(make_trained_model).with_clip(frames=0)
    with raises(ModelError, "9 frames of 32 pixels", field="frames"):
        recognizer(make_trained_model, "ctn_tiny").with_clip(frames=9)

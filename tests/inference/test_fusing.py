"""A fused model gives the mean of both models' predictions, on files and after saving."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kinema.errors import ModelError
from kinema.evaluation.evaluate import evaluate
from kinema.evaluation.fusion import fuse
from kinema.inference.fusing import fuse_models
from kinema.inference.trained_model import load_model, save_model
from kinema.models.registry import create_model
from kinema.transforms.sampling import Sampling


@pytest.fixture
def color(make_trained_model):
    torch.manual_seed(1)
    return make_trained_model(create_model("mfst_tiny", num_classes=3, frames=8, size=32, layers=1))


@pytest.fixture
def depth(make_trained_model, data_set, tiny_ctn):
    torch.manual_seed(2)
    return make_trained_model(tiny_ctn(channels=1), modalities=("depth",), depth=data_set.depth)


@pytest.mark.long
@pytest.mark.parametrize("score", ["logits", "softmax"])
def test_a_fused_model_predicts_the_mean_of_both(tmp_path, color, depth, data_set, score):
    """Fused models equal `kinema evaluate --fuse` on both models' predictions."""
    for name, trained in (("color", color), ("depth", depth)):
        save_model(tmp_path / name, trained)
    save_model(tmp_path / "both", fuse_models(tmp_path / "color", tmp_path / "depth", score=score))
    apart = [evaluate(tmp_path / name, data_set, batch_size=6).predictions for name in ("color", "depth")]
    together = evaluate(tmp_path / "both", data_set, batch_size=6).predictions
    expected = fuse(apart, score=score).logits["label"]
    torch.testing.assert_close(
        torch.from_numpy(together.logits["label"]).double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5
    )
    for name, predictions in zip(("rgb", "depth"), apart, strict=True):
        alone = evaluate(tmp_path / "both", data_set, batch_size=6, modalities=(name,)).predictions
        np.testing.assert_allclose(alone.logits["label"], predictions.logits["label"], rtol=1e-5, atol=1e-6)


def test_the_order_does_not_matter_and_the_origin_is_kept(color, depth):
    color = replace(color, provenance={"commit": "abc"}, digest="123", precision="bfloat16")
    fused = fuse_models(depth, color, score="logits")
    assert fused.preprocessing.modalities == ("rgb", "depth")
    assert fused.provenance["fused"] == "logits"
    assert (fused.provenance["rgb_commit"], fused.provenance["rgb_digest"]) == ("abc", "123")
    assert fused.provenance["depth_recipe"] == "by hand"
    assert fused.precision == "float32"
    assert fused.model.rgb is color.model


def test_the_preprocessing_of_each_modality_is_kept(tmp_path, color, depth):
    mean = (0.1, 0.2, 0.3)
    color = replace(color, preprocessing=replace(color.preprocessing, mean=mean))
    save_model(tmp_path, fuse_models(color, depth, score="logits"))
    again = load_model(tmp_path)
    assert again.preprocessing.mean == mean
    assert again.preprocessing.depth == depth.preprocessing.depth


def test_incompatible_models_are_refused(raises, color, depth, make_trained_model, brightness):
    with raises(ModelError, "rgb and rgb"):
        fuse_models(color, color, score="logits")
    with raises(ModelError, "your own"):
        fuse_models(make_trained_model(brightness()), depth, score="logits")
    other = replace(depth, classes={"label": tuple(reversed(depth.classes["label"]))})
    with raises(ModelError, field="classes"):
        fuse_models(color, other, score="logits")
    other = replace(depth, sampling=Sampling(frames=4))
    with raises(ModelError, "8 for rgb and 4 for depth", field="sampling.frames"):
        fuse_models(color, other, score="logits")
    other = replace(depth, preprocessing=replace(depth.preprocessing, short_side=40))
    with raises(ModelError, "36 for rgb and 40 for depth", field="preprocessing.short_side"):
        fuse_models(color, other, score="logits")


def test_a_model_that_needs_both_modalities_refuses_one(
    raises, color, make_trained_model, color_and_depth, depth_facts
):
    classes = {"verb": ("a", "b", "c"), "noun": ("d", "e", "f", "g")}
    own = make_trained_model(color_and_depth(), modalities=("rgb", "depth"), classes=classes, depth=depth_facts)
    with raises(ModelError, "ColorAndDepth", field="modalities"):
        own.with_modalities(("rgb",))
    with raises(ModelError, "depth", field="modalities"):
        color.with_modalities(("depth",))
    assert color.with_modalities(("rgb",)) is color

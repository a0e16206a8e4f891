"""Deinterlacing in training is part of the model, so that it reads videos as it was trained."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from kinema import Recognizer
from kinema.inference.trained_model import load_model, save_model
from kinema.training.setup import TrainingSetup
from kinema.video.read_options import ReadOptions


@pytest.fixture
def interlaced(tmp_path):
    """Write a video that is marked as interlaced, of a dark and a bright field."""
    path = tmp_path / "lines.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"flags": "+ildct+ilme", "x264-params": "tff=1"})
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        image = np.full((64, 64, 3), 30, np.uint8)
        image[1::2] = 220
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_training_records_it(tiny_recipe):
    assert TrainingSetup.build(tiny_recipe).preprocessing.deinterlace == "none"
    options = replace(tiny_recipe.data.read_options, deinterlace="spatial")
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, read_options=options))
    recipe = replace(recipe, run=replace(recipe.run, out=recipe.run.out.with_name("other")))
    assert TrainingSetup.build(recipe).preprocessing.deinterlace == "spatial"


def test_a_model_reads_as_it_was_trained_unless_told_otherwise(tmp_path, interlaced, tiny_ctn, make_trained_model):
    plain = make_trained_model(tiny_ctn())
    trained = replace(plain, preprocessing=replace(plain.preprocessing, deinterlace="spatial"))
    save_model(tmp_path / "model", trained)
    trained = load_model(tmp_path / "model")
    assert trained.preprocessing.deinterlace == "spatial"

    combed = Recognizer(plain).prepare(interlaced)["rgb"]
    smooth = Recognizer(trained).prepare(interlaced)["rgb"]
    assert combed.float().mean() == pytest.approx(125, abs=5)
    assert smooth.float().std() < 2
    told = Recognizer(plain, read_options=ReadOptions(deinterlace="spatial")).prepare(interlaced)["rgb"]
    assert torch.equal(told, smooth)
    told = Recognizer(trained, read_options=ReadOptions(deinterlace="none")).prepare(interlaced)["rgb"]
    assert torch.equal(told, combed)

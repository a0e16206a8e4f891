"""The Python API: videos in memory, logits and features, and networks in evaluation mode."""

import numpy as np
import pytest
import torch
from PIL import Image

from kinema import Recognizer, load_manifest, load_model
from kinema.errors import ModelError, UnreadableVideo, VideoError
from kinema.inference.trained_model import save_model
from kinema.video.source import read_gray, read_rgb


@pytest.fixture
def recognizer(make_trained_model, tiny_ctn):
    return Recognizer(make_trained_model(tiny_ctn()), device="cpu")


@pytest.fixture
def of_depth(make_trained_model, tiny_ctn, data_set):
    return Recognizer(
        make_trained_model(tiny_ctn(channels=1), modalities=("depth",), depth=data_set.depth), device="cpu"
    )


@pytest.fixture
def rgb(data_set):
    return read_rgb(data_set.locate(data_set.entries[3].rgb), range(13))


@pytest.fixture
def depth(data_set):
    return read_gray(data_set.locate(data_set.entries[3].depth), range(13))


FORMS = {
    "array": lambda frames: frames,
    "int64": lambda frames: frames.astype(np.int64),
    "strided": lambda frames: np.asfortranarray(frames),
    "tensor": torch.from_numpy,
    "channels second": lambda frames: torch.from_numpy(frames).permute(0, 3, 1, 2),
    "list of arrays": list,
    "list of tensors": lambda frames: list(torch.from_numpy(frames)),
    "tuple of channels first": lambda frames: tuple(torch.from_numpy(frames).permute(0, 3, 1, 2)),
    "images": lambda frames: [Image.fromarray(frame) for frame in frames],
    "images with alpha": lambda frames: [Image.fromarray(frame).convert("RGBA") for frame in frames],
}


@pytest.mark.parametrize("form", FORMS)
def test_frames_in_memory_are_read_like_their_file(recognizer, data_set, rgb, form):
    video = FORMS[form](rgb)
    expected = recognizer.logits(data_set.locate(data_set.entries[3].rgb))
    assert torch.equal(recognizer.logits(video), expected)
    assert torch.equal(recognizer.logits({"rgb": video}), expected)


def test_depth_in_memory_is_read_like_its_file(of_depth, data_set, depth):
    expected = of_depth.predict(data_set.locate(data_set.entries[3].depth))
    forms = [depth, depth[..., None], depth[:, None], depth.astype(np.int32), torch.from_numpy(depth), list(depth)]
    forms.append([Image.fromarray(frame) for frame in depth])
    assert all(of_depth.predict(form) == expected for form in forms)


def test_a_file_and_an_array_make_a_pair(make_trained_model, color_and_depth, data_set, rgb, depth):
    classes = {"verb": ("a", "b", "c"), "noun": ("d", "e", "f", "g")}
    trained = make_trained_model(color_and_depth(), modalities=("rgb", "depth"), classes=classes, depth=data_set.depth)
    both = Recognizer(trained, device="cpu")
    files = {m: data_set.locate(data_set.entries[3].source(m)) for m in ("rgb", "depth")}
    expected = both.predict_heads(files)
    assert both.predict_heads({"rgb": rgb, "depth": files["depth"]}) == expected
    assert both.predict_heads({"rgb": rgb, "depth": depth}) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        lambda rgb: rgb / 255,
        lambda rgb: torch.from_numpy(rgb).to(torch.bfloat16),
        lambda rgb: torch.from_numpy(rgb).to("meta"),
        lambda rgb: rgb.astype(np.int16) - 300,
        lambda rgb: rgb.astype(np.int32) + 300,
        lambda rgb: rgb > 3,
        lambda rgb: rgb[..., 0],
        lambda rgb: rgb[0],
        lambda rgb: rgb[None],
        lambda rgb: rgb[:0],
        lambda rgb: np.concatenate([rgb, rgb[..., :1]], 3),
        lambda rgb: [rgb[0], rgb[1, 1:]],
        lambda _: [],
        lambda rgb: rgb.astype(object),
    ],
)
def test_other_frames_are_refused(raises, recognizer, rgb, wrong):
    with raises(VideoError, field="rgb"):
        recognizer.predict(wrong(rgb))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("wrong", ["", {"rgb": ""}, b"bytes", ["a.mp4", "b.mp4"], None, 3, {"rgb": {"rgb": "a.mp4"}}])
def test_what_is_no_video_is_refused(raises, recognizer, wrong):
    with raises(VideoError, field="rgb"):
        recognizer.predict(wrong)


def test_a_single_frame_is_no_video(raises, recognizer, rgb):
    with raises(UnreadableVideo, "single"):
        recognizer.predict(rgb[:1])


def test_colors_are_no_depth(raises, of_depth, rgb, depth):
    with raises(VideoError, "depth", field="depth"):
        of_depth.predict(rgb)
    with raises(VideoError, field="depth"):
        of_depth.predict(depth / 1000)
    moves = load_manifest("moves_cross_subject")
    with raises(UnreadableVideo, "depth"):
        of_depth.predict(moves.locate(moves.entries[0].rgb))


def test_logits_and_features_are_those_of_the_network(recognizer, data_set):
    path = data_set.locate(data_set.entries[3].rgb)
    clip = recognizer.trained.preprocessing.normalize_all(recognizer.prepare(path))["rgb"]
    network = recognizer.trained.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(recognizer.logits(path), network(clip)[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(recognizer.features(path), network.features(clip)[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(recognizer.embed([path, path]), recognizer.features(path).expand(2, -1))


def test_embed_takes_several_videos(raises, recognizer, make_trained_model, brightness, data_set):
    for wrong in ([], "a.mp4", {"rgb": "a.mp4"}):
        with raises(VideoError, field="videos"):
            recognizer.embed(wrong)
    with raises(ModelError, "features"):
        Recognizer(make_trained_model(brightness()), device="cpu").features(data_set.locate(data_set.entries[0].rgb))


def test_a_loaded_network_is_in_evaluation_mode(tmp_path, make_trained_model, tiny_ctn):
    save_model(tmp_path, make_trained_model(tiny_ctn().train()))
    network = load_model(tmp_path).model
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.rand(2, 3, 8, 32, 32))
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
    assert not load_model(tmp_path, model=tiny_ctn().train()).model.training

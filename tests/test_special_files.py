"""Pipes, sockets and devices, also behind links, are refused at once wherever a file is expected."""

import os
import socket
from pathlib import Path

import pytest
from torch import nn

from kinema.data.manifest import load_manifest
from kinema.datasets.diving48 import read_vocabulary
from kinema.datasets.epic_kitchens import read_classes
from kinema.datasets.skeleton import read_lines
from kinema.errors import KinemaError, UnreadableVideo
from kinema.evaluation.predictions import load_predictions
from kinema.files import read_json
from kinema.inference.trained_model import load_model, save_model
from kinema.training.recipe import load_recipe
from kinema.training.runs import Run
from kinema.training.weights import load_weights
from kinema.video.read_options import ReadOptions
from kinema.video.scan import scan_contents
from kinema.video.source import count_frames, read_rgb

HERE = ReadOptions(isolation="none")


@pytest.fixture(autouse=True)
def no_hang(alarm):
    """End a test that waits for a pipe."""
    alarm(20)


@pytest.fixture(params=["pipe", "socket", "device"])
def special(request, tmp_path, monkeypatch):
    """Return a function that makes a pipe, a socket, or a link to an endless device of this name."""
    monkeypatch.chdir(tmp_path)  # the name of a socket is short

    def make(name):
        if request.param == "pipe":
            os.mkfifo(name)
        elif request.param == "socket":
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(name)
        else:
            os.symlink("/dev/zero", name)
        return Path(name)

    return make


@pytest.mark.parametrize("suffix", ["npz", "mat", "mp4", "avi", "png", "bin"])
def test_no_special_file_is_read_as_a_video(special, raises, suffix):
    path = special(f"a.{suffix}")
    for source in (str(path), f"file://{path.resolve()}"):
        with raises(UnreadableVideo, path=source):
            count_frames(source, HERE)
    with raises(UnreadableVideo):
        count_frames(f"zip://b.npz::{path}", HERE)


def test_no_special_file_is_an_image_of_a_folder(special, raises, fill_pictures):
    fill_pictures(Path(), "images")
    path = special("images/3.png")
    with raises(UnreadableVideo, path=path):
        count_frames("images", HERE)
        read_rgb("images", [3], HERE)


def test_special_files_among_others_are_not_opened(special):
    special("a.foo")
    special("b.mp4")
    assert [path.name for path in scan_contents(Path()).videos] == ["b.mp4"]


@pytest.mark.parametrize(
    "read",
    [
        load_manifest,
        read_vocabulary,
        lambda path: read_classes(path, "verb"),
        read_lines,
        load_predictions,
        load_recipe,
        lambda path: load_weights(nn.Linear(1, 1), path, classes={}),
        read_json,
    ],
)
def test_no_special_file_is_read_as_a_table_or_as_weights(special, read):
    for suffix in ("csv", "json", "toml", "safetensors", "pt", "py"):
        with pytest.raises((KinemaError, OSError)):
            read(special(f"a.{suffix}"))


def test_no_special_file_is_part_of_a_model_or_a_run(special, make_trained_model, tiny_ctn):
    save_model(Path("model"), make_trained_model(tiny_ctn()))
    weights = next(Path("model").glob("*.safetensors"))
    for name in (weights, Path("model/model.json")):
        name.unlink()
        special(str(name))
        with pytest.raises(KinemaError):
            load_model("model")
        with pytest.raises(KinemaError):
            load_weights(tiny_ctn(), "model", classes={})
    special("recipe.json")
    with pytest.raises(KinemaError):
        Run.open(Path())


def test_a_table_larger_than_the_limit_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="expected at most"):
        read_json(path)

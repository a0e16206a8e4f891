"""Predictions for many files report every file."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from kinema.data.csv_table import read_csv
from kinema.errors import VideoError
from kinema.inference.bulk import find_videos, predict_files
from kinema.inference.recognizer import Recognizer
from kinema.inference.trained_model import save_model
from kinema.models.registry import create_model


@pytest.fixture
def trained(tmp_path, make_trained_model, tiny_ctn):
    save_model(tmp_path / "model", make_trained_model(tiny_ctn()))
    return tmp_path / "model"


@pytest.fixture
def videos(tmp_path, data_set):
    """Two good files with a broken one between them."""
    folder = tmp_path / "my, videos"
    folder.mkdir()
    for place, name in ((0, "a 1.mp4"), (2, "c.mp4")):
        shutil.copy(data_set.locate(data_set.entries[place].rgb), folder / name)
    (folder / "b.mp4").write_text("no video")
    return [str(folder / name) for name in ("a 1.mp4", "b.mp4", "c.mp4")]


def run(trained, sources, **options):
    return predict_files(trained, sources, **{"top_k": 2, "output_format": "text", "device": "cpu", **options})


@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_good_files_are_predicted_and_broken_ones_are_named(trained, videos, capsys, form):
    assert run(trained, videos, output_format=form) == 1
    output = capsys.readouterr()
    assert all(name in output.out for name in ("a 1.mp4", "c.mp4"))
    assert "b.mp4" not in output.out
    first, last = output.err.splitlines()
    assert first.startswith("kinema: ")
    assert "b.mp4: not a readable video" in first
    assert last == "kinema: 1 of 3 videos could not be read"


def test_without_failures_none_are_reported(trained, videos, capsys):
    assert run(trained, [videos[0], videos[2]]) == 0
    assert capsys.readouterr().err == ""


@pytest.fixture
def expected(trained, videos):
    recognizer = Recognizer.load(trained, device="cpu")
    return {path: recognizer(path, top_k=2) for path in (videos[0], videos[2])}


def test_json_prints_one_object_per_line(trained, videos, capsys, expected):
    run(trained, videos, output_format="json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["video"] for line in lines] == list(expected)
    for line in lines:
        predicted = [(p["label"], p["score"]) for p in line["predictions"]["label"]]
        assert predicted == [(p.label, pytest.approx(p.score)) for p in expected[line["video"]]]


def test_csv_prints_one_line_per_class(trained, videos, capsys, expected):
    run(trained, videos, output_format="csv")
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    wanted = [(path, "label", str(n + 1), p.label) for path, ranked in expected.items() for n, p in enumerate(ranked)]
    assert [(line["video"], line["head"], line["rank"], line["label"]) for line in lines] == wanted
    scores = [p.score for ranked in expected.values() for p in ranked]
    assert [float(line["score"]) for line in lines] == pytest.approx(scores, abs=1e-6)


def test_text_prints_percentages(trained, videos, capsys, expected):
    run(trained, videos)
    lines = capsys.readouterr().out.splitlines()
    wanted = []
    for path, ranked in expected.items():
        wanted += [path, *(f"{p.score:9.2%}  {p.label}" for p in ranked)]
    assert lines == wanted


def test_several_heads_are_named(tmp_path, make_trained_model, tiny_ctn, videos, capsys):
    classes = {"verb": ("a", "b"), "noun": ("c", "d", "e")}
    save_model(tmp_path / "two", make_trained_model(tiny_ctn({"verb": 2, "noun": 3}), classes=classes))
    run(tmp_path / "two", videos[:1], top_k=1, output_format="csv")
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert [line["head"] for line in lines] == ["verb", "noun"]
    run(tmp_path / "two", videos[:1], top_k=1)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["verb", "noun"]


def test_a_folder_is_replaced_by_its_videos(tmp_path, videos):
    folder = tmp_path / "my, videos"
    (folder / "deeper").mkdir()
    shutil.copy(videos[0], folder / "deeper" / "d.AVI")
    (folder / "._c.mp4").write_bytes(b"what a Mac leaves beside a file")
    (folder / "notes.txt").write_text("")
    (folder / "folder.mp4").mkdir()
    assert list(find_videos([str(folder)])) == sorted([*videos, str(folder / "deeper" / "d.AVI")])
    assert list(find_videos(["s3://bucket/1.mp4", "gone.mp4"])) == ["s3://bucket/1.mp4", "gone.mp4"]


def test_files_left_out_of_a_folder_are_named(videos, capsys):
    folder = Path(videos[0]).parent
    for name in ("d.ts", "e.MTS", "f.ogv"):
        (folder / name).write_bytes(b"G@\0\0" + bytes(range(256)) * 20)
    for name in ("gone.mp4", "gone"):
        (folder / name).symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "notes.md").write_text("notes")
    os.mkfifo(folder / "pipe")
    found = [Path(path).name for path in find_videos([str(folder)])]
    assert found == ["a 1.mp4", "b.mp4", "c.mp4", "d.ts", "e.MTS", "f.ogv", "gone.mp4"]
    line = capsys.readouterr().err
    assert all(name in line for name in ("3 files", "gone", "loop", "pipe"))


def test_names_that_look_like_formulas_are_read_back_from_csv(tmp_path, make_trained_model, tiny_ctn, videos, capsys):
    classes = ("=1+1", "-1.5", "a\nb\x1b[1m")
    save_model(tmp_path / "odd", make_trained_model(tiny_ctn(), classes={"label": classes}))
    run(tmp_path / "odd", videos[:1], top_k=3, output_format="csv")
    text = capsys.readouterr().out
    assert "'=1+1" in text
    assert {row["label"] for _, row in read_csv(tmp_path, text.encode())} == {*classes}
    run(tmp_path / "odd", videos[:1], top_k=3)
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))


def test_a_folder_without_videos_is_refused(raises, tmp_path):
    with raises(VideoError, path=tmp_path):
        list(find_videos([str(tmp_path)]))


def test_no_input_is_refused(raises, trained):
    with raises(VideoError):
        run(trained, [])


@pytest.fixture
def both(tmp_path, make_trained_model, tiny_ctn, data_set):
    save_model(
        tmp_path / "depth",
        make_trained_model(tiny_ctn(channels=1), modalities=("depth",), depth=data_set.depth),
    )
    return tmp_path / "depth"


def test_depth_files_are_paired_with_videos(raises, both, data_set, monkeypatch):
    rgb, depth = ([data_set.locate(entry.source(m)) for entry in data_set.entries[:2]] for m in ("rgb", "depth"))
    predicted = []
    monkeypatch.setattr(Recognizer, "predict", lambda _, video, **__: predicted.append(video) or {})
    assert run(both, rgb, depth=depth, output_format="json") == 0
    assert predicted == [{"rgb": one, "depth": other} for one, other in zip(rgb, depth, strict=True)]
    with raises(VideoError, 2, 1, field="depth"):
        run(both, rgb, depth=depth[:1])


def test_a_file_of_an_unused_modality_is_refused(raises, both, data_set):
    entry = data_set.entries[0]
    with raises(VideoError, field="rgb"):
        run(both, [data_set.locate(entry.rgb)], depth=[data_set.locate(entry.depth)])


@pytest.mark.parametrize("given", ["rgb", "depth"])
def test_a_missing_stream_is_reported_once(tmp_path, make_trained_model, data_set, given, capsys):
    torch.manual_seed(0)
    network = create_model("mfst_tiny_rgbd", num_classes=3, frames=8, size=32)
    save_model(tmp_path / "two", make_trained_model(network, modalities=("rgb", "depth"), depth=data_set.depth))
    files = [data_set.locate(entry.source(given)) for entry in data_set.entries[:2]]
    sources, depth = (files, ()) if given == "rgb" else ([], files)
    assert run(tmp_path / "two", sources, depth=depth, output_format="json") == 0
    output = capsys.readouterr()
    missing = "depth" if given == "rgb" else "rgb"
    assert output.err.count(f"no {missing} given") == output.err.count(f"{given} alone") == 1
    assert [json.loads(line)["video"] for line in output.out.splitlines()] == files

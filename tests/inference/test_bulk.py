"""Predictions for many files report every file."""

import csv
import io
import itertools
import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinema.cli.messages import messages_on_stderr
from kinema.data.csv_table import read_csv
from kinema.errors import VideoError
from kinema.inference.bulk import find_videos, predict_files
from kinema.inference.recognizer import Recognizer
from kinema.inference.trained_model import save_model
from kinema.models.registry import create_model
from kinema.transforms.sampling import Sampling


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


@pytest.mark.parametrize("form", ["text", "json", "jsonl", "csv"])
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


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json_is_one_array_and_jsonl_one_object_per_line(trained, videos, capsys, expected, form):
    run(trained, videos, output_format=form)
    output = capsys.readouterr().out
    lines = json.loads(output) if form == "json" else [json.loads(line) for line in output.splitlines()]
    assert all(line["missing"] == [] for line in lines)
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
    monkeypatch.setattr(Recognizer, "predict_heads", lambda _, video, **__: predicted.append(video) or {})
    assert run(both, rgb, depth=depth, output_format="json") == 0
    assert predicted == [{"rgb": one, "depth": other} for one, other in zip(rgb, depth, strict=True)]
    with raises(VideoError, 2, 1, field="depth"):
        run(both, rgb, depth=depth[:1])


def test_a_file_of_an_unused_modality_is_refused(raises, both, data_set):
    entry = data_set.entries[0]
    with raises(VideoError, field="rgb"):
        run(both, [data_set.locate(entry.rgb)], depth=[data_set.locate(entry.depth)])


@pytest.mark.parametrize("given", ["rgb", "depth"])
def test_a_missing_stream_is_reported_once_and_is_part_of_the_json(
    tmp_path, make_trained_model, data_set, given, capsys
):
    torch.manual_seed(0)
    network = create_model("mfst_tiny_rgbd", num_classes=3, frames=8, size=32)
    save_model(tmp_path / "two", make_trained_model(network, modalities=("rgb", "depth"), depth=data_set.depth))
    files = [data_set.locate(entry.source(given)) for entry in data_set.entries[:2]]
    sources, depth = (files, ()) if given == "rgb" else ([], files)
    with messages_on_stderr(logging.INFO):
        assert run(tmp_path / "two", sources, depth=depth, output_format="json") == 0
    output = capsys.readouterr()
    missing = "depth" if given == "rgb" else "rgb"
    assert output.err.count(f"no {missing} given") == output.err.count(f"{given} alone") == 1
    assert [(line["video"], line["missing"]) for line in json.loads(output.out)] == [(f, [missing]) for f in files]


# -- long videos ------------------------------------------------------------------------------------------------------


@pytest.fixture
def long_video(tmp_path, write_video, stamp):
    return write_video(tmp_path / "long.mp4", [stamp(n) for n in range(40)])


def trained_on(tmp_path, make_trained_model, tiny_ctn, sampling=None, **facts):
    trained = make_trained_model(tiny_ctn())
    save_model(tmp_path / "m", replace(trained, provenance=facts, sampling=sampling or trained.sampling))
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("facts", "sampling", "is_long"),
    [
        ({"longest_s": 0.3}, None, True),
        ({"longest_s": 30}, None, False),
        ({"longest_frames": 9}, None, True),
        ({}, None, False),
        ({"longest_s": "1", "longest_frames": None}, None, False),
        ({"longest_s": 30}, Sampling(frames=8, rule="dense", interval_s=0.04), True),
        ({}, Sampling(frames=8, rule="dense", interval=1), True),
    ],
)
def test_a_much_longer_video_than_those_of_the_training_is_named(
    tmp_path, make_trained_model, tiny_ctn, long_video, capsys, facts, sampling, is_long
):
    model = trained_on(tmp_path, make_trained_model, tiny_ctn, sampling, **facts)
    with messages_on_stderr(logging.INFO):
        assert run(model, [long_video]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == is_long
    assert all("long.mp4" in line for line in lines)
    assert all("--timeline" in line for line in lines)


def test_a_timeline_has_the_predictions_of_each_part(trained, long_video, capsys):
    assert run(trained, [long_video], timeline_s=0.5, output_format="json") == 0
    parts = json.loads(capsys.readouterr().out)
    edges = [(part["start_s"], part["stop_s"]) for part in parts]
    assert edges[0][0] == 0
    assert all(first[1] == second[0] for first, second in itertools.pairwise(edges))
    recognizer = Recognizer.load(trained, device="cpu")
    assert edges[-1][1] == pytest.approx(40 / 25)
    assert len(edges) == 3
    for part, between in zip(parts, edges, strict=True):
        expected = recognizer.predict_heads(long_video, top_k=2, between=between)["label"]
        assert [p["label"] for p in part["predictions"]["label"]] == [p.label for p in expected]
    run(trained, [long_video], timeline_s=0.5, output_format="csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert [(row["start_s"], row["rank"]) for row in rows[:3]] == [("0.000", "1"), ("0.000", "2"), ("0.500", "1")]


def test_a_timeline_of_impossible_parts_is_refused(trained, long_video, fill_pictures, tmp_path, raises, capsys):
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with raises(VideoError, field="--timeline"):
            run(trained, [long_video], timeline_s=value)
    assert run(trained, [long_video], timeline_s=1e-9) == 1
    fill_pictures(tmp_path, "frames", count=9)
    assert run(trained, [str(tmp_path / "frames")], timeline_s=1.0) == 1
    assert "no time stamps" in capsys.readouterr().err
    assert run(trained, [long_video], timeline_s=1e9) == 0


def test_json_is_complete_when_all_videos_fail(trained, capsys):
    assert run(trained, ["gone.mp4"], output_format="json") == 1
    assert json.loads(capsys.readouterr().out) == []

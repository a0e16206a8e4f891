"""Tests of the arguments that stand for videos: folders of images, quoted patterns, and lists on standard input."""

import io
import os
import sys

import pytest

from kinema.datasets.folder import FolderOptions, prepare
from kinema.errors import ManifestError, VideoError
from kinema.inference.find_videos import find_videos


@pytest.fixture
def root(fill, fill_pictures, fill_arrays, tmp_path, monkeypatch):
    fill(tmp_path, "clips/a.mp4", "clips/deep/b.mp4", "clips/[1].mp4")
    fill_pictures(tmp_path, "frames/one", "frames/two")
    fill_arrays(tmp_path, "arrays/d.npz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("frames/one", ["frames/one"]),
        ("frames", ["frames/one", "frames/two"]),
        ("frames/*", ["frames/one", "frames/two"]),
        ("arrays", ["arrays/d.npz"]),
        ("clips/*.mp4", ["clips/[1].mp4", "clips/a.mp4"]),
        ("clips/**/[ab].mp4", ["clips/a.mp4", "clips/deep/b.mp4"]),
        ("clips/?.mp4#depth", ["clips/a.mp4#depth"]),
        ("clips/[1].mp4", ["clips/[1].mp4"]),
        ("cl*", ["clips/[1].mp4", "clips/a.mp4", "clips/deep/b.mp4"]),
        ("gone.mp4", ["gone.mp4"]),
        ("s3://bucket/*.mp4", ["s3://bucket/*.mp4"]),
    ],
)
@pytest.mark.usefixtures("root")
def test_folders_and_patterns_are_replaced_by_videos(source, expected):
    assert list(find_videos([source])) == expected


@pytest.mark.parametrize("source", ["clips/*.avi", "gone/[ab].mp4", "empty"])
def test_a_pattern_or_folder_without_videos_is_refused(root, raises, source):
    (root / "empty").mkdir()
    with raises(VideoError, path=source):
        list(find_videos([source]))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
@pytest.mark.usefixtures("root")
def test_a_list_is_read_from_standard_input(monkeypatch, end):
    names = ["clips/a.mp4", " spaced.mp4", "frames/one", "http://host/x.mp4", "gone[1].mp4"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(end.join([*names, ""]), newline=""))
    assert list(find_videos(["-", "last.mp4"])) == [*names, "last.mp4"]


def test_a_name_in_another_encoding_is_kept(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"f\xe9.mp4\n"), encoding="utf-8"))
    assert list(find_videos(["-"])) == ["f\udce9.mp4"]


def test_a_folder_that_cannot_be_listed_is_kept_to_be_reported(tmp_path, monkeypatch, raises):
    (tmp_path / "videos" / "walk").mkdir(parents=True)
    (tmp_path / "videos" / "secret").mkdir()
    (tmp_path / "videos" / "walk" / "a.mp4").write_bytes(b"x")
    scandir = os.scandir

    def refuse(folder):  # the tests may run as root, who may list every folder
        if str(folder).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    folder = tmp_path / "videos"
    assert list(find_videos([str(folder)])) == [str(folder / "secret"), str(folder / "walk" / "a.mp4")]
    with raises(ManifestError, "listed", path=folder / "secret"):
        prepare(FolderOptions(root=folder, out=tmp_path / "m.csv"))

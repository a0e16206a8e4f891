"""Tests of a cache that cannot be written: the error names the option that moves it."""

import logging
from pathlib import Path

import pytest

from kinema.curation.inspections import journal_path
from kinema.data.copies import read_signatures
from kinema.errors import CacheError, UnreadableVideo
from kinema.video.read_options import ReadOptions
from kinema.video.remote_cache import default_cache, local_path, make_cache


@pytest.fixture(params=["file", "folder of a file", "no home"])
def unwritable(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    path = {"file": "file", "folder of a file": "file/a/b"}.get(request.param)
    if path is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / path))
        return

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)


@pytest.mark.usefixtures("unwritable")
def test_a_cache_that_cannot_be_written_is_named_with_the_option_that_moves_it(tmp_path: Path, raises) -> None:
    with raises(CacheError, "XDG_CACHE_HOME"):
        journal_path(tmp_path / "m.csv", None)
    with raises(UnreadableVideo, "XDG_CACHE_HOME"):
        local_path("memory://a.mp4", ReadOptions())
    assert journal_path(tmp_path / "m.csv", tmp_path / "cache").parent == tmp_path / "cache"


@pytest.mark.usefixtures("unwritable")
def test_near_duplicates_are_found_without_a_cache(monkeypatch, short: str, tmp_path: Path, caplog) -> None:
    monkeypatch.setattr("kinema.data.copies.SLOW_FRAMES", 1)
    with caplog.at_level(logging.WARNING, logger="kinema"):
        assert read_signatures(tmp_path / "m.csv", {short: 9}, "rgb", ReadOptions())[short]
    assert "XDG_CACHE_HOME" in caplog.text


def test_a_chosen_folder_is_named_with_its_option(tmp_path: Path, raises) -> None:
    (tmp_path / "file").write_text("")
    with raises(CacheError, "--cache", path=tmp_path / "file" / "check", field="--cache"):
        make_cache(tmp_path / "file", "check", "--cache")
    assert make_cache(tmp_path / "new", "check", "--cache").is_dir()
    assert default_cache().name == "kinema"

"""Tests of the files and lines of a check: a self-contained page, a JSON, and a list of bad files."""

import html
import io
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from kinema.curation.check import check
from kinema.curation.findings import Finding
from kinema.data.manifest import Entry, write_manifest
from kinema.reports.check_lines import check_lines, check_progress
from kinema.reports.check_page import write_check
from kinema.reports.figures import balance_figure, histograms_figure, strips
from kinema.video.read_options import ReadOptions


def written(checked, folder, name):
    """Write the files of a check and return the path of one of them."""
    write_check(checked, folder, ReadOptions())
    return folder / name


NASTY = "<script>alert('x')</script> & \"q\".mp4"


@pytest.fixture
def checked(tmp_path, write_video, depth_facts):
    """Return a check of eight files: one missing, one a copy, and names that look like HTML."""
    for number in range(5):
        rng = np.random.default_rng(number)
        pictures = rng.integers(0, 256, (20, 6, 8, 1), dtype=np.uint8).repeat(8, 1).repeat(8, 2).repeat(3, 3)
        write_video(tmp_path / f"{number}.mp4", pictures)
        depth = (500 + 10 * pictures[..., 0].astype(np.uint16)).astype(np.uint16)
        write_video(tmp_path / f"{number}.mkv", depth, codec="ffv1", pixel_format="gray16le", options={})
    (tmp_path / NASTY.replace("/", "-")).write_text("no video")
    shutil.copy(tmp_path / "0.mp4", tmp_path / "copy.mp4")
    names = ["0.mp4", "1.mp4", "2.mp4", NASTY.replace("/", "-"), "copy.mp4", "gone.mp4"]
    entries = [
        Entry(
            rgb=name,
            depth="1.mkv" if name == "1.mp4" else "",
            split="train" if number < 4 else "test",
            labels={"label": "<i>" if number % 2 else "b"},
        )
        for number, name in enumerate(names)
    ]
    manifest = write_manifest(
        tmp_path / "m.csv",
        entries=entries,
        classes={"label": ("b", "<i>")},
        dataset="<b>",
        version="1",
        depth=depth_facts,
    )
    return check(manifest, journal=tmp_path / "journal.jsonl", read_options=ReadOptions())


def test_the_page_is_self_contained_and_escapes_every_name(checked, tmp_path):
    page = written(checked, tmp_path / "out", "check.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|//|<script|<link|url\(", re.sub(r'src="data:[^"]*"', "", page))
    assert NASTY.replace("/", "-") in html.unescape(page)
    assert "<i>" not in page
    assert "Check of m.csv" in page
    for heading in ("Faults", "Near-duplicates across splits", "Classes", "RGB files", "Depth files", "Notes"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("data:image/jpeg") == 1  # the one pair of copies
    assert page.count("data:image/svg+xml") == 3
    assert "<td>missing</td><td>7</td><td>gone.mp4</td><td>" in page


def test_the_list_has_each_bad_file_with_its_reason_after_a_tab(checked, tmp_path):
    lines = written(checked, tmp_path / "out", "bad_files.txt").read_text(encoding="utf-8").splitlines()
    files = [line.split("\t")[0] for line in lines]
    assert files == ["gone.mp4", NASTY.replace("/", "-"), "0.mp4"]  # of the copies, the one in train
    assert lines[0].startswith("gone.mp4\tmissing: ")


def test_a_reason_of_several_lines_is_joined(checked, tmp_path):
    long = Finding(kind="broken", line=2, modality="rgb", file="0.mp4", sentence="one\n\ttwo")
    listed = written(replace(checked, findings=(long,)), tmp_path / "out", "bad_files.txt")
    assert listed.read_text(encoding="utf-8") == "0.mp4\tbroken: one two\n"


def test_the_json_has_everything_but_signatures(checked, tmp_path):
    stored = json.loads(written(checked, tmp_path / "out", "check.json").read_text(encoding="utf-8"))
    assert stored["samples"] == 6
    assert stored["counts"] == {"missing": 1, "unreadable": 1, "near-duplicate": 1}
    sentence = stored["findings"][0].pop("sentence")
    assert sentence
    assert stored["findings"][0] == {
        "severity": "fault",
        "kind": "missing",
        "line": 7,
        "modality": "rgb",
        "file": "gone.mp4",
    }
    assert stored["copies"][0]["pair"]["motion"] > 0.99
    assert {file["file"]: file["frames"] for file in stored["files"]}["1.mkv"] == 20
    assert all("signature" not in file for file in stored["files"])


def test_a_deleted_copy_is_shown_by_its_signature(checked, tmp_path):
    (tmp_path / "copy.mp4").unlink()
    assert "data:image/jpeg" in written(checked, tmp_path / "out", "check.html").read_text(encoding="utf-8")


def test_each_fault_is_printed_in_one_line_with_line_and_file(checked):
    lines = list(check_lines(checked))
    assert lines[0].endswith("m.csv: 6 samples in 7 files with 100 frames")
    assert any(line.startswith("2 files are unreadable or blank") for line in lines)
    assert "faults: 1 missing, 1 unreadable, 1 near-duplicate" in lines
    assert sum(line.startswith("  m.csv, line 7: missing: gone.mp4: ") for line in lines) == 1
    assert sum("near-duplicate: 0.mp4: " in line and "copy.mp4 in test (line 6)" in line for line in lines) == 1


def test_progress_is_shown_in_a_terminal_only():
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        with check_progress(console) as progress:
            progress(3, 12, 2)
            progress(12, 12, 2)
        shown = console.file.getvalue()
        assert ("12/12" in shown and "2 unchanged" in shown) is terminal
        assert bool(shown) is terminal


def test_notes_of_a_kind_are_printed_with_three_examples(tmp_path, write_video):
    for number in range(5):
        rng = np.random.default_rng(number)
        write_video(tmp_path / f"{number}.mp4", rng.integers(0, 256, (5, 48, 64, 3), dtype=np.uint8))
    entries = [Entry(rgb=f"{n}.mp4", split="train", labels={"label": "ab"[n % 2]}) for n in range(5)]
    manifest = write_manifest(
        tmp_path / "m.csv", entries=entries, classes={"label": ("a", "b")}, dataset="c", version="1", depth=None
    )
    lines = list(check_lines(check(manifest, journal=tmp_path / "journal.jsonl", read_options=ReadOptions())))
    assert lines[1:3] == ["no faults found", "note: shorter than a clip (5)"]
    assert lines[3].startswith("  m.csv, line 2: shorter than a clip: 0.mp4: has 5 frames")
    assert lines[6:] == ["  and 2 more", "rgb files per frame rate: 25/s: 5"]


def test_figures_of_few_and_many_classes_and_of_equal_numbers():
    few = balance_figure({"train": [3, 1], "test": [1, 0]}, ["walk", "run"])
    many = balance_figure({"train": list(range(100))}, [f"class {n}" for n in range(100)])
    for figure in (few, many, histograms_figure({"frames": [5.0, 5.0], "rate": [1.0, 25.0, 30.0]})):
        assert figure.startswith(b"<?xml")
    assert b"walk" in few  # as a comment beside its outline
    assert b"class 7" not in many


def test_strips_are_stacked_at_equal_height():
    wide, narrow = np.zeros((4, 48, 96, 3), np.uint8), np.full((3, 200, 100, 3), 255, np.uint8)
    with Image.open(io.BytesIO(strips([wide, narrow]))) as picture:
        assert picture.size == (4 * 192, 2 * 96 + 4)

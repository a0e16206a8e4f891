"""What a check writes down: a page that needs nothing else, everything as JSON, and a list of files to leave out."""

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
from kinema.reports.check_lines import CheckProgress, check_lines
from kinema.reports.check_page import write_check
from kinema.reports.figures import balance_figure, histograms_figure, strips
from kinema.video.read_options import ReadOptions

NASTY = "<script>alert('x')</script> & \"q\".mp4"


@pytest.fixture
def checked(tmp_path, write_video, depth_facts):
    """Eight files: one gone, one a copy of another, names that would be HTML."""
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
    return check(manifest, memory=tmp_path / "memory.jsonl", read_options=ReadOptions())


def test_the_page_needs_nothing_from_elsewhere_and_escapes_every_name(checked, tmp_path):
    page = write_check(checked, tmp_path / "out", ReadOptions()).page.read_text(encoding="utf-8")
    assert not re.search(r"https?://|//|<script|<link|url\(", re.sub(r'src="data:[^"]*"', "", page))
    assert NASTY.replace("/", "-") in html.unescape(page)
    assert "<i>" not in page
    assert "Check of m.csv" in page
    for heading in ("Faults", "Near-duplicates across splits", "Classes", "Files of RGB", "Files of depth", "Notes"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("data:image/jpeg") == 1  # the one pair of copies
    assert page.count("data:image/svg+xml") == 3
    assert "<td>missing</td><td>7</td><td>gone.mp4</td><td>no such file</td>" in page


def test_the_list_names_each_bad_file_with_the_reason_after_a_tab(checked, tmp_path):
    lines = write_check(checked, tmp_path / "out", ReadOptions()).bad_files.read_text(encoding="utf-8").splitlines()
    files = [line.split("\t")[0] for line in lines]
    assert files == ["gone.mp4", NASTY.replace("/", "-"), "0.mp4"]  # of the copies, the one in train
    assert lines[0] == "gone.mp4\tmissing: no such file"


def test_a_reason_of_several_lines_is_one_line_of_the_list(checked, tmp_path):
    long = Finding(kind="broken", line=2, modality="rgb", file="0.mp4", sentence="one\n\ttwo")
    listed = write_check(replace(checked, findings=(long,)), tmp_path / "out", ReadOptions()).bad_files
    assert listed.read_text(encoding="utf-8") == "0.mp4\tbroken: one two\n"


def test_the_json_holds_everything_but_signatures(checked, tmp_path):
    found = json.loads(write_check(checked, tmp_path / "out", ReadOptions()).findings.read_text(encoding="utf-8"))
    assert found["samples"] == 6
    assert found["counts"] == {"missing": 1, "unreadable": 1, "near-duplicate": 1}
    assert found["findings"][0] == {
        "severity": "fault",
        "kind": "missing",
        "line": 7,
        "modality": "rgb",
        "file": "gone.mp4",
        "sentence": "no such file",
    }
    assert found["copies"][0]["pair"]["motion"] > 0.99
    assert {file["file"]: file["frames"] for file in found["files"]}["1.mkv"] == 20
    assert all("signature" not in file for file in found["files"])


def test_a_copy_that_has_gone_meanwhile_is_shown_by_its_signature(checked, tmp_path):
    (tmp_path / "copy.mp4").unlink()
    assert "data:image/jpeg" in write_check(checked, tmp_path / "out", ReadOptions()).page.read_text(encoding="utf-8")


def test_each_fault_is_printed_in_one_line_with_line_and_file(checked):
    lines = list(check_lines(checked))
    assert lines[0].endswith("m.csv: 6 samples in 7 files with 100 frames")
    assert "2 files cannot be read or show nothing, and were not compared with the others" in lines
    assert "faults: 1 missing, 1 unreadable, 1 near-duplicate" in lines
    assert "  m.csv, line 7: missing: gone.mp4: no such file" in lines
    assert sum("near-duplicate: 0.mp4: in train copies copy.mp4 in test (line 6)" in line for line in lines) == 1


def test_progress_is_shown_in_a_terminal_and_nowhere_else():
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        with CheckProgress(console) as progress:
            progress.show(3, 12, 2)
            progress.show(12, 12, 2)
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
    lines = list(check_lines(check(manifest, memory=tmp_path / "memory.jsonl", read_options=ReadOptions())))
    assert lines[1:3] == ["nothing is wrong", "note: shorter than a clip (5)"]
    assert lines[3] == "  m.csv, line 2: shorter than a clip: 0.mp4: has 5 frames, fewer than the 16 of a clip"
    assert lines[6:] == ["  and 2 more"]


def test_figures_of_few_and_of_many_classes_and_of_equal_numbers():
    few = balance_figure({"train": [3, 1], "test": [1, 0]}, ["walk", "run"])
    many = balance_figure({"train": list(range(100))}, [f"class {n}" for n in range(100)])
    for figure in (few, many, histograms_figure({"frames": [5.0, 5.0], "rate": [1.0, 25.0, 30.0]})):
        assert figure.startswith(b"<?xml")
    assert b"walk" in few  # as a comment beside its outline
    assert b"class 7" not in many


def test_strips_stand_one_above_the_other_at_one_height():
    wide, narrow = np.zeros((4, 48, 96, 3), np.uint8), np.full((3, 200, 100, 3), 255, np.uint8)
    with Image.open(io.BytesIO(strips([wide, narrow]))) as picture:
        assert picture.size == (4 * 192, 2 * 96 + 4)

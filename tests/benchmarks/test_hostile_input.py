"""Mutated files and bad input: campaigns of benchmarks/, in part, and what they count as a failure."""

import importlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinema.errors import UnreadableVideo

ROOT = Path(__file__).parents[2]
FILES = {"a": bytes(range(256)) * 8}


@pytest.fixture(scope="module")
def scripts():
    """Return a function that imports a script of benchmarks/."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.mark.long
def test_mutated_files_give_frames_or_an_error_in_one_line(scripts, tmp_path: Path) -> None:
    records = list(scripts("hostile_files").run_campaign(tmp_path, seed=1, numbers=range(300)))
    assert [record for record in records if record["outcome"] == "failed"] == []
    assert {record["outcome"] for record in records} >= {"read", "refused"}


@pytest.mark.long
def test_every_seed_is_read_before_it_is_mutated(scripts, tmp_path: Path) -> None:
    """But structs, cells and matrices of MATLAB, its HDF5 files, and floating-point images: they are refused."""
    script = scripts("hostile_files")
    refused = []
    for number, seed in enumerate(scripts("seed_files").write_seeds(tmp_path)):
        url = seed.write(tmp_path / f"{number}{seed.suffix}", seed.files)
        result = script.read_file(url, script.ReadOptions(limits=script.LIMITS, cache=tmp_path / "cache"))
        assert result.outcome in ("read", "refused"), (seed.title, result.detail)
        if result.outcome == "refused":
            refused.append(seed.title)
    unread = ["mat v4 matrix", "mat v5 cells", "mat v5 struct", "mat v7.3 header", "mov exr"]
    assert sorted(refused) == unread


@pytest.mark.long
def test_an_interrupted_campaign_continues(scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = scripts("hostile_files")
    first = list(script.run_campaign(tmp_path, seed=2, numbers=range(3)))
    monkeypatch.setattr(script, "write_seeds", lambda _: pytest.fail("a file was read twice"))
    assert list(script.run_campaign(tmp_path, seed=2, numbers=range(3))) == first


@pytest.mark.long
def test_bad_input_ends_with_one_line_and_exit_code_2(scripts, tmp_path: Path) -> None:
    script = scripts("hand_made")
    cases = script.load_cases()
    assert len(cases) >= 200
    failed = [
        (case.title, result.detail) for case, result in script.run_cases(tmp_path, cases) if result.outcome == "failed"
    ]
    assert failed == []


def crash(_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(_: object) -> None:
    time.sleep(600)


@pytest.mark.long
def test_a_crash_and_a_hang_are_reported(scripts) -> None:
    worker = scripts("hostile_files").Worker
    assert worker(crash).ask(None, 60) == (None, "SIGSEGV")
    assert worker(hang).ask(None, 1) == (None, "no answer in 1 s")


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (ValueError("bad"), "ValueError"),
        (UnreadableVideo("x.mp4: bad\nvery", path="x.mp4"), "one line"),
        (UnreadableVideo("bad"), "no path"),
    ],
)
def test_another_exception_and_a_bad_message_are_failures(
    error: Exception, problem: str, scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = scripts("hostile_files")
    assert script.read_file("nowhere.mp4", script.ReadOptions()).outcome == "refused"

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(script, "open_source", fail)
    result = script.read_file("x.mp4", script.ReadOptions())
    assert result.outcome == "failed"
    assert problem in result.detail


def test_memory_that_runs_out_is_a_failure_though_it_is_reported(scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    script = scripts("hostile_files")

    def fail(path: str, *_: object) -> None:
        raise UnreadableVideo(f"{path}: bad", path=path) from MemoryError()

    monkeypatch.setattr(script, "open_source", fail)
    assert script.read_file("x.mp4", script.ReadOptions()).outcome == "failed"


def test_a_seed_gives_the_same_mutation_and_others_give_others(scripts) -> None:
    mutate = scripts("mutations").mutate
    contents = [mutate(FILES, np.random.default_rng([0, n]))[1]["a"] for n in range(50)]
    assert contents == [mutate(FILES, np.random.default_rng([0, n]))[1]["a"] for n in range(50)]
    assert len(set(contents)) > 45


def test_every_mutation_changes_a_file_and_bears_an_empty_one(scripts) -> None:
    for name, mutation in scripts("mutations").MUTATIONS.items():
        changed = {mutation(FILES["a"], np.random.default_rng(n)) for n in range(20)} - {FILES["a"]}
        assert len(changed) > 10, name
        mutation(b"", np.random.default_rng(0))


def test_mutations_inside_an_archive_and_an_image_pass_their_checksums(scripts, tmp_path: Path) -> None:
    mutations = scripts("mutations")
    image, archive = tmp_path / "a.png", tmp_path / "a.npz"
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(image)
    np.savez(archive, rgb=np.zeros((2, 4, 6, 3), np.uint8))

    def append(content: bytes, _: object) -> bytes:
        return content + b"\0"

    image.write_bytes(mutations.inside_png(image.read_bytes(), append, np.random.default_rng(0)))
    archive.write_bytes(mutations.inside_zip(archive.read_bytes(), append, np.random.default_rng(0)))
    with Image.open(image) as opened:
        assert opened.size == (6, 4)
    with np.load(archive) as arrays:
        assert arrays["rgb"].shape == (2, 4, 6, 3)


def test_cases_have_distinct_titles(scripts) -> None:
    cases = scripts("hand_made").load_cases()
    assert len({(case.group, case.args, case.content) for case in cases}) == len(cases)

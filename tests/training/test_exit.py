"""A process with worker processes ends soon after any fault, with the right exit code."""

import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kinema.data.manifest import load_manifest, write_manifest

SCRIPT = Path(__file__).parent / "processes" / "failing.py"
STORED = Path(__file__).parents[1] / "stored" / "ctn_artefact"
LIMIT_S = 5.0
"""Seconds from the fault to the end of the process; more on a busy machine."""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the script relies on fork")
@pytest.mark.parametrize(
    ("command", "fault", "code"),
    [
        ("train", "bug", 1),
        pytest.param("train", "stopped", 1, marks=pytest.mark.long),
        pytest.param("train", "killed", 1, marks=pytest.mark.long),
        pytest.param("train", "worker", 1, marks=pytest.mark.long),
        pytest.param("train", "deleted", 2, marks=pytest.mark.long),
        pytest.param("evaluate", "bug", 1, marks=pytest.mark.long),
        pytest.param("evaluate", "stopped", 1, marks=pytest.mark.long),
        pytest.param("evaluate", "worker", 1, marks=pytest.mark.long),
    ],
)
def test_a_fault_ends_the_process_although_workers_are_busy(command, fault, code, tmp_path):
    run, few = tmp_path / "run", tmp_path / "few.csv"
    built_in = load_manifest("moves_cross_subject")
    entries = [
        replace(entry, rgb=built_in.locate(entry.rgb), depth="", labels={"label": label})
        for entry, label in zip(built_in.entries, ("dim", "grey", "bright") * 8, strict=False)
    ]
    facts = {"classes": {"label": ("dim", "grey", "bright")}, "dataset": "few", "version": "1", "depth": None}
    write_manifest(few, entries=[replace(entry, split="test") for entry in entries], **facts)
    args = {
        "train": ["train", "moves_ctn_tiny", "--run.out", run, "--data.workers", "2", "--data.batch-size", "4"],
        "evaluate": ["evaluate", STORED, "--manifest", few, "--workers", "2", "--batch-size", "4"],
    }[command]
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), fault, str(run), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            out, stderr = process.communicate(timeout=60)
            ended = time.time()
        finally:
            process.kill()
    assert process.returncode == code, stderr
    assert ended - float(out.split()[0]) < LIMIT_S + os.getloadavg()[0] / 2, stderr

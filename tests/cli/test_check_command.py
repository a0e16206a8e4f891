"""Tests of the command `kinema check`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kinema.cli import main
from kinema.data.manifest import Entry, write_manifest


@pytest.fixture
def manifest(tmp_path, write_video):
    """Write a manifest of four different videos whose names are special in shells and URLs."""
    entries = []
    for number, name in enumerate(["a @ (1)! '.mp4", "größer.mp4", "100% #7.mp4", "<b>&.mp4"]):
        rng = np.random.default_rng(number)
        pictures = rng.integers(0, 256, (18, 6, 8, 1), dtype=np.uint8).repeat(8, 1).repeat(8, 2).repeat(3, 3)
        write_video(tmp_path / name, pictures)
        entries.append(
            Entry(rgb=name, frames=18, split="train" if number < 2 else "test", labels={"label": "ab"[number % 2]})
        )
    return write_manifest(
        tmp_path / "mine.csv", entries=entries, classes={"label": ("a", "b")}, dataset="own", version="1", depth=None
    )


@pytest.fixture
def args(manifest, tmp_path):
    return [
        "check",
        str(manifest.path),
        "--out",
        str(tmp_path / "out"),
        "--cache",
        str(tmp_path / "cache"),
        "--read-options.isolation",
        "none",
    ]


def assert_exit(code, args):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == code


def test_a_clean_dataset_exits_with_0(args, capsys, tmp_path):
    main(args)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'mine.csv'}: 4 samples in 4 files with 72 frames"
    assert lines[1] == "no faults found"
    assert (tmp_path / "out" / "bad_files.txt").read_text() == ""
    main(args)
    assert "(4 files unchanged" in capsys.readouterr().out


def test_faults_are_printed_and_listed_and_exit_with_1(args, capsys, tmp_path):
    (tmp_path / "größer.mp4").write_bytes(b"")
    (tmp_path / "100% #7.mp4").unlink()
    assert_exit(1, args)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  mine.csv, line 4: missing: 100% #7.mp4: ") for line in lines)
    assert any(line.startswith("  mine.csv, line 3: unreadable: größer.mp4: ") for line in lines)
    listed = (tmp_path / "out" / "bad_files.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in listed] == ["100% #7.mp4", "größer.mp4"]
    assert (tmp_path / "out" / "check.html").is_file()
    assert json.loads((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))["counts"]["missing"] == 1


def test_the_report_is_beside_the_manifest_unless_told_otherwise(args, capsys, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    position = args.index("--out")
    main([*args[:position], *args[position + 2 :]])
    assert str(tmp_path / "mine-check" / "check.html") in capsys.readouterr().out
    assert (tmp_path / "mine-check" / "check.html").is_file()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_notes_alone_exit_with_0(args, capsys):
    main([*args, "--frames", "32"])
    assert "note: shorter than a clip (4)" in capsys.readouterr().out


def test_only_the_given_splits_are_checked(args, capsys, tmp_path):
    (tmp_path / "größer.mp4").unlink()
    main([*args, "--split", "test"])
    assert "2 samples in 2 files" in capsys.readouterr().out


def test_invalid_input_exits_with_2_and_one_line(args, capsys):
    for changed, message in (
        (["check", "nowhere.csv"], "nowhere.csv: "),
        ([*args, "--split", "val"], "'val'"),
        ([*args, "--workers", "0"], "--workers 0"),
        ([*args, "--frames", "0"], "--frames 0"),
    ):
        assert_exit(2, changed)
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line


@pytest.mark.long
def test_a_killed_check_resumes(numbered, tmp_path):
    """A process with its own reader processes decodes no file twice."""
    count = 150
    for number in range(count):  # of different bytes, since one video with two labels is a fault
        (tmp_path / f"{number}.mp4").write_bytes(Path(numbered).read_bytes() + bytes(8 + number))
    write_manifest(
        tmp_path / "m.csv",
        entries=[Entry(rgb=f"{n}.mp4", split="train", labels={"label": "ab"[n % 2]}) for n in range(count)],
        classes={"label": ("a", "b")},
        dataset="own",
        version="1",
        depth=None,
    )
    args = ["check", str(tmp_path / "m.csv"), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    command = [sys.executable, "-m", "kinema.cli", *args, "--workers", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def lines():
        return [line for path in (tmp_path / "cache").glob("*") for line in path.read_bytes().splitlines()]

    deadline = time.monotonic() + 60
    while len(lines()) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(lines())
    assert 20 <= done < count
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    known = int(answer.stdout.split(" files unchanged")[0].split("(")[-1])
    assert done - 1 <= known <= done  # the last line may be incomplete
    assert len(lines()) == count + (done - known)

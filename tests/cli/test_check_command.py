"""`kinema check` as a user meets it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kinema.cli import main
from kinema.data.manifest import Entry, write_manifest


@pytest.fixture
def manifest(tmp_path, write_video):
    """Four videos that are their own, under names that shells and URLs would read otherwise."""
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
def words(manifest, tmp_path):
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


def ended(code, words):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == code


def test_a_clean_set_is_said_to_be_clean_and_ends_with_0(words, capsys, tmp_path):
    main(words)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'mine.csv'}: 4 samples in 4 files with 72 frames"
    assert lines[1] == "nothing is wrong"
    assert (tmp_path / "out" / "bad_files.txt").read_text() == ""
    main(words)
    assert ", 4 of them unchanged since an earlier check" in capsys.readouterr().out


def test_what_is_wrong_is_printed_listed_and_ends_with_1(words, capsys, tmp_path):
    (tmp_path / "größer.mp4").write_bytes(b"")
    (tmp_path / "100% #7.mp4").unlink()
    ended(1, words)
    lines = capsys.readouterr().out.splitlines()
    assert "  mine.csv, line 4: missing: 100% #7.mp4: no such file" in lines
    assert any(line.startswith("  mine.csv, line 3: unreadable: größer.mp4: not a readable video") for line in lines)
    listed = (tmp_path / "out" / "bad_files.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in listed] == ["100% #7.mp4", "größer.mp4"]
    assert (tmp_path / "out" / "check.html").is_file()
    assert json.loads((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))["counts"]["missing"] == 1


def test_a_note_alone_ends_with_0(words, capsys):
    main([*words, "--frames", "32"])
    assert "note: shorter than a clip (4)" in capsys.readouterr().out


def test_only_the_named_splits_are_checked(words, capsys, tmp_path):
    (tmp_path / "größer.mp4").unlink()
    main([*words, "--split", "test"])
    assert "2 samples in 2 files" in capsys.readouterr().out


def test_bad_input_ends_with_2_and_one_line(words, capsys):
    for changed, message in (
        (["check", "nowhere.csv"], "nowhere.csv: no such manifest"),
        ([*words, "--split", "val"], "no sample in split 'val'; expected test, train"),
        ([*words, "--workers", "0"], "--workers 0"),
        ([*words, "--frames", "0"], "--frames 0"),
    ):
        ended(2, changed)
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line


@pytest.mark.long
def test_a_check_that_is_killed_goes_on_where_it_was(numbered, tmp_path):
    """As a process with readers of its own: nothing that was looked at is looked at again."""
    count = 150
    for number in range(count):
        shutil.copy(numbered, tmp_path / f"{number}.mp4")
    write_manifest(
        tmp_path / "m.csv",
        entries=[Entry(rgb=f"{n}.mp4", split="train", labels={"label": "ab"[n % 2]}) for n in range(count)],
        classes={"label": ("a", "b")},
        dataset="own",
        version="1",
        depth=None,
    )
    words = ["check", str(tmp_path / "m.csv"), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    command = [sys.executable, "-m", "kinema.cli", *words, "--workers", "2"]
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
    known = int(answer.stdout.split(" of them unchanged")[0].split()[-1])
    assert done - 1 <= known <= done  # the last line may be torn
    assert len(lines()) == count + (done - known)

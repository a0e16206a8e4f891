"""Tests of atomic replacement and journals after failed and killed writes."""

import errno
import os
import resource
import signal
import subprocess
import sys

import pytest

from kinema.files import Journal, atomic_path, atomic_write, read_json, write_texts


def put(write, path, content):
    """Write bytes through a file or a path; fail in the middle if there are none."""
    with write(path) as target:
        (target.write if write is atomic_write else target.write_bytes)(content or b"half")
        if not content:
            raise OSError("disk is full")


@pytest.mark.parametrize("write", [atomic_write, atomic_path])
def test_a_failed_write_keeps_the_old_content_and_leaves_nothing(tmp_path, write):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(OSError, match="full"):
        put(write, path, b"")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_devices_and_pipes_are_written_into_and_folders_refused(tmp_path):
    pipe, full = tmp_path / "pipe", tmp_path / "full"
    os.mkfifo(pipe)
    full.symlink_to("/dev/full")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    put(atomic_write, pipe, b"new")
    assert os.read(reader, 10) == b"new"
    assert pipe.is_fifo()
    os.close(reader)
    with pytest.raises(OSError, match="space"):
        put(atomic_write, full, b"new")
    assert full.is_symlink()
    assert full.is_char_device()
    with pytest.raises(IsADirectoryError):
        put(atomic_write, tmp_path, b"new")
    assert sorted(tmp_path.iterdir()) == [full, pipe]


def test_no_text_is_replaced_unless_all_can_be_written(tmp_path):
    table, facts = tmp_path / "a.csv", tmp_path / "a.json"
    write_texts({table: "old", facts: "old"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(OSError, match="large"):
            write_texts({table: "new", facts: "x" * 2000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert [path.read_text() for path in (table, facts)] == ["old", "old"]
    assert sorted(tmp_path.iterdir()) == [table, facts]


def test_two_writers_of_one_path_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "a.json"
    with atomic_path(path) as first, atomic_path(path) as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
        assert not path.exists()
    assert path.read_text() == "1"  # the last complete write wins
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_another_process_has_written_is_kept(tmp_path):
    with atomic_path(tmp_path / "images") as temporary:
        temporary.mkdir()
        (temporary / "0.png").write_bytes(b"mine")
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "0.png").write_bytes(b"theirs")
    assert (tmp_path / "images" / "0.png").read_bytes() == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize("write", [atomic_write, atomic_path])
def test_content_reaches_the_disk_before_the_name_and_the_name_after(tmp_path, monkeypatch, write):
    events, fsync, replace = [], os.fsync, os.rename
    path = tmp_path / "a"
    monkeypatch.setattr(
        "os.fsync",
        lambda number: events.append("folder" if os.path.isdir(f"/proc/self/fd/{number}") else "file") or fsync(number),
    )
    monkeypatch.setattr("pathlib.Path.replace", lambda self, to: events.append("rename") or replace(self, to))
    put(write, path, b"new")
    assert events == ["file", "rename", "folder"]
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("content", [b"", b'{"n": ', b'{"n": 9', b"\xff\xfe", b"[]", b"\n\n"])
def test_an_incomplete_line_is_skipped_and_does_not_damage_the_next_record(tmp_path, content):
    path = tmp_path / "deep" / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"n": 1})
    with path.open("ab") as file:
        file.write(content)
    with Journal(path) as journal:
        assert list(journal.read()) == [{"n": 1}]
        journal.append({"n": 2})
        assert list(journal.read()) == [{"n": 1}, {"n": 2}]
    with Journal(path) as journal:
        assert list(journal.read()) == [{"n": 1}, {"n": 2}]


def test_a_record_survives_a_kill_right_after_it(tmp_path):
    path = tmp_path / "journal.jsonl"
    code = (
        "import os, signal; from pathlib import Path; from kinema.files import Journal; "
        f"Journal(Path({str(path)!r})).append({{'n': 1}}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b'{"n": 1}\n'


def test_json_of_unknown_origin_raises_one_kind_of_error(tmp_path):
    path = tmp_path / "a.json"
    for content in (b"[" * 10**6, b'{"a":' * 10**5, b"1" * 10**5, b"\xff", b"{", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r".+"):
            read_json(path)
    path.write_bytes(b"[" * 10**6 + b"\n")
    with Journal(path) as journal:
        assert list(journal.read()) == []


def test_names_in_another_encoding_and_links_to_themselves_can_be_written(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    write_texts({tmp_path / "caf\udce9.json": '"caf\udce9"', tmp_path / "loop": "a"})
    assert read_json(tmp_path / "caf\udce9.json") == "caf\udce9"
    assert (tmp_path / "loop").read_text() == "a"


def test_the_message_of_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("old")
    with pytest.raises(OSError, match=r"m\.csv"), atomic_write(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

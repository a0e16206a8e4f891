"""A file that kills its reader process does no harm to the program."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from kinema.errors import UnreadableVideo
from kinema.video import sandbox, sandbox_worker
from kinema.video.read_options import Limits, ReadOptions
from kinema.video.sandbox import SandboxWorker
from kinema.video.source import count_frames, frame_range, read_gray, read_rgb

ISOLATED = ReadOptions(isolation="process")


def test_what_is_read_there_is_what_is_read_here(numbered, tmp_path, write_video):
    depth = np.random.default_rng(0).integers(0, 65536, (6, 24, 32), dtype=np.uint16)
    path = write_video(tmp_path / "depth.mkv", depth, codec="ffv1", pixel_format="gray16le", options={})
    np.testing.assert_array_equal(read_gray(path, [0, 2, 2, 5], ISOLATED), depth[[0, 2, 2, 5]])
    np.testing.assert_array_equal(read_rgb(numbered, [3, 99], ISOLATED), read_rgb(numbered, [3, 99]))
    assert count_frames(numbered, ISOLATED) == 200
    assert frame_range(numbered, 1.0, 2.0, ISOLATED) == (25, 50)


def test_what_is_unreadable_there_is_unreadable_here_in_the_same_words(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    said = []
    for read_options in (ReadOptions(), ISOLATED):
        with pytest.raises(UnreadableVideo) as error:
            count_frames(str(tmp_path / "text.mp4"), read_options)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_one_process_reads_many_files(numbered):
    reader = SandboxWorker(ISOLATED)
    reader.ask("num_frames", numbered)
    first = reader._process.pid
    reader.ask("num_frames", numbered)
    assert reader._process.pid == first != os.getpid()
    reader.close()


def stopped_in(reader, path, what, monkeypatch_seconds=0.3):
    """Send a request, and call `what` on the process while it works."""
    reader.ask("num_frames", path)  # it is up
    os.kill(reader._process.pid, signal.SIGSTOP)  # so that it does not answer before
    timer = threading.Timer(monkeypatch_seconds, what, [reader._process.pid])
    timer.start()
    try:
        reader.ask("num_frames", path)
    finally:
        timer.join()


def test_a_crash_is_the_files_fault_and_the_next_file_is_read(numbered, raises):
    reader = SandboxWorker(ISOLATED)
    with raises(UnreadableVideo, "signal 9", path=numbered):
        stopped_in(reader, numbered, lambda pid: os.kill(pid, signal.SIGKILL))
    assert reader.ask("num_frames", numbered)[0] == 200
    reader.close()


def test_a_crash_of_native_code_is_survived(numbered, tmp_path, raises):
    """A module that the process imports is patched to cause a real segmentation fault."""
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(
        "import ctypes, sys\n"
        "from kinema.video.video_file import VideoFile\n"
        "plain = VideoFile._count\n"
        "VideoFile._count = lambda self: ctypes.string_at(0) if 'evil' in self.path else plain(self)\n"
    )
    evil = tmp_path / "evil.mp4"
    evil.write_bytes(Path(numbered).read_bytes())
    reader = SandboxWorker(ISOLATED)
    sys.path.insert(0, str(planted))
    try:
        with raises(UnreadableVideo, "signal 11", path="evil.mp4"):
            reader.ask("num_frames", str(evil))
        assert reader.ask("num_frames", numbered)[0] == 200
    finally:
        sys.path.remove(str(planted))
        reader.close()


def test_a_file_that_takes_too_long_is_given_up(numbered, raises):
    reader = SandboxWorker(ReadOptions(isolation="process", timeout_s=0.5))
    reader.ask("num_frames", numbered)
    stopped = reader._process
    os.kill(stopped.pid, signal.SIGSTOP)
    began = time.monotonic()
    with raises(UnreadableVideo, "too long", path=numbered):
        reader.ask("num_frames", numbered)
    assert time.monotonic() - began < 5
    assert stopped.poll() is not None
    assert reader.ask("num_frames", numbered)[0] == 200
    reader.close()


def test_the_process_can_take_no_more_memory_than_its_limits_allow():
    code = (
        "import resource, sys, kinema.video.sandbox_worker as r; r._limit_memory(2 * 2**30)\n"
        "try:\n    bytearray(3 * 2**30)\nexcept MemoryError:\n    print('refused')\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "refused\n"


def test_a_file_that_takes_too_much_memory_is_unreadable(monkeypatch):
    def hungry(*_):
        raise MemoryError

    monkeypatch.setattr(sandbox_worker, "read", hungry)
    request = {"operation": "read_rgb", "path": "x.mp4", "arguments": {}}
    content, pictures = sandbox_worker._answer(request, ISOLATED, {})
    assert "memory" in json.loads(content)["unreadable"]
    assert pictures is None


def test_a_process_that_answers_nonsense_is_not_believed(monkeypatch, numbered, raises):
    """A hijacked process can neither make this one unpickle nor fill its memory."""
    code = (
        "import struct, sys, json; out = sys.stdout.buffer; out.write(b'ready\\n'); out.flush(); sys.stdin.readline();"
        "said = json.dumps({'value': {}, 'frames': {'kind': KIND, 'shape': SHAPE}}).encode();"
        "out.write(struct.pack('<Q', len(said)) + said); out.flush(); sys.stdin.read()"
    )
    plain = subprocess.Popen
    for kind, shape in (("'|O'", "[1]"), ("'|u1'", "[2**40]"), ("'|u1'", "[-5]")):
        fake = code.replace("KIND", kind).replace("SHAPE", shape)
        monkeypatch.setattr(
            subprocess, "Popen", lambda _, fake=fake, **rest: plain([sys.executable, "-c", fake], **rest)
        )
        reader = SandboxWorker(ReadOptions(isolation="process", limits=Limits(clip_bytes=10**6)))
        with raises(UnreadableVideo, "limits", path=numbered):
            reader.ask("read_rgb", numbered, indices=[0])
        reader.close()


def test_a_process_that_does_not_start_is_no_fault_of_the_file(monkeypatch, numbered):
    plain = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **rest: plain([sys.executable, "-c", "exit(3)"], **rest))
    with pytest.raises(RuntimeError, match="code 3"):
        SandboxWorker(ISOLATED).ask("num_frames", numbered)


def test_a_fault_of_our_own_is_no_fault_of_the_file(numbered):
    with pytest.raises(RuntimeError, match="dance"):
        SandboxWorker(ISOLATED).ask("dance", numbered)


def test_no_process_is_left_behind(numbered):
    code = (
        "from kinema.video.read_options import ReadOptions; from kinema.video.source import count_frames;"
        "from kinema.video import sandbox; import threading\n"
        f"read = lambda: count_frames({numbered!r}, ReadOptions(isolation='process'))\n"
        "thread = threading.Thread(target=read); thread.start(); thread.join(); read()\n"
        "print(sandbox._threads.worker._process.pid)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def _count_in_worker(path, queue):
    queue.put((os.getpid(), count_frames(path, ISOLATED), sandbox._threads.worker._process.pid))


def test_a_forked_worker_starts_a_reader_of_its_own(numbered):
    assert count_frames(numbered, ISOLATED) == 200
    own = sandbox._threads.worker._process.pid
    context = get_context("fork")
    queue = context.SimpleQueue()
    worker = context.Process(target=_count_in_worker, args=(numbered, queue))
    worker.start()
    _, frames, its = queue.get()
    worker.join()
    assert frames == 200
    assert its != own
    assert count_frames(numbered, ISOLATED) == 200
    assert sandbox._threads.worker._process.pid == own


def test_a_relative_path_is_that_of_this_process(tmp_path, monkeypatch, numbered):
    """The worker process may have started in another folder."""
    options = ReadOptions(isolation="process")
    assert count_frames(numbered, options) == 200
    (tmp_path / "here.mp4").symlink_to(Path(numbered).resolve())
    monkeypatch.chdir(tmp_path)
    assert count_frames("here.mp4", options) == 200
    with pytest.raises(UnreadableVideo) as caught:
        count_frames("gone.mp4", options)
    assert str(caught.value).startswith("gone.mp4: ")

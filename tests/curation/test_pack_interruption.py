"""Tests of packing that is killed, runs out of disk space, meets a changed source or another run, or is refused."""

import dataclasses
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
from kinema.curation.pack import pack
from kinema.data.manifest import Entry, load_manifest, write_manifest
from kinema.errors import ManifestError, PackError
from kinema.video.encode import Encoding
from kinema.video.source import count_frames

SIDE = 48
FAR_KEYFRAMES = {"g": "250", "crf": "12", "preset": "veryfast", "sc_threshold": "0"}


def manifest_of(folder, entries):
    """Write a manifest of two classes."""
    labeled = [dataclasses.replace(entry, labels={"label": "ab"[i % 2]}) for i, entry in enumerate(entries)]
    return write_manifest(
        folder / "set.csv",
        entries=labeled,
        classes={"label": ("a", "b")},
        dataset="own",
        version="3",
        depth=None,
    )


def packed(manifest, out, **fields):
    return pack(manifest, out, encoding=Encoding(**{"short_side": SIDE, **fields}), workers=2)


def files_of(result):
    return [result.manifest.locate(entry.rgb) for entry in result.manifest.entries]


def written(out):
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted((out / "rgb").iterdir())}


def command(manifest, out, *args, before="pass"):
    """Start `kinema pack` in its own process."""
    code = f"{before}\nfrom kinema.cli import main\nmain()"
    arguments = ["pack", str(manifest.path), "--short-side", str(SIDE), "--out", str(out), "--workers", "1", *args]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.fixture
def many(tmp_path, write_video):
    """Return a manifest of sixteen videos of noise, which are slow to pack."""
    entries = []
    for number in range(16):
        noise = np.random.default_rng(number).integers(0, 256, (16, 100, 120, 3), dtype=np.uint8)
        write_video(tmp_path / f"{number}.mp4", noise)
        entries.append(Entry(rgb=f"{number}.mp4", frames=16))
    return manifest_of(tmp_path, entries)


@pytest.mark.long
def test_a_killed_run_resumes_with_the_result_of_an_undisturbed_one(many, tmp_path):
    out = tmp_path / "out"
    process = command(many, out)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if (out / "pack.jsonl").exists() and (out / "pack.jsonl").read_bytes().count(b"\n") >= 3:
                break
            time.sleep(0.01)
        with pytest.raises(PackError) as busy:  # and spoils nothing
            packed(many, out)
        assert busy.value.path == str(out)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "set.csv").exists()
    with (out / "pack.jsonl").open("ab") as notes:
        notes.write(b'{"key": "to')  # a line that was being written
    (out / "rgb" / "0123.unfinished").write_bytes(b"half")
    finished = [json.loads(line)["file"] for line in (out / "pack.jsonl").read_text().splitlines()[:-1]]
    before = written(out)
    result = packed(many, out)
    assert result.num_cached == len(finished) >= 3
    after = written(out)
    assert all(after[Path(name).name] == before[Path(name).name] for name in finished)
    assert all(name.endswith(".mp4") for name in after)
    undisturbed = tmp_path / "undisturbed"
    assert packed(many, undisturbed).manifest.digest == result.manifest.digest
    assert {name: content for name, (_, content) in written(undisturbed).items()} == {
        name: content for name, (_, content) in after.items()
    }
    assert packed(many, out).num_cached == 16


@pytest.mark.long
def test_a_full_disk_gives_one_line_and_keeps_finished_files(many, tmp_path):
    out = tmp_path / "out"
    first = dataclasses.replace(many.entries[0], start_frame=0, stop_frame=1)
    manifest = manifest_of(tmp_path, [first, *many.entries[1:3]])
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"
    process = command(manifest, out, before=limit)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output.count("\n") == 1
    assert f"{out}: " in output
    assert "File too large" in output
    assert len(written(out)) == 1
    assert not (out / "set.csv").exists()
    assert packed(manifest, out).num_cached == 1


def test_a_changed_source_is_packed_again_and_a_deleted_one_is_not(tmp_path, write_video, stamp):
    paths = [write_video(tmp_path / f"{k}.mp4", [stamp(n) for n in range(20)], options=FAR_KEYFRAMES) for k in "ab"]
    manifest = manifest_of(tmp_path, [Entry(rgb=path) for path in paths])
    first = packed(manifest, tmp_path / "out")
    write_video(paths[0], [stamp(n) for n in range(25)], options=FAR_KEYFRAMES)
    Path(paths[1]).unlink()
    second = packed(manifest, tmp_path / "out")
    assert (second.num_cached, second.unreadable) == (1, ())
    assert [entry.frames for entry in second.manifest.entries] == [25, 20]
    assert files_of(second) == files_of(first)
    Path(files_of(second)[0]).write_bytes(b"cut off")
    assert packed(manifest, tmp_path / "out").num_cached == 1
    assert count_frames(files_of(second)[0]) == 25


def test_another_encoding_in_the_same_folder_is_refused(tmp_path, numbered, raises):
    manifest = manifest_of(tmp_path, [Entry(rgb=numbered, start_frame=0, stop_frame=9)] * 2)
    packed(manifest, tmp_path / "out")
    with raises(PackError, "short_side=48", "crf=18", path=tmp_path / "out", field="short_side"):
        packed(manifest, tmp_path / "out", short_side=32, crf=20)


def test_no_manifest_of_other_origin_is_overwritten(tmp_path, numbered, raises):
    manifest = manifest_of(tmp_path, [Entry(rgb=numbered, start_frame=0, stop_frame=9)] * 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "set.csv").write_text("mine")
    with raises(PackError, path=tmp_path / "out" / "set.csv"):
        packed(manifest, tmp_path / "out")
    assert (tmp_path / "out" / "set.csv").read_text() == "mine"
    (tmp_path / "out" / "set.csv").unlink()
    packed(manifest, tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    other = manifest_of(tmp_path / "elsewhere", [Entry(rgb=numbered)] * 2)
    with raises(PackError, manifest.path, path=tmp_path / "out" / "set.csv"):
        packed(other, tmp_path / "out")


def test_a_folder_around_a_source_is_refused(tmp_path, fill, raises):
    (tmp_path / "lists").mkdir()
    fill(tmp_path, "videos/a.mp4")
    manifest = manifest_of(tmp_path / "lists", [Entry(rgb="../videos/a.mp4")] * 2)
    for out, held in (("videos", "a.mp4"), (".", "set.csv"), ("lists", "set.csv")):
        with raises(PackError, path=held, field="out"):
            packed(manifest, tmp_path / out)
    assert packed(manifest, tmp_path / "videos" / "packed").unreadable == ()


def test_invalid_options_are_refused_in_one_line(tmp_path, numbered, capsys):
    manifest = manifest_of(tmp_path, [Entry(rgb=numbered)] * 2)
    (tmp_path / "file").write_text("")

    def refused(*args):
        with pytest.raises(SystemExit) as stop:
            main(["pack", *map(str, args)])
        assert stop.value.code == 2
        line = capsys.readouterr().err.strip()
        assert line.count("\n") == 0
        return line

    out = ("--out", tmp_path / "out")
    assert "none.csv" in refused(tmp_path / "none.csv", "--short-side", 256, *out)
    assert "short_side=14" in refused(manifest.path, "--short-side", 14, *out)
    assert "short_side=255" in refused(manifest.path, "--short-side", 255, *out)
    assert "crf=60" in refused(manifest.path, "--short-side", 256, "--crf", 60, *out)
    assert "--workers 0" in refused(manifest.path, "--short-side", 256, "--workers", 0, *out)
    line = refused(manifest.path, "--short-side", 256, "--out", tmp_path / "file" / "out")
    assert line.startswith(f"kinema: {tmp_path / 'file' / 'out'}: ")
    assert "Not a directory" in line
    assert not (tmp_path / "out").exists()


def test_a_split_that_declares_too_little_is_refused_before_the_work(tmp_path, numbered, raises):
    manifest = manifest_of(tmp_path, [Entry(rgb=numbered, split="val")] * 2)
    facts = json.loads((tmp_path / "set.json").read_text())
    (tmp_path / "set.json").write_text(json.dumps({**facts, "declared": {"val": 1}}))
    with raises(ManifestError, "'val'", path=tmp_path / "set.json", field="declared"):
        packed(load_manifest(manifest.path), tmp_path / "out")
    assert not (tmp_path / "out").exists()

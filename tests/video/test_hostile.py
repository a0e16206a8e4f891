"""Files that break decoders: every reader gives the error of an unreadable file, with its path."""

import contextlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinema.curation.inspect import inspect
from kinema.data.dataset import Failure, VideoDataset
from kinema.data.manifest import class_lists, load_manifest, write_manifest
from kinema.data.samplers import Draw
from kinema.errors import UnreadableVideo
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling
from kinema.video.read_options import Limits, ReadOptions
from kinema.video.source import count_frames, open_source, read_gray, read_rgb

HOSTILE = Path(os.environ.get("KINEMA_DATA", "../shared/data")) / "hostile"
needs_files = pytest.mark.skipif(not HOSTILE.is_dir(), reason=f"{HOSTILE} is not here")


def read_all(path, color):
    with open_source(path) as source:
        return list(source.iter_frames(range(source.num_frames), color))


READERS = {
    "count": count_frames,
    "rgb": lambda path: read_rgb(path, [0, count_frames(path) - 1]),
    "gray": lambda path: read_gray(path, [0, count_frames(path) - 1]),
    "in order": partial(read_all, color="rgb"),
}


@needs_files
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["eperm.mp4", "index_mpeg2.ts", "size.webm"])
def test_damaged_videos_are_read_or_refused_by_name(name, reader):
    path = str(HOSTILE / name)
    with contextlib.suppress(UnreadableVideo):
        READERS[reader](path)
    inspect(path, "rgb", ReadOptions(isolation="none"))


@needs_files
def test_a_palette_is_not_lost():
    """FFmpeg passes it with the first packet alone."""
    path = str(HOSTILE / "pal2.avi")
    frames = read_all(path, "rgb")
    assert all(frame.max() > 100 for frame in frames)
    for number in (0, 7, len(frames) - 1):
        np.testing.assert_array_equal(read_rgb(path, [number])[0], frames[number])


@needs_files
def test_a_mat_file_that_crashes_scipy_is_unreadable(raises):
    with raises(UnreadableVideo, path=HOSTILE / "crash.mat"):
        read_gray(str(HOSTILE / "crash.mat"), [0])


@needs_files
@pytest.mark.parametrize("seed", [None, (1,)])
def test_thin_frames_are_not_resized_past_the_limits(tmp_path, seed):
    built_in = load_manifest("moves_cross_subject")
    entries = [replace(e, rgb=built_in.locate(e.rgb), depth="") for e in built_in.entries[:2]]
    entries = [replace(entries[0], rgb=str((HOSTILE / "thin.mkv").resolve())), *entries[1:]]
    facts = {"classes": class_lists(entries), "dataset": "thin", "version": "1", "depth": None}
    manifest = write_manifest(tmp_path / "thin.csv", entries=entries, **facts)
    sampling, preprocessing = Sampling(frames=8), Preprocessing(short_side=224, size=224)
    dataset = VideoDataset(manifest, sampling=sampling, preprocessing=preprocessing)
    read = dataset[Draw(0, seed)]
    assert isinstance(read, Failure)
    assert read.path.endswith("thin.mkv")
    assert "clip_bytes" in read.message


def test_only_named_formats_of_images_are_decoded(tmp_path, raises):
    for number in range(3):
        Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF")
    with raises(UnreadableVideo, "1.png"):
        read_rgb(str(tmp_path), [0, 1, 2])


def test_a_pipe_named_as_an_array_is_refused(tmp_path, raises):
    for name in ("a.npz", "a.mat", "a.mp4"):
        os.mkfifo(tmp_path / name)
        with raises(UnreadableVideo, path=tmp_path / name):
            count_frames(str(tmp_path / name), ReadOptions(isolation="none"))
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    with raises(UnreadableVideo, path=tmp_path / "zero.npz"):
        count_frames(str(tmp_path / "zero.npz"), ReadOptions(isolation="none", limits=Limits()))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_unreadable(tmp_path, raises):
    folder = tmp_path / "images"
    folder.mkdir()
    folder.chmod(0)
    with raises(UnreadableVideo, path=folder):
        count_frames(str(folder))


def test_names_that_no_file_can_have_are_unreadable(tmp_path, raises):
    for name in ("x" * 300 + ".mp4", "x" * 300 + ".npz", "x" * 300, "a\0b.mp4", "a\0b.npz"):
        path = f"{tmp_path}/{name}"
        with raises(UnreadableVideo, path=path):
            count_frames(path, ReadOptions(isolation="none"))

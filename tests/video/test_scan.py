"""Files of a folder: what their content is, whatever their names."""

import shutil

import numpy as np
import pytest

from kinema.inference.bulk import find_videos
from kinema.video.scan import is_text, is_video, scan, scan_contents

FORMATS = [
    ("clip.MTS", "libx264", "mpegts"),
    ("clip.m2ts", "mpeg2video", "mpegts"),
    ("clip.ts", "libx264", "mpegts"),
    ("clip.vob", "mpeg2video", "vob"),
    ("clip.mxf", "mpeg2video", "mxf"),
    ("clip.divx", "mpeg4", "avi"),
    ("clip.h264", "libx264", "h264"),
    ("clip", "libx264", "mp4"),
    ("clip.2024-11-30", "ffv1", "matroska"),
]


@pytest.fixture
def write_form(tmp_path, write_video, stamp):
    """Return a function that writes ten frames in a container, under any name."""

    def write(name, codec, form, count=10):
        suffix = {"mpegts": "ts", "matroska": "mkv"}.get(form, form)
        written = write_video(tmp_path / f"written.{suffix}", [stamp(n) for n in range(count)], codec=codec, options={})
        path = tmp_path / "v" / name
        path.parent.mkdir(exist_ok=True)
        return shutil.move(written, path)

    return write


@pytest.mark.parametrize(("name", "codec", "form"), FORMATS, ids=str)
def test_a_video_is_known_by_its_content(tmp_path, write_form, name, codec, form):
    path = write_form(name, codec, form)
    assert is_video(path)
    assert scan_contents(tmp_path / "v").videos == (path,)
    assert list(find_videos([str(tmp_path / "v")])) == [str(path)]


CONTENTS = {
    "code.ts": b"export const a = 1;\n",
    "README": "Übung\n".encode() * 2000,
    "empty": b"",
    "zeros.dat": bytes(50_000),
    "noise.bin": np.random.default_rng(0).bytes(50_000),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_other_content_is_no_video(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(CONTENTS[name])
    assert not is_video(path)
    assert is_text(path) == (name in ("code.ts", "README", "empty"))


def test_a_single_picture_is_no_video(write_form):
    assert not is_video(write_form("clip", "libx264", "mp4", count=1))


def test_folders_with_links_to_each_other_are_scanned_once_per_link(tmp_path):
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
        (tmp_path / name / "v.mp4").write_text("")
        for other in set("abcdefgh") - {name}:
            (tmp_path / name / other).symlink_to(f"../{other}")
        (tmp_path / name / "self").symlink_to("self")
        (tmp_path / name / "up").symlink_to("..")
    contents = scan(tmp_path)
    assert len(contents.videos) == 8 * 8
    assert len(contents.others) == len({path.parent for path in contents.videos})
    assert all(path.name == "self" for path in contents.others)

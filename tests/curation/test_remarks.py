"""Remarks on the pictures of files: found in every frame by `check`, and counted by `prepare`."""

import json

import av
import numpy as np
import pytest
from PIL import Image

from kinema.cli import main
from kinema.curation.check_files import inspection_findings
from kinema.curation.inspect import inspect

PQ, BT2020 = 16, 9


def write(path, images, *, codec, pixel_format, options=None, **tags):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], pixel_format
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="rgba").reformat(format=pixel_format)
            for name, value in tags.items():
                setattr(frame, name, value)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def images(seed, count=20, transparent_from=None):
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 256, (count, 6, 8, 4), np.uint8).repeat(8, 1).repeat(8, 2)
    made[..., 3] = 255
    if transparent_from is not None:
        made[transparent_from:, :20, :20, 3] = 0
    return made


@pytest.fixture
def folder(tmp_path):
    """Write two classes of two videos, one of each kind of remark and an ordinary one."""
    for name in ("run", "jump"):
        (tmp_path / "videos" / name).mkdir(parents=True)
    run, jump = tmp_path / "videos" / "run", tmp_path / "videos" / "jump"
    interlaced = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
    write(run / "alpha.mov", images(0, transparent_from=0), codec="qtrle", pixel_format="argb")
    tags = {"color_trc": PQ, "color_primaries": BT2020, "colorspace": BT2020, "color_range": 1}
    write(run / "hdr.mp4", images(1), codec="libx264", pixel_format="yuv420p10le", **tags)
    write(jump / "plain.mp4", images(2), codec="libx264", pixel_format="yuv420p")
    write(jump / "lines.mp4", images(3), codec="libx264", pixel_format="yuv420p", options=interlaced)
    return tmp_path


def remarks_in(path, kind="rgb"):
    return dict(inspection_findings(inspect(str(path), kind), kind, clip_frames=16))


def test_transparency_is_looked_for_in_every_frame(tmp_path):
    late = write(tmp_path / "a.mov", images(0, transparent_from=15), codec="qtrle", pixel_format="argb")
    assert remarks_in(late) == {"transparency": "5 of 20 frames are transparent in part and put on black"}
    opaque = write(tmp_path / "b.mov", images(0), codec="qtrle", pixel_format="argb")
    assert remarks_in(opaque) == {}


def test_images_are_looked_at_one_by_one(tmp_path):
    for number, image in enumerate(images(0, count=18, transparent_from=12)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    assert remarks_in(tmp_path) == {"transparency": "6 of 18 frames are transparent in part and put on black"}
    assert "transparency" not in remarks_in(tmp_path, "depth")


def test_prepare_and_check_name_and_count_them(folder, capsys):
    out = folder / "m.csv"
    assert main(["prepare", "folder", "--root", str(folder / "videos"), "--out", str(out)]) is None
    notes = capsys.readouterr().err
    for start, name in (
        ("1 files have transparent pixels", "alpha.mov"),
        ("1 files are HDR", "hdr.mp4"),
        ("1 files are interlaced", "lines.mp4"),
    ):
        assert [line for line in notes.splitlines() if start in line and name in line]

    here = ["--cache", str(folder), "--workers", "1", "--read-options.isolation", "none"]
    main(["check", str(out), "--out", str(folder / "check"), *here])
    report = json.loads((folder / "check" / "check.json").read_text())
    found = {finding["kind"]: finding for finding in report["findings"] if finding["file"]}
    assert found["transparency"]["sentence"].startswith("20 of 20 frames")
    assert found["HDR"]["sentence"] == "PQ, BT.2020; tone-mapped to BT.709"
    assert found["interlaced"]["sentence"].startswith("20 of 20 frames")
    assert report["counts"]["interlaced"] == report["counts"]["HDR"] == report["counts"]["transparency"] == 1
    assert {found[kind]["severity"] for kind in ("transparency", "HDR", "interlaced")} == {"note"}

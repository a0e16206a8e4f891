"""Odd folders, arrays and tables are read correctly or refused by name, on the command line too."""

import json
import pickle
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from kinema.cli import main
from kinema.data.dataset import read_clips
from kinema.data.manifest import Entry
from kinema.errors import UnreadableVideo
from kinema.inference.trained_model import save_model
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling
from kinema.video.read_options import Limits, ReadOptions
from kinema.video.source import count_frames, read_gray, read_rgb


@pytest.fixture
def folder(tmp_path, stamp):
    """Folder of twelve images that show their numbers."""
    path = tmp_path / "frames"
    path.mkdir()
    for number in range(12):
        Image.fromarray(stamp(number)).save(path / f"img_{number:05d}.png")
    return path


def assert_refused(path, *words):
    """Check that counting or reading names the path and all of the words."""
    with pytest.raises(UnreadableVideo) as refused:
        read_rgb(str(path), range(count_frames(str(path))))
    for word in (path, *words):
        assert str(word) in str(refused.value)


# -- folders of pictures -----------------------------------------------------------------------------------------------


def test_a_picture_that_is_missing_from_a_row_is_named(folder):
    """The images after it would get wrong numbers."""
    (folder / "img_00005.png").unlink()
    assert_refused(folder, "img_00004.png", "img_00006.png")


def test_pictures_may_be_numbered_from_anywhere_in_any_even_step(folder, read_stamps):
    for number in range(12):
        (folder / f"img_{number:05d}.png").rename(folder / f"take-{100 + 3 * number}.png")
    assert read_stamps(read_rgb(str(folder), range(12))) == list(range(12))


def test_pictures_of_two_rows_in_one_folder_are_not_one_video(folder, stamp):
    """Temporal segment networks store optical flow beside the images."""
    for number in range(12):
        Image.fromarray(stamp(100)).save(folder / f"flow_x_{number:05d}.png")
    assert_refused(folder, "flow_x_", "img_")


def test_a_picture_that_is_there_twice_is_not_two_frames(folder, stamp):
    Image.fromarray(stamp(4)).save(folder / "img_00004.jpg", quality=95)
    assert_refused(folder, "img_00004.jpg", "img_00004.png")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n"], ids=["empty", "html", "torn"])
def test_a_broken_picture_is_named(folder, content):
    (folder / "img_00007.png").write_bytes(content)
    assert_refused(folder, "img_00007.png: not a readable image")


def test_a_torn_picture_is_not_shown_half_black(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / f"{number}.jpg")
    whole = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(whole[: len(whole) // 2])
    assert_refused(tmp_path, "1.jpg: not a readable image")


def test_depth_of_eight_bits_beside_sixteen_is_refused(tmp_path, raises):
    for number, kind in enumerate([np.uint16, np.uint16, np.uint8]):
        Image.fromarray(np.full((20, 30), 200, kind)).save(tmp_path / f"{number}.png")
    with raises(UnreadableVideo, "16 bits", "0.png", "8 bits", path="2.png"):
        read_gray(str(tmp_path), [0, 1, 2])


def test_depth_of_sixteen_bits_is_no_color(tmp_path):
    """Truncated to 8 bits, near and far depth would look the same."""
    for number in range(3):
        Image.fromarray(np.full((20, 30), 3000 + number, np.uint16)).save(tmp_path / f"{number}.png")
    assert_refused(tmp_path)


def test_a_picture_that_announces_more_than_it_holds_costs_no_memory(folder, raises):
    """The header declares 60000 x 60000 pixels, followed by a few bytes."""
    content = bytearray((folder / "img_00003.png").read_bytes())
    struct.pack_into(">2I", content, 16, 60000, 60000)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    (folder / "img_00003.png").write_bytes(content)
    with raises(UnreadableVideo, path="img_00003.png"):
        read_rgb(str(folder), [3])


def test_a_folder_inside_a_folder_is_no_frame(folder):
    (folder / "img_00012.png").mkdir()
    assert count_frames(str(folder)) == 12


@pytest.mark.parametrize("name", ["@ ( ! ' %03d #1?", "12:30", "tür 動作", "-i", "[x]*", "clip.mp4"])
def test_a_folder_may_have_any_name(folder, tmp_path, monkeypatch, read_stamps, name):
    folder.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for path in (name, str(tmp_path / name)):
        assert count_frames(path) == 12
        assert read_stamps(read_rgb(path, [0, 5, 11])) == [0, 5, 11]


# -- arrays ------------------------------------------------------------------------------------------------------------


class Trap:
    """Code that a pickle would run when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


def test_an_array_of_objects_is_refused_without_running_what_is_in_it(tmp_path):
    trap, mark = Trap(tmp_path / "mark"), tmp_path / "mark"
    pickle.loads(pickle.dumps(trap))
    assert mark.read_text() == "executed"  # or this test would prove nothing
    mark.unlink()
    np.savez(tmp_path / "objects.npz", depth=np.array([trap] * 8, object).reshape(2, 2, 2))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(trap))
    with zipfile.ZipFile(tmp_path / "inside.npz", "w") as parts:
        parts.writestr("depth.npy", pickle.dumps(trap))
    savemat(tmp_path / "cells.mat", {"depth": np.array([{"a": 1}, "b"] * 4, object).reshape(2, 2, 2)})
    for name in ("objects.npz", "bare.npz", "inside.npz", "cells.mat"):
        assert_refused(tmp_path / name, "not a readable array")
        assert not mark.exists()


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("suffix", ["npz", "mat"])
def test_a_torn_array_is_refused(tmp_path, suffix, share):
    depth = np.random.default_rng(0).integers(1, 5000, (12, 20, 30), dtype=np.uint16)
    path = tmp_path / f"torn.{suffix}"
    if suffix == "npz":
        np.savez_compressed(path, depth=depth)
    else:
        savemat(path, {"depth": np.moveaxis(depth, 0, -1)}, do_compression=True)
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    assert_refused(path, "not a readable array")


@pytest.mark.parametrize(
    "shape", [(10**6, 1000, 1000), (2, 10**6, 10**6), (10**12, 0, 4), (10**30, 10, 10), (-1, 4, 4)]
)
def test_an_array_that_announces_more_than_it_holds_costs_no_memory(tmp_path, shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as parts:
        parts.writestr("depth.npy", head + bytes(1000))
    assert_refused(tmp_path / "huge.npz")


def test_an_array_that_unpacks_to_more_than_the_limits_is_refused(tmp_path, raises):
    """200 MB of zeros compress to 200 kB; a limit of 100 MB is enforced."""
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as parts,
        parts.open("depth.npy", "w") as part,
    ):
        np.lib.format.write_array_header_1_0(part, {"descr": "|u1", "fortran_order": False, "shape": (200, 1000, 1000)})
        for _ in range(200):
            part.write(bytes(10**6))
    assert (tmp_path / "bomb.npz").stat().st_size < 10**6
    with raises(UnreadableVideo, "200,000,000 bytes", path="bomb.npz", field="clip_bytes"):
        count_frames(str(tmp_path / "bomb.npz"), ReadOptions(limits=Limits(clip_bytes=10**8)))


def test_a_mat_file_of_matlab_73_is_refused_with_its_name(tmp_path):
    """The format is HDF5 with a MATLAB header."""
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    (tmp_path / "new.mat").write_bytes(head.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(2000))
    assert_refused(tmp_path / "new.mat", "new.mat: not a readable array", "HDF")


def test_several_arrays_are_told_apart_by_name_or_refused(tmp_path):
    one, other = np.full((4, 5, 6), 7, np.uint16), np.zeros((4, 5, 6), np.uint16)
    savemat(tmp_path / "named.mat", {"skeleton": np.zeros(3), "depth": one})
    assert (read_gray(str(tmp_path / "named.mat"), [0]) == 7).all()
    savemat(tmp_path / "two.mat", {"a": one, "b": other})
    assert_refused(tmp_path / "two.mat", "a, b", "depth or rgb")


@pytest.mark.parametrize("kind", ["npy", "nothing", "encrypted", "text"])
def test_a_zip_or_array_of_another_kind_is_refused(tmp_path, kind):
    path = tmp_path / "other.npz"
    if kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros((3, 4, 5), np.uint8))
    else:
        with zipfile.ZipFile(path, "w") as parts:
            if kind == "text":
                parts.writestr("depth.npy", "three pictures")
            if kind == "encrypted":
                np.save(tmp_path / "depth.npy", np.zeros((3, 4, 5), np.uint8))
                parts.write(tmp_path / "depth.npy", "depth.npy")
        if kind == "encrypted":
            content = bytearray(path.read_bytes())
            content[6] |= 1
            content[content.rindex(b"PK\x01\x02") + 8] |= 1
            path.write_bytes(content)
    assert_refused(path)


# -- pairs -------------------------------------------------------------------------------------------------------------


def test_a_depth_file_that_ends_before_its_color_is_not_filled_up(tmp_path, write_video, stamp, depth_facts, raises):
    write_video(tmp_path / "rgb.mp4", [stamp(n) for n in range(30)])
    pictures = [np.full((48, 64), 1000, np.uint16)] * 24
    write_video(tmp_path / "depth.mkv", pictures, codec="ffv1", pixel_format="gray16le", options={})
    with raises(UnreadableVideo, "24 frames", path="depth.mkv"):
        read_clips(
            Entry(rgb="rgb.mp4", depth="depth.mkv"),
            locate=lambda source: str(tmp_path / source),
            sampling=Sampling(frames=16),
            preprocessing=Preprocessing(modalities=("rgb", "depth"), short_side=36, size=32, depth=depth_facts),
        )


def test_a_file_with_fewer_frames_than_the_table_says_is_an_error(tmp_path, write_video, stamp, raises):
    """The file was trimmed after the manifest was made: its frames would show another part of the action."""
    write_video(tmp_path / "cut.mp4", [stamp(n) for n in range(24)])
    with raises(UnreadableVideo, "24 frames", path="cut.mp4"):
        read_clips(
            Entry(rgb="cut.mp4", frames=30),
            locate=lambda source: str(tmp_path / source),
            sampling=Sampling(frames=16),
            preprocessing=Preprocessing(short_side=36, size=32),
        )


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path, data_set, make_trained_model, tiny_ctn):
    """Six samples: three intact, and on lines 3, 5 and 6 a missing, a truncated and a text file."""
    save_model(tmp_path / "model", make_trained_model(tiny_ctn()))
    lines = ["rgb,split,label"]
    for position in range(6, 12):
        entry = data_set.entries[position]
        shutil.copy(data_set.locate(entry.rgb), tmp_path / f"{position}.mp4")
        lines.append(f"{position}.mp4,test,{entry.labels['label']}")
    (tmp_path / "7.mp4").unlink()
    torn = tmp_path / "9.mp4"
    torn.write_bytes(torn.read_bytes()[:1500])
    (tmp_path / "10.mp4").write_text("<html>404</html>" * 50)
    facts = {"corpus": "x", "version": "1", "classes": {"label": ["dim", "gray", "bright"]}, "declared": {"test": 6}}
    (tmp_path / "table.json").write_text(json.dumps(facts))
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def evaluate(table, *words):
    paths = [str(table / "model"), "--manifest", str(table / "table.csv"), "--out", str(table / "p.safetensors")]
    main(["evaluate", *paths, "--device", "cpu", "--batch-size", "2", *words])


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_evaluation_stops_at_the_first_line_that_cannot_be_read(table, capsys, workers):
    with pytest.raises(SystemExit) as stop:
        evaluate(table, "--workers", workers)
    assert stop.value.code == 2
    told = capsys.readouterr()
    (line,) = told.err.strip().splitlines()
    assert line.startswith("kinema: ")
    assert f"table.csv, line 3: {table / '7.mp4'}: no such file" in line
    assert "top1" not in told.out
    assert not (table / "p.safetensors").exists()


def test_an_evaluation_that_may_miss_samples_says_so_with_every_number(table, capsys):
    evaluate(table, "--workers", "0", "--allow-missing")
    lines = capsys.readouterr().out.splitlines()
    missing = [line for line in lines if line.startswith("missing: ")]
    assert [f"table.csv, line {n}: " in line for n, line in zip((3, 5, 6), missing, strict=True)] == [True] * 3
    numbers = [line for line in lines if line.split()[0] in ("top1", "top5", "mean_class", "ece", "nll")]
    assert len(numbers) == 5
    assert all("(coverage 50.00 %)" in line for line in numbers)
    assert lines[-1].startswith("3 samples of split 'test', coverage 50.00 %")


def test_predicting_answers_for_the_others(table, capsys):
    names = [str(table / f"{position}.mp4") for position in range(6, 12)]
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(table / "model"), *names, "--format", "jsonl", "--device", "cpu"])
    assert stop.value.code == 2
    told = capsys.readouterr()
    answered = [json.loads(line)["video"] for line in told.out.splitlines()]
    assert answered == [names[0], names[2], names[5]]
    *reasons, last = told.err.strip().splitlines()
    assert [line.split(": ")[1] for line in reasons] == [names[1], names[3], names[4]]
    assert last == "kinema: 3 of 6 videos could not be read"

import csv
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from kinema.data.dataset import read_clips
from kinema.data.manifest import Entry
from kinema.errors import UnreadableVideo
from kinema.modality import DepthFacts
from kinema.transforms.preprocessing import Preprocessing, depth_to_uint8
from kinema.transforms.sampling import Sampling
from kinema.video.image_folder import list_images
from kinema.video.source import count_frames, frame_range, read_gray, read_rgb


@pytest.fixture
def color():
    return np.random.default_rng(0).integers(0, 256, (12, 20, 30, 3), dtype=np.uint8)


@pytest.fixture
def depth():
    return np.random.default_rng(1).integers(0, 5000, (12, 20, 30), dtype=np.uint16)


@pytest.fixture
def folder(tmp_path, color):
    """Write images named without leading zeros: frame_10 must follow frame_9."""
    path = tmp_path / "frames of a clip"
    path.mkdir()
    for number, picture in enumerate(color):
        Image.fromarray(picture).save(path / f"frame_{number + 1}.png")
    (path / ".hidden.png").write_text("no picture")
    (path / "notes.txt").write_text("no picture either")
    return str(path)


def test_pictures_come_in_the_order_of_their_numbers(folder, color):
    assert [p.name for p in list_images(folder)] == [f"frame_{n}.png" for n in range(1, 13)]
    indices = [0, 3, 3, 9, 11]
    assert (read_rgb(folder, indices) == color[indices]).all()
    assert count_frames(folder) == 12


def test_sixteen_bit_pictures_keep_their_bits(tmp_path, depth):
    for number, picture in enumerate(depth):
        Image.fromarray(picture).save(tmp_path / f"{number:03d}.png")
    got = read_gray(str(tmp_path), [0, 5, 11])
    assert got.dtype == np.uint16
    assert (got == depth[[0, 5, 11]]).all()


def test_eight_bit_pictures_of_depth_stay_eight_bits(tmp_path, depth):
    Image.fromarray((depth[0] // 20).astype(np.uint8)).save(tmp_path / "0.png")
    assert read_gray(str(tmp_path), [0]).dtype == np.uint8


def test_a_camera_that_was_held_sideways_is_turned_upright(tmp_path, color):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to show"
    Image.fromarray(color[0]).save(tmp_path / "0.png", exif=exif)
    assert (read_rgb(str(tmp_path), [0])[0] == np.rot90(color[0], -1)).all()


def test_npz_and_mat_give_the_same_frames(tmp_path, depth):
    np.savez_compressed(tmp_path / "a.npz", depth=depth, other=np.zeros(3))
    savemat(tmp_path / "a.mat", {"depth": np.moveaxis(depth, 0, -1).astype(np.float64)})
    for name in ("a.npz", "a.mat"):
        got = read_gray(str(tmp_path / name), [1, 1, 7])
        assert got.dtype == np.uint16
        assert (got == depth[[1, 1, 7]]).all()
        assert count_frames(str(tmp_path / name)) == 12


def test_color_in_an_array_is_read_and_depth_is_not_taken_for_it(tmp_path, color, depth, raises):
    np.savez(tmp_path / "c.npz", color)
    np.savez(tmp_path / "d.npz", depth)
    assert (read_rgb(str(tmp_path / "c.npz"), [2, 4]) == color[[2, 4]]).all()
    with raises(UnreadableVideo, "uint16 of shape (12, 20, 30)", path="d.npz"):
        read_rgb(str(tmp_path / "d.npz"), [0])
    with raises(UnreadableVideo, "(12, 20, 30, 3)", path="c.npz"):
        read_gray(str(tmp_path / "c.npz"), [0])


def test_every_form_of_depth_gives_the_same_clip(tmp_path, depth, write_video):
    """FFV1, PNG folder, npz and mat, through the whole preprocessing."""
    (tmp_path / "png").mkdir()
    for number, picture in enumerate(depth):
        Image.fromarray(picture).save(tmp_path / "png" / f"{number}.png")
    np.savez(tmp_path / "d.npz", depth=depth)
    savemat(tmp_path / "d.mat", {"depth": np.moveaxis(depth, 0, -1)})
    write_video(tmp_path / "d.mkv", list(depth), codec="ffv1", pixel_format="gray16le", options={})
    facts = DepthFacts(unit_mm=1.0, near=500, far=4500, coverage="full")
    clips = [
        read_clips(
            Entry(depth=name),
            locate=lambda source: str(tmp_path / source),
            sampling=Sampling(frames=4),
            preprocessing=Preprocessing(modalities=("depth",), short_side=16, size=16, depth=facts),
        )["depth"]
        for name in ("png", "d.npz", "d.mat", "d.mkv")
    ]
    assert clips[0].float().std() > 10
    assert all((clip == clips[0]).all() for clip in clips)


def test_seconds_mean_nothing_to_frames_without_time_stamps(folder, raises):
    with raises(UnreadableVideo, "start_frame and stop_frame", path=folder):
        frame_range(folder, 0.0, 1.0)


# -- what cannot be read -----------------------------------------------------------------------------------------------


def test_a_folder_that_ends_too_early_or_is_empty(folder, tmp_path, raises):
    with raises(UnreadableVideo, "frame 12 ", "12 frames", path=folder):
        read_rgb(folder, [0, 12])
    (tmp_path / "empty").mkdir()
    with raises(UnreadableVideo, ".jpeg, .jpg, .png", path="empty"):
        count_frames(str(tmp_path / "empty"))


def test_a_broken_picture_is_named(folder, raises):
    (list_images(folder)[4]).write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with raises(UnreadableVideo, "not a readable image", path="frame_5.png"):
        read_rgb(folder, [0, 4])
    whole = list_images(folder)[5].read_bytes()
    list_images(folder)[5].write_bytes(whole[: len(whole) // 2])
    with raises(UnreadableVideo, "not a readable image", path="frame_6.png"):
        read_rgb(folder, [5])


def test_a_picture_of_another_size_is_named(folder, color, raises):
    Image.fromarray(color[0, :10]).save(list_images(folder)[7])
    with raises(UnreadableVideo, "30 x 20", "frame_1.png", "30 x 10", path="frame_8.png"):
        read_rgb(folder, [0, 7])


def test_a_picture_too_large_to_be_a_frame_is_refused_before_it_is_decoded(tmp_path, raises):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.new("1", (9000, 9000)).save(tmp_path / "0.png")
    with raises(UnreadableVideo, "9000 x 9000", "64,000,000", path="0.png", field="pixels"):
        read_rgb(str(tmp_path), [0])


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"a": np.zeros((2, 3, 4)), "b": np.zeros((2, 3, 4))}, "a, b"),
        ({"depth": np.zeros((3, 4), np.uint16)}, "(3, 4)"),
        ({"depth": np.full((2, 3, 4), 0.5)}, "float64"),
        ({"depth": np.full((2, 3, 4), -1)}, "int64"),
        ({"depth": np.full((2, 3, 4), np.nan)}, "float64"),
        ({"depth": np.array([[[{}]]], dtype=object)}, "not a readable array"),
    ],
)
def test_an_array_that_is_not_a_video_is_refused(tmp_path, content, word, raises):
    np.savez(tmp_path / "x.npz", **content)
    with raises(UnreadableVideo, word, path="x.npz"):
        read_gray(str(tmp_path / "x.npz"), [0])


@pytest.mark.parametrize("name", ["x.npz", "x.mat"])
def test_a_text_file_with_the_name_of_an_array_is_refused(tmp_path, name, raises):
    (tmp_path / name).write_text("this is no array\n" * 40)
    with raises(UnreadableVideo, "not a readable array", path=name):
        count_frames(str(tmp_path / name))
    with raises(UnreadableVideo, "no such file", path=f"missing_{name}"):
        count_frames(str(tmp_path / f"missing_{name}"))


def test_a_damaged_npz_is_refused(tmp_path, depth, raises):
    np.savez(tmp_path / "x.npz", depth=depth)
    whole = bytearray((tmp_path / "x.npz").read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(whole)
    assert zipfile.ZipFile(tmp_path / "x.npz").testzip() is not None
    with raises(UnreadableVideo, "not a readable array", path="x.npz"):
        read_gray(str(tmp_path / "x.npz"), [0])


# -- real recordings ---------------------------------------------------------------------------------------------------


def test_real_depth_in_both_of_its_forms(real_data):
    """MSR-Action3D: the original mat files, and the npz made from them at half the size."""
    with (real_data / "msr_action3d" / "annotations.csv").open() as file:
        announced = {row["path"]: int(row["frames"]) for row in csv.DictReader(file)}
    seen = 0
    for mat in sorted((real_data / "msr_action3d" / "original_mat").glob("*.mat"))[:6]:
        npz = f"depth160/{mat.name.removesuffix('_sdepth.mat')}.npz"
        if npz not in announced:
            continue
        seen += 1
        assert count_frames(str(mat)) == count_frames(str(real_data / "msr_action3d" / npz)) == announced[npz]
        large, small = (read_gray(str(path), [0, 10]) for path in (mat, real_data / "msr_action3d" / npz))
        assert (large.shape, small.shape) == ((2, 240, 320), (2, 120, 160))
        assert (small > 0).mean() == pytest.approx((large > 0).mean(), abs=0.01)
        facts = DepthFacts(unit_mm=None, near=350, far=630, coverage="masked")
        assert depth_to_uint8(read_gray(str(mat), [0]), facts).max() > 100
    assert seen > 0

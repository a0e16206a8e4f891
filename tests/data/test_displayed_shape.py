"""A disc is round in every clip, whatever the shape of the stored pixels: in training, tests, packed files and use."""

import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from kinema import Recognizer
from kinema.curation.check import check
from kinema.curation.pack import pack
from kinema.data.dataset import read_clips, read_views
from kinema.data.manifest import Entry, write_manifest
from kinema.datasets.table import TableOptions, prepare
from kinema.modality import DepthFacts
from kinema.transforms.augment import Augmentation
from kinema.transforms.preprocessing import Preprocessing, SubjectCrop
from kinema.transforms.sampling import Sampling
from kinema.video.encode import Encoding
from kinema.video.read_options import ReadOptions
from kinema.video.source import open_source

WIDE, NARROW = Fraction(64, 45), Fraction(8, 15)
FACTS = DepthFacts(unit_mm=1.0, near=500.0, far=4500.0, coverage="masked")
FOUR = Sampling(frames=4)


def disc(ratio, *, height=58, width=72):
    """Return stored RGB and depth of a disc that is displayed round in the middle."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    is_inside = np.hypot((columns - width / 2) * float(ratio), rows - height / 2) < 0.4 * min(height, width * ratio)
    return np.where(is_inside[..., None], 230, 20).astype(np.uint8).repeat(3, -1), is_inside.astype(np.uint16) * 2500


@pytest.fixture
def write(tmp_path):
    """Return a function that writes RGB and depth of a disc, and returns their sample."""

    def write_pair(ratio, *, name="a", rotation=0, count=10):
        rgb, depth = disc(ratio)
        for path, picture, codec, form, stored in (
            (f"{name}.mp4", rgb, "libx264", "rgb24", "yuv420p"),
            (f"{name}-depth.mp4", depth, "ffv1", "gray16le", "gray16le"),
        ):
            with av.open(str(tmp_path / path), "w") as container:
                options = {"crf": "8", "preset": "veryfast"} if codec == "libx264" else {}
                stream = container.add_stream(codec, rate=25, options=options)
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], stored
                stream.codec_context.sample_aspect_ratio = ratio
                if rotation and codec == "libx264":
                    stream.set_display_rotation(rotation)
                for _ in range(count):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format=form)))
                container.mux(stream.encode())
        return Entry(
            rgb=f"{name}.mp4", depth="" if rotation else f"{name}-depth.mp4", frames=count, labels={"label": name}
        )

    return write_pair


def roundness(image):
    """Return width over height of the bright part of a picture."""
    level = (image.float() - image.min()) / (image.max() - image.min())
    rows, columns = level.sum(1), level.sum(0)
    return float(columns.gt(columns.max() * 0.1).sum() / rows.gt(rows.max() * 0.1).sum())


def preprocessing(*modalities, **fields):
    return Preprocessing(**{"modalities": modalities, "short_side": 56, "size": 56, "depth": FACTS, **fields})


@pytest.mark.parametrize("ratio", [WIDE, NARROW])
@pytest.mark.parametrize("subject", [None, SubjectCrop()])
def test_a_disc_is_round_in_every_clip(write, tmp_path, ratio, subject):
    sample = write(ratio)
    use = {"locate": lambda path: str(tmp_path / path), "sampling": FOUR}
    both = preprocessing("rgb", "depth", subject=subject)
    views = read_views(sample, preprocessing=dataclasses.replace(both, crops=3), **use)
    plain = read_clips(sample, preprocessing=both, **use)
    for modality in ("rgb", "depth"):
        for clip in (views[modality][1], plain[modality]):
            assert roundness(clip[0, 2]) == pytest.approx(1, abs=0.08), modality


def test_a_disc_is_round_in_training(write, tmp_path):
    clips = read_clips(
        write(WIDE),
        locate=lambda path: str(tmp_path / path),
        sampling=FOUR,
        preprocessing=preprocessing("rgb", "depth", subject=SubjectCrop()),
        augmentation=Augmentation(short_side=(60, 64), rotation=20.0, rotation_prob=1.0, flip=1.0),
        rng=np.random.default_rng(0),
    )
    for modality, clip in clips.items():
        assert roundness(clip[0, 2]) == pytest.approx(1, abs=0.08), modality


def test_a_turned_disc_is_round(write, tmp_path):
    sample = write(WIDE, rotation=90)
    use = {"locate": lambda path: str(tmp_path / path), "sampling": FOUR, "preprocessing": preprocessing("rgb")}
    assert roundness(read_views(sample, **use)["rgb"][0, 0, 1]) == pytest.approx(1, abs=0.08)


def test_a_recognizer_sees_the_displayed_shape(write, tmp_path, tiny_ctn, make_trained_model):
    sample = write(WIDE)
    recognizer = Recognizer(make_trained_model(tiny_ctn()))
    clip = recognizer.prepare(tmp_path / sample.rgb)["rgb"]
    assert roundness(clip[0, 0, 0]) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("ratio", [WIDE, NARROW])
@pytest.mark.parametrize("short_side", [32, 200])
def test_packed_files_have_square_pixels_of_the_same_shape(write, tmp_path, ratio, short_side):
    samples = [write(ratio, name=name, count=40) for name in ("a", "b")]
    manifest = manifest_of(tmp_path / "m.csv", samples)
    result = pack(manifest, tmp_path / "packed", encoding=Encoding(short_side=short_side, depth_short_side=short_side))
    assert result.unreadable == ()
    packed = result.manifest
    for modality in ("rgb", "depth"):
        path = packed.locate(packed.entries[0].source(modality))
        with open_source(path) as source:
            frames = source.read_rgb([3])[0, ..., 0] if modality == "rgb" else source.read_gray([3])[0]
            assert source.pixel_aspect == (1, 1)
        assert roundness(torch.from_numpy(frames.astype(np.float32))) == pytest.approx(1, abs=0.1)
    use = {"sampling": FOUR, "preprocessing": preprocessing("rgb", "depth")}
    one = read_views(manifest.entries[0], locate=manifest.locate, **use)
    other = read_views(packed.entries[0], locate=packed.locate, **use)
    for modality in one:
        assert (one[modality].float() - other[modality].float()).abs().mean() < 8


def manifest_of(path, samples):
    entries = [dataclasses.replace(sample, split="train") for sample in samples]
    classes = {"label": tuple(sample.labels["label"] for sample in samples)}
    return write_manifest(path, entries=entries, classes=classes, dataset="discs", version="1", depth=FACTS)


def test_check_and_prepare_note_the_pixels(write, tmp_path):
    samples = [write(WIDE), write(WIDE, name="b", count=11), write(Fraction(1), name="c")]
    manifest = manifest_of(tmp_path / "m.csv", samples)
    checked = check(manifest, journal=tmp_path / "journal", read_options=ReadOptions())
    found = [f for f in checked.findings if f.kind == "non-square pixels" and f.modality == "rgb"]
    assert [finding.file for finding in found] == ["a.mp4", "b.mp4"]
    assert found[0].sentence == "stored 72 x 58, displayed as 102 x 58"
    assert not checked.faults
    assert any("102 x 58 (2)" in finding.sentence for finding in checked.findings if finding.kind == "resolutions")
    again = check(manifest, journal=tmp_path / "journal", read_options=ReadOptions())
    assert again.findings == checked.findings
    assert again.num_cached == 6

    (tmp_path / "t.csv").write_text("rgb,label\na.mp4,x\nb.mp4,y\nc.mp4,x\n")
    notes = prepare(TableOptions(root=tmp_path / "t.csv", out=tmp_path / "out.csv"), "csv").notes
    assert [note for note in notes if note.startswith("2 files have pixels that are not square")]

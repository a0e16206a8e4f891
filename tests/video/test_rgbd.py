"""RGB and depth of a sample are the same frames and the same places, whatever is drawn.

Both files of a pair carry stamps: two discs whose level is the frame's number and which move from frame to frame. RGB
shows them in yellow on gray, depth as levels of the same size.
"""

from typing import NamedTuple, get_args

import numpy as np
import pytest
import torch
from scipy import ndimage

from kinema.data.dataset import VideoDataset, read_clips, read_views
from kinema.data.manifest import Entry, write_manifest
from kinema.data.samplers import Draw
from kinema.modality import DepthFacts
from kinema.transforms import augment as augmentation
from kinema.transforms.augment import Augmentation, RandAugment, WarpOp
from kinema.transforms.preprocessing import Preprocessing, SubjectCrop
from kinema.transforms.sampling import Sampling

FRAMES, GROUND, FIRST, STEP = 16, 20, 90, 10
SMALL, LARGE = (72, 96), (144, 192)
NEAR, FAR = 1000.0, 5080.0
"""Facts with 16 units per level."""
CLOSE = 0.7
"""Pixels of a clip; two pixels of a file are at least 1.5."""


def stamped(number, size, shift):
    """Return a frame whose discs show a number."""
    rows, columns = np.meshgrid(*(np.arange(extent) + 0.5 for extent in size), indexing="ij")
    scale = size[0] / SMALL[0]
    discs = np.zeros(size, bool)
    for row, column, radius in ((26 + 0.7 * number, 36 + 0.5 * number, 8), (48 - 0.5 * number, 64 + 0.2 * number, 5)):
        away = np.hypot(rows - scale * row - shift[0], columns - scale * column - shift[1])
        discs |= away < scale * radius
    return discs


def pictures(size, kind, *, shift=(0, 0), late=0, ground=GROUND):
    """Return all frames of one file, optionally shifted by pixels or late by frames."""
    shape = (FRAMES, *size, 3) if kind == "rgb" else (FRAMES, *size)
    frames = np.full(shape, ground, np.float64)
    for number, frame in enumerate(frames):
        shown = max(number - late, 0)
        discs, level = stamped(shown, size, shift), FIRST + STEP * shown
        frame[discs] = (level, level, 0) if kind == "rgb" else level
    if kind == "rgb":
        return frames.astype(np.uint8)
    return np.where(frames > 0, NEAR + (frames - 1) * (FAR - NEAR) / 254, 0).astype(np.uint16)


class Pair(NamedTuple):
    """Settings of the generated files, and the part that depth covers."""

    size: tuple[int, int] = SMALL
    depth_size: tuple[int, int] = SMALL
    codec: str = "libx264"
    coverage: str = "full"


PAIRS = {
    "h264": Pair(),
    "ffv1": Pair(codec="ffv1"),
    "larger rgb": Pair(size=LARGE),
    "larger depth": Pair(depth_size=LARGE),
    "masked": Pair(coverage="masked"),
    "masked, larger rgb": Pair(size=LARGE, coverage="masked"),
    "masked, larger depth": Pair(depth_size=LARGE, coverage="masked"),
}


@pytest.fixture(scope="module")
def make_pair(tmp_path_factory, write_video):
    """Write both files once for each kind of pair; depth may be wrong on purpose."""
    made = {}

    def make(name, *, late=0, shift=(0, 0)):
        if (name, late, shift) not in made:
            pair, folder = PAIRS[name], tmp_path_factory.mktemp("pair")
            lossless = pair.codec == "ffv1"
            made[name, late, shift] = Entry(
                rgb=write_video(
                    folder / "rgb.mkv",
                    pictures(pair.size, "rgb"),
                    codec=pair.codec,
                    pixel_format="bgr0" if lossless else "yuv420p",
                    options={} if lossless else {"crf": "1"},
                ),
                depth=write_video(
                    folder / "depth.mkv",
                    pictures(
                        pair.depth_size,
                        "depth",
                        late=late,
                        shift=shift,
                        ground=GROUND if pair.coverage == "full" else 0,
                    ),
                    codec="ffv1",
                    pixel_format="gray16le",
                    options={},
                ),
                frames=FRAMES,
            )
        return made[name, late, shift]

    return make


DRAWS = {
    "place": Augmentation(),
    "jitter": Augmentation(short_side=(60, 80)),
    "flip": Augmentation(flip=0.5),
    "rotation": Augmentation(rotation=30, rotation_prob=1),
    "randaugment": Augmentation(randaugment=RandAugment(operations=2, magnitude=6)),
    "all": Augmentation(short_side=(60, 80), flip=0.5, rotation=10, randaugment=RandAugment(operations=1, magnitude=5)),
}


def preprocessing(pair, **fields):
    facts = DepthFacts(unit_mm=1.0, near=NEAR, far=FAR, coverage=pair.coverage)
    return Preprocessing(modalities=("rgb", "depth"), short_side=64, size=56, depth=facts, **fields)


def drawn(entry, pair, augmentation, seed, **fields):
    clips = read_clips(
        entry,
        locate=str,
        sampling=Sampling(frames=6),
        preprocessing=preprocessing(pair, **fields),
        augmentation=augmentation,
        rng=np.random.default_rng(seed),
    )
    return clips["rgb"], clips["depth"]


def stamps(modality, frame, border):
    """Return the number in each disc of a frame, and the centers of the discs; discs at the border are left out."""
    frame = frame.astype(float)
    light = frame[0] - frame[2] if modality == "rgb" else frame[0] - GROUND
    # Luma is what H.264 keeps best, and yellow's is 0.886 of its level.
    shown = np.tensordot([0.299 / 0.886, 0.587 / 0.886, 0.114 / 0.886], frame, 1) if modality == "rgb" else frame[0]
    discs, _ = ndimage.label(light > FIRST / 2)
    inside = slice(border, -border)
    whole = [
        mark
        for mark in np.unique(discs[discs > 0])
        if (discs == mark).sum() == (discs[inside, inside] == mark).sum() > 20
    ]
    middles = [np.array(ndimage.center_of_mass(light.clip(0), discs, mark)) for mark in whole]
    levels = [np.median(shown[ndimage.binary_erosion(discs == mark)]) for mark in whole]
    return [round((level - FIRST) / STEP) for level in levels], middles


def assert_together(rgb, depth):
    """Check that frames of both clips show the same numbers at the same places, and return how many were visible."""
    seen = 0
    for frame in range(rgb.shape[1]):
        # What is whole in RGB with room to spare is whole in depth.
        numbers, places = stamps("rgb", rgb[:, frame].numpy(), border=4)
        others, other_places = stamps("depth", depth[:, frame].numpy(), border=1)
        for number, place in zip(numbers, places, strict=True):
            away = [np.abs(place - other).max() for other in other_places]
            nearest = int(np.argmin(away))
            assert number == others[nearest], f"frame {frame}: RGB shows number {number}, depth {others[nearest]}"
            assert away[nearest] < CLOSE, f"frame {frame}: {away[nearest]} pixels apart"
            seen += 1
    return seen


@pytest.fixture
def places_alone(monkeypatch):
    """Restrict RandAugment to warps, since color operations change the levels that encode numbers."""
    monkeypatch.setattr(augmentation, "OPERATIONS", get_args(WarpOp))


@pytest.mark.parametrize("pair", ["h264", "ffv1", "larger rgb", "larger depth"])
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.usefixtures("places_alone")
def test_a_draw_takes_the_same_frames_and_places_of_both(make_pair, pair, draw):
    seen = sum(assert_together(*drawn(make_pair(pair), PAIRS[pair], DRAWS[draw], seed)) for seed in range(4))
    assert seen >= 16


SUBJECT = {"subject": SubjectCrop(margin=0.15)}


@pytest.mark.parametrize("pair", ["masked", "masked, larger rgb", "masked, larger depth"])
@pytest.mark.parametrize("draw", ["place", "all"])
@pytest.mark.usefixtures("places_alone")
def test_both_are_cut_to_the_same_subject(make_pair, pair, draw):
    clips = [drawn(make_pair(pair), PAIRS[pair], DRAWS[draw], seed, **SUBJECT) for seed in range(4)]
    assert sum(assert_together(*clip) for clip in clips) >= 16
    whole = drawn(make_pair(pair), PAIRS[pair], DRAWS["place"], 0)
    assert (clips[0][1] > 60).sum() > 1.3 * (whole[1] > 60).sum()  # the discs have become larger


@pytest.mark.parametrize("pair", ["h264", "larger rgb", "larger depth"])
@pytest.mark.parametrize("rule", ["segments", "uniform", "dense"])
def test_the_views_of_a_test_are_the_same_frames_and_places_of_both(make_pair, pair, rule):
    clips = read_views(
        make_pair(pair),
        locate=str,
        sampling=Sampling(rule=rule, frames=4, interval=None if rule == "segments" else 2, clips=2),
        preprocessing=preprocessing(PAIRS[pair], crops=3),
    )
    assert len(clips["rgb"]) == len(clips["depth"]) == 6
    assert all(assert_together(rgb, depth) for rgb, depth in zip(clips["rgb"], clips["depth"], strict=True))


@pytest.mark.parametrize("wrong", [{"late": 1}, {"shift": (2, 0)}, {"shift": (0, -2)}], ids=str)
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.usefixtures("places_alone")
def test_a_shift_of_one_frame_or_two_pixels_is_noticed(make_pair, wrong, draw):
    """Depth that is wrong on purpose fails these tests."""
    clips = [drawn(make_pair("h264", **wrong), PAIRS["h264"], DRAWS[draw], seed) for seed in range(4)]
    with pytest.raises(AssertionError, match=r"RGB shows number|pixels apart"):
        assert [assert_together(*pair) for pair in clips] == []


@pytest.mark.parametrize("wrong", [{"late": 1}, {"shift": (2, 0)}, {"shift": (0, -2)}], ids=str)
def test_a_shift_is_noticed_in_the_crop_to_a_subject_too(make_pair, wrong):
    with pytest.raises(AssertionError, match=r"RGB shows number|pixels apart"):
        assert_together(*drawn(make_pair("masked", **wrong), PAIRS["masked"], DRAWS["place"], 0, **SUBJECT))


def changed_box(before, after):
    """Rows and columns in which any frame and channel differ."""
    differs = (before != after).flatten(0, 1).any(0)
    rows, columns = (torch.nonzero(differs.any(axis)).flatten() for axis in (1, 0))
    return rows[0].item(), rows[-1].item() + 1, columns[0].item(), columns[-1].item() + 1


@pytest.mark.parametrize("pair", ["h264", "larger rgb"])
@pytest.mark.parametrize("seed", range(3))
def test_one_box_is_erased_in_all_frames_of_both(make_pair, pair, seed):
    before = drawn(make_pair(pair), PAIRS[pair], Augmentation(), seed)
    after = drawn(make_pair(pair), PAIRS[pair], Augmentation(erasing=1.0), seed)
    boxes = [changed_box(*clips) for clips in zip(before, after, strict=True)]
    assert boxes[0] == boxes[1]
    top, bottom, left, right = boxes[0]
    assert (after[1][:, :, top:bottom, left:right] == 0).all()
    noise = after[0][:, :, top:bottom, left:right]
    assert torch.equal(noise, noise[:, :1].expand_as(noise))


@pytest.mark.parametrize("seed", range(3))
def test_one_box_of_the_partner_is_pasted_into_all_frames_of_both(tmp_path, write_video, seed):
    """Gray 60 and gray 200 make the box visible; its area is the partner's share of the label."""
    entries = []
    for name, level in (("dark", 60), ("light", 200)):
        rgb = np.full((FRAMES, *LARGE, 3), level, np.uint8)
        depth = np.full((FRAMES, *SMALL), 16 * level + 1000, np.uint16)
        write_video(tmp_path / f"{name}.mp4", rgb, options={"crf": "1"})
        write_video(tmp_path / f"{name}.mkv", depth, codec="ffv1", pixel_format="gray16le", options={})
        labels = {"label": name}
        entries.append(Entry(rgb=f"{name}.mp4", depth=f"{name}.mkv", frames=FRAMES, labels=labels))
    facts = preprocessing(PAIRS["h264"]).depth
    manifest = write_manifest(
        tmp_path / "m.csv",
        entries=entries,
        classes={"label": ("dark", "light")},
        dataset="own",
        version="1",
        depth=facts,
    )
    data = VideoDataset(
        manifest,
        sampling=Sampling(frames=6),
        preprocessing=preprocessing(PAIRS["h264"]),
        augmentation=Augmentation(cutmix_alpha=1.0),
    )
    own, partner = Draw(0, (seed, 0, 0)), Draw(1, (seed, 0, 1, 2))
    before, after = data[own], data[Draw(0, own.seed, partner)]
    boxes = [changed_box(before["inputs"][m][0], after["inputs"][m][0]) for m in ("rgb", "depth")]
    assert boxes[0] == boxes[1]
    top, bottom, left, right = boxes[0]
    pasted = after["inputs"]["depth"][0][:, :, top:bottom, left:right]
    assert torch.equal(pasted, data[partner]["inputs"]["depth"][0][:, :, top:bottom, left:right])
    area = (bottom - top) * (right - left) / 56**2
    torch.testing.assert_close(after["targets"]["label"], torch.tensor([1 - area, area]))


def test_a_color_model_can_be_cut_to_the_subject_that_depth_shows(make_pair):
    """The clip is the same as with depth; without a depth file the sample becomes a failure."""
    pair, entry = PAIRS["masked, larger rgb"], make_pair("masked, larger rgb")
    facts = preprocessing(pair).depth
    both = preprocessing(pair, **SUBJECT)
    alone = Preprocessing(short_side=64, size=56, depth=facts, **SUBJECT)
    assert alone.files == ("rgb", "depth")
    seen = [
        read_clips(entry, locate=str, sampling=Sampling(frames=6), preprocessing=chosen)["rgb"]
        for chosen in (both, alone)
    ]
    assert torch.equal(*seen)


def motion(clip):
    """Return the share of the change from frame to frame in each of 4 x 4 cells, (time - 1, 4, 4)."""
    changes = clip.float().mean(0).diff(dim=0).abs()
    return torch.nn.functional.adaptive_avg_pool2d(changes, 4)


def correlation(first, second):
    return torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()


def test_real_pairs_move_at_the_same_time_and_place(real_data):
    """IsoGD: motion in RGB correlates with its own depth, less with one frame later, least with another clip."""
    folder = real_data / "isogd_rgbd"
    lines = (folder / "annotations.csv").read_text().splitlines()[1:]
    own, later, other = [], [], []
    entries = [line.split(",") for line in lines if int(line.split(",")[3]) >= 26][:12]
    found = []
    for rgb, depth, _, frames, _, _ in entries:
        clips = read_clips(
            Entry(rgb=rgb, depth=depth, frames=int(frames)),
            locate=lambda path: str(folder / path),
            sampling=Sampling(rule="dense", frames=24, interval=1),
            preprocessing=Preprocessing(modalities=("rgb", "depth"), short_side=64, size=64),
            augmentation=Augmentation(flip=0.5, rotation=10, rotation_prob=1),
            rng=np.random.default_rng(0),
        )
        found.append((motion(clips["rgb"]), motion(clips["depth"])))
    for place, (rgb, depth) in enumerate(found):
        own.append(correlation(rgb, depth))
        later.append(correlation(rgb[:-1], depth[1:]))
        other.append(correlation(rgb, found[place - 1][1]))
    assert np.mean(own) > np.mean(later) + 0.1
    assert np.mean(own) > np.mean(other) + 0.2

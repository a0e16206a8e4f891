"""Samples are functions of their draw, a training sees all of them, and unreadable ones are never replaced."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.data.dataset import Failure, VideoDataset, read_clips, read_views
from kinema.data.loaders import LoadedBatch, collate, complete, make_loader, to_device
from kinema.data.manifest import Entry, class_lists, write_manifest
from kinema.data.samplers import Draw, TrainingBatches, evaluation_batches
from kinema.errors import UnreadableSample, UnreadableVideo
from kinema.transforms.augment import Augmentation, RandAugment, draw_params, mix
from kinema.transforms.geometry import IDENTITY, Geometry, crop, resize
from kinema.transforms.preprocessing import Preprocessing, depth_to_uint8, jet_colors
from kinema.transforms.sampling import Sampling, segment_indices
from kinema.video.source import read_gray, read_rgb
from kinema.video.video_file import VideoFile

SAMPLING = Sampling(frames=8)
VARIED = Augmentation(short_side=(32, 44), flip=0.5, color_jitter=0.3, mixup_alpha=0.4)


def preprocessing(manifest, modalities=("rgb", "depth")):
    return Preprocessing(modalities=modalities, short_side=36, size=32, depth=manifest.depth)


@pytest.fixture
def dataset(data_set):
    return VideoDataset(data_set, sampling=SAMPLING, preprocessing=preprocessing(data_set), augmentation=VARIED)


def same(first, second):
    return all(
        torch.equal(first[part][name], second[part][name]) for part in ("inputs", "targets") for name in first[part]
    )


def test_a_sample_is_bytes_labels_and_its_place(dataset):
    sample = dataset[Draw(4)]
    assert {m: (tuple(c.shape), c.dtype) for m, c in sample["inputs"].items()} == {
        "rgb": ((1, 3, 8, 32, 32), torch.uint8),
        "depth": ((1, 1, 8, 32, 32), torch.uint8),
    }
    assert sample["targets"] == {"label": torch.tensor(1)}
    assert sample["index"] == 4


def test_an_evaluation_clip_is_the_middle_frames_cut_in_the_middle(data_set):
    """Without resizing, the expected bytes are known exactly for both modalities."""
    plain = Preprocessing(modalities=("rgb", "depth"), short_side=48, size=32, depth=data_set.depth)
    for position, entry in enumerate(data_set.entries):
        sample = VideoDataset(data_set, sampling=SAMPLING, preprocessing=plain)[Draw(position)]
        indices = segment_indices(entry.frames, 8, None).tolist()
        color = read_rgb(data_set.locate(entry.rgb), indices)[:, 8:40, 16:48]
        depth = depth_to_uint8(read_gray(data_set.locate(entry.depth), indices), data_set.depth)[:, 8:40, 16:48]
        np.testing.assert_array_equal(sample["inputs"]["rgb"][0].numpy(), color.transpose(3, 0, 1, 2))
        np.testing.assert_array_equal(sample["inputs"]["depth"][0, 0].numpy(), depth)
        assert data_set.classes["label"][sample["targets"]["label"]] == entry.labels["label"]


def test_a_draw_determines_the_sample(dataset):
    first, again, other = (dataset[Draw(3, seed)] for seed in ((7, 0, 3), (7, 0, 3), (7, 1, 3)))
    assert same(first, again)
    assert not torch.equal(first["inputs"]["rgb"], other["inputs"]["rgb"])
    assert not torch.equal(first["inputs"]["depth"], other["inputs"]["depth"])


def test_nothing_is_drawn_in_an_evaluation(dataset, data_set):
    plain = VideoDataset(data_set, sampling=SAMPLING, preprocessing=preprocessing(data_set))
    assert same(dataset[Draw(2)], plain[Draw(2)])


@pytest.mark.parametrize("seed", range(12))
def test_color_and_depth_of_a_draw_show_the_same_place_at_the_same_time(tmp_path, write_video, depth_facts, seed):
    """A moving square, bright in color and far in depth, is at the same pixel of both clips."""
    color, depth = np.full((20, 48, 64, 3), 20, np.uint8), np.full((20, 48, 64), 600, np.uint16)
    for number in range(20):
        top, left = 14 + number // 2, 18 + number
        color[number, top : top + 10, left : left + 10] = 235
        depth[number, top : top + 10, left : left + 10] = 4400
    entry = Entry(
        rgb=write_video(tmp_path / "color.mp4", color, options={"crf": "1"}),
        depth=write_video(tmp_path / "depth.mkv", depth, codec="ffv1", pixel_format="gray16le", options={}),
        frames=20,
    )
    clips = read_clips(
        entry,
        locate=str,
        sampling=SAMPLING,
        preprocessing=Preprocessing(modalities=("rgb", "depth"), short_side=40, size=32, depth=depth_facts),
        augmentation=Augmentation(short_side=(36, 52), flip=0.5),
        rng=np.random.default_rng(seed),
    )
    rgb, far = (clip[0].double().sub(60).clamp_min(0) for clip in (clips["rgb"], clips["depth"]))
    place = torch.arange(32, dtype=torch.float64)
    for frame in range(8):
        for axis in (0, 1):
            middles = [(light[frame].sum(axis) * place).sum() / light[frame].sum() for light in (rgb, far)]
            assert abs(middles[0] - middles[1]) < 0.6


def test_a_depth_clip_can_have_the_channels_of_a_color_network(data_set):
    wide = Preprocessing(modalities=("depth",), short_side=36, size=32, depth=data_set.depth, depth_channels=3)
    clip = VideoDataset(data_set, sampling=SAMPLING, preprocessing=wide)[Draw(0)]["inputs"]["depth"][0]
    assert clip.shape == (3, 8, 32, 32)
    assert torch.equal(clip[0], clip[1])
    assert torch.equal(clip[0], clip[2])


# -- what three channels of depth are ----------------------------------------------------------------------------------

ALL_AT_ONCE = Augmentation(
    short_side=(34, 44),
    flip=0.5,
    color_jitter=0.4,
    channel_shuffle=1.0,
    rotation=10,
    rotation_prob=0.75,
    randaugment=RandAugment(operations=2),
    erasing=0.75,
)
"""Everything that varies a sample alone; rotation and erasing now and then, so that each is seen without the other."""


def depth_clips(data_set, draw, augmentation=ALL_AT_ONCE, **fields):
    """Read depth as one channel, as three, and in colors."""
    one = dataclasses.replace(preprocessing(data_set), **fields)
    wanted = (one, *(dataclasses.replace(one, depth_channels=3, depth_colors=name) for name in ("gray", "jet")))
    sampling = dataclasses.replace(SAMPLING, clips=2)
    return [
        VideoDataset(data_set, sampling=sampling, preprocessing=cut, augmentation=augmentation)[draw]["inputs"]["depth"]
        for cut in wanted
    ]


def colored_by_hand(levels):
    """Return the color of each level as channels."""
    return torch.from_numpy(jet_colors()[levels.squeeze(-4).numpy()]).movedim(-1, -4)


@pytest.mark.parametrize("modalities", [("depth",), ("rgb", "depth")], ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_three_channels_of_a_varied_draw_are_made_of_its_one(data_set, seed, modalities):
    """Depth of three channels gets no color jitter and no noise, and is not interpolated like RGB."""
    one, gray, colors = depth_clips(data_set, Draw(seed % 6, (0, 0, seed)), modalities=modalities)
    assert one.shape == (1, 1, 8, 32, 32)
    assert torch.equal(gray, one.expand(-1, 3, -1, -1, -1))
    assert torch.equal(colors, colored_by_hand(one))


@pytest.mark.parametrize("mixing", ["mixup_alpha", "cutmix_alpha"])
@pytest.mark.parametrize("seed", range(4))
def test_colors_are_those_of_mixed_depth_not_mixed_themselves(data_set, seed, mixing):
    augmentation = dataclasses.replace(ALL_AT_ONCE, **{mixing: 1.0})
    draw = Draw(seed, (0, 0, seed), Draw(seed + 1, (0, 0, seed + 1, 2)))
    one, gray, colors = depth_clips(data_set, draw, augmentation)
    alone, _, _ = depth_clips(data_set, Draw(seed, (0, 0, seed)), augmentation)
    assert not torch.equal(one, alone)
    assert torch.equal(gray, one.expand(-1, 3, -1, -1, -1))
    assert torch.equal(colors, colored_by_hand(one))


def test_those_draws_turn_and_erase_and_do_neither(data_set):
    """The test above depends on it."""
    rngs = [np.random.default_rng((0, 0, seed)) for seed in range(12)]
    drawn = [draw_params(ALL_AT_ONCE, preprocessing(data_set), rng) for rng in rngs]
    seen = {(varied.geometry.warp != IDENTITY, varied.erasing is not None) for varied in drawn}
    assert seen >= {(True, True), (True, False), (False, False)}


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("position", [0, 7])
def test_three_channels_of_all_views_are_made_of_their_one(data_set, position, crops):
    one, gray, colors = depth_clips(data_set, Draw(position), crops=crops)
    assert one.shape == (2 * crops, 1, 8, 32, 32)
    assert torch.equal(gray, one.expand(-1, 3, -1, -1, -1))
    assert torch.equal(colors, colored_by_hand(one))


def depth_in_colors(path, facts, **variation):
    colors = Preprocessing(
        modalities=("depth",), short_side=36, size=32, depth=facts, depth_channels=3, depth_colors="jet"
    )
    entry = Entry(depth=path, frames=10)
    return read_clips(entry, locate=str, sampling=SAMPLING, preprocessing=colors, **variation)["depth"]


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)], ids=["middle", "drawn"])
def test_a_color_is_never_between_two_colors(tmp_path, write_video, depth_facts, rng):
    """At an edge between near and far, the clip shows depths between them, and no mixed color."""
    depth = np.full((10, 48, 64), 600, np.uint16)
    depth[:, :, 31:] = 4400
    path = write_video(tmp_path / "edge.mkv", depth, codec="ffv1", pixel_format="gray16le", options={})
    clip = depth_in_colors(path, depth_facts, augmentation=Augmentation(short_side=(37, 44)), rng=rng)
    shown = {tuple(color) for color in clip.flatten(1).T.tolist()}
    near, far = (tuple(jet_colors()[level].tolist()) for level in depth_to_uint8(depth[0, 0, [0, -1]], depth_facts))
    assert shown > {near, far}
    assert shown <= {tuple(color) for color in jet_colors().tolist()}


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)], ids=["middle", "drawn"])
def test_depth_without_a_reading_is_dark_blue_all_over(tmp_path, write_video, depth_facts, rng):
    empty = np.zeros((10, 48, 64), np.uint16)
    path = write_video(tmp_path / "empty.mkv", empty, codec="ffv1", pixel_format="gray16le", options={})
    clip = depth_in_colors(path, depth_facts, augmentation=ALL_AT_ONCE, rng=rng)
    assert torch.equal(clip, torch.tensor([0, 0, 128], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 8, 32, 32))


def numbered_clip(path, read_stamps, **segment):
    plain = Preprocessing(short_side=48, size=48)
    entry = Entry(rgb=path, **segment)
    clip = read_clips(entry, locate=str, sampling=Sampling(frames=4), preprocessing=plain)["rgb"]
    assert clip.shape == (3, 4, 48, 48)
    # The crop shows bars 1 to 6 of 0 to 7; those are widened to the whole picture to be read as it is.
    bars = clip.permute(1, 2, 3, 0).numpy()
    padded = np.zeros((4, 48, 64, 3), np.uint8)
    padded[:, :, 8:56] = bars
    return read_stamps(padded)


@pytest.mark.parametrize(
    ("segment", "start", "stop"),
    [
        ({}, 0, 200),
        ({"frames": 120}, 0, 120),
        ({"start_frame": 40, "stop_frame": 60}, 40, 60),
        ({"start_frame": 40, "stop_frame": 42, "frames": 200}, 40, 42),
        ({"start_s": 4.0, "stop_s": 6.0}, 100, 150),
    ],
    ids=str,
)
def test_a_clip_comes_from_its_segment(numbered, read_stamps, segment, start, stop):
    shown = 0b01111110
    wanted = [(start + int(i)) & shown for i in segment_indices(stop - start, 4, None)]
    assert numbered_clip(numbered, read_stamps, **segment) == wanted


def test_a_missing_modality_is_named(data_set, raises):
    entry = dataclasses.replace(data_set.entries[0], depth="")
    with raises(UnreadableVideo, "the model", field="depth"):
        read_clips(entry, locate=data_set.locate, sampling=SAMPLING, preprocessing=preprocessing(data_set))


def all_batches(data, batches, workers):
    loader = make_loader(data, batches, workers=workers, pin_memory=False)
    return [complete(loaded) for loaded in loader]


def test_the_number_of_workers_does_not_change_the_batches(dataset, data_set):
    batches = TrainingBatches(data_set.positions("train"), batch_size=4, steps=3, seed=5, mixup="partner")
    alone, helped = (all_batches(dataset, batches, workers) for workers in (0, 2))
    assert len(alone) == len(helped) == 3
    for first, second, draws in zip(alone, helped, batches, strict=True):
        assert same(first, second)
        assert first["index"].tolist() == second["index"].tolist() == [draw.index for draw in draws]


def test_a_batch_is_its_samples_in_order(dataset):
    draws = [Draw(i, (0, 0, i)) for i in (5, 0, 3)]
    (batch,) = all_batches(dataset, [draws], 0)
    for row, draw in enumerate(draws):
        sample = dataset[draw]
        assert all(torch.equal(batch["inputs"][m][row], clip[0]) for m, clip in sample["inputs"].items())
        assert batch["targets"]["label"][row] == sample["targets"]["label"]
    assert same(to_device(batch, torch.device("cpu")), batch)
    assert to_device(batch, torch.device("cpu"))["index"].tolist() == [5, 0, 3]


def rows(batches):
    return [draw for batch in batches for draw in batch]


@pytest.mark.parametrize(("samples", "batch_size"), [(10, 4), (7, 7), (5, 8), (12, 5), (1, 3)])
def test_every_pass_holds_every_sample_exactly_once_also_across_batches(samples, batch_size):
    positions = [3 * i + 1 for i in range(samples)]
    passes = 6
    batches = TrainingBatches(positions, batch_size=batch_size, steps=passes * samples, seed=0)
    assert all(len(batch) == batch_size for batch in batches)
    drawn = [draw.index for draw in rows(batches)]
    assert len(drawn) == passes * samples * batch_size
    for first in range(0, len(drawn), samples):
        assert sorted(drawn[first : first + samples]) == positions
    if samples > 4:
        assert len({tuple(drawn[first : first + samples]) for first in range(0, len(drawn), samples)}) > passes / 2


@pytest.mark.parametrize("mixup", ["none", "partner"])
@pytest.mark.parametrize("first_step", [0, 1, 7, 19, 20])
def test_going_on_from_a_step_is_the_tail_of_the_whole(mixup, first_step):
    whole = TrainingBatches(range(9), batch_size=4, steps=20, seed=2, mixup=mixup)
    tail = TrainingBatches(range(9), batch_size=4, steps=20, first_step=first_step, seed=2, mixup=mixup)
    assert len(tail) == 20 - first_step
    assert list(tail) == list(whole)[first_step:]


def test_the_order_is_a_function_of_the_seed():
    one, again, other = (list(TrainingBatches(range(9), batch_size=4, steps=20, seed=seed)) for seed in (2, 2, 3))
    assert one == again
    assert one != other
    assert list(TrainingBatches(range(9), batch_size=4, steps=20, seed=2)) == one


@pytest.mark.parametrize("mixup", ["none", "partner"])
def test_no_two_draws_of_a_training_have_the_same_seed(mixup):
    drawn = rows(TrainingBatches(range(9), batch_size=4, steps=45, seed=2, mixup=mixup))
    seeds = [draw.seed for draw in [*drawn, *(draw.partner for draw in drawn if draw.partner)]]
    assert len(set(seeds)) == len(seeds)


def test_partners_are_a_pass_of_their_own():
    drawn = rows(TrainingBatches(range(50), batch_size=10, steps=5, seed=2, mixup="partner"))
    assert sorted(draw.partner.index for draw in drawn) == list(range(50))
    assert sum(draw.partner.index == draw.index for draw in drawn) < 10


def test_an_evaluation_sees_every_sample_once_and_in_order():
    batches = evaluation_batches([4, 2, 9, 7, 1], 2)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert rows(batches) == [Draw(i) for i in (4, 2, 9, 7, 1)]


@pytest.fixture
def broken_set(tmp_path, data_set):
    """Three good samples and, at position 1, a text file."""
    entries = [dataclasses.replace(data_set.entries[i], rgb=data_set.locate(data_set.entries[i].rgb)) for i in range(4)]
    (tmp_path / "text.mp4").write_text("no video")
    entries[1] = dataclasses.replace(entries[1], rgb="text.mp4")
    manifest = write_manifest(
        tmp_path / "broken.csv", entries=entries, classes=class_lists(entries), dataset="own", version="1", depth=None
    )
    return VideoDataset(
        manifest, sampling=SAMPLING, preprocessing=preprocessing(manifest, ("rgb",)), augmentation=VARIED
    )


def test_an_unreadable_file_becomes_a_failure_that_names_manifest_line_and_file(broken_set):
    failure = broken_set[Draw(1)]
    assert isinstance(failure, Failure)
    assert failure.index == 1
    assert "broken.csv, line 3: " in failure.message
    assert "text.mp4: not a readable video" in failure.message


def test_a_video_that_has_fewer_frames_than_its_line_says_is_a_failure(data_set):
    entries = list(data_set.entries)
    entries[0] = dataclasses.replace(entries[0], frames=40)
    longer = dataclasses.replace(data_set, entries=tuple(entries))
    failure = VideoDataset(longer, sampling=SAMPLING, preprocessing=preprocessing(data_set))[Draw(0)]
    assert isinstance(failure, Failure)
    assert "color 0.mp4: frame 37 " in failure.message
    assert "10 frames" in failure.message


def test_a_partner_that_cannot_be_read_is_the_one_that_is_named(broken_set):
    failure = broken_set[Draw(0, (0, 0, 0), Draw(1, (0, 0, 1, 2)))]
    assert isinstance(failure, Failure)
    assert "broken.csv, line 3: " in failure.message
    assert "text.mp4" in failure.message


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_stands_in_for_what_cannot_be_read(broken_set, workers):
    (loaded,) = make_loader(broken_set, evaluation_batches(range(4), 4), workers=workers, pin_memory=False)
    assert [failure.index for failure in loaded.failures] == [1]
    assert loaded.batch["index"].tolist() == [0, 2, 3]
    assert loaded.batch["inputs"]["rgb"].shape[0] == 3
    assert torch.equal(loaded.batch["inputs"]["rgb"][1], broken_set[Draw(2)]["inputs"]["rgb"][0])


def test_an_incomplete_batch_is_refused_by_the_sample_that_is_missing(broken_set, raises):
    loaded = collate([broken_set[Draw(i)] for i in (0, 1)])
    with raises(UnreadableSample, "broken.csv, line 3: ", path="text.mp4", line=3):
        complete(loaded)
    with raises(UnreadableSample, "1 more", path="text.mp4", line=3):
        complete(collate([broken_set[Draw(1)], broken_set[Draw(1)]]))
    assert complete(LoadedBatch(loaded.batch, ())) is loaded.batch


@pytest.mark.parametrize("place", range(6))
def test_mixup_is_one_weight_for_all_modalities_and_heads(tmp_path, data_set, place):
    """Both samples of the pair, read alone, and one weight between them explain every byte and every label."""
    entries = [
        dataclasses.replace(
            entry,
            rgb=data_set.locate(entry.rgb),
            depth=data_set.locate(entry.depth),
            labels={"verb": f"v{i % 3}", "noun": f"n{i % 4}"},
        )
        for i, entry in enumerate(data_set.entries)
    ]
    manifest = write_manifest(
        tmp_path / "m.csv",
        entries=entries,
        classes=class_lists(entries),
        dataset="own",
        version="1",
        depth=data_set.depth,
    )
    data = VideoDataset(manifest, sampling=SAMPLING, preprocessing=preprocessing(manifest), augmentation=VARIED)
    first, second = Draw(place, (0, 0, place)), Draw(place + 4, (0, 0, place + 4, 2))
    own, partner, mixed = data[first], data[second], data[dataclasses.replace(first, partner=second)]

    assert mixed["index"] == place
    weight = float(mixed["targets"]["verb"][own["targets"]["verb"]])
    assert 0 < weight < 1
    for head, size in manifest.heads.items():
        shares = mixed["targets"][head]
        expected = torch.zeros(size)
        expected[own["targets"][head]] += weight
        expected[partner["targets"][head]] += 1 - weight
        torch.testing.assert_close(shares, expected)
        torch.testing.assert_close(shares.sum(), torch.tensor(1.0))
    for modality, clip in mixed["inputs"].items():
        assert clip.dtype == torch.uint8
        expected = weight * own["inputs"][modality].double() + (1 - weight) * partner["inputs"][modality].double()
        assert (clip - expected).abs().max() <= 0.51


def test_mixup_weights_follow_the_beta_distribution(dataset):
    black, white = {"rgb": torch.zeros(1, dtype=torch.uint8)}, {"rgb": torch.full((1,), 255, dtype=torch.uint8)}
    rngs = [np.random.default_rng((0, epoch, 0, 1)) for epoch in range(2000)]
    weights = [mix(black, white, dataset.augmentation, rng)[1] for rng in rngs]
    expected = np.random.default_rng(0).beta(0.4, 0.4, size=20000)
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert abs(np.quantile(weights, share) - np.quantile(expected, share)) < 0.06


def test_real_pairs_of_color_and_depth_have_the_same_frames(real_data):
    """IsoGD: both files of a pair at the same place, sizes and lengths as its table says."""
    lines = (real_data / "isogd_rgbd" / "annotations.csv").read_text().splitlines()[1:9]
    eight_bit = Preprocessing(modalities=("rgb", "depth"), short_side=36, size=32)
    for line in lines:
        rgb, depth, _, frames, _, _ = line.split(",")
        entry = Entry(rgb=rgb, depth=depth, frames=int(frames))
        folder = Path(real_data / "isogd_rgbd")
        clips = read_clips(entry, locate=lambda p, at=folder: str(at / p), sampling=SAMPLING, preprocessing=eight_bit)
        assert {m: tuple(clip.shape) for m, clip in clips.items()} == {"rgb": (3, 8, 32, 32), "depth": (1, 8, 32, 32)}


# -- views of a test ---------------------------------------------------------------------------------------------------


@pytest.fixture
def viewed(data_set):
    """Two clips of three crops of each sample."""
    three = dataclasses.replace(preprocessing(data_set), crops=3)
    return VideoDataset(
        data_set, sampling=dataclasses.replace(SAMPLING, clips=2), preprocessing=three, augmentation=VARIED
    )


def test_an_evaluation_has_all_views_of_a_sample(viewed, data_set):
    """Each view equals the crop of its frames alone."""
    sample = viewed[Draw(4)]
    entry = data_set.entries[4]
    color = read_rgb(data_set.locate(entry.rgb), range(entry.frames))
    depth = depth_to_uint8(read_gray(data_set.locate(entry.depth), range(entry.frames)), data_set.depth)
    views = viewed.sampling.views(entry.frames)
    for number in range(6):
        clip, place = divmod(number, 3)
        geometry = Geometry(36, 0.5, (0.0, 0.5, 1.0)[place], mirrored=False)
        for modality, frames in (("rgb", color), ("depth", depth[..., None])):
            alone = crop(torch.from_numpy(frames[views[clip]]), geometry, 32)
            assert torch.equal(sample["inputs"][modality][number], alone)
    assert sample["inputs"]["rgb"].shape == (6, 3, 8, 32, 32)
    assert sample["inputs"]["depth"].shape == (6, 1, 8, 32, 32)


def test_a_training_draw_is_one_clip_whatever_the_views_of_a_test(viewed, dataset):
    assert same(viewed[Draw(3, (7, 0, 3))], dataset[Draw(3, (7, 0, 3))])


def test_a_batch_of_views_has_labels_and_places_once_a_sample(viewed):
    batch = complete(collate([viewed[Draw(i)] for i in (5, 0)]))
    assert batch["inputs"]["rgb"].shape == (12, 3, 8, 32, 32)
    assert batch["index"].tolist() == [5, 0]
    assert batch["targets"]["label"].shape == (2,)
    assert torch.equal(batch["inputs"]["rgb"][6:], viewed[Draw(0)]["inputs"]["rgb"])


@pytest.mark.parametrize("channels", [1, 3])
def test_all_views_of_depth_have_its_channels(viewed, channels):
    viewed.preprocessing = dataclasses.replace(viewed.preprocessing, depth_channels=channels)
    assert viewed[Draw(0)]["inputs"]["depth"].shape == (6, channels, 8, 32, 32)


def test_frames_that_several_views_share_are_read_and_resized_once(data_set, monkeypatch):
    read, sizes = [], []

    read_rgb = VideoFile.read_rgb

    def counted(source, indices):
        read.append(list(indices))
        return read_rgb(source, indices)

    def measured(frames, *settings):
        sizes.append(len(frames))
        return resize(frames, *settings)

    monkeypatch.setattr(VideoFile, "read_rgb", counted)
    monkeypatch.setattr("kinema.transforms.geometry.resize", measured)
    entry = data_set.entries[0]  # of 10 frames
    views = read_views(
        entry,
        locate=data_set.locate,
        sampling=dataclasses.replace(SAMPLING, clips=5),
        preprocessing=dataclasses.replace(preprocessing(data_set, ("rgb",)), crops=3),
    )
    assert len(views["rgb"]) == 15
    assert read == [list(range(10))]
    assert sizes == [10]


# -- mixtures ----------------------------------------------------------------------------------------------------------


def test_a_cut_mixture_has_the_labels_of_its_pixels(data_set):
    augmentation = Augmentation(cutmix_alpha=1.0)
    data = VideoDataset(data_set, sampling=SAMPLING, preprocessing=preprocessing(data_set), augmentation=augmentation)
    own, partner = Draw(0, (0, 0, 0)), Draw(1, (0, 0, 1, 2))
    mixture = data[dataclasses.replace(own, partner=partner)]
    assert same(mixture, data[dataclasses.replace(own, partner=partner)])
    parts = [data[draw]["inputs"]["rgb"] for draw in (own, partner)]
    pasted = (mixture["inputs"]["rgb"] != parts[0]).any(1).any(1)[0]
    assert torch.where(pasted, parts[1], parts[0]).equal(mixture["inputs"]["rgb"])
    share = mixture["targets"]["label"][1].item()
    assert pasted.double().mean().item() == pytest.approx(share, abs=0.05)
    assert 0 < share < 1

"""The frame rate of a training: known from the manifest, kept in the model, stated where files differ."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kinema.cli.app import main
from kinema.curation.check import check
from kinema.data.manifest import Entry, load_manifest, write_manifest
from kinema.datasets.prepared import write_prepared
from kinema.errors import ConfigError
from kinema.inference.recognizer import Recognizer
from kinema.training.messages import rate_messages
from kinema.training.recipe import Clip
from kinema.training.recipe_json import recipe_from_json, recipe_to_json
from kinema.training.setup import TrainingSetup
from kinema.transforms.sampling import Sampling
from kinema.video.read_options import ReadOptions

CLIP = Clip(frames=8, size=32, short_side=36, sampling="dense", interval=4)


@pytest.fixture(scope="module")
def rates(tmp_path_factory, write_video, stamp):
    """Return a prepared manifest of eight files at 30/s, three at 60/s, and one of a varying rate."""
    folder = tmp_path_factory.mktemp("rates")
    entries = []
    for number in range(12):
        count, rate = (40, 30) if number < 8 else (80, 60)
        times = np.r_[np.arange(20) / 30, 2 / 3 + np.arange(20) / 5] if number == 11 else None
        pictures = [stamp(n + 3 * number) for n in range(40 if number == 11 else count)]
        write_video(folder / f"{number}.mp4", pictures, rate=rate, times=times)
        split = "val" if number % 4 == 3 else "train"
        entries.append(Entry(rgb=f"{number}.mp4", split=split, labels={"label": "ab"[number % 2]}))
    return write_prepared(entries, folder / "m.csv", base=folder, dataset="rates")


def test_prepare_writes_the_rate_and_counts_the_files(rates):
    found = [entry.rate for entry in rates.manifest.entries]
    assert found[:8] == pytest.approx([30] * 8, rel=1e-3)
    assert found[8:11] == pytest.approx([60] * 3, rel=1e-3)
    assert found[11] is None
    (note,) = (note for note in rates.notes if "frame rate" in note)
    assert "30/s: 8, 60/s: 3, varying: 1" in note


def test_a_rate_of_zero_and_rates_of_images_stay(tmp_path, fill_pictures, write_video, stamp):
    fill_pictures(tmp_path, "a", "b")
    write_video(tmp_path / "c.mp4", [stamp(n) for n in range(9)])
    write_video(tmp_path / "d.mp4", [stamp(n) for n in range(9)])
    given = {"a": 12.5, "b": None, "c.mp4": 0.0, "d.mp4": 99.0}
    entries = [Entry(rgb=n, rate=r, split="train", labels={"label": n[0]}) for n, r in given.items()]
    written = write_prepared(entries, tmp_path / "m.csv", base=tmp_path, dataset="own").manifest
    assert [entry.rate for entry in load_manifest(written.path).entries] == [12.5, None, 0.0, 25.0]


def test_check_lists_the_rates(rates, tmp_path):
    result = check(rates.manifest, journal=tmp_path / "j.jsonl", read_options=ReadOptions())
    (finding,) = (finding for finding in result.findings if finding.kind == "rates")
    assert (finding.severity, finding.modality) == ("note", "rgb")
    assert "30/s: 8, 60/s: 3, varying: 1" in finding.sentence
    assert [f.file for f in result.findings if f.kind == "variable rate"] == ["11.mp4"]


def test_the_model_keeps_the_median_rate_of_its_training(rates, tiny_recipe, tmp_path):
    recipe = replace(
        tiny_recipe,
        clip=replace(tiny_recipe.clip, sampling="dense", interval=4),
        data=replace(tiny_recipe.data, manifest=str(rates.manifest.path), train="train", evaluate="val"),
        run=replace(tiny_recipe.run, out=tmp_path / "run"),
    )
    setup = TrainingSetup.build(recipe)
    assert setup.sampling.rate == pytest.approx(30, rel=1e-3)
    assert setup.sampling == setup.trained_model(setup.model).sampling
    recognizer = Recognizer(setup.trained_model(setup.model), device="cpu")
    slow, fast = (recognizer.prepare(rates.manifest.locate(f"{n}.mp4"))["rgb"] for n in (0, 8))
    assert slow.shape == fast.shape
    (message,) = rate_messages(setup.sampling, [30.0] * 8 + [60.0] * 3, rates.manifest.path)
    assert "30: 8" in message
    assert "60: 3" in message
    assert "4 frames at 30/s = 0.133 s" in message


@pytest.mark.parametrize(
    ("rate", "known", "expected"),
    [
        ("auto", [25.0, 30.0, 60.0], 30.0),
        ("auto", [30.0, 60.0], 30.0),
        ("auto", [], None),
        ("any", [30.0], None),
        (50.0, [30.0], 50.0),
    ],
    ids=str,
)
def test_the_rate_that_an_interval_counts(rate, known, expected):
    assert replace(CLIP, rate=rate).frame_sampling(known).rate == expected
    assert replace(CLIP, sampling="segments", interval=None, rate=rate).frame_sampling(known).rate is None


def test_messages_of_equal_and_unknown_rates(tmp_path):
    sampling = CLIP.frame_sampling([30.0])
    assert rate_messages(sampling, [30.0, 29.97], tmp_path) == []
    assert "unknown" in rate_messages(CLIP.frame_sampling([]), [], tmp_path)[0]
    assert (
        "clip.interval counts" in rate_messages(replace(CLIP, rate="any").frame_sampling([]), [30.0, 60.0], tmp_path)[0]
    )
    assert rate_messages(Sampling(frames=8), [30.0, 60.0], tmp_path) == []


def test_recipes_store_the_choice_and_old_ones_have_none(tiny_recipe):
    for clip in (replace(CLIP, rate="any"), replace(CLIP, rate=29.97), replace(CLIP, interval=None, interval_s=0.1)):
        recipe = replace(tiny_recipe, clip=replace(clip, size=tiny_recipe.clip.size, frames=tiny_recipe.clip.frames))
        assert recipe_from_json(recipe_to_json(recipe)) == recipe
    stored = json.loads(recipe_to_json(tiny_recipe))
    del stored["clip"]["rate"], stored["clip"]["interval_s"]
    assert recipe_from_json(json.dumps(stored)) == tiny_recipe


def test_one_of_two_intervals(tiny_recipe):
    with pytest.raises(ConfigError):
        replace(tiny_recipe, clip=replace(CLIP, interval_s=0.1))


def test_sampling_prints_seconds(rates, tmp_path, capsys):
    (tmp_path / "dense.py").write_text(
        "from dataclasses import replace\n"
        "from kinema.recipes.moves_ctn_tiny import RECIPE as MOVES\n"
        "RECIPE = replace(MOVES, clip=replace(MOVES.clip, frames=8, sampling='dense', interval=4))\n"
    )
    lines = {}
    for index in (0, 8, 11):
        main(["sampling", str(rates.manifest.path), "--index", str(index), "--recipe", str(tmp_path / "dense.py")])
        lines[index] = capsys.readouterr().out.splitlines()
    assert "30 frames per second, from 0.000 to 1.300 s" in lines[0][0]
    assert lines[0][1] == "evaluation: 5 9 13 17 21 25 29 33"
    frames = [int(number) for number in lines[8][1].split()[1:]]
    assert np.diff(frames).tolist() == [8] * 7
    times = [float(time) for time in lines[8][2].split()[1:]]
    np.testing.assert_allclose(np.diff(times), 4 / 30, atol=0.002)
    assert "seconds:" in lines[11][2]


def test_a_manifest_without_the_column_is_written_as_before(tmp_path):
    entries = [Entry(rgb=f"{n}.mp4", frames=9, split="train", labels={"label": "ab"[n % 2]}) for n in range(2)]
    manifest = write_manifest(
        tmp_path / "m.csv", entries=entries, classes={"label": ("a", "b")}, dataset="own", version="1", depth=None
    )
    assert manifest.path.read_text() == "rgb,frames,split,label\n0.mp4,9,train,a\n1.mp4,9,train,b\n"

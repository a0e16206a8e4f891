"""Parts that all datasets share: discovery, lists, files on disk, and their join."""

import subprocess
import sys
from pathlib import Path

import pytest

from kinema.data.manifest import Entry
from kinema.datasets.ntu import Ntu60Options
from kinema.datasets.ntu import prepare as prepare_ntu
from kinema.datasets.options import DatasetOptions, OwnDataOptions
from kinema.datasets.registry import get_dataset, list_datasets
from kinema.datasets.skeleton import ListedSample, find_files, find_lists, join, read_lines, read_listing
from kinema.errors import ConfigError, ManifestError, UsageError

NAMES = [
    "folder",
    "csv",
    "json",
    "diving48",
    "epic_kitchens",
    "hmdb51",
    "isogd",
    "jhmdb",
    "msr_action3d",
    "ntu60",
    "ntu120",
    "ucf101",
]

TRIAL = """
from kinema.config import config
from kinema.datasets.options import DatasetOptions
from kinema.datasets.registry import DatasetSpec

@config
class TrialOptions(DatasetOptions):
    '''Make a manifest of the trial dataset.'''

def prepare(options):
    raise SystemExit(f"prepared {options.root}")

SPECS = (DatasetSpec("trial", "Trial: 3 videos of 2 actions.", TrialOptions, prepare),)
"""


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_has_options_and_a_function(name):
    spec = get_dataset(name)
    assert spec.name == name
    assert issubclass(spec.options, DatasetOptions)
    assert spec.summary.endswith(".")
    with pytest.raises(ManifestError):
        spec.prepare(spec.options(root=Path("missing"), out=Path("m.csv")))


def test_own_data_is_listed_before_public_datasets():
    assert list(list_datasets()) == NAMES


@pytest.mark.parametrize(
    ("args", "output"),
    [
        (["--help"], "  trial          Trial: 3 videos of 2 actions."),
        (["trial", "--root", "r", "--out", "m.csv"], "prepared r"),
    ],
)
def test_a_new_module_adds_its_dataset_to_the_command(tmp_path, args, output):
    """A module in the package's path is enough; no other file is edited."""
    (tmp_path / "trial.py").write_text(TRIAL)
    code = (
        "import sys, kinema.cli, kinema.datasets\n"
        "kinema.datasets.__path__.append(sys.argv[1])\n"
        "kinema.cli.main(['prepare', *sys.argv[2:]])"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path), *args], capture_output=True, text=True)
    assert output in result.stdout + result.stderr


def test_an_unknown_dataset_is_refused_with_the_nearest_name(raises):
    with raises(UsageError, "ucf101", field="dataset"):
        get_dataset("ucf_101")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"depth_unit": 1.0}, "depth_unit"),
        ({"depth_coverage": "masked"}, "depth_coverage"),
        ({"depth_range": (5.0, 2.0)}, "near=5.0"),
    ],
)
def test_depth_options_without_effect_are_refused(raises, options, word):
    with raises(ConfigError, word):
        OwnDataOptions(root=Path("r"), out=Path("m.csv"), **options)


def sample(path, name, *, line=1, split="train", label="a", **sources):
    entry = Entry(split=split, labels={"label": label}, **(sources or {"rgb": name}))
    return ListedSample(name=name, entry=entry, path=path, line=line)


def join_samples(options, *samples, folders=("",), classes=("a", "b")):
    files = find_files(options.root, folders, videos, example="1.mp4")
    declared = {"train": 2, "test": 1}
    facts = {"dataset": "Own", "lists": "list.txt", "version": "1", "classes": classes, "declared": declared}
    return join(options, samples, files, **facts)


def videos(folder):
    yield from ((path.stem, path) for path in sorted(folder.glob("*.mp4")))


@pytest.fixture
def options(tmp_path):
    (tmp_path / "d").mkdir()
    return DatasetOptions(root=tmp_path / "d", out=tmp_path / "m.csv")


def test_join_writes_listed_samples_on_disk_and_counts_the_rest(tmp_path, fill, options, match_notes):
    fill(options.root, "1.mp4", "2.mp4", "extra.mp4")
    path = tmp_path / "list.txt"
    samples = sample(path, "1"), sample(path, "gone", split="test"), sample(path, "2", split="", label="b")
    prepared = join_samples(options, *samples)
    assert [(e.rgb, e.split, e.frames) for e in prepared.manifest.entries] == [("d/1.mp4", "train", 9)]
    assert prepared.manifest.declared == {"train": 2, "test": 1}
    assert match_notes(prepared.notes, "1 2 classes b", "1 samples list.txt gone", "1 files list.txt extra.mp4")


def test_a_sample_needs_all_of_its_files(tmp_path, fill, options):
    fill(options.root, "1.mp4", "2.mp4", "2d.mp4")
    path = tmp_path / "list.txt"
    samples = sample(path, "1", rgb="1", depth="1d"), sample(path, "2", rgb="2", depth="2d", label="b")
    prepared = join_samples(options, *samples)
    assert [(e.rgb, e.depth) for e in prepared.manifest.entries] == [("d/2.mp4", "d/2d.mp4")]


@pytest.mark.parametrize("name", ["v.zip", "v.tar", "v.tar.gz", "v.tgz", "v.RAR", "v.7z"])
def test_archives_are_noted_if_samples_are_missing(tmp_path, fill, options, raises, name):
    """Every dataset names every kind of archive."""
    path = tmp_path / "list.txt"
    (options.root / name).touch()
    with raises(ManifestError, name, path=options.root):
        join_samples(options, sample(path, "1"), folders=("v", ""))
    fill(options.root, "1.mp4")
    assert not any(name in note for note in join_samples(options, sample(path, "1"), folders=("v", "")).notes)
    with raises(ManifestError, name, path=options.root):
        prepare_ntu(Ntu60Options(root=options.root, out=options.out))


def test_the_first_folder_with_files_is_used(tmp_path, fill, raises, match_notes):
    fill(tmp_path, "b/1.mp4", "c/1.mp4", "c/2.mp4")
    files = find_files(tmp_path, ("a", "b", "c"), videos, example="1.mp4")
    assert files.paths == {"1": "b/1.mp4"}
    assert files.searched == "a/1.mp4, b/1.mp4, c/1.mp4"
    assert match_notes(files.notes, f"2 files {tmp_path / 'c'} ignored {tmp_path / 'b'}")
    with raises(ManifestError, "b/1.mp4", path="2.mp4"):
        find_files(tmp_path, ("c",), lambda d: (("1", p) for p in (tmp_path / "b/1.mp4", d / "2.mp4")), example="")


def test_a_sample_in_two_lists_is_refused(tmp_path, raises):
    paths = {"train": tmp_path / "a.txt", "test": tmp_path / "b.txt"}
    with raises(ManifestError, "a.txt, line 7", path="b.txt", line=7):
        read_listing(paths, lambda path, split: [sample(path, "same", line=7, split=split)])


def test_a_list_may_have_a_byte_order_mark_but_must_be_utf8(tmp_path, raises):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf1 a\n\n2 b \n")
    assert read_lines(path) == [(1, "1 a"), (3, "2 b")]
    path.write_bytes(b"Caf\xe9")
    with raises(ManifestError, "UTF-8", path=path):
        read_lines(path)
    with raises(ManifestError, path="gone.txt"):
        read_lines(tmp_path / "gone.txt")


def test_a_split_without_a_list_is_noted_unless_it_is_optional(tmp_path, raises, match_notes):
    names = {"train": ("a.txt", "b.txt"), "val": ("v.txt",), "test": ("t.txt",)}
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "b.txt").touch()
    paths, notes = find_lists(tmp_path, ("", "lists"), names, optional=("test",))
    assert paths == {"train": tmp_path / "lists" / "b.txt"}
    assert match_notes(notes, f"val v.txt {tmp_path}")
    with raises(ManifestError, "a.txt, b.txt, v.txt, t.txt", path=tmp_path):
        find_lists(tmp_path, ("",), names)


@pytest.mark.parametrize(
    ("name", "split"), [("ucf101", 1), ("hmdb51", 1), ("ntu60", "cross_subject"), ("ntu120", "cross_subject")]
)
def test_the_first_official_split_is_the_default(name, split):
    assert get_dataset(name).options(root=Path("r"), out=Path("m.csv")).split == split

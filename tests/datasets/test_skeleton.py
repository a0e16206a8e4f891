"""What all data sets share: the registry, the lists, the files on disk, and their join."""

from pathlib import Path

import pytest

from kinema.data.manifest import Entry
from kinema.datasets.listing import ListedSample, Listing, find_lists, read_lines, read_listing
from kinema.datasets.ntu import Ntu60Options
from kinema.datasets.ntu import prepare as prepare_ntu
from kinema.datasets.options import DatasetOptions, OwnDataOptions
from kinema.datasets.registry import DATASETS, load_dataset
from kinema.datasets.skeleton import find_files, join
from kinema.errors import ConfigError, ManifestError, UsageError


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_of_the_registry_has_options_and_a_function(name):
    options, prepare = load_dataset(name)
    assert issubclass(options, DatasetOptions)
    assert prepare.__module__ == options.__module__
    made = options(root=Path("r"), out=Path("m.csv"))
    with pytest.raises(ManifestError):  # there is no such root
        prepare(made)


def test_an_unknown_data_set_is_refused_with_the_nearest_name(raises):
    with raises(UsageError, "ucf101", field="dataset"):
        load_dataset("ucf_101")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"depth_unit": 1.0}, "depth_unit"),
        ({"depth_coverage": "masked"}, "depth_coverage"),
        ({"depth_range": (5.0, 2.0)}, "near=5.0"),
    ],
)
def test_facts_of_depth_that_mean_nothing_are_refused(raises, options, word):
    with raises(ConfigError, word):
        OwnDataOptions(root=Path("r"), out=Path("m.csv"), **options)


def sample(path, name, *, line=1, split="train", label="a", **sources):
    entry = Entry(split=split, labels={"label": label}, **(sources or {"rgb": name}))
    return ListedSample(name=name, entry=entry, path=path, line=line)


def listing(*samples, classes=("a", "b"), declared=None):
    return Listing(
        dataset="Own",
        lists="list.txt",
        version="1",
        samples=samples,
        classes=classes,
        declared=declared or {"train": 2, "test": 1},
    )


def videos(folder):
    yield from ((path.stem, path) for path in sorted(folder.glob("*.mp4")))


@pytest.fixture
def options(tmp_path):
    (tmp_path / "d").mkdir()
    return DatasetOptions(root=tmp_path / "d", out=tmp_path / "m.csv")


def test_listed_samples_that_are_on_disk_become_the_manifest_and_the_rest_is_counted(tmp_path, fill, options):
    fill(options.root, "1.mp4", "2.mp4", "extra.mp4")
    path = tmp_path / "list.txt"
    listed = listing(sample(path, "1"), sample(path, "gone", split="test"), sample(path, "2", split="", label="b"))
    prepared = join(options, listed, find_files(options.root, ("",), videos, example="1.mp4"))
    assert [(e.rgb, e.split, e.frames) for e in prepared.manifest.entries] == [("d/1.mp4", "train", 9)]
    assert prepared.manifest.declared == {"train": 2, "test": 1}
    assert prepared.notes == (
        "1 of 2 classes have no sample on disk: b",
        "1 samples of list.txt are not on disk and are omitted; coverage counts them as missing: gone",
        "1 files on disk are not in list.txt and are omitted: extra.mp4",
    )


def test_a_sample_needs_all_of_its_files(tmp_path, fill, options):
    fill(options.root, "1.mp4", "2.mp4", "2d.mp4")
    path = tmp_path / "list.txt"
    listed = listing(sample(path, "1", rgb="1", depth="1d"), sample(path, "2", rgb="2", depth="2d", label="b"))
    prepared = join(options, listed, find_files(options.root, ("",), videos, example="1.mp4"))
    assert [(e.rgb, e.depth) for e in prepared.manifest.entries] == [("d/2.mp4", "d/2d.mp4")]


@pytest.mark.parametrize("name", ["v.zip", "v.tar", "v.tar.gz", "v.tgz", "v.RAR", "v.7z"])
def test_an_archive_is_named_where_samples_are_missing(tmp_path, fill, options, raises, name):
    """Every kind by every data set: NTU RGB+D alone knew .7z once."""
    path = tmp_path / "list.txt"
    (options.root / name).touch()
    with raises(ManifestError, name, path=options.root):
        join(options, listing(sample(path, "1")), find_files(options.root, ("v", ""), videos, example="1.mp4"))
    fill(options.root, "1.mp4")
    listed = listing(sample(path, "1"))
    files = find_files(options.root, ("v", ""), videos, example="1.mp4")
    assert not any(name in note for note in join(options, listed, files).notes)
    with raises(ManifestError, name, path=options.root):
        prepare_ntu(Ntu60Options(root=options.root, out=options.out))


def test_the_files_of_the_first_folder_that_has_any_are_used(tmp_path, fill, raises):
    fill(tmp_path, "b/1.mp4", "c/1.mp4", "c/2.mp4")
    files = find_files(tmp_path, ("a", "b", "c"), videos, example="1.mp4")
    assert files.paths == {"1": "b/1.mp4"}
    assert files.searched == "a/1.mp4, b/1.mp4, c/1.mp4"
    assert files.notes == [f"2 files in {tmp_path / 'c'} were ignored; those in {tmp_path / 'b'} were used"]
    with raises(ManifestError, "b/1.mp4", path="2.mp4"):
        find_files(tmp_path, ("c",), lambda d: (("1", p) for p in (tmp_path / "b/1.mp4", d / "2.mp4")), example="")


def test_a_sample_in_two_lists_is_refused(tmp_path, raises):
    paths = {"train": tmp_path / "a.txt", "test": tmp_path / "b.txt"}
    with raises(ManifestError, "a.txt, line 7", path="b.txt", line=7):
        read_listing(paths, lambda path, split: [sample(path, "same", line=7, split=split)])


def test_a_list_with_a_byte_order_mark_is_read_and_one_that_is_not_text_is_refused(tmp_path, raises):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf1 a\n\n2 b \n")
    assert read_lines(path) == [(1, "1 a"), (3, "2 b")]
    path.write_bytes(b"Caf\xe9")
    with raises(ManifestError, "UTF-8", path=path):
        read_lines(path)
    with raises(ManifestError, path="gone.txt"):
        read_lines(tmp_path / "gone.txt")


def test_a_split_without_a_list_is_noted_unless_it_is_optional(tmp_path, raises):
    names = {"train": ("a.txt", "b.txt"), "val": ("v.txt",), "test": ("t.txt",)}
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "b.txt").touch()
    paths, notes = find_lists(tmp_path, ("", "lists"), names, optional=("test",))
    assert paths == {"train": tmp_path / "lists" / "b.txt"}
    assert notes == [f"split val is omitted: v.txt not found in {tmp_path}"]
    with raises(ManifestError, "a.txt, b.txt, v.txt, t.txt", path=tmp_path):
        find_lists(tmp_path, ("",), names)


@pytest.mark.parametrize(
    ("name", "split"), [("ucf101", 1), ("hmdb51", 1), ("ntu60", "cross_subject"), ("ntu120", "cross_subject")]
)
def test_the_first_official_split_is_the_default(name, split):
    options, _ = load_dataset(name)
    assert options(root=Path("r"), out=Path("m.csv")).split == split

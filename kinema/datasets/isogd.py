"""ChaLearn IsoGD: 47,933 pairs of RGB and depth video, 249 gestures, from Kinect; 320 x 240, about 10 fps.

J. Wan, S. Z. Li, Y. Zhao, S. Zhou, I. Guyon, S. Escalera: ChaLearn Looking at People RGB-D isolated and continuous
datasets for gesture recognition, CVPR Workshops 2016. For research and education only; not to be redistributed.

The root folder contains `train/001/M_00002.avi` (RGB) beside `train/001/K_00002.avi` (depth), `valid/...`, `test/...`
and the official lists, which are the split; no person is in two splits. A line of a list is RGB, depth and, if the list
has labels, the number of the gesture. The public test list has none: its pairs can be predicted but not evaluated.
Depth is 8-bit gray video without metric unit; 0 is no reading.
"""

from collections.abc import Iterator
from pathlib import Path

from kinema.data.manifest import LABEL, Entry
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import PreparedDataset
from kinema.datasets.registry import DatasetSpec
from kinema.datasets.skeleton import (
    ListedSample,
    check_paths,
    count_splits,
    find_files,
    find_lists,
    join,
    line_error,
    read_lines,
    read_listing,
    refuse_duplicates,
)
from kinema.errors import ManifestError
from kinema.video.scan import scan

DATASET = "ChaLearn IsoGD"
CLASSES = tuple(f"{number:03}" for number in range(1, 250))
"""Numbers of the gestures; leading zeros make them sort as numbers."""
LISTS = {
    "train": ("train_list.txt", "train_list_subset.txt"),
    "val": ("valid_list_with_labels.txt", "valid_list.txt"),
    "test": ("test_list_with_labels.txt", "test_list.txt"),
}
"""File names of each split's list, in order of preference."""


def prepare(options: DatasetOptions) -> PreparedDataset:
    """Write the manifest of the pairs that the lists name and that are on disk.

    Raises:
        ManifestError: No list with labels is found, a list is malformed, or no labeled pair is on disk.
    """
    check_paths(options, "train_list.txt and the folder train")
    paths, notes = find_lists(options.root, ("",), LISTS)
    samples = read_listing(paths, read_pairs)
    refuse_duplicates((sample.path, sample.line, sample.entry.depth) for sample in samples)
    listed = count_splits(samples, paths)
    labeled = {sample.entry.split for sample in samples if sample.entry.labels}
    if not labeled:
        searched = ", ".join(name for names in LISTS.values() for name in names)
        raise ManifestError(f"{options.root}: no list with labels found; looked for {searched}", path=options.root)
    notes += [
        f"split {split} has no labels: the {listed[split]} pairs of {path.name} can be predicted but not evaluated"
        for split, path in paths.items()
        if split not in labeled
    ]
    lists = ", ".join(path.name for path in paths.values())
    return join(
        options,
        samples,
        find_files(options.root, ("",), _find_videos, example="train/001/M_00002.avi"),
        dataset=DATASET,
        lists=lists,
        version=lists,
        classes=CLASSES,
        declared=listed,
        notes=notes,
    )


def read_pairs(path: Path, split: str) -> list[ListedSample]:
    """Return the pairs of an official list.

    Raises:
        ManifestError: A line is not RGB DEPTH or RGB DEPTH NUMBER, a number is not a gesture, or only some lines have
            one.
    """
    samples: list[ListedSample] = []
    for line, text in read_lines(path):
        parts = text.split()
        if len(parts) not in (2, 3):
            raise line_error(path, line, f"expected RGB DEPTH NUMBER, got {text!r}")
        labels = {LABEL: parts[2].zfill(3)} if len(parts) == 3 else {}
        if labels and labels[LABEL] not in CLASSES:
            raise line_error(path, line, f"expected a gesture from 1 to {len(CLASSES)}, got {parts[2]!r}", field=LABEL)
        if samples and bool(labels) != bool(samples[0].entry.labels):
            raise line_error(path, line, "some lines of the list have a label and others have none", field=LABEL)
        entry = Entry(rgb=parts[0], depth=parts[1], split=split, labels=labels)
        samples.append(ListedSample(name=parts[0], entry=entry, path=path, line=line))
    return samples


def _find_videos(root: Path) -> Iterator[tuple[str, Path]]:
    yield from ((path.relative_to(root).as_posix(), path) for path in scan(root).videos)


SPECS = (
    DatasetSpec("isogd", "ChaLearn IsoGD: RGB and depth, 47,933 samples of 249 gestures.", DatasetOptions, prepare),
)

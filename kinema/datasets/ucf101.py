"""UCF-101: 13,320 videos of 101 actions from YouTube, 320 x 240, cut from 2,525 longer ones.

K. Soomro, A. R. Zamir, M. Shah: UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild,
arXiv:1212.0402, 2012. No license is known; the footage has its own owners. The root folder contains a folder for each
action with videos such as `ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi`, directly or in `UCF-101` or `videos`, and the
official lists of the three splits, directly or in `ucfTrainTestlist` or `annotations`.

Videos of one group (`g01`) are cut from the same longer video, and no split divides a group. The files of one action
are spelled differently from its folder and the class list: `HandstandPushups/v_HandStandPushups_g01_c01.avi`. Case is
therefore ignored, and classes are spelled as in `classInd.txt`.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from kinema.data.manifest import LABEL, Entry
from kinema.datasets.options import ThreeSplitOptions
from kinema.datasets.prepared import PreparedDataset
from kinema.datasets.registry import DatasetSpec
from kinema.datasets.skeleton import (
    ListedSample,
    check_paths,
    compare_counts,
    count_splits,
    describe_counts,
    find_files,
    join,
    line_error,
    read_lines,
    read_listing,
    refuse_duplicates,
    require_list,
    scan_classes,
)
from kinema.errors import ManifestError

DATASET = "UCF-101"
NUM_CLASSES = 101
COUNTS = {
    1: {"train": 9_537, "test": 3_783},
    2: {"train": 9_586, "test": 3_734},
    3: {"train": 9_624, "test": 3_696},
}
"""Number of videos in the official lists."""
CLASS_LIST = "classInd.txt"
LIST_DIRS = ("", "ucfTrainTestlist", "annotations")
VIDEO_DIRS = ("UCF-101", "", "videos")
"""Folders that may contain the folders of the actions."""
VIDEO_NAME = re.compile(r"v_(\w+)_(g\d\d)_c\d\d")
EXAMPLE = "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"


def prepare(options: ThreeSplitOptions) -> PreparedDataset:
    """Write the manifest of the videos that the lists of one split name and that are on disk.

    Raises:
        ManifestError: A list is missing, malformed or of another split, a video is found twice, or no video is on disk.
    """
    check_paths(options, f"{CLASS_LIST} and the folders of the actions")
    official = COUNTS[options.split]
    names = {CLASS_LIST: CLASS_LIST} | {split: f"{split}list{options.split:02}.txt" for split in official}
    fix = f"Unpack the official lists (UCF101TrainTestSplits-RecognitionTask.zip) into the folder of {DATASET}."
    paths = {split: require_list(options.root, LIST_DIRS, name, fix=fix) for split, name in names.items()}
    classes = read_classes(paths.pop(CLASS_LIST))
    samples = read_listing(paths, lambda path, split: read_videos(path, classes, split))
    _refuse_shared_groups(samples)
    listed = count_splits(samples, official)
    return join(
        options,
        samples,
        find_files(options.root, VIDEO_DIRS, lambda folder: _find_videos(folder, classes), example=EXAMPLE),
        dataset=DATASET,
        lists=" and ".join(path.name for path in paths.values()),
        version=f"split {options.split}, {describe_counts(listed)}",
        classes=classes,
        declared={split: max(count, listed[split]) for split, count in official.items()},
        notes=compare_counts(paths, listed, official),
    )


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the actions of `classInd.txt` in the order of their numbers.

    Raises:
        ManifestError: The file is not the class list of UCF-101.
    """
    lines = read_lines(path)
    for number, (line, text) in enumerate(lines, start=1):
        if not re.fullmatch(rf"{number} \w+", text):
            raise line_error(path, line, f"expected {number} and the name of an action, got {text!r}")
    refuse_duplicates((path, line, text.split()[1]) for line, text in lines)
    names = tuple(text.split()[1] for _, text in lines)
    if len(names) != NUM_CLASSES:
        problem = f"expected {NUM_CLASSES} actions, got {len(names)}. Use the {CLASS_LIST} of {DATASET}."
        raise ManifestError(f"{path}: {problem}", path=path)
    return names


def read_videos(path: Path, classes: Sequence[str], split: str) -> list[ListedSample]:
    """Return the videos of an official list: `FOLDER/NAME.avi`, followed by the number of the class in training lists.

    Raises:
        ManifestError: A line is malformed, or its class or class number is not that of the class list.
    """
    by_name = {name.casefold(): (number, name) for number, name in enumerate(classes, start=1)}
    samples = []
    for line, text in read_lines(path):
        video, *numbers = text.split()
        folder, _, file = video.partition("/")
        parts = VIDEO_NAME.fullmatch(file.removesuffix(".avi"))
        if parts is None or len(numbers) > 1 or not all(number.isdecimal() for number in numbers):
            raise line_error(path, line, f"expected {EXAMPLE}, or that and a class number, got {text!r}")
        if folder.casefold() not in by_name:
            problem = f"action {folder!r} is not in {CLASS_LIST}. Use lists of the same dataset."
            raise line_error(path, line, problem, field=LABEL)
        number, action = by_name[folder.casefold()]
        if numbers and int(numbers[0]) != number:
            raise line_error(path, line, f"{action!r} has number {numbers[0]}; expected {number}", field=LABEL)
        if parts[1].casefold() != action.casefold():
            raise line_error(path, line, f"{file} is not a video of {action!r}", field=LABEL)
        entry = Entry(rgb=_key(action, parts[0]), split=split, group=f"{action}_{parts[2]}", labels={LABEL: action})
        samples.append(ListedSample(name=parts[0], entry=entry, path=path, line=line))
    return samples


def _key(action: str, name: str) -> str:
    return f"{action}/{name}".casefold()


def _find_videos(folder: Path, classes: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for action, contents in scan_classes(folder, classes):
        yield from ((_key(action, path.stem), path) for path in contents.videos)


def _refuse_shared_groups(samples: Sequence[ListedSample]) -> None:
    """Raise ManifestError if the two lists share a group: no official split divides one."""
    train = {sample.entry.group: sample for sample in samples if sample.entry.split == "train"}
    for sample in samples:
        other = train.get(sample.entry.group)
        if other is not None and sample.entry.split == "test":
            raise sample.error(
                f"{sample.name} is of group {sample.entry.group}, as is {other.path.name}, line {other.line}. Use two "
                "lists of the same split.",
                field="group",
            )


SPECS = (DatasetSpec("ucf101", "UCF-101: 13,320 videos of 101 actions.", ThreeSplitOptions, prepare),)

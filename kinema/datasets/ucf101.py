"""UCF-101: 13,320 videos of 101 actions from YouTube, 320 x 240, cut from 2,525 longer ones.

K. Soomro, A. R. Zamir, M. Shah: UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild,
arXiv:1212.0402, 2012. No licence is known; the footage has its own owners. The folder holds a folder for each action
with videos like `ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi`, itself or in `UCF-101` or `videos`, and the official
lists, itself or in `ucfTrainTestlist` or `annotations`, which are the three splits.

Videos of one group (`g01`) are cut from the same longer one, and no split tears a group apart. Of one action the files
are spelt otherwise than its folder and the lists of classes: `HandstandPushups/v_HandStandPushups_g01_c01.avi`.
Capitals therefore make no difference here, and a class is called what `classInd.txt` calls it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kinema.config import config
from kinema.data.manifest import LABEL, Entry
from kinema.datasets.listed import (
    check_once,
    differences,
    find_list,
    first_home,
    other_counts,
    read_lines,
    still_packed,
)
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import Prepared, check_target, examples, finish
from kinema.errors import ManifestError
from kinema.video.scan import scan

CORPUS = "UCF-101"
CLASSES = 101
COUNTS = {
    1: {"train": 9_537, "test": 3_783},
    2: {"train": 9_586, "test": 3_734},
    3: {"train": 9_624, "test": 3_696},
}
"""Videos of the official lists, by splits."""
CLASS_LIST = "classInd.txt"
LIST_FOLDERS = ("", "ucfTrainTestlist", "annotations")
HOMES = ("UCF-101", "", "videos")
"""Where the folders of the actions may lie."""
CLIP = re.compile(r"v_(\w+)_(g\d\d)_c\d\d")
EXAMPLE = "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One line of an official list.

    Args:
        name: of the video as the list spells it, without suffix.
        action: its class as `classInd.txt` spells it.
        group: the longer video that it was cut from, by action and number: `ApplyEyeMakeup_g01`.
        line: in the list.
    """

    name: str
    action: str
    group: str
    line: int

    @property
    def key(self) -> tuple[str, str]:
        """Its folder and name, without a difference of capitals."""
        return self.action.casefold(), self.name.casefold()


def read_classes(path: Path) -> tuple[str, ...]:
    """The actions of `classInd.txt`, in the order of their numbers.

    Raises:
        ManifestError: it is no such list, or not that of UCF-101.
    """
    lines = read_lines(path)
    for number, (line, text) in enumerate(lines, start=1):
        if not re.fullmatch(rf"{number} \w+", text):
            raise ManifestError(f"{path}, line {line}: {text!r} should be {number} and the name of an action")
    names = tuple(text.split()[1] for _, text in lines)
    check_once(path, [(line, name) for (line, _), name in zip(lines, names, strict=True)])
    if len(names) != CLASSES:
        raise ManifestError(f"{path}: lists {len(names)} actions; {CORPUS} has {CLASSES}: take its own {CLASS_LIST}")
    return names


def read_clips(path: Path, classes: Sequence[str]) -> list[Clip]:
    """The videos of an official list: `FOLDER/NAME.avi`, and in the lists to train on the number of the class.

    Raises:
        ManifestError: a line is not of that form, its class is none of the classes, or has another number there, its
            name is another action's, or a video stands there twice.
    """
    by_name = {name.casefold(): (number, name) for number, name in enumerate(classes, start=1)}
    clips = []
    for line, text in read_lines(path):
        words = text.split()
        folder, _, file = words[0].partition("/")
        parts = CLIP.fullmatch(file.removesuffix(".avi"))
        if parts is None or len(words) > 2 or not all(word.isdecimal() for word in words[1:]):
            raise ManifestError(f"{path}, line {line}: {text!r} is not of the form {EXAMPLE}, or that and a number")
        if folder.casefold() not in by_name:
            raise ManifestError(
                f"{path}, line {line}: action {folder!r} is not in {CLASS_LIST}; this list, or that, is of another "
                "data set or version"
            )
        number, action = by_name[folder.casefold()]
        if words[1:] and int(words[1]) != number:
            raise ManifestError(
                f"{path}, line {line}: {action!r} has number {words[1]} here, but {number} in {CLASS_LIST}"
            )
        if parts[1].casefold() != action.casefold():
            raise ManifestError(f"{path}, line {line}: {file} is no video of {action!r}")
        clips.append(Clip(name=parts[0], action=action, group=f"{action}_{parts[2]}", line=line))
    check_once(path, [(clip.line, clip.name) for clip in clips])
    return clips


@config
class Ucf101Options(DatasetOptions):
    """Make a manifest of UCF-101.

    Args:
        split: Official split.
    """

    split: Literal[1, 2, 3] = 1


def prepare(options: Ucf101Options) -> Prepared:
    """Write the manifest of the data set; see `prepare_ucf101`."""
    return prepare_ucf101(options.root, options.out, options.split)


def prepare_ucf101(root: Path, out: Path, split: int = 1) -> Prepared:
    """Make a manifest of the videos that the lists of one split name and the disk holds.

    Args:
        root: the folder that holds the lists and the folders of the actions.
        out: the CSV to write; the JSON comes beside it.
        split: 1, 2 or 3.

    Raises:
        ManifestError: there is no such folder or split, a list is missing or says something impossible, two lists are
            not of one split, a video is there twice, or not one is on disk.
    """
    check_target(out)
    if split not in COUNTS:
        raise ManifestError(f"split {split}: {CORPUS} has {', '.join(map(str, COUNTS))}")
    if not root.is_dir():
        raise ManifestError(
            f"{root}: no such folder; give the one that holds {CLASS_LIST} and the folders of the actions"
        )
    classes = read_classes(_list(root, CLASS_LIST))
    paths = {side: _list(root, f"{side}list{split:02}.txt") for side in COUNTS[split]}
    clips = {side: read_clips(path, classes) for side, path in paths.items()}
    _check_apart(paths, clips)
    on_disk, notes = _on_disk(root, classes)
    listed = {side: len(found) for side, found in clips.items()}
    notes += other_counts(paths, listed, COUNTS[split])
    names = " and ".join(path.name for path in paths.values())
    entries: list[Entry] = []
    missing: list[Clip] = []
    for side, found in clips.items():
        for clip in found:
            if clip.key in on_disk:
                source = on_disk[clip.key].relative_to(root).as_posix()
                entries.append(Entry(rgb=source, split=side, group=clip.group, labels={LABEL: clip.action}))
            else:
                missing.append(clip)
    packed = still_packed([root, *(root / home for home in HOMES if home)]) if missing else []
    if not entries:
        looked = f"looked for {', '.join((Path(home) / EXAMPLE).as_posix() for home in HOMES)} and the like"
        raise ManifestError("; ".join([f"{root}: no video of {names} is on disk; {looked}", *packed]))
    there = {entry.labels[LABEL] for entry in entries}
    empty = [action for action in classes if action not in there]
    if empty:
        notes.append(f"{len(empty)} of {CLASSES} actions have no video on disk: {examples(empty)}")
    said = {clip.key for found in clips.values() for clip in found}
    notes += differences(
        names,
        {"/".join(key) for key in said},
        {"/".join(key) if key in said else path.relative_to(root).as_posix() for key, path in on_disk.items()},
        [f"{clip.action}/{clip.name}" for clip in missing],
    )
    return finish(
        entries,
        out,
        base=root,
        corpus=CORPUS,
        version=f"split {split}, " + ", ".join(f"{side} {count}" for side, count in listed.items()),
        classes={LABEL: classes},
        declared={side: max(count, listed[side]) for side, count in COUNTS[split].items()},
        notes=[*notes, *packed],
    )


def _list(root: Path, name: str) -> Path:
    path = find_list(root, LIST_FOLDERS, name)
    if path is None:
        places = ", ".join(folder for folder in LIST_FOLDERS if folder)
        raise ManifestError(
            f"{root}: {name} is neither in it nor in {places}; give the folder of {CORPUS}, and unpack the lists "
            "(UCF101TrainTestSplits-RecognitionTask.zip) into it"
        )
    return path


def _check_apart(paths: Mapping[str, Path], clips: Mapping[str, Sequence[Clip]]) -> None:
    """Refuse two lists that share a group: no official split tears one apart."""
    train = {clip.group: clip for clip in clips["train"]}
    for clip in clips["test"]:
        if clip.group in train:
            raise ManifestError(
                f"{paths['test']}, line {clip.line}: {clip.name} is of group {clip.group}, of which "
                f"{paths['train'].name} has videos too (line {train[clip.group].line}); they are not of one split"
            )


def _on_disk(root: Path, classes: Sequence[str]) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """Each video in an action's folder by its `Clip.key`, and what to say of other homes."""
    actions = {action.casefold() for action in classes}
    homes: dict[str, list[tuple[tuple[str, str], Path]]] = {home: [] for home in HOMES}
    for home, found in homes.items():
        for folder in sorted((root / home).iterdir()) if (root / home).is_dir() else []:
            action = folder.name.casefold()
            if action in actions and folder.is_dir():
                found += [((action, path.stem.casefold()), path) for path in scan(folder).videos]
    return first_home(root, homes)

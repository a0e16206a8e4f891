"""Diving48: about 17,000 videos of single dives from competitions, 48 kinds of dives.

Y. Li, Y. Li, N. Vasconcelos: RESOUND: Towards Action Recognition without Representation Bias, ECCV 2018. No licence is
known; the footage has its own owners. The folder holds the videos `VID.mp4`, itself or in `rgb` or `videos`, and the
lists and the vocabulary, itself or in `annotations`. There are two versions of the lists, which are told apart by name
and count: V1 (`Diving48_train.json`, 16,067; `Diving48_test.json`, 2,337), and V2 of October 2020, which corrects the
labels (`Diving48_V2_train.json`, 15,027; `Diving48_V2_test.json`, 1,970).

A kind of dive is four things that the vocabulary gives: take-off, somersaults, twists and position, and the name of a
class is these four. A video is one dive, from its first to its last frame: `start_frame` and `end_frame` of the lists
are 0 and its number of frames. The group of a video is the longer one that it was cut from, by its name.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kinema.config import config
from kinema.data.manifest import LABEL, Entry
from kinema.datasets.listed import differences, find_list, first_home, other_counts, still_packed
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import Prepared, check_target, examples, finish
from kinema.errors import ManifestError
from kinema.video.scan import VIDEO_SUFFIXES

CORPUS = "Diving48"
CLASSES = 48
ATTRIBUTES = ("take-off", "somersault", "twist", "position")
"""What a class is made of, in the order of the vocabulary and of the class's name."""
BETWEEN = ", "
"""Stands between the attributes in the name of a class."""
LISTS = {
    "V2": {"train": "Diving48_V2_train.json", "test": "Diving48_V2_test.json"},
    "V1": {"train": "Diving48_train.json", "test": "Diving48_test.json"},
}
COUNTS = {"V2": {"train": 15_027, "test": 1_970}, "V1": {"train": 16_067, "test": 2_337}}
"""Videos of the official lists."""
VOCABULARIES = ("Diving48_vocab.json", "Diving48_vocab_48.json")
LIST_FOLDERS = ("", "annotations")
HOMES = ("rgb", "videos", "")
"""Where the videos may lie."""


@dataclass(frozen=True, kw_only=True)
class Dive:
    """One record of an official list.

    Args:
        video: its name without suffix.
        label: number of the class.
        start_frame, end_frame: that the list gives, half open.
    """

    video: str
    label: int
    start_frame: int
    end_frame: int


def read_vocabulary(path: Path) -> tuple[tuple[str, ...], ...]:
    """The four attributes of each class, by its label: that of 0 are ('Back', '15som', '05Twis', 'FREE').

    Raises:
        ManifestError: it is no list of 48 times four words, or two classes are the same.
    """
    found = _read_json(path)
    if not isinstance(found, list) or len(found) != CLASSES:
        raise ManifestError(f"{path}: is not the vocabulary of {CORPUS}, a list of {CLASSES} classes")
    classes: dict[tuple[str, ...], int] = {}
    for label, values in enumerate(found):
        words = tuple(values) if isinstance(values, list) else ()
        if len(words) != len(ATTRIBUTES) or not all(
            isinstance(word, str) and re.fullmatch(r"\w+", word) for word in words
        ):
            raise ManifestError(f"{path}, class {label}: {values!r} should be four words: {BETWEEN.join(ATTRIBUTES)}")
        if classes.setdefault(words, label) != label:
            raise ManifestError(f"{path}, class {label}: {values!r} is class {classes[words]} already")
    return tuple(classes)


def class_name(attributes: Sequence[str]) -> str:
    """The name of the class with these attributes: `Back, 15som, 05Twis, FREE`."""
    return BETWEEN.join(attributes)


def read_dives(path: Path) -> list[Dive]:
    """The records of an official list.

    Raises:
        ManifestError: it is no list of records with vid_name, label, start_frame and end_frame, a label is none of the
            48, a dive ends before it starts, or a video stands there twice.
    """
    found = _read_json(path)
    if not isinstance(found, list) or not found:
        raise ManifestError(f"{path}: is not a list of records like those of {LISTS['V2']['train']}")
    dives: dict[str, Dive] = {}
    places: dict[str, int] = {}
    for number, record in enumerate(found, start=1):
        try:
            dive = _dive(record)
        except ValueError as error:
            raise ManifestError(f"{path}, record {number}: {error}") from error
        if dive.video in dives:
            raise ManifestError(f"{path}, record {number}: {dive.video} stands in record {places[dive.video]} already")
        dives[dive.video], places[dive.video] = dive, number
    return list(dives.values())


@config
class Diving48Options(DatasetOptions):
    """Make a manifest of Diving48."""


def prepare(options: Diving48Options) -> Prepared:
    """Write the manifest of the data set; see `prepare_diving48`."""
    return prepare_diving48(options.root, options.out)


def prepare_diving48(root: Path, out: Path) -> Prepared:
    """Make a manifest of the dives that the lists of one version name and the disk holds; of V2 where both are there.

    Args:
        root: the folder that holds the lists, the vocabulary and the videos.
        out: the CSV to write; the JSON comes beside it.

    Raises:
        ManifestError: there is no such folder, no list or no vocabulary, a list says something impossible or is of
            another version than its name says, the lists are of two versions or share a video, or not one is on disk.
    """
    check_target(out)
    if not root.is_dir():
        raise ManifestError(
            f"{root}: no such folder; give the one that holds {LISTS['V2']['train']} and the folder rgb"
        )
    vocabulary = _vocabulary(root)
    version, paths, notes = _lists(root)
    dives = {split: read_dives(path) for split, path in paths.items()}
    counts = {split: len(found) for split, found in dives.items()}
    for split, path in paths.items():
        _check_version(path, version, split, counts[split])
    _check_apart(paths, dives)
    notes += other_counts(paths, counts, COUNTS[version])
    on_disk, said = _on_disk(root)
    notes += said
    names = " and ".join(path.name for path in paths.values())
    entries: list[Entry] = []
    taken: list[Dive] = []
    missing: list[str] = []
    for split, found in dives.items():
        for dive in found:
            if dive.video not in on_disk:
                missing.append(dive.video)
                continue
            source = on_disk[dive.video].relative_to(root).as_posix()
            label = class_name(vocabulary[dive.label])
            group = re.sub(r"_\d+$", "", dive.video)
            entries.append(Entry(rgb=source, split=split, group=group, labels={LABEL: label}))
            taken.append(dive)
    packed = still_packed([root, *(root / home for home in HOMES if home)]) if missing else []
    if not entries:
        looked = ", ".join((Path(home) / f"{missing[0]}.mp4").as_posix() for home in HOMES)
        raise ManifestError(
            "; ".join([f"{root}: no video of {names} is on disk; looked for {looked} and the like", *packed])
        )
    listed = {dive.video for found in dives.values() for dive in found}
    notes += differences(names, listed, on_disk, missing)
    prepared = finish(
        entries,
        out,
        base=root,
        corpus=CORPUS,
        version=f"{version}, " + ", ".join(f"{split} {count}" for split, count in counts.items()),
        classes={LABEL: tuple(class_name(values) for values in vocabulary)},
        declared={split: max(count, COUNTS[version][split]) for split, count in counts.items()},
        notes=[*notes, *packed],
    )
    lengths = _other_lengths(taken, [entry.frames for entry in prepared.manifest.entries])
    return replace(prepared, notes=(*prepared.notes, *lengths))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ManifestError(f"{path}: is no JSON, or not all of it is there ({error})") from error


def _dive(record: object) -> Dive:
    if not isinstance(record, dict):
        raise ValueError(f"{record!r} is no record with vid_name, label, start_frame and end_frame")
    for field in ("vid_name", "label", "start_frame", "end_frame"):
        if field not in record:
            raise ValueError(f"field {field!r} is missing")
    video = record["vid_name"]
    if not isinstance(video, str) or not re.fullmatch(r"[\w-]+", video):
        raise ValueError(f"vid_name {video!r} is no name of a video, such as -mmq0PT-u8k_00155")
    numbers = {field: record[field] for field in ("label", "start_frame", "end_frame")}
    for field, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{field} {value!r} is no whole number from 0 on")
    if numbers["label"] >= CLASSES:
        raise ValueError(f"label {numbers['label']} is none of the {CLASSES} classes, 0 to {CLASSES - 1}")
    if numbers["end_frame"] < numbers["start_frame"]:
        raise ValueError(f"end_frame {numbers['end_frame']} lies before start_frame {numbers['start_frame']}")
    return Dive(video=video, **numbers)


def _vocabulary(root: Path) -> tuple[tuple[str, ...], ...]:
    path = find_list(root, LIST_FOLDERS, *VOCABULARIES)
    if path is None:
        raise ManifestError(f"{root}: {VOCABULARIES[0]} is neither in it nor in annotations; it names the classes")
    return read_vocabulary(path)


def _lists(root: Path) -> tuple[str, dict[str, Path], list[str]]:
    """The version that is there, the path of each split's list, and what to say of what is not used."""
    found = {
        version: {
            split: path for split, name in names.items() if (path := find_list(root, LIST_FOLDERS, name)) is not None
        }
        for version, names in LISTS.items()
    }
    if not any(found.values()):
        wanted = ", ".join(name for names in LISTS.values() for name in names.values())
        raise ManifestError(f"{root}: there is no list of {CORPUS} in it, nor in annotations; looked for {wanted}")
    if found["V1"] and found["V2"] and len(found["V2"]) < len(LISTS["V2"]):
        there = " and ".join(path.name for paths in found.values() for path in paths.values())
        raise ManifestError(f"{root}: {there} are of two versions, which do not go together; take both lists of V2")
    version = "V2" if found["V2"] else "V1"
    notes = [
        f"split {split} is left out: {name} is not in {root}"
        for split, name in LISTS[version].items()
        if split not in found[version]
    ]
    if version == "V1":
        notes.append("these are the lists of V1; V2 corrects the labels, and results of the two cannot be compared")
    elif found["V1"]:
        notes.append(
            f"lists of V1 are there too, and were left out: {examples([p.name for p in found['V1'].values()])}"
        )
    return version, found[version], notes


def _check_version(path: Path, version: str, split: str, count: int) -> None:
    """Refuse a list that is as long as the other version's: its labels are others than its name says."""
    other = "V1" if version == "V2" else "V2"
    if count == COUNTS[other][split]:
        raise ManifestError(
            f"{path}: lists {count} videos, as {other}'s list does, and its name says {version} "
            f"({COUNTS[version][split]}): name it {LISTS[other][split]} if it is {other}'s, or get the right one"
        )


def _check_apart(paths: dict[str, Path], dives: dict[str, list[Dive]]) -> None:
    both = {dive.video for dive in dives.get("train", [])} & {dive.video for dive in dives.get("test", [])}
    if both:
        raise ManifestError(
            f"{paths['test']}: {len(both)} videos stand in {paths['train'].name} too, e.g. {min(both)}; the lists are "
            "not of one version, or one is not what its name says"
        )


def _on_disk(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Each video by its name, and what to say of other homes."""
    homes = {
        home: [(path.stem, path) for path in sorted((root / home).iterdir()) if path.suffix.lower() in VIDEO_SUFFIXES]
        for home in HOMES
        if (root / home).is_dir()
    }
    return first_home(root, homes)


def _other_lengths(dives: Sequence[Dive], frames: Sequence[int | None]) -> list[str]:
    """A note on videos that have other frames than the list says; those that cannot be read are said elsewhere."""
    found = [
        f"{dive.video} ({dive.start_frame} to {dive.end_frame}, has {count})"
        for dive, count in zip(dives, frames, strict=True)
        if count is not None and (dive.start_frame, dive.end_frame) != (0, count)
    ]
    if not found:
        return []
    return [
        f"{len(found)} videos have other frames than start_frame and end_frame say; the whole video is taken: "
        f"{examples(found)}"
    ]

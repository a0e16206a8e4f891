"""Diving48: about 17,000 videos of single dives from competitions, 48 kinds of dives.

Y. Li, Y. Li, N. Vasconcelos: RESOUND: Towards Action Recognition without Representation Bias, ECCV 2018. No license is
known; the footage has its own owners. The root folder contains the videos `VID.mp4`, directly or in `rgb` or `videos`,
and the lists and the vocabulary, directly or in `annotations`. The lists have two versions, told apart by name and
length: V1 (`Diving48_train.json`, 16,067; `Diving48_test.json`, 2,337), and V2 of October 2020, which corrects the
labels (`Diving48_V2_train.json`, 15,027; `Diving48_V2_test.json`, 1,970).

The vocabulary gives four attributes of each kind of dive: take-off, somersaults, twists and position. Together they are
the name of the class. A video is one dive from its first to its last frame: `start_frame` and `end_frame` of the lists
are 0 and its number of frames. The group of a video is the longer video that it was cut from, according to its name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kinema.data.manifest import LABEL, Entry
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import PreparedDataset, note_names
from kinema.datasets.registry import DatasetSpec
from kinema.datasets.skeleton import (
    ListedSample,
    check_paths,
    compare_counts,
    count_splits,
    describe_counts,
    find_files,
    find_lists,
    join,
    read_listing,
    require_list,
)
from kinema.errors import ManifestError, examples
from kinema.files import read_json
from kinema.video.scan import VIDEO_SUFFIXES

DATASET = "Diving48"
NUM_CLASSES = 48
ATTRIBUTES = ("take-off", "somersault", "twist", "position")
"""Attributes of a class, in the order of the vocabulary and of the class name."""
SEPARATOR = ", "
"""Separator of the attributes in a class name: `Back, 15som, 05Twis, FREE`."""
LISTS = {
    "V2": {"train": ("Diving48_V2_train.json",), "test": ("Diving48_V2_test.json",)},
    "V1": {"train": ("Diving48_train.json",), "test": ("Diving48_test.json",)},
}
COUNTS = {"V2": {"train": 15_027, "test": 1_970}, "V1": {"train": 16_067, "test": 2_337}}
"""Number of videos in the official lists."""
VOCABULARIES = ("Diving48_vocab.json", "Diving48_vocab_48.json")
WORD = re.compile(r"\w+")
LIST_DIRS = ("", "annotations")
VIDEO_DIRS = ("rgb", "videos", "")
"""Folders that may contain the videos."""
FIELDS = ("vid_name", "label", "start_frame", "end_frame")


def prepare(options: DatasetOptions) -> PreparedDataset:
    """Write the manifest of the dives that the lists of one version name and that are on disk.

    Raises:
        ManifestError: The vocabulary or all lists are missing, a list is malformed or of another version than its name,
            the lists are of two versions or share a video, or no video is on disk.
    """
    check_paths(options, "Diving48_V2_train.json and the folder rgb")
    root = options.root
    fix = "It names the classes; copy it into the folder of the lists."
    vocabulary = read_vocabulary(require_list(root, LIST_DIRS, *VOCABULARIES, fix=fix))
    classes = tuple(map(SEPARATOR.join, vocabulary))
    version, paths, notes = _find_version(root)
    official = COUNTS[version]
    segments: dict[str, tuple[int, int]] = {}
    samples = read_listing(paths, lambda path, split: read_dives(path, split, classes, segments))
    listed = count_splits(samples, paths)
    for split, path in paths.items():
        _check_version(path, version, split, listed[split])
    prepared = join(
        options,
        samples,
        find_files(root, VIDEO_DIRS, _find_videos, example=f"{samples[0].name}.mp4"),
        dataset=DATASET,
        lists=" and ".join(path.name for path in paths.values()),
        version=f"{version}, {describe_counts(listed)}",
        classes=classes,
        declared={split: max(count, official[split]) for split, count in listed.items()},
        notes=[*notes, *compare_counts(paths, listed, official)],
    )
    return replace(prepared, notes=(*prepared.notes, *_length_notes(prepared, segments)))


def read_vocabulary(path: Path) -> tuple[tuple[str, ...], ...]:
    """Return the four attributes of each class, by its label: ('Back', '15som', '05Twis', 'FREE') is label 0.

    Raises:
        ManifestError: The file is not a list of 48 times four words, or two classes are the same.
    """
    vocabulary = _read_json(path)
    if not isinstance(vocabulary, list) or len(vocabulary) != NUM_CLASSES:
        problem = f"not the vocabulary of {DATASET}; expected a list of {NUM_CLASSES} classes"
        raise ManifestError(f"{path}: {problem}", path=path)
    classes: dict[tuple[str, ...], int] = {}
    for label, values in enumerate(vocabulary):
        attributes = tuple(values) if isinstance(values, list) else ()
        problem = ""
        if len(attributes) != len(ATTRIBUTES) or not all(isinstance(a, str) and WORD.fullmatch(a) for a in attributes):
            problem = f"expected four words ({SEPARATOR.join(ATTRIBUTES)}), got {values!r}"
        elif classes.setdefault(attributes, label) != label:
            problem = f"{values!r} is class {classes[attributes]} already"
        if problem:
            raise ManifestError(f"{path}, class {label}: {problem}", path=path, field=str(label))
    return tuple(classes)


def read_dives(
    path: Path, split: str, classes: Sequence[str], segments: dict[str, tuple[int, int]]
) -> list[ListedSample]:
    """Return the dives of an official list, and put start and end frame of each into `segments`.

    Raises:
        ManifestError: The file is not a list of records with `FIELDS`, a label is not one of the 48, or a dive ends
            before it starts.
    """
    records = _read_json(path)
    if not isinstance(records, list) or not records:
        raise ManifestError(f"{path}: expected a list of records with {', '.join(FIELDS)}", path=path)
    samples = []
    for number, record in enumerate(records):
        _check_record(path, number, record)
        name = record["vid_name"]
        segments[name] = record["start_frame"], record["end_frame"]
        group = re.sub(r"_\d+$", "", name)
        entry = Entry(rgb=name, split=split, group=group, labels={LABEL: classes[record["label"]]})
        samples.append(ListedSample(name=name, entry=entry, path=path, line=number + 1))
    return samples


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except ValueError as error:
        raise ManifestError(f"{path}: not valid JSON, or incomplete ({error})", path=path) from error


def _check_record(path: Path, number: int, record: Any) -> None:
    """Raise ManifestError if a record of a list lacks a field or has an impossible value."""

    def error(field: str, problem: str) -> ManifestError:
        return ManifestError(f"{path}, record {number + 1}: {problem}", path=path, line=number + 1, field=field)

    if not isinstance(record, dict):
        raise error("", f"expected an object with {', '.join(FIELDS)}, got {record!r}")
    for field in FIELDS:
        if field not in record:
            raise error(field, f"field {field!r} is missing")
    name = record["vid_name"]
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise error("vid_name", f"vid_name {name!r}; expected the name of a video such as -mmq0PT-u8k_00155")
    for field in FIELDS[1:]:
        value = record[field]
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise error(field, f"{field} {value!r}; expected an integer of at least 0")
    if record["label"] >= NUM_CLASSES:
        raise error("label", f"label {record['label']}; expected a class from 0 to {NUM_CLASSES - 1}")
    if record["end_frame"] < record["start_frame"]:
        raise error("end_frame", f"end_frame {record['end_frame']} is before start_frame {record['start_frame']}")


def _find_version(root: Path) -> tuple[str, dict[str, Path], list[str]]:
    """Return version and lists to use, and notes on lists that are missing or not used."""
    all_lists = {f"{version} {split}": names for version, lists in LISTS.items() for split, names in lists.items()}
    found, _ = find_lists(root, LIST_DIRS, all_lists)
    v1, v2 = ([path.name for key, path in found.items() if key.startswith(version)] for version in ("V1", "V2"))
    if v1 and v2 and len(v2) < len(LISTS["V2"]):
        problem = f"{', '.join([*v2, *v1])} are of two versions. Download both lists of V2."
        raise ManifestError(f"{root}: {problem}", path=root)
    version = "V2" if v2 else "V1"
    paths, notes = find_lists(root, LIST_DIRS, LISTS[version])
    if version == "V1":
        notes.append("the lists are of V1; V2 corrects the labels, and results of V1 and V2 cannot be compared")
    elif v1:
        notes.append(f"the lists of V1 were ignored: {examples(v1)}")
    return version, paths, notes


def _check_version(path: Path, version: str, split: str, count: int) -> None:
    """Raise ManifestError if a list is as long as that of the other version: its labels would be wrong."""
    other = "V1" if version == "V2" else "V2"
    if count == COUNTS[other][split]:
        problem = f"lists {count} videos like {other}; expected {COUNTS[version][split]} for {version}"
        fix = f"If it is the list of {other}, rename it to {LISTS[other][split][0]}."
        raise ManifestError(f"{path}: {problem}. {fix}", path=path)


def _find_videos(folder: Path) -> Iterator[tuple[str, Path]]:
    yield from ((p.stem, p) for p in sorted(folder.iterdir()) if p.suffix.lower() in VIDEO_SUFFIXES)


def _length_notes(prepared: PreparedDataset, segments: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return a note on readable videos with another number of frames than the list gives."""
    unequal = []
    for entry in prepared.manifest.entries:
        name = Path(entry.rgb).stem
        start, end = segments[name]
        if entry.frames is not None and (start, end) != (0, entry.frames):
            unequal.append(f"{name} ({start} to {end}, has {entry.frames})")
    problem = "videos have another number of frames than start_frame and end_frame; the whole video is used"
    return note_names(unequal, problem)


SPECS = (DatasetSpec("diving48", "Diving48: about 17,000 videos of 48 kinds of dives.", DatasetOptions, prepare),)

"""EPIC-KITCHENS-100: 700 videos from the heads of 37 people in their own kitchens; each segment is a verb and a noun.

D. Damen et al.: Rescaling Egocentric Vision, IJCV 130, 2022. CC BY-NC 4.0. The folder holds what the official script
downloads, itself or in `EPIC-KITCHENS`: `P01/videos/P01_01.MP4`, or frames that are unpacked to
`P01/rgb_frames/P01_01/frame_0000000001.jpg`; and the lists of the repository epic-kitchens-100-annotations, itself or
in a folder of that name or `annotations`. The lists are the split. That of the test segments has no labels; answers to
them are what the challenge measures.

A segment of a video is cut by its time stamps, one of a folder by its frame numbers, which count from 1. These numbers
are right in the official frames alone: 60 a second were taken from all videos of EPIC-KITCHENS-55 (`P01_01`), and 50
from all that came later (`P01_101`), whereas the videos themselves have 29.97 to 90 a second.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kinema.config import config
from kinema.data.manifest import Entry, rows
from kinema.datasets.listed import check_once, differences, find_list
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import Prepared, check_target, examples, finish
from kinema.errors import ManifestError, UnreadableVideo
from kinema.video.image_files import frame_files

CORPUS = "EPIC-KITCHENS-100"
CLASSES = {"verb": 97, "noun": 300}
"""Classes of each task head; in answers that are handed in they have the numbers of the official lists."""
CLASS_LISTS = {"verb": "EPIC_100_verb_classes.csv", "noun": "EPIC_100_noun_classes.csv"}
LISTS = {"train": "EPIC_100_train.csv", "val": "EPIC_100_validation.csv", "test": "EPIC_100_test_timestamps.csv"}
UNLABELLED = "test"
COUNTS = {"train": 67_217, "val": 9_668, "test": 13_092}
"""Segments of the official lists."""
COLUMNS = (
    "narration_id",
    "participant_id",
    "video_id",
    "start_timestamp",
    "stop_timestamp",
    "start_frame",
    "stop_frame",
)
"""Of a list, those that are read."""
LABEL_COLUMNS = ("verb_class", "noun_class")
"""Of a list with labels, those besides."""
LIST_FOLDERS = ("", "annotations", "epic-kitchens-100-annotations")
HOMES = ("", "EPIC-KITCHENS")
VIDEO = re.compile(r"(P\d\d)_\d{2,3}")
TIMESTAMP = re.compile(r"(\d\d):([0-5]\d):([0-5]\d(?:\.\d+)?)")
SUFFIXES = (".MP4", ".mp4")
END_SLACK = 6
"""Frames by which a segment may end behind the last picture of its folder, a tenth of a second: it then ends there."""
WRONG_AT_FIRST = ("P01_109", "P27_103")
"""Videos whose official frames were taken wrongly at first (the annotations' README, Erratum)."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One line of an official list.

    Args:
        start_s, stop_s: in the video, half open.
        start_frame, stop_frame: numbers of the first and last official frame, from 1.
        classes: number of the verb's and of the noun's; none in a list without labels.
        line: in the list.
    """

    narration_id: str
    participant_id: str
    video_id: str
    start_s: float
    stop_s: float
    start_frame: int
    stop_frame: int
    classes: Mapping[str, int]
    line: int


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where a video lies: a file, or a folder of frames with their number, which is not known where one is missing."""

    path: Path
    form: str
    frames: int | None = None


def read_classes(path: Path, head: str) -> tuple[str, ...]:
    """The class names of an official list, by their numbers.

    Raises:
        ManifestError: it is no such list, or not that of this task head.
    """
    lines = rows(path, path.read_bytes())
    _check_columns(path, lines[0][1], ("id", "key"))
    for number, (line, row) in enumerate(lines):
        if row["id"] != str(number) or not row["key"]:
            raise ManifestError(f"{path}, line {line}: class {number} and its key should stand here, not {row['id']!r}")
    if len(lines) != CLASSES[head]:
        raise ManifestError(
            f"{path}: lists {len(lines)} classes; {CORPUS} has {CLASSES[head]} {head}s: take {CLASS_LISTS[head]} of "
            "its annotations"
        )
    names = tuple(row["key"] for _, row in lines)
    check_once(path, [(line, row["key"]) for line, row in lines])
    return names


def read_segments(path: Path, labels: Literal["given", "none"] = "given") -> list[Segment]:
    """The segments of an official list.

    Args:
        path: of the list.
        labels: whether the list has any.

    Raises:
        ManifestError: it is no such list, a verb or a noun is missing or none of the classes, a segment ends before it
            starts, or a narration stands there twice.
    """
    lines = rows(path, path.read_bytes())
    columns = (*COLUMNS, *LABEL_COLUMNS) if labels == "given" else COLUMNS
    _check_columns(path, lines[0][1], columns)
    segments = []
    for line, row in lines:
        try:
            segments.append(_segment(row, line, columns))
        except ValueError as error:
            raise ManifestError(f"{path}, line {line}: {error}") from error
    check_once(path, [(segment.line, segment.narration_id) for segment in segments])
    return segments


@config
class EpicKitchensOptions(DatasetOptions):
    """Make a manifest of EPIC-KITCHENS-100."""


def prepare(options: EpicKitchensOptions) -> Prepared:
    """Write the manifest of the data set; see `prepare_epic_kitchens`."""
    return prepare_epic_kitchens(options.root, options.out)


def prepare_epic_kitchens(root: Path, out: Path) -> Prepared:
    """Make a manifest of the segments that the lists name and the disk holds.

    Args:
        root: the folder that holds the lists and a folder for each person.
        out: the CSV to write; the JSON comes beside it.

    Raises:
        ManifestError: there is no such folder, a list is missing or says something impossible, or not one of its
            segments is on disk.
    """
    check_target(out)
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder; give the one that holds the lists of {CORPUS} and the folder P01")
    classes = {head: read_classes(_list(root, name), head) for head, name in CLASS_LISTS.items()}
    paths = {split: path for split, name in LISTS.items() if (path := find_list(root, LIST_FOLDERS, name)) is not None}
    if not paths:
        raise ManifestError(f"{root}: there is no list of segments; looked for {', '.join(LISTS.values())}")
    segments = {split: read_segments(path, "none" if split == UNLABELLED else "given") for split, path in paths.items()}
    _check_apart(paths, segments)
    notes = [
        f"split {split} is left out: {name} is not in {root}"
        for split, name in LISTS.items()
        if split not in paths and split != UNLABELLED
    ]
    if UNLABELLED in paths:
        notes.append(f"split {UNLABELLED} has no labels: `kinema evaluate` answers it, `kinema submit` hands that in")
    notes += [
        f"{paths[split].name} lists {len(found)} segments, the official one {COUNTS[split]}: it is another, or a part"
        for split, found in segments.items()
        if len(found) != COUNTS[split]
    ]
    listed = {segment.video_id for found in segments.values() for segment in found}
    sources, said = _sources(root, listed)
    entries, missing, cut = _entries(segments, sources, classes)
    names = ", ".join(path.name for path in paths.values())
    if not entries:
        wanted = f"P01/videos/P01_01.MP4 and P01/rgb_frames/P01_01/frame_{1:010}.jpg"
        raise ManifestError("; ".join([f"{root}: no segment of {names} is on disk; looked for {wanted}", *said]))
    notes += said
    if missing:
        by_video = [f"{video} ({count})" for video, count in sorted(missing.items())]
        notes.append(
            f"{missing.total()} segments of {names} are not on disk and were left out, and coverage counts them as "
            f"missing; they are of {len(missing)} videos: {examples(by_video, 10)}"
        )
    if cut:
        notes.append(
            f"{cut} segments go up to {END_SLACK} frames beyond the last picture of their folder; they end there"
        )
    there = {video for folder in _folders(root) for video in _videos(folder)}
    notes += differences(names, listed, there, ())
    return finish(
        entries,
        out,
        base=root,
        corpus=CORPUS,
        version=", ".join(f"{split} {len(found)}" for split, found in segments.items()),
        classes=classes,
        declared={split: len(found) for split, found in segments.items()},
        notes=notes,
    )


def _segment(row: Mapping[str, str], line: int, columns: Sequence[str]) -> Segment:
    for column in columns:
        if not row[column]:
            other = {"noun_class": " a verb stands without a noun", "verb_class": " a noun stands without a verb"}
            raise ValueError(f"{column} is empty:{other.get(column, ' a segment needs all of ' + ', '.join(columns))}")
    video = VIDEO.fullmatch(row["video_id"])
    if video is None or video[1] != row["participant_id"]:
        raise ValueError(f"{row['video_id']!r} is no video of {row['participant_id']!r}, such as P01_01 or P01_101")
    start_s, stop_s = (_seconds(column, row[column]) for column in ("start_timestamp", "stop_timestamp"))
    start, stop = (_whole(column, row[column]) for column in ("start_frame", "stop_frame"))
    if stop_s <= start_s:
        raise ValueError(f"it stops at {row['stop_timestamp']}, which is not behind its start {row['start_timestamp']}")
    if start < 1 or stop < start:
        raise ValueError(f"stop_frame {stop} lies before start_frame {start}, or this before 1")
    labels = {head: _whole(c, row[c]) for head, c in zip(CLASSES, LABEL_COLUMNS, strict=True) if c in columns}
    for head, label in labels.items():
        if label >= CLASSES[head]:
            raise ValueError(f"{head}_class {label} is none of the {CLASSES[head]} classes, 0 to {CLASSES[head] - 1}")
    return Segment(
        narration_id=row["narration_id"],
        participant_id=row["participant_id"],
        video_id=row["video_id"],
        start_s=start_s,
        stop_s=stop_s,
        start_frame=start,
        stop_frame=stop,
        classes=labels,
        line=line,
    )


def _seconds(column: str, cell: str) -> float:
    parts = TIMESTAMP.fullmatch(cell)
    if parts is None:
        raise ValueError(f"{column} {cell!r} is not of the form HH:MM:SS.SS")
    return round(3600 * int(parts[1]) + 60 * int(parts[2]) + float(parts[3]), 3)


def _whole(column: str, cell: str) -> int:
    if not cell.isdecimal():
        raise ValueError(f"{column} {cell!r} is no whole number")
    return int(cell)


def _check_columns(path: Path, row: Mapping[str, str], columns: Sequence[str]) -> None:
    lacking = [column for column in columns if column not in row]
    if lacking:
        raise ManifestError(
            f"{path}, line 1: column {lacking[0]!r} is missing: this is another list than its name says; wanted are "
            f"{', '.join(columns)}"
        )


def _check_apart(paths: Mapping[str, Path], segments: Mapping[str, Sequence[Segment]]) -> None:
    """Refuse lists that share a segment: one of them is not what its name says."""
    first: dict[str, str] = {}
    for split, found in segments.items():
        for segment in found:
            other = first.setdefault(segment.narration_id, split)
            if other != split:
                raise ManifestError(
                    f"{paths[split]}, line {segment.line}: {segment.narration_id} stands in {paths[other].name} too; "
                    "one of them is not the official list"
                )


def _list(root: Path, name: str) -> Path:
    path = find_list(root, LIST_FOLDERS, name)
    if path is None:
        places = ", ".join(folder for folder in LIST_FOLDERS if folder)
        raise ManifestError(f"{root}: {name} is neither in it nor in {places}; give the folder of {CORPUS}")
    return path


def _folders(root: Path) -> list[Path]:
    """The folders of all people."""
    return sorted(path for home in HOMES for path in (root / home).glob("P[0-9][0-9]") if path.is_dir())


def _videos(person: Path) -> list[str]:
    """Names of a person's videos, those that are files and those that are folders of frames."""
    there = [path.stem for path in (person / "videos").glob("*") if path.suffix in SUFFIXES]
    there += [path.name for path in (person / "rgb_frames").glob("*") if path.is_dir()]
    return sorted(name for name in set(there) if VIDEO.fullmatch(name))


def _sources(root: Path, videos: Sequence[str] | set[str]) -> tuple[dict[str, _Source], list[str]]:
    """Where each video lies that is there, and what is to be said of them."""
    sources: dict[str, _Source] = {}
    both, packed, renumbered = [], [], []
    for video in sorted(videos):
        homes = [root / home / video[:3] for home in HOMES]
        files = [p for home in homes for suffix in SUFFIXES if (p := home / "videos" / f"{video}{suffix}").is_file()]
        folders = [p for home in homes if (p := home / "rgb_frames" / video).is_dir()]
        if folders:
            pictures = _pictures(folders[0])
            if pictures and not re.fullmatch(r"\D*0*1", pictures[0].stem):
                renumbered.append(f"{folders[0]} ({pictures[0].name})")
            else:
                frames = len(pictures) or None
                sources[video] = _Source(path=folders[0].relative_to(root), form="frames", frames=frames)
        if files and video not in sources:
            sources[video] = _Source(path=files[0].relative_to(root), form="video")
        elif files:
            both.append(video)
        if not files and not folders and any((home / "rgb_frames" / f"{video}.tar").is_file() for home in homes):
            packed.append(video)
    notes = []
    if both:
        notes.append(f"{len(both)} videos are there as files too; their frames were taken: {examples(both)}")
    if packed:
        notes.append(
            f"frames of {len(packed)} videos are still packed; unpack each .tar into a folder of its name: "
            f"{examples(packed)}"
        )
    if renumbered:
        notes.append(
            f"{len(renumbered)} folders of frames were left out: the lists count frames from 1, and these begin with "
            f"another: {examples(renumbered)}"
        )
    taken = [video for video in WRONG_AT_FIRST if video in sources and sources[video].form == "frames"]
    if taken:
        notes.append(
            f"the official frames of {' and '.join(taken)} were wrong at first; if yours are of before the correction, "
            "take them anew as the annotations' README says"
        )
    return sources, notes


def _pictures(folder: Path) -> list[Path]:
    """A folder's frames; none where one is missing or there is none at all, which counting says afterwards."""
    try:
        return frame_files(str(folder))
    except UnreadableVideo:
        return []


def _entries(
    segments: Mapping[str, Sequence[Segment]],
    sources: Mapping[str, _Source],
    classes: Mapping[str, tuple[str, ...]],
) -> tuple[list[Entry], Counter[str], int]:
    """The samples that are there, how many of each video are not, and how many were cut at the end of their folder."""
    entries: list[Entry] = []
    missing: Counter[str] = Counter()
    cut = 0
    for split, found in segments.items():
        for segment in found:
            source = sources.get(segment.video_id)
            last = segment.stop_frame
            if source is not None and source.frames is not None:
                last = min(last, source.frames)
            if source is None or last < max(segment.start_frame, segment.stop_frame - END_SLACK):
                missing[segment.video_id] += 1
                continue
            cut += last < segment.stop_frame
            entry = Entry(
                rgb=source.path.as_posix(),
                split=split,
                group=segment.video_id,
                subject=segment.participant_id,
                sample=segment.narration_id,
                labels={head: classes[head][number] for head, number in segment.classes.items()},
                start_s=segment.start_s if source.form == "video" else None,
                stop_s=segment.stop_s if source.form == "video" else None,
            )
            if source.form == "frames":
                entry = replace(entry, start_frame=segment.start_frame - 1, stop_frame=last)
            entries.append(entry)
    return entries, missing, cut

"""EPIC-KITCHENS-100: 700 head-camera videos of 37 people in their own kitchens; each segment is a verb and a noun.

D. Damen et al.: Rescaling Egocentric Vision, IJCV 130, 2022. CC BY-NC 4.0. The root folder contains what the official
script downloads, directly or in `EPIC-KITCHENS`: `P01/videos/P01_01.MP4`, or frames unpacked to
`P01/rgb_frames/P01_01/frame_0000000001.jpg`; and the lists of the repository epic-kitchens-100-annotations, directly or
in a folder of that name or `annotations`. The lists are the split. The list of test segments has no labels; the
challenge evaluates predictions of them.

A segment of a video is cut by its time stamps, a segment of a folder by its frame numbers, which count from 1. Frame
numbers are valid for the official frames only: these have 60 frames per second of all videos of EPIC-KITCHENS-55
(`P01_01`) and 50 of all later ones (`P01_101`), whereas the videos have 29.97 to 90.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kinema.config import config
from kinema.data.csv_table import read_csv
from kinema.data.manifest import Entry
from kinema.datasets.listing import (
    compare_counts,
    describe_counts,
    find_lists,
    line_error,
    refuse_duplicates,
    require_columns,
    require_list,
)
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import Prepared, examples, write_prepared
from kinema.datasets.skeleton import check_paths, difference_notes
from kinema.errors import ManifestError, UnreadableVideo
from kinema.video.image_folder import list_images

DATASET = "EPIC-KITCHENS-100"
CLASSES = {"verb": 97, "noun": 300}
"""Number of classes of each task head; submissions use the numbers of the official lists."""
CLASS_LISTS = {"verb": "EPIC_100_verb_classes.csv", "noun": "EPIC_100_noun_classes.csv"}
LISTS = {
    "train": ("EPIC_100_train.csv",),
    "val": ("EPIC_100_validation.csv",),
    "test": ("EPIC_100_test_timestamps.csv",),
}
UNLABELED = "test"
COUNTS = {"train": 67_217, "val": 9_668, "test": 13_092}
"""Number of segments in the official lists."""
COLUMNS = (
    "narration_id",
    "participant_id",
    "video_id",
    "start_timestamp",
    "stop_timestamp",
    "start_frame",
    "stop_frame",
)
"""Columns of every list that are used."""
LABEL_COLUMNS = ("verb_class", "noun_class")
"""Further columns of a list with labels."""
LIST_DIRS = ("", "annotations", "epic-kitchens-100-annotations")
VIDEO_DIRS = ("", "EPIC-KITCHENS")
"""Folders that may contain the folders of the people."""
VIDEO = re.compile(r"(P\d\d)_\d{2,3}")
TIMESTAMP = re.compile(r"(\d\d):([0-5]\d):([0-5]\d(?:\.\d+)?)")
SUFFIXES = (".MP4", ".mp4")
END_SLACK = 6
"""Frames by which a segment may exceed the images of its folder, a tenth of a second; it is cut to the last image."""
CORRECTED_VIDEOS = ("P01_109", "P27_103")
"""Videos whose official frames were first published with errors (README of the annotations, Erratum)."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One line of an official list.

    Args:
        narration_id: Name of the segment.
        participant_id: Person.
        video_id: Video.
        start_s, stop_s: Segment of the video [s], half open.
        start_frame, stop_frame: Numbers of the first and last official frame, from 1.
        classes: Class numbers of verb and noun; empty in a list without labels.
        line: Line in the list.
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
    """A video file, or a folder of frames with their number; None if a frame is missing."""

    path: Path
    form: str
    frames: int | None = None


@config
class EpicKitchensOptions(DatasetOptions):
    """Make a manifest of EPIC-KITCHENS-100."""


def prepare(options: EpicKitchensOptions) -> Prepared:
    """Write the manifest of the segments that the lists name and that are on disk.

    Raises:
        ManifestError: A class list or all lists of segments are missing, a list is malformed, or no segment is on disk.
    """
    check_paths(options, f"the lists of {DATASET} and the folder P01")
    root = options.root
    fix = f"Copy the annotations into the folder of {DATASET}."
    class_lists = {head: require_list(root, LIST_DIRS, name, fix=fix) for head, name in CLASS_LISTS.items()}
    classes = {head: read_classes(path, head) for head, path in class_lists.items()}
    paths, notes = find_lists(root, LIST_DIRS, LISTS, optional=(UNLABELED,))
    segments = {split: read_segments(path, "none" if split == UNLABELED else "given") for split, path in paths.items()}
    refuse_duplicates((paths[split], s.line, s.narration_id) for split, found in segments.items() for s in found)
    counts = {split: len(found) for split, found in segments.items()}
    if UNLABELED in paths:
        notes.append(
            f"split {UNLABELED} has no labels: predict it with `kinema evaluate` and write a submission with "
            "`kinema submit`"
        )
    notes += compare_counts(paths, counts, COUNTS)
    listed = {segment.video_id for found in segments.values() for segment in found}
    sources, found_notes = _sources(root, listed)
    entries, missing, cut = _entries(segments, sources, classes)
    lists = ", ".join(path.name for path in paths.values())
    if not entries:
        wanted = f"P01/videos/P01_01.MP4 and P01/rgb_frames/P01_01/frame_{1:010}.jpg"
        problem = f"{root}: no segment of {lists} found on disk; looked for {wanted}"
        raise ManifestError("; ".join([problem, *found_notes]), path=root)
    notes += found_notes
    if missing:
        by_video = [f"{video} ({count})" for video, count in sorted(missing.items())]
        notes.append(
            f"{missing.total()} segments of {lists} are not on disk and are omitted; coverage counts them as missing. "
            f"They are of {len(missing)} videos: {examples(by_video, 10)}"
        )
    if cut:
        notes.append(f"{cut} segments exceed the images of their folder by up to {END_SLACK} frames; they were cut")
    videos = {video for folder in _people(root) for video in _videos(folder)}
    notes += difference_notes(lists, (), videos - listed)
    return write_prepared(
        entries,
        options.out,
        base=root,
        dataset=DATASET,
        version=describe_counts(counts),
        classes=classes,
        declared=counts,
        notes=notes,
    )


def read_classes(path: Path, head: str) -> tuple[str, ...]:
    """Return the class names of an official list, by their numbers.

    Raises:
        ManifestError: The file is not the official list of this task head.
    """
    lines = read_csv(path, path.read_bytes())
    require_columns(path, lines[0][1], ("id", "key"))
    for number, (line, row) in enumerate(lines):
        if row["id"] != str(number) or not row["key"]:
            raise line_error(path, line, f"expected class {number} and its key, got {row['id']!r}", field="id")
    refuse_duplicates((path, line, row["key"]) for line, row in lines)
    if len(lines) != CLASSES[head]:
        problem = f"expected {CLASSES[head]} {head} classes, got {len(lines)}. Use {CLASS_LISTS[head]} of {DATASET}."
        raise ManifestError(f"{path}: {problem}", path=path)
    return tuple(row["key"] for _, row in lines)


def read_segments(path: Path, labels: Literal["given", "none"] = "given") -> list[Segment]:
    """Return the segments of an official list.

    Args:
        path: List.
        labels: Whether the list has labels.

    Raises:
        ManifestError: A column or a cell is missing or malformed, a class is unknown, or a segment ends before it
            starts.
    """
    lines = read_csv(path, path.read_bytes())
    columns = (*COLUMNS, *LABEL_COLUMNS) if labels == "given" else COLUMNS
    require_columns(path, lines[0][1], columns)
    return [_segment(path, row, line, columns) for line, row in lines]


def _segment(path: Path, row: Mapping[str, str], line: int, columns: Sequence[str]) -> Segment:
    for column in columns:
        if not row[column]:
            raise line_error(path, line, f"{column} is empty; expected all of {', '.join(columns)}", field=column)
    video = VIDEO.fullmatch(row["video_id"])
    if video is None or video[1] != row["participant_id"]:
        raise line_error(
            path,
            line,
            f"{row['video_id']!r} is not a video of {row['participant_id']!r}; expected a name such as P01_01",
            field="video_id",
        )

    def number(column: str) -> int:
        if not row[column].isdecimal():
            raise line_error(path, line, f"{column} {row[column]!r}; expected an integer", field=column)
        return int(row[column])

    def seconds(column: str) -> float:
        parts = TIMESTAMP.fullmatch(row[column])
        if parts is None:
            raise line_error(path, line, f"{column} {row[column]!r}; expected HH:MM:SS.SS", field=column)
        return round(3600 * int(parts[1]) + 60 * int(parts[2]) + float(parts[3]), 3)

    start_s, stop_s = seconds("start_timestamp"), seconds("stop_timestamp")
    start, stop = number("start_frame"), number("stop_frame")
    if stop_s <= start_s:
        raise line_error(
            path,
            line,
            f"stop_timestamp {row['stop_timestamp']} is not after start_timestamp {row['start_timestamp']}",
            field="stop_timestamp",
        )
    if start < 1 or stop < start:
        problem = f"start_frame {start} and stop_frame {stop}; expected 1 <= start_frame <= stop_frame"
        raise line_error(path, line, problem, field="stop_frame" if start >= 1 else "start_frame")
    labels = {head: number(c) for head, c in zip(CLASSES, LABEL_COLUMNS, strict=True) if c in columns}
    for head, label in labels.items():
        if label >= CLASSES[head]:
            problem = f"{head}_class {label}; expected a class from 0 to {CLASSES[head] - 1}"
            raise line_error(path, line, problem, field=f"{head}_class")
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


def _people(root: Path) -> list[Path]:
    """Return the folders of all people."""
    return sorted(path for home in VIDEO_DIRS for path in (root / home).glob("P[0-9][0-9]") if path.is_dir())


def _videos(person: Path) -> list[str]:
    """Return the names of a person's videos: files and folders of frames."""
    names = [path.stem for path in (person / "videos").glob("*") if path.suffix in SUFFIXES]
    names += [path.name for path in (person / "rgb_frames").glob("*") if path.is_dir()]
    return sorted(name for name in set(names) if VIDEO.fullmatch(name))


def _sources(root: Path, videos: Collection[str]) -> tuple[dict[str, _Source], list[str]]:
    """Return the source of each video on disk, and notes."""
    sources: dict[str, _Source] = {}
    both, packed, renumbered = [], [], []
    for video in sorted(videos):
        people = [root / folder / video[:3] for folder in VIDEO_DIRS]
        files = [p for home in people for suffix in SUFFIXES if (p := home / "videos" / f"{video}{suffix}").is_file()]
        folders = [p for home in people if (p := home / "rgb_frames" / video).is_dir()]
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
        if not files and not folders and any((home / "rgb_frames" / f"{video}.tar").is_file() for home in people):
            packed.append(video)
    notes = []
    if both:
        notes.append(f"{len(both)} videos are on disk as files and as frames; the frames were used: {examples(both)}")
    if packed:
        notes.append(
            f"frames of {len(packed)} videos are still packed: unpack each .tar into a folder of the same name: "
            f"{examples(packed)}"
        )
    if renumbered:
        notes.append(
            f"{len(renumbered)} folders of frames are omitted because their frame numbers do not start at 1 as in the "
            f"lists: {examples(renumbered)}"
        )
    taken = [video for video in CORRECTED_VIDEOS if video in sources and sources[video].form == "frames"]
    if taken:
        notes.append(
            f"the official frames of {' and '.join(taken)} were first published with errors; extract them again as the "
            "README of the annotations describes if yours are older than the correction"
        )
    return sources, notes


def _pictures(folder: Path) -> list[Path]:
    """Return the frames of a folder; empty if the folder cannot be read, which counting frames reports later."""
    try:
        return list_images(str(folder))
    except UnreadableVideo:
        return []


def _entries(
    segments: Mapping[str, Sequence[Segment]],
    sources: Mapping[str, _Source],
    classes: Mapping[str, tuple[str, ...]],
) -> tuple[list[Entry], Counter[str], int]:
    """Return the entries on disk, the number of missing ones by video, and the number that were cut."""
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

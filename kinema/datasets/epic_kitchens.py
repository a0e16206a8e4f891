"""EPIC-KITCHENS-100: 700 head-camera videos of 37 people in their own kitchens; each segment is a verb and a noun.

D. Damen et al.: Rescaling Egocentric Vision, IJCV 130, 2022. CC BY-NC 4.0. The root folder contains what the official
script downloads, directly or in `EPIC-KITCHENS`: `P01/videos/P01_01.MP4`, or frames unpacked to
`P01/rgb_frames/P01_01/frame_0000000001.jpg`; and the lists of the repository epic-kitchens-100-annotations, directly or
in a folder of that name or `annotations`. The lists are the split. The list of test segments has no labels; the
challenge server evaluates predictions of them.

A segment of a video is cut by its time stamps, a segment of a folder by its frame numbers, which count from 1. Frame
numbers are valid for the official frames only: these have 60 frames per second of all videos of EPIC-KITCHENS-55
(`P01_01`) and 50 of all later ones (`P01_101`), whereas the videos have 29.97 to 90.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from kinema.data.csv_table import read_csv
from kinema.data.manifest import Entry
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import PreparedDataset, exclude_files, note_names, write_prepared
from kinema.datasets.registry import DatasetSpec
from kinema.datasets.skeleton import (
    ListedSample,
    check_paths,
    compare_counts,
    count_splits,
    describe_counts,
    difference_notes,
    find_lists,
    line_error,
    refuse_duplicates,
    require_columns,
    require_list,
)
from kinema.errors import ManifestError, UnreadableVideo, examples
from kinema.files import read_bytes
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
LABEL_COLUMNS = {"verb": "verb_class", "noun": "noun_class"}
"""Column of each task head in lists with labels."""
LIST_DIRS = ("", "annotations", "epic-kitchens-100-annotations")
VIDEO_DIRS = ("", "EPIC-KITCHENS")
"""Folders that may contain the folders of the people."""
VIDEO = re.compile(r"(P\d\d)_\d{2,3}")
TIMESTAMP = re.compile(r"(\d\d):([0-5]\d):([0-5]\d(?:\.\d+)?)")
SUFFIXES = (".MP4", ".mp4")
END_SLACK = 6
"""Number of frames (0.1 s) by which a segment may exceed its folder; it is cut to the last image."""
CORRECTED_VIDEOS = ("P01_109", "P27_103")
"""Videos whose official frames were first published with errors (README of the annotations, Erratum)."""


class Segment(NamedTuple):
    """Line of an official list.

    Attributes:
        sample: Name and manifest line, with the time stamps of the segment; its `rgb` is the name of the video.
        start_frame: Number of the first official frame, from 1.
        stop_frame: Number of the last official frame.
    """

    sample: ListedSample
    start_frame: int
    stop_frame: int


class _Source(NamedTuple):
    """Video file, or folder of images with the number of the last one (None if an image is missing)."""

    path: str
    kind: Literal["video", "images"]
    last: int | None = None


def prepare(options: DatasetOptions) -> PreparedDataset:
    """Write the manifest of the segments that the lists name and that are on disk.

    Raises:
        ManifestError: A class list or all lists of segments are missing, a list is malformed, or no segment is on disk.
    """
    check_paths(options, f"the lists of {DATASET} and the folder P01")
    root = options.root
    fix = f"Copy the annotations into the folder of {DATASET}."
    classes = {h: read_classes(require_list(root, LIST_DIRS, n, fix=fix), h) for h, n in CLASS_LISTS.items()}
    paths, notes = find_lists(root, LIST_DIRS, LISTS, optional=(UNLABELED,))
    segments = [
        segment
        for split, path in paths.items()
        for segment in read_segments(path, split, {} if split == UNLABELED else classes)
    ]
    samples = [segment.sample for segment in segments]
    refuse_duplicates((sample.path, sample.line, sample.name) for sample in samples)
    counts = count_splits(samples, paths)
    if UNLABELED in paths:
        notes.append(
            f"split {UNLABELED} has no labels: predict it with `kinema evaluate` and write a submission with "
            "`kinema submit`"
        )
    notes += compare_counts(paths, counts, COUNTS)
    videos = {sample.entry.rgb for sample in samples}
    sources, source_notes = _find_sources(root, videos)
    entries = []
    missing: Counter[str] = Counter()
    num_cut = 0
    for segment in segments:
        entry = _entry(segment, sources.get(segment.sample.entry.rgb))
        if entry is None:
            missing[segment.sample.entry.rgb] += 1
        else:
            entries.append(entry)
            num_cut += entry.stop_frame not in (None, segment.stop_frame)
    lists = ", ".join(path.name for path in paths.values())
    if not entries:
        searched = f"P01/videos/P01_01.MP4 and P01/rgb_frames/P01_01/frame_{1:010}.jpg"
        problem = f"{root}: no segment of {lists} found on disk; looked for {searched}"
        raise ManifestError("; ".join([problem, *source_notes]), path=root)
    notes += source_notes
    if missing:
        by_video = examples([f"{video} ({count})" for video, count in sorted(missing.items())], 10)
        notes.append(
            f"{missing.total()} segments of {lists} are not on disk and are omitted; coverage counts them as missing. "
            f"They are of {len(missing)} videos: {by_video}"
        )
    if num_cut:
        notes.append(f"{num_cut} segments exceed the images of their folder by up to {END_SLACK} frames; they were cut")
    notes += difference_notes(lists, (), _list_videos(root) - videos)
    entries, excluded = exclude_files(entries, options, root)
    return write_prepared(
        entries,
        options.out,
        base=root,
        dataset=DATASET,
        version=describe_counts(counts),
        classes=classes,
        declared=counts,
        notes=[*notes, *excluded],
    )


def read_classes(path: Path, head: str) -> tuple[str, ...]:
    """Return the class names of an official list, by their numbers.

    Raises:
        ManifestError: The file is not the official list of this task head.
    """
    lines = read_csv(path, read_bytes(path))
    require_columns(path, lines[0][1], ("id", "key"))
    for number, (line, row) in enumerate(lines):
        if row["id"] != str(number) or not row["key"]:
            raise line_error(path, line, f"expected class {number} and its key, got {row['id']!r}", field="id")
    refuse_duplicates((path, line, row["key"]) for line, row in lines)
    if len(lines) != CLASSES[head]:
        problem = f"expected {CLASSES[head]} {head} classes, got {len(lines)}. Use {CLASS_LISTS[head]} of {DATASET}."
        raise ManifestError(f"{path}: {problem}", path=path)
    return tuple(row["key"] for _, row in lines)


def read_segments(path: Path, split: str, classes: Mapping[str, Sequence[str]]) -> list[Segment]:
    """Return the segments of an official list; `classes` is empty for a list without labels.

    Raises:
        ManifestError: A column or a cell is missing or malformed, a class is unknown, or a segment ends before it
            starts.
    """
    lines = read_csv(path, read_bytes(path))
    columns = (*COLUMNS, *(LABEL_COLUMNS[head] for head in classes))
    require_columns(path, lines[0][1], columns)
    return [_segment(path, row, line, columns, split, classes) for line, row in lines]


def _segment(
    path: Path,
    row: Mapping[str, str],
    line: int,
    columns: Sequence[str],
    split: str,
    classes: Mapping[str, Sequence[str]],
) -> Segment:
    def error(field: str, problem: str) -> ManifestError:
        return line_error(path, line, problem, field=field)

    def number(column: str) -> int:
        if not row[column].isdecimal():
            raise error(column, f"{column} {row[column]!r}; expected an integer")
        return int(row[column])

    def seconds(column: str) -> float:
        parts = TIMESTAMP.fullmatch(row[column])
        if parts is None:
            raise error(column, f"{column} {row[column]!r}; expected HH:MM:SS.SS")
        return round(3600 * int(parts[1]) + 60 * int(parts[2]) + float(parts[3]), 3)

    for column in columns:
        if not row[column]:
            raise error(column, f"{column} is empty; expected all of {', '.join(columns)}")
    video = VIDEO.fullmatch(row["video_id"])
    if video is None or video[1] != row["participant_id"]:
        problem = f"{row['video_id']!r} is not a video of {row['participant_id']!r}; expected a name such as P01_01"
        raise error("video_id", problem)
    start_s, stop_s = seconds("start_timestamp"), seconds("stop_timestamp")
    start, stop = number("start_frame"), number("stop_frame")
    if stop_s <= start_s:
        problem = f"stop_timestamp {row['stop_timestamp']} is not after start_timestamp {row['start_timestamp']}"
        raise error("stop_timestamp", problem)
    if not 1 <= start <= stop:
        problem = f"start_frame {start} and stop_frame {stop}; expected 1 <= start_frame <= stop_frame"
        raise error("stop_frame" if start >= 1 else "start_frame", problem)
    labels = {head: number(LABEL_COLUMNS[head]) for head in classes}
    for head, label in labels.items():
        if label >= CLASSES[head]:
            problem = f"{LABEL_COLUMNS[head]} {label}; expected a class from 0 to {CLASSES[head] - 1}"
            raise error(LABEL_COLUMNS[head], problem)
    entry = Entry(
        rgb=row["video_id"],
        start_s=start_s,
        stop_s=stop_s,
        split=split,
        group=row["video_id"],
        subject=row["participant_id"],
        sample=row["narration_id"],
        labels={head: classes[head][label] for head, label in labels.items()},
    )
    return Segment(ListedSample(name=entry.sample, entry=entry, path=path, line=line), start, stop)


def _list_videos(root: Path) -> set[str]:
    """Return the names of all videos on disk: files and folders of images."""
    people = [path for folder in VIDEO_DIRS for path in (root / folder).glob("P[0-9][0-9]") if path.is_dir()]
    names = {p.stem for person in people for p in (person / "videos").glob("*") if p.suffix in SUFFIXES}
    names |= {p.name for person in people for p in (person / "rgb_frames").glob("*") if p.is_dir()}
    return {name for name in names if VIDEO.fullmatch(name)}


def _find_sources(root: Path, videos: Collection[str]) -> tuple[dict[str, _Source], list[str]]:
    """Return the source of each video on disk, and notes."""
    sources: dict[str, _Source] = {}
    both, packed, renumbered = [], [], []
    for video in sorted(videos):
        people = [root / folder / video[:3] for folder in VIDEO_DIRS]
        files = [p for home in people for suffix in SUFFIXES if (p := home / "videos" / f"{video}{suffix}").is_file()]
        folders = [p for home in people if (p := home / "rgb_frames" / video).is_dir()]
        if folders:
            images = _list_images(folders[0])
            if images and not re.fullmatch(r"\D*0*1", images[0].stem):
                renumbered.append(f"{folders[0]} ({images[0].name})")
            else:
                sources[video] = _Source(folders[0].relative_to(root).as_posix(), "images", len(images) or None)
        if files and video not in sources:
            sources[video] = _Source(files[0].relative_to(root).as_posix(), "video")
        elif files:
            both.append(video)
        if not files and not folders and any((home / "rgb_frames" / f"{video}.tar").is_file() for home in people):
            packed.append(video)
    notes = note_names(both, "videos are on disk as files and as frames; the frames were used")
    notes += note_names(packed, "videos have packed frames: unpack each .tar into a folder of the same name")
    notes += note_names(
        renumbered,
        "folders of frames are omitted because their frame numbers do not start at 1 as in the lists",
    )
    corrected = [v for v in CORRECTED_VIDEOS if v in sources and sources[v].kind == "images"]
    if corrected:
        notes.append(
            f"the official frames of {' and '.join(corrected)} were first published with errors; extract them again as "
            "the README of the annotations describes if yours are older than the correction"
        )
    return sources, notes


def _list_images(folder: Path) -> list[Path]:
    """Return the frames of a folder; empty if it cannot be read, since counting frames reports it later."""
    try:
        return list_images(str(folder))
    except UnreadableVideo:
        return []


def _entry(segment: Segment, source: _Source | None) -> Entry | None:
    """Return the manifest line of a segment, or None if the segment is not on disk."""
    if source is None:
        return None
    entry = replace(segment.sample.entry, rgb=source.path)
    if source.kind == "video":
        return entry
    last = segment.stop_frame if source.last is None else min(segment.stop_frame, source.last)
    if last < max(segment.start_frame, segment.stop_frame - END_SLACK):
        return None
    return replace(entry, start_s=None, stop_s=None, start_frame=segment.start_frame - 1, stop_frame=last)


SPECS = (
    DatasetSpec(
        "epic_kitchens", "EPIC-KITCHENS-100: 89,977 segments, each of a verb and a noun.", DatasetOptions, prepare
    ),
)

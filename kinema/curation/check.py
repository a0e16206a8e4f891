"""A manifest checked: what its files are, held against what it says of them, and its splits against each other.

Every finding is a fault, which makes an experiment wrong or stops it, or a note, which one should know.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from kinema.curation.duplicates import LIKENESS, Pair, near_duplicates, signature_pictures
from kinema.curation.inspect import Inspection
from kinema.curation.inspections import Source, inspect_all
from kinema.data.manifest import Entry, Manifest
from kinema.data.splits import divided_names
from kinema.modality import MODALITIES, Modality
from kinema.video.container import END_SLACK_S
from kinema.video.read_options import ReadOptions

Severity = Literal["fault", "note"]
SEVERITY: dict[str, Severity] = {
    "missing": "fault",
    "unreadable": "fault",
    "no video stream": "fault",
    "broken": "fault",
    "damaged": "fault",
    "truncated": "fault",
    "frames lost": "fault",
    "too short": "fault",
    "frame count": "fault",
    "segment": "fault",
    "rgb box": "fault",
    "short segment": "fault",
    "unequal lengths": "fault",
    "depth range": "fault",
    "same sample": "fault",
    "near-duplicate": "fault",
    "untrained class": "fault",
    "shorter than a clip": "note",
    "rotated": "note",
    "variable rate": "note",
    "blank": "note",
    "empty depth": "note",
    "header": "note",
    "same video": "note",
    "shared group": "note",
    "shared subject": "note",
    "untested class": "note",
    "imbalance": "note",
    "declared": "note",
    "resolutions": "note",
}
"""Every kind of finding, in the order in which they are told."""

OF_A_FILE = frozenset(
    {
        "missing",
        "unreadable",
        "no video stream",
        "broken",
        "damaged",
        "truncated",
        "frames lost",
        "too short",
        "unequal lengths",
        "near-duplicate",
    }
)
"""Faults for which a file can be left out; the others ask for a correction of the manifest."""

READ_OPTIONS = ReadOptions(isolation="process", timeout_s=3600.0)
"""For checking: a bad file harms no other, and a film may take its time."""

UNEVEN_SHARE = 0.02
"""Of the intervals between frames that may be uneven before a rate is called variable: a dropped frame is none."""
BLANK_SHARE = 0.5
IMBALANCE = 10.0
"""Samples of the largest class for one of the smallest, from which it is worth a note."""
LEAST_LOST_S, LOST_FRAMES, LOST_SHARE = 0.2, 3, 0.005
"""A file may end before its announced end by the largest of these: seconds, frames, share of the whole."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong or worth knowing.

    Args:
        kind: one of `SEVERITY`.
        line: of the manifest; 0 where it concerns more than one.
        modality: of the file; empty where it concerns no single one.
        file: as the manifest says it; empty where there is none.
        sentence: what it is.
    """

    kind: str
    line: int = 0
    modality: Modality | Literal[""] = ""
    file: str = ""
    sentence: str

    @property
    def severity(self) -> Severity:
        return SEVERITY[self.kind]


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Two files of different splits that are copies of one recording."""

    first: str
    second: str
    modality: Modality
    splits: tuple[str, str]
    lines: tuple[int, int]
    pair: Pair


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A manifest, what was found in its files, and what is wrong.

    Args:
        entries: the samples of the splits that were checked.
        inspections: of every file, by the path as the manifest says it.
        remembered: files that were not looked at again, being unchanged since an earlier check.
        findings: faults first, each kind in the order of the manifest.
        copies: near-duplicates across splits; each is among the findings too.
        incomparable: files that are of one colour throughout, or cannot be read, so that no copy of them can be found.
    """

    manifest: Manifest
    entries: tuple[Entry, ...]
    inspections: Mapping[Source, Inspection]
    remembered: int
    findings: tuple[Finding, ...]
    copies: tuple[Copies, ...]
    incomparable: int

    @property
    def faults(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "fault")

    @property
    def notes(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "note")

    @property
    def bad_files(self) -> dict[str, str]:
        """Files that could be left out, each with what is wrong with it."""
        bad: dict[str, list[str]] = {}
        for finding in self.faults:
            if finding.kind in OF_A_FILE:
                bad.setdefault(finding.file, []).append(f"{finding.kind}: {finding.sentence}")
        return {file: "; ".join(reasons) for file, reasons in bad.items()}


def check(
    manifest: Manifest,
    *,
    memory: Path,
    splits: Sequence[str] = (),
    clip_frames: int = 16,
    reading: ReadOptions = READ_OPTIONS,
    workers: int = 1,
    progress: Callable[[int, int, int], None] | None = None,
) -> Checked:
    """Decode every file of a manifest once, and say what is wrong.

    Args:
        memory: file in which is remembered what was found; an unchanged file is not decoded again.
        splits: those to check; all where empty.
        clip_frames: of the clip that is to be taken from each sample.
        reading: limits, and whether files are read in processes of their own.
        workers: files that are read at the same time.
        progress: told how many files are done, of how many, and how many of these were remembered.

    Raises:
        ManifestError: a split is not there.
    """
    chosen = (
        sorted({i for split in splits for i in manifest.positions(split)}) if splits else range(len(manifest.entries))
    )
    entries = tuple(manifest.entries[i] for i in chosen)
    named = {source: Source(manifest.locate(source.path), source.kind) for e in entries for source in _sources(e)}
    total = len(set(named.values()))
    inspected = inspect_all(
        named.values(),
        reading=reading,
        workers=workers,
        memory=memory,
        progress=None if progress is None else lambda done, remembered: progress(done, total, remembered),
    )
    inspections = {source: inspected.found[place] for source, place in named.items()}
    copies, incomparable = _copies(entries, inspections)
    found = [
        *_of_files(entries, inspections, clip_frames),
        *_of_samples(manifest, entries, inspections, clip_frames),
        *_of_copies(copies),
        *_of_splits(entries),
        *_of_classes(manifest, entries),
        *_of_all(manifest, entries, inspections),
    ]
    order = {kind: place for place, kind in enumerate(SEVERITY)}
    return Checked(
        manifest=manifest,
        entries=entries,
        inspections=inspections,
        remembered=inspected.remembered,
        findings=tuple(sorted(found, key=lambda finding: (order[finding.kind], finding.line))),
        copies=tuple(copies),
        incomparable=incomparable,
    )


def _sources(entry: Entry) -> list[Source]:
    """The files of a sample, as the manifest says them."""
    return [Source(entry.source(modality), modality) for modality in MODALITIES if entry.source(modality)]


# -- one file ----------------------------------------------------------------------------------------------------------

PROBLEMS = {"missing": "missing", "unreadable": "unreadable", "no_video": "no video stream", "broken": "broken"}


def _of_files(
    entries: Sequence[Entry], inspections: Mapping[Source, Inspection], clip_frames: int
) -> Iterator[Finding]:
    lines: dict[Source, list[int]] = defaultdict(list)
    for entry in entries:
        for source in _sources(entry):
            lines[source].append(entry.line)
    for source, numbers in lines.items():
        inspection = inspections[source]
        more = f" (and {len(numbers) - 1} more lines)" if len(numbers) > 1 else ""
        for kind, sentence in _of_file(inspection, source.kind, clip_frames):
            yield Finding(kind=kind, line=numbers[0], modality=source.kind, file=source.path, sentence=sentence + more)


def _of_file(seen: Inspection, kind: Modality, clip_frames: int) -> Iterator[tuple[str, str]]:
    """Kind and sentence of what can be said of a file alone."""
    if seen.problem:
        yield PROBLEMS[seen.problem], seen.reason
        return
    lost = seen.announced_frames - seen.frames
    allowed_s = max(LEAST_LOST_S, LOST_FRAMES / (seen.rate or 25.0), LOST_SHARE * (seen.seconds or 0.0))
    if seen.lost_s > allowed_s and not 0 < seen.announced_frames <= seen.frames + 1:
        frames = (
            f"{seen.frames} of {seen.announced_frames} frames" if seen.announced_frames else f"{seen.frames} frames"
        )
        yield "truncated", f"ends {seen.lost_s:.1f} s before the end that it announces, after {frames}"
    elif lost > 1:
        yield "frames lost", f"announces {seen.announced_frames} frames, but {seen.frames} decode"
    elif seen.announced_frames and lost:
        yield "header", f"announces {seen.announced_frames} frames, and {seen.frames} decode"
    if seen.damaged:
        yield "damaged", f"{seen.damaged} of {seen.frames} frames are damaged, and were repaired by guessing"
    if seen.frames < 2:
        yield "too short", "has a single frame"
    elif seen.frames < clip_frames:
        yield "shorter than a clip", f"has {seen.frames} frames, fewer than the {clip_frames} of a clip"
    if seen.rotation:
        how = "mirrored" if seen.rotation < 0 else f"turned by {seen.rotation} degrees"
        yield "rotated", f"is stored otherwise than it is shown: {how}"
    if seen.uneven > UNEVEN_SHARE:
        yield "variable rate", f"{seen.uneven:.0%} of the intervals between its frames are uneven"
    if kind == "depth" and seen.empty:
        yield "empty depth", f"{seen.empty:.0%} of its frames have no reading at all"
    elif seen.blank >= BLANK_SHARE:
        yield "blank", f"{seen.blank:.0%} of its frames are of one colour"


# -- one sample --------------------------------------------------------------------------------------------------------


def _of_samples(
    manifest: Manifest, entries: Sequence[Entry], inspections: Mapping[Source, Inspection], clip_frames: int
) -> Iterator[Finding]:
    for entry in entries:
        seen = {source: inspections[source] for source in _sources(entry) if not inspections[source].problem}
        for place, (source, inspection) in enumerate(seen.items()):
            about = {"line": entry.line, "modality": source.kind, "file": source.path}
            found = [*_of_segment(entry, inspection, clip_frames)]
            if place == 0 and entry.frames is not None and entry.frames != inspection.frames:
                found.append(("frame count", f"frames={entry.frames} in the manifest, but {inspection.frames} decode"))
            if source.kind == "depth":
                found += _of_depth(manifest, inspection)
            elif entry.rgb_box is not None and not entry.rgb_box.fits(inspection.width, inspection.height):
                size = f"{inspection.width} x {inspection.height}"
                found.append(("rgb box", f"rgb_box={entry.rgb_box} reaches beyond its frames of {size}"))
            for kind, sentence in found:
                yield Finding(kind=kind, sentence=sentence, **about)  # type: ignore[arg-type]  # one type a field
        counts = {source.kind: inspection.frames for source, inspection in seen.items()}
        if len(set(counts.values())) > 1:
            yield Finding(
                kind="unequal lengths",
                line=entry.line,
                file=entry.depth,
                modality="depth",
                sentence=f"has {counts['depth']} frames, but {entry.rgb} has {counts['rgb']}",
            )


def _of_segment(entry: Entry, seen: Inspection, clip_frames: int) -> Iterator[tuple[str, str]]:
    if entry.start_frame is not None and entry.stop_frame is not None:
        if entry.stop_frame > seen.frames:
            yield "segment", f"stop_frame={entry.stop_frame} lies behind the {seen.frames} frames that decode"
        length = entry.stop_frame - entry.start_frame
    elif entry.start_s is not None and entry.stop_s is not None:
        if seen.seconds is None or seen.rate is None:
            yield "segment", "has no time stamps, so seconds say nothing; give start_frame and stop_frame"
            return
        if entry.stop_s > seen.seconds + END_SLACK_S:
            yield "segment", f"stop_s={entry.stop_s} lies behind its end at {seen.seconds:.3f} s"
        length = round((entry.stop_s - entry.start_s) * seen.rate)
    else:
        return
    if length < 2:
        yield "short segment", f"has {length} frames, and no action can be seen in them"
    elif length < clip_frames <= seen.frames:
        yield "shorter than a clip", f"its segment has {length} frames, fewer than the {clip_frames} of a clip"


def _of_depth(manifest: Manifest, seen: Inspection) -> Iterator[tuple[str, str]]:
    if manifest.depth is None and seen.bits > 8:
        yield "depth range", "holds 16-bit depth, but the manifest's JSON says no depth_range"
    elif manifest.depth is not None and seen.bits == 8 and manifest.depth.near > 255:
        yield "depth range", f"holds 8-bit depth, but depth_range begins at {manifest.depth.near:g}"


# -- several samples ---------------------------------------------------------------------------------------------------


def _copies(entries: Sequence[Entry], inspections: Mapping[Source, Inspection]) -> tuple[list[Copies], int]:
    """Copies across splits, told from the RGB where there is any, and how many files could not be compared."""
    kind: Modality = "rgb" if any(entry.rgb for entry in entries) else "depth"
    lines: dict[str, dict[str, int]] = defaultdict(dict)  # split -> file -> line
    for entry in entries:
        if entry.source(kind):
            lines[entry.split].setdefault(entry.source(kind), entry.line)
    pictures = {
        file: signature_pictures(inspections[Source(file, kind)].signature)
        for files in lines.values()
        for file in files
        if inspections[Source(file, kind)].signature
    }
    found = []
    # Train comes last: a copy is reported, and left out, where that changes no test.
    for first, second in combinations(sorted(lines, key=lambda split: (split == "train", split)), 2):
        shared = lines[first].keys() & lines[second].keys()  # told of as such
        left, right = ([f for f in lines[split] if f in pictures and f not in shared] for split in (first, second))
        if not left or not right:
            continue
        rows = (np.stack([pictures[file] for file in left]), np.stack([pictures[file] for file in right]))
        for pair in near_duplicates(rows[0], rows[1], LIKENESS[kind]):
            files = (left[pair.first], right[pair.second])
            found.append(
                Copies(
                    first=files[0],
                    second=files[1],
                    modality=kind,
                    splits=(first, second),
                    lines=(lines[first][files[0]], lines[second][files[1]]),
                    pair=pair,
                )
            )
    every = {file for files in lines.values() for file in files}
    return found, len(every) - len(pictures)


def _of_copies(copies: Sequence[Copies]) -> Iterator[Finding]:
    for copy in copies:
        how = "mirrors" if copy.pair.mirrored else "copies"
        yield Finding(
            kind="near-duplicate",
            line=copy.lines[1],
            modality=copy.modality,
            file=copy.second,
            sentence=(
                f"in {_name(copy.splits[1])} {how} {copy.first} in {_name(copy.splits[0])} (line {copy.lines[0]}), "
                f"or almost: motion {copy.pair.motion:.2f}, appearance {copy.pair.appearance:.2f}"
            ),
        )


def _of_splits(entries: Sequence[Entry]) -> Iterator[Finding]:
    """What stands in more than one split."""
    by_file: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_file[entry.rgb or entry.depth].append(entry)
    for file, users in by_file.items():
        if len({entry.split for entry in users}) < 2:
            continue
        overlap = next(((a, b) for a, b in combinations(users, 2) if a.split != b.split and _overlap(a, b)), None)
        first, second = overlap or next((a, b) for a, b in combinations(users, 2) if a.split != b.split)
        where = f"{_name(second.split)} here and in {_name(first.split)} in line {first.line}"
        yield Finding(
            kind="same sample" if overlap else "same video",
            line=second.line,
            modality="rgb" if second.rgb else "depth",
            file=file,
            sentence=f"is in {where}" if overlap else f"has segments in more than one split: in {where}",
        )
    for column in ("group", "subject"):
        names = divided_names(entries, column)
        if names:
            yield Finding(
                kind=f"shared {column}",
                sentence=f"{_some(names, column)} in more than one split; a test then says little of new {column}s",
            )


def _overlap(first: Entry, second: Entry) -> bool:
    """Whether two samples of one file share frames; where one is in seconds and one in frames, that is not known."""
    spans = [(entry.start_s, entry.stop_s, entry.start_frame, entry.stop_frame) for entry in (first, second)]
    (a_s, b_s, a_frame, b_frame), (c_s, d_s, c_frame, d_frame) = spans
    if a_s is not None and b_s is not None and c_s is not None and d_s is not None:
        return a_s < d_s and c_s < b_s
    if a_frame is not None and b_frame is not None and c_frame is not None and d_frame is not None:
        return a_frame < d_frame and c_frame < b_frame
    return True


def _of_classes(manifest: Manifest, entries: Sequence[Entry]) -> Iterator[Finding]:
    """How many samples each class has, in training and outside."""
    splits = {entry.split for entry in entries}
    for head, names in manifest.classes.items():
        what, one = ("classes", "class") if head == "label" else (f"classes of {head}", f"class of {head}")
        trained = Counter(entry.labels[head] for entry in entries if entry.split == "train" and entry.labels)
        lacking = [name for name in names if not trained[name]]
        if lacking and "train" in splits:
            sentence = f"train has no sample of {len(lacking)} of {len(names)} {what}: {_listed(lacking)}"
            yield Finding(kind="untrained class", sentence=sentence)
        if trained and max(trained.values()) >= IMBALANCE * min(trained.values()):
            (most, count), (least, fewest) = trained.most_common()[0], trained.most_common()[-1]
            sentence = f"{one} {most!r} has {count} samples in train, {least!r} has {fewest}"
            yield Finding(kind="imbalance", sentence=sentence)
        for split in sorted(splits - {"train", *manifest.unlabelled}):
            there = {entry.labels[head] for entry in entries if entry.split == split}
            lacking = [name for name in names if name not in there]
            if lacking:
                sentence = f"{_name(split)} has no sample of {len(lacking)} of {len(names)} {what}: {_listed(lacking)}"
                yield Finding(kind="untested class", sentence=sentence)


def _of_all(
    manifest: Manifest, entries: Sequence[Entry], inspections: Mapping[Source, Inspection]
) -> Iterator[Finding]:
    there = Counter(entry.split for entry in entries)
    for split in there:
        declared = manifest.declared.get(split, 0)
        if declared != there[split]:
            sentence = f"{_name(split)} is declared to hold {declared} samples, but {there[split]} are listed"
            yield Finding(kind="declared", sentence=sentence)
    for kind in MODALITIES:
        sizes = Counter(
            (seen.width, seen.height) for source, seen in inspections.items() if source.kind == kind and seen.width
        )
        if len(sizes) > 1:
            listed = _listed([f"{width} x {height} ({count})" for (width, height), count in sizes.most_common()])
            yield Finding(kind="resolutions", modality=kind, sentence=f"{kind} has {len(sizes)} resolutions: {listed}")


def _name(split: str) -> str:
    return split or "(no split)"


def _some(names: Sequence[str], column: str) -> str:
    many = len(names) > 1
    return f"{len(names)} {column}{'s' if many else ''} ({_listed(names)}) {'are' if many else 'is'}"


def _listed(names: Iterable[str], most: int = 6) -> str:
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")

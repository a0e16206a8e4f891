"""Steps shared by all datasets: count frames, write the manifest, and note what is found in it."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kinema.data.manifest import Entry, Manifest, class_lists, locate, write_manifest
from kinema.data.mirrored import mirroring_notes, parse_mirrored
from kinema.data.splits import divided_names
from kinema.datasets.cells import check_class_names
from kinema.errors import ManifestError, UnreadableVideo, examples
from kinema.modality import MODALITIES, DepthFacts
from kinema.video.source import count_frames, read_gray

OWN = "own"
"""Version of a user's own data in its manifest."""
FrameCounts = Mapping[str, int | str]
"""Number of frames of each file, or the reason why it cannot be read."""


@dataclass(frozen=True, kw_only=True)
class PreparedDataset:
    """Written manifest, with messages for the user.

    Attributes:
        manifest: The manifest.
        unreadable: Error messages of files that cannot be decoded. Their lines are kept, with `frames` empty.
        notes: Decisions, omissions and findings, one sentence each.
    """

    manifest: Manifest
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One line with the number of samples by split, of classes and of unreadable files."""
        counts = Counter(entry.split for entry in self.manifest.entries)
        splits = [
            f"{counts[split]} {split or '(no split)'}"
            if counts[split] == declared
            else f"{counts[split]} of {declared} declared {split}"
            for split, declared in self.manifest.declared.items()
        ]
        heads = [f"{n} classes" if head == "label" else f"{n} of {head}" for head, n in self.manifest.heads.items()]
        files = f"{len(self.unreadable)} files cannot be read"
        return f"{self.manifest.path}: {', '.join(splits)}; {', '.join(heads)}; {files}"


def note_names(names: Sequence[str], text: str, most: int = 3) -> list[str]:
    """Return a list with the note `COUNT text: EXAMPLES`; empty if there are no names."""
    return [f"{len(names)} {text}: {examples(names, most)}"] if names else []


def single_modality_notes(entries: Sequence[Entry]) -> list[str]:
    """Return notes on samples that lack one modality, if the dataset has both."""
    notes: list[str] = []
    if any(entry.rgb for entry in entries) and any(entry.depth for entry in entries):
        for modality, other in (MODALITIES, MODALITIES[::-1]):
            alone = [entry.sample or entry.source(modality) for entry in entries if not entry.source(other)]
            problem = f"samples have {modality} but no {other}; their lines stay, with {other} empty"
            notes += note_names(alone, problem)
    return notes


def write_prepared(
    entries: Sequence[Entry],
    out: Path,
    *,
    base: Path,
    dataset: str,
    version: str = OWN,
    classes: Mapping[str, tuple[str, ...]] | None = None,
    depth: DepthFacts | None = None,
    declared: Mapping[str, int] | None = None,
    mirrored: str = "",
    notes: Sequence[str] = (),
) -> PreparedDataset:
    """Count the frames of every file and write the manifest.

    Args:
        entries: Samples; their paths are relative to `base`, absolute, or URLs.
        out: CSV to write.
        base: Folder of relative paths.
        dataset: Name of the dataset.
        version: Split or version of the dataset.
        classes: Class names of each task head; those of the entries if None.
        depth: Meaning of 16-bit depth values.
        declared: Number of samples per split of the complete dataset, if some are missing.
        mirrored: Classes that mirroring exchanges, as `a=b,c=d` or `none`; empty if only their names tell.
        notes: Messages so far.

    Raises:
        ManifestError: No sample is left, a mirrored class is unknown, a task head has fewer than two classes or two
            spellings of one class, a segment ends after its file, or `depth` is given without any depth file.
    """
    if not entries:
        raise ManifestError("; ".join([f"{out}: no sample is left to write", *notes]), path=out)
    lists = class_lists(entries) if classes is None else classes
    if classes is None:
        check_class_names(lists, out)
    for head, names in lists.items():
        if len(names) < 2:
            problem = f"{head!r} has one class, {names[0]!r}; expected at least two"
            raise ManifestError(f"{out}: {problem}", path=out, field=head)
    if depth is not None and not any(entry.depth for entry in entries):
        problem = "a depth range is given, but no sample has depth. Remove --depth-range."
        raise ManifestError(f"{out}: {problem}", path=out, field="depth_range")

    pairs = parse_mirrored(mirrored, lists)
    entries = [
        replace(entry, rgb=_relocate(entry.rgb, base, out), depth=_relocate(entry.depth, base, out))
        for entry in entries
    ]
    counts = _count([locate(out, source) for entry in entries for source in (entry.rgb, entry.depth) if source])
    counted = [_with_frames(entry, out, counts) for entry in entries]
    manifest = write_manifest(
        out,
        entries=counted,
        classes=lists,
        dataset=dataset,
        version=version,
        depth=depth,
        declared=declared,
        mirrored=pairs,
    )
    corrected = sum(
        None not in (before.frames, after.frames) and before.frames != after.frames
        for before, after in zip(entries, counted, strict=True)
    )
    findings = _data_notes(manifest, counts)
    if corrected:
        findings.insert(0, f"{corrected} lines had a wrong number of frames; the number of decoded frames was written")
    reasons = tuple(count for count in counts.values() if isinstance(count, str))
    return PreparedDataset(manifest=manifest, unreadable=reasons, notes=(*notes, *findings))


def _relocate(source: str, base: Path, out: Path) -> str:
    """Convert a path relative to `base` to one relative to the manifest; URLs and empty paths are unchanged."""
    if not source or "://" in source:
        return source
    return Path(os.path.relpath((base / source).resolve(), out.parent.resolve())).as_posix()


def _count(paths: Sequence[str]) -> FrameCounts:
    def count(path: str) -> int | str:
        try:
            return count_frames(path)
        except UnreadableVideo as error:
            return str(error)

    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return dict(zip(unique, pool.map(count, unique), strict=True))


def _with_frames(entry: Entry, out: Path, counts: FrameCounts) -> Entry:
    path = locate(out, entry.rgb or entry.depth)
    count = counts[path]
    try:
        return replace(entry, frames=count if isinstance(count, int) else None)
    except ValueError as error:  # the segment ends after the last frame
        raise ManifestError(f"{path}: {error}", path=path, line=entry.line or None, field="stop_frame") from error


def _data_notes(manifest: Manifest, counts: FrameCounts) -> list[str]:
    """Return notes on lengths, depth, divided groups and mirrored classes."""
    pairs = dict.fromkeys((e.rgb, e.depth) for e in manifest.entries if e.rgb and e.depth)
    lengths = [(rgb, counts[manifest.locate(rgb)], depth, counts[manifest.locate(depth)]) for rgb, depth in pairs]
    unequal = [
        f"{rgb} has {rgb_frames} and {depth} {depth_frames}"
        for rgb, rgb_frames, depth, depth_frames in lengths
        if isinstance(rgb_frames, int) and isinstance(depth_frames, int) and rgb_frames != depth_frames
    ]
    notes = note_names(
        unequal,
        "pairs of RGB and depth differ in their number of frames; `frames` is that of RGB, and reading after the end "
        "of the shorter file is an error",
        most=10,
    )
    if manifest.depth is None:
        notes += _missing_depth_range(manifest, counts)
    for column in ("group", "subject"):
        names = divided_names(manifest.entries, column)
        if names:
            notes.append(f"{len(names)} {column}s are in more than one split, e.g. {examples(names)}")
    return notes + mirroring_notes(manifest)


def _missing_depth_range(manifest: Manifest, counts: FrameCounts) -> list[str]:
    """Return a note if 16-bit depth has no range, with the values of the first file."""
    paths = {e.depth: manifest.locate(e.depth) for e in manifest.entries if e.depth}
    source = next((source for source, path in paths.items() if isinstance(counts[path], int)), None)
    if source is None:
        return []
    try:
        frame = read_gray(paths[source], [0])
    except UnreadableVideo as error:
        return [f"depth cannot be read: {error}"]
    if frame.dtype == np.uint8:
        return []
    readings = frame[frame > 0]
    values = f"{readings.min()} to {readings.max()}" if readings.size else "only 0"
    return [
        "16-bit depth needs --depth-range with the near and far end of the useful depths; the first frame of "
        f"{source} has values from {values}"
    ]

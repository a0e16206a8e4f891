"""Steps shared by all datasets: count frames, write the manifest, and note what is found in it."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kinema.data.file_times import FileTimes
from kinema.data.manifest import OWN, Entry, Manifest, class_lists, locate, write_manifest
from kinema.data.mirrored import mirroring_notes, parse_mirrored
from kinema.data.splits import divided_names, label_conflicts
from kinema.datasets.cells import check_class_names
from kinema.datasets.frame_times import time_notes, with_rate
from kinema.datasets.options import DatasetOptions
from kinema.errors import ManifestError, UnreadableVideo, examples
from kinema.modality import MODALITIES, DepthEncoding, DepthFacts, Modality
from kinema.video.remarks import REMARKS, Remark
from kinema.video.source import open_source, read_gray
from kinema.video.streams import join_stream, split_stream

MediaFile = tuple[str, Modality]
"""Path in the manifest, and the modality that it is read as."""
FrameCounts = Mapping[MediaFile, int | str]
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
        """One line: number of samples by split, of classes and of unreadable files; the classes of own data."""
        counts = Counter(entry.split for entry in self.manifest.entries)
        declared = self.manifest.declared
        splits = [
            f"{counts[split]} {split or '(no split)'}"
            if counts[split] == declared[split]
            else f"{counts[split]} of {declared[split]} declared {split}"
            for split in declared
        ]
        heads = [f"{n} classes" if head == "label" else f"{n} of {head}" for head, n in self.manifest.heads.items()]
        parts = [", ".join(splits), ", ".join(heads), f"{len(self.unreadable)} files cannot be read"]
        if self.manifest.is_own:
            names = self.manifest.classes.items()
            parts += [f"{'classes' if head == 'label' else head}: {examples(n, 12)}" for head, n in names]
        return f"{self.manifest.path}: {'; '.join(parts)}"


def note_names(names: Sequence[str], text: str, most: int = 3) -> list[str]:
    """Return a list with the note `COUNT text: EXAMPLES`; empty if there are no names."""
    return [f"{len(names)} {text}: {examples(names, most)}"] if names else []


def exclude_files(entries: Sequence[Entry], options: DatasetOptions, base: Path) -> tuple[list[Entry], list[str]]:
    """Return the entries without the files that `options.exclude` lists, and notes about them.

    A line is a path, relative to the folder of the manifest, of the data or of the list, or to the working directory.
    A tab and any text may follow, as in bad_files.txt of `kinema check`.

    Raises:
        ManifestError: The list cannot be read, none of its files is a sample, or every sample is in it.
    """
    path = options.exclude
    if path is None:
        return list(entries), []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read ({error})", path=path, field="exclude") from error
    listed = [name for line in lines if (name := line.partition("\t")[0].strip())]
    sources = [{_real(base, entry.source(m)) for m in MODALITIES if entry.source(m)} for entry in entries]
    existing: set[str] = set().union(*sources)
    found: dict[str, str] = {}  # file -> name in the list
    for name in listed:
        places = (_real(folder, name) for folder in (options.out.parent, base, path.parent, Path()))
        found |= {place: name for place in places if place in existing}
    known = {*found.values()}
    unknown = [name for name in listed if name not in known]
    if listed and not found:
        problem = f"no file of this list is a sample, e.g. {examples(listed)}; expected paths as `kinema check` writes"
        raise ManifestError(f"{path}: {problem}", path=path, field="exclude")
    kept = [entry for entry, own in zip(entries, sources, strict=True) if not own & found.keys()]
    if not kept:
        raise ManifestError(
            f"{path}: no sample is left; expected a list of some of the files", path=path, field="exclude"
        )
    notes = note_names(sorted(found.values()), f"files of {path} are left out")
    notes += note_names(unknown, f"files of {path} are no samples")
    return kept, notes


def _real(folder: Path, source: str) -> str:
    """Return a path relative to a folder as an absolute one without links, and a URL unchanged."""
    if "://" in source:
        return source
    file, stream = split_stream(str(folder / source))
    return join_stream(os.path.realpath(file), stream)


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
    depth_encoding: DepthEncoding | None = None,
    declared: Mapping[str, int] | None = None,
    mirrored: str = "",
    ungrouped: int = 0,
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
        depth_encoding: Encoding of depth in color formats.
        declared: Number of samples per split of the complete dataset, if some are missing.
        mirrored: Classes that mirroring exchanges, as `a=b,c=d` or `none`; empty if only their names tell.
        ungrouped: Number of samples that were split at random without knowing their recording.
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
    if depth_encoding is not None and not any(entry.depth for entry in entries):
        problem = "a depth encoding is given, but no sample has depth. Remove --depth-encoding."
        raise ManifestError(f"{out}: {problem}", path=out, field="depth_encoding")

    pairs = parse_mirrored(mirrored, lists)
    entries = [
        replace(entry, rgb=_relocate(entry.rgb, base, out), depth=_relocate(entry.depth, base, out))
        for entry in entries
    ]
    counts, remarks, times = _read_facts(entries, out, depth_encoding)
    counted = [with_rate(_with_frames(entry, out, counts), times) for entry in entries]
    manifest = write_manifest(
        out,
        entries=counted,
        classes=lists,
        dataset=dataset,
        version=version,
        depth=depth,
        depth_encoding=depth_encoding,
        declared=declared,
        mirrored=pairs,
        ungrouped=ungrouped,
    )
    corrected = sum(
        None not in (before.frames, after.frames) and before.frames != after.frames
        for before, after in zip(entries, counted, strict=True)
    )
    findings = [*time_notes(manifest, times), *_data_notes(manifest, counts), *_remark_notes(remarks)]
    if corrected:
        findings.insert(0, f"{corrected} lines had a wrong number of frames; the number of decoded frames was written")
    reasons = tuple(count for count in counts.values() if isinstance(count, str))
    return PreparedDataset(manifest=manifest, unreadable=reasons, notes=(*notes, *findings))


def _relocate(source: str, base: Path, out: Path) -> str:
    """Convert a path relative to `base` to one relative to the manifest; URLs and empty paths are unchanged."""
    if not source or "://" in source:
        return source
    file, stream = split_stream(_real(base, source))
    return join_stream(Path(os.path.relpath(file, os.path.realpath(out.parent))).as_posix(), stream)


def _read_facts(
    entries: Sequence[Entry], out: Path, encoding: DepthEncoding | None
) -> tuple[FrameCounts, dict[MediaFile, tuple[Remark, ...]], dict[MediaFile, FileTimes]]:
    """Return the frame count, the remarks and the times of each file."""

    def read(file: MediaFile) -> tuple[int | str, tuple[Remark, ...], FileTimes]:
        path, kind = file
        try:
            with open_source(locate(out, path), read_as="rgb" if kind == "rgb" else encoding or "depth") as source:
                remarks, count = source.remarks, source.num_frames
                return count, remarks, FileTimes.of(source.timeline, count)
        except UnreadableVideo as error:
            return str(error), (), FileTimes(0)

    unique = list(dict.fromkeys((e.source(m), m) for e in entries for m in MODALITIES if e.source(m)))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        facts = dict(zip(unique, pool.map(read, unique), strict=True))
    counts, remarks, times = ({file: fact[n] for file, fact in facts.items()} for n in range(3))
    return counts, remarks, times  # type: ignore[return-value]  # mypy joins the three


def _remark_notes(remarks: Mapping[MediaFile, Sequence[Remark]]) -> list[str]:
    """Return a note for each kind of remark, with the number of files."""
    notes: list[str] = []
    for kind, text in REMARKS.items():
        names = [Path(path).name for (path, _), found in remarks.items() if any(r.kind == kind for r in found)]
        notes += note_names(names, f"files {text}")
    return notes


def _with_frames(entry: Entry, out: Path, counts: FrameCounts) -> Entry:
    file: MediaFile = (entry.rgb, "rgb") if entry.rgb else (entry.depth, "depth")
    path, count = locate(out, file[0]), counts[file]
    try:
        return replace(entry, frames=count if isinstance(count, int) else None)
    except ValueError as error:  # the segment ends after the last frame
        raise ManifestError(f"{path}: {error}", path=path, line=entry.line or None, field="stop_frame") from error


def _data_notes(manifest: Manifest, counts: FrameCounts) -> list[str]:
    """Return notes on depth, divided groups, contradicting labels and mirrored classes."""
    notes: list[str] = []
    if manifest.depth is None:
        notes += _missing_depth_range(manifest, counts)
    for column in ("group", "subject"):
        names = divided_names(manifest.entries, column)
        if names:
            notes.append(f"{len(names)} {column}s are in more than one split, e.g. {examples(names)}")
    twice = [
        f"{a.rgb or a.depth} ({', '.join({*a.labels.values()} ^ {*b.labels.values()})})"
        for a, b in label_conflicts(manifest.entries)
    ]
    notes += note_names(twice, "samples have other labels than an earlier one of the same frames")
    return notes + mirroring_notes(manifest)


def _missing_depth_range(manifest: Manifest, counts: FrameCounts) -> list[str]:
    """Return a note if 16-bit depth has no range, with the values of the first file."""
    paths = {e.depth: manifest.locate(e.depth) for e in manifest.entries if e.depth}
    source = next((source for source in paths if isinstance(counts[source, "depth"], int)), None)
    if source is None:
        return []
    try:
        frame = read_gray(paths[source], [0], read_as=manifest.read_as("depth"))
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

"""Check of a manifest: decode every file once, compare it with the manifest, and compare the splits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kinema.curation.check_files import file_findings, files_of_sample, sample_findings
from kinema.curation.check_splits import (
    CopyPair,
    class_findings,
    copy_findings,
    dataset_findings,
    find_copies,
    label_findings,
    split_findings,
)
from kinema.curation.findings import FILE_FAULTS, SEVERITY, Finding
from kinema.curation.inspect import Inspection
from kinema.curation.inspections import MediaFile, inspect_all
from kinema.data.manifest import Entry, Manifest
from kinema.video.read_options import ReadOptions

READ_OPTIONS = ReadOptions(isolation="process", timeout_s=3600.0)
"""Default options: one process per worker, which a bad file may crash, and a timeout that allows long videos."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """Result of a check of a manifest.

    Attributes:
        manifest: Manifest that was checked.
        entries: Samples of the checked splits.
        inspections: Inspection of every file, by its path in the manifest.
        num_cached: Number of files unchanged since an earlier check, which were not decoded again.
        findings: All findings: faults first, each kind in the order of the manifest.
        copies: Near-duplicates across splits, which are also among the findings.
        incomparable: Number of files that cannot be compared because they are unreadable or blank.
    """

    manifest: Manifest
    entries: tuple[Entry, ...]
    inspections: Mapping[MediaFile, Inspection]
    num_cached: int
    findings: tuple[Finding, ...]
    copies: tuple[CopyPair, ...]
    incomparable: int

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Findings that invalidate an experiment."""
        return tuple(finding for finding in self.findings if finding.severity == "fault")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Findings worth knowing."""
        return tuple(finding for finding in self.findings if finding.severity == "note")

    @property
    def bad_files(self) -> dict[str, str]:
        """Faults of each file that should be removed."""
        bad: dict[str, list[str]] = {}
        for finding in self.faults:
            if finding.kind in FILE_FAULTS:
                bad.setdefault(finding.file, []).append(f"{finding.kind}: {finding.sentence}")
        return {file: "; ".join(reasons) for file, reasons in bad.items()}


def check(
    manifest: Manifest,
    *,
    journal: Path,
    splits: Sequence[str] = (),
    clip_frames: int = 16,
    read_options: ReadOptions = READ_OPTIONS,
    workers: int = 1,
    progress: Callable[[int, int, int], None] | None = None,
) -> CheckResult:
    """Decode every file of a manifest once and return all findings.

    Args:
        manifest: Manifest to check.
        journal: Journal of inspections. Unchanged files are not decoded again.
        splits: Splits to check; all if empty.
        clip_frames: Number of frames per clip.
        read_options: Limits, and whether each worker reads in its own process.
        workers: Number of files read in parallel.
        progress: Called with the number of files done, their total, and how many of those done were unchanged.

    Raises:
        ManifestError: The manifest has no such split.
    """
    positions = {i for split in splits for i in manifest.positions(split)}
    entries = tuple(manifest.entries[i] for i in sorted(positions)) if splits else tuple(manifest.entries)
    located = {
        source: MediaFile(manifest.locate(source.path), source.kind) for e in entries for source in files_of_sample(e)
    }
    total = len(set(located.values()))
    by_file, num_cached = inspect_all(
        located.values(),
        read_options=read_options,
        workers=workers,
        journal=journal,
        depth_encoding=manifest.depth_encoding,
        progress=None if progress is None else lambda done, cached: progress(done, total, cached),
    )
    inspections = {source: by_file[file] for source, file in located.items()}
    copies, incomparable = find_copies(manifest, entries, inspections)
    findings = [
        *file_findings(entries, inspections, clip_frames),
        *sample_findings(manifest, entries, inspections, clip_frames),
        *copy_findings(copies),
        *split_findings(entries),
        *label_findings(manifest, entries, inspections),
        *class_findings(manifest, entries),
        *dataset_findings(manifest, entries, inspections),
    ]
    order = list(SEVERITY)
    return CheckResult(
        manifest=manifest,
        entries=entries,
        inspections=inspections,
        num_cached=num_cached,
        findings=tuple(sorted(findings, key=lambda finding: (order.index(finding.kind), finding.line))),
        copies=tuple(copies),
        incomparable=incomparable,
    )

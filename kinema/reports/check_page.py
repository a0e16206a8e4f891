"""Files of a check: an HTML page, a JSON with all findings, and a list of files to remove."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from kinema.curation.check import CheckResult
from kinema.curation.findings import SEVERITY, Finding
from kinema.curation.inspections import MediaFile
from kinema.data.duplicates import signature_images
from kinema.errors import UnreadableVideo
from kinema.files import write_texts
from kinema.reports.figures import balance_figure, histograms_figure, strips
from kinema.reports.page import CaptionedImage, Section, Table, write_page
from kinema.video.read_options import ReadOptions
from kinema.video.source import read_gray, read_rgb

MAX_ROWS = 300
"""Number of findings in a table; the JSON has all."""
MAX_PAIRS = 24
"""Number of copies shown with frames."""
STRIP_FRAMES = 4


def write_check(checked: CheckResult, folder: Path, read_options: ReadOptions) -> None:
    """Write `check.html`, `check.json` and `bad_files.txt`, whose lines are a path, a tab and the reasons.

    The output folder is created if missing.
    """
    findings = json.dumps(_as_json(checked), indent=1, ensure_ascii=False)
    lines = (f"{file}\t{' '.join(reason.split())}\n" for file, reason in checked.bad_files.items())
    write_texts({folder / "check.json": findings + "\n", folder / "bad_files.txt": "".join(lines)})
    write_page(
        folder / "check.html",
        title=f"Check of {checked.manifest.path.name}",
        lead=f"{checked.manifest.dataset}, version {checked.manifest.version}; all files decoded completely",
        numbers=[
            ("samples", f"{len(checked.entries):,}"),
            ("files", f"{len(checked.inspections):,}"),
            ("frames", f"{sum(file.frames for file in checked.inspections.values()):,}"),
            ("faults", f"{len(checked.faults):,}"),
            ("notes", f"{len(checked.notes):,}"),
            ("bad files", f"{len(checked.bad_files):,}"),
        ],
        sections=[
            _findings("Faults", checked.faults, "No faults."),
            *_copies(checked, read_options),
            *_balance(checked),
            *_measures(checked),
            _findings("Notes", checked.notes, "No notes."),
        ],
    )


def _as_json(checked: CheckResult) -> dict[str, object]:
    files = []
    for source, inspection in checked.inspections.items():
        fields = {name: value for name, value in asdict(inspection).items() if name != "signature"}
        files.append({"file": source.path, "modality": source.kind, **fields})
    return {
        "manifest": str(checked.manifest.path),
        "digest": checked.manifest.digest,
        "samples": len(checked.entries),
        "counts": dict(Counter(finding.kind for finding in checked.findings)),
        "findings": [{"severity": finding.severity, **asdict(finding)} for finding in checked.findings],
        "copies": [asdict(copy) for copy in checked.copies],
        "files": files,
    }


def _findings(heading: str, findings: Sequence[Finding], nothing: str) -> Section:
    if not findings:
        return Section(heading=heading, text=nothing)
    counts = Counter(finding.kind for finding in findings)
    text = ", ".join(f"{counts[kind]:,} {kind}" for kind in SEVERITY if counts[kind])
    if len(findings) > MAX_ROWS:
        text += f". The table has the first {MAX_ROWS} of {len(findings):,}, check.json has all"
    rows = [(finding.kind, str(finding.line or ""), finding.file, finding.sentence) for finding in findings[:MAX_ROWS]]
    return Section(
        heading=heading, text=f"{text}.", table=Table(columns=("kind", "line", "file", "description"), rows=rows)
    )


def _copies(checked: CheckResult, read_options: ReadOptions) -> Iterator[Section]:
    if not checked.copies:
        return
    shown = checked.copies[:MAX_PAIRS]
    text = (
        f"{len(checked.copies):,} pairs of videos in different splits are copies of one recording, or very similar, "
        "such as one person repeating an action in the same place."
    )
    if len(shown) < len(checked.copies):
        text += f" The first {len(shown)} are shown, check.json has all."
    images = []
    for copy in sorted(shown, key=lambda copy: -copy.pair.motion):
        sources = [MediaFile(file, copy.modality) for file in (copy.first, copy.second)]
        rows = [_frames(checked, source, read_options) for source in sources]
        shapes = [checked.inspections[source].width / checked.inspections[source].height for source in sources]
        mirrored = ", mirrored" if copy.pair.mirrored else ""
        caption = (
            f"{copy.first} ({copy.splits[0] or 'no split'}, line {copy.lines[0]}) and {copy.second} "
            f"({copy.splits[1] or 'no split'}, line {copy.lines[1]}): motion similarity {copy.pair.motion:.2f}, "
            f"appearance similarity {copy.pair.appearance:.2f}{mirrored}"
        )
        images.append(CaptionedImage(image=strips(rows, shapes), caption=caption))
    yield Section(heading="Near-duplicates across splits", text=text, images=images)


def _frames(checked: CheckResult, source: MediaFile, read_options: ReadOptions) -> UInt8[ndarray, "_ height width 3"]:
    """Return some frames of a file, or images of its signature if it can no longer be read."""
    inspection = checked.inspections[source]
    indices = np.linspace(0, inspection.frames - 1, min(STRIP_FRAMES, inspection.frames)).round().astype(int).tolist()
    path = checked.manifest.locate(source.path)
    try:
        if source.kind == "rgb":
            return read_rgb(path, indices, read_options)
        gray = read_gray(path, indices, read_options, checked.manifest.read_as("depth")).astype(np.float32)
        gray = gray * (255 / max(float(gray.max()), 1.0))
    except UnreadableVideo:
        images = signature_images(inspection.signature)
        gray = images[:: len(images) // STRIP_FRAMES]
    return gray.astype(np.uint8)[..., None].repeat(3, axis=-1)


def _balance(checked: CheckResult) -> Iterator[Section]:
    for head, names in checked.manifest.classes.items():
        counts = {}
        labeled = {entry.split for entry in checked.entries} - {*checked.manifest.unlabeled}
        for split in sorted(labeled, key=lambda split: (split != "train", split)):
            labels = Counter(entry.labels[head] for entry in checked.entries if entry.split == split)
            counts[split or "(no split)"] = [labels[name] for name in names]
        text = "; ".join(
            f"{split}: {sum(numbers):,} samples, {min(numbers):,} to {max(numbers):,} per class"
            for split, numbers in counts.items()
        )
        heading = "Classes" if head == "label" else f"Classes of {head}"
        yield Section(heading=heading, text=f"{text}.", figure=balance_figure(counts, names))


def _measures(checked: CheckResult) -> Iterator[Section]:
    """Yield lengths, frame rates and sizes of readable files, per modality."""
    for kind in ("rgb", "depth"):
        files = [file for source, file in checked.inspections.items() if source.kind == kind and not file.problem]
        if not files:
            continue
        rows = {"frames": [float(file.frames) for file in files]}
        rates = [file.rate for file in files if file.rate is not None]
        if rates:
            rows["frame rate [1/s]"] = rates
        rows["short side [px]"] = [float(min(file.width, file.height)) for file in files]
        forms = Counter(
            (f"{file.width} x {file.height}", file.codec, file.pixel_format or f"{file.bits} bits") for file in files
        )
        table = Table(
            columns=("files", "size", "codec", "pixel format"),
            rows=[(f"{count:,}", *form) for form, count in forms.most_common(12)],
        )
        more = f" in {len(forms)} formats, of which the table has the 12 most frequent" if len(forms) > 12 else ""
        heading = f"{'RGB' if kind == 'rgb' else 'Depth'} files"
        text = f"{len(files):,} readable files{more}."
        yield Section(heading=heading, text=text, figure=histograms_figure(rows), table=table)

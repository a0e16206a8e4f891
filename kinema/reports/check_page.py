"""A check written down: a page for people, a JSON with everything, and a list of files that could be left out."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from kinema.curation.check import Checked
from kinema.curation.duplicates import signature_pictures
from kinema.curation.findings import SEVERITY, Finding
from kinema.curation.inspections import MediaFile
from kinema.errors import UnreadableVideo
from kinema.reports.figures import balance_figure, histograms_figure, strips
from kinema.reports.page import CaptionedPicture, Section, Table, write_page
from kinema.video.read_options import ReadOptions
from kinema.video.source import read_gray, read_rgb

MOST_ROWS = 300
"""Findings of a table; all of them are in the JSON."""
MOST_PAIRS = 24
"""Copies that are shown as pictures."""
STRIP_FRAMES = 4


@dataclass(frozen=True, kw_only=True)
class Written:
    """Where it lies."""

    page: Path
    findings: Path
    bad_files: Path


def write_check(checked: Checked, folder: Path, read_options: ReadOptions) -> Written:
    """Write `check.html`, `check.json` and `bad_files.txt`: a path in each line, a tab, and what is wrong.

    Args:
        read_options: how the pictures of copies are read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = Written(page=folder / "check.html", findings=folder / "check.json", bad_files=folder / "bad_files.txt")
    written.findings.write_text(json.dumps(_as_json(checked), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = (f"{file}\t{' '.join(reason.split())}\n" for file, reason in checked.bad_files.items())
    written.bad_files.write_text("".join(lines), encoding="utf-8")
    files = len(checked.inspections)
    write_page(
        written.page,
        title=f"Check of {checked.manifest.path.name}",
        lead=f"{checked.manifest.dataset}, version {checked.manifest.version}; every file decoded from end to end",
        numbers=[
            ("samples", f"{len(checked.entries):,}"),
            ("files", f"{files:,}"),
            ("frames", f"{sum(seen.frames for seen in checked.inspections.values()):,}"),
            ("faults", f"{len(checked.faults):,}"),
            ("notes", f"{len(checked.notes):,}"),
            ("bad files", f"{len(checked.bad_files):,}"),
        ],
        sections=[
            _findings("Faults", checked.faults, "Nothing is wrong."),
            *_copies(checked, read_options),
            *_balance(checked),
            *_measures(checked),
            _findings("Notes", checked.notes, "There is nothing to note."),
        ],
    )
    return written


def _as_json(checked: Checked) -> dict[str, object]:
    files = []
    for source, seen in checked.inspections.items():
        known = {name: value for name, value in asdict(seen).items() if name != "signature"}
        files.append({"file": source.path, "modality": source.kind, **known})
    return {
        "manifest": str(checked.manifest.path),
        "digest": checked.manifest.digest,
        "samples": len(checked.entries),
        "counts": dict(Counter(finding.kind for finding in checked.findings)),
        "findings": [{"severity": finding.severity, **asdict(finding)} for finding in checked.findings],
        "copies": [asdict(copies) for copies in checked.copies],
        "files": files,
    }


def _findings(heading: str, findings: Sequence[Finding], nothing: str) -> Section:
    if not findings:
        return Section(heading=heading, text=nothing)
    counts = Counter(finding.kind for finding in findings)
    text = ", ".join(f"{counts[kind]:,} {kind}" for kind in SEVERITY if counts[kind])
    if len(findings) > MOST_ROWS:
        text += f". The first {MOST_ROWS} of {len(findings):,} are shown; check.json has all"
    rows = [(finding.kind, str(finding.line or ""), finding.file, finding.sentence) for finding in findings[:MOST_ROWS]]
    return Section(heading=heading, text=f"{text}.", table=Table(columns=("kind", "line", "file", "what"), rows=rows))


def _copies(checked: Checked, read_options: ReadOptions) -> Iterator[Section]:
    if not checked.copies:
        return
    shown = checked.copies[:MOST_PAIRS]
    text = (
        f"{len(checked.copies):,} pairs of videos of different splits are copies of one recording, or nearly so: one "
        "person repeating one action in one place can look like that too."
    )
    if len(shown) < len(checked.copies):
        text += f" The {len(shown)} most alike are shown; check.json has all."
    pictures = []
    for copies in sorted(shown, key=lambda copies: -copies.pair.motion):
        rows = [
            _frames(checked, MediaFile(file, copies.modality), read_options) for file in (copies.first, copies.second)
        ]
        how = ", mirrored" if copies.pair.mirrored else ""
        caption = (
            f"{copies.first} ({copies.splits[0] or 'no split'}, line {copies.lines[0]}) and {copies.second} "
            f"({copies.splits[1] or 'no split'}, line {copies.lines[1]}): motion {copies.pair.motion:.2f}, "
            f"appearance {copies.pair.appearance:.2f}{how}"
        )
        pictures.append(CaptionedPicture(picture=strips(rows), caption=caption))
    yield Section(heading="Near-duplicates across splits", text=text, pictures=pictures)


def _frames(checked: Checked, source: MediaFile, read_options: ReadOptions) -> UInt8[ndarray, "frames height width 3"]:
    """Some frames of a file; of one that has gone meanwhile, the small pictures of its signature."""
    seen = checked.inspections[source]
    indices = np.linspace(0, seen.frames - 1, min(STRIP_FRAMES, seen.frames)).round().astype(int).tolist()
    path = checked.manifest.locate(source.path)
    try:
        if source.kind == "rgb":
            return read_rgb(path, indices, read_options)
        gray = read_gray(path, indices, read_options).astype(np.float32)
        gray = gray * (255 / max(float(gray.max()), 1.0))
    except UnreadableVideo:
        gray = signature_pictures(seen.signature)[:: len(signature_pictures(seen.signature)) // STRIP_FRAMES]
    return gray.astype(np.uint8)[..., None].repeat(3, axis=-1)


def _balance(checked: Checked) -> Iterator[Section]:
    for head, names in checked.manifest.classes.items():
        counts = {}
        labeled = {entry.split for entry in checked.entries} - {*checked.manifest.unlabeled}
        for split in sorted(labeled, key=lambda split: (split != "train", split)):
            found = Counter(entry.labels[head] for entry in checked.entries if entry.split == split)
            counts[split or "(no split)"] = [found[name] for name in names]
        text = "; ".join(
            f"{split}: {sum(numbers):,} samples, {min(numbers):,} to {max(numbers):,} of a class"
            for split, numbers in counts.items()
        )
        heading = "Classes" if head == "label" else f"Classes of {head}"
        yield Section(heading=heading, text=f"{text}.", figure=balance_figure(counts, names))


def _measures(checked: Checked) -> Iterator[Section]:
    """Lengths, rates and sizes of what could be read."""
    for kind in ("rgb", "depth"):
        read = [seen for source, seen in checked.inspections.items() if source.kind == kind and not seen.problem]
        if not read:
            continue
        rows = {"frames of a file": [float(seen.frames) for seen in read]}
        rates = [seen.rate for seen in read if seen.rate is not None]
        if rates:
            rows["frames a second"] = rates
        rows["pixels of the shorter side"] = [float(min(seen.width, seen.height)) for seen in read]
        forms = Counter(
            (f"{seen.width} x {seen.height}", seen.codec, seen.pixel_format or f"{seen.bits} bits") for seen in read
        )
        table = Table(
            columns=("files", "size", "codec", "pixels"),
            rows=[(f"{count:,}", *form) for form, count in forms.most_common(12)],
        )
        more = f"; the {len(forms) - 12} rarest forms are left out" if len(forms) > 12 else ""
        heading = f"Files of {'RGB' if kind == 'rgb' else 'depth'}"
        text = f"{len(read):,} files that can be read{more}."
        yield Section(heading=heading, text=text, figure=histograms_figure(rows), table=table)

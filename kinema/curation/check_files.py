"""Findings in single files and samples: what decoding shows, compared with what the manifest declares."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from kinema.curation.findings import Finding
from kinema.curation.inspect import Inspection
from kinema.curation.inspections import MediaFile
from kinema.data.manifest import Entry, Manifest
from kinema.modality import MODALITIES, Modality
from kinema.video.container import END_SLACK_S

UNEVEN_SHARE = 0.02
"""Share of uneven frame intervals above which a rate is called variable; a few dropped frames are not."""
BLANK_SHARE = 0.5
LEAST_LOST_S, LOST_FRAMES, LOST_SHARE = 0.2, 3, 0.005
"""Tolerance for an early end of a file: the largest of these seconds, frames and share of the duration."""

PROBLEMS = {"missing": "missing", "unreadable": "unreadable", "no_video": "no video stream", "broken": "broken"}


def files_of_sample(entry: Entry) -> list[MediaFile]:
    """Return the files of a sample, with their paths in the manifest."""
    return [MediaFile(entry.source(modality), modality) for modality in MODALITIES if entry.source(modality)]


def file_findings(
    entries: Sequence[Entry], inspections: Mapping[MediaFile, Inspection], clip_frames: int
) -> Iterator[Finding]:
    lines: dict[MediaFile, list[int]] = defaultdict(list)
    for entry in entries:
        for source in files_of_sample(entry):
            lines[source].append(entry.line)
    for source, numbers in lines.items():
        inspection = inspections[source]
        more = f" (and {len(numbers) - 1} more lines)" if len(numbers) > 1 else ""
        for kind, sentence in inspection_findings(inspection, source.kind, clip_frames):
            yield Finding(kind=kind, line=numbers[0], modality=source.kind, file=source.path, sentence=sentence + more)


def inspection_findings(seen: Inspection, kind: Modality, clip_frames: int) -> Iterator[tuple[str, str]]:
    """Yield kind and sentence of each finding in a single file."""
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
        yield "blank", f"{seen.blank:.0%} of its frames are of one color"


def sample_findings(
    manifest: Manifest, entries: Sequence[Entry], inspections: Mapping[MediaFile, Inspection], clip_frames: int
) -> Iterator[Finding]:
    for entry in entries:
        seen = {source: inspections[source] for source in files_of_sample(entry) if not inspections[source].problem}
        for place, (source, inspection) in enumerate(seen.items()):
            about = {"line": entry.line, "modality": source.kind, "file": source.path}
            found = [*_segment_findings(entry, inspection, clip_frames)]
            if place == 0 and entry.frames is not None and entry.frames != inspection.frames:
                found.append(("frame count", f"frames={entry.frames} in the manifest, but {inspection.frames} decode"))
            if source.kind == "depth":
                found += _depth_findings(manifest, inspection)
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


def _segment_findings(entry: Entry, seen: Inspection, clip_frames: int) -> Iterator[tuple[str, str]]:
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


def _depth_findings(manifest: Manifest, seen: Inspection) -> Iterator[tuple[str, str]]:
    if manifest.depth is None and seen.bits > 8:
        yield "depth range", "holds 16-bit depth, but the manifest's JSON says no depth_range"
    elif manifest.depth is not None and seen.bits == 8 and manifest.depth.near > 255:
        yield "depth range", f"holds 8-bit depth, but depth_range begins at {manifest.depth.near:g}"

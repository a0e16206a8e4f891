"""Findings in single files and samples: decoded content compared with the manifest."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from kinema.curation.findings import Finding
from kinema.curation.inspect import Inspection
from kinema.curation.inspections import MediaFile
from kinema.data.file_times import pair_findings
from kinema.data.manifest import Entry, Manifest
from kinema.modality import MODALITIES, Modality
from kinema.transforms.sampling import UNEVEN_SHARE
from kinema.video.container import END_SLACK_S

BLANK_SHARE = 0.5
"""Smallest share of blank frames that is reported."""
MIN_LOST_S, LOST_FRAMES, LOST_SHARE = 0.2, 3, 0.005
"""Tolerance for files that end early: the largest of seconds, frames and share of the duration."""

PROBLEMS = {"missing": "missing", "unreadable": "unreadable", "no_video": "no video stream", "broken": "broken"}


def files_of_sample(entry: Entry) -> list[MediaFile]:
    """Return the files of a sample, with their paths in the manifest."""
    return [MediaFile(entry.source(modality), modality) for modality in MODALITIES if entry.source(modality)]


def file_findings(
    entries: Sequence[Entry], inspections: Mapping[MediaFile, Inspection], clip_frames: int
) -> Iterator[Finding]:
    """Yield the findings of each file, reported once at the first line that uses it."""
    lines: dict[MediaFile, list[int]] = defaultdict(list)
    for entry in entries:
        for source in files_of_sample(entry):
            lines[source].append(entry.line)
    for source, numbers in lines.items():
        inspection = inspections[source]
        more = f" (and {len(numbers) - 1} more lines)" if len(numbers) > 1 else ""
        for kind, sentence in inspection_findings(inspection, source.kind, clip_frames):
            yield Finding(kind=kind, line=numbers[0], modality=source.kind, file=source.path, sentence=sentence + more)


def inspection_findings(file: Inspection, kind: Modality, clip_frames: int) -> Iterator[tuple[str, str]]:
    """Yield kind and sentence of each finding in a single file."""
    if file.problem:
        yield PROBLEMS[file.problem], file.reason
        return
    lost = file.announced_frames - file.frames
    allowed_s = max(MIN_LOST_S, LOST_FRAMES / (file.rate or 25.0), LOST_SHARE * (file.seconds or 0.0))
    if file.lost_s > allowed_s and not 0 < file.announced_frames <= file.frames + 1:
        total = f" of {file.announced_frames}" if file.announced_frames else ""
        yield "truncated", f"ends {file.lost_s:.1f} s before the end in its header, after {file.frames}{total} frames"
    elif lost > 1:
        yield "frames lost", f"only {file.frames} of the {file.announced_frames} frames in its header decode"
    elif file.announced_frames and lost:
        yield "header", f"its header has {file.announced_frames} frames, but {file.frames} decode"
    if file.damaged:
        yield "damaged", f"{file.damaged} of {file.frames} frames are damaged; the decoder concealed the errors"
    if file.frames < 2:
        yield "too short", "has a single frame"
    elif file.frames < clip_frames:
        yield "shorter than a clip", f"has {file.frames} frames; a clip has {clip_frames}"
    if file.rotation:
        how = "mirrored" if file.rotation < 0 else f"rotated by {file.rotation} degrees"
        yield "rotated", f"frames are displayed {how}"
    yield from file.remarks
    if file.uneven > UNEVEN_SHARE:
        yield "variable rate", f"{file.uneven:.0%} of the frame intervals are uneven; frames are sampled by time"
    if kind == "depth" and file.empty:
        yield "empty depth", f"{file.empty:.0%} of the frames have no depth reading"
    elif file.blank >= BLANK_SHARE:
        yield "blank", f"{file.blank:.0%} of the frames have a single color"


def sample_findings(
    manifest: Manifest, entries: Sequence[Entry], inspections: Mapping[MediaFile, Inspection], clip_frames: int
) -> Iterator[Finding]:
    """Yield the findings of each manifest line: segment, frame count, box, depth range, and unequal lengths."""
    for entry in entries:
        files = {source: inspections[source] for source in files_of_sample(entry) if not inspections[source].problem}
        for position, (source, file) in enumerate(files.items()):
            # Frame numbers are those of RGB; depth beside it is paired by time, which has findings of its own.
            has_own_segment = source.kind == "rgb" or not entry.rgb or entry.start_frame is None
            pairs = [*_segment_findings(entry, file, clip_frames)] if has_own_segment else []
            if position == 0 and entry.frames is not None and entry.frames != file.frames:
                pairs.append(("frame count", f"frames={entry.frames} in the manifest, but {file.frames} decode"))
            if source.kind == "depth":
                pairs += _depth_findings(manifest, file)
            elif entry.rgb_box is not None and not entry.rgb_box.fits(file.stored_width, file.stored_height):
                pairs.append(
                    (
                        "rgb box",
                        f"rgb_box={entry.rgb_box} exceeds the frame of {file.stored_width} x {file.stored_height} "
                        "stored pixels",
                    )
                )
            for kind, sentence in pairs:
                yield Finding(kind=kind, line=entry.line, modality=source.kind, file=source.path, sentence=sentence)
        times = {source.kind: file.times for source, file in files.items()}
        if len(times) == 2:
            for kind, sentence in pair_findings(times["rgb"], times["depth"], entry.rgb):
                yield Finding(kind=kind, line=entry.line, file=entry.depth, modality="depth", sentence=sentence)


def _segment_findings(entry: Entry, file: Inspection, clip_frames: int) -> Iterator[tuple[str, str]]:
    if entry.start_frame is not None and entry.stop_frame is not None:
        if entry.stop_frame > file.frames:
            yield "segment", f"stop_frame={entry.stop_frame}, but only {file.frames} frames decode"
        length = entry.stop_frame - entry.start_frame
    elif entry.start_s is not None and entry.stop_s is not None:
        if file.seconds is None or file.rate is None:
            yield "segment", "has no time stamps; use start_frame and stop_frame instead of seconds"
            return
        if entry.stop_s > file.seconds + END_SLACK_S:
            yield "segment", f"stop_s={entry.stop_s}, but the file ends at {file.seconds:.3f} s"
        length = round((entry.stop_s - entry.start_s) * file.rate)
    else:
        return
    if length < 2:
        yield "short segment", f"the segment has {length} frames, too few to show an action"
    elif length < clip_frames <= file.frames:
        yield "shorter than a clip", f"the segment has {length} frames; a clip has {clip_frames}"


def _depth_findings(manifest: Manifest, file: Inspection) -> Iterator[tuple[str, str]]:
    if manifest.depth is None and file.bits > 8:
        yield "depth range", "contains 16-bit depth, but the JSON of the manifest has no depth_range"
    elif manifest.depth is not None and file.bits == 8 and manifest.depth.near > 255:
        yield "depth range", f"contains 8-bit depth, but depth_range starts at {manifest.depth.near:g}"

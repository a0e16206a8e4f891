"""Findings across samples: leaks between splits, missing or rare classes, mixed resolutions."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from kinema.curation.findings import Finding
from kinema.curation.inspect import Inspection
from kinema.curation.inspections import MediaFile
from kinema.data.copies import compare_files, read_contents
from kinema.data.duplicates import Pair
from kinema.data.file_times import describe_rates
from kinema.data.manifest import Entry, Manifest
from kinema.data.names import similar_names
from kinema.data.splits import divided_names, have_common_frames, label_conflicts
from kinema.errors import examples
from kinema.modality import MODALITIES, Modality
from kinema.transforms.sampling import group_rates

IMBALANCE = 10.0
"""Ratio of the largest to the smallest class from which imbalance is reported."""
MAX_NAMES = 6
"""Number of names listed in a finding."""


@dataclass(frozen=True, kw_only=True)
class CopyPair:
    """Two files in different splits that are copies of one recording, with the first line of each in the manifest."""

    first: str
    second: str
    modality: Modality
    splits: tuple[str, str]
    lines: tuple[int, int]
    pair: Pair


def find_copies(
    manifest: Manifest, entries: Sequence[Entry], inspections: Mapping[MediaFile, Inspection]
) -> tuple[list[CopyPair], int]:
    """Return the copies across splits, by RGB if available, and the number of files that cannot be compared."""
    kind: Modality = "rgb" if any(entry.rgb for entry in entries) else "depth"
    lines: dict[str, dict[str, int]] = defaultdict(dict)  # split -> file -> line
    for entry in entries:
        if entry.source(kind):
            lines[entry.split].setdefault(entry.source(kind), entry.line)
    files = {manifest.locate(file): file for split in lines.values() for file in split}
    signatures = {path: inspections[MediaFile(file, kind)].signature for path, file in files.items()}
    copies = []
    # Train comes last, so that the file reported for removal is a training file.
    for first, second in combinations(sorted(lines, key=lambda split: (split == "train", split)), 2):
        shared = lines[first].keys() & lines[second].keys()  # reported as "same video"
        left, right = (
            [path for path, file in files.items() if signatures[path] and file in lines[split] and file not in shared]
            for split in (first, second)
        )
        copies += [
            CopyPair(
                first=files[own],
                second=files[other],
                modality=kind,
                splits=(first, second),
                lines=(lines[first][files[own]], lines[second][files[other]]),
                pair=pair,
            )
            for own, other, pair in compare_files(left, right, signatures, kind)
        ]
    return copies, len(files) - sum(map(bool, signatures.values()))


def label_findings(
    manifest: Manifest, entries: Sequence[Entry], inspections: Mapping[MediaFile, Inspection]
) -> Iterator[Finding]:
    """Yield samples that show the same frames as an earlier one, in one file or two equal ones, with other labels."""
    signatures = {source.path: file.signature for source, file in inspections.items() if file.signature}
    counts = Counter(signatures.values())
    located = {path: manifest.locate(path) for path, signature in signatures.items() if counts[signature] > 1}
    contents = read_contents(located.values())
    first: dict[tuple[int, bytes], str] = {}
    same = {path: first.setdefault(contents[file], path) for path, file in located.items() if file in contents}
    for other, entry in label_conflicts(entries, same):
        own, earlier = (", ".join(labels.labels.values()) or "none" for labels in (entry, other))
        sentence = f"has label {own} here, and {earlier} in line {other.line} ({other.rgb or other.depth})"
        yield Finding(kind="two labels", line=entry.line, file=entry.rgb or entry.depth, sentence=sentence)


def copy_findings(copies: Sequence[CopyPair]) -> Iterator[Finding]:
    """Yield a finding per near-duplicate."""
    for copy in copies:
        how = "is a mirrored copy of" if copy.pair.mirrored else "is a copy of"
        first, second = map(_split_name, copy.splits)
        yield Finding(
            kind="near-duplicate",
            line=copy.lines[1],
            modality=copy.modality,
            file=copy.second,
            sentence=(
                f"in {second} {how} {copy.first} in {first} (line {copy.lines[0]}), or nearly: "
                f"motion similarity {copy.pair.motion:.2f}, appearance similarity {copy.pair.appearance:.2f}"
            ),
        )


def split_findings(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Yield videos, groups and subjects that are in more than one split."""
    by_file: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_file[entry.rgb or entry.depth].append(entry)
    for file, users in by_file.items():
        if len({entry.split for entry in users}) < 2:
            continue
        overlap = next(
            ((a, b) for a, b in combinations(users, 2) if a.split != b.split and have_common_frames(a, b)), None
        )
        first, second = overlap or next((a, b) for a, b in combinations(users, 2) if a.split != b.split)
        where = f"{_split_name(second.split)} here and in {_split_name(first.split)} in line {first.line}"
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
            subject = f"{len(names)} {column}s ({examples(names, MAX_NAMES)}) are"
            if len(names) == 1:
                subject = f"1 {column} ({names[0]}) is"
            sentence = f"{subject} in more than one split; test results are optimistic"
            yield Finding(kind=f"shared {column}", sentence=sentence)


def class_findings(manifest: Manifest, entries: Sequence[Entry]) -> Iterator[Finding]:
    """Yield classes that are missing from a split or far from balanced."""
    splits = {entry.split for entry in entries}
    for head, names in manifest.classes.items():
        classes, one = ("classes", "class") if head == "label" else (f"classes of {head}", f"class of {head}")
        pair = similar_names(names)
        if pair:
            sentence = f"{pair[0]!r} and {pair[1]!r} ({head}) differ by case, blanks or spelling of a number alone"
            yield Finding(kind="similar classes", sentence=sentence)
        trained = Counter(entry.labels[head] for entry in entries if entry.split == "train" and entry.labels)
        missing = [name for name in names if not trained[name]]
        if missing and "train" in splits:
            sentence = (
                f"train has no sample of {len(missing)} of {len(names)} {classes}: {examples(missing, MAX_NAMES)}"
            )
            yield Finding(kind="untrained class", sentence=sentence)
        if trained and max(trained.values()) >= IMBALANCE * min(trained.values()):
            (most, count), (least, fewest) = trained.most_common()[0], trained.most_common()[-1]
            sentence = f"{one} {most!r} has {count} samples in train, {least!r} has {fewest}"
            yield Finding(kind="imbalance", sentence=sentence)
        for split in sorted(splits - {"train", *manifest.unlabeled}):
            tested = {entry.labels[head] for entry in entries if entry.split == split}
            missing = [name for name in names if name not in tested]
            if missing:
                where = f"{_split_name(split)} has no sample of {len(missing)} of {len(names)} {classes}"
                yield Finding(kind="untested class", sentence=f"{where}: {examples(missing, MAX_NAMES)}")


def dataset_findings(
    manifest: Manifest, entries: Sequence[Entry], inspections: Mapping[MediaFile, Inspection]
) -> Iterator[Finding]:
    """Yield wrong declared counts, and modalities with more than one resolution or frame rate."""
    for split, count in Counter(entry.split for entry in entries).items():
        declared = manifest.declared.get(split, 0)
        if declared != count:
            sentence = f"{_split_name(split)} has {count} samples, but {declared} are declared"
            yield Finding(kind="declared", sentence=sentence)
    for kind in MODALITIES:
        sizes = Counter(
            (file.width, file.height) for source, file in inspections.items() if source.kind == kind and file.width
        )
        if len(sizes) > 1:
            counts = [f"{width} x {height} ({count})" for (width, height), count in sizes.most_common()]
            listed = examples(counts, MAX_NAMES)
            yield Finding(kind="resolutions", modality=kind, sentence=f"{kind} has {len(sizes)} resolutions: {listed}")
        rates = [file.times.even_rate for source, file in inspections.items() if source.kind == kind and file.rate]
        if len(group_rates(filter(None, rates))) > 1:
            sentence = f"{kind} has several frame rates ({describe_rates(rates)})"
            yield Finding(kind="rates", modality=kind, sentence=f"{sentence}; intervals are taken in seconds")


def _split_name(split: str) -> str:
    return split or "(no split)"

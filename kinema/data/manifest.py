"""Manifest of a dataset: a CSV with one line per sample, and a JSON with the class lists beside it.

CSV columns: `rgb, depth, rgb_box, start_s, stop_s, start_frame, stop_frame, frames, rate, split, group, subject,
camera, sample` and `label`, or `label.verb, label.noun, ...` for several task heads. Empty columns may be left out.
Paths are relative to the manifest, or URLs; labels are names. The JSON holds the class lists, the dataset and its
version, the facts of the depth modality, the declared number of samples per split, and the unlabeled splits.
"""

import difflib
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kinema.data.csv_table import check_unicode, csv_text, parse_number, read_csv
from kinema.data.manifest_facts import read_facts
from kinema.data.names import normalize, split_name
from kinema.data.pixel_box import PixelBox, parse_pixel_box
from kinema.errors import ManifestError, did_you_mean
from kinema.files import read_bytes, write_texts
from kinema.modality import DepthEncoding, DepthFacts, Modality, ReadAs
from kinema.terminal import printable
from kinema.video.streams import join_stream, split_stream

WORD_COLUMNS = ("rgb", "depth", "split", "group", "subject", "camera", "sample")
NAME_COLUMNS = ("split", "group", "subject", "camera")
SEGMENT_COLUMNS = ("start_s", "stop_s", "start_frame", "stop_frame", "frames", "rate")
COLUMNS = ("rgb", "depth", "rgb_box", *SEGMENT_COLUMNS, "split", "group", "subject", "camera", "sample")
LABEL = "label"
OWN = "own"
"""Version of a user's own data in its manifest."""
UNLABELED = -1
"""Class number of a sample in an unlabeled split."""
BUILT_IN = ("moves_cross_subject", "moves_cross_view")
"""Names of the built-in manifests, accepted in place of a path."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Sample, one line of a manifest. Labels and names are stored in Unicode's composed form (NFC), paths as given.

    Attributes:
        rgb: Path relative to the manifest's folder, or a URL; empty without RGB.
        depth: Path or URL; empty without depth.
        rgb_box: Crop of RGB frames before anything else; None for the full frame.
        start_s: Start of the segment in seconds; None for the whole file.
        stop_s: End of the segment in seconds, exclusive.
        start_frame: Start of the segment in frames, from 0; never beside seconds.
        stop_frame: End of the segment in frames, exclusive.
        frames: Number of frames of the whole file that decode; None if unknown.
        rate: Frame rate of the file [1/s]; 0 to count frames instead of time, None if unknown or uneven.
        split: Name of the split.
        group: Samples that a split never divides.
        subject: Person in the video.
        camera: Camera that recorded it.
        sample: Name of the sample in its dataset, by which predictions are submitted.
        labels: Class name of each task head; empty in an unlabeled split.
        line: Line in the CSV, for messages; 0 if the sample comes from no file.

    Raises:
        ManifestError: The values contradict each other; `field` names the column.
    """

    rgb: str = ""
    depth: str = ""
    rgb_box: PixelBox | None = None
    start_s: float | None = None
    stop_s: float | None = None
    start_frame: int | None = None
    stop_frame: int | None = None
    frames: int | None = None
    rate: float | None = None
    split: str = ""
    group: str = ""
    subject: str = ""
    camera: str = ""
    sample: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    line: int = 0

    def __post_init__(self) -> None:
        for name in NAME_COLUMNS:
            object.__setattr__(self, name, normalize(getattr(self, name)))
        object.__setattr__(self, "labels", {head: normalize(label) for head, label in self.labels.items()})
        if not self.rgb and not self.depth:
            raise ManifestError("rgb and depth are empty; expected a path in at least one", field="rgb")
        if self.rgb_box is not None and not self.rgb:
            raise ManifestError(f"rgb_box={self.rgb_box} requires a path in rgb", field="rgb_box")
        for first, last in (("start_s", "stop_s"), ("start_frame", "stop_frame")):
            start, stop = getattr(self, first), getattr(self, last)
            if (start is None) != (stop is None):
                raise ManifestError(f"expected both {first} and {last}, or neither", field=first)
            if start is not None and not 0 <= start < stop < math.inf:
                raise ManifestError(f"expected 0 <= {first} < {last}, got {start} and {stop}", field=first)
        if self.start_s is not None and self.start_frame is not None:
            raise ManifestError("expected a segment in seconds or in frames, got both", field="start_s")
        if self.frames is not None and self.frames < 1:
            raise ManifestError(f"frames={self.frames} must be at least 1, or empty if unknown", field="frames")
        if self.rate is not None and not 0 <= self.rate < math.inf:
            raise ManifestError(f"rate={self.rate} must be at least 0, or empty if unknown", field="rate")
        if self.frames is not None and self.stop_frame is not None and self.stop_frame > self.frames:
            problem = f"stop_frame={self.stop_frame} exceeds the file's {self.frames} frames"
            raise ManifestError(problem, field="stop_frame")

    def source(self, modality: Modality) -> str:
        """Return the path of a modality's file; empty without one."""
        return self.rgb if modality == "rgb" else self.depth


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Dataset: its samples in the order of the file, class lists and facts.

    Attributes:
        path: CSV; paths of entries are relative to its folder.
        entries: Samples.
        classes: Class names of each task head, in the order of the logits.
        dataset: Name of the dataset.
        version: Version of the dataset.
        depth: Meaning of stored depth; None without 16-bit depth.
        depth_encoding: Encoding of depth in color formats; None if there is none, or it is gray.
        declared: Declared number of samples per split, against which coverage is counted.
        digest: SHA-256 over the CSV and the JSON.
        unlabeled: Splits without public labels; a model can predict them, but not be measured on them.
        mirrored: Pairs of classes that mirroring exchanges; None if only their names tell.
        ungrouped: Number of samples that `prepare` split at random without knowing their recording.
    """

    path: Path
    entries: tuple[Entry, ...]
    classes: Mapping[str, tuple[str, ...]]
    dataset: str
    version: str
    depth: DepthFacts | None
    declared: Mapping[str, int]
    digest: str
    unlabeled: tuple[str, ...] = ()
    mirrored: tuple[tuple[str, str], ...] | None = None
    depth_encoding: DepthEncoding | None = None
    ungrouped: int = 0

    def positions(self, split: str, *, option: str = "--split") -> list[int]:
        """Return the positions of a split's samples, in the order of the file.

        `option` is the option that names the split, for the message.

        Raises:
            ManifestError: No sample is in the split.
        """
        positions = [i for i, entry in enumerate(self.entries) if entry.split == split]
        if not positions:
            splits = ", ".join(name or "(empty)" for name in sorted(self.splits))
            message = (
                f"{self.path}: no sample in split {split!r}; expected {splits}. Choose one with {option}. `kinema "
                "prepare` makes val and test (--val-share, --test-share) of data without a split."
            )
            raise ManifestError(message, path=self.path, field="split")
        return positions

    @property
    def splits(self) -> frozenset[str]:
        """Names of the splits."""
        return frozenset(entry.split for entry in self.entries)

    @property
    def is_own(self) -> bool:
        """True for a user's own data, whatever its name."""
        return is_own_version(self.version)

    def locate(self, source: str) -> str:
        """Return a path of an entry as a path or URL that can be opened."""
        return locate(self.path, source)

    def rates(self, positions: Iterable[int]) -> list[float]:
        """Return the known frame rates of samples: those of RGB, or of depth without RGB."""
        return [rate for position in positions if (rate := self.entries[position].rate)]

    def read_as(self, modality: Modality) -> ReadAs:
        """Return what the files of a modality contain."""
        return "rgb" if modality == "rgb" else self.depth_encoding or "depth"

    def targets(self, position: int) -> dict[str, int]:
        """Return the class number of each task head for one sample; -1 in an unlabeled split."""
        labels = self.entries[position].labels
        if not labels:
            return dict.fromkeys(self.classes, UNLABELED)
        return {head: names.index(labels[head]) for head, names in self.classes.items()}

    @property
    def heads(self) -> dict[str, int]:
        """Number of classes of each task head."""
        return {head: len(names) for head, names in self.classes.items()}


def load_manifest(name_or_path: str | Path) -> Manifest:
    """Read a manifest and check every line of it.

    Args:
        name_or_path: CSV, or the name of a built-in one (`moves_cross_subject`, `moves_cross_view`).

    Raises:
        ManifestError: The file is missing, empty or wrong; `path`, `line` and `field` name the place.
    """
    is_built_in = str(name_or_path) in BUILT_IN
    assets = Path(__file__).parents[1] / "assets" / "moves"
    path = assets / f"{name_or_path}.csv" if is_built_in else Path(name_or_path)
    facts_path = path.with_suffix(".json")
    if not path.is_file():
        hint = _nearest(str(name_or_path), BUILT_IN) or ". Make one from your videos with `kinema prepare`."
        if is_built_in:
            hint = f"; the installation lacks {path}. Install kinema again."
        raise ManifestError(f"{name_or_path}: no such manifest{hint}", path=path)
    if not facts_path.is_file():
        raise ManifestError(
            f"{facts_path}: no such file; expected the class lists of {path.name}. Make both with "
            f"`kinema prepare csv --root {path} --out NEW.csv`.",
            path=facts_path,
        )
    facts = read_facts(facts_path)
    table = read_bytes(path)
    entries = _read_table(path, table, facts["unlabeled"])
    digest = hashlib.sha256(hashlib.sha256(table).digest() + hashlib.sha256(read_bytes(facts_path)).digest())
    manifest = Manifest(path=path, entries=entries, digest=digest.hexdigest(), **facts)
    _check_labels(manifest)
    _check_splits(manifest)
    return manifest


def write_manifest(
    path: Path,
    *,
    entries: Sequence[Entry],
    classes: Mapping[str, tuple[str, ...]],
    dataset: str,
    version: str,
    depth: DepthFacts | None,
    depth_encoding: DepthEncoding | None = None,
    declared: Mapping[str, int] | None = None,
    mirrored: Sequence[tuple[str, str]] | None = None,
    ungrouped: int = 0,
) -> Manifest:
    """Write the CSV and the JSON beside it, and read them back; the same samples give the same bytes.

    `declared` is the number of samples per split if some are missing, by default the number of entries.
    `mirrored` are the pairs of classes that mirroring exchanges, if that is known. `ungrouped` is the number of samples
    that were split at random without knowing their recording.

    Raises:
        ManifestError: No entries, a split with more samples than declared or with labels for only some of them, or a
            name that does not end in .csv.
    """
    check_manifest_name(path)
    if not entries:
        raise ManifestError(f"{path}: no samples to write; expected at least one", path=path)
    counts = Counter(entry.split for entry in entries)
    for split, count in counts.items():
        if declared is not None and declared.get(split, 0) < count:
            raise ManifestError(
                f"{path}: split {split!r} declares {declared.get(split, 0)} samples, got {count}",
                path=path,
                field="declared",
            )
    unlabeled = sorted({entry.split for entry in entries if not entry.labels})
    partly_labeled = {entry.split for entry in entries if entry.labels}.intersection(unlabeled)
    if partly_labeled:
        raise ManifestError(
            f"{path}: split {min(partly_labeled)!r} has samples with and without labels; expected all or none",
            path=path,
            field=LABEL,
        )
    dataset = printable(dataset)
    used = [c for c in COLUMNS if any(getattr(entry, c) not in (None, "") for entry in entries)]
    rows = [[*used, *(_column(head) for head in classes)]]
    for entry in entries:
        rows.append([getattr(entry, column) for column in used] + [entry.labels.get(head, "") for head in classes])
    check_unicode(path, rows)
    facts: dict[str, Any] = {
        "corpus": dataset,  # the first format's key; another one would change the hash of every manifest
        "version": version,
        "classes": {head: list(names) for head, names in classes.items()},
        "depth": depth
        and {"depth_unit": depth.unit_mm, "depth_range": [depth.near, depth.far], "coverage": depth.coverage},
        "declared": dict(sorted((counts if declared is None else declared).items())),
    }
    if unlabeled:
        facts["unlabelled"] = unlabeled
    if mirrored is not None:
        facts["mirrored"] = mirrored
    if depth_encoding is not None:
        facts["depth_encoding"] = depth_encoding
    if ungrouped:
        facts["ungrouped"] = ungrouped
    described = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    write_texts({path: csv_text(rows), path.with_suffix(".json"): described})
    return load_manifest(path)


def is_own_version(version: str) -> bool:
    """Return whether a version is that of a user's own data."""
    return version == OWN or version.startswith(f"{OWN}, ")


def check_manifest_name(path: Path) -> None:
    """Check that a name ends in .csv: the JSON beside it has the same name with .json."""
    if path.suffix != ".csv" or path.is_dir():
        raise ManifestError(f"{path}: expected a file name that ends in .csv", path=path)


def locate(manifest: Path, source: str) -> str:
    """Return a URL unchanged, and a path relative to the manifest's folder as an absolute one."""
    if "://" in source:
        return source
    path = os.path.join(manifest.parent.resolve(), source)
    if "#" not in path:
        return os.path.normpath(path)
    file, stream = split_stream(path)
    return join_stream(os.path.normpath(file), stream)


def class_lists(entries: Iterable[Entry]) -> dict[str, tuple[str, ...]]:
    """Return the classes of each task head that entries use, in alphabetical order."""
    names: dict[str, set[str]] = {}
    for entry in entries:
        for head, label in entry.labels.items():
            names.setdefault(head, set()).add(label)
    return {head: tuple(sorted(labels)) for head, labels in names.items()}


def parse_row(row: Mapping[str, str], line: int, unlabeled: Sequence[str] = ()) -> Entry:
    """Return a CSV row as an entry. Labels may be empty in the splits `unlabeled`.

    Raises:
        ManifestError: A cell is wrong; `field` names its column.
    """
    columns = [column for column in row if column == LABEL or column.startswith(f"{LABEL}.")]
    check_heads(columns)
    labels = {_head(column): row[column] for column in columns}
    for head, label in labels.items():
        if not label and (row.get("split", "") not in unlabeled or any(labels.values())):
            raise ManifestError(f"{_column(head)} is empty; expected a class name", field=_column(head))
    values: dict[str, Any] = {c: row[c] for c in WORD_COLUMNS if row.get(c)}
    for column in SEGMENT_COLUMNS:
        if row.get(column):
            values[column] = parse_number(column, row[column])
    try:
        values["rgb_box"] = parse_pixel_box(row["rgb_box"]) if row.get("rgb_box") else None
    except ValueError as error:
        raise ManifestError(f"rgb_box: {error}", field="rgb_box") from None
    return Entry(labels=labels if any(labels.values()) else {}, line=line, **values)


def check_heads(columns: Sequence[str]) -> None:
    """Check that the columns of labels name different task heads.

    Raises:
        ManifestError: A name is missing, has a dot or is reserved, or `label` and `label.label` are one head.
    """
    for column in columns:
        head = _head(column)
        if not head or "." in head or head == "joint":
            problem = "is no name of a task head" if head != "joint" else "is reserved for all task heads together"
            raise ManifestError(f"{column} {problem}; expected a name such as {LABEL}.verb", field=column)
        if column == f"{LABEL}.{LABEL}" and LABEL in columns:
            raise ManifestError(f"{LABEL} and {column} are the same task head. Remove or rename one.", field=column)


def _read_table(path: Path, table: bytes, unlabeled: Sequence[str]) -> tuple[Entry, ...]:
    lines = read_csv(path, table)
    allowed = [*COLUMNS, LABEL]
    for column in lines[0][1]:
        if column not in allowed and not column.startswith(f"{LABEL}."):
            raise ManifestError(
                f"{path}, line 1: unknown column {column!r}; {did_you_mean(column, allowed)}",
                path=path,
                line=1,
                field=column,
            )
    entries = []
    for line, row in lines:
        try:
            entries.append(parse_row(row, line, unlabeled))
        except ManifestError as error:
            message = f"{path}, line {line}: {error}"
            raise ManifestError(message, path=path, line=line, field=error.field) from error
    return tuple(entries)


def _check_labels(manifest: Manifest) -> None:
    path, facts_path = manifest.path, manifest.path.with_suffix(".json")
    for head, names in manifest.classes.items():
        column, classes = _column(head), set(names)
        if len(classes) != len(names):
            name = Counter(names).most_common(1)[0][0]
            raise ManifestError(
                f"{facts_path}: duplicate class {name!r} in {head!r}. Remove one.", path=facts_path, field=head
            )
        for entry in manifest.entries:
            where = f"{path}, line {entry.line}"
            if entry.split in manifest.unlabeled:
                if entry.labels:
                    raise ManifestError(
                        f"{where}: {column} is not empty, but split {entry.split!r} is in `unlabelled` of "
                        f"{facts_path.name}. Remove the label or the split from `unlabelled`.",
                        path=path,
                        line=entry.line,
                        field=column,
                    )
                continue
            if head not in entry.labels:
                raise ManifestError(f"{path}, line 1: column {column!r} is missing", path=path, line=1, field=column)
            label = entry.labels[head]
            if label not in classes:
                raise ManifestError(
                    f"{where}: {column} {label!r} is not one of the {len(names)} classes in "
                    f"{facts_path.name}{_nearest(label, names)}",
                    path=path,
                    line=entry.line,
                    field=column,
                )
    extra = {head for entry in manifest.entries for head in entry.labels} - set(manifest.classes)
    if extra:
        column = _column(min(extra))
        raise ManifestError(f"{facts_path}: no class list for column {column!r}", path=facts_path, field=column)


def _check_splits(manifest: Manifest) -> None:
    first: dict[str, Entry] = {}
    for entry in manifest.entries:
        name = split_name(entry.split) or entry.split.strip()
        other = first.setdefault(entry.split if entry.split.startswith("dev") else name, entry)
        if other.split != entry.split:
            problem = f"split {entry.split!r} here and {other.split!r} in line {other.line} have the same meaning"
            raise ManifestError(
                f"{manifest.path}, line {entry.line}: {problem}. Write {name!r} in both, and in `declared`.",
                path=manifest.path,
                line=entry.line,
                field="split",
            )


def _nearest(name: str, candidates: Collection[str]) -> str:
    near = difflib.get_close_matches(name, candidates, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _head(column: str) -> str:
    return LABEL if column == LABEL else column.removeprefix(f"{LABEL}.")


def _column(head: str) -> str:
    return LABEL if head == LABEL else f"{LABEL}.{head}"

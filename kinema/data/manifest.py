"""The manifest: the table of a data set, a CSV with a line a sample and a JSON beside it.

CSV columns: `rgb, depth, rgb_box, start_s, stop_s, start_frame, stop_frame, frames, split, group, subject, camera,
sample` and `label`, or `label.verb, label.noun, ...` for several task heads. Empty columns may be left out. Paths are
relative to the manifest or any fsspec URL; labels are names. The JSON holds the class lists, the dataset and its
version, the facts of the depth modality, the number of samples that each split declares, and the splits that have no
labels.
"""

import csv
import difflib
import hashlib
import io
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kinema.errors import ManifestError
from kinema.modality import DepthFacts, Modality
from kinema.transforms.pixel_box import PixelBox, parse_pixel_box

COLUMNS = (
    "rgb",
    "depth",
    "rgb_box",
    "start_s",
    "stop_s",
    "start_frame",
    "stop_frame",
    "frames",
    "split",
    "group",
    "subject",
    "camera",
    "sample",
)
LABEL = "label"
UNLABELED = -1
"""The class number of a sample of a split that has no labels."""
BUILT_IN = ("moves_cross_subject", "moves_cross_view")
"""Manifests that are shipped; their names stand wherever the path of a manifest is wanted."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a manifest: one sample.

    Args:
        rgb, depth: path relative to the manifest's folder, or a URL; empty where the modality is not there.
        rgb_box: what is cut out of the frames of RGB before anything else; None for the whole picture.
        start_s, stop_s: the segment in seconds, half open; both or none.
        start_frame, stop_frame: the segment in frames, 0-based and half open; both or none, never beside seconds.
        frames: how many frames of the whole file decode; None where that is not known.
        sample: what its dataset calls it, where answers are to be handed in by that name.
        labels: class name of each task head; empty in a split that has no labels.
        line: line in the CSV, for messages; 0 for a sample that comes from no file.
    """

    rgb: str = ""
    depth: str = ""
    rgb_box: PixelBox | None = None
    start_s: float | None = None
    stop_s: float | None = None
    start_frame: int | None = None
    stop_frame: int | None = None
    frames: int | None = None
    split: str = ""
    group: str = ""
    subject: str = ""
    camera: str = ""
    sample: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    line: int = 0

    def __post_init__(self) -> None:
        if not self.rgb and not self.depth:
            raise ValueError("neither rgb nor depth is given")
        if self.rgb_box is not None and not self.rgb:
            raise ValueError(f"rgb_box={self.rgb_box} is given, but no rgb")
        if (self.start_s is None) != (self.stop_s is None):
            raise ValueError("start_s and stop_s come together")
        if (self.start_frame is None) != (self.stop_frame is None):
            raise ValueError("start_frame and stop_frame come together")
        if self.start_s is not None and self.start_frame is not None:
            raise ValueError("a segment is given in seconds or in frames, not in both")
        for start, stop, unit in ((self.start_s, self.stop_s, "_s"), (self.start_frame, self.stop_frame, "_frame")):
            if start is not None and stop is not None and not 0 <= start < stop < math.inf:
                raise ValueError(f"start{unit}={start} must be at least 0 and below stop{unit}={stop}")
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"frames={self.frames} must be at least 1, or empty where it is not known")
        if self.frames is not None and self.stop_frame is not None and self.stop_frame > self.frames:
            raise ValueError(f"stop_frame={self.stop_frame} lies behind the file's {self.frames} frames")

    def source(self, modality: Modality) -> str:
        return self.rgb if modality == "rgb" else self.depth


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A data set: its samples in the order of the file, and what their labels and numbers mean.

    Args:
        path: the CSV; `Entry` paths are relative to its folder.
        classes: class names of each task head, in the order of the logits.
        declared: how many samples each split is said to hold; coverage is counted against it.
        digest: SHA-256 over the CSV and the JSON.
        unlabeled: splits whose labels are not public: a network can be asked about them, and nothing be measured.
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

    def positions(self, split: str) -> list[int]:
        """Positions of a split's samples, in the order of the file."""
        found = [i for i, entry in enumerate(self.entries) if entry.split == split]
        if not found:
            there = sorted({entry.split or "(empty)" for entry in self.entries})
            raise ManifestError(f"{self.path}: no sample has split {split!r}; its splits are {', '.join(there)}")
        return found

    def locate(self, source: str) -> str:
        """Where a path of an entry lies."""
        return locate(self.path, source)

    def targets(self, position: int) -> dict[str, int]:
        """Class number of each task head for one sample; -1 in a split that has no labels."""
        labels = self.entries[position].labels
        if not labels:
            return dict.fromkeys(self.classes, UNLABELED)
        return {head: names.index(labels[head]) for head, names in self.classes.items()}

    @property
    def heads(self) -> dict[str, int]:
        """Number of classes of each task head: what a network is built with."""
        return {head: len(names) for head, names in self.classes.items()}


def load_manifest(name_or_path: str | Path) -> Manifest:
    """Read a manifest and check every line of it.

    Args:
        name_or_path: a CSV, or the name of a built-in set (`moves_cross_subject`, `moves_cross_view`).

    Raises:
        ManifestError: the file is missing, empty, or says something impossible; file, line and field are named.
    """
    path = _resolve(name_or_path)
    facts_path = path.with_suffix(".json")
    if not path.is_file():
        near = difflib.get_close_matches(str(name_or_path), BUILT_IN, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`kinema prepare` makes one from your videos"
        if str(name_or_path) in BUILT_IN:
            hint = f"the installation lacks {path}; install kinema again"
        raise ManifestError(f"{name_or_path}: no such manifest; {hint}")
    if not facts_path.is_file():
        raise ManifestError(
            f"{path}: {facts_path.name}, which holds the class lists, is not beside it; "
            f"`kinema prepare csv --root {path} --out NEW.csv` makes both"
        )
    facts = _read_facts(facts_path)
    table = path.read_bytes()
    entries = _read_table(path, table, facts["unlabeled"])
    manifest = Manifest(path=path, entries=entries, digest=_digest(table, facts_path.read_bytes()), **facts)
    _check_labels(manifest)
    return manifest


def write_manifest(
    path: Path,
    *,
    entries: Sequence[Entry],
    classes: Mapping[str, tuple[str, ...]],
    dataset: str,
    version: str,
    depth: DepthFacts | None,
    declared: Mapping[str, int] | None = None,
) -> Manifest:
    """Write the CSV and the JSON beside it, and read them back; the same samples give the same bytes.

    Args:
        declared: how many samples each split is said to hold, where that is more than there are; coverage is counted
            against it.

    Raises:
        ManifestError: there is no sample, a split declares fewer samples than it has, only some of its samples have
            labels, or the name is no CSV's.
    """
    check_manifest_name(path)
    if not entries:
        raise ManifestError(f"{path}: there is no sample to write")
    there = Counter(entry.split for entry in entries)
    for split, count in there.items():
        if declared is not None and declared.get(split, 0) < count:
            raise ManifestError(
                f"{path}: split {split!r} is said to hold {declared.get(split, 0)} samples, but there are {count}"
            )
    unlabeled = sorted({entry.split for entry in entries if not entry.labels})
    torn = {entry.split for entry in entries if entry.labels}.intersection(unlabeled)
    if torn:
        raise ManifestError(f"{path}: some samples of split {min(torn)!r} have labels, and some have none")
    used = [c for c in COLUMNS if any(getattr(entry, c) not in (None, "") for entry in entries)]
    header = [*used, *(_column(head) for head in classes)]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(header)
    for entry in entries:
        cells = [getattr(entry, column) for column in used] + [entry.labels.get(head, "") for head in classes]
        writer.writerow(["" if cell is None else cell for cell in cells])
    facts: dict[str, Any] = {
        "corpus": dataset,  # the first format's key; another one would change the hash of every manifest
        "version": version,
        "classes": {head: list(names) for head, names in classes.items()},
        "depth": None
        if depth is None
        else {
            "depth_unit": depth.unit_mm,
            "depth_range": [depth.near, depth.far],
            "coverage": depth.coverage,
        },
        "declared": dict(sorted((there if declared is None else declared).items())),
    }
    if unlabeled:
        facts["unlabelled"] = unlabeled
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table.getvalue(), encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return load_manifest(path)


def check_manifest_name(path: Path) -> None:
    """Refuse a name that does not end in .csv: the JSON beside it takes the same name with .json."""
    if path.suffix != ".csv" or path.is_dir():
        raise ManifestError(f"{path}: a manifest is written to a file whose name ends in .csv")


def locate(manifest: Path, source: str) -> str:
    """A manifest's path as one that can be opened: URLs as they are, others relative to the manifest's folder."""
    return source if "://" in source else os.path.normpath(manifest.parent.resolve() / source)


def class_lists(entries: Iterable[Entry]) -> dict[str, tuple[str, ...]]:
    """The classes of each task head that a table uses, in alphabetical order."""
    names: dict[str, set[str]] = {}
    for entry in entries:
        for head, label in entry.labels.items():
            names.setdefault(head, set()).add(label)
    return {head: tuple(sorted(found)) for head, found in names.items()}


def parse_row(row: Mapping[str, str], line: int, unlabeled: Sequence[str] = ()) -> Entry:
    """One CSV row as an entry, whose labels may be empty in some splits; raises ValueError naming the field."""
    labeled = row.get("split", "") not in unlabeled
    labels = {_head(c): cell for c, cell in row.items() if c == LABEL or c.startswith(f"{LABEL}.")}
    for head, label in labels.items():
        if not label and (labeled or any(labels.values())):
            raise ValueError(f"{_column(head)} is empty")
    if not any(labels.values()):
        labels = {}
    numbers = {c: _number(c, row[c], float) for c in ("start_s", "stop_s") if row.get(c)}
    counts = {c: _number(c, row[c], int) for c in ("start_frame", "stop_frame", "frames") if row.get(c)}
    try:
        box = parse_pixel_box(row["rgb_box"]) if row.get("rgb_box") else None
    except ValueError as error:
        raise ValueError(f"rgb_box={error}") from None
    words = {c: row[c] for c in ("rgb", "depth", "split", "group", "subject", "camera", "sample") if row.get(c)}
    return Entry(labels=labels, line=line, rgb_box=box, **words, **numbers, **counts)  # type: ignore[arg-type]  # one type a column


def rows(path: Path, table: bytes) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of each row of a CSV, spaces around cells removed."""
    try:
        text = table.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    found = []
    try:
        columns = [column.strip() for column in reader.fieldnames or ()]
        if len(set(columns)) != len(columns):
            twice = next(column for column, count in Counter(columns).items() if count > 1)
            raise ManifestError(f"{path}, line 1: column {twice!r} stands twice")
        for row in reader:
            if None in row or None in row.values():
                raise ManifestError(
                    f"{path}, line {reader.line_num}: the header has {len(columns)} columns, this line has not"
                )
            found.append((reader.line_num, {column.strip(): cell.strip() for column, cell in row.items()}))
    except csv.Error as error:
        raise ManifestError(f"{path}, line {reader.line_num + 1}: {error}") from error
    if not found:
        raise ManifestError(f"{path}: is empty; it needs a header and one line a sample")
    return found


def _resolve(name_or_path: str | Path) -> Path:
    if str(name_or_path) in BUILT_IN:
        return Path(__file__).parents[1] / "assets" / "moves" / f"{name_or_path}.csv"
    return Path(name_or_path)


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        depth = facts.get("depth")
        return {
            "classes": {head: tuple(str(name) for name in names) for head, names in facts["classes"].items()},
            "dataset": str(facts["corpus"]),
            "version": str(facts["version"]),
            "declared": {str(split): int(count) for split, count in facts["declared"].items()},
            "unlabeled": tuple(str(split) for split in facts.get("unlabelled", ())),
            "depth": None
            if depth is None
            else DepthFacts(
                unit_mm=depth["depth_unit"],
                near=depth["depth_range"][0],
                far=depth["depth_range"][1],
                coverage=depth["coverage"],
            ),
        }
    except KeyError as error:
        raise ManifestError(f"{path}: field {error} is missing") from error
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise ManifestError(f"{path}: cannot be read ({error})") from error


def _read_table(path: Path, table: bytes, unlabeled: Sequence[str]) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    for line, row in rows(path, table):
        if not entries:
            _check_columns(path, list(row))
        try:
            entries.append(parse_row(row, line, unlabeled))
        except ValueError as error:
            raise ManifestError(f"{path}, line {line}: {error}") from error
    return tuple(entries)


def _check_columns(path: Path, columns: list[str]) -> None:
    known = [*COLUMNS, LABEL]
    for column in columns:
        if column not in known and not column.startswith(f"{LABEL}."):
            near = difflib.get_close_matches(column, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"a manifest has {', '.join(known)}"
            raise ManifestError(f"{path}, line 1: unknown column {column!r}; {hint}")


def _check_labels(manifest: Manifest) -> None:
    for head, names in manifest.classes.items():
        known = set(names)
        if len(known) != len(names):
            twice = sorted(name for name, count in Counter(names).items() if count > 1)
            raise ManifestError(f"{manifest.path.with_suffix('.json')}: class {twice[0]!r} stands twice in {head!r}")
        for entry in manifest.entries:
            if entry.split in manifest.unlabeled:
                if entry.labels:
                    raise ManifestError(
                        f"{manifest.path}, line {entry.line}: has a label, but its split {entry.split!r} is said to "
                        f"have none: take it out of `unlabelled` in {manifest.path.with_suffix('.json').name}"
                    )
                continue
            if head not in entry.labels:
                raise ManifestError(f"{manifest.path}, line 1: column {_column(head)!r} is missing")
            label = entry.labels[head]
            if label not in known:
                near = difflib.get_close_matches(label, names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ManifestError(
                    f"{manifest.path}, line {entry.line}: {_column(head)} {label!r} is not among the {len(names)} "
                    f"classes of {manifest.path.with_suffix('.json').name}{hint}"
                )
    extra = {head for entry in manifest.entries for head in entry.labels} - set(manifest.classes)
    if extra:
        raise ManifestError(
            f"{manifest.path.with_suffix('.json')}: has no class list for column {_column(min(extra))!r}"
        )


def _digest(table: bytes, facts: bytes) -> str:
    return hashlib.sha256(hashlib.sha256(table).digest() + hashlib.sha256(facts).digest()).hexdigest()


def _head(column: str) -> str:
    return LABEL if column == LABEL else column.removeprefix(f"{LABEL}.")


def _column(head: str) -> str:
    return LABEL if head == LABEL else f"{LABEL}.{head}"


def _number(column: str, cell: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(cell)
    except ValueError:
        word = "a whole number" if kind is int else "a number"
        raise ValueError(f"{column}={cell!r} is not {word}") from None

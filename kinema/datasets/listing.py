"""Official lists of a dataset: find them, read them, refuse samples that are listed twice."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kinema.data.csv_table import read_csv
from kinema.data.manifest import LABEL, Entry
from kinema.errors import ManifestError
from kinema.modality import DepthFacts, Modality
from kinema.video.scan import VIDEO_SUFFIXES

ANNOTATIONS = "annotations.csv"
"""Optional table beside the files of a dataset: `path`, `label`, `split` and more columns. Its split is used."""


@dataclass(frozen=True, kw_only=True)
class ListedSample:
    """One sample of an official list.

    Args:
        name: Name in messages; no other sample may have it.
        entry: Manifest line. `rgb` and `depth` are keys of `Files.paths`; a sample without split is not used.
        path: List.
        line: Line in the list, from 1; in a JSON list the number of the record, from 1.
    """

    name: str
    entry: Entry
    path: Path
    line: int


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What the official lists of a dataset contain.

    Args:
        dataset: Name of the dataset.
        lists: Names of the lists in messages.
        version: Split or version of the lists.
        samples: Samples of all lists.
        classes: Class names of each task head; of a single one as a tuple.
        declared: Samples of each split in the whole dataset.
        depth: Meaning of 16-bit depth values.
        notes: Messages to show.
    """

    dataset: str
    lists: str
    version: str
    samples: Sequence[ListedSample]
    classes: tuple[str, ...] | Mapping[str, tuple[str, ...]]
    declared: Mapping[str, int]
    depth: DepthFacts | None = None
    notes: Sequence[str] = ()


def line_error(path: Path, line: int, problem: object, *, field: str | None = None) -> ManifestError:
    """Return an error about a line of a list."""
    return ManifestError(f"{path}, line {line}: {problem}", path=path, line=line, field=field)


def find_list(root: Path, folders: Sequence[str], *names: str) -> Path | None:
    """Return the first file with one of these names, folder by folder below the root."""
    places = [root / folder / name for folder in folders for name in names]
    return next((path for path in places if path.is_file()), None)


def require_list(root: Path, folders: Sequence[str], *names: str, fix: str) -> Path:
    """Return the first file with one of these names, folder by folder below the root.

    Raises:
        ManifestError: None of the files exists.
    """
    path = find_list(root, folders, *names)
    if path is None:
        places = ", ".join(folder or str(root) for folder in folders)
        raise ManifestError(f"{root}: {' or '.join(names)} not found; looked in {places}. {fix}", path=root)
    return path


def find_lists(
    root: Path, folders: Sequence[str], names: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> tuple[dict[str, Path], list[str]]:
    """Return the list of each split that has one, and notes on the splits that have none.

    Args:
        root: Folder of the dataset.
        folders: Folders below the root that may contain the lists.
        names: File names of each split's list, in order of preference.
        optional: Splits that may be absent without a note.

    Raises:
        ManifestError: No split has a list.
    """
    found = {split: find_list(root, folders, *choices) for split, choices in names.items()}
    paths = {split: path for split, path in found.items() if path is not None}
    if not paths:
        wanted = ", ".join(name for choices in names.values() for name in choices)
        raise ManifestError(f"{root}: no official list found; looked for {wanted}", path=root)
    notes = [
        f"split {split} is omitted: {' or '.join(names[split])} not found in {root}"
        for split, path in found.items()
        if path is None and split not in optional
    ]
    return paths, notes


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return number and text of each line that is not blank, without surrounding spaces.

    Raises:
        ManifestError: The file cannot be read, is not UTF-8, or has no such line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror})", path=path) from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})", path=path) from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise ManifestError(f"{path}: empty list. Download it again.", path=path)
    return lines


def read_listing(paths: Mapping[str, Path], read: Callable[[Path, str], Sequence[ListedSample]]) -> list[ListedSample]:
    """Return the samples of several lists.

    Args:
        paths: List of each split, or of each class.
        read: Function from a list and its split or class to the samples.

    Raises:
        ManifestError: A sample is listed twice, in one list or in two.
    """
    samples = [sample for key, path in paths.items() for sample in read(path, key)]
    refuse_duplicates((sample.path, sample.line, sample.name) for sample in samples)
    return samples


def refuse_duplicates(named: Iterable[tuple[Path, int, str]]) -> None:
    """Raise if a name occurs twice.

    Args:
        named: List, line and name of each sample.

    Raises:
        ManifestError: A name occurs twice.
    """
    first: dict[str, tuple[Path, int]] = {}
    for path, line, name in named:
        if name in first:
            other, number = first[name]
            place = f"in line {number}" if other == path else f"in {other}, line {number}"
            raise line_error(path, line, f"{name} is already listed {place}")
        first[name] = path, line


def read_annotations(
    root: Path, modality: Modality, columns: Mapping[str, str], classes: Sequence[str]
) -> list[ListedSample]:
    """Return the samples of the table `annotations.csv` in a folder.

    Args:
        root: Folder of the dataset.
        modality: Modality of the files.
        columns: Manifest column to the table's column, beside `path`, `label` and `split`.
        classes: Class names.

    Raises:
        ManifestError: The table lacks a column, a label is not a class, or a path is listed twice.
    """
    table = root / ANNOTATIONS
    lines = read_csv(table, table.read_bytes())
    required = ("path", "label", *columns.values(), "split")
    require_columns(table, lines[0][1], required)
    samples = []
    for line, row in lines:
        if row["label"] not in classes:
            raise line_error(
                table, line, f"label {row['label']!r} is not one of the {len(classes)} classes", field="label"
            )
        frames = int(row["frames"]) if row.get("frames", "").isdecimal() else None
        cells = {column: row[name] for column, name in columns.items()}
        cells |= {modality: row["path"], "split": row["split"]}
        entry = Entry(frames=frames or None, labels={LABEL: row["label"]}, **cells)  # type: ignore[arg-type]  # text
        samples.append(ListedSample(name=row["path"], entry=entry, path=table, line=line))
    refuse_duplicates((sample.path, sample.line, sample.name) for sample in samples)
    return samples


def require_columns(path: Path, row: Mapping[str, str], columns: Sequence[str]) -> None:
    """Raise if a table lacks a column.

    Raises:
        ManifestError: A column is missing.
    """
    missing = [column for column in columns if column not in row]
    if missing:
        raise line_error(path, 1, f"column {missing[0]!r} is missing; expected {', '.join(columns)}", field=missing[0])


def video_name(file: str) -> str:
    """Return a file name without the suffix of a video; names may contain dots."""
    suffix = Path(file).suffix
    return file.removesuffix(suffix) if suffix.lower() in VIDEO_SUFFIXES else file


def count_splits(samples: Iterable[ListedSample], splits: Iterable[str]) -> dict[str, int]:
    """Return the number of samples in each of the splits."""
    counts = Counter(sample.entry.split for sample in samples)
    return {split: counts[split] for split in splits}


def describe_counts(counts: Mapping[str, int]) -> str:
    """Return counts by split in one line, such as `train 9537, test 3783`."""
    return ", ".join(f"{split} {count}" for split, count in counts.items())


def compare_counts(paths: Mapping[str, Path], listed: Mapping[str, int], official: Mapping[str, int]) -> list[str]:
    """Return notes on lists that are not as long as the official ones."""
    return [
        f"{path.name} lists {listed[split]} samples, the official list {official[split]}: it is incomplete or another "
        "version"
        for split, path in paths.items()
        if listed[split] != official[split]
    ]

"""Official lists of a dataset: find and read them, refuse duplicates, compare their lengths."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kinema.data.manifest import LABEL, Entry, rows
from kinema.errors import ManifestError
from kinema.modality import Modality
from kinema.video.scan import VIDEO_SUFFIXES

ANNOTATIONS = "annotations.csv"
"""Optional table beside the files of a dataset: `path`, `label`, `split` and more columns. Its split is used."""


@dataclass(frozen=True, kw_only=True)
class ListedSample:
    """Sample of an official list.

    Attributes:
        name: Unique name, for messages.
        entry: Manifest line. `rgb` and `depth` are keys of `Files.paths`; a sample without split is not used.
        path: List.
        line: Line in the list, from 1; in a JSON list the number of the record, from 1.
    """

    name: str
    entry: Entry
    path: Path
    line: int

    def error(self, problem: str, field: str) -> ManifestError:
        """Return an error about the line of this sample."""
        return line_error(self.path, self.line, problem, field=field)


def line_error(path: Path, line: int, problem: object, *, field: str | None = None) -> ManifestError:
    """Return an error about a line of a list."""
    return ManifestError(f"{path}, line {line}: {problem}", path=path, line=line, field=field)


def require_list(root: Path, folders: Sequence[str], *names: str, fix: str) -> Path:
    """Return the first file with one of these names, folder by folder below the root.

    Raises:
        ManifestError: None of the files exists.
    """
    path = _find_list(root, folders, names)
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
    paths = {split: path for split in names if (path := _find_list(root, folders, names[split]))}
    if not paths:
        searched = ", ".join(name for choices in names.values() for name in choices)
        raise ManifestError(f"{root}: no official list found; looked for {searched}", path=root)
    notes = [
        f"split {split} is omitted: {' or '.join(choices)} not found in {root}"
        for split, choices in names.items()
        if split not in paths and split not in optional
    ]
    return paths, notes


def _find_list(root: Path, folders: Sequence[str], names: Sequence[str]) -> Path | None:
    places = [root / folder / name for folder in folders for name in names]
    return next((path for path in places if path.is_file()), None)


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
    """Raise ManifestError if a name occurs twice; `named` holds the list, line and name of each sample."""
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
    lines = rows(table, table.read_bytes())
    require_columns(table, lines[0][1], ("path", "label", *columns.values(), "split"))
    samples = []
    for line, row in lines:
        if row["label"] not in classes:
            problem = f"label {row['label']!r} is not one of the {len(classes)} classes"
            raise line_error(table, line, problem, field="label")
        frames = int(row["frames"]) if row.get("frames", "").isdecimal() else None
        cells = {column: row[name] for column, name in columns.items()}
        cells |= {modality: row["path"], "split": row["split"]}
        entry = Entry(frames=frames or None, labels={LABEL: row["label"]}, **cells)  # type: ignore[arg-type]  # text
        samples.append(ListedSample(name=row["path"], entry=entry, path=table, line=line))
    refuse_duplicates((sample.path, sample.line, sample.name) for sample in samples)
    return samples


def require_columns(path: Path, row: Mapping[str, str], columns: Sequence[str]) -> None:
    """Raise ManifestError if a table lacks a column."""
    missing = [column for column in columns if column not in row]
    if missing:
        raise line_error(path, 1, f"column {missing[0]!r} is missing; expected {', '.join(columns)}", field=missing[0])


def video_name(file: str) -> str:
    """Return a file name without the suffix of a video; names may contain dots."""
    suffix = Path(file).suffix
    return file.removesuffix(suffix) if suffix.lower() in VIDEO_SUFFIXES else file


def count_splits(samples: Iterable[ListedSample], splits: Iterable[str] = ()) -> dict[str, int]:
    """Return the number of samples in each of the splits; by default in those that occur."""
    counts = Counter(sample.entry.split for sample in samples)
    return {split: counts[split] for split in tuple(splits) or counts}


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

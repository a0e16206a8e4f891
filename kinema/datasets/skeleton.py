"""Steps shared by datasets with official lists: read the lists, find the files, and join both into a manifest.

The module of a dataset supplies the names of its lists, the parsing of a line into a `ListedSample`, the key of a file
by its name, and the class names.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kinema.data.csv_table import read_csv
from kinema.data.manifest import LABEL, Entry, check_manifest_name
from kinema.data.names import normalize, split_name
from kinema.datasets.cells import unknown_split
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import PreparedDataset, exclude_files, note_names, write_prepared
from kinema.errors import ManifestError, examples
from kinema.files import read_bytes
from kinema.modality import MODALITIES, DepthFacts, Modality
from kinema.video.scan import VIDEO_SUFFIXES, FolderContents, scan

ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".rar", ".7z"})
ANNOTATIONS = "annotations.csv"
"""Optional table beside the files of a dataset: `path`, `label`, `split` and more columns. Its split is used."""


@dataclass(frozen=True, kw_only=True)
class ListedSample:
    """Sample of an official list.

    Attributes:
        name: Unique name, for messages.
        entry: Manifest line. `rgb` and `depth` are keys of `Files.paths`. A sample without a split is not used.
        path: Path of the list.
        line: Line of the list, or record of a JSON list, from 1.
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
    """Return the list of each split, and notes on the splits without a list, except optional ones.

    `names` has the file names of each split's list in order of preference. The folders below the root are searched in
    order.

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
        text = read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror})", path=path) from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})", path=path) from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise ManifestError(f"{path}: empty list. Download it again.", path=path)
    return lines


def read_listing(paths: Mapping[str, Path], read: Callable[[Path, str], Sequence[ListedSample]]) -> list[ListedSample]:
    """Read several lists by `read(path, key)` and return their samples; refuse a sample that is listed twice."""
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

    `columns` maps the manifest's name of each further column to its name in the table.

    Raises:
        ManifestError: The table lacks a column, a label is not a class, or a path is listed twice.
    """
    table = root / ANNOTATIONS
    lines = read_csv(table, read_bytes(table))
    require_columns(table, lines[0][1], ("path", "label", *columns.values(), "split"))
    samples = []
    for line, row in lines:
        if normalize(row["label"]) not in classes:
            problem = f"label {row['label']!r} is not one of the {len(classes)} classes"
            raise line_error(table, line, problem, field="label")
        split = split_name(row["split"]) or ""
        if row["split"] and not split:
            raise line_error(table, line, unknown_split(row["split"]), field="split")
        frames = int(row["frames"]) if row.get("frames", "").isdecimal() else None
        cells = {column: row[name] for column, name in columns.items()}
        cells |= {modality: row["path"], "split": split}
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
    """Return the number of samples per split, by default of all splits that occur."""
    counts = Counter(sample.entry.split for sample in samples)
    return {split: counts[split] for split in tuple(splits) or counts}


def describe_counts(counts: Mapping[str, int]) -> str:
    """Return counts by split in one line, such as `train 9537, test 3783`."""
    return ", ".join(f"{split} {count}" for split, count in counts.items())


def compare_counts(paths: Mapping[str, Path], listed: Mapping[str, int], official: Mapping[str, int]) -> list[str]:
    """Return notes on lists that differ in length from the official ones."""
    return [
        f"{path.name} lists {listed[split]} samples, the official list {official[split]}: it is incomplete or another "
        "version"
        for split, path in paths.items()
        if listed[split] != official[split]
    ]


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files of a dataset on disk.

    Attributes:
        paths: Paths relative to the root, by the keys of the dataset's module.
        searched: Searched folders with an example of a file name, for messages.
        archives: Names of archives that may not have been unpacked.
        notes: Messages to show.
    """

    paths: dict[str, str]
    searched: str
    archives: Sequence[str] = ()
    notes: Sequence[str] = ()


def check_paths(options: DatasetOptions, content: str) -> None:
    """Raise ManifestError if the manifest does not end in .csv or the root, which contains `content`, is missing."""
    check_manifest_name(options.out)
    if not options.root.is_dir():
        raise ManifestError(
            f"{options.root}: no such folder. Pass the folder that contains {content}.", path=options.root, field="root"
        )


def find_files(
    root: Path, folders: Sequence[str], find: Callable[[Path], Iterable[tuple[str, Path]]], *, example: str
) -> Files:
    """Return the files of the first folder that has any.

    Args:
        root: Folder of the dataset.
        folders: Folders below the root that may contain the files, in order of preference; "" is the root.
        find: Function that yields key and path of each file in such a folder.
        example: Example of a file below such a folder, for messages.

    Raises:
        ManifestError: Two files have the same key.
    """
    existing = [folder for folder in folders if (root / folder).is_dir()]
    keyed = {folder: pairs for folder in existing if (pairs := list(find(root / folder)))}
    first_folder = next(iter(keyed), "")
    paths: dict[str, Path] = {}
    for key, path in keyed.get(first_folder, ()):
        first = paths.setdefault(key, path)
        if first != path:
            raise ManifestError(f"{path}: duplicate of {first}. Move one of them away.", path=path)
    return Files(
        paths={key: path.relative_to(root).as_posix() for key, path in paths.items()},
        searched=", ".join((Path(folder) / example).as_posix() for folder in folders),
        archives=[
            path.name
            for folder in dict.fromkeys(("", *existing))
            for path in sorted((root / folder).iterdir())
            if path.suffix.lower() in ARCHIVE_SUFFIXES and path.is_file()
        ],
        notes=[
            f"{len(pairs)} files in {root / folder} were ignored; those in {root / first_folder} were used"
            for folder, pairs in keyed.items()
            if folder != first_folder
        ],
    )


def scan_classes(folder: Path, classes: Collection[str]) -> Iterator[tuple[str, FolderContents]]:
    """Yield class name and contents of each class folder; the case of folder names is ignored."""
    names = {name.casefold(): name for name in classes}
    for path in sorted(folder.iterdir()):
        if path.name.casefold() in names and path.is_dir():
            yield names[path.name.casefold()], scan(path)


def join(
    options: DatasetOptions,
    samples: Sequence[ListedSample],
    files: Files,
    *,
    dataset: str,
    lists: str,
    version: str,
    classes: tuple[str, ...],
    declared: Mapping[str, int],
    depth: DepthFacts | None = None,
    notes: Sequence[str] = (),
) -> PreparedDataset:
    """Write the manifest of all listed samples whose files are on disk.

    The notes count missing samples and unlisted files. `lists` names the lists in messages. All other arguments are
    those of `write_prepared`.

    Raises:
        ManifestError: No labeled sample is on disk.
    """
    entries, missing = [], []
    listed: set[str] = set()
    for sample in samples:
        keys = {modality: key for modality in MODALITIES if (key := sample.entry.source(modality))}
        listed.update(keys.values())
        if not sample.entry.split:
            continue
        if all(key in files.paths for key in keys.values()):
            entries.append(replace(sample.entry, **{m: files.paths[key] for m, key in keys.items()}))  # type: ignore[arg-type]  # paths
        else:
            missing.append(sample.name)
    entries, excluded = exclude_files(entries, options, options.root)
    archives = []
    if missing and files.archives:
        archives = [f"archives may not have been unpacked: {examples(files.archives, 10)}"]
    used = {entry.labels[LABEL] for entry in entries if entry.labels}
    if not used:
        problem = f"{options.root}: no labeled sample of {lists} found on disk; looked for {files.searched}"
        raise ManifestError("; ".join([problem, *archives]), path=options.root)
    unused = [name for name in classes if name not in used]
    absent = [f"{len(unused)} of {len(classes)} classes have no sample on disk: {examples(unused)}"] if unused else []
    unlisted = [path for key, path in files.paths.items() if key not in listed]
    return write_prepared(
        entries,
        options.out,
        base=options.root,
        dataset=dataset,
        version=version,
        classes={LABEL: classes},
        depth=depth,
        declared=declared,
        notes=[*notes, *files.notes, *excluded, *absent, *difference_notes(lists, missing, unlisted), *archives],
    )


def difference_notes(lists: str, missing: Sequence[str], unlisted: Iterable[str]) -> list[str]:
    """Return notes on listed samples that are not on disk and files on disk that are not listed."""
    return [
        *note_names(missing, f"samples of {lists} are not on disk and are omitted; coverage counts them as missing"),
        *note_names(sorted(unlisted), f"files on disk are not in {lists} and are omitted"),
    ]

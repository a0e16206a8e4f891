"""Skeleton of a dataset: find its files on disk and join them with its official lists into a manifest.

A dataset's module supplies the rest: the names of its lists, how a line of them becomes a `ListedSample`, how a file
name becomes the key of a sample, and its class names. Then `join` writes the manifest.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kinema.data.manifest import LABEL, check_manifest_name
from kinema.datasets.listing import ListedSample
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import Prepared, examples, note_names, write_prepared
from kinema.errors import ManifestError
from kinema.modality import MODALITIES, DepthFacts
from kinema.video.scan import FolderContents, scan

ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".rar", ".7z"})


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files of a dataset on disk.

    Attributes:
        paths: Path of each file relative to the root, by the key that its dataset gives it.
        searched: Folders and an example of a file name, for messages.
        archives: Names of archives that may still be packed.
        notes: Messages to show.
    """

    paths: dict[str, str]
    searched: str
    archives: Sequence[str] = ()
    notes: Sequence[str] = ()


def check_paths(options: DatasetOptions, content: str) -> None:
    """Raise ManifestError if the manifest does not end in .csv, or the root is not a folder of `content`."""
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
    """Yield name and contents of each folder that is named after a class, ignoring case."""
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
) -> Prepared:
    """Write the manifest of all listed samples whose files are on disk.

    Samples that are missing on disk and files that are not listed are counted in the notes.

    Args:
        options: Options of the dataset.
        samples: Samples of all lists.
        files: Files on disk.
        dataset: Name of the dataset.
        lists: Names of the lists, for messages.
        version: Split or version of the lists.
        classes: Class names.
        declared: Samples of each split in the whole dataset.
        depth: Meaning of 16-bit depth values.
        notes: Messages so far.

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
    archives = []
    if missing and files.archives:
        archives = [f"archives may still be packed: unpack {examples(files.archives, 10)}"]
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
        notes=[*notes, *files.notes, *absent, *difference_notes(lists, missing, unlisted), *archives],
    )


def difference_notes(lists: str, missing: Sequence[str], unlisted: Iterable[str]) -> list[str]:
    """Return notes on listed samples that are not on disk and files on disk that are not listed."""
    return [
        *note_names(missing, f"samples of {lists} are not on disk and are omitted; coverage counts them as missing"),
        *note_names(sorted(unlisted), f"files on disk are not in {lists} and are omitted"),
    ]

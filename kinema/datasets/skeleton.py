"""From the official lists and the files of a dataset to its manifest: the steps that all datasets share.

A dataset's module supplies what is its own: names of its lists, how a line of them becomes a `ListedSample`, how a file
name becomes the key of a sample, and its class names. Then `join(options, listing, files)` writes the manifest.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kinema.data.manifest import LABEL, check_manifest_name
from kinema.datasets.listing import Listing
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import Prepared, examples, write_prepared
from kinema.errors import ManifestError
from kinema.modality import MODALITIES
from kinema.video.scan import FolderContents, scan

ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".rar", ".7z"})


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files of a dataset on disk.

    Args:
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
    """Raise if the manifest has no name of a CSV, or the root is not a folder.

    Args:
        options: Options of the dataset.
        content: What the root folder contains, for the message.

    Raises:
        ManifestError: One of the two paths cannot be used.
    """
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
    there = [folder for folder in folders if (root / folder).is_dir()]
    filled = {folder: found for folder in there if (found := list(find(root / folder)))}
    taken = next(iter(filled), "")
    paths: dict[str, Path] = {}
    for key, path in filled.get(taken, ()):
        first = paths.setdefault(key, path)
        if first != path:
            raise ManifestError(f"{path}: duplicate of {first}. Move one of them away.", path=path)
    return Files(
        paths={key: path.relative_to(root).as_posix() for key, path in paths.items()},
        searched=", ".join((Path(folder) / example).as_posix() for folder in folders),
        archives=[name for folder in dict.fromkeys(("", *there)) for name in _archives(root / folder)],
        notes=[
            f"{len(found)} files in {root / folder} were ignored; those in {root / taken} were used"
            for folder, found in filled.items()
            if folder != taken
        ],
    )


def scan_classes(folder: Path, classes: Collection[str]) -> Iterator[tuple[str, FolderContents]]:
    """Yield name and contents of each folder that is named after a class, ignoring case."""
    known = {name.casefold(): name for name in classes}
    for path in sorted(folder.iterdir()):
        if path.name.casefold() in known and path.is_dir():
            yield known[path.name.casefold()], scan(path)


def join(options: DatasetOptions, listing: Listing, files: Files) -> Prepared:
    """Write the manifest of all listed samples whose files are on disk.

    Samples that are missing on disk and files that are not listed are counted in the notes.

    Raises:
        ManifestError: No labeled sample is on disk.
    """
    entries, missing = [], []
    for sample in listing.samples:
        keys = {modality: key for modality in MODALITIES if (key := sample.entry.source(modality))}
        if not sample.entry.split:
            continue
        if all(key in files.paths for key in keys.values()):
            entries.append(replace(sample.entry, **{m: files.paths[key] for m, key in keys.items()}))  # type: ignore[arg-type]  # paths
        else:
            missing.append(sample.name)
    archives = (
        [f"archives may still be packed: unpack {examples(files.archives, 10)}"] if missing and files.archives else []
    )
    if not any(entry.labels for entry in entries):
        problem = f"{options.root}: no labeled sample of {listing.lists} found on disk; looked for {files.searched}"
        raise ManifestError("; ".join([problem, *archives]), path=options.root)
    listed = {key for sample in listing.samples for m in MODALITIES if (key := sample.entry.source(m))}
    notes = [*listing.notes, *files.notes]
    if isinstance(listing.classes, tuple):
        used = {entry.labels[LABEL] for entry in entries if entry.labels}
        unused = [name for name in listing.classes if name not in used]
        if unused:
            notes.append(f"{len(unused)} of {len(listing.classes)} classes have no sample on disk: {examples(unused)}")
    notes += difference_notes(listing.lists, missing, [path for key, path in files.paths.items() if key not in listed])
    return write_prepared(
        entries,
        options.out,
        base=options.root,
        dataset=listing.dataset,
        version=listing.version,
        classes={LABEL: listing.classes} if isinstance(listing.classes, tuple) else listing.classes,
        depth=listing.depth,
        declared=listing.declared,
        notes=[*notes, *archives],
    )


def difference_notes(lists: str, missing: Sequence[str], unlisted: Iterable[str]) -> list[str]:
    """Return notes on samples that are not on disk and files that are not listed.

    Args:
        lists: Names of the lists.
        missing: Names of listed samples that are not on disk.
        unlisted: Files on disk that are not listed.
    """
    notes = []
    if missing:
        notes.append(
            f"{len(missing)} samples of {lists} are not on disk and are omitted; coverage counts them as missing: "
            f"{examples(missing)}"
        )
    extra = sorted(unlisted)
    if extra:
        notes.append(f"{len(extra)} files on disk are not in {lists} and are omitted: {examples(extra)}")
    return notes


def _archives(folder: Path) -> list[str]:
    return [
        path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in ARCHIVE_SUFFIXES and path.is_file()
    ]

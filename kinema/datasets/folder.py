"""A user's own folder: class folders, or files named by templates, with videos, arrays or folders of images."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from kinema.config import config
from kinema.data.manifest import LABEL, Entry
from kinema.data.names import normalize, split_name
from kinema.datasets.cells import check_class_names, unknown_split
from kinema.datasets.holdout import assign_splits
from kinema.datasets.options import OwnDataOptions
from kinema.datasets.prepared import PreparedDataset, note_names, write_prepared
from kinema.datasets.registry import DatasetSpec
from kinema.datasets.skeleton import check_paths
from kinema.datasets.templates import match_templates
from kinema.errors import ManifestError, UnreadableVideo, examples
from kinema.modality import MODALITIES, Modality
from kinema.video.array_file import ARRAY_SUFFIXES
from kinema.video.scan import VIDEO_SUFFIXES, is_text, is_video, scan, scan_contents
from kinema.video.source import read_gray, read_rgb
from kinema.video.streams import join_stream, split_stream

Kind = Literal["videos", "arrays", "folders of images"]


@config
class FolderOptions(OwnDataOptions):
    """Make a manifest of ROOT/CLASS/video or ROOT/train/CLASS/video, or of files named by --rgb and --depth.

    Attributes:
        rgb: Names of RGB files below ROOT, for example '{label}/{name}_rgb.mp4'. The fields label (or label.verb, ...),
            group, subject, camera and split fill columns; all others only match; {name:d} matches digits. A stream of
            the files may be named: '{label}/{name}.mkv#color'.
        depth: Names of depth files, as --rgb; may end in a folder of images. RGB and depth are paired by the fields
            that both patterns have.
    """

    rgb: str = ""
    depth: str = ""


def prepare(options: FolderOptions) -> PreparedDataset:
    """Write the manifest of a folder, by templates if any are given, else by its class folders.

    Files in `root/CLASS` or, with a folder for each split, in `root/train/CLASS` are the samples. Videos are RGB.
    Arrays with one channel and 16-bit images are depth; all others are RGB. If RGB and depth, or several kinds of
    files, are side by side, templates must pair them.

    Raises:
        ManifestError: No sample is found, the folder has fewer than two classes or several kinds of files, or a
            template is malformed, matches nothing or matches two files of one sample.
    """
    check_paths(options, "a folder for each class")
    root = options.root
    if options.rgb or options.depth:
        entries, has_split, notes = _match_streams(options)
    else:
        entries, has_split, notes = _read_class_folders(root)
    assigned = assign_splits(entries, options, base=root, has_split=has_split)
    return write_prepared(
        assigned.entries,
        options.out,
        base=root,
        dataset=root.resolve().name,
        depth=options.depth_facts,
        mirrored=options.mirrored,
        depth_encoding=options.depth_encoding,
        ungrouped=assigned.ungrouped,
        notes=[*notes, *assigned.notes],
    )


def _match_streams(options: FolderOptions) -> tuple[list[Entry], bool, list[str]]:
    """Return what `match_templates` does for templates that may name streams; both may name streams of one file."""
    (rgb, rgb_stream), (depth, depth_stream) = split_stream(options.rgb), split_stream(options.depth)
    is_one_file = rgb == depth and (rgb_stream, depth_stream) != (None, None)
    entries, has_split, notes = match_templates(options.root, options.out, rgb=rgb, depth="" if is_one_file else depth)
    named = [
        replace(
            entry,
            rgb=entry.rgb and join_stream(entry.rgb, rgb_stream),
            depth=(depth_file := entry.rgb if is_one_file else entry.depth) and join_stream(depth_file, depth_stream),
        )
        for entry in entries
    ]
    return named, has_split, notes


def _read_class_folders(root: Path) -> tuple[list[Entry], bool, list[str]]:
    """Return the samples in class folders, whether they have a split, and notes."""
    split_folders = _split_folders(root)
    sources: dict[Kind, list[tuple[Path, str, str]]] = {"videos": [], "arrays": [], "folders of images": []}
    num_others = 0
    without: dict[Path, tuple[Path, ...]] = {}  # class folders without a sample, with their files
    for split, parent in split_folders:
        for folder in _subfolders(parent):
            contents = scan_contents(folder)
            if contents.unreadable:
                raise ManifestError(
                    f"{contents.unreadable[0]}: this folder cannot be listed. Give yourself the right to read it.",
                    path=contents.unreadable[0],
                )
            num_others += len(contents.others)
            paths_by_kind = (contents.videos, contents.arrays, contents.image_folders)
            for samples, paths in zip(sources.values(), paths_by_kind, strict=True):
                samples += [(path, split, folder.name.strip()) for path in paths]
            if not any(paths_by_kind):
                without[folder] = contents.others
    kinds = [kind for kind, samples in sources.items() if samples]
    if not kinds:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES | ARRAY_SUFFIXES))
        searched = f"CLASS/NAME with {suffixes}, and for CLASS/NAME/ with two or more images"
        raise ManifestError(f"{root}: no video in any class folder; looked for {searched}", path=root)
    if len(kinds) > 1:
        examples = [sources[kind][0][0].relative_to(root).as_posix() for kind in kinds[:2]]
        problem = f"contains {kinds[0]} ({examples[0]}) and {kinds[1]} ({examples[1]})"
        fix = "Choose with --rgb TEMPLATE and --depth TEMPLATE, or move the others away."
        raise ManifestError(f"{root}: {problem}. {fix}", path=root)
    folders = [folder for _, parent in split_folders for folder in _subfolders(parent)]
    check_class_names({LABEL: sorted({normalize(f.name) for f in folders if f not in without})}, root)
    empty = _check_empty_classes(root, without)
    kind = kinds[0]
    modality = _modality(root, [path for path, *_ in sources[kind]], kind)
    entries = []
    for path, split, label in sources[kind]:
        source = path.relative_to(root).as_posix()
        rgb, depth = (source, "") if modality == "rgb" else ("", source)
        entries.append(Entry(rgb=rgb, depth=depth, split=split, labels={LABEL: label}))
    notes = [f"{num_others} files are omitted: unknown file type"] if num_others else []
    notes += note_names(empty, "folders have no video and are no classes")
    if kind != "videos":
        notes.append(f"all {len(entries)} {kind} are used as {'depth' if modality == 'depth' else 'RGB'}")
    return entries, bool(split_folders[0][0]), notes


def _check_empty_classes(root: Path, without: Mapping[Path, Sequence[Path]]) -> list[str]:
    """Return the names of folders with documents at most; a class whose files are of other kinds is refused."""
    for folder, files in without.items():
        unknown = [path.relative_to(folder).as_posix() for path in files if not is_text(path)]
        if unknown:
            problem = f"class {folder.name!r} has no sample, because no video is found in {examples(unknown)}"
            fix = "Convert these files to videos, or move the folder away."
            raise ManifestError(f"{root}: {problem}. {fix}", path=folder, field=LABEL)
    return [folder.relative_to(root).as_posix() for folder, files in without.items() if not files]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _split_folders(root: Path) -> list[tuple[str, Path]]:
    """Return the parents of class folders as (split, folder): one per split, or the root without a split."""
    folders = [folder for folder in _subfolders(root) if _has_sources(folder)]
    splits = {folder: split for folder in folders if (split := split_name(folder.name))}
    if splits and len(splits) == len(folders):
        return [(split, folder) for folder, split in splits.items()]
    other = next((folder for folder in folders if folder not in splits), root)
    if len(splits) > 1 or (splits and all(_subfolders(folder) for folder in folders)):
        names = " and ".join(repr(folder.name) for folder in splits)
        problem = f"{names} {'are splits' if len(splits) > 1 else 'is a split'}, but {other.name!r} is not"
        fix = f"Rename it ({unknown_split(other.name)}), move its classes into a split, or move it away."
        raise ManifestError(f"{root}: {problem}. {fix}", path=other, field="split")
    _check_levels(root, folders)
    return [("", root)]


def _check_levels(root: Path, folders: Sequence[Path]) -> None:
    """Refuse class folders that all contain the same folders of videos: either level may be that of the classes."""
    below = [{path.name for path in _subfolders(folder) if scan(path).videos} for folder in folders]
    if len(folders) < 2 or not below[0] or any(names != below[0] for names in below):
        return
    names, parents = (examples(sorted(group)) for group in (below[0], {folder.name for folder in folders}))
    inner = "{split}" if all(map(split_name, below[0])) else "{group}"
    templates = f"--rgb '{{label}}/{inner}/{{name}}.mp4'"
    templates += "" if inner == "{split}" else " or --rgb '{group}/{label}/{name}.mp4'"
    raise ManifestError(f"{root}: {parents} all contain {names}. Name the levels: {templates}.", path=root)


def _has_sources(folder: Path) -> bool:
    contents = scan(folder)
    return bool(contents.sources) or any(map(is_video, contents.others))


def _modality(root: Path, paths: list[Path], kind: Kind) -> Modality:
    """Return the modality of arrays or images; unreadable files are ignored, since counting frames reports them."""
    if kind == "videos":
        return "rgb"
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        modalities = list(pool.map(_modality_of, paths))
    first = {m: path for m, path in zip(reversed(modalities), reversed(paths), strict=True) if m is not None}
    if len(first) > 1:
        rgb, depth = (first[m].relative_to(root).as_posix() for m in MODALITIES)
        problem = f"{rgb} is RGB and {depth} is depth. Pair them with --rgb TEMPLATE and --depth TEMPLATE."
        raise ManifestError(f"{root}: {problem}", path=root)
    return next(iter(first), "rgb")


def _modality_of(path: Path) -> Modality | None:
    """Return the modality of a file by its first frame; None if it cannot be read."""
    try:
        frame = read_gray(str(path), [0])
        return "depth" if path.is_file() or frame.dtype == np.uint16 else "rgb"
    except UnreadableVideo:  # an array of RGB has no single channel
        try:
            read_rgb(str(path), [0])
        except UnreadableVideo:
            return None
        return "rgb"


SPECS = (
    DatasetSpec("folder", "Your own folder of class folders, or of files named by a template.", FolderOptions, prepare),
)

"""A folder of class folders becomes a manifest: videos, npz and mat arrays, or folders of pictures."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from kinema.config import config
from kinema.data.manifest import LABEL, Entry
from kinema.datasets.options import Holdout, OwnDataOptions
from kinema.datasets.prepared import (
    HOLDOUT,
    SPLIT_WORDS,
    Prepared,
    check_target,
    finish,
    hold_out,
    not_held_out,
)
from kinema.datasets.templates import prepare_templates
from kinema.errors import ManifestError, UnreadableVideo
from kinema.modality import DepthFacts, Modality
from kinema.video.image_files import ARRAY_SUFFIXES
from kinema.video.scan import VIDEO_SUFFIXES, scan
from kinema.video.sources import read_grey, read_rgb

Kind = Literal["videos", "arrays", "folders of pictures"]


@config
class FolderOptions(OwnDataOptions):
    """Make a manifest of ROOT/CLASS/video or ROOT/train/CLASS/video, or of files named by --rgb and --depth.

    Args:
        rgb: Names of RGB files below ROOT, for example '{label}/{name}_rgb.mp4'. The fields label (or label.verb, ...),
            group, subject, camera and split fill columns; all others only match; {name:d} matches digits.
        depth: Names of depth files, as --rgb; may end in a folder of images. RGB and depth are paired by the fields
            that both patterns have.
    """

    rgb: str = ""
    depth: str = ""


def prepare(options: FolderOptions) -> Prepared:
    """Write the manifest of a folder; see `prepare_folder` and `prepare_templates`."""
    if options.rgb or options.depth:
        return prepare_templates(
            options.root,
            options.out,
            rgb=options.rgb,
            depth=options.depth,
            holdout=options,
            depth_facts=options.depth_facts,
        )
    return prepare_folder(options.root, options.out, holdout=options, depth=options.depth_facts)


def prepare_folder(root: Path, out: Path, *, holdout: Holdout = HOLDOUT, depth: DepthFacts | None = None) -> Prepared:
    """Make a manifest of `root/CLASS/video`, or `root/train/CLASS/video` with `val` or `test` beside it.

    In place of videos there may be npz or mat arrays, or folders of pictures. Videos are taken as RGB. Arrays of a
    single channel and pictures of 16 bits are depth; all others are RGB. Where RGB and depth, or several kinds, lie
    side by side, templates must say which belong together.

    Args:
        root: the folder; any depth of folders may lie inside a class.
        out: the CSV to write; the JSON comes beside it.
        holdout: the split, where the folders name none.
        depth: what the numbers of 16-bit depth mean.

    Raises:
        ManifestError: there is no such folder, no video in it, fewer than two classes, or more than one kind of files.
    """
    check_target(out)
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder; give the one that holds a folder for each class")
    branches = _branches(root)
    found: dict[Kind, list[tuple[Path, str, str]]] = {"videos": [], "arrays": [], "folders of pictures": []}
    others = 0
    for split, branch in branches:
        for folder in _folders(branch):
            there = scan(folder)
            others += len(there.others)
            sources: tuple[tuple[Kind, tuple[Path, ...]], ...] = (
                ("videos", there.videos),
                ("arrays", there.arrays),
                ("folders of pictures", there.picture_folders),
            )
            for kind, paths in sources:
                found[kind] += [(path, split, folder.name.strip()) for path in paths]

    kinds = [kind for kind, paths in found.items() if paths]
    if not kinds:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES | ARRAY_SUFFIXES))
        raise ManifestError(
            f"{root}: no video in any class folder; looked for CLASS/NAME with {suffixes}, and for CLASS/NAME/ with "
            "two or more pictures in it"
        )
    if len(kinds) > 1:
        one, other = (found[kind][0][0].relative_to(root).as_posix() for kind in kinds[:2])
        raise ManifestError(
            f"{root}: holds {kinds[0]} ({one}) and {kinds[1]} ({other}), and which are meant cannot be known; "
            "say it with --rgb TEMPLATE and --depth TEMPLATE, or move the others away"
        )
    kind = kinds[0]
    modality = _modality(root, [path for path, _, _ in found[kind]], kind)
    entries = []
    for path, split, label in found[kind]:
        source = path.relative_to(root).as_posix()
        rgb, deep = (source, "") if modality == "rgb" else ("", source)
        entries.append(Entry(rgb=rgb, depth=deep, split=split, labels={LABEL: label}))

    notes = [f"{others} files are no videos by their name and were left out"] if others else []
    if kind != "videos":
        notes.append(f"all {len(entries)} {kind} are taken as {'depth' if modality == 'depth' else 'RGB'}")
    if branches[0][0]:
        notes += not_held_out(holdout)
    else:
        entries, said = hold_out(entries, holdout)
        notes += said
    return finish(entries, out, base=root, corpus=root.resolve().name, depth=depth, notes=notes)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _branches(root: Path) -> list[tuple[str, Path]]:
    """Split and folder of classes: one a split where the folders name splits, else the root alone, without a split."""
    top = [folder for folder in _folders(root) if scan(folder).sources]
    splits = [folder for folder in top if folder.name.lower() in SPLIT_WORDS]
    if splits and len(splits) == len(top):
        return [(SPLIT_WORDS[folder.name.lower()], folder) for folder in top]
    if len(splits) > 1:
        other = next(folder.name for folder in top if folder not in splits)
        raise ManifestError(
            f"{root}: {splits[0].name!r} and {splits[1].name!r} name splits, but {other!r} beside them holds videos "
            "too; put its classes into a split, or move it away"
        )
    return [("", root)]


def _modality(root: Path, paths: list[Path], kind: Kind) -> Modality:
    """What arrays or pictures hold; those that cannot be read, which counting lists, hold what the others do."""
    if kind == "videos":
        return "rgb"
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        held = list(pool.map(_held, paths))
    by_modality = {m: path for m, path in zip(reversed(held), reversed(paths), strict=True) if m is not None}
    if len(by_modality) > 1:
        rgb, depth = (by_modality[m].relative_to(root).as_posix() for m in ("rgb", "depth"))
        raise ManifestError(
            f"{root}: {rgb} holds RGB and {depth} depth; say which belong together with --rgb TEMPLATE and "
            "--depth TEMPLATE"
        )
    return next(iter(by_modality), "rgb")


def _held(path: Path) -> Modality | None:
    """RGB or depth, by the first frame; None where it cannot be read."""
    try:
        frame = read_grey(str(path), [0])
        return "depth" if path.is_file() or frame.dtype == np.uint16 else "rgb"
    except UnreadableVideo:  # an array of RGB has no single channel
        try:
            read_rgb(str(path), [0])
        except UnreadableVideo:
            return None
        return "rgb"

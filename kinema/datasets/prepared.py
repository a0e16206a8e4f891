"""The last steps of every dataset: make a split if there is none, count frames, write the manifest."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from kinema.data.manifest import Entry, Manifest, class_lists, locate, write_manifest
from kinema.data.splits import divided_names, split_by_group
from kinema.datasets.options import Holdout
from kinema.errors import ManifestError, UnreadableVideo
from kinema.modality import MODALITIES, DepthFacts
from kinema.transforms.mirroring import mirrored_pair
from kinema.video.source import count_frames, read_gray

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of folders that mean a split, in lower case, and the name of that split in a manifest."""
SPLIT_SEED = 0
"""Seed of the split that is made; fixed, so that the same videos give the same manifest."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A manifest that was written, with messages for the user.

    Args:
        manifest: The manifest.
        unreadable: Files that cannot be decoded, each with the reason; their lines stay, with `frames` empty.
        notes: Decisions, omissions and findings, one sentence each.
    """

    manifest: Manifest
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """Number of samples by split, of classes and of unreadable files, in one line."""
        there = Counter(entry.split for entry in self.manifest.entries)
        splits = [
            f"{there[split]} {split or '(no split)'}"
            if there[split] == count
            else f"{there[split]} of {count} declared {split}"
            for split, count in self.manifest.declared.items()
        ]
        heads = [f"{n} classes" if head == "label" else f"{n} of {head}" for head, n in self.manifest.heads.items()]
        files = f"{len(self.unreadable)} files cannot be read"
        return f"{self.manifest.path}: {', '.join(splits)}; {', '.join(heads)}; {files}"


def examples(names: Sequence[str], most: int = 3) -> str:
    """Return the first few of many names, and the number of others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def assign_splits(
    entries: Sequence[Entry], holdout: Holdout, *, given: Literal["given", "missing"]
) -> tuple[list[Entry], list[str]]:
    """Return the entries with a split, and notes about it.

    Args:
        entries: Samples.
        holdout: Shares of the split that is made if the data has none.
        given: Whether the samples have a split of their own, which is used then.
    """
    if given == "missing":
        return hold_out(entries, holdout)
    default = Holdout()
    names = ("val_share", "test_share", "keep_together")
    if all(getattr(holdout, name) == getattr(default, name) for name in names):
        return list(entries), []
    return list(entries), ["the data has its own split: val_share, test_share and keep_together were not used"]


def hold_out(entries: Sequence[Entry], holdout: Holdout) -> tuple[list[Entry], list[str]]:
    """Return the entries with a split that is made, and notes about it."""
    together = holdout.keep_together
    split = list(entries)
    rest, share = split, holdout.val_share
    if holdout.test_share:
        split = split_by_group(
            split, share=holdout.test_share, seed=SPLIT_SEED, held_out="test", keep_together=together
        )
        rest, share = [entry for entry in split if entry.split == "train"], share / (1 - holdout.test_share)
    decided = iter(split_by_group(rest, share=share, seed=SPLIT_SEED, keep_together=together))
    split = [entry if entry.split == "test" else next(decided) for entry in split]

    counts = Counter(entry.split for entry in split)
    held = ("val", "test") if holdout.test_share else ("val",)
    kept = {"none": "", "auto": ", groups kept together"}.get(together, f", {together}s kept together")
    described = ", ".join(f"{counts[name]} {name}" for name in ("train", *held))
    notes = [f"the data has no split, so one was made: {described}{kept}"]
    classes = class_lists(split)
    for name in held:
        found = class_lists(entry for entry in split if entry.split == name)
        for head in classes:
            missing = sorted(set(classes[head]) - set(found.get(head, ())))
            if missing:
                notes.append(f"split {name} has no sample of {len(missing)} classes: {examples(missing)}")
    return split, notes


def single_modality_notes(entries: Sequence[Entry]) -> list[str]:
    """Return notes on samples that have only one modality, if others have both."""
    notes = []
    if any(entry.rgb for entry in entries) and any(entry.depth for entry in entries):
        for modality, other in (MODALITIES, MODALITIES[::-1]):
            alone = [entry.sample or entry.source(modality) for entry in entries if not entry.source(other)]
            if alone:
                notes.append(
                    f"{len(alone)} samples have {modality} but no {other}; their lines stay, with {other} empty: "
                    f"{examples(alone)}"
                )
    return notes


def write_prepared(
    entries: Sequence[Entry],
    out: Path,
    *,
    base: Path,
    dataset: str,
    version: str = "own",
    classes: Mapping[str, tuple[str, ...]] | None = None,
    depth: DepthFacts | None = None,
    declared: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
) -> Prepared:
    """Count the frames of every file and write the manifest.

    Args:
        entries: Samples; their paths are relative to `base`, absolute, or URLs.
        out: CSV to write.
        base: Folder of relative paths.
        dataset: Name of the dataset.
        version: Split or version of the dataset.
        classes: Class names of each task head; by default those that the entries use.
        depth: Meaning of 16-bit depth values.
        declared: Samples of each split in the whole dataset, if some are missing here.
        notes: Messages so far.

    Raises:
        ManifestError: No sample is left, a task head has fewer than two classes, a segment ends after its file, or
            `depth` is given without any depth file.
    """
    if not entries:
        raise ManifestError("; ".join([f"{out}: no sample is left to write", *notes]), path=out)
    lists = class_lists(entries) if classes is None else classes
    for head, names in lists.items():
        if len(names) < 2:
            raise ManifestError(
                f"{out}: {head!r} has one class, {names[0]!r}; expected at least two", path=out, field=head
            )
    if depth is not None and not any(entry.depth for entry in entries):
        raise ManifestError(f"{out}: a depth range is given, but no sample has depth", path=out, field="depth_range")

    out.parent.mkdir(parents=True, exist_ok=True)
    entries = [
        replace(entry, rgb=_relocate(entry.rgb, base, out), depth=_relocate(entry.depth, base, out))
        for entry in entries
    ]
    counts = _count(list(dict.fromkeys(locate(out, s) for e in entries for s in (e.rgb, e.depth) if s)))
    counted = [_with_frames(entry, out, counts) for entry in entries]
    manifest = write_manifest(
        out, entries=counted, classes=lists, dataset=dataset, version=version, depth=depth, declared=declared
    )
    wrong = sum(
        before.frames is not None and after.frames is not None and before.frames != after.frames
        for before, after in zip(entries, counted, strict=True)
    )
    said = list(notes)
    if wrong:
        said.append(f"{wrong} lines had a wrong number of frames; the number of decoded frames was written")
    said += _unequal_lengths(counted, out, counts)
    if depth is None:
        said += _missing_depth_range(counted, out, counts)
    for column in ("group", "subject"):
        names = tuple(divided_names(counted, column))
        if names:
            said.append(f"{len(names)} {column}s are in more than one split, e.g. {examples(names)}")
    for head, names in lists.items():
        pair = mirrored_pair(names)
        if pair is not None:
            said.append(
                f"{pair[0]!r} and {pair[1]!r} ({head}) are mirror images of each other: turn mirroring off for "
                "training, --data.augmentation.flip 0"
            )
    reasons = tuple(count for count in counts.values() if isinstance(count, str))
    return Prepared(manifest=manifest, unreadable=reasons, notes=tuple(said))


def _count(paths: Sequence[str]) -> dict[str, int | str]:
    """Return the number of frames of each file, or the reason why it cannot be read."""

    def count(path: str) -> int | str:
        try:
            return count_frames(path)
        except UnreadableVideo as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return dict(zip(paths, pool.map(count, paths), strict=True))


def _with_frames(entry: Entry, out: Path, counts: Mapping[str, int | str]) -> Entry:
    path = locate(out, entry.rgb or entry.depth)
    count = counts[path]
    try:
        return replace(entry, frames=count if isinstance(count, int) else None)
    except ValueError as error:  # the segment ends after the last frame
        raise ManifestError(f"{path}: {error}", path=path, line=entry.line or None, field="stop_frame") from error


def _unequal_lengths(entries: Sequence[Entry], out: Path, counts: Mapping[str, int | str]) -> list[str]:
    pairs = {
        (entry.rgb, entry.depth): (counts[locate(out, entry.rgb)], counts[locate(out, entry.depth)])
        for entry in entries
        if entry.rgb and entry.depth
    }
    unequal = [
        f"{rgb} has {frames} and {depth} {deep}"
        for (rgb, depth), (frames, deep) in pairs.items()
        if isinstance(frames, int) and isinstance(deep, int) and frames != deep
    ]
    if not unequal:
        return []
    return [
        f"{len(unequal)} pairs of RGB and depth differ in their number of frames; `frames` is that of RGB, and reading "
        f"after the end of the shorter file is an error: {examples(unequal, 10)}"
    ]


def _missing_depth_range(entries: Sequence[Entry], out: Path, counts: Mapping[str, int | str]) -> list[str]:
    """Return a note if 16-bit depth has no range, with the values of the first file."""
    for entry in entries:
        path = locate(out, entry.depth) if entry.depth else ""
        if path and isinstance(counts[path], int):
            try:
                frame = read_gray(path, [0])
            except UnreadableVideo as error:
                return [f"depth cannot be read: {error}"]
            if frame.dtype == np.uint8:
                return []
            there = frame[frame > 0]
            values = f"{there.min()} to {there.max()}" if there.size else "only 0"
            return [
                "16-bit depth needs --depth-range with the near and far end of the useful depths; the first frame of "
                f"{entry.depth} has values from {values}"
            ]
    return []


def _relocate(source: str, base: Path, out: Path) -> str:
    """Return a path relative to `base` as one relative to the manifest; URLs and empty paths stay."""
    if not source or "://" in source:
        return source
    return Path(os.path.relpath((base / source).resolve(), out.parent.resolve())).as_posix()

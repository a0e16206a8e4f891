"""What every layout has in common: a split where none is given, frames counted, the manifest written, a word on it."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kinema.data.manifest import Entry, Manifest, check_manifest_name, class_lists, locate, write_manifest
from kinema.data.splits import split_by_group, torn
from kinema.datasets.options import Holdout
from kinema.errors import ManifestError, UnreadableVideo
from kinema.modality import DepthFacts
from kinema.transforms.mirroring import mirrored_pair
from kinema.video.sources import count_frames, read_grey

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What folders call the splits, in small letters, and what a manifest calls them."""
SPLIT_SEED = 0
"""Of the split that is made where none is given; fixed, so that the same videos give the same manifest."""


HOLDOUT = Holdout()
"""The defaults."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A manifest that was written, and what a user should know about it.

    Args:
        unreadable: files that cannot be decoded, each with the reason; their lines stay, with `frames` empty.
        notes: what was decided, left out or found, a sentence each.
    """

    manifest: Manifest
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """Samples by split, classes, and how many files cannot be read, in one line."""
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
    """The first few of many names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def hold_out(entries: Sequence[Entry], holdout: Holdout) -> tuple[list[Entry], list[str]]:
    """The entries with a split that is made, and what to say about it."""
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

    there = Counter(entry.split for entry in split)
    held = f"{there['val']} val and {there['test']} test" if holdout.test_share else f"{there['val']} val"
    kept = {"none": "", "auto": ", groups kept together"}.get(together, f", {together}s kept together")
    comma = "," if holdout.test_share else " and"
    notes = [f"no split was given: {there['train']} samples are train{comma} {held}{kept}"]
    classes = class_lists(split)
    for name in ("val", "test") if holdout.test_share else ("val",):
        found = class_lists(entry for entry in split if entry.split == name)
        for head in classes:
            lacking = sorted(set(classes[head]) - set(found.get(head, ())))
            if lacking:
                notes.append(f"split {name} has no sample of {len(lacking)} classes: {examples(lacking)}")
    return split, notes


def not_held_out(holdout: Holdout) -> list[str]:
    """What to say of a split that is given, where another was asked for."""
    if (holdout.val_share, holdout.test_share, holdout.keep_together) == (0.2, 0.0, "auto"):
        return []
    return ["a split is given and stands: val_share, test_share and keep_together were not used"]


def check_target(out: Path, table: Path | None = None) -> None:
    """Refuse a manifest's name that is none, and one that would be written over the table it is made from."""
    check_manifest_name(out)
    if table is not None and table.resolve() in (out.resolve(), out.with_suffix(".json").resolve()):
        written = out if table.resolve() == out.resolve() else out.with_suffix(".json")
        raise ManifestError(
            f"{written}: is the table itself, and would be written over; give the manifest another name"
        )


def finish(
    entries: Sequence[Entry],
    out: Path,
    *,
    base: Path,
    corpus: str,
    version: str = "own",
    classes: Mapping[str, tuple[str, ...]] | None = None,
    depth: DepthFacts | None = None,
    declared: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
) -> Prepared:
    """Count the frames of every file, write the manifest, and say what a user should know.

    Args:
        entries: with paths relative to `base`, absolute, or URLs.
        classes: of each task head, where the corpus has a list; else those that the entries use.
        depth: what the numbers of 16-bit depth mean.
        declared: samples by split where the corpus says so, if not all of them are here.
        notes: what was said so far.

    Raises:
        ManifestError: there is no sample, or fewer than two classes, a segment ends behind its file, or there are facts
            of depth without depth.
    """
    if not entries:
        raise ManifestError("; ".join([f"{out}: no sample is left to write", *notes]))
    lists = class_lists(entries) if classes is None else classes
    for head, names in lists.items():
        if len(names) < 2:
            raise ManifestError(f"{out}: {head!r} has one class, {names[0]!r}; recognising needs at least two")
    if depth is not None and not any(entry.depth for entry in entries):
        raise ManifestError(f"{out}: a range of depth is given, but no sample has depth")

    out.parent.mkdir(parents=True, exist_ok=True)
    entries = [
        replace(entry, rgb=_moved(entry.rgb, base, out), depth=_moved(entry.depth, base, out)) for entry in entries
    ]
    counts = _count(list(dict.fromkeys(locate(out, s) for e in entries for s in (e.rgb, e.depth) if s)))
    counted = [_with_frames(entry, out, counts) for entry in entries]
    manifest = write_manifest(
        out, entries=counted, classes=lists, corpus=corpus, version=version, depth=depth, declared=declared
    )
    announced = sum(
        before.frames is not None and after.frames is not None and before.frames != after.frames
        for before, after in zip(entries, counted, strict=True)
    )
    said = list(notes)
    if announced:
        said.append(f"{announced} lines announced another number of frames than decodes; the latter stands")
    said += _unequal_lengths(counted, out, counts)
    if depth is None:
        said += _lacking_range(counted, out, counts)
    for column in ("group", "subject"):
        names = tuple(torn(counted, column))
        if names:
            said.append(f"{len(names)} {column}s are in more than one split, e.g. {examples(names)}")
    for head, names in lists.items():
        pair = mirrored_pair(names)
        if pair is not None:
            said.append(
                f"{pair[0]!r} and {pair[1]!r} ({head}) become each other in a mirror: leave mirroring off when you "
                "train, --data.augmentation.flip 0"
            )
    reasons = tuple(count for count in counts.values() if isinstance(count, str))
    return Prepared(manifest=manifest, unreadable=reasons, notes=tuple(said))


def _count(paths: Sequence[str]) -> dict[str, int | str]:
    """Frames of each file, or the reason why it cannot be read."""

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
    except ValueError as error:  # the segment ends behind the last frame
        raise ManifestError(f"{path}: {error}") from error


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
        f"behind the end of the shorter one is an error: {examples(unequal, 10)}"
    ]


def _lacking_range(entries: Sequence[Entry], out: Path, counts: Mapping[str, int | str]) -> list[str]:
    """Depth of 16 bits cannot be read without its range; the first file's values help to choose it."""
    for entry in entries:
        path = locate(out, entry.depth) if entry.depth else ""
        if path and isinstance(counts[path], int):
            try:
                frame = read_grey(path, [0])
            except UnreadableVideo as error:
                return [f"depth is not what it should be: {error}"]
            if frame.dtype == np.uint8:
                return []
            there = frame[frame > 0]
            values = f"{there.min()} to {there.max()}" if there.size else "nothing but 0"
            return [
                "depth is of 16 bits and cannot be read until --depth-range says its near and far end; the first "
                f"frame of {entry.depth} holds {values}"
            ]
    return []


def _moved(source: str, base: Path, out: Path) -> str:
    """A path relative to `base` as the manifest says it; URLs and nothing stay."""
    if not source or "://" in source:
        return source
    return Path(os.path.relpath((base / source).resolve(), out.parent.resolve())).as_posix()

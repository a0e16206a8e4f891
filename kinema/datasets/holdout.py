"""Split of data that has none of its own: a share of each class is held out, and groups stay together."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from kinema.data.copies import group_copies
from kinema.data.manifest import Entry, class_lists, locate
from kinema.data.splits import SHARED_RECORDINGS, group_names, split_by_group
from kinema.datasets.cells import unite_spellings
from kinema.datasets.options import Holdout, OwnDataOptions
from kinema.datasets.prepared import exclude_files
from kinema.datasets.source_groups import add_source_groups, name_groups
from kinema.errors import examples
from kinema.modality import Modality, ReadAs

SPLIT_SEED = 0
"""Seed of random splits; fixed, so that the same videos give the same manifest."""
MIN_GROUPS = 5
"""Number of groups that every class needs for a test split by default: three for train, one for val, one for test."""
MAX_DEFAULT_SHARE = 1 / 3
"""Largest share of val that test has too by default."""
HOLDOUT = ("val_share", "test_share", "keep_together")


class Assigned(NamedTuple):
    """Samples with their split, the number of those split at random without knowing their recording, and notes."""

    entries: list[Entry]
    ungrouped: int
    notes: list[str]


def assign_splits(entries: Sequence[Entry], options: OwnDataOptions, *, base: Path, has_split: bool) -> Assigned:
    """Return the entries with their own split, or a random one if they have none.

    Without groups and subjects of the user, groups are found in the names and near-duplicates join the groups.

    Args:
        entries: Samples.
        options: Sizes of random splits, and the column that stays together.
        base: Folder of relative paths.
        has_split: Whether the samples have their own split.

    Raises:
        ManifestError: No file matches `group`, or no listed file of `exclude` is a sample.
    """
    entries, notes = exclude_files(entries, options, base)
    holdout: Holdout = options
    if options.group:
        entries, group_notes = name_groups(entries, options.group)
        notes += group_notes
    elif holdout.keep_together in ("auto", "group") and not any(entry.group or entry.subject for entry in entries):
        entries, group_notes = add_source_groups(entries, has_split=has_split)
        notes += group_notes
        if not has_split:
            entries, copy_notes = _join_copies(entries, base, options)
            notes += copy_notes
    entries, spelling_notes = unite_spellings(entries)
    notes += spelling_notes
    ungrouped = 0
    if not has_split:
        entries, ungrouped, split_notes = hold_out(entries, holdout)
        notes += split_notes
    elif any(getattr(holdout, name) != getattr(Holdout(), name) for name in HOLDOUT):
        notes.append("the data has its own split: val_share, test_share and keep_together were not used")
    return Assigned(list(entries), ungrouped, [*notes, *class_notes(entries)])


def _join_copies(entries: Sequence[Entry], base: Path, options: OwnDataOptions) -> tuple[list[Entry], list[str]]:
    """Return the entries with near-duplicates in one group, unless every class would be left with a single group."""
    kind: Modality = "rgb" if any(entry.rgb for entry in entries) else "depth"
    located = {entry.source(kind): locate(base / "manifest.csv", entry.source(kind)) for entry in entries}
    located.pop("", None)
    sources = {path: source for source, path in located.items()}
    read_as: ReadAs = "rgb" if kind == "rgb" else options.depth_encoding or "depth"
    copies = [[sources[path] for path in group] for group in group_copies(options.out, sources, read_as)]
    groups = {entry.source(kind): entry.group or entry.source(kind) for entry in entries}
    for files in copies:
        joined = {groups[file] for file in files}
        groups |= {file: min(joined) for file, group in groups.items() if group in joined}
    classes: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for entry in entries:
        classes[tuple(entry.labels.values())].append(groups[entry.source(kind)])
    if not copies or all(len(set(names)) == 1 for names in classes.values()):
        return list(entries), []
    shared = Counter(groups.values())
    joined_entries = [
        replace(entry, group=groups[entry.source(kind)]) if shared[groups[entry.source(kind)]] > 1 else entry
        for entry in entries
    ]
    names = [f"{files[0]} and {files[1]}" for files in copies]
    return joined_entries, [
        f"{sum(map(len, copies))} files are near-duplicates and are kept together: {examples(names)}"
    ]


def hold_out(entries: Sequence[Entry], holdout: Holdout) -> Assigned:
    """Return the entries with validation and test samples held out at random, and a note about the split."""
    together, val_share = holdout.keep_together, holdout.val_share
    names = group_names(entries, together)
    test_share, reason = holdout.test_share, ""
    if test_share is None:
        reason = _lack_of_groups(entries, names, val_share)
        test_share = 0.0 if reason else val_share
    split, rest, share = list(entries), list(entries), val_share
    if test_share:
        split = split_by_group(split, share=test_share, seed=SPLIT_SEED, held_out="test", keep_together=together)
        rest, share = [entry for entry in split if entry.split == "train"], share / (1 - test_share)
    decided = iter(split_by_group(rest, share=share, seed=SPLIT_SEED, keep_together=together))
    split = [entry if entry.split == "test" else next(decided) for entry in split]

    counts = Counter(entry.split for entry in split)
    sizes = ", ".join(f"{counts[name]} {name}" for name in ("train", "val", *(("test",) if test_share else ())))
    notes = [f"the data has no split, so one was made: {sizes}{reason}"]
    files = Counter(entry.rgb or entry.depth for entry in entries)
    # Several segments of one file are a recording, too.
    known = [
        name
        for name, entry in zip(names, entries, strict=True)
        if together not in ("auto", "none")
        or (together == "auto" and (entry.group or entry.subject or files[entry.rgb or entry.depth] > 1))
    ]
    if known:
        column = "group" if together == "auto" else together
        notes[0] += f", {column}s kept together ({len(set(known))} {column}s, {len(known)} samples)"
    ungrouped = len(entries) - len(known)
    if ungrouped:
        which = f"{ungrouped} of {len(entries)} samples have no known group" if known else "no groups are known"
        how = "Name files by recording, or pass --group, e.g. --group '{group}_{clip:d}'"
        notes.append(f"{which}: {SHARED_RECORDINGS}. {how}")
    return Assigned(split, ungrouped, ["; ".join(notes)])


def _lack_of_groups(entries: Sequence[Entry], names: Sequence[str], val_share: float) -> str:
    """Return why no test split is made by default; empty if every class has enough groups."""
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name, entry in zip(names, entries, strict=True):
        for head_and_label in entry.labels.items():
            groups[head_and_label].add(name)
    (_, label), found = min(groups.items(), key=lambda item: len(item[1]))
    if val_share > MAX_DEFAULT_SHARE:
        return " (no test without --test-share)"
    if len(found) < MIN_GROUPS:
        return f" (no test: class {label!r} has {len(found)} of {MIN_GROUPS} groups; --test-share makes one)"
    return ""


def class_notes(entries: Sequence[Entry]) -> list[str]:
    """Return a note on each split that lacks classes, or on the lack of any split to evaluate on."""
    notes = []
    classes = class_lists(entries)
    splits = {entry.split for entry in entries}
    if splits == {"train"}:
        notes.append("all samples are in train, none is left to evaluate on")
    for split in sorted(splits):
        used = class_lists(entry for entry in entries if entry.split == split)
        for head, names in classes.items():
            missing = sorted(set(names) - set(used.get(head, ())))
            if missing:
                notes.append(f"split {split} has no sample of {len(missing)} classes: {examples(missing)}")
    return notes

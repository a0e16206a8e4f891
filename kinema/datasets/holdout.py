"""Split of data that has none of its own: a share of each class is held out, and groups stay together."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kinema.data.copies import group_copies
from kinema.data.manifest import Entry, class_lists, locate
from kinema.data.splits import split_by_group
from kinema.datasets.options import Holdout, OwnDataOptions
from kinema.datasets.source_groups import add_source_groups
from kinema.errors import examples
from kinema.modality import Modality, ReadAs

SPLIT_SEED = 0
"""Seed of random splits; fixed, so that the same videos give the same manifest."""


def assign_splits(
    entries: Sequence[Entry], options: OwnDataOptions, *, base: Path, has_split: bool
) -> tuple[list[Entry], list[str]]:
    """Return the entries with their own split, or a random one if they have none, and notes about it.

    Without groups and subjects of the user, groups are found in the names and near-duplicates join the groups.

    Args:
        entries: Samples.
        options: Sizes of random splits, and the column that stays together.
        base: Folder of relative paths.
        has_split: Whether the samples have their own split.
    """
    notes: list[str] = []
    holdout: Holdout = options
    is_ungrouped = not any(entry.group or entry.subject for entry in entries)
    if holdout.keep_together in ("auto", "group") and is_ungrouped:
        entries, notes = add_source_groups(entries, has_split=has_split)
        if not has_split:
            entries, copy_notes = _join_copies(entries, base, options)
            notes += copy_notes
    if not has_split:
        split, split_notes = hold_out(entries, holdout)
        return split, [*notes, *split_notes]
    names = ("val_share", "test_share", "keep_together")
    if all(getattr(holdout, name) == getattr(Holdout(), name) for name in names):
        return list(entries), notes
    return list(entries), [*notes, "the data has its own split: val_share, test_share and keep_together were not used"]


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


def hold_out(entries: Sequence[Entry], holdout: Holdout) -> tuple[list[Entry], list[str]]:
    """Return the entries with validation and test samples held out at random, and notes about the split."""
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
    groups = {"none": "", "auto": ", groups kept together"}.get(together, f", {together}s kept together")
    sizes = ", ".join(f"{counts[name]} {name}" for name in ("train", *held))
    notes = [f"the data has no split, so one was made: {sizes}{groups}"]
    for name in held:
        used = class_lists(entry for entry in split if entry.split == name)
        for head, names in class_lists(split).items():
            missing = sorted(set(names) - set(used.get(head, ())))
            if missing:
                notes.append(f"split {name} has no sample of {len(missing)} classes: {examples(missing)}")
    return split, notes

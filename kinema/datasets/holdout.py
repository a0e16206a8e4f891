"""Split of data that has none of its own: a share of each class is held out, and groups stay together."""

from collections import Counter
from collections.abc import Sequence

from kinema.data.manifest import Entry, class_lists
from kinema.data.splits import split_by_group
from kinema.datasets.options import Holdout
from kinema.datasets.source_groups import add_source_groups
from kinema.errors import examples

SPLIT_SEED = 0
"""Seed of random splits; fixed, so that the same videos give the same manifest."""


def assign_splits(entries: Sequence[Entry], holdout: Holdout, *, has_split: bool) -> tuple[list[Entry], list[str]]:
    """Return the entries with their own split, or a random one if they have none, and notes about it."""
    notes: list[str] = []
    if holdout.keep_together in ("auto", "group"):
        entries, notes = add_source_groups(entries, has_split=has_split)
    if not has_split:
        split, split_notes = hold_out(entries, holdout)
        return split, [*notes, *split_notes]
    names = ("val_share", "test_share", "keep_together")
    if all(getattr(holdout, name) == getattr(Holdout(), name) for name in names):
        return list(entries), notes
    return list(entries), [*notes, "the data has its own split: val_share, test_share and keep_together were not used"]


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

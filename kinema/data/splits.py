"""Splits that never divide a group, subject or camera."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from kinema.data.manifest import Entry, Manifest
from kinema.data.names import spelling_key
from kinema.errors import ManifestError, examples

KeepTogether = Literal["auto", "group", "subject", "camera", "none"]
"""Column whose samples a split never divides. `auto` uses the group, else the subject, else the file; `none` uses the
file."""
SHARED_RECORDINGS = "clips of one recording may be in both splits"
"""Caveat of an accuracy on a random split of samples whose recordings are unknown."""


def split_by_group(
    entries: Sequence[Entry], *, share: float, seed: int, held_out: str = "val", keep_together: KeepTogether = "auto"
) -> list[Entry]:
    """Return the entries with about `share` of each class in split `held_out` and the others in `train`.

    If every group of a class is larger than its share, the smallest group that `train` can spare is held out. The same
    entries and seed give the same split in any order.

    Args:
        entries: Samples.
        share: Share of each class to hold out.
        seed: Seed of the order in which groups are tried.
        held_out: Name of the split.
        keep_together: Samples that are never divided.

    Raises:
        ManifestError: A sample has no value in the column `keep_together`.
    """
    names = group_names(entries, keep_together)
    groups: dict[str, Counter[tuple[str, str]]] = {}
    for name, entry in zip(names, entries, strict=True):
        groups.setdefault(name, Counter()).update(entry.labels.items())
    total: Counter[tuple[str, str]] = Counter(key for entry in entries for key in entry.labels.items())
    room = {key: max(1, round(share * count)) if count > 1 else 0 for key, count in total.items()}
    order = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    held: set[str] = set()
    taken: Counter[tuple[str, str]] = Counter()
    for name in order:
        if all(taken[key] + count <= room[key] for key, count in groups[name].items()):
            held.add(name)
            taken += groups[name]
    for name in sorted(order, key=lambda name: groups[name].total()):
        needed = any(taken[key] == 0 for key in groups[name])
        if needed and all(taken[key] + count < total[key] for key, count in groups[name].items()):
            held.add(name)
            taken += groups[name]
    return [
        replace(entry, split=held_out if name in held else "train") for name, entry in zip(names, entries, strict=True)
    ]


def held_out_split(manifest: Manifest, preferred: str, *, train: str = "train") -> str:
    """Return the split to evaluate on: `preferred`, or the other one of `val` and `test` if the manifest has only that.

    `train` is the split of the training, which is never returned in place of another.
    """
    others = [split for split in ("val", "test") if split in manifest.splits and split != train]
    is_usual = preferred in ("val", "test") and preferred not in manifest.splits
    return others[0] if is_usual and others else preferred


def split_caveat(manifest: Manifest, split: str) -> str:
    """Return why an accuracy on a split of own data may be optimistic, to print beside it; empty without a reason."""
    if split == "train" or not manifest.is_own:
        return ""
    if manifest.ungrouped:
        return f"{SHARED_RECORDINGS}: no group is known for {manifest.ungrouped} of {len(manifest.entries)} samples"
    compared = [entry for entry in manifest.entries if entry.split in ("train", split)]
    divided = divided_names(compared, "group")
    return f"clips of {len(divided)} groups are in both train and {split} ({examples(divided)})" if divided else ""


def join_caveats(*caveats: str) -> str:
    """Return several reasons as one, without the empty ones."""
    return "; ".join(filter(None, caveats))


def divided_names(entries: Iterable[Entry], column: Literal["group", "subject"]) -> list[str]:
    """Return the names of groups or subjects that are in more than one split, in alphabetical order.

    Spellings of one name are the same.
    """
    by_name: dict[str, set[str]] = {}
    for entry in entries:
        name: str = getattr(entry, column)
        if name and entry.split:
            by_name.setdefault(name, set()).add(entry.split)
    splits: dict[str, set[str]] = {}
    first: dict[str, str] = {}
    for name, found in by_name.items():
        key = spelling_key(name)
        first.setdefault(key, name)
        splits.setdefault(key, set()).update(found)
    return sorted(first[key] for key, values in splits.items() if len(values) > 1)


def label_conflicts(
    entries: Iterable[Entry], same: Mapping[str, str] = MappingProxyType({})
) -> list[tuple[Entry, Entry]]:
    """Return the pairs of samples that show the same frames and have different labels.

    Args:
        entries: Samples.
        same: Another name of a file, for files with the same content.
    """
    first: dict[tuple[object, ...], Entry] = {}
    conflicts = []
    for entry in entries:
        span = (entry.rgb_box, entry.start_s, entry.stop_s, entry.start_frame, entry.stop_frame)
        file = entry.rgb or entry.depth
        other = first.setdefault((same.get(file, file), span), entry)
        if other.labels and entry.labels and other.labels != entry.labels:
            conflicts.append((other, entry))
    return conflicts


def have_common_frames(first: Entry, second: Entry) -> bool:
    """Return whether two samples of one file share frames; True if one is cut by seconds and the other by frames."""
    spans = [(entry.start_s, entry.stop_s, entry.start_frame, entry.stop_frame) for entry in (first, second)]
    (a_s, b_s, a_frame, b_frame), (c_s, d_s, c_frame, d_frame) = spans
    if a_s is not None and b_s is not None and c_s is not None and d_s is not None:
        return a_s < d_s and c_s < b_s
    if a_frame is not None and b_frame is not None and c_frame is not None and d_frame is not None:
        return a_frame < d_frame and c_frame < b_frame
    return True


def group_names(entries: Sequence[Entry], keep_together: KeepTogether) -> list[str]:
    """Return the name of what a split never divides, for each sample: a group, subject or camera, or its file.

    Raises:
        ManifestError: A sample has no value in the column `keep_together`.
    """
    if keep_together == "auto":
        return [entry.group or entry.subject or entry.rgb or entry.depth for entry in entries]
    if keep_together == "none":
        return [entry.rgb or entry.depth for entry in entries]
    names: list[str] = [getattr(entry, keep_together) for entry in entries]
    if not all(names):
        first = entries[names.index("")]
        raise ManifestError(
            f"keep_together={keep_together}: {names.count('')} of {len(names)} samples have no {keep_together}, e.g. "
            f"{first.rgb or first.depth}. Fill the column {keep_together} or choose another keep_together.",
            path=first.rgb or first.depth,
            line=first.line or None,
            field=keep_together,
        )
    return names

"""A split that keeps together what is alike: groups, subjects or cameras."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from kinema.data.manifest import Entry
from kinema.errors import ManifestError

KeepTogether = Literal["auto", "group", "subject", "camera", "none"]
"""What a split that is made never tears apart: all samples of a group, subject or camera; `auto` is a sample's group,
else its subject, else the sample's file alone; `none` is always only the file."""


def split_by_group(
    entries: Sequence[Entry], *, share: float, seed: int, held_out: str = "val", keep_together: KeepTogether = "auto"
) -> list[Entry]:
    """Name about `share` of each class `held_out` and the rest `train`; what is kept together is never torn apart.

    Where every group of a class is larger than its share, the smallest that `train` can spare is held out. The same
    entries and seed give the same split, in whatever order they come.

    Raises:
        ManifestError: groups, subjects or cameras are to be kept together, but a sample does not say its own.
    """
    names = _groups(entries, keep_together)
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
        lacking = any(taken[key] == 0 for key in groups[name])
        if lacking and all(taken[key] + count < total[key] for key, count in groups[name].items()):
            held.add(name)
            taken += groups[name]
    return [
        replace(entry, split=held_out if name in held else "train") for name, entry in zip(names, entries, strict=True)
    ]


def torn(entries: Iterable[Entry], column: Literal["group", "subject"]) -> list[str]:
    """Names of the groups or subjects that are in more than one split, in alphabetical order."""
    splits: dict[str, set[str]] = {}
    for entry in entries:
        if getattr(entry, column) and entry.split:
            splits.setdefault(getattr(entry, column), set()).add(entry.split)
    return sorted(name for name, found in splits.items() if len(found) > 1)


def _groups(entries: Sequence[Entry], keep_together: KeepTogether) -> list[str]:
    if keep_together == "auto":
        return [entry.group or entry.subject or entry.rgb or entry.depth for entry in entries]
    if keep_together == "none":
        return [entry.rgb or entry.depth for entry in entries]
    names: list[str] = [getattr(entry, keep_together) for entry in entries]
    if not all(names):
        lacking = entries[names.index("")]
        raise ManifestError(
            f"{keep_together}s are to be kept together, but {names.count('')} of {len(names)} samples have no "
            f"{keep_together}, e.g. {lacking.rgb or lacking.depth}; give it to all, or keep something else together"
        )
    return names

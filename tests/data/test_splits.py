"""Splits never divide a group, subject or camera."""

from collections import Counter

import numpy as np
import pytest

from kinema.data.manifest import Entry
from kinema.data.splits import divided_names, split_by_group
from kinema.errors import ManifestError


def random_entries(rng, *, samples, groups, classes):
    """Return entries whose groups span classes, like people who perform every action."""
    return [
        Entry(
            rgb=f"{i}.mp4",
            group=f"g{rng.integers(groups)}" if groups else "",
            labels={"label": f"c{rng.integers(classes)}"},
        )
        for i in range(samples)
    ]


def splits(entries):
    return {entry.rgb: entry.split for entry in entries}


@pytest.mark.parametrize("groups", [0, 2, 4, 10, 40])
def test_what_shares_a_group_is_never_torn_apart(groups):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        entries = split_by_group(random_entries(rng, samples=80, groups=groups, classes=4), share=0.25, seed=seed)
        assert {entry.split for entry in entries} == {"train", "val"}
        sides = {}
        for entry in entries:
            if entry.group:
                assert sides.setdefault(entry.group, entry.split) == entry.split


def test_a_split_depends_on_the_samples_and_the_seed_and_not_on_their_order():
    rng = np.random.default_rng(0)
    entries = random_entries(rng, samples=60, groups=15, classes=3)
    first = splits(split_by_group(entries, share=0.25, seed=0))
    shuffled = [entries[i] for i in rng.permutation(len(entries))]
    assert splits(split_by_group(shuffled, share=0.25, seed=0)) == first
    assert splits(split_by_group(entries, share=0.25, seed=1)) != first
    assert [entry.rgb for entry in split_by_group(shuffled, share=0.25, seed=0)] == [entry.rgb for entry in shuffled]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_about_the_share_of_each_class_is_held_out(share):
    entries = [Entry(rgb=f"{i}.mp4", labels={"label": f"c{i % 4}"}) for i in range(200)]
    held = Counter(e.labels["label"] for e in split_by_group(entries, share=share, seed=3) if e.split == "val")
    assert held == {f"c{c}": round(50 * share) for c in range(4)}


def test_groups_keep_the_share_from_growing():
    for seed in range(20):
        entries = random_entries(np.random.default_rng(seed), samples=300, groups=100, classes=4)
        out = split_by_group(entries, share=0.2, seed=0)
        for name in ("c0", "c1", "c2", "c3"):
            sides = Counter(entry.split for entry in out if entry.labels["label"] == name)
            assert 0.1 < sides["val"] / sides.total() <= 0.21


@pytest.mark.parametrize(("samples", "held"), [(1, 0), (2, 1), (3, 1), (5, 1), (10, 2)])
def test_a_class_that_has_two_samples_has_one_held_out(samples, held):
    entries = [Entry(rgb=f"{i}.mp4", labels={"label": "a"}) for i in range(samples)]
    assert sum(entry.split == "val" for entry in split_by_group(entries, share=0.2, seed=0)) == held


@pytest.mark.parametrize("people", [2, 3, 4])
def test_a_class_has_a_held_out_sample_also_where_its_groups_are_larger_than_the_share(people):
    """Four people who perform everything: one of them is a quarter, more than the fifth that is requested."""
    entries = [
        Entry(rgb=f"{person}{label}{take}.mp4", subject=f"s{person}", labels={"label": label})
        for person in range(people)
        for label in "abc"
        for take in range(5)
    ]
    out = split_by_group(entries, share=0.2, seed=0)
    assert len({entry.subject for entry in out if entry.split == "val"}) == 1
    assert {entry.labels["label"] for entry in out if entry.split == "val"} == set("abc")


def test_no_class_loses_all_its_training_samples():
    for seed in range(30):
        entries = random_entries(np.random.default_rng(seed), samples=30, groups=4, classes=3)
        out = split_by_group(entries, share=0.2, seed=seed)
        there = {entry.labels["label"] for entry in out}
        assert {entry.labels["label"] for entry in out if entry.split == "train"} == there


def test_the_shares_hold_for_every_task_head():
    entries = [Entry(rgb=f"{i}.mp4", labels={"verb": f"v{i % 2}", "noun": f"n{i % 5}"}) for i in range(100)]
    out = split_by_group(entries, share=0.2, seed=0, held_out="test")
    held = [entry.labels for entry in out if entry.split == "test"]
    assert {label["noun"] for label in held} == {f"n{k}" for k in range(5)}
    assert all(0 < count <= 10 for count in Counter(label["verb"] for label in held).values())


@pytest.mark.parametrize("column", ["group", "subject", "camera"])
def test_what_is_chosen_is_kept_together_whatever_else_is_torn(column):
    rng = np.random.default_rng(0)
    entries = [
        Entry(
            rgb=f"{i}.mp4",
            labels={"label": f"c{i % 2}"},
            **{name: f"{rng.integers(8)}" for name in ("group", "subject", "camera")},
        )
        for i in range(60)
    ]
    out = split_by_group(entries, share=0.25, seed=0, keep_together=column)
    sides = {name: {} for name in ("group", "subject", "camera")}
    for entry in out:
        for name, found in sides.items():
            found.setdefault(getattr(entry, name), set()).add(entry.split)
    whole = {name for name, found in sides.items() if all(len(splits) == 1 for splits in found.values())}
    assert whole == {column}


def test_the_segments_of_a_file_stay_together_where_nothing_else_does():
    entries = [
        Entry(rgb=f"{i % 10}.mp4", group="g", start_frame=i, stop_frame=i + 1, labels={"label": "a"}) for i in range(60)
    ]
    sides = {}
    for entry in split_by_group(entries, share=0.2, seed=0, keep_together="none"):
        sides.setdefault(entry.rgb, set()).add(entry.split)
    assert all(len(found) == 1 for found in sides.values())
    assert {split for found in sides.values() for split in found} == {"train", "val"}
    assert {entry.split for entry in split_by_group(entries, share=0.2, seed=0)} == {"train"}


def test_a_sample_without_the_column_to_keep_together_is_named(raises):
    entries = [Entry(rgb=f"{i}.mp4", subject="s" if i else "", labels={"label": "a"}) for i in range(3)]
    with raises(ManifestError, "1 of 3", path="0.mp4", field="subject"):
        split_by_group(entries, share=0.2, seed=0, keep_together="subject")


def test_a_group_in_two_splits_is_torn_and_one_without_a_split_is_not():
    entries = [
        Entry(rgb="1.mp4", group="b", subject="s", split="train"),
        Entry(rgb="2.mp4", group="b", subject="s", split="val"),
        Entry(rgb="3.mp4", group="a", subject="t", split="val"),
        Entry(rgb="4.mp4", group="a", split="test"),
        Entry(rgb="5.mp4", group="c", split="test"),
        Entry(rgb="6.mp4", group="c"),
        Entry(rgb="7.mp4", split="train"),
    ]
    assert divided_names(entries, "group") == ["a", "b"]
    assert divided_names(entries, "subject") == ["s"]

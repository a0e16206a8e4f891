"""Class names that mirroring exchanges, and similar ones that it does not."""

import pytest

from kinema.data.manifest import BUILT_IN, load_manifest
from kinema.transforms.mirroring import mirrored_pair

MIRRORED = [
    ("swipe left", "swipe right"),
    ("SwipeLeft", "SwipeRight"),
    ("swipe_LEFT", "Swipe-right"),
    ("left", "right"),
    ("move 2 left", "move 2 right"),
    ("left to right", "right to left"),
    ("turn_clockwise", "turn_counterclockwise"),
    ("Turn Clockwise", "Turn Anti-Clockwise"),
    ("turnAnticlockwise", "turnClockwise"),
    ("CounterClockwise", "Clockwise"),
    ("push HDLeft", "push HDRight"),
    ("schlag_left_ä", "schlag_right_ä"),
]


@pytest.mark.parametrize("pair", MIRRORED, ids=str)
def test_names_that_a_mirror_exchanges_are_a_pair(pair):
    assert mirrored_pair(["wave", *pair]) == pair
    assert mirrored_pair([pair[1], "wave", pair[0]]) == pair[::-1]


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("wave", "run"),
        ("swipe left", "swipe up"),
        ("swipe left", "push right"),
        ("leftover", "rightover"),
        ("swiftleft", "swiftright"),
        ("move 1 left", "move 2 right"),
        ("left hand to right", "left hand to left"),
        ("counter attack", "attack"),
        ("left", "Left"),
        ("clockwise", "clock wise"),
    ],
    ids=str,
)
def test_names_that_only_look_so_are_no_pair(names):
    assert mirrored_pair(names) is None


@pytest.mark.parametrize("name", BUILT_IN)
def test_nothing_in_the_built_in_sets_is_mirrored(name):
    assert mirrored_pair(load_manifest(name).classes["label"]) is None

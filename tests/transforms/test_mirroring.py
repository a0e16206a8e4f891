"""Class names that mirroring exchanges, and similar ones that it does not."""

import pytest

from kinema.data.manifest import BUILT_IN, load_manifest
from kinema.transforms.mirroring import mirrored_pair, questionable_pairs

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

OTHER_NAMES = [
    ("swipe_l", "swipe_r"),
    ("wave L", "wave R"),
    ("SwipeL", "SwipeR"),
    ("swipe lt", "swipe rt"),
    ("kick_lhs", "kick_rhs"),
    ("turn_cw", "turn_ccw"),
    ("turn-counter-clock-wise", "turn-clock-wise"),
    ("leftward", "rightwards"),
    ("left-handed", "right-handed"),
    ("wisch_links", "wisch_rechts"),
    ("main gauche", "main droite"),
    ("pied gauche", "pied droit"),
    ("mano_izq", "mano_der"),
    ("giro antihorario", "giro horario"),
    ("mano sinistra", "mano destra"),
    ("para esquerda", "para direita"),
    ("vänster", "höger"),
    ("sağa_dön", "sola_dön"),
    ("влево", "вправо"),
    ("рука_левая", "рука_правая"),
    ("向左", "向右"),
    ("左手挥动", "右手挥动"),
    ("顺时针旋转", "逆时针旋转"),
    ("時計回り", "反時計回り"),
    ("왼쪽으로", "오른쪽으로"),
    ("حركة لليسار", "حركة لليمين"),
    ("שמאלה", "ימינה"),
    ("ซ้าย", "ขวา"),
    ("बाएँ मुड़ें", "दाएँ मुड़ें"),
    ("swipe ←", "swipe →"),
    ("wave ⬅️", "wave ➡️"),
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


@pytest.mark.parametrize("pair", OTHER_NAMES, ids=ascii)
def test_other_languages_and_short_forms_are_a_pair(pair):
    assert mirrored_pair(["wave", *pair]) == pair


@pytest.mark.parametrize(
    "pair",
    [
        ("tilt_xora", "tilt_xore"),
        ("swiftleft", "swiftright"),
        ("turn left", "turn rigth"),
        ("rotate 90", "rotate -90"),
        ("kickl", "kickr"),
        ("gesture g", "gesture d"),
        ("walk east", "walk west"),
    ],
    ids=str,
)
def test_names_that_differ_in_an_unknown_word_are_asked_about(pair):
    assert mirrored_pair(pair) is None
    assert questionable_pairs(["wave", *pair]) == [pair]


@pytest.mark.parametrize(
    "pair",
    [
        ("open door", "close door"),
        ("cut apple", "cut bread"),
        ("ride_bike", "ride_horse"),
        ("HandstandPushups", "HandstandWalking"),
        ("gesture_a", "gesture_b"),
        ("type 1", "type 2"),
        ("getup_facedown", "getup_faceup"),
        ("walk", "trot"),
        ("kick", "kicks"),
    ],
    ids=str,
)
def test_known_words_are_not_asked_about(pair):
    assert questionable_pairs(pair) == []


def test_many_unknown_words_at_one_place_are_objects():
    names = [f"lift {a}{b}qo" for a in "bdfg" for b in "aeiou"]
    assert len(questionable_pairs(names[:4])) == 6
    assert questionable_pairs(names) == []

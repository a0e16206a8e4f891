"""Class names that mirroring exchanges, such as `push left` and `push right`, and names that it may exchange."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path

WORDS = (
    ("left l lt lft", "right r rt rgt rght"),
    ("leftward leftwards", "rightward rightwards"),
    ("lefthand lefthanded lh", "righthand righthanded rh"),
    ("leftmost", "rightmost"),
    ("leftside lefthandside lhs", "rightside righthandside rhs"),
    ("lr ltr", "rl rtl"),
    ("counterclockwise ccw acw", "clockwise cw"),
    ("antihoraire antihorario antiorario", "horaire horario orario"),
    ("links linke linker linken linkes linksherum", "rechts rechte rechter rechten rechtes rechtsherum"),  # de, nl
    ("linkerhand linkerarm linkerbeen linksaf linksom", "rechterhand rechterarm rechterbeen rechtsaf rechtsom"),
    ("gauche gauches", "droite droit droites droits"),  # fr
    ("izquierda izquierdo izquierdas izquierdos izq", "derecha derecho derechas derechos der"),  # es
    ("sinistra sinistro sinistre sinistri sx", "destra destro destre destri dx"),  # it
    ("esquerda esquerdo esquerdas esquerdos esq", "direita direito direitas direitos dir"),  # pt
    ("esquerra esquerre", "dreta dret"),  # ca
    ("stanga stangul", "dreapta dreptul"),  # ro
    ("vanster vanstra", "hoger hogra"),  # sv
    ("venstre", "højre hojre høyre hoyre"),  # da, no
    ("vasen vasemmalle vasemmalla vasemman", "oikea oikealle oikealla oikean"),  # fi
    ("lewo lewa lewy lewe lewej", "prawo prawa prawy prawe prawej"),  # pl
    ("vlevo doleva leva levy leve levou", "vpravo doprava prava pravy prave pravou"),  # cs
    ("vlavo dolava lava lavy", "vpravo doprava prava pravy"),  # sk
    ("lijevo lijeva lijevi levo leva levi ulevo ulijevo", "desno desna desni udesno"),  # hr, sr, sl
    ("bal balra balrol", "jobb jobbra jobbrol"),  # hu
    ("sol sola soldan", "sag saga sagdan"),  # tr
    ("trai", "phai"),  # vi
    ("kiri", "kanan"),  # id, ms
    ("kushoto", "kulia"),  # sw
    ("hidari", "migi"),  # ja
    ("zuo", "you"),  # zh
    ("vlevo levo nalevo sleva", "vpravo pravo napravo sprava"),  # ru
    ("port larboard sinister", "starboard dexter"),
)
"""Words of the left and of the right, without accents. Forms in one row are interchangeable."""
PARTS = (
    ("左", "右"),
    ("逆时针 逆時針 反时针 反時針 反時計 反时计 逆時計 逆时计", "顺时针 順時針 正时针 正時針 時計 时计"),
    ("왼 좌측", "오른 우측"),
    ("ひだり ヒダリ", "みぎ ミギ"),
    ("بائیں", "دائیں"),
    ("반시계", "시계"),
    ("лев лів ляв ліворуч", "прав праворуч дясн"),
    ("αριστερ", "δεξι"),
    ("يسار يسر", "يمين يمن"),
    ("چپ", "راست"),
    ("שמאל", "ימין ימינ"),
    ("ซ้าย", "ขวา"),
    ("बाए बाया बायी बाई", "दाए दाया दायी दाई"),
    ("இடது", "வலது"),
    ("বাম", "ডান"),
    ("← ⇐ ⬅ 👈 ◀ ◁", "→ ⇒ ➡ 👉 ▶ ▷"),
    ("↺ ⟲", "↻ ⟳"),
    ("<", ">"),
)
"""Parts of words of the left and of the right: scripts without spaces, words with endings, and arrows."""
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Position between the words of camelCase and TVCamel."""
MAX_OPTIONS = 8
"""Largest number of unknown words at one place of a name that may be directions; more of them are objects."""
ENDINGS = ("", "s", "es", "d", "ed", "ing", "er", "ers", "ly", "y", "ies", "ied")
"""Endings of known words."""


def mirrored_pair(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the first two classes of a task head that mirroring turns into each other, judged by their names.

    Words of the left and the right, and of the two senses of rotation, are exchanged as whole words: between
    punctuation, spaces and digits, or in camelCase, ignoring case. In scripts without spaces they are parts of words.
    """
    pairs = ((first, second) for (first, second), places in _similar(names) if _are_exchanged(first, second, places))
    return next(pairs, None)


def questionable_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of classes that mirroring may exchange, for all that their names tell.

    One word differs, and it is no common English word in either name; or it contains `left` and `right`, or ends in an
    l and an r. The same number with opposite signs is questionable too.
    """
    options: dict[tuple[str, ...], set[str]] = defaultdict(set)
    found = []
    for pair, places in _similar(names):
        first, second = map(_words, pair)
        place = places[0]
        if len(places) > 1 or _are_exchanged(*pair, places) or not _may_be_sides(first, second, place):
            continue
        context = (*first[:place], "", *first[place + 1 :])
        options[context] |= {first[place], second[place]}
        found.append((pair, context))
    return [pair for pair, context in found if len(options[context]) <= MAX_OPTIONS]


def _similar(names: Sequence[str]) -> Iterator[tuple[tuple[str, str], tuple[int, ...]]]:
    """Yield the pairs of names that differ in one word or in directions alone, with the places of these words."""
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        words = _words(name)
        masked = {tuple("*" if _sides(word) else word for word in words)}
        for place, word in enumerate(words):
            number_alone = word.lstrip("-")  # of numbers, only opposite ones are similar
            if number_alone.isdigit():
                other = number_alone
            else:
                other = "?" if len(words) > 1 else re.sub("left|right|[lr]$", "?", word)
            masked.add((*words[:place], other, *words[place + 1 :]))
        for key in masked:
            alike[key].append(number)
    for first, second in sorted({pair for numbers in alike.values() for pair in combinations(numbers, 2)}):
        words, others = _words(names[first]), _words(names[second])
        places = tuple(place for place, (a, b) in enumerate(zip(words, others, strict=True)) if a != b)
        if places:
            yield (names[first], names[second]), places


def _are_exchanged(first: str, second: str, places: Sequence[int]) -> bool:
    """Return whether all words that differ are opposite directions, and no word of the same kind is equal in both."""
    kinds: set[int] = set()
    words, others = _words(first), _words(second)
    for place in places:
        opposite = {(row, 1 - side) for row, side in _sides(words[place])} & _sides(others[place])
        if not opposite:
            return False
        kinds |= {row for row, _ in opposite}
    equal = (word for place, word in enumerate(words) if place not in places)
    return not any(row in kinds for word in equal for row, _ in _sides(word))


def _may_be_sides(first: Sequence[str], second: Sequence[str], place: int) -> bool:
    word, other = first[place], second[place]
    if word.lstrip("-").isdigit() or other.lstrip("-").isdigit():
        return word.lstrip("-") == other.lstrip("-")
    if _is_known(word) or _is_known(other) or word.startswith(other) or other.startswith(word):
        return False  # other things, or two forms of one word
    if len(first) == 1:
        ends = {(word[-1], other[-1]), (other[-1], word[-1])}
        return "left" in word + other or (word[:-1] == other[:-1] and ("l", "r") in ends)
    return len(word) > 1 or len(other) > 1 or abs(ord(word) - ord(other)) > 1  # neighbors such as `a` and `b`: a list


@cache
def _words(name: str) -> tuple[str, ...]:
    """Return the words and numbers of a name in lower case, without accents."""
    text = " ".join(CAMEL.split(unicodedata.normalize("NFKC", name))).replace("_", " ")
    text = re.sub(r"\b(counter|anti|c)[ -](?=clock|cw|hor)", r"\1", _plain(text))
    text = re.sub(r"\b(?:counter|anti)(?:clock[ -]?wise|cw)\b", "counterclockwise", text)
    text = re.sub(r"\bclock[ -]wise\b", "clockwise", text)
    pieces = _part_pattern().split(text)
    pieces[0] = re.sub(r"^\s*[a-z]?\d+[\W_]+(?=\S)", "", pieces[0])  # the number of a list: `01_`, `A003 `
    tokens = ([piece] if number % 2 else _token_pattern().findall(piece) for number, piece in enumerate(pieces))
    return tuple(token for piece in tokens for token in piece)


def _plain(text: str) -> str:
    """Return a text in lower case without accents and invisible characters."""
    kept = (c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) not in ("Mn", "Cf"))
    return unicodedata.normalize("NFC", "".join(kept)).lower()


@cache
def _part_pattern() -> re.Pattern[str]:
    parts = [part for row in PARTS for side in row for part in _plain(side).split()]
    return re.compile("(" + "|".join(map(re.escape, sorted(parts, key=len, reverse=True))) + ")")


@cache
def _token_pattern() -> re.Pattern[str]:
    return re.compile(r"(?<!\S)-\d+|[^\W\d_]+|\d+|(?<=\w)[+-](?=\s|$)")


@cache
def _directions() -> dict[str, set[tuple[int, int]]]:
    """Return row and side (0 or 1) of each direction; a word of several languages has several."""
    directions: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for number, row in enumerate((*WORDS, *PARTS)):
        for side, words in enumerate(row):
            for word in _plain(words).split():
                directions[word].add((number, side))
    return dict(directions)


def _sides(word: str) -> set[tuple[int, int]]:
    return _directions().get(word, set())


@cache
def _known_words() -> frozenset[str]:
    return frozenset((Path(__file__).parents[1] / "assets" / "action_words.txt").read_text(encoding="utf-8").split())


def _is_known(word: str) -> bool:
    """Return whether a word is a common English word that is no direction, an inflected form, or two joined words."""
    known = _known_words()
    for ending in ENDINGS:
        stem = word.removesuffix(ending)
        if {stem, f"{stem}e", f"{stem}y", stem[:-1] if stem[-2:-1] == stem[-1:] else stem} & known:
            return True
    return any(word[:cut] in known and _is_known(word[cut:]) for cut in range(3, len(word) - 2))

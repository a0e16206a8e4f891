"""Class names that mirroring exchanges, such as `push left` and `push right`."""

import re
from collections.abc import Sequence

MIRRORED = {
    "left": "right",
    "right": "left",
    "clockwise": "counterclockwise",
    "counterclockwise": "clockwise",
}
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Position between the words of camelCase and TVCamel."""


def mirrored_pair(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the first two classes of a task head that mirroring turns into each other, judged by their names.

    `left` and `right`, or `clockwise` and `counterclockwise` or `anticlockwise`, are exchanged as whole words: between
    punctuation, spaces and digits, or in camelCase, ignoring case.
    """
    by_words = {_words(name): name for name in reversed(names)}
    for name in names:
        words = _words(name)
        other = by_words.get(tuple(MIRRORED.get(word, word) for word in words))
        if other is not None and _words(other) != words:
            return name, other
    return None


def _words(name: str) -> tuple[str, ...]:
    """Return the words and numbers of a name in lower case; `anticlockwise` becomes `counterclockwise`."""
    runs = re.findall(r"[^\W\d_]+|\d+", name)
    words = " ".join(word.lower() for run in runs for word in CAMEL.split(run))
    return tuple(re.sub(r"\b(?:counter|anti) ?clockwise\b", "counterclockwise", words).split())

"""Names of actions that a mirror would exchange."""

import re
from collections.abc import Sequence

MIRRORED = {
    "left": "right",
    "right": "left",
    "clockwise": "counterclockwise",
    "counterclockwise": "clockwise",
}
"""Words that a mirror exchanges in the names of actions."""
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Between the words of camelCase and TVCamel."""


def mirrored_pair(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two classes of a task head that a mirror makes into each other, by their names.

    `left` and `right`, or `clockwise` and `counterclockwise` or `anticlockwise`, are exchanged where they are whole
    words: between signs, spaces and digits, or in camelCase; capitals make no difference.
    """
    by_words = {_words(name): name for name in reversed(names)}
    for name in names:
        words = _words(name)
        other = by_words.get(tuple(MIRRORED.get(word, word) for word in words))
        if other is not None and _words(other) != words:
            return name, other
    return None


def _words(name: str) -> tuple[str, ...]:
    """Words and numbers of a name, in small letters; both words for the other way round become one."""
    runs = re.findall(r"[^\W\d_]+|\d+", name)
    words = " ".join(word.lower() for run in runs for word in CAMEL.split(run))
    return tuple(re.sub(r"\b(?:counter|anti) ?clockwise\b", "counterclockwise", words).split())

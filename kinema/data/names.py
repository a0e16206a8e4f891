"""Names of classes, splits and groups as people and programs write them: one spelling for each, or a refusal."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

SPLITS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "devel", "development"),
    "test": ("test", "testing", "tst"),
}
"""Splits and their other spellings, in lower case."""
SPLIT_OF_SPELLING = {spelling: split for split, spellings in SPLITS.items() for spelling in spellings}
DECORATION = re.compile(r"^split|(s?daten|data|split|sets?|videos?|clips?|files?)+$")
"""Words beside the split in names of folders."""
MAX_SPLIT_NAME = 100
"""Number of characters of a name above which it is that of no split."""
FOLD = re.compile(r"(cv|fold|part|split)\d+")
MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "n/a", "NA", "NULL", "null", "Null", "None", "NaT"}
    | {"nan", "NaN", "NAN", "Nan", "-nan", "-NaN", "+nan", "1.#QNAN", "-1.#QNAN", "1.#IND", "-1.#IND"}
)
"""Cells that pandas reads or writes where a value is missing."""
NOT_A_NUMBER = frozenset({"nan", "NaN", "NAN", "<NA>", "NaT"})
"""Missing values that nobody chooses as the name of a class."""
FLOAT_OF_INTEGER = re.compile(r"[+-]?\d+\.0+")
INTEGER = re.compile(r"[+-]?\d+")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)


def is_unicode(text: str) -> bool:
    """Return whether a text has no halves of characters, such as the bytes of a file name that is not UTF-8."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def normalize(text: str) -> str:
    """Return a name in Unicode's composed form (NFC), in which names that look the same are the same."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def split_name(text: str) -> str | None:
    """Return the split that a spelling such as `Train`, `validation` or `test_set` means; None for an unknown name.

    The folds of a cross-validation, such as `fold3`, are splits too.
    """
    if len(text) > MAX_SPLIT_NAME:
        return None
    word = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())
    if FOLD.fullmatch(word):
        return word
    return SPLIT_OF_SPELLING.get(word) or SPLIT_OF_SPELLING.get(DECORATION.sub("", word))


def similar_names(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names that differ by case, blanks, hyphens or invisible characters alone.

    Two spellings of one number are similar too.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(spelling_key(name), name)
        if other != name:
            return other, name
    return None


def spelling_key(name: str) -> str:
    """Return what all spellings of one name share. Blanks between digits are kept: `1 2` is not `12`."""
    visible = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf").strip()
    if NUMBER.fullmatch(visible):
        return str(float(visible))
    words = re.sub(r"(?<=\w)[\s_\-\u2010-\u2014]+|[\s_]+", " ", visible.casefold()).strip()
    return unicodedata.normalize("NFC", re.sub(r"(?<=[^\W\d_]) | (?=[^\W\d_])", "", words))


def without_floats(cells: Sequence[str]) -> tuple[list[str], int]:
    """Return a column in which `1.0` is `1` if other cells are whole numbers, and the number of cells that changed.

    pandas writes a column of whole numbers with a missing one as floats; joined with another file it has both.
    """
    if not any(map(INTEGER.fullmatch, cells)):
        return list(cells), 0
    whole = [cell.partition(".")[0] if FLOAT_OF_INTEGER.fullmatch(cell) else cell for cell in cells]
    return whole, sum(cell != other for cell, other in zip(cells, whole, strict=True))

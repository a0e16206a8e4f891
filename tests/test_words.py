"""Wording rules: no riddles in docstrings, no riddles or British spellings among identifiers."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kinema"

RIDDLE = re.compile(r"(Of|What|That|Where|How|Which|When|Whether|As|In which)\b")
"""First word of a docstring that does not state what a thing is or does."""

RIDDLE_NAMES = frozenset(
    [
        "asked",
        "asking",
        "beyond",
        "clip_norm",
        "each_frame",
        "each_picture",
        "exchanged",
        "fewer",
        "keeps",
        "left_over",
        "look",
        "look_for_change",
        "name_all",
        "process_number",
        "rotation_share",
        "said",
        "says",
        "standing",
        "still_parts",
        "tells",
        "told",
        "torn",
        "unfit",
        "varied_clip",
        "HOMES",
        "OF_EACH",
        "STRAIGHT",
        "WHOLE",
        "Loaded",
        "Reading",
        "Started",
        "Variation",
        "Watch",
    ]
)
"""Identifiers that an ML engineer cannot read; each has a name of the field."""

BRITISH = re.compile(
    r"colour|grey|centre|metre|neighbour|behaviour|favour|honour|labell|modell|artefact|catalogue|licence"
    r"|(normal|initial|serial|organ|recogn|optim|regular|quant|token|vectori|general|special|final|util|visual|minim"
    r"|maxim|random|summar|standard|factor|discret|synchron|priorit)is(e|ed|es|ing|ation|er)(?![a-z])",
    re.IGNORECASE,
)
"""British spellings, inside an identifier too."""


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of every docstring, those below constants and fields included."""
    for node in ast.walk(ast.parse(source)):
        for statement in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                if isinstance(text, str):
                    yield statement.lineno, text


def names(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of every identifier."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def riddles(source: str) -> list[tuple[int, str]]:
    """Return docstrings that begin with a riddle."""
    return [(line, text.splitlines()[0]) for line, text in docstrings(source) if RIDDLE.match(text.strip())]


def odd_names(source: str) -> list[tuple[int, str]]:
    """Return identifiers that are riddles."""
    return [(line, name) for line, name in names(source) if name.lstrip("_") in RIDDLE_NAMES]


def british_names(source: str) -> list[tuple[int, str]]:
    """Return identifiers with a British spelling."""
    return [(line, name) for line, name in names(source) if BRITISH.search(name)]


@pytest.mark.parametrize("find", [riddles, odd_names, british_names])
def test_the_package_holds_no_riddles(find) -> None:
    found = [
        f"{path}:{line}: {text}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in find(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("find", "source"),
    [
        (riddles, '"""How the weights move."""'),
        (riddles, 'SIZE = 3\n"""Of a clip, in pixels."""'),
        (riddles, 'def f():\n    """In which order."""'),
        (riddles, 'class A:\n    def f(self):\n        """Whether it is."""'),
        (odd_names, "def f(asking): ..."),
        (odd_names, "self.standing = 1"),
        (odd_names, "for _told in range(3): ..."),
        (british_names, "rgb_colour = 1"),
        (british_names, "def normalise(): ..."),
        (british_names, "GreyScale = 1"),
    ],
)
def test_a_planted_riddle_is_found(find, source: str) -> None:
    assert find(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""Whatever is read."""\nprecision = colors = normalized = raised = 1',
        '"""Ask for what is given."""\ndef f(asks, promise, otherwise, exercise): ...',
    ],
)
def test_field_words_are_left_alone(source: str) -> None:
    assert not [*riddles(source), *odd_names(source), *british_names(source)]

"""Citations: a cited section, equation, table or figure exists, and the thesis is credited only with what it says."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTENTS = tomllib.loads((ROOT / "tests" / "thesis_contents.toml").read_text(encoding="utf-8"))
SECTIONS = frozenset(CONTENTS["sections"])
FILES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    + [path for folder in ("kinema", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
)

NUMBER = r"[2-5](?:\.\d+)+"
NUMBERS = rf"({NUMBER}(?:(?:,\s*|\s+and\s+|\s+to\s+){NUMBER})*)(?![\w.]*%)"
SECTION = re.compile(rf"(?:[Ss]ec(?:tion)?s?\.?|§|thesis)\s*{NUMBERS}")
ELSEWHERE = re.compile(r"arXiv:[\d.]+,\s+section\s+[\d.]+")
"""Section of another paper."""
ITEM = re.compile(
    rf"\b(eq\.|equations?|[Tt]ables?|[Ff]igures?)\s+({NUMBER}[a-c]?(?:(?:,\s*|\s+and\s+|\s+to\s+|\s+or\s+){NUMBER}[a-c]?)*)"
)

PUBLIC_CODE = re.compile(
    r"segment|equal parts|320 x 240|640 x 480|rotation|rotated|\bjet\b|mask|cut to the"
    r"|label smoothing|clip(?:ping)? at norm|gradient clipping|per GPU|on each of",
    re.IGNORECASE,
)
"""Settings of chapter 2 that the thesis does not state; public code does."""
CREDIT = re.compile(r"thesis", re.IGNORECASE)
NO_CREDIT = re.compile(
    r"not in (the thesis|chapter)|thesis (does|names|describes|is|gives) (not|no|only|neither|silent|one)|ours|silent"
    r"|thesis has no|thesis uses none|unlike the thesis",
    re.IGNORECASE,
)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every sentence, across line breaks. A cell of a table is a sentence."""
    start = 0
    for end in [*(match.end() for match in re.finditer(r"\.(?=\s)|\n\s*\n|\|", text)), len(text)]:
        sentence = " ".join(text[start:end].split())
        if sentence:
            yield text[:start].count("\n") + 1, sentence
        start = end


def prose(path: Path) -> str:
    """Return the text of a page, or the docstrings of a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)]
    values = [node.value.value for node in nodes if isinstance(node.value, ast.Constant)]
    return "\n\n".join(value for value in values if isinstance(value, str))


def unknown(text: str) -> list[str]:
    """Return the citations that the thesis does not hold."""
    found = []
    for match in SECTION.finditer(ELSEWHERE.sub("", text)):
        found += [number for number in re.findall(NUMBER, match[1]) if number not in SECTIONS]
    for match in ITEM.finditer(text):
        kind = {"e": "equation", "t": "table", "f": "figure"}[match[1][0].lower()]
        for number in re.findall(NUMBER, match[2]):
            chapter, _, place = number.partition(".")
            if not place.isdigit() or not 1 <= int(place) <= CONTENTS["last"][kind].get(chapter, 0):
                found.append(f"{kind} {number}")
    return found


def wrong_credits(text: str) -> list[str]:
    """Return the sentences that credit the thesis with a setting that only public code states."""
    return [
        sentence
        for _, sentence in sentences(text)
        if CREDIT.search(sentence) and PUBLIC_CODE.search(sentence) and not NO_CREDIT.search(sentence)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_citation_is_of_something_in_the_thesis(path: Path) -> None:
    assert not unknown(path.read_text(encoding="utf-8"))
    assert not wrong_credits(prose(path))


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_a_column_of_the_thesis_cites_sections_equations_tables_and_figures(path: Path) -> None:
    """Cells of the last column hold bare numbers, such as `2.3.4.1` or `eq. 3.10 against 3.11`."""
    is_column = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            is_column = False
        elif line.endswith("| thesis |") and "field of" in line:
            is_column = True
        elif is_column:
            cell = line.split("|")[-2]
            assert not unknown(cell), line
            for number in re.findall(NUMBER, ITEM.sub("", cell)):
                assert number in SECTIONS or not unknown(f"eq. {number}"), line


def test_an_operator_cites_the_section_that_describes_it() -> None:
    found = 0
    for path in sorted((ROOT / "kinema" / "layers").glob("*.py")) + sorted((ROOT / "kinema" / "models").glob("*.py")):
        for line, sentence in sentences(path.read_text(encoding="utf-8")):
            cited = {number for match in SECTION.finditer(sentence) for number in re.findall(NUMBER, match[1])}
            subjects = [name for name in CONTENTS["subject"] if name.lower() in sentence.lower()]
            if cited and subjects:
                allowed = {number for name in subjects for number in CONTENTS["subject"][name]}
                assert cited & allowed, f"{path}:{line}: {sentence}"
                found += 1
    assert found >= 8


@pytest.mark.parametrize(
    "text",
    [
        "(section 2.3.5)",
        "thesis 3.4.7",
        "sec. 3.4.8",
        "§ 4.4.5",
        "section 2.3.4.3",
        "sections 2.4.1 and 3.4.6",
        "eq. 2.11",
        "Tables 2.1 and 2.7",
        "figure 4.6",
    ],
)
def test_a_planted_citation_is_found(text: str) -> None:
    assert unknown(text)


@pytest.mark.parametrize(
    "text",
    [
        "From the thesis: one frame from each of 32 equal parts.",
        "From the thesis: SGD,\n16 clips on each of 4 GPUs, MixUp.",
        "As in the thesis, masked depth is cropped.",
        "Largest angle of the rotation (thesis, MFST: 10).",
        "The thesis says gradient clipping at norm 5.",
    ],
)
def test_a_planted_credit_is_found(text: str) -> None:
    assert wrong_credits(text)

"""One HTML page that needs nothing else: no script, no font, no picture from anywhere."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #20242a; margin: 2.5rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0.2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.lead { color: #5a6068; margin-top: 0; } svg, img { max-width: 100%; height: auto; }
dl { display: flex; flex-wrap: wrap; gap: 0.8rem; }
dl div { background: #f2f4f7; border-radius: 8px; padding: 0.7rem 1.1rem; }
dt { color: #5a6068; font-size: 0.85rem; } dd { margin: 0; font-size: 1.4rem; font-weight: 600; }
figure { margin: 0 0 1.1rem; } figcaption { font-size: 0.9rem; } .right { color: #1b7f4b; } .wrong { color: #b3261e; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; } td, th { text-align: left; vertical-align: top; }
td, th { border-bottom: 1px solid #e3e6ea; padding: 0.3rem 0.8rem 0.3rem 0; overflow-wrap: anywhere; }
th { color: #5a6068; font-weight: 600; white-space: nowrap; }
td:nth-child(-n+2) { white-space: nowrap; } td:nth-child(3) { min-width: 16rem; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(27rem, 1fr)); gap: 0.4rem 1.4rem; }
.clips img { border-radius: 6px; width: 100%; }
"""


@dataclass(frozen=True, kw_only=True)
class ClipPicture:
    """A clip as a picture, what is true, and what the model said, best first, with shares of 1."""

    picture: bytes
    truth: str
    answers: Sequence[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class CaptionedPicture:
    """A picture and what stands below it."""

    picture: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Names of columns, and rows of as many cells."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, a paragraph, and a figure in SVG, a table, pictures, or some clips."""

    heading: str
    text: str
    figure: bytes = b""
    table: Table | None = None
    pictures: Sequence[CaptionedPicture] = ()
    clips: Sequence[ClipPicture] = ()


def write_page(
    path: Path, *, title: str, lead: str, numbers: Sequence[tuple[str, str]], sections: Sequence[Section]
) -> None:
    """Write the page; all text is escaped."""
    facts = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in numbers)
    body = "".join(map(_section, sections))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<h1>{html.escape(title)}</h1><p class="lead">{html.escape(lead)}</p><dl>{facts}</dl>{body}</body></html>\n',
        encoding="utf-8",
    )


def _section(section: Section) -> str:
    figure = f"<figure>{_inline(section.figure, 'svg+xml', section.heading)}</figure>" if section.figure else ""
    clips = f'<div class="clips">{"".join(map(_clip, section.clips))}</div>' if section.clips else ""
    table = "" if section.table is None else _table(section.table)
    pictures = f'<div class="clips">{"".join(map(_picture, section.pictures))}</div>' if section.pictures else ""
    return f"<h2>{html.escape(section.heading)}</h2><p>{html.escape(section.text)}</p>{figure}{table}{pictures}{clips}"


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _picture(picture: CaptionedPicture) -> str:
    image = _inline(picture.picture, "jpeg", picture.caption)
    return f"<figure>{image}<figcaption>{html.escape(picture.caption)}</figcaption></figure>"


def _clip(clip: ClipPicture) -> str:
    verdict = "right" if clip.answers[0][0] == clip.truth else "wrong"
    said = ", ".join(f"{html.escape(label)} {score:.0%}" for label, score in clip.answers)
    caption = f'<b>{html.escape(clip.truth)}</b> <span class="{verdict}">{verdict}: {said}</span>'
    return f"<figure>{_inline(clip.picture, 'jpeg', clip.truth)}<figcaption>{caption}</figcaption></figure>"


def _inline(picture: bytes, kind: Literal["svg+xml", "jpeg"], description: str) -> str:
    code = base64.b64encode(picture).decode("ascii")
    return f'<img alt="{html.escape(description)}" src="data:image/{kind};base64,{code}">'

"""Self-contained HTML pages, without external scripts, fonts or images."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from kinema.files import write_texts


@dataclass(frozen=True, kw_only=True)
class ClipImage:
    """Image of a clip with its true class, and predicted classes with probabilities, best first."""

    image: bytes
    label: str
    predictions: Sequence[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class CaptionedImage:
    """JPEG with a caption."""

    image: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Column names and rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Heading and paragraph, with an SVG figure, a table, images or clips."""

    heading: str
    text: str
    figure: bytes = b""
    table: Table | None = None
    images: Sequence[CaptionedImage] = ()
    clips: Sequence[ClipImage] = ()


def write_page(
    path: Path, *, title: str, lead: str, numbers: Sequence[tuple[str, str]], sections: Sequence[Section]
) -> None:
    """Render `page.html.jinja` to a file, created with its folders; all text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode("ascii")
    template = environment.get_template("page.html.jinja")
    page = template.render(title=title, lead=lead, numbers=numbers, sections=sections)
    write_texts({path: page})

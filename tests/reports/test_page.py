"""Tests of pages: all text is escaped, and no external resources are loaded."""

import base64
import html
import re
from html.parser import HTMLParser

import pytest

from kinema.reports.page import CaptionedImage, ClipImage, Section, Table, write_page

NASTY = "<script>alert('x')</script> & \"q\" {{ 7 * 7 }}"


class Tags(HTMLParser):
    """Parser that collects the elements, text and attributes of a page."""

    def __init__(self, page):
        super().__init__()
        self.names, self.text, self.attributes = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(tmp_path):
    clips = [
        ClipImage(image=b"jpg", label=NASTY, predictions=[(NASTY, 0.756), ("b", 0.2)]),
        ClipImage(image=b"jpg", label="b", predictions=[(NASTY, 0.756)]),
    ]
    sections = [
        Section(heading=NASTY, text=NASTY, figure=b"<svg/>"),
        Section(heading="2", text="", table=Table(columns=("a", NASTY), rows=[("1", NASTY), ("2", "3")])),
        Section(heading="3", text="", images=[CaptionedImage(image=b"jpg", caption=NASTY)], clips=clips),
    ]
    write_page(tmp_path / "new" / "page.html", title=NASTY, lead=NASTY, numbers=[(NASTY, NASTY)], sections=sections)
    return (tmp_path / "new" / "page.html").read_text(encoding="utf-8")


def test_every_text_is_escaped(page):
    tags = Tags(page)
    assert "script" not in tags.names
    assert page.count("alert") == html.unescape(page).count(NASTY) == 16  # neither truncated nor rendered twice
    assert tags.text.count(NASTY) == 13
    assert [value for name, value in tags.attributes if name == "alt"] == [NASTY, NASTY, NASTY, "b"]


def test_images_are_embedded_in_the_page(page):
    sources = [value for name, value in Tags(page).attributes if name in ("src", "href")]
    kinds = [source.split(",")[0] for source in sources]
    assert kinds == ["data:image/svg+xml;base64", *["data:image/jpeg;base64"] * 3]
    assert base64.b64decode(sources[0].split(",")[1]) == b"<svg/>"


def test_predictions_are_marked_and_listed_in_order(page):
    verdicts = re.findall(r'<span class="(\w+)">(\w+): ', page)
    assert verdicts == [("correct", "correct"), ("wrong", "wrong")]
    assert "76%, b 20%</span>" in page

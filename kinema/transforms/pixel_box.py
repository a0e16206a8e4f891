"""A part of a picture in whole pixels, as a manifest's column `rgb_box` says it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PixelBox:
    """Columns `left` to `right` and rows `top` to `bottom` of a picture, from 0 and half open.

    Raises:
        ValueError: it begins outside of any picture, or holds nothing.
    """

    left: int
    top: int
    right: int
    bottom: int

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right and 0 <= self.top < self.bottom):
            raise ValueError(f"{self} must have 0 <= left < right and 0 <= top < bottom")

    def __str__(self) -> str:
        return f"{self.left} {self.top} {self.right} {self.bottom}"

    def fits(self, width: int, height: int) -> bool:
        """Whether a picture of that size holds all of it."""
        return self.right <= width and self.bottom <= height


def parse_pixel_box(text: str) -> PixelBox:
    """A box from `left top right bottom`.

    Raises:
        ValueError: these are not four whole numbers, or no box.
    """
    words = text.split()
    if len(words) != 4 or not all(word.isascii() and word.isdecimal() for word in words):
        raise ValueError(f"{text!r} is not of the form left top right bottom, four whole numbers of pixels")
    left, top, right, bottom = map(int, words)
    return PixelBox(left=left, top=top, right=right, bottom=bottom)

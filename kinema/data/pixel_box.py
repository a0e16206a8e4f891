"""Part of a picture in whole pixels, as written in a manifest."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PixelBox:
    """Part of a picture in whole pixels: columns `left` to `right` and rows `top` to `bottom`, from 0, half open.

    Raises:
        ValueError: The box is empty or begins outside of any picture.
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
        """Return whether the box lies inside a picture of this size."""
        return self.right <= width and self.bottom <= height


def parse_pixel_box(text: str) -> PixelBox:
    """Parse a box of the form `left top right bottom`.

    Raises:
        ValueError: The text is not four whole numbers, or not a box.
    """
    numbers = text.split()
    if len(numbers) != 4 or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise ValueError(f"expected four whole numbers of pixels, left top right bottom; got {text!r}")
    left, top, right, bottom = map(int, numbers)
    return PixelBox(left=left, top=top, right=right, bottom=bottom)

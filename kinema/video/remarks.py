"""Remarks on files: what a reader should know about their pictures, noted by `prepare` and `check`."""

from typing import NamedTuple

REMARKS = {
    "several streams": "have several streams that may be meant. Name another with #, as in rec.mkv#1",
    "non-square pixels": "have pixels that are not square; clips show the displayed shape",
    "transparency": "have transparent pixels, which are composited on black",
    "HDR": "are HDR, and tone-mapped to the range of ordinary video",
    "wide gamut": "have wide-gamut colors, which are read as BT.709 and look paler",
    "interlaced": "are interlaced, so moving edges are combed. Use --read-options.deinterlace spatial",
}
"""End of the note `N files ...` of each kind of remark."""


class Remark(NamedTuple):
    """Remark on a file.

    Attributes:
        kind: Key of `REMARKS`, and the kind of the finding of a check.
        detail: Facts about this file.
    """

    kind: str
    detail: str

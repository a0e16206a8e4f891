"""Remarks on files: what a reader should know about their pictures, noted by `prepare` and `check`."""

from typing import NamedTuple

REMARKS = {
    "several streams": "have several streams that may be meant. Name another with #, as in rec.mkv#1",
    "non-square pixels": "have pixels that are not square; clips show the displayed shape",
    "transparency": "have transparent pixels, which are composited on black",
    "HDR": "are HDR, and tone-mapped to the range of ordinary video",
    "wide gamut": "have wide-gamut colors, which are read as BT.709 and look paler",
    "interlaced": "are interlaced, so moving edges are combed. Train with --data.read.deinterlace spatial",
}
"""End of the note `N files ...` of each kind of remark."""

COLOR_REMARKS = frozenset({"transparency", "HDR", "wide gamut", "interlaced"})
"""Kinds that say how colors are read; nothing of the kind is done to depth."""


class Remark(NamedTuple):
    """Remark on a file.

    Attributes:
        kind: Key of `REMARKS`, and kind of the finding of a check.
        detail: Sentence of the finding.
    """

    kind: str
    detail: str

"""Findings of a check: faults, which invalidate an experiment, and notes."""

from dataclasses import dataclass
from typing import Literal

from kinema.modality import Modality
from kinema.video.remarks import REMARKS

Severity = Literal["fault", "note"]
SEVERITY: dict[str, Severity] = {
    "missing": "fault",
    "unreadable": "fault",
    "no video stream": "fault",
    "broken": "fault",
    "damaged": "fault",
    "truncated": "fault",
    "frames lost": "fault",
    "too short": "fault",
    "frame count": "fault",
    "segment": "fault",
    "rgb box": "fault",
    "short segment": "fault",
    "unequal lengths": "fault",
    "depth range": "fault",
    "same sample": "fault",
    "near-duplicate": "fault",
    "two labels": "fault",
    "untrained class": "fault",
    "similar classes": "fault",
    "shorter than a clip": "note",
    "rotated": "note",
    **dict.fromkeys(REMARKS, "note"),
    "variable rate": "note",
    "pair offset": "note",
    "pair rates": "note",
    "blank": "note",
    "empty depth": "note",
    "header": "note",
    "same video": "note",
    "shared group": "note",
    "shared subject": "note",
    "untested class": "note",
    "imbalance": "note",
    "declared": "note",
    "rates": "note",
    "resolutions": "note",
}
"""Severity of each kind of finding, in the order of the report."""

FILE_FAULTS = frozenset(
    {
        "missing",
        "unreadable",
        "no video stream",
        "broken",
        "damaged",
        "truncated",
        "frames lost",
        "too short",
        "unequal lengths",
        "near-duplicate",
    }
)
"""Faults that are fixed by removing the file; all others require a corrected manifest."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Fault or note.

    Attributes:
        kind: Key of `SEVERITY`.
        line: Line of the manifest; 0 if several lines are affected.
        modality: Modality of the file; empty if no single file is affected.
        file: Path in the manifest; empty if no single file is affected.
        sentence: Description.
    """

    kind: str
    line: int = 0
    modality: Modality | Literal[""] = ""
    file: str = ""
    sentence: str

    @property
    def severity(self) -> Severity:
        """Severity of this kind of finding."""
        return SEVERITY[self.kind]

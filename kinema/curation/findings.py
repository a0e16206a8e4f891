"""Findings of a check: a fault breaks an experiment or its result; a note is worth knowing."""

from dataclasses import dataclass
from typing import Literal

from kinema.modality import Modality

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
    "untrained class": "fault",
    "shorter than a clip": "note",
    "rotated": "note",
    "variable rate": "note",
    "blank": "note",
    "empty depth": "note",
    "header": "note",
    "same video": "note",
    "shared group": "note",
    "shared subject": "note",
    "untested class": "note",
    "imbalance": "note",
    "declared": "note",
    "resolutions": "note",
}
"""Every kind of finding, in the order in which they are told."""

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
"""Faults for which a file can be left out; the others ask for a correction of the manifest."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong or worth knowing.

    Args:
        kind: one of `SEVERITY`.
        line: of the manifest; 0 where it concerns more than one.
        modality: of the file; empty where it concerns no single one.
        file: as the manifest says it; empty where there is none.
        sentence: what it is.
    """

    kind: str
    line: int = 0
    modality: Modality | Literal[""] = ""
    file: str = ""
    sentence: str

    @property
    def severity(self) -> Severity:
        return SEVERITY[self.kind]

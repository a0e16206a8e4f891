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
"""Faults that removing the file fixes; the others need a correction of the manifest."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Fault or note.

    Args:
        kind: key of `SEVERITY`.
        line: line of the manifest; 0 if several are concerned.
        modality: modality of the file; empty if no single file is concerned.
        file: path in the manifest; empty if no single file is concerned.
        sentence: description.
    """

    kind: str
    line: int = 0
    modality: Modality | Literal[""] = ""
    file: str = ""
    sentence: str

    @property
    def severity(self) -> Severity:
        return SEVERITY[self.kind]

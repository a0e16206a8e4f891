"""Printed check: a progress bar, and lines with all faults and examples of notes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kinema.curation.check import Checked
from kinema.curation.findings import Finding

EXAMPLES = 3
"""Number of notes printed per kind."""


class CheckProgress:
    """Progress bar with files done, files per second and time left; hidden if the output is not a terminal.

    Args:
        console: Console to print to; standard error if None.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._bar = Progress(
            MofNCompleteColumn(),
            TextColumn("files"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> "CheckProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, done: int, total: int, remembered: int) -> None:
        """Update the bar.

        Args:
            done: Number of files done.
            total: Number of all files.
            remembered: Number of files done that were not decoded again, which do not count for the speed.
        """
        elapsed = self._bar.tasks[0].elapsed or 0
        rate = f"{(done - remembered) / elapsed:.1f} files/s" if elapsed > 0.5 else ""
        unchanged = f"  {remembered:,} unchanged" if remembered else ""
        self._bar.update(self._task, completed=done, total=total, description=rate + unchanged)


def check_lines(checked: Checked) -> Iterator[str]:
    """Yield counts, then one line per fault, then the kinds of notes with their first examples."""
    path = checked.manifest.path
    files, frames = len(checked.inspections), sum(file.frames for file in checked.inspections.values())
    unchanged = f" ({checked.remembered:,} files unchanged since the last check)" if checked.remembered else ""
    yield f"{path}: {len(checked.entries):,} samples in {files:,} files with {frames:,} frames{unchanged}"
    if checked.incomparable:
        yield f"{checked.incomparable:,} files are unreadable or blank, and were not compared with the others"
    if checked.faults:
        yield f"faults: {_counted(checked.faults)}"
        yield from (_line(path.name, finding) for finding in checked.faults)
    else:
        yield "no faults found"
    for kind in dict.fromkeys(finding.kind for finding in checked.notes):
        every = [finding for finding in checked.notes if finding.kind == kind]
        yield f"note: {kind} ({len(every):,})"
        yield from (_line(path.name, finding) for finding in every[:EXAMPLES])
        if len(every) > EXAMPLES:
            yield f"  and {len(every) - EXAMPLES:,} more"


def _line(name: str, finding: Finding) -> str:
    place = f"{name}, line {finding.line}: " if finding.line else f"{name}: "
    subject = f"{finding.file}: " if finding.file else ""
    return "  " + " ".join(f"{place}{finding.kind}: {subject}{finding.sentence}".split())


def _counted(findings: Sequence[Finding]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in Counter(finding.kind for finding in findings).items())

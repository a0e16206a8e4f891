"""What a check prints: progress while it runs, and at its end what is wrong."""

from collections import Counter
from collections.abc import Iterator, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kinema.curation.check import Checked
from kinema.curation.findings import Finding

EXAMPLES = 3
"""Notes of one kind that are printed."""


class CheckProgress:
    """A line with files done, files a second, and the time left; nothing where the output is no terminal.

    Args:
        console: where it is shown; standard error where None.
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
        elapsed = self._bar.tasks[0].elapsed or 0
        rate = f"{(done - remembered) / elapsed:.1f} files/s" if elapsed > 0.5 else ""
        known = f"  {remembered:,} unchanged" if remembered else ""
        self._bar.update(self._task, completed=done, total=total, description=rate + known)


def check_lines(checked: Checked) -> Iterator[str]:
    """Counts, then every fault in a line of its own, then the kinds of notes with their first examples."""
    path = checked.manifest.path
    frames = sum(seen.frames for seen in checked.inspections.values())
    known = f", {checked.remembered:,} of them unchanged since an earlier check" if checked.remembered else ""
    yield (
        f"{path}: {len(checked.entries):,} samples in {len(checked.inspections):,} files with {frames:,} frames{known}"
    )
    if checked.incomparable:
        yield f"{checked.incomparable:,} files cannot be read or show nothing, and were not compared with the others"
    if checked.faults:
        yield f"faults: {_counted(checked.faults)}"
        yield from (f"  {_told(path.name, finding)}" for finding in checked.faults)
    else:
        yield "nothing is wrong"
    for kind in dict.fromkeys(finding.kind for finding in checked.notes):
        every = [finding for finding in checked.notes if finding.kind == kind]
        yield f"note: {kind} ({len(every):,})"
        yield from (f"  {_told(path.name, finding)}" for finding in every[:EXAMPLES])
        if len(every) > EXAMPLES:
            yield f"  and {len(every) - EXAMPLES:,} more"


def _told(name: str, finding: Finding) -> str:
    place = f"{name}, line {finding.line}: " if finding.line else f"{name}: "
    subject = f"{finding.file}: " if finding.file else ""
    return " ".join(f"{place}{finding.kind}: {subject}{finding.sentence}".split())


def _counted(findings: Sequence[Finding]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in Counter(finding.kind for finding in findings).items())

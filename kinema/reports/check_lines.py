"""Printed check: a progress bar, and lines with all faults and examples of notes."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kinema.curation.check import CheckResult
from kinema.curation.findings import Finding
from kinema.data.file_times import describe_rates
from kinema.modality import MODALITIES

EXAMPLES = 3
"""Number of notes printed per kind."""


@contextmanager
def check_progress(console: Console | None = None) -> Iterator[Callable[[int, int, int], None]]:
    """Show a progress bar with files done, files per second and time left, if the output is a terminal.

    Yields a function of the number of files done, their total, and the number of unchanged files, which do not count
    for the speed. The bar is on standard error by default.
    """
    console = console or Console(stderr=True)
    columns = (MofNCompleteColumn(), TextColumn("files"), BarColumn(), TextColumn("{task.description}"))
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    is_quiet = logging.getLogger("kinema").level > logging.INFO
    with Progress(*columns, *times, console=console, disable=is_quiet or not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int, num_cached: int) -> None:
            elapsed = bar.tasks[0].elapsed or 0
            rate = f"{(done - num_cached) / elapsed:.1f} files/s" if elapsed > 0.5 else ""
            unchanged = f"  {num_cached:,} unchanged" if num_cached else ""
            bar.update(task, completed=done, total=total, description=rate + unchanged)

        yield show


def check_lines(checked: CheckResult) -> Iterator[str]:
    """Yield counts, then one line per fault, then the kinds of notes with examples, and frame rates."""
    path = checked.manifest.path
    files, frames = len(checked.inspections), sum(file.frames for file in checked.inspections.values())
    unchanged = f" ({checked.num_cached:,} files unchanged since the last check)" if checked.num_cached else ""
    yield f"{path}: {len(checked.entries):,} samples in {files:,} files with {frames:,} frames{unchanged}"
    if checked.incomparable:
        yield f"{checked.incomparable:,} files are unreadable or blank, and were not compared with the others"
    if checked.faults:
        counts = Counter(finding.kind for finding in checked.faults)
        yield f"faults: {', '.join(f'{count:,} {kind}' for kind, count in counts.items())}"
        yield from (_line(path.name, finding) for finding in checked.faults)
    else:
        yield "no faults found"
    for kind in dict.fromkeys(finding.kind for finding in checked.notes):
        every = [finding for finding in checked.notes if finding.kind == kind]
        yield f"note: {kind} ({len(every):,})"
        yield from (_line(path.name, finding) for finding in every[:EXAMPLES])
        if len(every) > EXAMPLES:
            yield f"  and {len(every) - EXAMPLES:,} more"
    for modality in MODALITIES:
        timed = [file.times for source, file in checked.inspections.items() if source.kind == modality and file.rate]
        if timed:
            yield f"{modality} files per frame rate: {describe_rates(times.even_rate for times in timed)}"


def _line(name: str, finding: Finding) -> str:
    place = f"{name}, line {finding.line}: " if finding.line else f"{name}: "
    subject = f"{finding.file}: " if finding.file else ""
    return "  " + " ".join(f"{place}{finding.kind}: {subject}{finding.sentence}".split())

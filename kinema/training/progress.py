"""What a training shows while it runs."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TrainingProgress:
    """A line with loss, rate, clips per second, share of time spent waiting for data, and the time left.

    Where the output is no terminal, a line is printed at each evaluation instead.

    Args:
        steps: of the whole training.
        done: steps that a resumed run has behind it.
        shown: whether anything is: of several processes one speaks.
    """

    def __init__(self, *, steps: int, done: int, shown: bool = True) -> None:
        self.console = Console(stderr=True, quiet=not shown, markup=False)  # a path may hold what looks like it
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=steps, completed=done)

    def __enter__(self) -> "TrainingProgress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def say(self, *lines: str) -> None:
        """Print lines above the progress."""
        for line in lines:
            self.console.print(line, highlight=False, soft_wrap=True)

    def step(self, *, loss: float, lr: float, clips_per_s: float, data_wait: float) -> None:
        self.bar.update(
            self.task,
            advance=1,
            description=f"loss {loss:.3f}  lr {lr:.2g}  {clips_per_s:.1f} clips/s  waiting for data {data_wait:.0%}",
        )

    def evaluated(self, *, step: int, measures: dict[str, float], skipped: list[dict[str, Any]]) -> None:
        """Print an evaluation, and what training has skipped up to it."""
        numbers = "  ".join(f"{name} {value:.1f}" for name, value in measures.items())
        count = f"  (skipped {len(skipped)} draws of {len({line['index'] for line in skipped})} samples)"
        self.say(f"step {step}: {numbers}{count if skipped else ''}")

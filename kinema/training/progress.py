"""Progress bar of a training run on the terminal."""

import logging
import sys
from types import TracebackType

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kinema.terminal import TerminalConsole


class TrainingProgress(logging.Handler):
    """Progress bar on stderr from step `done` on, with the messages of the logger `kinema` above it.

    Prints only the messages if stderr is not a terminal, and nothing if not `shown`. Messages that another handler
    prints on stderr are not printed again, and a level that hides messages hides the bar.
    """

    def __init__(self, *, steps: int, done: int, shown: bool = True) -> None:
        super().__init__()
        self._logger = logging.getLogger("kinema")
        is_quiet = self._logger.level > logging.INFO
        # Without markup, because a path may contain brackets, and without wrapping.
        self.console = TerminalConsole(stderr=True, quiet=is_quiet or not shown, markup=False, soft_wrap=True)
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
        self._before = (self._logger.level, self._logger.propagate)
        self._logger.propagate = False  # do not print messages again through the root logger
        if not any(getattr(handler, "stream", None) is sys.stderr for handler in self._logger.handlers):
            self._logger.setLevel(self._logger.level or logging.INFO)
            self._logger.addHandler(self)
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        self._logger.removeHandler(self)
        self._logger.setLevel(self._before[0])
        self._logger.propagate = self._before[1]

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message above the bar."""
        self.console.print(record.getMessage(), highlight=False)

    def step(self, *, loss: float, lr: float, clips_per_s: float, data_wait: float) -> None:
        """Advance the bar by one step."""
        self.bar.update(
            self.task,
            advance=1,
            description=f"loss {loss:.3f}  lr {lr:.2g}  {clips_per_s:.1f} clips/s  waiting for data {data_wait:.0%}",
        )

"""Messages of commands: the logger `kinema` on standard error. Results go to standard output."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kinema.errors import UsageError

LEVELS = ("debug", "info", "warning", "error")
"""Values of --log-level, the most talkative one first."""


def split_log_level(args: Sequence[str]) -> tuple[list[str], int]:
    """Return the arguments without --quiet and --log-level, and the level that they set; the last one counts.

    Raises:
        UsageError: --log-level has no value or an unknown one.
    """
    rest: list[str] = []
    level = "info"
    values = iter(args)
    for arg in values:
        name, equals, value = arg.replace("_", "-", 1).partition("=")
        if arg == "--quiet":
            level = "warning"
        elif name == "--log-level":
            level = (value if equals else next(values, "")).lower()
            if level not in LEVELS:
                raise UsageError(f"--log-level {level!r}; expected one of {', '.join(LEVELS)}", field="--log-level")
        else:
            rest.append(arg)
    return rest, logging.getLevelNamesMapping()[level.upper()]


@contextmanager
def messages_on_stderr(level: int) -> Iterator[None]:
    """Print the messages of the logger `kinema` from this level on inside the `with` block."""
    logger, handler = logging.getLogger("kinema"), _StderrHandler()
    before = (logger.level, logger.propagate)
    logger.setLevel(level)
    logger.propagate = False  # do not print messages again through the root logger
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


class _StderrHandler(logging.StreamHandler[Any]):
    """Handler of the standard error of the moment, which a progress bar replaces."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        """Standard error."""
        return sys.stderr

    def format(self, record: logging.LogRecord) -> str:
        """Return the message; a warning or an error begins as those of the shell do, with the program."""
        from kinema.terminal import printable

        prefix = "kinema: " if record.levelno >= logging.WARNING else ""
        return prefix + printable(record.getMessage(), getattr(self.stream, "encoding", None) or "utf-8")

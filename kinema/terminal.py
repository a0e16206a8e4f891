"""Text on the terminal: names from files and folders cannot move the cursor, add lines or reverse the text."""

import json
import re
import sys
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, marks that change the direction of text, and bytes that are not text."""


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""Return a text on one line; control characters, and what an encoding lacks, are escaped as in JSON (`\n`)."""
    text = CONTROL.sub(lambda found: _escape(found[0]), text)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = "".join(c if c == c.encode(encoding, "ignore").decode(encoding) else _escape(c) for c in text)
    return text


def echo(line: str = "", *, to: Literal["stdout", "stderr"] = "stdout") -> None:
    """Print one line to standard output or standard error."""
    stream = sys.stdout if to == "stdout" else sys.stderr
    print(printable(line, stream.encoding or "utf-8"), file=stream)


def echo_data(lines: str) -> None:
    """Print lines of data to standard output: as they are for another program, and as `echo` does on a terminal."""
    if sys.stdout.isatty():
        for line in lines.removesuffix("\n").split("\n"):
            echo(line)
    else:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(lines.encode(encoding, "backslashreplace").decode(encoding))


class TerminalConsole(Console):
    """Console that prints all strings, those in the cells of tables too, as `echo` does."""

    def render_str(self, text: str, *args: Any, **options: Any) -> Text:
        """Return a string as text to be printed."""
        return super().render_str(printable(text, self.encoding), *args, **options)


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1]

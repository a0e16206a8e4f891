"""Base class of commands, and the types of options that several commands share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from kinema.cli.help import HELP_FLAGS, options_of, print_help, summary_of
from kinema.cli.parsing import parse_options
from kinema.errors import UsageError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
OwnNetwork = Annotated[str, arg(name="model")]
"""Option --model, beside the positional argument MODEL."""
BootstrapUnit = Literal["auto", "clip", "group", "subject"]


class Command(ABC):
    """Base class of commands, whose subclasses are frozen dataclasses of their options.

    Attributes:
        EXAMPLE: Command line of the help page, after the name of the command.
        GROUPS: Headings of the help page, each with the fields below it; other fields are listed under "Options".
    """

    EXAMPLE: ClassVar[str]
    GROUPS: ClassVar[Mapping[str, Sequence[str]]] = {}

    @classmethod
    def from_args(cls, args: Sequence[str], prog: str) -> "Command":
        """Parse a command line; print the help page and exit if that is requested."""
        if set(args) & set(HELP_FLAGS):
            cls.print_help(prog)
            raise SystemExit(0)
        return parse_options(cls, args, prog)

    @classmethod
    def print_help(cls, prog: str) -> None:
        """Print the help page."""
        summary, details = summary_of(cls)
        print_help(prog, summary=summary, details=details, example=f"{prog} {cls.EXAMPLE}", options=options_of(cls))

    @abstractmethod
    def run(self) -> int:
        """Run the command and return its exit code."""


def at_least_one(option: str, value: int) -> None:
    """Raise UsageError if the value of an option is below 1."""
    if value < 1:
        raise UsageError(f"{option} {value}; expected at least 1", field=option)

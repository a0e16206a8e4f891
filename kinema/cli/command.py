"""What all commands share: the base class, and options that several have."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from kinema.cli.parsing import parse_options

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
BootstrapUnit = Literal["clip", "group", "subject"]


class Command(ABC):
    """Base class of commands, whose subclasses are frozen dataclasses of their options."""

    @classmethod
    def from_args(cls, args: Sequence[str], prog: str) -> "Command":
        """Parse the options of a command line."""
        return parse_options(cls, args, prog)

    @abstractmethod
    def run(self) -> int:
        """Run the command and return its exit code."""

"""The command `prepare`: a subcommand per data set, with the options of that data set alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinema.cli.command import Command
from kinema.cli.parsing import parse_options
from kinema.datasets.registry import DATASETS, load_dataset
from kinema.errors import UsageError

if TYPE_CHECKING:
    from kinema.datasets.options import DatasetOptions


@dataclass(frozen=True, kw_only=True)
class Prepare(Command):
    """Make a manifest of your own videos or of a public data set.

    Args:
        dataset: Name of the data set.
        options: Its options.
    """

    dataset: str
    options: "DatasetOptions"

    @classmethod
    def from_args(cls, args: Sequence[str], prog: str) -> "Prepare":
        """Parse the options of the data set that the first argument names."""
        if args and args[0] in ("-h", "--help"):
            print(_overview(prog))
            raise SystemExit(0)
        if not args:
            raise UsageError(f"prepare: no data set given; expected one of {', '.join(DATASETS)}", field="dataset")
        name, *rest = args
        kind, _ = load_dataset(name)
        return cls(dataset=name, options=parse_options(kind, rest, f"{prog} {name}"))

    def run(self) -> int:
        """Write the manifest and print what it holds."""
        _, prepare = load_dataset(self.dataset)
        prepared = prepare(self.options)
        for note in prepared.notes:
            print(note)
        for reason in prepared.unreadable:
            print(f"unreadable: {reason}")
        print(prepared.summary)
        return 0


def _overview(prog: str) -> str:
    width = max(map(len, DATASETS))
    return "\n".join(
        [
            "Make a manifest of your own videos or of a public data set.",
            "",
            f"Usage: {prog} DATASET [OPTIONS]",
            "",
            *(f"  {name:<{width}}  {dataset.summary}" for name, dataset in DATASETS.items()),
            "",
            f"`{prog} DATASET --help` shows its options.",
        ]
    )

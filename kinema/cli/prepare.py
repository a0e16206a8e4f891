"""The command `prepare`: a subcommand per data set, with the options of that data set alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinema.cli.command import Command
from kinema.cli.parsing import parse_options
from kinema.datasets.registry import get_dataset, list_datasets
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
            names = ", ".join(list_datasets())
            raise UsageError(f"prepare: no dataset given; expected one of {names}", field="dataset")
        name, *rest = args
        return cls(dataset=name, options=parse_options(get_dataset(name).options, rest, f"{prog} {name}"))

    def run(self) -> int:
        """Write the manifest and print what it holds."""
        prepared = get_dataset(self.dataset).prepare(self.options)
        for note in prepared.notes:
            print(note)
        for reason in prepared.unreadable:
            print(f"unreadable: {reason}")
        print(prepared.summary)
        return 0


def _overview(prog: str) -> str:
    datasets = list_datasets()
    width = max(map(len, datasets))
    return "\n".join(
        [
            "Make a manifest of your own videos or of a public data set.",
            "",
            f"Usage: {prog} DATASET [OPTIONS]",
            "",
            *(f"  {name:<{width}}  {dataset.summary}" for name, dataset in datasets.items()),
            "",
            f"`{prog} DATASET --help` shows its options.",
        ]
    )

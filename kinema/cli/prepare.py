"""Command `prepare`: one subcommand per dataset, each with its own options."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinema.cli.app import COMMANDS, print_overview
from kinema.cli.command import Command
from kinema.cli.help import HELP_FLAGS, options_of, print_help
from kinema.cli.parsing import parse_options
from kinema.datasets.registry import get_dataset, list_datasets
from kinema.errors import UsageError
from kinema.terminal import echo

if TYPE_CHECKING:
    from kinema.datasets.options import DatasetOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Prepare(Command):
    """Make a manifest of your own videos or of a public dataset.

    Attributes:
        dataset: Name of the dataset.
        options: Options of the dataset.
    """

    dataset: str
    options: "DatasetOptions"

    @classmethod
    def from_args(cls, args: Sequence[str], prog: str) -> "Prepare":
        """Parse the options of the dataset that the first argument names."""
        if args and args[0] in HELP_FLAGS:
            summary, example = COMMANDS["prepare"].summary, "folder --root videos --out mine.csv"
            own = {name: spec for name, spec in list_datasets().items() if spec.is_own}
            public = {name: spec for name, spec in list_datasets().items() if not spec.is_own}
            groups = {"Your own data": own, "Public datasets": public}
            print_overview(prog, "DATASET", summary=summary, example=example, groups=groups)
            raise SystemExit(0)
        if not args:
            raise UsageError(
                f"prepare: no dataset given; expected one of {', '.join(list_datasets())}", field="dataset"
            )
        name, *rest = args
        dataset, prog = get_dataset(name), f"{prog} {name}"
        if set(rest) & set(HELP_FLAGS):
            summary = f"Make a manifest of {dataset.summary.replace('Your', 'your')}"
            root = f"table.{name}" if name in ("csv", "json") else "videos"
            example = f"{prog} --root {root} --out {'mine' if 'your' in summary else name}.csv"
            print_help(prog, summary=summary, example=example, options=options_of(dataset.options))
            raise SystemExit(0)
        return cls(dataset=name, options=parse_options(dataset.options, rest, prog))

    def run(self) -> int:
        """Write the manifest and print its summary."""
        prepared = get_dataset(self.dataset).prepare(self.options)
        for note in prepared.notes:
            logger.info("%s", note)
        for reason in prepared.unreadable:
            logger.warning("unreadable: %s", reason)
        echo(prepared.summary)
        if prepared.unreadable:
            logger.warning(
                "Training stops at files that cannot be read. Leave them out: `kinema check` lists them in "
                "bad_files.txt, `kinema prepare ... --exclude bad_files.txt` makes the manifest without them. Or pass "
                "--data.unreadable skip to `kinema train`, which skips training samples."
            )
        return 0

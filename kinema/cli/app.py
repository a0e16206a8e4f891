"""Table of commands, and `main`, which loads and runs one of them.

Only the command that runs is imported: `kinema --help` needs neither torch nor tyro.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kinema import __version__
from kinema.errors import KinemaError, TrainingStopped, UsageError, did_you_mean

if TYPE_CHECKING:
    from kinema.cli.command import Command
    from kinema.datasets.registry import DatasetSpec


class CommandLine(NamedTuple):
    """Line of `kinema --help`: `module:Class` of a command in this package, and the summary in its docstring."""

    options: str
    summary: str


COMMANDS = {
    "demo": CommandLine("demo:Demo", "Train, evaluate, predict and report on the built-in dataset, in minutes."),
    "models": CommandLine("models:Models", "List the models, or show the parameters and multiply-adds of one."),
    "prepare": CommandLine("prepare:Prepare", "Make a manifest of your own videos or of a public dataset."),
    "check": CommandLine("data:Check", "Decode every file of a manifest once and report what is wrong."),
    "pack": CommandLine("data:Pack", "Re-encode a dataset once for fast reading."),
    "sampling": CommandLine("data:Sampling", "Print the frames that a recipe samples from a video."),
    "train": CommandLine("train:Train", "Train a model from a recipe."),
    "runs": CommandLine("train:Runs", "List the runs of a folder, or compare two by their predictions."),
    "evaluate": CommandLine("evaluate:Evaluate", "Evaluate a model on a manifest, or summarize stored predictions."),
    "submit": CommandLine("evaluate:Submit", "Write stored predictions as a challenge submission."),
    "fuse": CommandLine("models:Fuse", "Fuse an RGB model and a depth model into one two-stream model."),
    "predict": CommandLine("predict:Predict", "Predict the action in videos: ranked labels as text, JSON or CSV."),
    "render": CommandLine("data:Render", "Render RGB-D clips of people in motion; needs the extra [render]."),
}
"""Commands by name. A new command needs its class and a line here."""


def main(args: Sequence[str] | None = None) -> None:
    """Run one command.

    Exit codes: 0 on success, 1 if a check found faults, 2 for bad input, 130 for an interrupt, 141 for a closed pipe,
    128 + N if signal N stopped a training.

    Args:
        args: Command and options; those of the process if None.
    """
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    code = 0
    try:
        if not args or args[0] in ("-h", "--help", "--help-all", "help"):
            summary = "Recognize human actions in video: color, depth, or both."
            print_overview("kinema", "COMMAND", summary=summary, example="predict runs/latest new.mp4", rows=COMMANDS)
        elif args[0] == "--version":
            print(f"kinema {__version__}")
        else:
            code = load_command(args[0]).from_args(args[1:], f"kinema {args[0]}").run()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # e.g. `kinema predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except TrainingStopped as stopped:
        _print_error(stopped)
        sys.exit(128 + stopped.signal)
    except Exception as error:
        if debug or not isinstance(error, (KinemaError, OSError)):
            raise
        _print_error(error)
        sys.exit(2)
    if code:
        sys.exit(code)


def _print_error(error: Exception) -> None:
    from kinema.terminal import echo

    echo(f"kinema: {error}", to="stderr")


def load_command(name: str) -> "type[Command]":
    """Import the class of a command.

    Raises:
        UsageError: No command has this name.
    """
    if name not in COMMANDS:
        raise UsageError(f"unknown command {name!r}; {did_you_mean(name, COMMANDS)}", field=name)
    module_name, _, class_name = COMMANDS[name].options.partition(":")
    command: type[Command] = getattr(importlib.import_module(f"kinema.cli.{module_name}"), class_name)
    return command


def print_overview(
    prog: str, argument: str, *, summary: str, example: str, rows: Mapping[str, "CommandLine | DatasetSpec[Any]"]
) -> None:
    """Print the help page of a command with subcommands; `argument` is their placeholder."""
    print(f"{summary}\n\nUsage:   {prog} {argument} [OPTIONS]\nExample: {prog} {example}\n\n{argument.title()}s:")
    for name, row in rows.items():
        print(f"  {name:<{max(map(len, rows))}}  {row.summary}")
    print(f"\n`{prog} {argument} --help` lists its options. --debug prints the traceback of an error.")

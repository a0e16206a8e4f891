"""Table of commands, and `main`, which loads and runs one of them.

Only the command that runs is imported: `kinema --help` needs neither torch nor tyro.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kinema import __version__
from kinema.cli.messages import messages_on_stderr, split_log_level
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
"""Commands by name. A new command needs its class, a line here and a place in `GROUPS`."""

GROUPS = {
    "Start": ("demo", "models"),
    "Data": ("prepare", "check", "pack", "sampling", "render"),
    "Training": ("train", "runs"),
    "Evaluation": ("evaluate", "submit"),
    "Trained models": ("predict", "fuse"),
}
"""Headings of `kinema --help`, each with the commands below it."""


COMMON_OPTIONS = (
    "All commands take --quiet (results, warnings and errors only), --log-level LEVEL\n"
    "(debug, info, warning or error), and --debug (the traceback of an error)."
)


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
        args, level = split_log_level(args)
        with messages_on_stderr(level):
            code = run_command(args)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # e.g. `kinema predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except TrainingStopped as stopped:
        _print_error(stopped)
        sys.exit(128 + stopped.signal)
    except Exception as error:
        if debug or not isinstance(error, (KinemaError, OSError)) or _is_from_own_network(error):
            raise
        _print_error(error)
        sys.exit(2)
    if code:
        sys.exit(code)


def run_command(args: Sequence[str]) -> int:
    """Run the command that the first argument names, or print an overview, and return the exit code."""
    if not args or args[0] in ("-h", "--help", "--help-all", "help"):
        summary = "Recognize human actions in video: color, depth, or both."
        groups = {title: {name: COMMANDS[name] for name in names} for title, names in GROUPS.items()}
        print_overview("kinema", "COMMAND", summary=summary, example="predict runs/latest new.mp4", groups=groups)
        return 0
    if args[0] == "--version":
        print(f"kinema {__version__}")
        return 0
    return load_command(args[0]).from_args(args[1:], f"kinema {args[0]}").run()


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


def _is_from_own_network(error: Exception) -> bool:
    """Return whether an error passed through a network of the user's own, whose traceback the user needs."""
    torch = sys.modules.get("torch")
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [owner for owner in owners if torch is not None and isinstance(owner, torch.nn.Module)]
    return any(type(m).__module__.partition(".")[0] not in ("kinema", "torch", "lightning_fabric") for m in modules)


def print_overview(
    prog: str,
    argument: str,
    *,
    summary: str,
    example: str,
    groups: Mapping[str, Mapping[str, "CommandLine | DatasetSpec[Any]"]],
) -> None:
    """Print the help page of a command with subcommands, in groups; `argument` is their placeholder."""
    print(f"{summary}\n\nUsage:   {prog} {argument} [OPTIONS]\nExample: {prog} {example}")
    width = max(len(name) for rows in groups.values() for name in rows)
    for title, rows in groups.items():
        print(f"\n{title}:")
        for name, row in rows.items():
            print(f"  {name:<{width}}  {row.summary}")
    print(f"\n`{prog} {argument} --help` lists its options.\n{COMMON_OPTIONS}")

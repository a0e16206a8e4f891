"""Parsing of command-line arguments into typed options; every error is one line that names the option."""

import contextlib
import difflib
import io
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from kinema.cli.help import options_of
from kinema.errors import KinemaError, UsageError

Options = TypeVar("Options")

SHORT_READ = re.compile(r"^--(data\.)?read\.")
"""Short form of the options for reading files."""


def parse_options(kind: type[Options], args: Sequence[str], prog: str) -> Options:
    """Parse options and refuse any unknown one; `prog` is the command, as in `kinema evaluate`.

    `--read.` is short for `--read-options.`.

    Raises:
        UsageError: An option is unknown, missing or has an invalid value.
        KinemaError: The dataclass refuses its values.
    """
    try:
        options, unknown = parse_known_options(kind, args, prog)
    except UsageError as error:  # a misspelled option may cause an error in the argument after it
        names = {option.name for option in options_of(kind)}
        misspelled = [arg for arg in args if arg.startswith("--") and _name(arg) not in names]
        raise (unknown_option(misspelled[0], kind, prog) if misspelled else error) from None
    if unknown:
        raise unknown_option(unknown[0], kind, prog)
    return options


def parse_known_options(
    kind: type[Options], args: Sequence[str], prog: str, default: Options | None = None
) -> tuple[Options, list[str]]:
    """Parse options, and return them with the unknown arguments; `default` has the values of omitted options.

    Raises:
        UsageError: An option is missing or has an invalid value.
        KinemaError: The dataclass refuses its values.
    """
    owner = kind if default is None else default
    args = [SHORT_READ.sub(r"--\1read-options.", arg) for arg in args]
    try:
        with _raise_parse_errors(owner, args, prog), contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(
                kind,
                default=tyro.MISSING_NONPROP if default is None else default,
                args=list(args),
                prog=prog,
                return_unknown_args=True,
                add_help=False,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if not stop.code:  # e.g. --tyro-print-completion
            raise
        raise UsageError(f"{_short(prog)}: invalid options. See `{prog} --help`.") from None


def unknown_option(option: str, owner: Any, prog: str) -> UsageError:
    """Return the error for an argument that matches no option of a dataclass or an instance of one."""
    names = [o.name for o in options_of(owner) if o.name.startswith("--")]
    near = difflib.get_close_matches(_name(option), names, n=1)
    if not near:  # `--lr` for `--optim.lr`
        by_last_part = {name.split(".")[-1].lstrip("-"): name for name in names}
        last = difflib.get_close_matches(_name(option).split(".")[-1].lstrip("-"), by_last_part, n=1)
        near = [by_last_part[part] for part in last]
    hint = f"did you mean {near[0]!r}?" if near else f"see `{prog} --help`"
    what = "option" if option.startswith("-") else "argument"
    return UsageError(f"{_short(prog)}: unknown {what} {option!r}; {hint}", field=option)


@contextlib.contextmanager
def _raise_parse_errors(owner: Any, args: Sequence[str], prog: str) -> Iterator[None]:
    """Make tyro raise a one-line error instead of printing a box.

    The hook is not in tyro's public interface. Without it an error is still reported, but names no option.
    """
    try:
        from tyro import _errors as tyro_errors
    except ImportError:
        yield
        return

    def invalid_value(argument: Any, expected: str = "", value: str = "") -> UsageError:
        name = argument.display_name()
        values = {option.name: option.values for option in options_of(owner)}
        expected = expected or values.get(name) or argument.lowered.metavar
        return UsageError(
            f"{_short(prog)}: {name}{_quoted_values(name, args) or value}; expected {expected}", field=name
        )

    def raise_error(event: tyro_errors.ParseErrorEvent) -> None:
        match event:
            case tyro_errors.MissingArgs():
                unknown = [token for token in event.unrecognized_tokens if token.startswith("--")]
                if unknown:
                    raise unknown_option(unknown[0], owner, prog)
                names = [argument.arg.display_name() for argument in event.missing_arguments]
                raise UsageError(f"{_short(prog)}: missing {', '.join(names)}. See `{prog} --help`.", field=names[0])
            case tyro_errors.InvalidChoice():
                raise invalid_value(event.argument, f"one of {', '.join(event.choices)}", f" {event.value!r}")
            case tyro_errors.BadValue():
                raise invalid_value(event.argument)
            case tyro_errors.InstantiationFailure():
                cause = sys.exception()
                for error in (cause, cause.__context__ if cause else None):
                    if isinstance(error, KinemaError):
                        raise error
                if event.argument is not None:
                    raise invalid_value(event.argument)
                raise UsageError(f"{_short(prog)}: {event.message.splitlines()[0]}")

    with tyro_errors.on_parse_error(raise_error):
        yield


def _name(arg: str) -> str:
    """Return the name of an option as typed, without its value, in the spelling of the help."""
    return arg.split("=")[0].replace("_", "-")


def _quoted_values(name: str, args: Sequence[str]) -> str:
    """Return the values of an option as typed, each in quotes after a space."""
    for number, arg in enumerate(args):
        if _name(arg) == name:
            rest = itertools.takewhile(lambda value: not value.startswith("--"), args[number + 1 :])
            return "".join(f" {value!r}" for value in arg.split("=", 1)[1:] or rest)
    return ""


def _short(prog: str) -> str:
    """Return the command without `kinema`, since every message starts with it."""
    return prog.removeprefix("kinema ")

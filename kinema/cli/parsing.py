"""Command-line arguments to typed options; any fault becomes one line that names the option and the nearest one."""

import contextlib
import difflib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args

import tyro
from tyro.conf import Positional

from kinema.errors import KinemaError, UsageError

Options = TypeVar("Options")
POSITIONAL = get_args(Positional[int])[1]
"""The marker by which tyro knows positional arguments."""


def parse_options(kind: type[Options], args: Sequence[str], prog: str) -> Options:
    """Parse options and refuse any unknown one.

    Args:
        kind: dataclass of the options.
        args: arguments after the name of the command.
        prog: the command, as in `kinema evaluate`.

    Raises:
        UsageError: an option is unknown, missing or has an invalid value.
        KinemaError: the dataclass refuses its values.
    """
    try:
        options, unknown = parse_known_options(kind, args, prog)
    except UsageError as error:  # a misspelled option may surface as a fault of the argument after it
        known = {"--help", *option_names(kind)}
        names = [arg for arg in args if arg.startswith("--") and _name(arg) not in known]
        raise (unknown_option(names[0], kind, prog) if names else error) from None
    if unknown:
        raise unknown_option(unknown[0], kind, prog)
    return options


def parse_known_options(
    kind: type[Options], args: Sequence[str], prog: str, default: Options | None = None
) -> tuple[Options, list[str]]:
    """Parse options, and return them with the arguments that belong to none.

    Args:
        kind: dataclass of the options.
        args: arguments after the name of the command.
        prog: the command, as in `kinema evaluate`.
        default: values of the options that are not given; those of the class if None.

    Raises:
        UsageError: an option is missing or has an invalid value.
        KinemaError: the dataclass refuses its values.
    """
    owner = kind if default is None else default
    try:
        with _faults_raised(owner, prog), contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(
                kind,
                default=tyro.MISSING_NONPROP if default is None else default,
                args=list(args),
                prog=prog,
                return_unknown_args=True,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise  # --help was given, and has been printed
        raise UsageError(f"{_short(prog)}: invalid options; see `{prog} --help`") from None


def unknown_option(option: str, owner: Any, prog: str) -> UsageError:
    """Return the error for an argument that is none of the options.

    Args:
        option: argument as given.
        owner: dataclass of the options, or an instance of it.
        prog: the command, as in `kinema evaluate`.
    """
    known = option_names(owner)
    name = _name(option)
    near = difflib.get_close_matches(name, known, n=1)
    if not near:  # `--learning-rate` for `--optim.lr` is out of reach, `--lr` is not
        by_last_part = {known_name.split(".")[-1].lstrip("-"): known_name for known_name in known}
        last = difflib.get_close_matches(name.split(".")[-1].lstrip("-"), by_last_part, n=1)
        near = [by_last_part[part] for part in last]
    hint = f"did you mean {near[0]!r}?" if near else f"see `{prog} --help`"
    what = "option" if option.startswith("-") else "argument"
    return UsageError(f"{_short(prog)}: unknown {what} {option!r}; {hint}", field=option)


def _name(option: str) -> str:
    """Return the name of an option as given, without its value, in the spelling of the help."""
    return option.split("=")[0].replace("_", "-")


def option_names(owner: Any, prefix: str = "--") -> list[str]:
    """Return the name of every option of a dataclass or an instance of one, nested ones included."""
    found: list[str] = []
    for field in fields(owner):
        name = f"{prefix}{field.name.replace('_', '-')}"
        if isinstance(owner, type) and field.default_factory is not MISSING:
            value = field.default_factory()
        else:
            value = getattr(owner, field.name, None)
        if is_dataclass(value):
            found += option_names(value, f"{name}.")
        elif POSITIONAL not in getattr(field.type, "__metadata__", ()):
            found.append(name)
    return found


@contextlib.contextmanager
def _faults_raised(owner: Any, prog: str) -> Iterator[None]:
    """Have tyro raise a one-line error for a fault in the arguments, instead of printing a box.

    The hook is not in tyro's public interface. Without it a fault is still reported, but not named.
    """
    try:
        from tyro import _errors as tyro_errors
    except ImportError:
        yield
        return

    def raise_fault(event: tyro_errors.ParseErrorEvent) -> None:
        match event:
            case tyro_errors.MissingArgs():
                unknown = [token for token in event.unrecognized_tokens if token.startswith("--")]
                if unknown:
                    raise unknown_option(unknown[0], owner, prog)
                names = [argument.arg.display_name() for argument in event.missing_arguments]
                raise UsageError(f"{_short(prog)}: missing {', '.join(names)}; see `{prog} --help`", field=names[0])
            case tyro_errors.InvalidChoice():
                name = event.argument.display_name()
                choices = ", ".join(event.choices)
                raise UsageError(f"{_short(prog)}: {name} {event.value}; expected one of {choices}", field=name)
            case tyro_errors.BadValue():
                name = event.argument.display_name()
                raise UsageError(f"{_short(prog)}: {name}; expected {event.argument.lowered.metavar}", field=name)
            case tyro_errors.InstantiationFailure():
                cause = sys.exception()
                for error in (cause, cause.__context__ if cause else None):
                    if isinstance(error, KinemaError):
                        raise error
                at_fault = None if event.argument is None else event.argument.display_name()
                reason = event.message.splitlines()[0]
                raise UsageError(f"{_short(prog)}: {at_fault or 'options'}: {reason}", field=at_fault)

    with tyro_errors.on_parse_error(raise_fault):
        yield


def _short(prog: str) -> str:
    """Return the command without the `kinema` that begins every message."""
    return prog.removeprefix("kinema ")

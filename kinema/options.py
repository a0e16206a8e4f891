"""The words of a command line as typed options; what is wrong with them is said in one line."""

import contextlib
import difflib
import io
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import TypeVar

from kinema.errors import UsageError

Parsed = TypeVar("Parsed")


def parse(kind: type[Parsed], words: Sequence[str], name: str) -> Parsed:
    """The options of a command; a word that is none of them is an error."""
    options, unknown = read(kind, None, words, f"kinema {name}")
    if unknown:
        known = [f"--{field.name.replace('_', '-')}" for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
        raise UsageError(f"kinema {name}: unknown option {unknown[0]!r}; {nearest(unknown[0], known)}")
    return options


def read(kind: type[Parsed], default: Parsed | None, words: Sequence[str], name: str) -> tuple[Parsed, list[str]]:
    """Options, and words that fit none; what tyro says in a box over several lines becomes one line."""
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                default=tyro.MISSING_NONPROP if default is None else default,
                args=list(words),
                prog=name,
                return_unknown_args=True,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise  # help was asked for, and has been printed
        lines = [line.strip(" \u2500\u2502\u256d\u256e\u2570\u256f") for line in said.getvalue().splitlines()]
        sentence = " ".join(filter(None, lines)).split("For full helptext")[0].strip()
        raise UsageError(f"{sentence}; `{name} --help` lists what there is") from None


def option_names(section: object, prefix: str = "--") -> list[str]:
    """Every option that a nested dataclass has on the command line."""
    found: list[str] = []
    if is_dataclass(section):
        for field in fields(section):
            inner = option_names(getattr(section, field.name), f"{prefix}{field.name.replace('_', '-')}.")
            found += inner or [f"{prefix}{field.name.replace('_', '-')}"]
    return found


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint: the option whose name is nearest, first by the whole, then by its last part."""
    bare = word.split("=")[0].replace("_", "-")
    near = difflib.get_close_matches(bare, known, n=1)
    if not near:
        last = {name.split(".")[-1].lstrip("-"): name for name in known}
        near = [last[found] for found in difflib.get_close_matches(bare.split(".")[-1].lstrip("-"), last, n=1)]
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def pairs(text: str) -> dict[str, str]:
    """`a=b,c=d` as a mapping."""
    found = {}
    for part in filter(None, text.split(",")):
        column, equals, name = part.partition("=")
        if not equals or not column or not name:
            raise UsageError(f"--columns: {part!r} is not of the form column=name")
        found[column.strip()] = name.strip()
    return found

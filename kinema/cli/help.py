"""Help pages: one imperative line, an example, then the options in groups with their defaults."""

import functools
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from docstring_parser.google import parse
from tyro.conf import Positional, Suppress

from kinema.cli.messages import LEVELS

HELP_FLAGS = ("-h", "--help", "--help-all")
MARKER = {"positional": get_args(Positional[int])[1], "hidden": get_args(Suppress[int])[1]}
"""Markers of positional and hidden arguments in annotations of tyro."""
PLACEHOLDERS = {Path: "PATH", str: "TEXT", int: "INT", float: "FLOAT"}
MAX_NAME_WIDTH = 38


class Option(NamedTuple):
    """Option or positional argument of a command.

    Attributes:
        name: `--optim.lr` for an option, `MODEL` for a positional argument.
        values: Placeholder or choices of its values; empty for a flag.
        help: Description.
        default: Default as typed on the command line; empty for an empty default or a flag that is off.
        group: Heading in the help page; empty for the command's own options.
    """

    name: str
    values: str
    help: str
    default: str
    group: str

    @property
    def usage(self) -> str:
        """Name and values, as shown on the left of a help page."""
        if not self.name.startswith("--"):
            return self.name
        if not self.values and self.default:  # a flag that is on by default
            section, _, name = self.name.removeprefix("--").rpartition(".")
            return f"--{section}{'.' if section else ''}no-{name}"
        return f"{self.name} {self.values}".rstrip()


MESSAGES = (
    Option("--quiet", "", "Print results, warnings and errors only.", "", "Messages"),
    Option(
        "--log-level",
        f"{{{','.join(LEVELS)}}}",
        "Least severe messages to print on standard error.",
        "info",
        "Messages",
    ),
    Option("--debug", "", "Print the traceback of an error.", "", "Messages"),
)
"""Options of all commands, which `main` takes out of the arguments."""


def options_of(owner: Any, prefix: str = "--", group: str = "") -> Iterator[Option]:
    """Yield all options of a dataclass, or of an instance, whose values are then the defaults; nested ones too."""
    kind = owner if isinstance(owner, type) else type(owner)
    hints, docs = get_type_hints(kind, include_extras=True), _field_docs(kind)
    headings = {name: title for title, names in getattr(kind, "GROUPS", {}).items() for name in names}
    for field in fields(kind):
        markers = getattr(hints[field.name], "__metadata__", ())
        if MARKER["hidden"] in markers:
            continue
        own_name = next((marker.name for marker in markers if hasattr(marker, "metavar")), None)
        name, default = f"{prefix}{(own_name or field.name).replace('_', '-')}", _default(owner, field)
        description, heading = docs.get(field.name, ""), headings.get(field.name, group)
        shown = "" if default is None and isinstance(owner, type) else _typed_default(default)
        if is_dataclass(default):
            yield from options_of(default, f"{name}.", first_sentence(description).rstrip("."))
        elif MARKER["positional"] in markers:
            values = _values(hints[field.name])
            required = default is MISSING
            label = field.name.upper() + (" ..." if values.endswith("...") else "")
            yield Option(label if required else f"[{label}]", values, description, shown, "Arguments")
        else:
            required_note = " [required]" if default is MISSING else ""
            yield Option(name, _values(hints[field.name]), description + required_note, shown, heading)


def print_help(
    prog: str, *, summary: str, example: str, options: Iterable[Option], details: str = "", footer: str = ""
) -> None:
    """Print a help page; groups of options are in the order in which they first appear."""
    width = shutil.get_terminal_size((100, 24)).columns
    options = [*options, *MESSAGES]
    positional = [option.usage for option in options if option.group == "Arguments"]
    print("\n".join(textwrap.wrap(summary, width)))
    print(f"\nUsage:   {' '.join([prog, *positional, '[OPTIONS]'])}\nExample: {example}")
    for paragraph in filter(None, details.split("\n\n")):
        is_block = any(line.startswith(" ") for line in paragraph.splitlines())
        print("\n" + (paragraph if is_block else textwrap.fill(paragraph, width)))
    column = min(max(len(option.usage) for option in options), MAX_NAME_WIDTH) + 4
    for group in dict.fromkeys(option.group for option in options):
        print(f"\n{group or 'Options'}:")
        for option in (option for option in options if option.group == group):
            default = f" [default:\xa0{option.default}]" if option.default and option.values else ""
            text = textwrap.wrap(option.help + default, max(width - column, 20), break_on_hyphens=False) or [""]
            if len(option.usage) + 4 > column:
                print(f"  {option.usage}")
            else:
                print(f"  {option.usage:<{column - 2}}{text.pop(0)}".replace("\xa0", " "))
            for line in text:
                print(" " * column + line.replace("\xa0", " "))
    if footer:
        print("\n" + footer)


def summary_of(kind: type) -> tuple[str, str]:
    """Return the first line of a class's docstring, and its other paragraphs without the sections."""
    doc = parse(kind.__doc__ or "")
    return doc.short_description or "", doc.long_description or ""


def first_sentence(text: str) -> str:
    """Return a text up to its first period."""
    head, period, _ = text.partition(". ")
    return head + period.strip()


@functools.cache
def _field_docs(kind: type) -> Mapping[str, str]:
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        params = parse(base.__doc__ or "").params if is_dataclass(base) else ()
        docs |= {param.arg_name: " ".join((param.description or "").split()) for param in params}
    return docs


def _default(owner: Any, field: "Field[Any]") -> Any:
    if not isinstance(owner, type):
        return getattr(owner, field.name)
    return field.default if field.default_factory is MISSING else field.default_factory()


def _values(annotation: Any) -> str:
    """Return the placeholder of an option's values, such as `INT`, `{stop,skip}` or `TEXT ...`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(args[0])
    if origin is Literal:
        return "{" + ",".join(map(str, args)) + "}"
    if origin in (Union, UnionType):
        return "|".join(dict.fromkeys(_values(arg) for arg in args if arg is not NoneType))
    if origin is tuple:
        return f"{_values(args[0])} ..." if args[-1] is Ellipsis else " ".join(map(_values, args))
    return "" if annotation is bool else PLACEHOLDERS.get(annotation, "TEXT")


def _typed_default(default: Any) -> str:
    if default is MISSING or default is False or default in ("", ()):
        return ""
    if isinstance(default, Sequence) and not isinstance(default, str):
        return " ".join(map(_typed_default, default))
    return str(default)

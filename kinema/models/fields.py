"""Configs as plain data: are a config's values of the types it declares, and what it is as JSON and back."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from kinema.errors import UnknownField, did_you_mean


def check_fields(config: Any) -> None:
    """Refuses a value that is not of its field's declared type; the first line of a config's `__post_init__`."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        _check(type(config).__name__, field.name, getattr(config, field.name), hints[field.name])


def fields_of(config: Any) -> dict[str, object]:
    """A config as JSON can hold it; `with_fields` reads it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def with_fields(kind: type[Any], values: Mapping[str, object]) -> dict[str, Any]:
    """Keyword arguments for the config class `kind`, checked; JSON's lists become the tuples they were.

    Raises:
        UnknownField: the class has no such field.
        ValueError: a value is not of its field's type.
    """
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    for name in values:
        if name not in known:
            raise UnknownField(f"{kind.__name__} has no field {name!r}; {did_you_mean(name, known)}")
    checked = {}
    for name, value in values.items():
        if isinstance(value, list) and get_origin(hints[name]) is tuple:
            value = tuple(value)
        _check(kind.__name__, name, value, hints[name])
        checked[name] = float(value) if hints[name] is float and isinstance(value, int) else value
    return checked


def _check(owner: str, name: str, value: object, hint: Any) -> None:
    if not _fits(value, hint):
        raise ValueError(f"{owner}: {name}={value!r} is not {_in_words(hint)}")


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, Path) if hint is Path else type(value) is hint


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(hint))
    return f"of type {hint.__name__ if get_origin(hint) is None else hint}"

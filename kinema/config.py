"""Configs: frozen, keyword-only dataclasses whose constraints stand beside the field, to JSON and back.

    @config
    class Clip:
        frames: Annotated[int, Field(ge=1)] = 16
        rate: Annotated[float, Field(gt=0)] | None = None

A config that breaks a constraint cannot be built. Types are strict: True is not an int, "1" is not a number, 1 is a
float. A cross-field rule is a `__post_init__` that raises ValueError, or ConfigError with the field.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, dataclass_transform, get_args, get_origin, overload

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from kinema.errors import ConfigError, did_you_mean

T = TypeVar("T")

Rate = Annotated[float, Field(ge=0, lt=1)]
"""Probability of dropping something: at least 0 and below 1."""


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def config(cls: type[T]) -> type[T]:
    """Make a class a config.

    Raises:
        ConfigError: from the constructor, where a field is unknown, missing, or breaks its type or constraint.
    """
    settings = ConfigDict(strict=True, extra="forbid")
    made: Any = pydantic_dataclass(cls, frozen=True, kw_only=True, config=settings)
    build = made.__init__

    @functools.wraps(build)
    def checked(self: Any, *args: Any, **fields: Any) -> None:
        try:
            build(self, *args, **fields)
        except ValidationError as error:
            raise _one_line(error, cls) from None

    made.__init__ = checked
    return made  # type: ignore[no-any-return]  # made is Any


def to_json(value: Any) -> Any:
    """Return a config as plain data: dicts, lists, strings, numbers, None."""
    return _adapter(type(value)).dump_python(value, mode="json")


@overload
def from_json(kind: type[T], data: Any) -> T: ...
@overload
def from_json(kind: Any, data: Any) -> Any: ...
def from_json(kind: Any, data: Any) -> Any:
    """Build a config from plain data, as `to_json` gives it.

    Args:
        kind: class of the config, or a union of such classes that a `kind` field tells apart.

    Raises:
        ConfigError: the data does not fit; `field` is the dotted name of the first field at fault.
    """
    adapter = _adapter(kind)
    try:
        return adapter.validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise _one_line(error, kind) from None


def rename_fields(data: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename fields of plain data in place, as an older format of it is read, and return the data.

    Args:
        data: nested dicts.
        names: dotted name of each old field and its new one. A field that the data lacks is passed over.
    """
    for old, new in names.items():
        *parents, name = old.split(".")
        holder = data
        for parent in parents:
            holder = holder.get(parent, {})
        if name in holder:
            value, target = holder.pop(name), data
            *sections, field = new.split(".")
            for section in sections:
                target = target.setdefault(section, {})
            target[field] = value
    return data


_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


RULES = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "literal_error": "{expected}",
    "finite_number": "a finite number",
    "int_type": "an int",
    "int_from_float": "an int",
    "float_type": "a float",
    "bool_type": "True or False",
    "string_type": "a string",
    "none_required": "None",
}
"""What was expected, by pydantic's kinds of errors; for all others its own words are taken."""


def _one_line(error: ValidationError, owner: Any) -> ConfigError:
    """Return the first of pydantic's findings as one line that names the field, the value and the rule."""
    found = error.errors(include_url=False)[0]
    kind, context = found["type"], found.get("ctx", {})
    names, siblings = _walk(owner, found["loc"])
    field = ".".join(names)
    tagged = [o for o in _members(owner) if len(_members(owner)) > 1 and _is_label(next(iter(found["loc"]), ""), [o])]
    name = getattr((tagged or [owner])[0], "__name__", "config")
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return ConfigError(f"{name}: unknown field {field!r}; {did_you_mean(names[-1], siblings)}", field=field)
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return ConfigError(f"{name}: field {field!r} is missing", field=field)
    if kind == "value_error":
        rule_field = getattr(context["error"], "field", None)
        return ConfigError(
            f"{name}.{field}: {context['error']}" if field else f"{name}: {context['error']}",
            field=".".join(filter(None, (field, rule_field))),
        )
    if kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        return ConfigError(
            f"{name}: unknown kind {context['tag']!r} of {field or name}; {did_you_mean(context['tag'], tags)}",
            field=field,
        )
    if kind == "union_tag_not_found":
        return ConfigError(f"{name}: field {'.'.join([*names, 'kind'])!r} is missing", field=".".join([*names, "kind"]))
    rule = RULES[kind].format(**context) if kind in RULES else found["msg"].removeprefix("Input should be ")
    return ConfigError(f"{name}: {field}={found['input']!r}; expected {rule}", field=field)


def _walk(owner: Any, places: Sequence[str | int]) -> tuple[list[str], list[str]]:
    """Return the names of the fields on the way to a finding, without pydantic's labels of unions; and the last one's
    siblings.
    """
    names: list[str] = []
    for number, place in enumerate(places):
        owners = [member for member in _members(owner) if hasattr(member, "__pydantic_fields__")]
        holder = next((o for o in owners if place in o.__pydantic_fields__), None)
        if holder is not None:
            owner = holder.__pydantic_fields__[place].annotation
            names.append(str(place))
        elif number == len(places) - 1 and owners and isinstance(place, str) and not _is_label(place, owners):
            return [*names, place], list(owners[0].__pydantic_fields__)
        elif tagged := [o for o in owners if _is_label(place, [o])]:
            owner = tagged[0]
        elif get_origin(owner) is dict:
            names.append(str(place))
            owner = get_args(owner)[1]
        elif isinstance(place, int):
            names.append(str(place))
            owner = next((m for m in get_args(owner) if m is not Ellipsis), None)
    return names, []


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union, or the type itself."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    return list(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else [annotation]


def _is_label(place: str | int, owners: Sequence[Any]) -> bool:
    """Return whether pydantic names a member of a union so: by its tag or by its class."""
    return any(
        place == getattr(o.__pydantic_fields__.get("kind"), "default", None) or place == o.__name__ for o in owners
    )

"""Configs: frozen, keyword-only dataclasses with a constraint per field, convertible to JSON and back.

    @config
    class Clip:
        frames: Count = 16
        rate: Positive | None = None

A config that violates a constraint cannot be built. Types are strict: True is not an int and "1" is not a number, but 1
is a float. Floats are finite. Give an int that sizes memory or a loop an upper bound. Check
cross-field rules in `__post_init__`; raise ValueError, or ConfigError with the field.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, overload

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticKnownError

from kinema.errors import ConfigError, did_you_mean

T = TypeVar("T")

Rate = Annotated[float, Field(ge=0, lt=1)]
"""Drop probability, in [0, 1)."""
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0, le=2**31 - 1)]
"""Number of things that are not all in memory at once, such as steps."""
Channels = Annotated[int, Field(gt=0, le=2**16)]
"""Number of channels, attention heads or other parts of one layer."""
Layers = Annotated[int, Field(gt=0, le=128)]
Pixels = Annotated[int, Field(gt=0, le=2**14)]
"""Side of a picture or of a patch in pixels."""
Registers = Annotated[int, Field(ge=0, le=64)]
"""Number of register tokens."""


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def config(cls: type[T]) -> type[T]:
    """Make a class a config.

    The constructor raises ConfigError if a field is unknown, missing, or violates its type or constraint.
    """
    cls.__annotations__ = {name: _exact_literal(annotation) for name, annotation in cls.__annotations__.items()}
    settings = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    made: Any = pydantic_dataclass(cls, frozen=True, kw_only=True, config=settings)
    build = made.__init__

    @functools.wraps(build)
    def checked(self: Any, *args: Any, **fields: Any) -> None:
        try:
            build(self, *args, **fields)
        except ValidationError as error:
            raise _config_error(error, cls) from None

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
    """Build a config from plain data, as `to_json` returns it.

    `kind` is the class of the config, or a union of classes that differ in their `kind` field.

    Raises:
        ConfigError: The data does not fit; `field` is the dotted name of the first invalid field.
    """
    adapter = _adapter(kind)
    try:
        return adapter.validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise _config_error(error, kind) from None


def rename_fields(data: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename the fields of an older format in place, and return the data.

    `names` has dotted new names by dotted old names. Missing fields are skipped.
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
    "tuple_type": "a tuple",
    "model_attributes_type": "a config",
}
"""Expected values by type of pydantic error. Errors of other types keep pydantic's message."""


LONGEST_VALUE = 80
"""Number of characters of a value in a message; a longer one is shown by its type."""


def _exact_literal(annotation: Any) -> Any:
    """Make a Literal of ints refuse True and 3.0, which pydantic accepts as 1 and 3."""
    if get_origin(annotation) is not Literal or not all(type(choice) is int for choice in get_args(annotation)):
        return annotation
    *most, last = map(str, get_args(annotation))
    expected = f"{', '.join(most)} or {last}" if most else last

    def exact(value: Any) -> Any:
        if type(value) is not int:
            raise PydanticKnownError("literal_error", {"expected": expected})
        return value

    return Annotated[annotation, BeforeValidator(exact)]


def _config_error(error: ValidationError, owner: Any) -> ConfigError:
    """Convert the first pydantic error to one line with field, value and expected value."""
    errors = error.errors(include_url=False)
    first = next((e for e in errors if e["type"] == "finite_number"), errors[0])  # a member of a union, such as int
    kind, context = first["type"], first.get("ctx", {})
    names, siblings = _walk(owner, first["loc"])
    field = ".".join(names)
    tagged = [
        o for o in _members(owner) if len(_members(owner)) > 1 and _is_union_tag(next(iter(first["loc"]), ""), [o])
    ]
    name = getattr((tagged or [owner])[0], "__name__", "config")
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        message = f"{name}: unknown field {field!r}; {did_you_mean(names[-1], siblings)}"
    elif kind in ("missing", "missing_argument", "missing_keyword_only_argument", "union_tag_not_found"):
        field = f"{field}.kind".lstrip(".") if kind == "union_tag_not_found" else field
        message = f"{name}: field {field!r} is missing"
    elif kind == "value_error":
        message = f"{name}.{field}: {context['error']}" if field else f"{name}: {context['error']}"
        field = ".".join(filter(None, (field, getattr(context["error"], "field", None))))
    elif kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        message = f"{name}: unknown kind {context['tag']!r} of {field or name}; {did_you_mean(context['tag'], tags)}"
    else:
        rule = RULES[kind].format(**context) if kind in RULES else first["msg"].removeprefix("Input should be ")
        value = repr(first["input"])
        shown = value if len(value) <= LONGEST_VALUE else f"{type(first['input']).__name__}(...)"
        message = f"{name}: {field}={shown}; expected {rule}"
    return ConfigError(message, field=field)


def _walk(owner: Any, location: Sequence[str | int]) -> tuple[list[str], list[str]]:
    """Return the field names in a pydantic location, without union tags, and the siblings of the last field."""
    names: list[str] = []
    for number, place in enumerate(location):
        owners = [member for member in _members(owner) if hasattr(member, "__pydantic_fields__")]
        holder = next((o for o in owners if place in o.__pydantic_fields__), None)
        if holder is not None:
            owner = holder.__pydantic_fields__[place].annotation
            names.append(str(place))
        elif number == len(location) - 1 and owners and isinstance(place, str) and not _is_union_tag(place, owners):
            return [*names, place], list(owners[0].__pydantic_fields__)
        elif tagged := [o for o in owners if _is_union_tag(place, [o])]:
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


def _is_union_tag(place: str | int, owners: Sequence[Any]) -> bool:
    """Return whether a part of a pydantic location is the tag or the name of one of the classes of a union."""
    return any(
        place == getattr(o.__pydantic_fields__.get("kind"), "default", None) or place == o.__name__ for o in owners
    )

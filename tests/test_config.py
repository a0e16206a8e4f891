"""Tests of configs: constraints, JSON, and errors that name the field."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from kinema.config import config, from_json, to_json
from kinema.errors import ConfigError


@config
class Circle:
    kind: Literal["circle"] = "circle"
    points: Annotated[int, Field(ge=1)] = 16
    radius: Annotated[float, Field(gt=0)] | None = None
    sizes: tuple[int, ...] = (1, 2)
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.points == 7:
            raise ValueError("points=7 is not allowed")


@config
class Square:
    kind: Literal["square"] = "square"
    side: int = 1


@config
class Drawing:
    first: Circle = Field(default_factory=Circle)
    shape: Annotated[Circle | Square, Field(discriminator="kind")] = Circle()
    mode: Literal["fill", "line"] = "fill"
    layers: Literal[1, 3] = 1


@pytest.mark.parametrize(
    ("build", "field", "word"),
    [
        (lambda: Circle(points=True), "points", "an int"),
        (lambda: Circle(points=0), "points", "at least 1"),
        (lambda: Circle(points=2.0), "points", "an int"),
        (lambda: Circle(radius=True), "radius", "a float"),
        (lambda: Circle(point=3), "point", "'points'"),
        (lambda: Circle(points=7), "", "not allowed"),
        (lambda: Drawing(mode="dots"), "mode", "'fill' or 'line'"),
        (lambda: Drawing(first=3), "first", "Circle"),
        (lambda: Drawing(layers=True), "layers", "1 or 3"),
        (lambda: Drawing(layers=3.0), "layers", "1 or 3"),
        (lambda: Drawing(layers=2), "layers", "1 or 3"),
        (lambda: from_json(Drawing, {"layers": True}), "layers", "1 or 3"),
        (lambda: replace(Circle(), points=0), "points", "at least 1"),
        (lambda: from_json(Drawing, {"shape": {"kind": "circles"}}), "shape", "'circle'"),
        (lambda: from_json(Drawing, {"first": {"point": 1}}), "first.point", "'points'"),
        (lambda: from_json(Drawing, {"shape": {"kind": "square", "sides": 2}}), "shape.sides", "'side'"),
        (lambda: from_json(Drawing, {"first": {"points": 7}}), "first", "not allowed"),
        (lambda: from_json(Drawing, {"first": {"radius": "1"}}), "first.radius", "a float"),
    ],
)
def test_a_config_that_breaks_a_rule_names_the_field(build, field: str, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert caught.value.field == field
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_int_is_accepted_as_a_float() -> None:
    radius = Circle(radius=1).radius
    assert radius == 1.0
    assert type(radius) is float


def test_a_config_survives_a_round_trip_through_json() -> None:
    drawing = Drawing(first=Circle(out=Path("a"), radius=2.5), shape=Square(side=3))
    assert from_json(Drawing, {"layers": 3}).layers == 3
    data = to_json(drawing)
    assert data["first"]["sizes"] == [1, 2]
    assert from_json(Drawing, data) == drawing


def test_a_config_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Circle().points = 3

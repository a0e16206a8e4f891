"""Configs as plain data: the values fit the declared types, and JSON gives back what it was given."""

from dataclasses import dataclass
from typing import Literal

import pytest

from kinema.errors import UnknownField, did_you_mean
from kinema.models.fields import check_fields, fields_of, with_fields


@dataclass(frozen=True, kw_only=True)
class Config:
    count: int = 3
    rate: float = 0.5
    order: Literal["pre", "post"] = "pre"
    side: Literal[3, 5] = 3
    patch: tuple[int, int, int] = (1, 2, 3)
    dims: tuple[int, ...] = (1,)
    limit: int | None = None

    def __post_init__(self):
        check_fields(self)


@pytest.mark.parametrize(
    "good", [{"rate": 1}, {"side": 5}, {"dims": ()}, {"dims": (4, 5)}, {"limit": 7}, {"limit": None}], ids=str
)
def test_values_that_fit_are_taken(good):
    assert with_fields(Config, good) == good
    assert Config(**good)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"count": True}, "count=True is not of type int"),
        ({"count": 3.0}, r"count=3\.0 is not of type int"),
        ({"rate": "1"}, "rate='1' is not of type float"),
        ({"rate": False}, "rate=False is not of type float"),
        ({"order": "first"}, "order='first' is not one of 'pre', 'post'"),
        ({"side": 4}, "side=4 is not one of 3, 5"),
        ({"side": 3.0}, r"side=3\.0 is not one of 3, 5"),
        ({"patch": (1, 2)}, r"patch=\(1, 2\) is not of type tuple\[int, int, int\]"),
        ({"dims": (1, "2")}, "dims"),
        ({"limit": "7"}, "limit='7' is not of type int | None"),
    ],
)
def test_values_that_do_not_fit_are_refused(bad, message):
    for build in (lambda: Config(**bad), lambda: with_fields(Config, bad)):
        with pytest.raises(ValueError, match=f"Config: {message}"):
            build()


def test_lists_become_the_tuples_they_were_and_whole_numbers_floats():
    config = Config(patch=(4, 5, 6), dims=(7, 8))
    assert fields_of(config)["patch"] == [4, 5, 6]
    assert Config(**with_fields(Config, fields_of(config))) == config
    assert type(with_fields(Config, {"rate": 1})["rate"]) is float


def test_an_unknown_field_offers_the_nearest_or_all():
    with pytest.raises(UnknownField, match="Config has no field 'ordre'; did you mean 'order'"):
        with_fields(Config, {"ordre": "pre"})
    assert did_you_mean("zzz", ["b", "a"]) == "there is a, b"
